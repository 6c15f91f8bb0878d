"""Kernels made square, exactly: NIR's shape rule takes a kernel's height for its width.

Zeros are put around the smaller side and the padding grows with them, which changes nothing where
the sides differ by an even number. Where they do not, the convolution makes more at the lower right
border than was asked for; a second one, that hands every neuron on, crops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.synapses import Conv2d, Pair

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """A convolution with a square kernel, and how many rows and columns are left to crop."""

    synapses: Conv2d
    crop: Pair | None


def square(synapses: Conv2d, size: Pair) -> Square:
    """The same convolution of maps of this height and width, square."""
    kernel = (synapses.weight.shape[2], synapses.weight.shape[3])
    if kernel[0] == kernel[1]:
        return Square(synapses, None)
    reach = [
        n + 2 * p - d * (k - 1) - 1
        for n, k, p, d in zip(size, kernel, synapses.padding, synapses.dilation, strict=True)
    ]  # where the last window may begin

    def surplus(axis: int, shift: int) -> int:
        """Outputs too many, if the kernel has ``shift`` more zeros before it than behind it."""
        step = synapses.stride[axis]
        return int((reach[axis] + shift * synapses.dilation[axis]) // step - reach[axis] // step)

    side = max(kernel)
    lead = [(side - k + 1) // 2 for k in kernel]
    stride = list(synapses.stride)
    for axis in (0, 1):
        shift = 2 * lead[axis] - (side - kernel[axis])
        if surplus(axis, shift) and reach[axis] < stride[axis]:  # one output: no second step
            stride[axis] = reach[axis] + shift * synapses.dilation[axis] + 1
        elif surplus(axis, shift):
            break
    else:
        return Square(_embedded(synapses, side, lead, stride), None)
    side = max(k + s for k, s in zip(kernel, synapses.stride, strict=True))
    lead = [side - k for k in kernel]
    crop = (surplus(0, lead[0]), surplus(1, lead[1]))
    return Square(_embedded(synapses, side, lead, list(synapses.stride)), crop)


def _embedded(synapses: Conv2d, side: int, lead: list[int], stride: list[int]) -> Conv2d:
    out, inside, height, width = synapses.weight.shape
    weight = np.zeros((out, inside, side, side), synapses.weight.dtype)
    weight[:, :, lead[0] : lead[0] + height, lead[1] : lead[1] + width] = synapses.weight
    padding = [p + d * n for p, d, n in zip(synapses.padding, synapses.dilation, lead, strict=True)]
    return Conv2d(
        weight, (stride[0], stride[1]), (padding[0], padding[1]), synapses.dilation, synapses.groups
    )


def cropping(channels: int, crop: Pair) -> Conv2d:
    """Hands a map on, less so many rows at its lower and columns at its right border."""
    weight = np.zeros((channels, channels, 2, 2))
    weight[range(channels), range(channels), 0, 0] = 1
    return Conv2d(weight, dilation=crop)
