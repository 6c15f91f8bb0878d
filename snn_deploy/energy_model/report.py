"""The energy of one inference on one chip, as plain data: all that tables and JSON show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from snn_deploy.counting import Convention
from snn_deploy.energy_model.pricing import Part, Range, Status
from snn_deploy.hardware import EnergyRow

# What must be said with every ratio of spiking to conventional energy.
CAVEAT = (
    "operations are not all: with the movement of data counted, against an ANN quantized to as "
    "many bits, Yan et al. (arXiv 2409.08290) find that a spiking network saves energy only below "
    "a spike rate of 5.7% (6.4% in an earlier version)"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations of one kind, done for one thing, and their energy: count times figure.

    Attributes
    ----------
    what : what they are done for: a projection by its name, ``neurons``, ``messages``, or what the
        convention calls it.
    operation : one of :data:`snn_deploy.hardware.OPERATIONS`.
    count : per inference, mean over the samples.
    status : ``priced``; ``unset``: there is no figure; ``included``: inside the chip's all-in
        figure; ``host``: the host's work, at the host's figure.
    picojoules : energy per inference; None if unset or included.
    """

    what: str
    operation: str
    count: float
    status: Status
    picojoules: Range | None


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """One population with the projections that end at it; or an input, which only sends.

    Attributes
    ----------
    rate : spikes per neuron and timestep, None where nothing spikes.
    operations : how many of each kind, per inference.
    costs : the same by what they are done for, with their energy.
    parts : energy on the chip by part; None where nothing of it is priced.
    total_picojoules : sum of the parts.
    twin : costs of the layer of the ANN twin.
    twin_picojoules : their sum, None if nothing is priced.
    """

    name: str
    neurons: int
    rate: float | None
    operations: Mapping[str, float]
    costs: tuple[Cost, ...]
    parts: Mapping[Part, Range | None]
    total_picojoules: Range | None
    twin: tuple[Cost, ...]
    twin_picojoules: Range | None


@dataclass(frozen=True, slots=True)
class StaticEnergy:
    """What chips or cores draw while they do nothing, over the time of one inference.

    Attributes
    ----------
    watts : per chip or per core, as ``per`` says.
    number : chips or cores that are powered.
    placed : whether ``number`` follows from a placement; else it is one chip, the least there is.
    seconds : time of one inference: timesteps times the time of a timestep.
    source, evidence : of the power.
    time_source : of the time of a timestep.
    """

    watts: float
    per: Literal["chip", "core"]
    number: int
    placed: bool
    seconds: float
    picojoules: float
    source: str
    evidence: str
    time_source: str

    @property
    def range(self) -> Range:
        """The energy, on whose figure nobody disagrees."""
        return Range(self.picojoules, self.picojoules, self.picojoules)


@dataclass(frozen=True, slots=True)
class Twin:
    """The ANN twin: the same network with real-valued activations, evaluated once.

    Attributes
    ----------
    operations : what it does, per inference.
    picojoules : on the same profile, hence at the same precision; None if nothing is priced.
    ratio : energy of the spiking network, without static energy, over that of the twin; None where
        a synaptic operation of either is not priced by this profile.
    caveat : to be said beside the ratio.
    """

    operations: Mapping[str, float]
    picojoules: Range | None
    ratio: float | None
    caveat: str = CAVEAT


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """Energy per inference on one chip.

    Attributes
    ----------
    profile : the chip.
    proxy : the chip whose figures are used in its place, or None.
    host_profile : who prices multiply-accumulates that the chip has no figure for, or None.
    convention : how operations were counted; ``switches`` says it in words.
    rate : spikes per neuron and timestep of all populations that spike, None if none does.
    cores, chips : used, None if the network was not placed.
    layers : inputs that send to cores, then populations in order.
    parts : sums over the layers; None where nothing is priced.
    static : of its chips and of its cores; empty where the power or the time is not known, or an
        all-in figure holds it.
    dynamic_picojoules : sum of the parts, None if nothing is priced.
    total_picojoules : dynamic and static energy of the chip; None if no operation is priced.
    host : values through weights where the chip has no figure for it, never part of the total; None
        if there are none.
    unpriced : operations that occurred and have no figure.
    uncounted : operations that have a figure, and that nobody counted.
    figures : the figures used, by operation; ``host_figure`` is the host's.
    notes : what has to be known of the convention and of the profile.
    unplaced : why the network could not be placed, where that was asked for.
    """

    profile: str
    proxy: str | None
    host_profile: str | None
    convention: Convention
    switches: str
    samples: int
    timesteps: int
    rate: float | None
    cores: int | None
    chips: int | None
    layers: tuple[LayerEnergy, ...]
    parts: Mapping[Part, Range | None]
    static: tuple[StaticEnergy, ...]
    dynamic_picojoules: Range | None
    total_picojoules: Range | None
    host: Cost | None
    unpriced: tuple[str, ...]
    uncounted: tuple[str, ...]
    twin: Twin
    figures: Mapping[str, EnergyRow]
    host_figure: EnergyRow | None
    notes: tuple[str, ...]
    unplaced: str | None = None

    @property
    def misses_arithmetic(self) -> tuple[str, ...]:
        """Synaptic operations that occurred and that neither chip nor host prices."""
        return tuple(n for n in self.unpriced if n in ("synaptic_operation", "multiply_accumulate"))


def gate_failure(reports: Sequence[EnergyReport], most_picojoules: float) -> str | None:
    """Which reports do not stay within an energy per inference, in words; None if all do.

    Compared is what the chip and its host take at the nominal figures. A report that leaves
    arithmetic without a price shows nothing, and fails.
    """
    failures = []
    for report in reports:
        missing = ", ".join(n.replace("_", " ") for n in report.misses_arithmetic)
        if missing or report.total_picojoules is None:
            failures.append(f"{report.profile} has no figure for {missing or 'any operation'}")
            continue
        host = None if report.host is None else report.host.picojoules
        taken = report.total_picojoules.nominal + (0.0 if host is None else host.nominal)
        if taken > most_picojoules:
            failures.append(f"{report.profile} takes {taken:,.1f} pJ")
    if not failures:
        return None
    return f"not within {most_picojoules:,.1f} pJ per inference: {'; '.join(failures)}"
