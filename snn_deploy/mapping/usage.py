"""What blocks take of a core, and the least that a whole network can take of all cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from snn_deploy.mapping.cores import RESOURCES, Cores, layerwise
from snn_deploy.mapping.wiring import Block, Wiring

# Blocks of one core may have these in common: sources that reach both, kernels that both use.
COMMON = ("axons_in_per_core", "synapses_per_core", "synapse_bits_per_core")


def block_usage(cores: Cores, blocks: Iterable[Block]) -> dict[str, int]:
    """What blocks on one core take of each of :data:`RESOURCES`, except axons out.

    What they have in common counts once.
    """
    usage = dict.fromkeys(RESOURCES, 0)
    together: dict[str, list[Block]] = {}
    for block in blocks:
        together.setdefault(block.population, []).append(block)
        if cores.counted(cores.graph.population(block.population)):
            usage["neurons_per_core"] += block.size
    boxes: dict[str, list[tuple[Wiring, Block]]] = {}
    for population, members in together.items():
        for wiring in cores.incoming(population):
            boxes.setdefault(wiring.projection.source, []).extend((wiring, b) for b in members)
            stored = _stored(cores, wiring, members)
            usage["synapses_per_core"] += stored
            usage["synapse_bits_per_core"] += stored * cores.bits[wiring.projection.name]
    usage["axons_in_per_core"] = sum(_distinct(pairs) for pairs in boxes.values())
    return usage


def _stored(cores: Cores, wiring: Wiring, blocks: Sequence[Block]) -> int:
    """Weights of one projection that a core stores for blocks of its target."""
    if not cores.shares(wiring):
        return sum(wiring.synapses(block) for block in blocks)
    channels = {c for block in blocks for c in range(*block.channels)}
    return len(channels) * wiring.group_sources * (wiring.kernel or 0)


def _distinct(pairs: Sequence[tuple[Wiring, Block]]) -> int:
    """Neurons of one source that reach any of several blocks."""
    found = [wiring.sources(block) for wiring, block in pairs]
    if len(found) == 1:
        channels, rows, columns = found[0]
        return int(channels.stop - channels.start) * len(rows) * len(columns)
    mask = np.zeros(pairs[0][0].source, np.bool_)
    for channels, rows, columns in found:
        mask[channels, rows[:, None], columns[None, :]] = True
    return int(np.count_nonzero(mask))


def lower_bounds(cores: Cores) -> dict[str, int]:
    """Cores that any placement takes, resource by resource: the least in total over what one has.

    A source needs an axon to as many cores as its targets fill by their number; a weight that may
    be shared is stored once at least. Where a core holds one whole population, there are as many
    cores as populations.
    """
    graph = cores.graph
    if layerwise(cores.target):
        return {"populations": len(graph.populations)}
    total = dict.fromkeys(RESOURCES, 0)
    total["neurons_per_core"] = sum(p.size for p in graph.populations if cores.counted(p))
    for wiring in cores.wiring.values():
        weight = wiring.projection.synapses.weight
        stored = weight.size if cores.shares(wiring) else int(synapses_of(cores, wiring).sum())
        total["synapses_per_core"] += stored
        total["synapse_bits_per_core"] += stored * cores.bits[wiring.projection.name]
    for source in {w.projection.source for w in cores.wiring.values()}:
        axons = int(fewest_axons(cores, source).sum())
        total["axons_in_per_core"] += axons
        if not graph.is_input(source):
            total["axons_out_per_core"] += axons
    return {name: -(-total[name] // most) for name, most in cores.capacity.items()}


def synapses_of(cores: Cores, wiring: Wiring) -> NDArray[np.int64]:
    """Distinct targets of every source neuron through one projection."""
    return cores.graph.fan_out(wiring.projection)


def fewest_axons(cores: Cores, source: str) -> NDArray[np.int64]:
    """Per neuron, the fewest cores that its targets can be on."""
    targets = np.zeros(cores.graph.shape_of(source), np.int64)
    counted = np.zeros_like(targets)
    for wiring in cores.outgoing(source):
        reached = synapses_of(cores, wiring)
        targets += reached
        if cores.counted(cores.graph.population(wiring.projection.target)):
            counted += reached
    most = cores.capacity.get("neurons_per_core", 1 << 62)
    return np.maximum(targets > 0, -(-counted // most))
