"""Kinds of synapses, and their geometry: which source neuron reaches which target neuron.

Shapes are (C, H, W) for maps and (N,) for vectors, without batch or time. A vector counts as a map
of one pixel with N channels. Geometry is separable, so everything is said per axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError

Shape = tuple[int, ...]
Pair = tuple[int, int]


def as_map(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) of a shape; a vector (N,) is (N, 1, 1)."""
    if len(shape) == 1:
        return shape[0], 1, 1
    channels, height, width = shape
    return channels, height, width


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """All-to-all synapses. ``weight`` is (N_out, N_in), N_in in C, H, W order of the source."""

    weight: NDArray[Any]

    def target_shape(self, source: Shape) -> Shape:
        """Shape of the target population for a (pooled) source."""
        if self.weight.shape[1] != int(np.prod(source)):
            raise SnnDeployError(
                "SD408",
                f"dense weights of shape {self.weight.shape} do not fit a source of shape {source}",
            )
        return (self.weight.shape[0],)


@dataclass(frozen=True, slots=True, eq=False)
class Conv2d:
    """Convolution synapses (cross-correlation, as in PyTorch), zero padded.

    ``weight`` is (C_out, C_in / groups, K_h, K_w); pairs are (vertical, horizontal). Over a vector,
    a map of one pixel, a convolution makes a vector.
    """

    weight: NDArray[Any]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def target_shape(self, source: Shape) -> Shape:
        """Shape of the target population for a (pooled) source."""
        out_channels, group_channels, *kernel = self.weight.shape
        if (
            len(source) not in (1, 3)
            or self.groups < 1
            or group_channels * self.groups != source[0]
            or out_channels % self.groups
        ):
            raise SnnDeployError(
                "SD408",
                f"convolution weights of shape {self.weight.shape} in {self.groups} group(s) "
                f"do not fit a source of shape {source}",
            )
        out = tuple(
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(
                as_map(source)[1:], kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        if min(out) < 1:
            raise SnnDeployError(
                "SD408", f"a kernel of {tuple(kernel)} does not fit a source of shape {source}"
            )
        if len(source) == 3:
            return (out_channels, *out)
        if out != (1, 1):
            raise SnnDeployError("SD408", f"a convolution makes a map of {out} of a vector")
        return (out_channels,)


Synapses = Dense | Conv2d


def one_to_one(shape: Shape, weight: int = 1) -> Conv2d:
    """Synapses from every neuron to the one in its place, all of the same integer weight."""
    return Conv2d(np.full((shape[0], 1, 1, 1), weight, np.int16), groups=shape[0])


def hands_on(synapses: Synapses) -> bool:
    """Whether synapses hand every value on to the neuron in its place, as it is."""
    return (
        isinstance(synapses, Conv2d)
        and synapses.weight.shape == (synapses.groups, 1, 1, 1)
        and (synapses.stride, synapses.padding) == ((1, 1), (0, 0))
        and bool((synapses.weight == 1).all())
    )


def ungrouped(synapses: Conv2d) -> Conv2d:
    """The same convolution without groups: float64 zeros where groups have no synapse."""
    groups = synapses.groups
    if groups == 1:
        return synapses
    outputs, inside, *kernel = synapses.weight.shape
    weight = np.zeros((outputs, inside * groups, *kernel))
    rows = outputs // groups
    for group in range(groups):
        of = slice(group * rows, (group + 1) * rows)
        weight[of, group * inside : (group + 1) * inside] = synapses.weight[of]
    return replace(synapses, weight=weight, groups=1)


def with_weights(synapses: Synapses, weight: NDArray[Any]) -> Synapses:
    """The same connectivity with other weights."""
    return replace(synapses, weight=weight)


@dataclass(frozen=True, slots=True)
class SumPool:
    """Sum over unpadded windows; what is left over at the lower and right border is dropped."""

    kernel: Pair
    stride: Pair

    def output_shape(self, source: Shape) -> Shape:
        """Shape after pooling a map (C, H, W)."""
        if len(source) != 3:
            raise SnnDeployError("SD408", f"only maps can be pooled, not a shape of {source}")
        channels, height, width = as_map(source)
        out = tuple(
            (size - k) // s + 1
            for size, k, s in zip((height, width), self.kernel, self.stride, strict=True)
        )
        if min(out) < 1:
            raise SnnDeployError(
                "SD408", f"a pooling window of {self.kernel} does not fit a map of {source}"
            )
        return (channels, *out)


def pooled_shape(source: Shape, pool: SumPool | None) -> Shape:
    """Shape that synapses see of a source, behind its pool if there is one."""
    return source if pool is None else pool.output_shape(source)


@dataclass(frozen=True, slots=True)
class AxisReach:
    """One axis of the connectivity: through which kernel taps an input index reaches an output.

    ``taps[output]`` lists (input index, kernel taps); more than one tap only where pooling windows
    overlap.
    """

    taps: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]

    def targets_per_source(self, size: int) -> NDArray[np.int64]:
        """For each of ``size`` input indices, the number of distinct output indices reached."""
        count = np.zeros(size, np.int64)
        for sources in self.taps:
            for index, _ in sources:
                count[index] += 1
        return count


def axis_reach(synapses: Synapses, pool: SumPool | None, source: Shape) -> tuple[AxisReach, ...]:
    """Vertical and horizontal reach of a projection from ``source``; one tap per kernel position.

    A Dense projection is a convolution whose kernel covers the whole (pooled) map.
    """
    seen = as_map(pooled_shape(source, pool))[1:]
    if isinstance(synapses, Dense):
        kernel, stride, padding, dilation = seen, (1, 1), (0, 0), (1, 1)
    else:
        kernel = (synapses.weight.shape[2], synapses.weight.shape[3])
        stride, padding, dilation = synapses.stride, synapses.padding, synapses.dilation
    axes = []
    for axis in (0, 1):
        window, step = (1, 1) if pool is None else (pool.kernel[axis], pool.stride[axis])
        outputs = (
            seen[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        ) // stride[axis] + 1
        rows = []
        for output in range(outputs):
            reached: dict[int, list[int]] = {}
            for tap in range(kernel[axis]):
                pooled = output * stride[axis] - padding[axis] + dilation[axis] * tap
                if 0 <= pooled < seen[axis]:
                    for offset in range(window):
                        reached.setdefault(pooled * step + offset, []).append(tap)
            rows.append(tuple((index, tuple(taps)) for index, taps in sorted(reached.items())))
        axes.append(AxisReach(tuple(rows)))
    return tuple(axes)


def fan_out(synapses: Synapses, pool: SumPool | None, source: Shape) -> NDArray[np.int64]:
    """Number of distinct target neurons of each source neuron, exact at borders.

    Zero weights count: a synapse is a place in the kernel, whatever it holds.

    Returns
    -------
    int64 array of shape ``source``.
    """
    vertical, horizontal = axis_reach(synapses, pool, source)
    channels, height, width = as_map(source)
    groups = synapses.groups if isinstance(synapses, Conv2d) else 1
    per_channel = synapses.weight.shape[0] // groups
    fan = per_channel * np.outer(
        vertical.targets_per_source(height), horizontal.targets_per_source(width)
    )
    return np.broadcast_to(fan, (channels, height, width)).reshape(source).copy()
