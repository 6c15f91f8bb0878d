"""Bounds of synaptic sums: what a projection may add to each neuron in one timestep.

A sum of weight times input is largest where every input stands at the end of its range that its
weight likes best. That needs the weight of each *source neuron*: where pooling windows overlap, a
source neuron reaches a target through several kernel taps, whose weights are added first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Projection
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import Dense, as_map, axis_reach, pooled_shape, with_weights

Integers = NDArray[np.int64]
Bounds = tuple[Integers, Integers]


@dataclass(frozen=True, slots=True)
class Accumulator:
    """What the synaptic sum of one projection may come to, in mantissas (exponent not applied).

    ``low`` and ``high`` hold every partial sum too, in whatever order the weights are added;
    ``bits`` is the narrowest two's-complement register for them.
    """

    low: int
    high: int
    bits: int


def accumulator(graph: Graph, projection: Projection) -> Accumulator:
    """The narrowest register in which a projection's weights can be added up, one after another."""
    least, most = sum_range(graph, projection, with_silence(*sent(graph, projection)))
    low, high = min(int(least.min()), 0), max(int(most.max()), 0)
    return Accumulator(low, high, signed_bits(low, high))


def signed_bits(low: int, high: int) -> int:
    """Width of the narrowest two's-complement register that holds ``low`` <= 0 <= ``high``."""
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1


def sent(graph: Graph, projection: Projection) -> Bounds:
    """Least and most that every source neuron may send in one timestep, shape of the source.

    A graded input is silent before its first value arrives and after its last.
    """
    if not graph.is_input(projection.source):
        source = graph.population(projection.source)
        return np.zeros(source.shape, np.int64), np.full(source.shape, source.max_spikes)
    spec = graph.input(projection.source)
    low, high = (bound.astype(np.int64) for bound in spec.encoded_range())
    return with_silence(low, high) if spec.kind == "graded" else (low, high)


def with_silence(low: Integers, high: Integers) -> Bounds:
    """The same bounds, where nothing may be sent as well."""
    return np.minimum(low, 0), np.maximum(high, 0)


def sum_range(graph: Graph, projection: Projection, values: Bounds | None = None) -> Bounds:
    """Smallest and largest synaptic sum of every target neuron, in mantissas.

    Parameters
    ----------
    values : bounds of what every source neuron sends; default: :func:`sent`.

    Returns
    -------
    Two int64 arrays of the target's shape. Both are reached: the inputs of one timestep are free of
    each other.
    """
    low, high = sent(graph, projection) if values is None else values
    pool = projection.pool
    if pool is not None and (pool.kernel[0] > pool.stride[0] or pool.kernel[1] > pool.stride[1]):
        return _through_overlapping_windows(projection, low, high)
    weight = projection.synapses.weight.astype(np.int64)

    def total(part: Integers, values: Integers) -> Integers:
        same = replace(projection, synapses=with_weights(projection.synapses, part))
        return np.asarray(synaptic_sum(same, low.shape, values[None])[0])

    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    return total(up, low) + total(down, high), total(up, high) + total(down, low)


def arrivals(graph: Graph, projection: Projection) -> dict[int, Bounds]:
    """Bounds of what synapses of each delay bring, in mantissas: nothing arrives before its delay.

    Spikes of populations count as undelayed: on a pipelined chip a delay may stand for a hop, and a
    population may fire before its first input arrives.
    """
    if not graph.is_input(projection.source) or graph.is_constant(projection):
        return {0: sum_range(graph, projection)}
    weight, found = projection.synapses.weight, {}
    for delay in np.unique(projection.delay):
        part = np.where(projection.delay == delay, weight, 0)
        same = replace(projection, synapses=with_weights(projection.synapses, part))
        found[int(delay)] = sum_range(graph, same)
    return found


def _through_overlapping_windows(projection: Projection, low: Integers, high: Integers) -> Bounds:
    """Bounds where a source neuron reaches a target through a set of kernel taps per axis.

    For one set of rows and one of columns, the weight of a source neuron is the same wherever it
    lies: the sum of the kernel over both sets. What the sources of a set may send is gathered per
    target pixel, then multiplied by the positive and the negative part of that weight.
    """
    synapses, shape = projection.synapses, low.shape
    vertical, horizontal = axis_reach(synapses, projection.pool, shape)
    groups = 1 if isinstance(synapses, Dense) else synapses.groups
    kernel = synapses.weight.astype(np.int64)
    if isinstance(synapses, Dense):
        kernel = kernel.reshape(len(kernel), *as_map(pooled_shape(shape, projection.pool)))
    kernel = kernel.reshape(groups, -1, *kernel.shape[1:])  # [group, out, in, rows, columns]
    out = (len(synapses.weight), len(vertical.taps), len(horizontal.taps))
    least, most = np.zeros(out, np.int64), np.zeros(out, np.int64)

    def spread(values: Integers, row: Integers, column: Integers) -> Integers:
        """Sum of the sources of this tap set, [groups, inputs, target pixels]."""
        gathered = np.einsum("yi,cij,xj->cyx", row, values.reshape(as_map(shape)), column)
        return np.asarray(gathered.reshape(groups, kernel.shape[2], -1))

    for rows, row in _tap_sets(vertical.taps, as_map(shape)[1]):
        for columns, column in _tap_sets(horizontal.taps, as_map(shape)[2]):
            weight = kernel[..., rows, :][..., columns].sum(axis=(3, 4))
            up, down = np.maximum(weight, 0), np.minimum(weight, 0)
            little, much = spread(low, row, column), spread(high, row, column)
            least += (up @ little + down @ much).reshape(out)
            most += (up @ much + down @ little).reshape(out)
    if isinstance(synapses, Dense):
        return least[:, 0, 0], most[:, 0, 0]
    return least, most


def _tap_sets(
    taps: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...], size: int
) -> list[tuple[list[int], Integers]]:
    """Each set of kernel taps of an axis, and who reaches whom by it: 0/1 [outputs, inputs]."""
    found: dict[tuple[int, ...], Integers] = {}
    for output, sources in enumerate(taps):
        for index, through in sources:
            matrix = found.setdefault(through, np.zeros((len(taps), size), np.int64))
            matrix[output, index] = 1
    return [(list(through), matrix) for through, matrix in sorted(found.items())]
