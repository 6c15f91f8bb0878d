"""Targets: a chip's number format, energies and limits, read from ``hw_profiles/*.toml``.

A target is data. Those of the package are found by name; a TOML file of one's own by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from snn_deploy import profile_tables as tables
from snn_deploy.errors import SnnDeployError
from snn_deploy.numerics import NumberFormat
from snn_deploy.profile_rows import (
    EVIDENCE,
    LIMITS,
    OPERATIONS,
    EnergyRow,
    Figure,
    Limit,
    Static,
    Structure,
)
from snn_deploy.toml import tomllib
from snn_deploy.toml_tables import only, table

__all__ = [
    "EVIDENCE",
    "LIMITS",
    "OPERATIONS",
    "EnergyRow",
    "Figure",
    "Limit",
    "Static",
    "Structure",
    "Target",
    "available",
    "parse",
    "target",
]

_PROFILES = "snn_deploy.hw_profiles"
_CHIP_TEXTS = ("id", "name", "vendor", "summary")
_CHIP_LISTS = ("notes", "formats")
_CHIP_NUMBERS = ("node_nm", "year")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A chip: what can be exported to it, what its operations cost and how much it holds.

    What is missing in ``energy``, ``static``, ``limits`` or ``structure`` is unset: not known.
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
    static: Static | None = None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    structure: Structure | None = None

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
    return tuple(target(name) for name in _names())


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
            raise SnnDeployError(
                "SD104", "not a text file", where=name, fix="save it as UTF-8"
            ) from None
    known = _names()
    if name not in known:
        raise SnnDeployError(
            "SD105",
            f"unknown target or profile {name!r}",
            fix=f"choose one of: {', '.join(known)}, or give the path of a .toml file",
        )
    file = resources.files(_PROFILES).joinpath(f"{name}.toml")
    return parse(file.name, file.read_text("utf-8"))


def _names() -> list[str]:
    """Names of the profiles of the package; a file is called after the chip's id."""
    files = (file.name for file in resources.files(_PROFILES).iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def parse(where: str, text: str) -> Target:
    """Read and validate one profile.

    Parameters
    ----------
    where : name of the file, for errors.
    text : its content.

    Raises
    ------
    SnnDeployError
        SD104, naming the file, the table and the key.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError also for endless numbers
        raise SnnDeployError("SD104", "not valid TOML", where=where, why=str(error)) from None
    only(data, {"chip", "energy", "static", "limits", "structure", "format"}, where)
    chip = _chip(table(data, "chip", where), where)
    given = {name: table(data, name, where) for name in data}
    energy = tables.energy_rows(given.get("energy", {}), where)
    return Target(
        id=chip["id"],
        name=chip["name"],
        vendor=chip["vendor"],
        summary=chip["summary"],
        notes=tuple(chip.get("notes", [])),
        energy=energy,
        number_format=tables.number_format(given["format"], where) if "format" in given else None,
        formats=tuple(chip.get("formats", ["nir"])),
        static=tables.static(given["static"], energy, where) if "static" in given else None,
        limits=tables.limits(given.get("limits", {}), where),
        structure=tables.structure(given["structure"], where) if "structure" in given else None,
    )


def _chip(chip: dict[str, Any], where: str) -> dict[str, Any]:
    only(chip, {*_CHIP_TEXTS, *_CHIP_LISTS, *_CHIP_NUMBERS}, f"{where} [chip]")
    for key in _CHIP_TEXTS:
        if not isinstance(chip.get(key), str):
            raise SnnDeployError(
                "SD104",
                f"[chip] needs a text `{key}`",
                where=where,
                fix=f"texts that it needs: {', '.join(_CHIP_TEXTS)}",
            )
    for key in _CHIP_LISTS:
        value = chip.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise SnnDeployError(
                "SD104",
                f"[chip] {key} must be a list of texts",
                where=where,
                fix=f'{key} = ["a text", "another"]',
            )
    for key in _CHIP_NUMBERS:
        if type(chip.get(key, 1)) is not int:
            raise SnnDeployError(
                "SD104", f"[chip] {key} must be an integer", where=where, fix="or leave it out"
            )
    return chip
