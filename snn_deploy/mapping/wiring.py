"""Blocks of a population, and what a block needs of the populations behind it.

A *block* is a range of channels times a rectangle of the map; a vector is a map of one pixel. The
connectivity of a projection is separable, so that what a block needs is a product of three axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Projection
from snn_deploy.synapses import AxisReach, Conv2d, as_map, axis_reach

Span = tuple[int, int]  # first, and one past the last
Extent = tuple[int, int, int]  # channels, rows, columns


@dataclass(frozen=True, slots=True)
class Block:
    """Neurons of a population that stay together on one core."""

    population: str
    channels: Span
    rows: Span
    columns: Span

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod([stop - start for start, stop in self.spans]))

    @property
    def spans(self) -> tuple[Span, Span, Span]:
        """The ranges of the three axes."""
        return self.channels, self.rows, self.columns

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The block in an array of the population as a map (C, H, W)."""
        channels, rows, columns = (slice(*span) for span in self.spans)
        return channels, rows, columns


@dataclass(frozen=True, slots=True, eq=False)
class Wiring:
    """Who reaches whom through a projection, axis by axis.

    Attributes
    ----------
    rows, columns : bool, [targets, sources] along the axis.
    group_sources, group_targets : channels of a group; a channel reaches all of its own group.
    kernel : weights of one pair of channels, where they are stored once for the whole map; None for
        dense synapses, which share none.
    """

    projection: Projection
    source: Extent
    target: Extent
    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]
    group_sources: int
    group_targets: int
    kernel: int | None

    @staticmethod
    def of(graph: Graph, projection: Projection) -> Wiring:
        """The wiring of one projection of a graph."""
        synapses = projection.synapses
        shape = graph.shape_of(projection.source)
        source, target = as_map(shape), as_map(graph.shape_of(projection.target))
        vertical, horizontal = axis_reach(synapses, projection.pool, shape)
        groups, kernel = 1, None
        if isinstance(synapses, Conv2d):
            groups, kernel = synapses.groups, int(np.prod(synapses.weight.shape[2:]))
        return Wiring(
            projection=projection,
            source=source,
            target=target,
            rows=_matrix(vertical, source[1]),
            columns=_matrix(horizontal, source[2]),
            group_sources=source[0] // groups,
            group_targets=target[0] // groups,
            kernel=kernel,
        )

    def source_channels(self, channels: Span) -> Span:
        """Source channels that reach a range of target channels."""
        first, last = channels[0] // self.group_targets, (channels[1] - 1) // self.group_targets
        return first * self.group_sources, (last + 1) * self.group_sources

    def sources(self, block: Block) -> tuple[slice, NDArray[np.intp], NDArray[np.intp]]:
        """Source neurons that reach a block: channels, rows and columns; all their combinations."""
        rows = np.flatnonzero(self.rows[slice(*block.rows)].any(axis=0))
        columns = np.flatnonzero(self.columns[slice(*block.columns)].any(axis=0))
        return slice(*self.source_channels(block.channels)), rows, columns

    def synapses(self, block: Block) -> int:
        """Pairs of a source neuron and a neuron of the block."""
        channels = (block.channels[1] - block.channels[0]) * self.group_sources
        rows = int(self.rows[slice(*block.rows)].sum())
        return channels * rows * int(self.columns[slice(*block.columns)].sum())

    def fan_in(self) -> NDArray[np.int64]:
        """Distinct sources of the neurons of each pixel, [rows, columns]; channels are alike."""
        return self.group_sources * np.outer(
            self.rows.sum(axis=1, dtype=np.int64), self.columns.sum(axis=1, dtype=np.int64)
        )


def _matrix(reach: AxisReach, size: int) -> NDArray[np.bool_]:
    matrix = np.zeros((len(reach.taps), size), np.bool_)
    for output, sources in enumerate(reach.taps):
        matrix[output, [index for index, _ in sources]] = True
    return matrix
