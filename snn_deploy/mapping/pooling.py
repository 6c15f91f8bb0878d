"""Fold sum pooling into the synapses behind it, where that is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Projection
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, as_map


def fold_pools(graph: Graph) -> Graph:
    """The same graph without pools: wider dense matrices, strided convolutions.

    A pool before dense synapses repeats its weight for every pixel of the window. A pool before a
    convolution makes its kernel, stride and padding k times as large, if the windows are k x k, k
    apart, and divide the map.

    Raises
    ------
    SnnDeployError
        SD204 naming the projection whose pool cannot be folded.
    """
    folded = (_folded(p, graph.shape_of(p.source)) for p in graph.projections)
    return replace(graph, projections=tuple(folded))


def _folded(projection: Projection, source: Shape) -> Projection:
    pool = projection.pool
    if pool is None:
        return projection
    if isinstance(projection.synapses, Dense):
        dense = Dense(_spread(projection.synapses.weight, pool, source))
        return replace(projection, synapses=dense, pool=None)
    rest = [size % k for size, k in zip(source[1:], pool.kernel, strict=True)]
    if pool.kernel != pool.stride or any(rest):
        raise SnnDeployError(
            "SD204",
            f"a pool of {pool.kernel} every {pool.stride} over a map of {source} cannot be folded "
            "into the convolution behind it",
            where=projection.name,
            why="only windows that neither overlap nor leave a rest become a strided convolution",
            fix="train with a pool whose stride is its size, on maps whose size it divides",
        )
    return replace(projection, synapses=_strided(projection.synapses, pool), pool=None)


def _spread(weight: NDArray[np.integer], pool: SumPool, source: Shape) -> NDArray[np.int64]:
    """(N_out, pooled C*H*W) to (N_out, C*H*W): a pixel has the weights of all windows it is in."""
    channels, height, width = as_map(source)
    _, rows, columns = pool.output_shape(source)
    pooled = weight.astype(np.int64).reshape(len(weight), channels, rows, columns)
    spread = np.zeros((len(weight), channels, height, width), np.int64)
    (step_y, step_x), (kernel_y, kernel_x) = pool.stride, pool.kernel
    for y in range(kernel_y):
        for x in range(kernel_x):
            last_y, last_x = y + step_y * (rows - 1) + 1, x + step_x * (columns - 1) + 1
            spread[:, :, y:last_y:step_y, x:last_x:step_x] += pooled
    return spread.reshape(len(weight), -1)


def _strided(conv: Conv2d, pool: SumPool) -> Conv2d:
    """The convolution that sums the pool's windows itself."""
    window, dilation = np.array(pool.kernel), np.array(conv.dilation)
    kernel = np.array(conv.weight.shape[2:])
    height, width = window * dilation * (kernel - 1) + window
    weight = np.zeros((*conv.weight.shape[:2], height, width), conv.weight.dtype)
    for y in range(window[0]):
        for x in range(window[1]):
            step_y, step_x = window * dilation
            weight[:, :, y::step_y, x::step_x][:, :, : kernel[0], : kernel[1]] = conv.weight
    stride_y, stride_x = (int(n) for n in window * conv.stride)
    pad_y, pad_x = (int(n) for n in window * conv.padding)
    return Conv2d(weight, (stride_y, stride_x), (pad_y, pad_x), (1, 1), conv.groups)
