"""Linear maps between neurons, composed and added: what a chain of NIR's nodes does to spikes.

A map is what a projection is: a sum over windows of the source, then synapses, then delays. Where
the composition of two maps has no such form, it is written out as a dense matrix. Composition is
exact algebra in real numbers; in float64 its sums may round otherwise than one node after another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Projection
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses, pooled_shape, ungrouped

Array = NDArray[Any]
Delay = int | NDArray[np.int64]

# Weights of a matrix that no node of the file holds: 256 MiB.
MAX_DENSE = 1 << 25


class UnmappableError(Exception):
    """A composition or a sum that is no projection, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """From a source of this shape, (C, H, W) or (N,): pool, synapses (None: identity), delay.

    ``delay`` is in timesteps, one for all or broadcastable to (N_target, N_source).
    """

    source: Shape
    pool: SumPool | None = None
    synapses: Synapses | None = None
    delay: Delay = 0

    @property
    def target(self) -> Shape:
        """Shape of what it makes."""
        seen = pooled_shape(self.source, self.pool)
        return seen if self.synapses is None else self.synapses.target_shape(seen)

    @property
    def whole(self) -> Synapses:
        """The synapses; identity written out."""
        if self.synapses is not None:
            return self.synapses
        channels = pooled_shape(self.source, self.pool)[0]
        return Conv2d(np.ones((channels, 1, 1, 1)), groups=channels)

    def __call__(self, values: Array) -> Array:
        """The map of values [..., *source], float64 [..., *target], delays left out."""
        projection = Projection(source="", target="", synapses=self.whole, pool=self.pool)
        return np.asarray(synaptic_sum(projection, self.source, np.asarray(values, np.float64)))

    def simplified(self) -> LinearMap:
        """The same map; delays that are all the same as one."""
        return replace(self, delay=_one_if_same(np.asarray(self.delay)))

    def dense(self) -> LinearMap:
        """The same map as a matrix.

        Raises
        ------
        UnmappableError
            If it has more than :data:`MAX_DENSE` weights.
        """
        if isinstance(self.synapses, Dense) and self.pool is None:
            return self
        size, made = math.prod(self.source), math.prod(self.target)
        if size * made > MAX_DENSE:
            raise UnmappableError(
                f"written out as a matrix it has {size * made} weights, more than {MAX_DENSE}"
            )
        matrix = np.empty((made, size))
        for start in range(0, size, 256):
            some = np.arange(start, min(start + 256, size))
            units = np.zeros((len(some), size))
            units[np.arange(len(some)), some] = 1
            matrix[:, some] = self(units.reshape(-1, *self.source)).reshape(len(some), made).T
        return LinearMap(self.source, None, Dense(matrix), self.delay)

    def then(self, second: LinearMap) -> LinearMap:
        """First this map, then another.

        Raises
        ------
        UnmappableError
            If no projection does that.
        """
        delay = _delay_of_both(self, second)
        if self.target != second.source:  # the same neurons in another shape
            second = second.dense()
        if second.pool is None and second.synapses is None:
            composed = replace(self, delay=0)
        elif self.pool is None and self.synapses is None:
            composed = replace(second, source=self.source, delay=0)
        else:
            composed = _pools(self, second) or _synapses(self, second)
        if isinstance(delay, np.ndarray):
            composed = composed.dense()
        return replace(composed, delay=delay)

    def plus(self, other: LinearMap) -> LinearMap:
        """The sum of two maps of the same source.

        Raises
        ------
        UnmappableError
            If no projection does that.
        """
        if not np.array_equal(self.delay, other.delay):
            raise UnmappableError("two ways of different delay from the same neurons")
        mine, theirs = self.whole, other.whole
        if self.pool == other.pool and type(mine) is type(theirs):
            same = mine.weight.shape == theirs.weight.shape
            if isinstance(mine, Conv2d) and isinstance(theirs, Conv2d):
                same &= _geometry(mine) == _geometry(theirs)
            if same:
                return replace(self, synapses=replace(mine, weight=mine.weight + theirs.weight))
        first, second = self.dense(), other.dense()
        return replace(first, synapses=Dense(first.whole.weight + second.whole.weight))


def scaled(shape: Shape, factor: Array) -> LinearMap:
    """Multiplication of every value by its factor, broadcastable to ``shape``."""
    factor = np.broadcast_to(factor, shape)
    per_channel = factor.reshape(shape[0], -1)[:, :1]
    if (factor.reshape(shape[0], -1) == per_channel).all():
        if (per_channel == 1).all():
            return LinearMap(shape)
        return LinearMap(shape, None, Conv2d(per_channel.reshape(-1, 1, 1, 1), groups=shape[0]))
    if factor.size**2 > MAX_DENSE:
        raise UnmappableError(f"{factor.size} factors of their own")
    return LinearMap(shape, None, Dense(np.diag(factor.reshape(-1))))


def _geometry(synapses: Conv2d) -> tuple[Any, ...]:
    return synapses.stride, synapses.padding, synapses.dilation, synapses.groups


def _delay_of_both(first: LinearMap, second: LinearMap) -> Delay:
    """Delay of every synapse of a composition, if each has one.

    An array of delays per neuron is that of a map that does nothing else.
    """
    early, late = np.asarray(first.delay), np.asarray(second.delay)
    if late.ndim:
        late = late.reshape((-1, 1) if _mixes(first) else (1, -1))
    if _mixes(second) and early.ndim and early.shape[0] != 1:
        raise UnmappableError("a sum of what has waited for different times")
    return _one_if_same(early + late)


