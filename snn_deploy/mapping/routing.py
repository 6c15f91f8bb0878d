"""Messages between cores: who hears of whom, and how far it is.

A *message* tells one core that one neuron fired, once however many synapses it has there. Cores
stand in tiles, tiles in a mesh, chips in a mesh of chips; a message goes east or west first, then
north or south (XY routing), each by itself: one that is for several cores is sent several times
(as SANA-FE counts).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.mapping.wiring import Block, Wiring

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Cores in tiles, tiles in a mesh on each chip, chips in a mesh.

    Attributes
    ----------
    cores_per_tile, tiles_per_chip, chips : at least 1.
    """

    cores_per_tile: int
    tiles_per_chip: int
    chips: int = 1

    def positions(self, cores: Integers) -> tuple[Integers, Integers, Integers]:
        """Tile, column and row of cores."""
        tile = cores // self.cores_per_tile
        chip, within = np.divmod(tile, self.tiles_per_chip)
        width, chips_abreast = columns(self.tiles_per_chip), columns(self.chips)
        height = -(-self.tiles_per_chip // width)
        column, row = _snake(within, width)
        chip_column, chip_row = _snake(chip, chips_abreast)
        return tile, chip_column * width + column, chip_row * height + row


def columns(places: int) -> int:
    """Columns of a mesh that is as square as its number of places allows."""
    root = math.isqrt(places - 1) + 1
    even = (width for width in range(root, 2 * root + 1) if places % width == 0)
    return next(even, root)


def _snake(index: Integers, width: int) -> tuple[Integers, Integers]:
    """Column and row of places in rows, every other one backwards.

    So neighbours in number are neighbours in place.
    """
    row, column = np.divmod(index, width)
    return np.where(row % 2 == 1, width - 1 - column, column), row


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Messages of one source between pairs of cores: ``count[i]`` from ``sender`` to ``receiver``.

    An input stands outside the chip: its ``sender`` is -1.
    """

    sender: Integers
    receiver: Integers
    count: Integers

    def operations(self, mesh: Mesh) -> dict[str, int]:
        """The messages as operations that a profile prices, see :data:`~.hardware.OPERATIONS`.

        How an input reaches the mesh is not known: only its arrivals are counted.
        """
        total = int(self.count.sum())
        inside = self.sender >= 0
        count = self.count[inside]
        tile, column, row = mesh.positions(self.sender[inside])
        to_tile, to_column, to_row = mesh.positions(self.receiver[inside])
        east_west = int((count * np.abs(to_column - column)).sum())
        north_south = int((count * np.abs(to_row - row)).sum())
        return {
            "message_out": int(count.sum()),
            "message_in": total,
            "spike_within_tile": int(count[tile == to_tile].sum()),
            "hop_east_west": east_west,
            "hop_north_south": north_south,
            "packet": int(count.sum()) + east_west + north_south,  # every router on the way
        }


def traffic(
    events: Integers,
    homes: Integers | None,
    wiring: Mapping[str, Wiring],
    hearers: Mapping[int, Sequence[tuple[str, Block]]],
) -> Traffic:
    """Messages of one input or population.

    Parameters
    ----------
    events : per neuron as a map (C, H, W), how often it fired.
    homes : the core of each neuron, same shape; None for an input.
    wiring : the projections that begin here, by target population.
    hearers : per core, the blocks on it that these projections reach.
    """
    rows: list[tuple[int, int, int]] = []
    for core, blocks in hearers.items():
        heard = _heard([wiring[target].sources(block) for target, block in blocks], events.shape)
        sent = events[heard].ravel()
        if homes is None:
            rows.append((-1, core, int(sent.sum())))
            continue
        senders, index = np.unique(homes[heard].ravel(), return_inverse=True)
        counts = np.zeros(len(senders), np.int64)
        np.add.at(counts, index, sent)
        rows += [(int(a), core, int(n)) for a, n in zip(senders, counts, strict=True)]
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Traffic(table[:, 0], table[:, 1], table[:, 2])


def _heard(
    boxes: Sequence[tuple[slice, NDArray[np.intp], NDArray[np.intp]]], shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], ...]:
    """The neurons in any of several boxes, each once, as an index of arrays of this shape."""
    if len(boxes) == 1:
        channels, rows, columns = boxes[0]
        return np.ix_(np.arange(channels.start, channels.stop), rows, columns)
    mask = np.zeros(shape, np.bool_)
    for channels, rows, columns in boxes:
        mask[channels, rows[:, None], columns[None, :]] = True
    return np.nonzero(mask)
