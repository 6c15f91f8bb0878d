"""Targets and profiles for a terminal: what is known of a chip, from where, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from rich.markup import escape
from rich.table import Table

from snn_deploy.hardware import LIMITS, OPERATIONS, EnergyRow, Figure, Limit, Structure, Target
from snn_deploy.reporting.tables import table


def target_table(targets: Sequence[Target]) -> Table:
    """The targets and profiles, and what each is good for."""
    return _texts(
        "Targets and energy profiles",
        ("name", "export", "energy", "limits", "what"),
        [
            (
                t.id,
                "yes" if t.number_format is not None else "-",
                _energies(t),
                f"{len(t.limits)}" if t.limits else "-",
                t.summary,
            )
            for t in targets
        ],
    )


def chip_tables(chip: Target) -> list[Table]:
    """Every figure of one chip with its evidence and source; no table where there is none."""
    energies = _texts(
        f"{chip.id}: energies",
        ("operation", "figure", "low", "high", "scope", "evidence", "source"),
        [
            (
                _words(name),
                f"{row.value:g} {row.unit}",
                "-" if row.low is None else f"{row.low:g}",
                "-" if row.high is None else f"{row.high:g}",
                _words(row.scope),
                _evidence(row),
                _source(row),
            )
            for name, row in chip.energy.items()
        ],
    )
    static = _texts(
        f"{chip.id}: static power and time",
        ("figure", "value", "evidence", "source"),
        [
            (
                _words(name),
                f"{figure.value:g} {figure.unit}",
                _words(figure.evidence),
                _source(figure),
            )
            for name, figure in _static(chip).items()
            if figure is not None
        ],
    )
    limits = _texts(
        f"{chip.id}: limits",
        ("limit", "most", "kind", "evidence", "source"),
        [
            (_words(name), _most(limit), limit.kind, _words(limit.evidence), _source(limit))
            for name, limit in chip.limits.items()
        ],
    )
    return [made for made in (energies, static, limits) if made.row_count]


def chip_lines(chip: Target) -> list[str]:
    """What goes above or below the tables: what the chip can express, what is unset, notes."""
    lines = [f"{chip.name} ({chip.vendor}): {chip.summary}"]
    export = "-" if chip.number_format is None else f"yes, as {', '.join(chip.formats)}"
    lines.append(f"export       {export}")
    answers = structure_answers(chip.structure)
    if chip.structure is not None:
        known = (f"{_words(name)} {answer}" for name, answer in answers.items() if answer)
        lines.append(f"structure    {', '.join(known)} ({chip.structure.source})")
    unset = {
        "energy": [name for name in OPERATIONS if name not in chip.energy],
        "static": [name for name, figure in _static(chip).items() if figure is None],
        "limits": [name for name in LIMITS if name not in chip.limits],
        "structure": [name for name, answer in answers.items() if not answer],
    }
    if any(row.scope == "all_in" for row in chip.energy.values()):
        unset["energy"] = []  # everything is inside
        unset["static"] = [name for name in unset["static"] if not name.startswith("watts")]
    for kind, names in unset.items():
        if names:
            lines.append(f"unset        {kind}: {', '.join(_words(name) for name in names)}")
    return lines + [f"note         {note}" for note in chip.notes]


def structure_answers(structure: Structure | None) -> dict[str, str]:
    """What a chip can express: ``yes``, ``no`` or an empty text where that is not known."""
    names = [f.name for f in fields(Structure) if f.name != "source"]
    words = {True: "yes", False: "no", None: ""}
    return {name: words[getattr(structure, name, None)] for name in names}


def _texts(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts that others may have written, brackets included."""
    escaped = [[escape(cell) for cell in row] for row in rows]
    return table(escape(title), columns, escaped, text_columns=len(columns))


def _energies(chip: Target) -> str:
    """How many figures there are and how they were obtained."""
    if not chip.energy:
        return "unset"
    evidence = sorted({_words(row.evidence) for row in chip.energy.values()})
    return f"{len(chip.energy)} {', '.join(evidence)}"


def _static(chip: Target) -> dict[str, Figure | None]:
    names = ("watts_per_chip", "watts_per_core", "timestep_seconds")
    return {name: getattr(chip.static, name, None) for name in names}


def _evidence(row: EnergyRow) -> str:
    extra = [part for part in (row.extremum, row.voltage) if part]
    return ", ".join([_words(row.evidence), *extra])


def _source(row: EnergyRow | Figure | Limit) -> str:
    parts = [row.source]
    if row.derived is not None and row.inputs is not None:
        inputs = ", ".join(f"{name} {value:g}" for name, value in row.inputs.items())
        parts.append(f"{row.derived} with {inputs}")
    if isinstance(row, EnergyRow):
        parts += [f"low: {row.low_source}"] if row.low_source else []
        parts += [f"high: {row.high_source}"] if row.high_source else []
    return "; ".join(parts)


def _most(limit: Limit) -> str:
    return ", ".join(f"{n:,}" for n in limit.per_core or (limit.value,))


def _words(name: str) -> str:
    return name.replace("_", " ")
