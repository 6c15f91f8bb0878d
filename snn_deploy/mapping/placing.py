"""Place the populations of a network on the cores of a chip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph
from snn_deploy.hardware import Target, target
from snn_deploy.mapping.chip_rules import Breach, chip_rules
from snn_deploy.mapping.cores import RESOURCES, Cores, layerwise
from snn_deploy.mapping.layerwise import assign, layer_rules, memories
from snn_deploy.mapping.packing import Items
from snn_deploy.mapping.placement import Placement, placement_of
from snn_deploy.mapping.splitting import Tiling, choose_tiling, listeners
from snn_deploy.mapping.usage import COMMON, block_usage, lower_bounds
from snn_deploy.mapping.wiring import Block

# Blocks of a whole core at first, then smaller ones, which mix better with others.
_PARTS = (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 6)
# Cores over the lower bound at which no better placement is looked for.
_GOOD_ENOUGH = 1.05
_MOST_BLOCKS = 20_000
# Populations in a loop are cut again and again until their axons agree.
_MOST_PASSES = 4


def place(graph: Graph, to: Target | str) -> Placement:
    """Place a network's populations on a chip's cores.

    Populations are cut into blocks (channels times a rectangle of the map) that fit on a core by
    every limit that the target's profile states; budgets are kept, too, where cutting can keep
    them. Then blocks are packed into few cores. Synapses that the host computes take no room.

    Parameters
    ----------
    graph : float or integer.
    to : a target with limits, or its name.

    Raises
    ------
    SnnDeployError
        SD105 for an unknown target, SD209 if its profile states no limit of a core, SD208 naming
        the wall that the network exceeds, with both numbers and what would fit.
    """
    chip = target(to) if isinstance(to, str) else to
    cores = Cores.of(graph, chip)
    cores.require_limits()
    placement, walls = attempt(cores)
    if placement is None:
        raise walls[0].error(others=len(walls) - 1)
    return placement


def attempt(cores: Cores) -> tuple[Placement | None, tuple[Breach, ...]]:
    """A placement and the budgets that it exceeds; or None, and all walls that are known then."""
    found = breaches(cores)
    if walls := tuple(b for b in found if b.kind == "wall"):
        return None, walls
    beyond = list(found)
    for breach in found:  # a single neuron exceeds it: no cut can keep it
        cores = cores.without(breach.limit)
    while isinstance(blocks := _on_cores(cores), Breach):
        if blocks.kind == "wall" or blocks.limit not in cores.capacity:
            return None, (blocks,)
        beyond.append(blocks)
        cores = cores.without(blocks.limit)
    placement = placement_of(cores, blocks, _capacity(cores, len(blocks)), lower_bounds(cores))
    full = (*_over_capacity(cores, placement), *_too_many_chips(cores, placement))
    if walls := tuple(b for b in full if b.kind == "wall"):
        return None, walls
    beyond += full
    return replace(placement, beyond=tuple(beyond)), tuple(beyond)


def breaches(cores: Cores) -> tuple[Breach, ...]:
    """All limits of a chip that a network exceeds wherever its neurons are placed."""
    return (*chip_rules(cores), *(layer_rules(cores) if layerwise(cores.target) else ()))


def _on_cores(cores: Cores) -> list[list[Block]] | Breach:
    """Blocks of every core, or the limit that is in the way."""
    return assign(cores) if layerwise(cores.target) else _fewest_cores(cores)


def _capacity(cores: Cores, count: int) -> dict[str, NDArray[np.int64]]:
    """What each core has of each resource."""
    if layerwise(cores.target):
        return {name: np.array(have, np.int64) for name, have in memories(cores).items()}
    return {name: np.full(count, most, np.int64) for name, most in cores.capacity.items()}


def _fewest_cores(cores: Cores) -> list[list[Block]] | Breach:
    """Blocks of every core: of several sizes of block, the one that fills the fewest cores."""
    bounds = lower_bounds(cores)
    most = max([1, *bounds.values()])
    enough = math.floor(_GOOD_ENOUGH * most)
    scarcity = {name: bound / most for name, bound in bounds.items()}
    best: list[list[Block]] = []
    for part in _PARTS:
        tilings = _tilings(cores, part, None if part == 1 else scarcity)
        if isinstance(tilings, Breach) and tilings.limit == "axons_out_per_core":
            tilings = _tilings(cores, 1, {**dict.fromkeys(bounds, 0.0), tilings.limit: 1.0})
        if isinstance(tilings, Breach):
            return tilings
        blocks = [block for tiling in tilings.values() for block in tiling.blocks()]
        if best and len(blocks) > _MOST_BLOCKS:
            break
        found = _packed(cores, tilings, blocks, enough)
        if not best or len(found) < len(best):
            best = found
        if len(best) <= enough:
            break
    return best


def _tilings(
    cores: Cores, part: float, scarcity: dict[str, float] | None
) -> dict[str, Tiling] | Breach:
    """A tiling of every population, outputs first: axons out depend on how targets are cut.

    ``part`` and ``scarcity`` as :func:`choose_tiling`.
    """
    names = [name for group in reversed(cores.graph.order) for name in reversed(group)]
    tilings: dict[str, Tiling] = {}
    for _ in range(_MOST_PASSES):
        before = dict(tilings)
        for name in names:
            tiling = choose_tiling(cores, cores.graph.population(name), tilings, part, scarcity)
            if isinstance(tiling, Breach):
                return tiling
            tilings[name] = tiling
        if tilings == before or not cores.has_loops:
            break
    return {name: tilings[name] for group in cores.graph.order for name in group}


def _packed(
    cores: Cores, tilings: dict[str, Tiling], blocks: Sequence[Block], enough: int
) -> list[list[Block]]:
    names = list(cores.capacity)
    most = np.array([cores.capacity[name] for name in names], np.float64)
    axons = _axons_out(cores, tilings, blocks)

    def taken(indices: Sequence[int]) -> NDArray[np.float64]:
        usage = block_usage(cores, [blocks[i] for i in indices])
        usage["axons_out_per_core"] = sum(axons[i] for i in indices)
        return np.array([usage[name] for name in names]) / most

    kin = {
        name: frozenset((name, *(w.projection.source for w in cores.incoming(name))))
        for name in tilings
    }
    items = Items(
        demand=np.array([taken([i]) for i in range(len(blocks))]),
        common=np.array([name in COMMON for name in names], np.bool_),
        kin=[kin[block.population] for block in blocks],
        jointly=taken,
    )
    bins = items.pack(enough)
    return [[blocks[i] for i in sorted(items)] for items in sorted(bins, key=min)]


def _axons_out(cores: Cores, tilings: dict[str, Tiling], blocks: Sequence[Block]) -> list[int]:
    """Per block, pairs of a neuron and a block that hears it: no fewer than its axons."""
    heard = {
        name: [listeners(w, tilings[w.projection.target]) for w in cores.outgoing(name)]
        for name in tilings
    }
    return [
        sum(
            int(np.prod([per[of].sum() for per, of in zip(axes, block.slices, strict=True)]))
            for axes in heard[block.population]
        )
        for block in blocks
    ]


def _over_capacity(cores: Cores, placement: Placement) -> Iterator[Breach]:
    """Cores that hold too much: axons out that the populations of a loop could not agree on."""
    for name, most in placement.capacity.items():
        worst = int(np.argmax(placement.used[name] - most))
        needed = int(placement.used[name][worst])
        if needed > most[worst]:
            stated = cores.target.limits[name]
            where = ", ".join(sorted({b.population for b in placement.blocks[worst]}))
            yield Breach(
                "DR21", where,
                f"a core needs {needed:,} {RESOURCES[name]}, it has {most[worst]:,} "
                f"({stated.kind})", "fewer targets, or fewer neurons in the loop", name,
                stated.kind, needed, int(most[worst]), stated.source,
            )  # fmt: skip


def _too_many_chips(cores: Cores, placement: Placement) -> Iterator[Breach]:
    """More chips than there are, or more than one of those that have a single core."""
    limits = cores.target.limits
    name = next((n for n in ("chips", "cores_per_chip", "neurons_per_chip") if n in limits), None)
    if name is None or (name != "chips" and cores.per_chip != 1):
        return
    stated, most = limits[name], limits[name].value if name == "chips" else 1
    if placement.chips <= most:
        return
    bounds = placement.lower_bounds
    scarce = max(bounds, key=lambda resource: bounds[resource])
    size = f"{100 * most / placement.chips:.2g}%"
    yield Breach(
        "DR22", "network",
        f"it needs {placement.chips:,} chips ({placement.cores:,} cores), there "
        f"{'is' if most == 1 else 'are'} {most:,} ({stated.kind})",
        f"at most {size} of the network: its {RESOURCES.get(scarce, scarce)} fill the cores",
        name, stated.kind, placement.chips, most, stated.source,
    )  # fmt: skip
