"""Join projections between the same two populations: a graph has one for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Projection
from snn_deploy.synapses import Conv2d, Dense, Synapses


def merged(projections: Sequence[Projection]) -> tuple[Projection, ...]:
    """One projection per pair, with the sum of the weights.

    Raises
    ------
    SnnDeployError
        SD205 where two cannot be one: other delays, pools or strides.
    """
    found: dict[str, Projection] = {}
    for projection in projections:
        known = found.get(projection.name)
        found[projection.name] = projection if known is None else _sum(known, projection)
    return tuple(found.values())


def _sum(one: Projection, other: Projection) -> Projection:
    synapses = None
    if one.delay == other.delay and one.pool == other.pool:
        synapses = _joined(one.synapses, other.synapses)
    if synapses is None:
        raise SnnDeployError(
            "SD205",
            "two ways from one population to another that differ in delay, pool or stride cannot "
            "be frozen",
            where=one.name,
        )
    return replace(one, synapses=synapses)


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
    """Kernels laid over each other where they meet the same pixels, the smaller inside the wider."""
    if one.stride != other.stride:
        return None
    first, second = (_dense_kernel(conv) for conv in (one, other))
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


def _dense_kernel(conv: Conv2d) -> np.ndarray:  # type: ignore[type-arg]
    """The kernel without groups and dilation: [C_out, C_in, K_h, K_w]."""
    out, within, *kernel = conv.weight.shape
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, conv.dilation, strict=True)]
    weight = np.zeros((out, within * conv.groups, *spread))
    for group in range(conv.groups):
        rows = slice(group * out // conv.groups, (group + 1) * out // conv.groups)
        columns = slice(group * within, (group + 1) * within)
        weight[rows, columns, :: conv.dilation[0], :: conv.dilation[1]] = conv.weight[rows]
    return weight
