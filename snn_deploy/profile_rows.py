"""What the profile of a chip holds: energies, static power and limits, each with its source.

A row that is missing is *unset*: unknown, never zero and never unlimited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What a profile may price, per occurrence.
OPERATIONS = (
    "synaptic_operation",  # a spike added through a weight
    "multiply_accumulate",  # a value multiplied by a weight and added
    "neuron_update_active",  # a neuron and timestep in which its membrane changed or it fired
    "neuron_update_inactive",  # any other neuron and timestep
    "spike_out",  # a neuron that fired
    "message_out",  # a fired neuron and a core that hears of it, at the sender
    "message_in",  # the same, at the receiver
    "spike_within_tile",  # a message between cores of one tile
    "hop_east_west",  # a message from tile to tile
    "hop_north_south",
    "packet",  # a spike packet through a router
    "memory_read",  # one word, of the width that the unit says
    "memory_write",
)
MEMORY_OPERATIONS = ("memory_read", "memory_write")
UNITS = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6}

# How a figure was obtained.
EVIDENCE = {
    "measured": "on silicon",
    "regressed": "a model fitted to measurements on silicon",
    "simulated": "of the circuit, before silicon",
    "vendor": "stated by the chip's makers, in a paper or manual",
    "third_party": "stated by others, who do not say how it was obtained",
    "derived": "computed from figures that are named",
}
SCOPES = {
    "per_term": "this operation only",
    "all_in": "everything the chip does is inside",
}

# What may limit a network, per neuron, core or chip.
LIMITS = (
    "chips",
    "cores_per_chip",
    "cores_per_tile",
    "neurons_per_chip",
    "neurons_per_core",
    "fan_in",  # synapses that end at one neuron
    "fan_out",  # synapses that one neuron sends to
    "fan_out_layers",  # populations that one population sends to
    "axons_in_per_core",  # sources that one core hears
    "axons_out_per_core",  # pairs of a neuron and a core that hears it
    "synapses_per_core",
    "synapse_bits_per_core",
    "kernel_words_per_core",
    "neuron_words_per_core",
    "weight_bits",
    "input_channels",
    "output_neurons",
    "layers",
)
LIMIT_KINDS = {
    "wall": "the hardware has no more",
    "budget": "a default or a throughput, which more may exceed at a price",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRow:
    """Energy of one operation, with where the figure comes from.

    Attributes
    ----------
    value, unit : the figure as published; a memory access says its width: ``pJ per 32-bit word``.
    source : publication and table.
    evidence : one of :data:`EVIDENCE`.
    scope : one of :data:`SCOPES`.
    extremum : ``min``, ``typ`` or ``max`` where the source says so.
    voltage : operating point where the source says so.
    low, high : the least and the largest figure of sources that disagree, in the same unit.
    low_source, high_source : who states them.
    derived, inputs : how a derived value is computed: ``+ - * /`` over named inputs.
    """

    value: float
    unit: str
    source: str
    evidence: str
    scope: str
    extremum: str | None = None
    voltage: str | None = None
    low: float | None = None
    low_source: str | None = None
    high: float | None = None
    high_source: str | None = None
    derived: str | None = None
    inputs: Mapping[str, float] | None = None

    @property
    def picojoules(self) -> float:
        """The figure in pJ."""
        return self._in_picojoules(self.value)

    @property
    def low_picojoules(self) -> float:
        """The least figure of all sources in pJ."""
        return self._in_picojoules(self.value if self.low is None else self.low)

    @property
    def high_picojoules(self) -> float:
        """The largest figure of all sources in pJ."""
        return self._in_picojoules(self.value if self.high is None else self.high)

    def _in_picojoules(self, value: float) -> float:
        return value * UNITS[self.unit.partition(" ")[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number with its source; ``derived`` and ``inputs`` as in :class:`EnergyRow`."""

    value: float
    unit: str
    source: str
    evidence: str
    derived: str | None = None
    inputs: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """What a chip takes whether or not anything fires, and how long a timestep lasts.

    Powers are in W, the timestep is in s; None is unset.
    """

    watts_per_chip: Figure | None = None
    watts_per_core: Figure | None = None
    timestep_seconds: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most of something that a neuron, a core or a chip holds.

    Attributes
    ----------
    value : the most; of cores that differ, that of the largest.
    kind : ``wall`` or ``budget``, see :data:`LIMIT_KINDS`.
    source, evidence, derived, inputs : as in :class:`EnergyRow`.
    per_core : one value per core where cores differ, else empty.
    """

    value: int
    kind: str
    source: str
    evidence: str
    derived: str | None = None
    inputs: Mapping[str, float] | None = None
    per_core: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What a chip can express; None where that is not known.

    Attributes
    ----------
    source : where the answers come from.
    shares_weights : whether a convolution's kernel is stored once per core.
    convolution : whether there are convolutions; where not, they are unrolled into synapses.
    recurrence : whether a population may send to itself or back.
    graded_input : whether a spike may carry a value.
    soft_reset : whether a spike may subtract from the membrane.
    bit_exact : whether two runs are equal to the bit; analog chips are not.
    """

    source: str
    shares_weights: bool | None = None
    convolution: bool | None = None
    recurrence: bool | None = None
    graded_input: bool | None = None
    soft_reset: bool | None = None
    bit_exact: bool | None = None
