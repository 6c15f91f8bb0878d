"""How a population is cut into blocks that each fit on a core.

A *tiling* cuts channels, rows and columns every so many; the last block of an axis may be smaller.
All tilings of a population are rated at once. What a block takes of a core is a sum, over
projections, of products of three axes, so that each axis is measured once for each of its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Population
from snn_deploy.mapping.axes import Axis, Floats, Measure, outer
from snn_deploy.mapping.chip_rules import Breach, exceeded
from snn_deploy.mapping.cores import RESOURCES, Cores
from snn_deploy.mapping.wiring import Block, Extent, Wiring
from snn_deploy.synapses import as_map

_MOST_TILINGS = 1 << 18
_SLACK = 0.03


@dataclass(frozen=True, slots=True)
class Tiling:
    """A population cut every ``step`` channels, rows and columns."""

    population: str
    extent: Extent
    step: Extent

    def blocks(self) -> Iterator[Block]:
        """All blocks, channels outermost."""
        ranges = (
            [(start, min(start + step, size)) for start in range(0, size, step)]
            for size, step in zip(self.extent, self.step, strict=True)
        )
        for channels, rows, columns in product(*ranges):
            yield Block(self.population, channels, rows, columns)


def choose_tiling(
    cores: Cores,
    population: Population,
    tilings: dict[str, Tiling],
    part: float,
    scarcity: dict[str, float] | None,
) -> Tiling | Breach:
    """The tiling that hears the fewest messages of those that fill few cores.

    Few are up to 3% more than the fewest: crumbs fill cores best, and talk most.

    Parameters
    ----------
    tilings : of the populations that this one sends to, as far as they are known.
    part : how much of a core a block may take, 0 to 1.
    scarcity : None to cut a population as if it were alone. Else how much each resource matters, 0
        to 1, in blocks that are mixed with others on their cores.

    Returns
    -------
    Tiling or Breach
        The latter if not even the smallest block fits on a core.
    """
    extent = as_map(population.shape)
    grid = _Grid(cores, population, extent, tilings)
    fill = grid.fill()
    fits = fill <= part
    if not fits.any():  # not even the smallest block: whatever fits at all
        fits = fill <= 1
    if not fits.any():
        return grid.smallest()
    price = grid.price() if scarcity is None else grid.price_mixed(scarcity)
    price[~fits] = np.inf
    cheapest = price <= price.min() * (1 + _SLACK)
    traffic = np.where(cheapest, grid.traffic, np.inf)
    quietest = np.where(traffic <= traffic.min() * (1 + 1e-9), grid.blocks, np.inf)
    best = int(np.argmin(quietest))
    index = np.unravel_index(best, fill.shape)
    steps = [int(axis[i]) for axis, i in zip(grid.steps, index, strict=True)]
    return Tiling(population.name, extent, (steps[0], steps[1], steps[2]))


class _Grid:
    """All tilings of a population: arrays over steps of channels, of rows and of columns.

    Blocks come in eight kinds: along each axis they are as long as the step, or what is left over.
    A kind is measured by its largest block.
    """

    def __init__(
        self, cores: Cores, population: Population, extent: Extent, tilings: dict[str, Tiling]
    ) -> None:
        self.cores, self.name = cores, population.name
        self.incoming = cores.incoming(population.name)
        self.neurons = int(cores.counted(population))
        self.steps = [np.arange(1, size + 1) for size in extent]
        if np.prod(extent) > _MOST_TILINGS:  # those that make parts of nearly equal size
            self.steps = [
                np.unique(-(-size // steps)) for size, steps in zip(extent, self.steps, strict=True)
            ]
        self.shape = tuple(len(steps) for steps in self.steps)
        self.axes = [Axis(size, s) for size, s in zip(extent, self.steps, strict=True)]
        self.sources = [self._sources(wiring) for wiring in self.incoming]
        self.taps = [
            (self.axes[1].sums(w.rows.sum(axis=1)), self.axes[2].sums(w.columns.sum(axis=1)))
            for w in self.incoming
        ]
        self.heard = [
            [axis.sums(per) for axis, per in zip(self.axes, counts, strict=True)]
            for counts in (
                listeners(w, tilings.get(w.projection.target))
                for w in cores.outgoing(population.name)
            )
        ]
        self.traffic = sum(
            (outer([axis.total for axis in found]) for found in self.sources), start=np.zeros(())
        ) * np.ones(self.shape)
        self.blocks = outer([axis.count[0] + axis.count[1] for axis in self.axes])
        self.kinds = list(product((0, 1), repeat=3))
        self.counts = [
            outer([axis.count[one] for axis, one in zip(self.axes, kind, strict=True)])
            for kind in self.kinds
        ]
        self.taken = [self._taken(kind) for kind in self.kinds]

    def _sources(self, wiring: Wiring) -> list[Measure]:
        channels, rows, columns = self.axes
        return [
            channels.spans(wiring.group_targets, wiring.group_sources),
            rows.union(wiring.rows),
            columns.union(wiring.columns),
        ]

    def _taken(self, kind: tuple[int, ...]) -> dict[str, Floats]:
        """Per resource, the part of a core that the largest block of a kind takes."""
        pick = list(zip(self.axes, kind, strict=True))
        lengths = [axis.length[one] for axis, one in pick]
        taken: dict[str, Floats] = {}
        taken["neurons_per_core"] = self.neurons * outer(lengths)
        taken["axons_in_per_core"] = np.zeros(())
        taken["synapses_per_core"] = np.zeros(())
        taken["synapse_bits_per_core"] = np.zeros(())
        for wiring, sources, taps in zip(self.incoming, self.sources, self.taps, strict=True):
            reach = outer([axis.largest[one] for axis, one in zip(sources, kind, strict=True)])
            taken["axons_in_per_core"] = taken["axons_in_per_core"] + reach
            channels = lengths[0] * wiring.group_sources
            if self.cores.shares(wiring):
                stored = outer(
                    [channels * (wiring.kernel or 0), *(np.ones_like(n) for n in lengths[1:])]
                )
            else:
                rows, columns = taps
                stored = outer([channels, rows.largest[kind[1]], columns.largest[kind[2]]])
            bits = self.cores.bits[wiring.projection.name]
            taken["synapses_per_core"] = taken["synapses_per_core"] + stored
            taken["synapse_bits_per_core"] = taken["synapse_bits_per_core"] + stored * bits
        taken["axons_out_per_core"] = sum(
            (
                outer([axis.largest[one] for axis, one in zip(heard, kind, strict=True)])
                for heard in self.heard
            ),
            start=np.zeros(()),
        )
        return {
            name: np.broadcast_to(taken[name] / most, self.shape)
            for name, most in self.cores.capacity.items()
        }

    def _fills(self) -> list[Floats]:
        """Per kind, the part of a core that its largest block takes of its scarcest resource."""
        fills = [np.zeros(self.shape) for _ in self.kinds]
        for fill, count, taken in zip(fills, self.counts, self.taken, strict=True):
            for part in taken.values():
                np.maximum(fill, part, out=fill)
            fill *= count > 0
        return fills

    def fill(self) -> Floats:
        """The part of a core that the largest block takes."""
        return np.max(self._fills(), axis=0)  # type: ignore[no-any-return]

    def smallest(self) -> Breach:
        """What the smallest block takes too much of."""
        taken = {name: float(part.flat[0]) for name, part in self.taken[0].items()}
        limit = max(taken, key=lambda name: taken[name])
        what = RESOURCES[limit]
        if limit == "axons_out_per_core":
            what += " as its targets are cut"
        return next(
            exceeded(
                self.cores, "DR21", self.name, limit,
                round(taken[limit] * self.cores.capacity[limit]),
                f"its smallest part needs {{needed}} {what}, a core has {{most}}",
                "fewer sources, fewer targets, or a smaller kernel",
            )
        )  # fmt: skip

    def price(self) -> Floats:
        """Cores that a tiling takes by itself, and those that its sources take to reach it.

        Blocks of one kind share a core as far as several fit. A source whose neurons have to reach
        so many blocks that its axons fill more cores than its neurons do is charged for them.
        """
        total = np.zeros(self.shape)
        for count, fill in zip(self.counts, self._fills(), strict=True):
            together = np.floor((1 + 1e-9) / np.clip(fill, 1e-6, None))
            total += count / np.maximum(together, 1)
        neurons = self.cores.capacity.get("neurons_per_core", 1 << 62)
        for wiring, axons in self._axons():
            total += np.maximum(axons - np.prod(wiring.source) / neurons, 0)
        return total

    def price_mixed(self, scarcity: dict[str, float]) -> Floats:
        """What a tiling takes of cores that are filled up with other blocks.

        Parameters
        ----------
        scarcity : per resource, how much it matters: 1 for the one that most cores are needed for.
        """
        total = np.zeros(self.shape)
        for count, taken in zip(self.counts, self.taken, strict=True):
            for name, part in taken.items():
                if name != "axons_out_per_core":  # depends on how the targets are cut, not on this
                    total += count * part * scarcity[name]
        for _, axons in self._axons():
            total += axons * scarcity["axons_out_per_core"]
        return total

    def _axons(self) -> Iterator[tuple[Wiring, Floats]]:
        """Per population that sends here, the axons that it needs for that, in cores."""
        out = self.cores.capacity.get("axons_out_per_core")
        for wiring, sources in zip(self.incoming, self.sources, strict=True):
            if out is not None and not self.cores.graph.is_input(wiring.projection.source):
                yield wiring, outer([axis.total for axis in sources]) / out


def listeners(wiring: Wiring, tiling: Tiling | None) -> tuple[NDArray[np.int64], ...]:
    """Per source channel, row and column: how many parts of the target's tiling it reaches.

    One where the target is not cut yet; none where no synapse begins.
    """
    step = wiring.target if tiling is None else tiling.step
    first = np.arange(wiring.source[0]) // wiring.group_sources * wiring.group_targets
    last = first + wiring.group_targets - 1
    channels = last // step[0] - first // step[0] + 1
    parts = [
        np.logical_or.reduceat(reach, np.arange(0, size, every), axis=0).sum(axis=0)
        for reach, size, every in (
            (wiring.rows, wiring.target[1], step[1]),
            (wiring.columns, wiring.target[2], step[2]),
        )
    ]
    return channels, parts[0], parts[1]
