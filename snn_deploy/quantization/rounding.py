"""Learned rounding: up or down per weight, so that the currents err least on given inputs.

With inputs s and wanted currents t, the mean squared error of a channel's current is a quadratic
in its weights w, ``w H w - 2 g w + const`` with the Gram matrix ``H = E[s s^T]`` and
``g = E[t s]``: the inputs are needed for these two only. Each weight is the grid point below or
above its float value (as in AdaRound, Nagel et al., ICML 2020). Coordinate descent visits them in
turn and takes the better of the two until none changes: deterministic, and never worse than where
it starts, the nearest grid points. It ends where no single change helps, which need not be the
best of all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PASSES = 100
# A change must gain more than the rounding of this arithmetic, or it could go in circles.
_GAIN = 1e-12


def rounding_error(weight: Floats, gram: Floats, cross: Floats) -> Floats:
    """``w H w - 2 g w`` per channel: the mean squared error of the current, but for a constant.

    weight, cross : [channels, synapses]; gram : [synapses, synapses].
    """
    return np.asarray(((weight @ gram - 2 * cross) * weight).sum(axis=1))


def learned_rounding(
    start: Floats, other: Floats, gram: Floats, cross: Floats
) -> NDArray[np.bool_]:
    """Which weights to move from ``start`` to ``other``.

    Parameters
    ----------
    start, other : [channels, synapses], the two values that each weight may have; equal where it
        has one only.
    gram, cross : see :func:`rounding_error`.

    Returns
    -------
    bool [channels, synapses]
        Where ``other`` is taken.
    """
    weight, moved = start.copy(), np.zeros(start.shape, bool)
    gradient = weight @ gram - cross  # half of it
    scale = np.abs(cross).max(initial=0.0) + np.abs(gram).max(initial=0.0)
    for _ in range(_PASSES):
        changed = False
        for synapse in np.flatnonzero((start != other).any(axis=0)):
            step = np.where(moved[:, synapse], start[:, synapse], other[:, synapse])
            step = step - weight[:, synapse]
            gain = -step * (2 * gradient[:, synapse] + step * gram[synapse, synapse])
            better = gain > _GAIN * scale * np.abs(step)
            if better.any():
                changed = True
                moved[better, synapse] ^= True
                weight[better, synapse] += step[better]
                gradient[better] += np.outer(step[better], gram[synapse])
        if not changed:
            break
    return moved
