"""A placement: where the neurons of a network are, what they take there, and what they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.hardware import Target
from snn_deploy.mapping.chip_rules import Breach
from snn_deploy.mapping.cores import RESOURCES, Cores, layerwise
from snn_deploy.mapping.layerwise import MEMORIES, words
from snn_deploy.mapping.routing import Mesh, Traffic, traffic
from snn_deploy.mapping.usage import block_usage
from snn_deploy.mapping.wiring import Block
from snn_deploy.sim.trace import Record
from snn_deploy.synapses import as_map

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Placement:
    """Where the neurons of a network are, and what they take there.

    Attributes
    ----------
    blocks : per core, the blocks on it; every neuron is in exactly one.
    homes : per population, the core of every neuron, int64 in the population's shape.
    used : per resource, what each core holds, int64 [cores].
    capacity : per resource that the profile limits, what each core has, int64 [cores].
    slots : where each core is: its number among all cores of all chips, int64 [cores].
    mesh : how cores stand.
    chips : number of chips.
    lower_bounds : per resource, cores that any placement takes.
    unset : limits that the profile does not state, and that were not looked at.
    beyond : budgets that are exceeded.
    """

    graph: Graph
    target: Target
    blocks: tuple[tuple[Block, ...], ...]
    homes: dict[str, Integers]
    used: dict[str, Integers]
    capacity: dict[str, Integers]
    slots: Integers
    mesh: Mesh
    chips: int
    lower_bounds: dict[str, int]
    unset: tuple[str, ...]
    beyond: tuple[Breach, ...]

    @property
    def cores(self) -> int:
        """Number of cores in use."""
        return len(self.blocks)

    @property
    def lower_bound(self) -> int:
        """Cores that any placement takes: the most of the lower bounds."""
        return max([1, *self.lower_bounds.values()])

    def utilisation(self) -> dict[str, NDArray[np.float64]]:
        """Per resource that the profile limits, the part of each core that is used."""
        return {name: self.used[name] / most for name, most in self.capacity.items()}

    def cores_of(self, population: str) -> int:
        """Number of cores that hold neurons of a population."""
        return len(np.unique(self.homes[population]))

    def messages(self, record: Record) -> dict[str, dict[str, int]]:
        """What the spikes of a run send between cores, summed over all samples and timesteps.

        Parameters
        ----------
        record : of a run of the placed graph.

        Returns
        -------
        dict
            Per input and population that sends, its counts of ``message_out``, ``message_in``,
            ``spike_within_tile``, ``hop_east_west``, ``hop_north_south`` and ``packet``. A neuron
            that fires n times in a timestep sends n times; a core that hears itself counts.

        Raises
        ------
        SnnDeployError
            SD103 for the record of another graph.
        """
        found = {}
        cores = Cores.of(self.graph, self.target)
        for source in _senders(cores):
            counts = record.inputs if self.graph.is_input(source) else record.spikes
            events = counts.get(source)
            if events is None or events.shape != self.graph.shape_of(source):
                raise SnnDeployError(
                    "SD103", "the record is not of the network that was placed", where=source,
                    fix="give the record of a run of the same graph",
                )  # fmt: skip
            sent = _between(cores, self.blocks, self.homes, source, events)
            inside = sent.sender >= 0
            placed = Traffic(
                np.where(inside, self.slots[sent.sender], -1), self.slots[sent.receiver], sent.count
            )
            found[source] = placed.operations(self.mesh)
        return found


def placement_of(
    cores: Cores,
    blocks: Sequence[Sequence[Block]],
    capacity: dict[str, Integers],
    bounds: dict[str, int],
) -> Placement:
    """Blocks of every core as a placement, measured; cores without blocks are left out.

    Parameters
    ----------
    capacity : per resource, what each core has, int64 [cores].
    bounds : per resource, cores that any placement takes.
    """
    graph, chip = cores.graph, cores.target
    slotted = [(index, tuple(members)) for index, members in enumerate(blocks) if members]
    held = np.array([index for index, _ in slotted], np.int64)
    placed = tuple(members for _, members in slotted)
    homes = {p.name: np.full(as_map(p.shape), -1, np.int64) for p in graph.populations}
    for core, members in enumerate(placed):
        for block in members:
            homes[block.population][block.slices] = core
    homes = {p.name: homes[p.name].reshape(p.shape) for p in graph.populations}
    usages = [block_usage(cores, members) for members in placed]
    used = {n: np.array([u[n] for u in usages], np.int64) for n in RESOURCES}
    if layerwise(chip):
        needs = [words(cores, members[0].population) for members in placed]
        used |= {m: np.array([need[m] for need in needs], np.int64) for m in MEMORIES}
    for source in _senders(cores):
        if not graph.is_input(source):
            once = np.ones(graph.shape_of(source), np.int64)
            sent = _between(cores, placed, homes, source, once)
            np.add.at(used["axons_out_per_core"], sent.sender, sent.count)
    per_tile = chip.limits["cores_per_tile"].value if "cores_per_tile" in chip.limits else 1
    per_chip = cores.per_chip or max(len(blocks), 1)
    tiles = -(-per_chip // per_tile)
    chips, slots = _on_chips(cores, tiles * per_tile, used["neurons_per_core"], per_chip)
    if layerwise(chip):
        slots = held
    return Placement(
        graph=graph,
        target=chip,
        blocks=placed,
        homes=homes,
        used=used,
        capacity={name: most[held] for name, most in capacity.items()},
        slots=slots,
        mesh=Mesh(per_tile, tiles, chips),
        chips=chips,
        lower_bounds=bounds,
        unset=_unset(cores, chips),
        beyond=(),
    )


def _unset(cores: Cores, chips: int) -> tuple[str, ...]:
    """Limits that matter to the placement, and that the profile does not state."""
    wanted = [] if layerwise(cores.target) else list(RESOURCES)
    wanted += ["chips"] if chips > 1 else []
    stated = {*cores.target.limits, *cores.capacity}
    memory = {"synapses_per_core", "synapse_bits_per_core"}  # two words for one thing
    stated |= memory if stated & memory else set()
    return tuple(name for name in wanted if name not in stated)


def _on_chips(
    cores: Cores, slots_per_chip: int, neurons: Integers, per_chip: int
) -> tuple[int, Integers]:
    """Chips in use, and the slot of each core: chips are filled one after another."""
    limit = cores.target.limits.get("neurons_per_chip")
    most = 1 << 62 if limit is None else limit.value
    chip = within = held = 0
    slots = []
    for size in neurons.tolist():
        if within == per_chip or (within and held + size > most):
            chip, within, held = chip + 1, 0, 0
        slots.append(chip * slots_per_chip + within)
        within, held = within + 1, held + size
    return chip + 1, np.array(slots, np.int64)


def _senders(cores: Cores) -> list[str]:
    """Inputs and populations that send to cores."""
    names = [s.name for s in cores.graph.inputs] + [p.name for p in cores.graph.populations]
    return [name for name in names if cores.outgoing(name)]


def _between(
    cores: Cores,
    blocks: Sequence[Sequence[Block]],
    homes: dict[str, Integers],
    source: str,
    events: Integers,
) -> Traffic:
    """Messages of one source between cores, if its neurons fired so often."""
    wiring = {w.projection.target: w for w in cores.outgoing(source)}
    hearers: dict[int, list[tuple[str, Block]]] = {}
    for core, members in enumerate(blocks):
        for block in members:
            if block.population in wiring:
                hearers.setdefault(core, []).append((block.population, block))
    shape = as_map(cores.graph.shape_of(source))
    home = homes[source].reshape(shape) if source in homes else None
    return traffic(events.reshape(shape), home, wiring, hearers)
