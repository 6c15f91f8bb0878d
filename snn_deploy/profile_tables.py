"""Tables of a profile in TOML, read and validated into what :mod:`profile_rows` declares.

Every refusal is SD104 and names the file, the table, the key and what would be valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snn_deploy.checks import format_fault
from snn_deploy.errors import SnnDeployError
from snn_deploy.numerics import NumberFormat
from snn_deploy.profile_rows import (
    EVIDENCE,
    LIMIT_KINDS,
    LIMITS,
    MEMORY_OPERATIONS,
    OPERATIONS,
    SCOPES,
    UNITS,
    EnergyRow,
    Figure,
    Limit,
    Static,
    Structure,
)
from snn_deploy.toml_tables import only, shown, table, typed

_STATIC_UNITS = {"watts_per_chip": "W", "watts_per_core": "W", "timestep_seconds": "s"}
_MEMORY_UNIT = re.compile(rf"({'|'.join(UNITS)}) per [1-9][0-9]{{0,3}}-bit word")
# Memories that may differ from core to core.
_LISTS = ("kernel_words_per_core", "neuron_words_per_core")
_LARGEST_LIMIT = 1 << 53
_LARGEST_FIGURE = 1e300


def energy_rows(data: dict[str, Any], where: str) -> dict[str, EnergyRow]:
    """``[energy.*]``, in the order of :data:`OPERATIONS`."""
    only(data, set(OPERATIONS), f"{where} [energy]")
    rows = {
        name: _energy_row(name, table(data, name, f"{where} [energy]"), f"{where} [energy.{name}]")
        for name in OPERATIONS
        if name in data
    }
    if any(row.scope == "all_in" for row in rows.values()) and len(rows) > 1:
        raise SnnDeployError(
            "SD104",
            "an all-in figure stands beside others",
            where=f"{where} [energy]",
            why="everything the chip does is inside an all-in figure: a second row counts twice",
            fix="keep one of them, or make two profiles",
        )
    return rows


def static(data: dict[str, Any], rows: Mapping[str, EnergyRow], where: str) -> Static:
    """``[static.*]``, beside the energies of the same chip."""
    only(data, set(_STATIC_UNITS), f"{where} [static]")
    found = {}
    for name in data:
        place = f"{where} [static.{name}]"
        figure = Figure(**typed(table(data, name, f"{where} [static]"), Figure, place))
        if figure.unit != _STATIC_UNITS[name]:
            raise SnnDeployError(
                "SD104", f"unit {figure.unit!r}", where=place, fix=f'"{_STATIC_UNITS[name]}"'
            )
        _sourced(figure, place)
        _positive("value", figure.value, place)
        if name.startswith("watts") and any(row.scope == "all_in" for row in rows.values()):
            raise SnnDeployError(
                "SD104",
                "static power stands beside an all-in energy",
                where=place,
                why="static power is inside an all-in figure: it would count twice",
                fix="keep one of them, or make two profiles",
            )
        found[name] = figure
    return Static(**found)


def limits(data: dict[str, Any], where: str) -> dict[str, Limit]:
    """``[limits.*]``, in the order of :data:`LIMITS`; ``value`` may be a list, one per core."""
    only(data, set(LIMITS), f"{where} [limits]")
    return {
        name: _limit(name, table(data, name, f"{where} [limits]"), f"{where} [limits.{name}]")
        for name in LIMITS
        if name in data
    }


def structure(data: dict[str, Any], where: str) -> Structure:
    """``[structure]``."""
    found = Structure(**typed(data, Structure, f"{where} [structure]"))
    _named("source", found.source, f"{where} [structure]")
    return found


def number_format(data: dict[str, Any], where: str) -> NumberFormat:
    """``[format]``."""
    place = f"{where} [format]"
    found = NumberFormat(**typed(data, NumberFormat, place))
    fault = format_fault(found)
    if fault is not None:
        raise SnnDeployError("SD104", fault, where=place)
    return found


def _energy_row(name: str, data: dict[str, Any], where: str) -> EnergyRow:
    row = EnergyRow(**typed(data, EnergyRow, where))
    in_memory = name in MEMORY_OPERATIONS
    if not (_MEMORY_UNIT.fullmatch(row.unit) if in_memory else row.unit in UNITS):
        fix = '"pJ per 32-bit word", or as wide as it is' if in_memory else ", ".join(UNITS)
        raise SnnDeployError("SD104", f"unit {row.unit!r}", where=where, fix=fix)
    _sourced(row, where)
    _choice("scope", row.scope, SCOPES, where)
    if row.extremum is not None:
        _choice("extremum", row.extremum, ("min", "typ", "max"), where)
    for key in ("value", "low", "high"):
        _positive(key, getattr(row, key), where)
    for key in ("low", "high"):
        if (getattr(row, key) is None) != (getattr(row, f"{key}_source") is None):
            _together(key, f"{key}_source", where)
    if not row.low_picojoules <= row.picojoules <= row.high_picojoules:
        raise SnnDeployError(
            "SD104",
            "`low` <= `value` <= `high` does not hold",
            where=where,
            fix="give them in one unit, the least first",
        )
    return row


def _limit(name: str, data: dict[str, Any], where: str) -> Limit:
    value = data.get("value")
    values = value if isinstance(value, list) else [value]
    if not values or not all(type(v) is int and 1 <= v <= _LARGEST_LIMIT for v in values):
        raise SnnDeployError(
            "SD104",
            f"`value` = {shown(value)} is no limit",
            where=where,
            fix="an integer above 0, or a list of one per core; leave unset what is not known",
        )
    if isinstance(value, list) and name not in _LISTS:
        raise SnnDeployError(
            "SD104", "`value` is a list", where=where, fix=f"only {' and '.join(_LISTS)} take one"
        )
    found = Limit(**typed({**data, "value": max(values)}, Limit, where))
    _choice("kind", found.kind, LIMIT_KINDS, where)
    _sourced(found, where)
    return replace(found, per_core=tuple(value)) if isinstance(value, list) else found


def _sourced(row: EnergyRow | Figure | Limit, where: str) -> None:
    _named("source", row.source, where)
    _choice("evidence", row.evidence, EVIDENCE, where)
    if (row.derived is None) != (row.inputs is None):
        _together("derived", "inputs", where)
    for key, value in (row.inputs or {}).items():
        if not abs(value) < _LARGEST_FIGURE:
            raise SnnDeployError("SD104", f"`inputs.{key}` must be finite", where=where)


def _named(key: str, text: str, where: str) -> None:
    if not text.strip():
        raise SnnDeployError(
            "SD104", f"`{key}` is empty", where=where, fix="name the publication and its table"
        )


def _choice(key: str, value: str, known: Mapping[str, str] | tuple[str, ...], where: str) -> None:
    if value not in known:
        raise SnnDeployError("SD104", f"{key} {value!r}", where=where, fix=", ".join(known))


def _positive(key: str, value: float | None, where: str) -> None:
    if value is not None and not 0 < value < _LARGEST_FIGURE:  # nor NaN
        raise SnnDeployError(
            "SD104", f"`{key}` must be above 0", where=where, fix="leave unset what is not known"
        )


def _together(key: str, other: str, where: str) -> None:
    raise SnnDeployError(
        "SD104", f"`{key}` and `{other}` go together", where=where, fix="give both or none"
    )
