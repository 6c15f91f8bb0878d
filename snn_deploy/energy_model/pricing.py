"""What operations cost on a chip. A figure that is missing stays missing: it is never zero.

Where sources disagree a row has a lowest and a highest figure beside the nominal one. All three are
carried through every sum: ``low`` is what comes out if every lowest figure is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from snn_deploy.errors import SnnDeployError
from snn_deploy.hardware import OPERATIONS, EnergyRow, Target, target

Part = Literal["synaptic", "neuron", "memory", "routing"]
Status = Literal["priced", "unset", "included", "host"]

# The part of a report that an operation belongs to.
PARTS: Mapping[Part, tuple[str, ...]] = {
    "synaptic": ("synaptic_operation", "multiply_accumulate"),
    "neuron": ("neuron_update_active", "neuron_update_inactive", "spike_out"),
    "memory": ("memory_read", "memory_write"),
    "routing": (
        "message_out",
        "message_in",
        "spike_within_tile",
        "hop_east_west",
        "hop_north_south",
        "packet",
    ),
}
PART_OF: Mapping[str, Part] = {name: part for part, names in PARTS.items() for name in names}


@dataclass(frozen=True, slots=True)
class Range:
    """An energy in pJ: the nominal one, between the lowest and the highest of the sources."""

    low: float
    nominal: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.nominal + other.nominal, self.high + other.high)

    def __mul__(self, number: float) -> Range:
        """Energy of ``number`` such operations, at least 0."""
        return Range(self.low * number, self.nominal * number, self.high * number)

    @property
    def disagrees(self) -> bool:
        """Whether the sources give more than one figure."""
        return self.low < self.high


def each(row: EnergyRow) -> Range:
    """Energy of one operation, in pJ."""
    return Range(row.low_picojoules, row.picojoules, row.high_picojoules)


def total(energies: Iterable[Range | None]) -> Range | None:
    """Sum of the energies that are known; None if none is."""
    summed: Range | None = None
    for energy in energies:
        if energy is not None:
            summed = energy if summed is None else summed + energy
    return summed


def price(operations: Mapping[str, float], profile: Target) -> dict[str, Range | None]:
    """Energy of operations on a chip, in pJ per kind; None where the chip has no figure.

    Raises
    ------
    ValueError
        For an operation that is none of :data:`snn_deploy.hardware.OPERATIONS`.
    """
    unknown = operations.keys() - set(OPERATIONS)
    if unknown:
        raise ValueError(f"unknown operations {sorted(unknown)}")
    return {
        name: each(profile.energy[name]) * number if name in profile.energy else None
        for name, number in operations.items()
    }


@dataclass(frozen=True, slots=True)
class Prices:
    """Who prices the operations of one run.

    Attributes
    ----------
    chip : the chip that the report is about.
    proxy : the chip whose figures stand in for those that ``chip`` does not publish, or None.
    host : prices multiply-accumulates where the chip has no figure for them, or None.
    """

    chip: Target
    proxy: Target | None
    host: Target | None

    @property
    def figures(self) -> Target:
        """The chip whose figures are used."""
        return self.chip if self.proxy is None else self.proxy

    @property
    def all_in(self) -> bool:
        """Whether one figure holds everything that the chip does."""
        return any(row.scope == "all_in" for row in self.figures.energy.values())

    def status(self, operation: str, *, values: bool = False) -> Status:
        """How an operation is priced.

        ``included``: inside an all-in figure, which holds all but arithmetic of another kind.
        ``values``: it is a value through a weight, which a host may compute for the chip.
        """
        if operation in self.figures.energy:
            return "priced"
        if values and self.host is not None:
            return "host"
        return "included" if self.all_in and PART_OF[operation] != "synaptic" else "unset"

    def energy(self, operation: str, count: float, *, values: bool = False) -> Range | None:
        """Energy of operations on the chip, or on the host; None if unset or included."""
        by = self.host if self.status(operation, values=values) == "host" else self.figures
        return None if by is None else price({operation: count}, by)[operation]


def resolve(profile: Target | str) -> Target:
    """A profile, by name or as it is."""
    return target(profile) if isinstance(profile, str) else profile


def prices(
    profile: Target | str,
    proxy: Target | str | None = None,
    host_profile: Target | str | None = None,
) -> Prices:
    """The profiles that price a run, checked.

    Raises
    ------
    SnnDeployError
        SD105 for an unknown profile, SD104 for a proxy where figures exist, SD206 where a host or
        proxy has no figure either.
    """
    chip = resolve(profile)
    stand_in = None if proxy is None else resolve(proxy)
    host = None if host_profile is None else resolve(host_profile)
    if stand_in is not None:
        if chip.energy:
            raise SnnDeployError(
                "SD104",
                f"{chip.id} has figures of its own: a proxy is for a chip without any",
                fix=f"use --profile {stand_in.id} to see the other chip",
            )
        if not stand_in.energy:
            raise SnnDeployError("SD206", f"{stand_in.id} has no figures to stand in with")
    if host is not None and "multiply_accumulate" not in host.energy:
        raise SnnDeployError(
            "SD206",
            f"{host.id} has no figure for a multiply-accumulate",
            fix="use --host-profile cmos45",
        )
    return Prices(chip, stand_in, host)
