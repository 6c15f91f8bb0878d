"""Join projections between the same two populations: a graph has one for each pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from snn_deploy.freezing.forms import Floats
from snn_deploy.graph import Projection
from snn_deploy.synapses import Conv2d, Dense, Synapses


def merged(
    projections: Sequence[Projection], relayed: Callable[[Projection], Projection]
) -> tuple[Projection, ...]:
    """One projection per pair, with the sum of the weights.

    Where two cannot be one, as they differ in delay, pool or stride, ``relayed`` lets one start
    from other neurons that spike as its source does.
    """
    found: dict[str, Projection] = {}
    for projection in projections:  # may grow meanwhile: what relays are fed by
        while projection.name in found:
            known = found[projection.name]
            both = _sum(known, projection)
            if both is None:
                projection = relayed(projection)
            else:
                projection = both
                break
        found[projection.name] = projection
    return tuple(found.values())


def _sum(one: Projection, other: Projection) -> Projection | None:
    if one.pool != other.pool:
        one, other = _without_pool(one), _without_pool(other)
    if one.delay != other.delay or one.pool != other.pool:
        return None
    synapses = _joined(one.synapses, other.synapses)
    return None if synapses is None else replace(one, synapses=synapses)


def _without_pool(projection: Projection) -> Projection:
    """The same sums over windows by a wider kernel, where nothing is padded in between."""
    pool, conv = projection.pool, projection.synapses
    if pool is None or not isinstance(conv, Conv2d) or conv.padding != (0, 0):
        return projection
    taps = [d * (k - 1) for d, k in zip(conv.dilation, conv.weight.shape[2:], strict=True)]
    size = [s * t + k for s, t, k in zip(pool.stride, taps, pool.kernel, strict=True)]
    weight = np.zeros((*conv.weight.shape[:2], *size))
    steps = [s * d for s, d in zip(pool.stride, conv.dilation, strict=True)]
    for y in range(pool.kernel[0]):
        for x in range(pool.kernel[1]):
            last = size[0] - pool.kernel[0] + y + 1, size[1] - pool.kernel[1] + x + 1
            weight[:, :, y : last[0] : steps[0], x : last[1] : steps[1]] += conv.weight
    stride = (conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1])
    return replace(
        projection, synapses=Conv2d(weight, stride, (0, 0), (1, 1), conv.groups), pool=None
    )


def _joined(one: Synapses, other: Synapses) -> Synapses | None:
    if isinstance(one, Dense) and isinstance(other, Dense):
        return Dense(one.weight + other.weight)
    if isinstance(one, Conv2d) and isinstance(other, Conv2d):
        return _joined_kernels(one, other)
    dense, conv = (one, other) if isinstance(one, Dense) else (other, one)
    one_to_one = isinstance(conv, Conv2d) and conv.weight.shape == (conv.groups, 1, 1, 1)
    if one_to_one and isinstance(dense, Dense) and len(conv.weight) == len(dense.weight):
        return Dense(dense.weight + np.diag(conv.weight.reshape(-1)))
    return None


def _joined_kernels(one: Conv2d, other: Conv2d) -> Conv2d | None:
    """Kernels laid over each other where they meet the same pixels, the smaller in the wider."""
    if one.stride != other.stride:
        return None
    first, second = (dense_kernel(conv) for conv in (one, other))
    wide, narrow = (first, second) if one.padding >= other.padding else (second, first)
    outer, inner = (one, other) if one.padding >= other.padding else (other, one)
    shift = [p - q for p, q in zip(outer.padding, inner.padding, strict=True)]
    if min(shift) < 0 or any(
        s + n > w for s, n, w in zip(shift, narrow.shape[2:], wide.shape[2:], strict=True)
    ):
        return None
    weight = wide.copy()
    weight[:, :, shift[0] : shift[0] + narrow.shape[2], shift[1] : shift[1] + narrow.shape[3]] += (
        narrow
    )
    return Conv2d(weight, outer.stride, outer.padding)


def dense_kernel(conv: Conv2d) -> Floats:
    """The kernel without groups and dilation: [C_out, C_in, K_h, K_w]."""
    out, within, *kernel = conv.weight.shape
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, conv.dilation, strict=True)]
    weight = np.zeros((out, within * conv.groups, *spread))
    for group in range(conv.groups):
        rows = slice(group * out // conv.groups, (group + 1) * out // conv.groups)
        columns = slice(group * within, (group + 1) * within)
        weight[rows, columns, :: conv.dilation[0], :: conv.dilation[1]] = conv.weight[rows]
    return weight
