"""Average pooling, folded: of spikes into a sum pool and weights, of currents into kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.synapses import Conv2d, SumPool


def pair(value: Any) -> tuple[int, int]:
    """(vertical, horizontal) of what torch takes for a pair."""
    if isinstance(value, int):
        return value, value
    values = tuple(int(v) for v in value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def joined(first: SumPool, second: SumPool) -> SumPool:
    """One pool that sums as two after each other do.

    Raises
    ------
    UnfoldableError
        If windows of the first overlap or leave gaps: then some values would count twice.
    """
    if first.kernel != first.stride:
        raise UnfoldableError(
            "it pools behind another pool whose windows overlap or leave gaps",
            "let the stride of the first pool be its size",
        )
    kernel = (first.kernel[0] * second.kernel[0], first.kernel[1] * second.kernel[1])
    stride = (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1])
    return SumPool(kernel, stride)


def averaged(conv: Conv2d, pool: SumPool) -> Conv2d:
    """A convolution whose currents are averaged over windows, as one convolution.

    A window's outputs see the input at shifts of the stride, so kernels are added at these shifts;
    zero padding is the same, as every output in a window is one that the convolution has.
    """
    taps = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.weight.shape[2:], strict=True)]
    reach = [s * (k - 1) for s, k in zip(conv.stride, pool.kernel, strict=True)]
    weight = np.zeros((*conv.weight.shape[:2], taps[0] + reach[0], taps[1] + reach[1]))
    for y in range(pool.kernel[0]):
        for x in range(pool.kernel[1]):
            top, left = y * conv.stride[0], x * conv.stride[1]
            view = weight[:, :, top : top + taps[0], left : left + taps[1]]
            view[:, :, :: conv.dilation[0], :: conv.dilation[1]] += conv.weight
    weight /= pool.kernel[0] * pool.kernel[1]
    stride = (conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1])
    return Conv2d(weight, stride, conv.padding, (1, 1), conv.groups)
