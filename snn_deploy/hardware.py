"""Targets: a chip's number format and energy rows, read from ``hw_profiles/*.toml``.

A target is data. Those of the package are found by name; a TOML file of one's own by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

from snn_deploy.checks import format_fault
from snn_deploy.errors import SnnDeployError
from snn_deploy.numerics import NumberFormat
from snn_deploy.toml import tomllib

# What a profile may price. A row that is missing is unset, never zero.
OPERATIONS = (
    "synaptic_operation",
    "multiply_accumulate",
    "neuron_update_active",
    "neuron_update_inactive",
)
EVIDENCE = ("measured", "simulated", "vendor", "derived")
_UNITS = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRow:
    """Energy of one operation, with where the figure comes from.

    Attributes
    ----------
    value, unit : the figure as published.
    source : publication and table.
    evidence : ``measured``, ``simulated``, ``vendor`` or ``derived``.
    scope : ``per_term``: this operation only; ``all_in``: everything the chip does is inside.
    extremum : ``min``, ``typ`` or ``max`` where the source says so.
    voltage : operating point where the source says so.
    """

    value: float
    unit: str
    source: str
    evidence: str
    scope: str
    extremum: str | None = None
    voltage: str | None = None

    @property
    def picojoules(self) -> float:
        """The figure in pJ."""
        return self.value * _UNITS[self.unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A chip: what can be exported to it, and what its operations cost.

    ``formats`` are the exporters whose files an export holds if nothing else is asked for.
    """

    id: str
    name: str
    vendor: str
    summary: str
    notes: tuple[str, ...]
    energy: Mapping[str, EnergyRow]
    number_format: NumberFormat | None
    formats: tuple[str, ...] = ("nir",)

    def require_format(self) -> NumberFormat:
        """The number format.

        Raises
        ------
        SnnDeployError
            SD201 if the target is an energy profile only.
        """
        if self.number_format is None:
            able = [t.id for t in available() if t.number_format is not None]
            raise SnnDeployError(
                "SD201",
                f"{self.id} is a profile for energy, not a target for export",
                why="its number format is not described",
                fix=f"export to one of: {', '.join(able)}",
            )
        return self.number_format


def available() -> tuple[Target, ...]:
    """The targets and profiles that come with the package, by name."""
    folder = resources.files("snn_deploy.hw_profiles")
    files = sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    return tuple(parse(name, folder.joinpath(name).read_text("utf-8")) for name in files)


def target(name: str) -> Target:
    """A target by name, or by the path of a TOML file.

    Raises
    ------
    SnnDeployError
        SD105 for an unknown name, SD101 or SD104 for a file that is missing or invalid.
    """
    if name.endswith(".toml"):
        try:
            return parse(name, Path(name).read_text("utf-8"))
        except OSError as error:
            raise SnnDeployError("SD101", "cannot read", where=name, why=error.strerror) from None
        except UnicodeDecodeError:
            raise SnnDeployError("SD104", "not a text file", where=name) from None
    known = {t.id: t for t in available()}
    if name not in known:
        raise SnnDeployError(
            "SD105",
            f"unknown target or profile {name!r}",
            fix=f"choose one of: {', '.join(known)}, or give the path of a .toml file",
        )
    return known[name]


def parse(where: str, text: str) -> Target:
    """Read and validate one profile."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SnnDeployError("SD104", "not valid TOML", where=where, why=str(error)) from None
    _only(data, {"chip", "energy", "format"}, where)
    chip = _table(data, "chip", where)
    _only(
        chip,
        {"id", "name", "vendor", "node_nm", "year", "summary", "notes", "formats"},
        f"{where} [chip]",
    )
    for key in ("id", "name", "vendor", "summary"):
        if not isinstance(chip.get(key), str):
            raise SnnDeployError("SD104", f"[chip] needs a text `{key}`", where=where)
    notes = chip.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise SnnDeployError("SD104", "[chip] notes must be a list of texts", where=where)
    formats = chip.get("formats", ["nir"])
    if not isinstance(formats, list) or not all(isinstance(name, str) for name in formats):
        raise SnnDeployError("SD104", "[chip] formats must be a list of texts", where=where)
    energy = _table(data, "energy", where) if "energy" in data else {}
    _only(energy, set(OPERATIONS), f"{where} [energy]")
    rows = {
        key: _energy_row(_table(energy, key, where), f"{where} [energy.{key}]") for key in energy
    }
    if any(row.scope == "all_in" for row in rows.values()) and len(rows) > 1:
        raise SnnDeployError(
            "SD104",
            "an all-in figure stands beside others",
            where=f"{where} [energy]",
            why="everything the chip does is inside an all-in figure: a second row counts twice",
        )
    number_format = (
        _number_format(_table(data, "format", where), f"{where} [format]")
        if "format" in data
        else None
    )
    return Target(
        id=chip["id"],
        name=chip["name"],
        vendor=chip["vendor"],
        summary=chip["summary"],
        notes=tuple(notes),
        energy=rows,
        number_format=number_format,
        formats=tuple(formats),
    )


def _table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise SnnDeployError("SD104", f"a table [{key}] is needed", where=where)
    return value


def _only(data: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(data.keys() - known)
    if unknown:
        raise SnnDeployError(
            "SD104",
            f"unknown key {unknown[0]!r}",
            where=where,
            fix=f"known keys: {', '.join(sorted(known))}",
        )


def _typed(data: dict[str, Any], kind: type, where: str) -> dict[str, Any]:
    """The entries of a table, checked against a dataclass: presence, type, allowed values."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    _only(data, set(known), where)
    for name, declared in known.items():
        if name not in data:
            if declared.default is MISSING:
                raise SnnDeployError("SD104", f"`{name}` is missing", where=where)
            continue
        value, hint = data[name], hints[name]
        if hint is float:
            valid = isinstance(value, int | float) and not isinstance(value, bool)
        elif hint in (int, str, bool):
            valid = type(value) is hint
        elif str in get_args(hint):  # str | None
            valid = isinstance(value, str)
        else:  # Literal
            valid = value in get_args(hint)
        if not valid:
            allowed = [a for a in get_args(hint) if isinstance(a, str)]
            wanted = " or ".join(allowed) if allowed else getattr(hint, "__name__", "text")
            raise SnnDeployError("SD104", f"`{name}` = {value!r} must be {wanted}", where=where)
    return data


def _energy_row(data: dict[str, Any], where: str) -> EnergyRow:
    row = EnergyRow(**_typed(data, EnergyRow, where))
    if row.unit not in _UNITS:
        raise SnnDeployError("SD104", f"unit {row.unit!r}", where=where, fix=", ".join(_UNITS))
    if row.evidence not in EVIDENCE or row.scope not in ("per_term", "all_in"):
        raise SnnDeployError(
            "SD104",
            f"evidence {row.evidence!r}, scope {row.scope!r}",
            where=where,
            fix=f"evidence: {', '.join(EVIDENCE)}; scope: per_term, all_in",
        )
    if not 0 < row.value < float("inf"):
        raise SnnDeployError(
            "SD104", "an energy must be above 0", where=where, fix="leave unset what is not known"
        )
    return row


def _number_format(data: dict[str, Any], where: str) -> NumberFormat:
    number_format = NumberFormat(**_typed(data, NumberFormat, where))
    fault = format_fault(number_format)
    if fault is not None:
        raise SnnDeployError("SD104", fault, where=where)
    return number_format
