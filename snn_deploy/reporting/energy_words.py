"""Energies in words and cells, shared by the tables of energy reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from snn_deploy.energy_model import EnergyReport, LayerEnergy, Range, StaticEnergy, provenance
from snn_deploy.energy_model.pricing import PART_OF, Part
from snn_deploy.hardware import EnergyRow
from snn_deploy.reporting import joules, percent, quantity, round_to

_ALWAYS: tuple[Part, ...] = ("synaptic", "neuron")
_SOMETIMES: tuple[Part, ...] = ("memory", "routing")


def parts_of(reports: Sequence[EnergyReport]) -> tuple[Part, ...]:
    """The parts that the operations of some report belong to."""
    seen = {PART_OF[t.operation] for r in reports for layer in r.layers for t in layer.costs}
    return (*_ALWAYS, *(part for part in _SOMETIMES if part in seen))


def part_cell(layers: Sequence[LayerEnergy], part: Part, energy: Range | None) -> str:
    """Energy of a part, or why there is none."""
    states = {t.status for e in layers for t in e.costs if t.count and PART_OF[t.operation] == part}
    if not states:
        return "-"
    if "priced" in states:
        return nominal(energy)
    return states.pop() if len(states) == 1 else "unset"


def more(report: EnergyReport) -> str:
    """A mark before a total that leaves synaptic operations out."""
    missing = report.total_picojoules is not None and "synaptic_operation" in report.unpriced
    return "> " if missing else ""


def any_disagree(reports: Sequence[EnergyReport]) -> bool:
    """Whether the sources of some total disagree."""
    return any(r.total_picojoules is not None and r.total_picojoules.disagrees for r in reports)


def total_columns(disagree: bool) -> tuple[str, ...]:
    """Headings of :func:`range_cells` for a total."""
    return ("low", "total", "high") if disagree else ("total",)


def range_cells(
    energy: Range | None, disagree: bool, text: Callable[[float], str], unknown: str
) -> tuple[str, ...]:
    """The cells of an energy, ``unknown`` where there is none; its ends if sources disagree."""
    if energy is None:
        return ("", unknown, "") if disagree else (unknown,)
    ends = (energy.low, energy.nominal, energy.high)
    return tuple(map(text, ends if disagree else (energy.nominal,)))


def nominal(energy: Range | None) -> str:
    """The nominal energy, with its unit."""
    return joules(None if energy is None else energy.nominal)


def spread(energy: Range | None) -> str:
    """An energy, with its ends where the sources disagree."""
    if energy is None:
        return "unset"
    if not energy.disagrees:
        return joules(energy.nominal)
    return f"{joules(energy.nominal)}, {joules(energy.low)} to {joules(energy.high)}"


def said_of_total(report: EnergyReport) -> str:
    """What the total is, and is not."""
    said = ["estimate"] if report.proxy else []
    if any(row.scope == "all_in" for row in report.figures.values()):
        said.append("an all-in figure: neurons, memory, routing and leakage are inside")
    said.append("priced operations only")
    return ", ".join(said)


def shares(report: EnergyReport) -> str:
    """The parts of a total."""
    parts = [f"{name} {joules(e.nominal)}" for name, e in report.parts.items() if e is not None]
    parts += [f"static of {s.per}s {joules(s.picojoules)}" for s in report.static]
    return ", ".join(parts)


def caveat(report: EnergyReport) -> str:
    """What must be said beside a ratio."""
    return f"{report.twin.caveat}; here it is {percent(report.rate)}"


def static_words(static: StaticEnergy) -> str:
    """Static energy as power times time."""
    least = ", one at least: not placed" if not static.placed else ""
    return (
        f"{joules(static.picojoules)}: {exact(static.watts)} W on "
        f"{_many(static.number, static.per)}{least}, for {exact(1e3 * static.seconds)} ms "
        f"({static.evidence}: {static.source}; time of a timestep: {static.time_source})"
    )


def placed(report: EnergyReport) -> str:
    """Cores and chips that a placement takes."""
    return f"{_many(report.cores, 'core')} of {_many(report.chips, 'chip')}"


def _many(number: int | None, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sourced(name: str, row: EnergyRow) -> str:
    """A figure with everything its source says of it."""
    said = [row.evidence, row.scope.replace("_", " "), row.extremum, row.voltage]
    return (
        f"{words([name])} {exact(row.value)} {row.unit} "
        f"({', '.join(word for word in said if word)}): {provenance(row)}"
    )


def did(operations: Mapping[str, float]) -> str:
    """Operations of the twin in words: MACs, and what a convention counts beside them."""
    short = {"multiply_accumulate": "MAC", "synaptic_operation": "AC"}
    return ", ".join(
        f"{quantity(number)} {short.get(name) or name.replace('_', ' ')}"
        for name, number in operations.items()
    )


def words(operations: Sequence[str]) -> str:
    """Names of operations, as people read them."""
    return ", ".join(name.replace("_", " ") for name in operations)


def exact(value: float) -> str:
    """A count or figure with all the digits that matter to whoever recomputes it."""
    return f"{value:,.0f}" if value == int(value) else f"{round_to(value, 9):,}"
