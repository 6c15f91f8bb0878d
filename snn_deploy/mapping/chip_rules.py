"""Design rules of a chip's limits: what no placement can mend, with both numbers.

A limit is a *wall*, where the hardware has no more, or a *budget*, which may be exceeded at a
price (speed, mostly). A limit that a profile leaves unset is not checked, and not unlimited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, ResetSubtract
from snn_deploy.hardware import Target
from snn_deploy.mapping.cores import RESOURCES, Cores, layerwise
from snn_deploy.mapping.usage import fewest_axons, synapses_of
from snn_deploy.mapping.wiring import Wiring

CHIP_RULES = {
    "DR11": "no neuron has more synapses in than the chip",
    "DR12": "no neuron has more synapses out than the chip",
    "DR13": "no population sends to more populations than the chip's can",
    "DR14": "the inputs have no more elements than the chip has channels",
    "DR15": "the outputs have no more neurons than the chip",
    "DR16": "there are no more populations than the chip has layers",
    "DR17": "weights have no more bits than the chip's",
    "DR18": "no recurrence where the chip has none",
    "DR19": "no input of values where the chip takes spikes only",
    "DR20": "no reset by subtraction where the chip has none",
    "DR21": "a core holds the smallest part that a population can be cut into",
    "DR22": "there are as many cores and chips as the network fills",
    "DR23": "one projection into each population where a core holds one kernel",
}

# What a profile has to state for a rule to be looked at: one of these limits or structures.
_LOOKS_AT = {
    "DR11": ("fan_in",),
    "DR12": ("fan_out",),
    "DR13": ("fan_out_layers",),
    "DR14": ("input_channels",),
    "DR15": ("output_neurons",),
    "DR16": ("layers",),
    "DR17": ("weight_bits",),
    "DR18": ("recurrence",),
    "DR19": ("graded_input",),
    "DR20": ("soft_reset",),
    "DR21": (*RESOURCES, "kernel_words_per_core", "neuron_words_per_core"),
    "DR22": ("chips", "cores_per_chip", "neurons_per_chip"),
    "DR23": ("kernel_words_per_core",),
}


def rules_of(target: Target) -> dict[str, str]:
    """The rules of :data:`CHIP_RULES` for which a target's profile states enough."""
    stated = set(target.limits)
    if target.structure is not None:
        for name in ("recurrence", "graded_input", "soft_reset"):
            stated |= {name} if getattr(target.structure, name) is not None else set()
    return {code: text for code, text in CHIP_RULES.items() if stated & {*_LOOKS_AT[code]}}


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that a network exceeds.

    Attributes
    ----------
    code : of :data:`CHIP_RULES`.
    where : population, projection or input.
    needed, most : what the network needs, and what the chip has.
    limit : name of the limit in the profile, or of the entry of ``[structure]``.
    kind : ``wall`` or ``budget``.
    message, fix : in words, with both numbers.
    source : who states the limit.
    """

    code: str
    where: str
    message: str
    fix: str
    limit: str
    kind: str
    needed: int
    most: int
    source: str

    def error(self, others: int = 0) -> SnnDeployError:
        """The breach as an error, SD208."""
        more = f"; {others} more (snn-deploy check lists them)" if others else ""
        return SnnDeployError(
            "SD208",
            self.message,
            where=self.where,
            why=f"{self.limit} is a {self.kind}: {self.source}{more}",
            fix=self.fix,
        )


def exceeded(
    cores: Cores, code: str, where: str, limit: str, needed: int, message: str, fix: str
) -> Iterator[Breach]:
    """A breach if the target states a limit and more is needed.

    ``message`` gets `` {needed}`` and ``{most}`` filled in, and what kind of limit it is.
    """
    stated = cores.target.limits.get(limit)
    if stated is None or needed <= stated.value:
        return
    said = message.format(needed=f"{needed:,}", most=f"{stated.value:,}")
    yield Breach(
        code, where, f"{said} ({stated.kind})", fix, limit, stated.kind, needed, stated.value,
        stated.source,
    )  # fmt: skip


def chip_rules(cores: Cores) -> tuple[Breach, ...]:
    """All limits that a network exceeds wherever its neurons are placed."""
    return (
        *_of_structure(cores),
        *_of_the_whole(cores),
        *(b for p in cores.graph.populations for b in _of_fan_in(cores, p.name)),
        *(b for p in cores.graph.populations for b in _of_fan_out(cores, p.name)),
        *(b for w in cores.wiring.values() for b in _of_weights(cores, w)),
    )


def _of_fan_in(cores: Cores, population: str) -> Iterator[Breach]:
    """The neuron with the most sources, and what it takes of a core by itself."""
    incoming = cores.incoming(population)
    if not incoming or layerwise(cores.target):
        return
    fan_in = int(np.sum([w.fan_in() for w in incoming], axis=0).max())
    too_many = list(
        exceeded(
            cores, "DR11", population, "fan_in", fan_in,
            "a neuron has {needed} synapses in, the chip {most}",
            _fewer_sources(cores, incoming, "fan_in"),
        )
    )  # fmt: skip
    yield from too_many
    if not too_many:
        yield from exceeded(
            cores, "DR21", population, "axons_in_per_core", fan_in,
            "a neuron needs {needed} axons in, a core has {most}",
            _fewer_sources(cores, incoming, "axons_in_per_core"),
        )  # fmt: skip
    # a border neuron needs fewer; what counts is the neuron that needs most
    stored = {
        w.projection.name: w.group_sources * (w.kernel or 0)
        if cores.shares(w)
        else int(w.fan_in().max())
        for w in incoming
    }
    bits = sum(n * cores.bits[name] for name, n in stored.items())
    for limit, needed in (
        ("synapses_per_core", sum(stored.values())),
        ("synapse_bits_per_core", bits),
    ):
        yield from exceeded(
            cores, "DR21", population, limit, needed,
            f"the weights of a neuron need {{needed}} {RESOURCES[limit]}, a core has {{most}}",
            _fewer_sources(cores, incoming, limit),
        )  # fmt: skip


def _fewer_sources(cores: Cores, incoming: list[Wiring], limit: str) -> str:
    """What would bring a fan-in under its limit."""
    stated = cores.target.limits.get(limit)
    if stated is None:
        return ""
    wiring = max(incoming, key=lambda w: int(w.fan_in().max()))
    fan_in, name = int(wiring.fan_in().max()), wiring.projection.name
    if limit not in ("fan_in", "axons_in_per_core"):
        return f"fewer bits, or fewer than the {fan_in:,} sources of {name}"
    rest = int(np.sum([w.fan_in() for w in incoming], axis=0).max()) - fan_in
    room = max(stated.value - rest, 0)
    places = max(fan_in // wiring.group_sources, 1)
    channels = room // places
    if wiring.kernel is None or channels == 0:
        return f"at most {room:,} sources through {name}, not {fan_in:,}"
    parts = -(-wiring.group_sources // channels)
    return (
        f"at most {channels} source channels for the {places} places of {name}, not "
        f"{wiring.group_sources}: {parts} groups or more, or a smaller kernel or pool"
    )


def _of_fan_out(cores: Cores, population: str) -> Iterator[Breach]:
    outgoing = cores.outgoing(population)
    if not outgoing:
        return
    fan_out = int(np.sum([synapses_of(cores, w) for w in outgoing], axis=0).max())
    yield from exceeded(
        cores, "DR12", population, "fan_out", fan_out,
        "a neuron has {needed} synapses out, the chip {most}",
        "fewer target channels or neurons, or a smaller kernel",
    )  # fmt: skip
    yield from exceeded(
        cores, "DR13", population, "fan_out_layers", len(outgoing),
        "it sends to {needed} populations, the chip's to {most}",
        "hand its spikes on through a population of relays",
    )  # fmt: skip
    yield from exceeded(
        cores, "DR21", population, "axons_out_per_core",
        int(fewest_axons(cores, population).max()),
        "a neuron has to reach {needed} cores, a core has {most} axons out",
        "fewer targets",
    )  # fmt: skip


def _of_weights(cores: Cores, wiring: Wiring) -> Iterator[Breach]:
    name = wiring.projection.name
    if cores.graph.number_format is not None:
        yield from exceeded(
            cores, "DR17", name, "weight_bits", cores.bits[name],
            "weights need {needed} bits, the chip's have {most}",
            "quantize to fewer bits (--bits)",
        )  # fmt: skip


def _of_the_whole(cores: Cores) -> Iterator[Breach]:
    graph = cores.graph
    fed = [s for s in graph.inputs if cores.outgoing(s.name)]
    for code, limit, names, needed, message, fix in (
        ("DR14", "input_channels", [s.name for s in fed], sum(int(np.prod(s.shape)) for s in fed),
         "the inputs have {needed} elements, the chip {most} channels",
         "pool the input, or bin it into fewer channels"),
        ("DR15", "output_neurons", graph.outputs,
         sum(graph.population(n).size for n in graph.outputs),
         "the outputs have {needed} neurons, the chip {most}", "fewer outputs"),
        ("DR16", "layers", [], len(graph.populations),
         "there are {needed} populations, the chip has {most} layers",
         "fewer layers"),
    ):  # fmt: skip
        where = ", ".join(names) or "network"
        yield from exceeded(cores, code, where, limit, needed, message, fix)


def _of_structure(cores: Cores) -> Iterator[Breach]:
    graph, structure = cores.graph, cores.target.structure
    if structure is None:
        return

    def missing(code: str, where: str, entry: str, message: str, fix: str) -> Breach:
        return Breach(code, where, f"{message} (wall)", fix, entry, "wall", 1, 0, structure.source)

    if structure.recurrence is False:
        for group in graph.order:
            loop = [p for p in graph.projections if p.source in group and p.target in group]
            if loop:
                yield missing(
                    "DR18", ", ".join(p.name for p in loop), "recurrence",
                    "a loop, and the chip has no recurrence", "train without recurrence",
                )  # fmt: skip
    if structure.graded_input is False:
        for spec in graph.inputs:
            if spec.kind != "spikes" and cores.outgoing(spec.name):
                yield missing(
                    "DR19", spec.name, "graded_input",
                    "an input of values, and the chip takes spikes only",
                    "encode the input as spikes, or feed it as a constant that the host computes",
                )  # fmt: skip
    if structure.soft_reset is False:
        for population in graph.populations:
            neurons = population.neurons
            if isinstance(neurons, LIF) and isinstance(neurons.reset, ResetSubtract):
                yield missing(
                    "DR20", population.name, "soft_reset",
                    "a reset by subtraction, and the chip has none", "train with reset to zero",
                )  # fmt: skip
