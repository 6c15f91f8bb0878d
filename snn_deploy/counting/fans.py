"""Fan-outs of source neurons, by the rules that counters use.

All are a number of targets per source neuron times a factor: only the exact ones differ from
neuron to neuron, the others are the same for every neuron that a projection sees.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.synapses import (
    AxisReach,
    Conv2d,
    Dense,
    Shape,
    SumPool,
    Synapses,
    as_map,
    axis_reach,
    fan_out,
    one_to_one,
    pooled_shape,
)

FanOutRule = Literal["exact", "padded", "ceiling"]
ZeroWeights = Literal["counted", "free"]


@dataclass(frozen=True, slots=True, eq=False)
class Fan:
    """Targets of every source neuron: ``reach`` (int64, shape of the source) times ``each``."""

    reach: NDArray[np.int64]
    each: Fraction = Fraction(1)

    def total(self, sent: NDArray[np.int64] | int = 1) -> Fraction:
        """Targets reached by what every source neuron sent (shape of the source, or one for all).

        The sum over neurons stays below 2**63; the factor is applied to it without rounding.
        """
        return self.each * int((self.reach * sent).sum())


def fan(
    synapses: Synapses,
    pool: SumPool | None,
    source: Shape,
    rule: FanOutRule = "exact",
    zero_weights: ZeroWeights = "counted",
) -> Fan:
    """Fan-out of a projection.

    Parameters
    ----------
    synapses, pool, source : of the projection; ``source`` is the shape in front of the pool.
    rule : ``exact``: distinct target neurons, borders seen. ``padded``: multiplications of the
        whole layer, those of the zero padding too, spread evenly over the neurons behind the pool.
        ``ceiling``: the bound ceil(K/S) per axis of a convolution, whatever the border (Lemaire et
        al. 2022, Eq. 1.4).
    zero_weights : ``free``: synapses whose weight is zero are none. Not with ``ceiling``.
    """
    if rule == "exact":
        if zero_weights == "free":
            return Fan(_without_zeros(synapses, pool, source))
        return Fan(fan_out(synapses, pool, source))
    seen = pooled_shape(source, pool)
    if rule == "padded":
        each = Fraction(padded_products(synapses, seen, zero_weights), math.prod(seen))
    else:
        each = Fraction(_largest(synapses))
    return Fan(windows(pool, source), each)


def windows(pool: SumPool | None, source: Shape) -> NDArray[np.int64]:
    """Number of pooling windows that each source neuron is in (shape ``source``); one if none."""
    if pool is None:
        return np.ones(source, np.int64)
    return fan_out(one_to_one(pool.output_shape(source)), pool, source)


def padded_products(synapses: Synapses, seen: Shape, zero_weights: ZeroWeights = "counted") -> int:
    """Multiplications of a layer evaluated once over ``seen``, those of zero padding included.

    (C_in / G) * C_out * K_h * K_w * H_out * W_out; N_in * N_out of a Dense.
    """
    weight = synapses.weight
    used = weight.size if zero_weights == "counted" else int(np.count_nonzero(weight))
    if isinstance(synapses, Dense):
        return used
    return used * math.prod(as_map(synapses.target_shape(seen))[1:])


def kernel_targets(synapses: Synapses) -> int:
    """Weights that one source neuron meets if it is nowhere near a border: C_out/G * K_h * K_w."""
    if isinstance(synapses, Dense):
        return len(synapses.weight)
    return len(synapses.weight) // synapses.groups * math.prod(synapses.weight.shape[2:])


def _largest(synapses: Synapses) -> int:
    """Most targets that one source neuron can reach: C_out/G * ceil(K_h/S_h) * ceil(K_w/S_w)."""
    if isinstance(synapses, Dense):
        return len(synapses.weight)
    kernels: tuple[int, ...] = synapses.weight.shape[2:]
    sides = zip(kernels, synapses.stride, strict=True)
    taps = [-(-kernel // stride) for kernel, stride in sides]
    return len(synapses.weight) // synapses.groups * math.prod(taps)


def _without_zeros(synapses: Synapses, pool: SumPool | None, source: Shape) -> NDArray[np.int64]:
    """Distinct targets that each source neuron reaches with a weight that is not zero.

    Where pooling windows overlap, the weight of a pair is the sum over its ways.
    """
    channels, height, width = as_map(source)
    seen = as_map(pooled_shape(source, pool))
    weight, groups = synapses.weight, 1
    if isinstance(synapses, Conv2d):
        groups = synapses.groups
    else:
        weight = weight.reshape(-1, *seen)
    vertical, horizontal = axis_reach(synapses, pool, source)
    found = np.zeros((channels, height, width), np.int64)
    for rows, down in _ways(vertical, height).items():
        band = weight[:, :, list(rows)].sum(axis=2)
        for columns, across in _ways(horizontal, width).items():
            joined = band[:, :, list(columns)].sum(axis=2) != 0
            targets = joined.reshape(groups, -1, joined.shape[1]).sum(axis=1).reshape(-1, 1, 1)
            found += targets * np.outer(down, across)
    return found.reshape(source)


def _ways(reach: AxisReach, size: int) -> dict[tuple[int, ...], NDArray[np.int64]]:
    """For every set of kernel taps: how many outputs each input index reaches through it."""
    pairs = Counter((taps, index) for sources in reach.taps for index, taps in sources)
    found: dict[tuple[int, ...], NDArray[np.int64]] = {}
    for (taps, index), outputs in pairs.items():
        found.setdefault(taps, np.zeros(size, np.int64))[index] = outputs
    return found