def _one_if_same(delay: Array) -> Delay:
    """One delay, where all are the same."""
    return delay if len(np.unique(delay)) > 1 else int(delay.flat[0])


def _mixes(one: LinearMap) -> bool:
    """Whether a target may have several sources, or another place than its source."""
    return one.pool is not None or not (one.synapses is None or _in_place(one.synapses))


def _in_place(synapses: Synapses) -> bool:
    """Whether every neuron reaches the one in its place only."""
    return (
        isinstance(synapses, Conv2d)
        and synapses.weight.shape == (synapses.groups, 1, 1, 1)
        and (synapses.stride, synapses.padding) == ((1, 1), (0, 0))
    )


def _pools(first: LinearMap, second: LinearMap) -> LinearMap | None:
    """A pool alone, then another map."""
    if first.synapses is not None or first.pool is None:
        return None
    if second.pool is None:
        return replace(second, source=first.source, pool=first.pool, delay=0)
    if first.pool.kernel != first.pool.stride:
        return None
    # windows side by side: a window of windows is a window
    (high, wide), (kernel, stride) = first.pool.kernel, (second.pool.kernel, second.pool.stride)
    pool = SumPool((high * kernel[0], wide * kernel[1]), (high * stride[0], wide * stride[1]))
    return replace(second, source=first.source, pool=pool, delay=0)


def _synapses(first: LinearMap, second: LinearMap) -> LinearMap:
    """Synapses, then another map."""
    one, two = first.whole, second.whole
    if isinstance(one, Conv2d) and isinstance(two, Conv2d):
        merged = two
        if second.pool is not None and two.padding == (0, 0):
            windows = np.ones((len(one.weight), 1, *second.pool.kernel))
            pool = Conv2d(windows, stride=second.pool.stride, groups=len(one.weight))
            merged = _convolutions(pool, two)
        if merged.padding == (0, 0) or (second.pool is None and _pointwise(one)):
            return LinearMap(first.source, first.pool, _convolutions(one, merged))
    if isinstance(one, Dense) and isinstance(two, Dense) and second.pool is None:
        return LinearMap(first.source, first.pool, Dense(two.weight @ one.weight))
    if second.pool is None and isinstance(two, Dense) and _in_place(one):
        # factors of channels go into the columns
        shape = pooled_shape(first.source, first.pool)
        factor = np.broadcast_to(one.weight.reshape(-1, *[1] * (len(shape) - 1)), shape)
        return LinearMap(first.source, first.pool, Dense(two.weight * factor.reshape(-1)))
    one_each = _in_place(two) and len(two.weight) == len(one.weight)
    if second.pool is None and isinstance(one, Dense) and one_each:  # of targets into the rows
        return LinearMap(first.source, first.pool, Dense(two.weight.reshape(-1, 1) * one.weight))
    matrix = replace(second, delay=0).dense().whole.weight
    if isinstance(one, Dense):
        return LinearMap(first.source, first.pool, Dense(matrix @ one.weight))
    return LinearMap(
        first.source, None, Dense(matrix @ replace(first, delay=0).dense().whole.weight)
    )


def _pointwise(synapses: Conv2d) -> bool:
    """Whether the padding of what follows is zero in what comes before as well."""
    return synapses.weight.shape[2:] == (1, 1) and (
        (synapses.stride, synapses.padding) == ((1, 1), (0, 0))
    )


def _convolutions(one: Conv2d, two: Conv2d) -> Conv2d:
    """Two convolutions as one; the second without padding, or the first pointwise.

    Output y of the second sees values y*s2 + b*d2 of the first, and these see values
    (y*s2 + b*d2)*s1 + a*d1: kernel places a*d1 + b*d2*s1 at stride s1*s2.
    """
    groups = one.groups if _channelwise(one) and _channelwise(two) else 1
    first = one.weight if groups > 1 else ungrouped(one).weight
    second = two.weight if groups > 1 else ungrouped(two).weight
    spread = [d * s for d, s in zip(two.dilation, one.stride, strict=True)]
    extent = [
        (n - 1) * d + (m - 1) * far + 1
        for n, d, m, far in zip(
            first.shape[2:], one.dilation, second.shape[2:], spread, strict=True
        )
    ]
    weight = np.zeros((len(second), first.shape[1], *extent))
    for a_y, a_x in np.ndindex(*first.shape[2:]):
        for b_y, b_x in np.ndindex(*second.shape[2:]):
            y, x = a_y * one.dilation[0] + b_y * spread[0], a_x * one.dilation[1] + b_x * spread[1]
            here, there = first[:, :, a_y, a_x], second[:, :, b_y, b_x]
            weight[:, :, y, x] += there * here if groups > 1 else there @ here
    dilation = (1, 1)
    if _pointwise(one):  # places between those of the second kernel stay empty
        weight, dilation = weight[:, :, :: spread[0], :: spread[1]], two.dilation
    elif second.shape[2:] == (1, 1):
        weight, dilation = weight[:, :, :: one.dilation[0], :: one.dilation[1]], one.dilation
    padding = [p + q * s for p, q, s in zip(one.padding, two.padding, one.stride, strict=True)]
    stride = [s * r for s, r in zip(one.stride, two.stride, strict=True)]
    return Conv2d(weight, (stride[0], stride[1]), (padding[0], padding[1]), dilation, groups)


def _channelwise(synapses: Conv2d) -> bool:
    return synapses.weight.shape[:2] == (synapses.groups, 1)
