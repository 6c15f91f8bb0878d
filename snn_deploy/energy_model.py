"""Counts times a chip's figures. A figure that is missing stays missing: it is never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snn_deploy.counting import Convention, Counts, asgl, count
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.hardware import OPERATIONS, Target, target
from snn_deploy.sim import Record

Operations = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """One population with the projections that end at it, per inference.

    ``operations`` are means over the samples; ``picojoules`` holds the priced ones, None if unset.
    ``rate`` is spikes per neuron and timestep, None where nothing spikes.
    """

    name: str
    neurons: int
    rate: float | None
    operations: Mapping[str, float]
    picojoules: Mapping[str, float | None]
    twin: int


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """Energy per inference on one chip.

    Attributes
    ----------
    profile : the chip.
    proxy : the chip whose figures are used in its place, or None.
    host_profile : who prices multiply-accumulates that the chip has no figure for, or None.
    convention : how operations were counted.
    layers : per population, in order.
    total_picojoules : sum of what the chip prices, None if it prices nothing.
    host_picojoules : multiply-accumulates on the host, never part of the total; None if unpriced.
    unpriced : operations that occurred and have no figure.
    twin_picojoules : the ANN twin's multiply-accumulates on the same profile, None if unset.
    """

    profile: str
    proxy: str | None
    host_profile: str | None
    convention: Convention
    samples: int
    timesteps: int
    layers: tuple[LayerEnergy, ...]
    total_picojoules: float | None
    host_picojoules: float | None
    host_operations: float
    unpriced: tuple[str, ...]
    twin_operations: int
    twin_picojoules: float | None
    sources: Mapping[str, str]
    notes: tuple[str, ...]


def price(operations: Operations, profile: Target) -> dict[str, float | None]:
    """Energy of operations on a chip, in pJ per kind; None where the chip has no figure."""
    unknown = operations.keys() - set(OPERATIONS)
    if unknown:
        raise ValueError(f"unknown operations {sorted(unknown)}")
    return {
        name: number * profile.energy[name].picojoules if name in profile.energy else None
        for name, number in operations.items()
    }


def energy(
    graph: Graph,
    record: Record,
    profile: Target | str,
    *,
    convention: Convention | None = None,
    host_profile: Target | str | None = None,
    proxy: Target | str | None = None,
) -> EnergyReport:
    """Energy per inference, per layer.

    Parameters
    ----------
    graph, record : what ran, and its record.
    profile : chip, by name or as a target.
    convention : how to count; default :func:`snn_deploy.counting.asgl`.
    host_profile : prices the multiply-accumulates of values where the chip has no figure for them,
        on a line of their own.
    proxy : chip whose figures stand in for a profile that publishes none.

    Raises
    ------
    SnnDeployError
        SD105 for an unknown profile, SD104 for a proxy where figures exist, SD206 where a host or
        proxy has no figure either.
    """
    chip = _resolve(profile)
    counts = count(graph, record, convention or asgl())
    priced_by = chip
    if proxy is not None:
        priced_by = _resolve(proxy)
        if chip.energy:
            raise SnnDeployError(
                "SD104",
                f"{chip.id} has figures of its own: a proxy is for a chip without any",
                fix=f"use --profile {priced_by.id} to see the other chip",
            )
        if not priced_by.energy:
            raise SnnDeployError("SD206", f"{priced_by.id} has no figures to stand in with")
    host = None if host_profile is None else _resolve(host_profile)
    if host is not None and "multiply_accumulate" not in host.energy:
        raise SnnDeployError(
            "SD206",
            f"{host.id} has no figure for a multiply-accumulate",
            fix="use --host-profile cmos45",
        )
    return _report(counts, chip, priced_by, host)


def _resolve(profile: Target | str) -> Target:
    return target(profile) if isinstance(profile, str) else profile


def _report(counts: Counts, chip: Target, priced_by: Target, host: Target | None) -> EnergyReport:
    layers = []
    totals: dict[str, int] = dict.fromkeys(OPERATIONS, 0)
    for population in counts.populations:
        incoming = [p for p in counts.projections if p.target == population.name]
        operations = {
            "synaptic_operation": sum(p.accumulates for p in incoming),
            "multiply_accumulate": sum(p.multiply_accumulates for p in incoming),
            "neuron_update_active": population.active_updates,
            "neuron_update_inactive": population.inactive_updates,
        }
        for name, number in operations.items():
            totals[name] += number
        slots = population.neurons * counts.samples * counts.timesteps
        layers.append(
            LayerEnergy(
                name=population.name,
                neurons=population.neurons,
                rate=population.spikes / slots if population.spiking else None,
                operations={k: v / counts.samples for k, v in operations.items()},
                picojoules=_per_sample(price(operations, priced_by), counts.samples),
                twin=sum(p.twin for p in incoming),
            )
        )
    whole = _per_sample(price(totals, priced_by), counts.samples)
    chip_parts = [v for v in whole.values() if v is not None]
    products = totals["multiply_accumulate"]
    on_host = products > 0 and "multiply_accumulate" not in priced_by.energy
    host_price = (
        price({"multiply_accumulate": products}, host)["multiply_accumulate"]
        if host is not None and on_host
        else None
    )
    twin = sum(p.twin for p in counts.projections)
    sources = {name: row.source for name, row in priced_by.energy.items()}
    if host_price is not None and host is not None:
        sources["host multiply_accumulate"] = host.energy["multiply_accumulate"].source
    all_in = any(row.scope == "all_in" for row in priced_by.energy.values())
    return EnergyReport(
        profile=chip.id,
        proxy=None if priced_by is chip else priced_by.id,
        host_profile=None if host is None else host.id,
        convention=counts.convention,
        samples=counts.samples,
        timesteps=counts.timesteps,
        layers=tuple(layers),
        total_picojoules=sum(chip_parts) if chip_parts else None,
        host_picojoules=None if host_price is None else host_price / counts.samples,
        host_operations=products / counts.samples if on_host else 0.0,
        unpriced=tuple(
            name
            for name in OPERATIONS
            if totals[name]
            and whole[name] is None
            and not (name == "multiply_accumulate" and host_price is not None)
            and not (all_in and name.startswith("neuron_update"))
        ),
        twin_operations=twin,
        twin_picojoules=price({"multiply_accumulate": twin}, priced_by)["multiply_accumulate"],
        sources=sources,
        notes=chip.notes + (() if priced_by is chip else priced_by.notes),
    )


def _per_sample(prices: Mapping[str, float | None], samples: int) -> dict[str, float | None]:
    return {name: None if value is None else value / samples for name, value in prices.items()}
