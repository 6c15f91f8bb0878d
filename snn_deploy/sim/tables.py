"""Connectivity as the event engine walks it: per target pixel, from the geometry alone.

Dense, convolution and pooling share one form. Where it can, a projection is handed to a vector
kernel (:mod:`snn_deploy.sim.panels`, :mod:`snn_deploy.sim.depthwise`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Projection
from snn_deploy.sim import kernels
from snn_deploy.sim.depthwise import Depthwise, depthwise
from snn_deploy.sim.panels import Panels, panels
from snn_deploy.synapses import AxisReach, Conv2d, Dense, as_map, axis_reach, pooled_shape

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SynapseTable:
    """Connectivity of one projection, per target pixel.

    Entries ``starts[p]`` to ``starts[p + 1]`` of ``pixels`` and ``taps`` are the source pixels that
    reach target pixel p, each once, and the row of ``weights`` to add: [taps, source channels,
    target channels per group], int16 or int64, exponent included (unless the sum wraps before it).
    """

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    taps: NDArray[np.int32]
    weights: Array
    channels_per_group: int

    @property
    def largest_sum(self) -> int:
        """No sum over 0/1 inputs can exceed this magnitude."""
        entries = int(np.diff(self.starts).max(initial=0)) * self.channels_per_group
        return entries * int(np.abs(self.weights.astype(np.int64)).max(initial=0))

    def add_spikes(
        self,
        words: NDArray[np.uint64],
        first: int,
        last: int,
        delay: Any,
        current: Array,
        events: NDArray[np.int64],
    ) -> None:
        """Add what 0/1 spikes bring in steps ``first`` to ``last``."""
        kernels.accumulate_spikes(
            words, first, last, delay, self.starts, self.pixels, self.taps, self.weights,
            self.channels_per_group, current, events,
        )  # fmt: skip

    def add_values(
        self,
        values: Array,
        first: int,
        last: int,
        delay: Any,
        current: Array,
        events: NDArray[np.int64],
        count_value: bool,
    ) -> None:
        """Add what values, or several spikes per timestep, bring in steps ``first`` to ``last``."""
        kernels.accumulate_values(
            values, first, last, delay, self.starts, self.pixels, self.taps, self.weights,
            self.channels_per_group, current, events, count_value,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class DelayedSynapses:
    """Dense synapses with delays of their own, sorted by delay and source neuron.

    Synapses ``starts[d, n]`` to ``starts[d, n + 1]`` lead from source neuron n (counted by pixel,
    then channel, as spikes are stored) to ``targets`` with ``weights``, and take the d-th distinct
    delay beyond that of the shortest one.
    """

    starts: NDArray[np.int64]
    targets: NDArray[np.int32]
    weights: NDArray[np.int64]

    def add_values(
        self,
        values: Array,
        first: int,
        last: int,
        delay: Any,
        current: Array,
        events: NDArray[np.int64],
        count_value: bool,
    ) -> None:
        """Add what arrives in steps ``first`` to ``last``."""
        kernels.accumulate_delayed(
            values, first, last, np.unique(delay), self.starts, self.targets, self.weights,
            current, events, count_value,
        )  # fmt: skip


def delayed_synapses(graph: Graph, projection: Projection) -> DelayedSynapses:
    """Sort the synapses of a Dense projection whose delay is an array."""
    weight = projection.synapses.weight.astype(np.int64)
    if projection.sum_bits is None:
        weight = weight << max(projection.exponent, 0)
    source = graph.shape_of(projection.source)
    channels, height, width = as_map(source)
    # columns from C, H, W order to the order of pixels, then channels
    order = np.arange(weight.shape[1]).reshape(channels, height * width).T.reshape(-1)
    weight = weight[:, order]
    delay = np.broadcast_to(np.asarray(projection.delay), weight.shape)[:, order]
    starts, targets, weights = [], [], []
    found = 0
    for value in np.unique(delay):
        column, row = np.nonzero((delay == value).T)
        counts = np.bincount(column, minlength=weight.shape[1])
        starts.append(found + np.concatenate([[0], np.cumsum(counts)]))
        targets.append(row)
        weights.append(weight[row, column])
        found += len(row)
    return DelayedSynapses(
        starts=np.array(starts, np.int64),
        targets=np.concatenate(targets).astype(np.int32),
        weights=np.concatenate(weights),
    )


def synapse_table(
    graph: Graph, projection: Projection, *, vectors: bool
) -> SynapseTable | Panels | Depthwise:
    """Build the table of a projection; for a vector kernel if it may, and can, take it.

    There is one for 0/1 spikes through synapses without groups and one for depthwise convolutions,
    both for weights and sums that fit (``panels``, ``depthwise``).

    Where pooling windows overlap, a source pixel reaches a target through several kernel positions:
    such a set becomes a position of its own, with the sum of their weights.
    """
    source = graph.shape_of(projection.source)
    synapses = projection.synapses
    vertical, horizontal = axis_reach(synapses, projection.pool, source)
    rows, row_taps, row_sets = _padded(vertical)
    columns, column_taps, column_sets = _padded(horizontal)
    # [target rows, target columns, reached rows, reached columns]; -1 where there is none
    row, column = rows[:, None, :, None], columns[None, :, None, :]
    reached = (row >= 0) & (column >= 0)
    pixel = row * as_map(source)[2] + column
    tap = row_taps[:, None, :, None] * len(column_sets) + column_taps[None, :, None, :]
    kernel = _kernel(projection, pooled_shape(source, projection.pool))
    weights = np.array(
        [kernel[np.ix_(ys, xs)].sum(axis=(0, 1)) for ys in row_sets for xs in column_sets]
    )
    if projection.sum_bits is None:
        weights <<= max(projection.exponent, 0)
    entries = reached.reshape(-1, reached.shape[2] * reached.shape[3]).sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(entries)]).astype(np.int64)
    pixels, taps = pixel[reached].astype(np.int32), tap[reached].astype(np.int32)
    groups = synapses.groups if isinstance(synapses, Conv2d) else 1
    channels, height, width = as_map(source)
    found: Panels | Depthwise | None = None
    if vectors and graph.is_binary(projection):
        if groups == 1:
            found = panels(starts, pixels, taps, weights, height * width)
        elif groups == channels and weights.shape[2] == 1:
            found = depthwise(starts, pixels, taps, weights[:, :, 0], height * width)
    if found is not None:
        return found
    narrow = np.abs(weights).max() < 1 << 15
    return SynapseTable(
        starts=starts,
        pixels=pixels,
        taps=taps,
        weights=weights.astype(np.int16 if narrow else np.int64),
        channels_per_group=channels // groups,
    )


def _padded(
    reach: AxisReach,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[tuple[int, ...]]]:
    """One axis as arrays [outputs, most inputs]: input index (-1: none) and tap set, and the sets.

    The empty axis of a population that nothing reaches still has one, empty, tap set.
    """
    sets = sorted({taps for row in reach.taps for _, taps in row}) or [()]
    number = {taps: index for index, taps in enumerate(sets)}
    most = max((len(row) for row in reach.taps), default=0)
    indices = np.full((len(reach.taps), max(most, 1)), -1, np.int64)
    taps = np.zeros_like(indices)
    for output, row in enumerate(reach.taps):
        for place, (index, through) in enumerate(row):
            indices[output, place], taps[output, place] = index, number[through]
    return indices, taps, sets


def _kernel(projection: Projection, seen: tuple[int, ...]) -> NDArray[np.int64]:
    """Weights as [K_h, K_w, source channels, target channels per group]."""
    synapses = projection.synapses
    weight = synapses.weight.astype(np.int64)
    if isinstance(synapses, Dense):
        kernel = weight.reshape(weight.shape[0], *as_map(seen))
        return kernel.transpose(2, 3, 1, 0)
    out, per_group, height, width = weight.shape
    grouped = weight.reshape(synapses.groups, out // synapses.groups, per_group, height, width)
    channels = grouped.transpose(3, 4, 0, 2, 1)
    return channels.reshape(height, width, synapses.groups * per_group, -1)
