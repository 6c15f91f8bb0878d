"""The step of a weight grid that errs least, found exactly.

With step D a weight w becomes ``D * k``, k the integer nearest to w / D in [low, high]; the error
is ``J(D) = sum m (D k - w)^2`` with a moment m >= 0 for each weight. Between two steps at which
some k changes, J is a parabola in D with the vertex ``sum m k w / sum m k^2``; a weight changes
from k to k + 1 at ``D = |w| / (k + 1/2)``. Sorted, these breakpoints are all there is to search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# From twice the step at which the largest weight fits, to one at which it is clipped to 1/32 (in
# windows of one factor each).
_WIDEST, _WINDOWS, _FACTOR = 2.0, 96, 2.0**-0.0625
# Breakpoints that are looked at: all of them while weights or codes are few, else those in the
# windows that look best.
_MOST_BREAKPOINTS = 4_000_000


def step_error(weight: Floats, moment: Floats, step: float, low: int, high: int) -> float:
    """J at one step: the moment-weighted squared error of rounding to the grid."""
    codes = np.clip(np.rint(weight / step), low, high)
    return float((moment * (codes * step - weight) ** 2).sum())


def least_error_step(weight: Floats, moment: Floats, low: int, high: int) -> float:
    """The step with the smallest J.

    Parameters
    ----------
    weight, moment : of one shape; some weight is not 0.
    low, high : the codes that there are, low < 0 < high.

    Returns
    -------
    float
        Exact while breakpoints are few; with more, exact in those windows of the search whose ends
        look best, and never worse than any end.
    """
    kept = (weight != 0) & (moment > 0)
    if not kept.any():
        kept, moment = weight != 0, np.ones_like(moment)
    weight, moment = weight[kept], moment[kept]
    size, limit = np.abs(weight), np.where(weight < 0, -low, high).astype(np.float64)
    ends = _WIDEST * float((size / limit).max()) * _FACTOR ** np.arange(_WINDOWS + 1)
    errors = np.array([step_error(weight, moment, end, low, high) for end in ends])
    best, least = float(ends[errors.argmin()]), float(errors.min())
    looked_at = 0
    for window in np.argsort(np.minimum(errors[:-1], errors[1:]), kind="stable"):
        found, error, count = _best_within(
            size, moment, limit, float(ends[window]), float(ends[window + 1])
        )
        if error < least:
            best, least = found, error
        looked_at += count
        if looked_at > _MOST_BREAKPOINTS:
            break
    return best


def _best_within(
    size: Floats, moment: Floats, limit: Floats, widest: float, narrowest: float
) -> tuple[float, float, int]:
    """The best step from ``widest`` down to ``narrowest``, its J, and the number of breakpoints."""
    first = np.minimum(np.rint(size / widest), limit)
    last = np.minimum(np.rint(size / narrowest), limit)
    count = np.maximum(last - first, 0).astype(np.int64)
    owner = np.repeat(np.arange(len(size)), count)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    code = first[owner] + nth  # that this breakpoint leaves behind
    at = np.clip(size[owner] / (code + 0.5), narrowest, widest)
    order = np.argsort(-at, kind="stable")
    m, k, w = moment[owner][order], code[order], size[owner][order]
    squares = float((moment * first**2).sum()) + np.concatenate(([0.0], np.cumsum(m * (2 * k + 1))))
    products = float((moment * first * size).sum()) + np.concatenate(([0.0], np.cumsum(m * w)))
    bounds = np.concatenate(([widest], at[order], [narrowest]))
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(squares > 0, products / squares, widest)
    step = np.clip(vertex, bounds[1:], bounds[:-1])
    error = step**2 * squares - 2 * step * products + float((moment * size**2).sum())
    best = int(error.argmin())
    return float(step[best]), float(error[best]), len(owner)
