"""Synaptic sums of the dense engine: weights times source, in the fastest numbers that are exact.

Sums of integers are exact in any order while no partial sum can leave the type. The bound is the
largest row of absolute weights times the largest value: int8 products summed in int32 where weights
and values have 8 bits, float32 up to 2**24, float64 up to 2**53, the reference's integers beyond;
int32 where every channel meets one weight at a time. Sources and sums are tensors
[rows, height, width, channels].
"""

from __future__ import annotations

import platform
from functools import cache, cached_property
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from snn_deploy.graph import Projection
from snn_deploy.sim.reference import largest_sum, synaptic_sum
from snn_deploy.synapses import Conv2d, Dense, Shape, as_map, pooled_shape

_FLOAT32, _FLOAT64, _INT32 = 1 << 24, 1 << 53, (1 << 31) - 1
_BYTE = 127
# Patches are copied so many bytes at a time: into the second cache, out of it again.
_PATCH_BYTES = 1 << 20


class Sums:
    """Synapses of one projection on a device.

    Parameters
    ----------
    projection : of an integer graph; its exponent, delay and register are the caller's affair.
    shape : of the projection's source.
    device : where sources are and sums shall be.
    """

    def __init__(self, projection: Projection, shape: Shape, device: torch.device) -> None:
        self.projection, self.shape, self.device = projection, shape, device
        self.area = 1 if projection.pool is None else int(np.prod(projection.pool.kernel))
        self.target = as_map(projection.synapses.target_shape(self._pooled))
        self.row = _largest_row(projection)
        self._weights: dict[torch.dtype, Tensor] = {}

    @property
    def _pooled(self) -> Shape:
        return pooled_shape(self.shape, self.projection.pool)

    def largest(self, value: int) -> int:
        """No sum, whole or partial, over source values up to ``value`` exceeds this magnitude."""
        return self.row * self.area * value

    def kind(self, value: int) -> torch.dtype:
        """The type that multiplies source values up to ``value``; int64: the reference does."""
        largest, wide = self.largest(value), _has_float64(self.device)
        if self.projection.pool is not None and value * self.area > _FLOAT32 and not wide:
            return torch.int64
        if largest <= _INT32 and self._one_to_one:
            return torch.int32
        if largest <= _INT32 and value * self.area <= _BYTE and self._bytes is not None:
            return torch.int8
        if largest <= _FLOAT32:
            return torch.float32
        return torch.float64 if largest <= _FLOAT64 and wide else torch.int64

    def __call__(self, source: Tensor, value: int) -> Tensor:
        """Sums of [rows, *source map], integers up to ``value``, as [rows, *target map].

        Of type int32, float32, float64 or int64: whole numbers in each.
        """
        kind = self.kind(value)
        if kind == torch.int64:
            return self._by_reference(source)
        if self.projection.pool is not None:
            source = self._windows(source, value)
        source = source.view(kind) if source.dtype == torch.uint8 and kind == torch.int8 else source
        source = source.to(kind)
        if isinstance(self.projection.synapses, Conv2d):
            return self._convolved(source, self.projection.synapses)
        return self._products(source.reshape(1, len(source), -1)).reshape(-1, 1, 1, self.target[0])

    def _windows(self, source: Tensor, value: int) -> Tensor:
        """Sums over the pool's windows."""
        pool = self.projection.pool
        assert pool is not None
        small = value * self.area <= _FLOAT32
        maps = source.to(torch.float32 if small else torch.float64).permute(0, 3, 1, 2)
        summed = functional.avg_pool2d(maps, pool.kernel, pool.stride, divisor_override=1)
        return summed.permute(0, 2, 3, 1).contiguous()

    def _convolved(self, source: Tensor, synapses: Conv2d) -> Tensor:
        channels, height, width = self.target
        if source.dtype == torch.int32:
            return self._tap_by_tap(source, synapses)
        if source.dtype != torch.int8 and _direct_convolutions(self.device):
            made = functional.conv2d(
                source.permute(0, 3, 1, 2), self._kernel(source.dtype), None, synapses.stride,
                synapses.padding, synapses.dilation, synapses.groups,
            )  # fmt: skip
            return made.permute(0, 2, 3, 1).contiguous()
        patches = self._patches(source, synapses)
        taps = int(np.prod(patches.shape[1:]))
        rows = max(1, _PATCH_BYTES // (taps * source.element_size()))
        sums = [
            self._products(part.permute(5, 0, 1, 2, 3, 4, 6).flatten(1, 3).flatten(2))
            for part in torch.split(patches, rows)
        ]
        joined = sums[0] if len(sums) == 1 else torch.cat(sums)
        return joined.reshape(-1, height, width, channels)

    def _tap_by_tap(self, source: Tensor, synapses: Conv2d) -> Tensor:
        """One channel to one: a product for every place of the kernel."""
        patches = self._patches(source, synapses)
        weight = self._matrix(torch.int32)
        total = None
        for tap, (y, x) in enumerate(np.ndindex(*synapses.weight.shape[2:])):
            seen = patches[:, :, :, y, x, :, 0] * weight[:, tap, 0]
            total = seen if total is None else total.add_(seen)
        assert total is not None
        return total

    def _patches(self, source: Tensor, synapses: Conv2d) -> Tensor:
        """What the kernel sees, as [rows, height, width, kernel, kernel, groups, channels]."""
        (up, left), (down, right) = synapses.padding, synapses.stride
        source = functional.pad(source, (0, 0, left, left, up, up)).contiguous()
        rows, y, x, channel = source.stride()
        _, inside, *kernel = synapses.weight.shape
        size = (len(source), *self.target[1:], *kernel, synapses.groups, inside)
        spread = (y * synapses.dilation[0], x * synapses.dilation[1])
        return source.as_strided(
            size, (rows, y * down, x * right, *spread, inside * channel, channel)
        )

    def _products(self, source: Tensor) -> Tensor:
        """Matrices [groups, rows, inputs] times weights: [rows, targets]."""
        if source.dtype == torch.int8:
            assert self._bytes is not None
            weight, shift = self._bytes
            # where a size is 1 torch may read beyond memory unless strides are as if it were not
            sums = torch._int_mm(source.flatten().contiguous().view(source.shape[1:]), weight)
            return sums.bitwise_left_shift_(shift) if shift else sums
        return torch.bmm(source, self._matrix(source.dtype)).transpose(0, 1).flatten(1)

    def _by_reference(self, source: Tensor) -> Tensor:
        flat = source.permute(0, 3, 1, 2).reshape(-1, *self.shape).cpu().numpy()
        found = synaptic_sum(self.projection, self.shape, flat)
        channels_first = torch.from_numpy(found).reshape(-1, *self.target)
        return channels_first.permute(0, 2, 3, 1).contiguous().to(self.device)

    def _rows(self) -> NDArray[np.int64]:
        """Weights, [groups, targets of a group, inputs]; inputs ordered as patches and sources."""
        synapses = self.projection.synapses
        weight = synapses.weight.astype(np.int64)
        if isinstance(synapses, Dense):
            maps, groups = weight.reshape(-1, *as_map(self._pooled)), 1
        else:
            maps, groups = weight, synapses.groups
        return maps.transpose(0, 2, 3, 1).reshape(groups, len(weight) // groups, -1)

    def _kernel(self, dtype: torch.dtype) -> Tensor:
        """Weights as torch's convolution wants them, in memory as its kernels want them."""
        if dtype not in self._weights:
            weight = torch.from_numpy(self.projection.synapses.weight.astype(np.int64)).to(dtype)
            self._weights[dtype] = weight.contiguous(memory_format=torch.channels_last)
        return self._weights[dtype]

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        if dtype not in self._weights:
            weight = torch.from_numpy(np.ascontiguousarray(self._rows()))
            self._weights[dtype] = weight.to(dtype).to(self.device).transpose(1, 2)
        return self._weights[dtype]

    @cached_property
    def _one_to_one(self) -> bool:
        synapses = self.projection.synapses
        return isinstance(synapses, Conv2d) and synapses.weight.shape[:2] == (synapses.groups, 1)

    @cached_property
    def _bytes(self) -> tuple[Tensor, int] | None:
        """Weights / 2**shift as int8 [inputs, targets] and the shift, None where this is no use."""
        if self.device.type != "cpu" or not integer_products():
            return None
        rows = self._rows()
        bits = int(np.bitwise_or.reduce(rows, axis=None))
        shift = (bits & -bits).bit_length() - 1 if bits else 0
        small = rows >> shift
        if len(rows) > 1 or small.min() < -_BYTE - 1 or small.max() > _BYTE:
            return None
        weight = torch.from_numpy(small[0].astype(np.int8)).T
        return weight.clone(memory_format=torch.contiguous_format), shift


def _largest_row(projection: Projection) -> int:
    """The largest sum of absolute weights onto one target."""
    weight = projection.synapses.weight
    if largest_sum(projection, 1) >= 1 << 63:  # too much for a sum of int64
        return largest_sum(projection, 1)
    return int(np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1).max())


@cache
def integer_products() -> bool:
    """Whether this processor multiplies int8 matrices exactly, and torch has a fast way to.

    Without dot-product instructions (VNNI) oneDNN adds pairs of products in 16 bits, which saturate
    where weights are -128; the function is torch's own, and may go.
    """
    fast = _is_x86() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not fast or not hasattr(torch, "_int_mm"):
        return False
    for value, weight in product((-128, 1, 127), (-128, 127)):
        values = torch.full((17, 64), value, dtype=torch.int8)
        weights = torch.full((64, 16), weight, dtype=torch.int8)
        if not bool((torch._int_mm(values, weights) == 64 * value * weight).all()):
            return False
    return True


@cache
def _has_float64(device: torch.device) -> bool:
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):  # Metal's
        return False
    return True


def _direct_convolutions(device: torch.device) -> bool:
    """Whether convolutions multiply weights, not sums of weights (Winograd's) or transforms."""
    return device.type == "cpu" and _is_x86()  # what oneDNN is told to use there


def _is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")
