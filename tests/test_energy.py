"""Energy: published totals reproduced, missing figures left missing, host and chip kept apart."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from snn_deploy import energy, quantize, simulate
from snn_deploy.counting import asgl
from snn_deploy.energy_model import EnergyReport, Range, price
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph
from snn_deploy.hardware import OPERATIONS, EnergyRow, Target, available, target
from snn_deploy.reporting import joules
from snn_deploy.reporting.energy_tables import energy_lines, energy_table
from snn_deploy.sim import Record
from tests.helpers.deploy import TIMESTEPS, small_net, small_recording
from tests.helpers.refusals import refused

SAMPLES = 4
ACTIVE, INACTIVE = "neuron_update_active", "neuron_update_inactive"
LOIHI1, CMOS = "loihi1-davies2018", "cmos45"

# --- reports --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> Graph:
    return quantize(freeze(small_net()), "loihi2")


@pytest.fixture(scope="module")
def record(graph: Graph) -> Record:
    return simulate(graph, small_recording(SAMPLES)).record


def totals(graph: Graph, record: Record) -> dict[str, float]:
    """Operations per inference, from the record."""
    updates = sum(int(n.sum()) for n in record.updates.values())
    slots = SAMPLES * TIMESTEPS * sum(p.size for p in graph.populations)
    events = {name: int(n.sum()) for name, n in record.events.items() if name != "input->conv1"}
    products = SAMPLES * int(graph.fan_out(graph.projections[0]).sum())
    spikes = sum(int(n.sum()) for n in record.spikes.values())
    summed = {
        "synaptic_operation": sum(events.values()),
        "multiply_accumulate": products,
        ACTIVE: updates,
        INACTIVE: slots - updates,
        "spike_out": spikes,
    }
    return {name: n / SAMPLES for name, n in summed.items()}


def nominal(energy: Range | None) -> float | None:
    """Of figures on which sources agree."""
    if energy is not None:
        assert energy.low == energy.nominal == energy.high
    return None if energy is None else energy.nominal


def text(report: EnergyReport) -> str:
    return "\n".join([str(energy_table(report).title), *energy_lines(report)])


def test_chip_and_host_are_apart(graph: Graph, record: Record) -> None:
    counted = totals(graph, record)
    report = energy(graph, record, LOIHI1, host_profile=CMOS)
    expected = 23.6 * counted["synaptic_operation"] + 81 * counted[ACTIVE] + 52 * counted[INACTIVE]
    assert nominal(report.total_picojoules) == pytest.approx(expected, rel=1e-12)
    assert report.host is not None
    assert report.host.count == counted["multiply_accumulate"]
    assert nominal(report.host.picojoules) == pytest.approx(4.6 * report.host.count, rel=1e-12)
    assert report.unpriced == ("spike_out",)
    assert report.twin.picojoules is None
    assert "not in the total" in text(report)
    assert joules(nominal(report.total_picojoules)) in text(report)
    without = energy(graph, record, LOIHI1)
    assert without.host is not None
    assert without.host.picojoules is None
    assert without.total_picojoules == report.total_picojoules
    assert without.unpriced == ("multiply_accumulate", "spike_out")
    assert "unset" in text(without)


def test_host_prices_nothing_that_the_chip_prices(graph: Graph, record: Record) -> None:
    counted = totals(graph, record)
    report = energy(graph, record, CMOS, host_profile=CMOS)
    expected = 0.9 * counted["synaptic_operation"] + 4.6 * counted["multiply_accumulate"]
    total, twin = nominal(report.total_picojoules), nominal(report.twin.picojoules)
    assert total == pytest.approx(expected, rel=1e-12)
    assert report.host is None
    assert report.unpriced == (ACTIVE, INACTIVE, "spike_out")
    products = report.twin.operations["multiply_accumulate"]
    assert twin == pytest.approx(4.6 * products, rel=1e-12)
    assert total is not None
    share = total / (4.6 * products)
    assert f"takes {100 * share:.2f}% of it" in text(report)


def test_missing_figures_are_not_zero(graph: Graph, record: Record) -> None:
    report = energy(graph, record, "loihi2")
    assert report.total_picojoules is None
    assert report.host is not None
    assert report.host.picojoules is None
    counted = totals(graph, record)
    assert all(counted[name] for name in ("synaptic_operation", "multiply_accumulate", "spike_out"))
    assert report.unpriced == tuple(name for name in OPERATIONS if counted.get(name))
    for layer in report.layers:
        assert {cost.picojoules for cost in layer.costs} == set(layer.parts.values()) == {None}
        assert any(layer.operations.values())
    assert "0 pJ" not in text(report)
    assert "chip total   unset" in text(report)
    assert price({"synaptic_operation": 0}, target("loihi2")) == {"synaptic_operation": None}


@pytest.mark.parametrize("profile", [LOIHI1, CMOS])
@pytest.mark.parametrize("first_layer", ["once", "per_timestep"])
def test_total_is_the_sum_of_the_layers(
    graph: Graph, record: Record, profile: str, first_layer: Any
) -> None:
    report = energy(graph, record, profile, convention=asgl(first_layer), host_profile=CMOS)
    parts = [nominal(layer.total_picojoules) for layer in report.layers]
    summed = sum(part for part in parts if part is not None)
    assert nominal(report.total_picojoules) == pytest.approx(summed, rel=1e-12)
    twin = sum(cost.count for layer in report.layers for cost in layer.twin)
    assert report.twin.operations == {"multiply_accumulate": twin}


def test_first_layer_per_timestep(graph: Graph, record: Record) -> None:
    once, each = (
        energy(graph, record, LOIHI1, host_profile=CMOS, convention=asgl(first))
        for first in ("once", "per_timestep")
    )
    assert each.host is not None
    assert once.host is not None
    assert each.host.count == TIMESTEPS * once.host.count
    assert each.total_picojoules == once.total_picojoules


def test_energy_is_per_inference(graph: Graph, record: Record) -> None:
    twice = energy(graph, Record.joined([record, record]), LOIHI1, host_profile=CMOS)
    once = energy(graph, record, LOIHI1, host_profile=CMOS)
    assert asdict(twice) == asdict(replace(once, samples=2 * SAMPLES))


def test_rates(graph: Graph, record: Record) -> None:
    for layer in energy(graph, record, CMOS).layers:
        if layer.name == "output":
            assert layer.rate is None
        else:
            spikes = int(record.spikes[layer.name].sum())
            assert layer.rate == spikes / (SAMPLES * TIMESTEPS * layer.neurons)


# --- proxies --------------------------------------------------------------------------------------


def test_proxy_is_named(graph: Graph, record: Record) -> None:
    report = energy(graph, record, "loihi2", proxy=LOIHI1)
    assert (report.profile, report.proxy) == ("loihi2", LOIHI1)
    assert report.total_picojoules == energy(graph, record, LOIHI1).total_picojoules
    assert set(target("loihi2").notes) | set(target(LOIHI1).notes) == set(report.notes)
    assert f"on loihi2 at {LOIHI1}'s figures (proxy)" in text(report)
    assert "(estimate, " in text(report)
    assert "estimate" not in text(energy(graph, record, LOIHI1))


@pytest.mark.parametrize(
    ("code", "profile", "options"),
    [
        ("SD104", LOIHI1, {"proxy": CMOS}),
        ("SD206", "loihi2", {"proxy": "generic"}),
        ("SD206", CMOS, {"host_profile": LOIHI1}),
        ("SD206", LOIHI1, {"host_profile": "loihi2"}),
        ("SD105", "spam", {}),
        ("SD105", CMOS, {"host_profile": "spam"}),
        ("SD105", "loihi2", {"proxy": "spam"}),
        ("SD101", "spam.toml", {}),
    ],
)
def test_refused(
    graph: Graph, record: Record, code: str, profile: str, options: dict[str, str]
) -> None:
    with refused(code):
        energy(graph, record, profile, **options)  # type: ignore[arg-type]


def test_unknown_operation() -> None:
    with pytest.raises(ValueError, match="spam"):
        price({"spam": 1}, target(CMOS))


# --- profiles of one's own ------------------------------------------------------------------------

PROFILE = """
[chip]
id = "mine"
name = "Mine"
vendor = "me"
summary = "a chip"

[energy.synaptic_operation]
value = {value}
unit = "{unit}"
source = "measured by me"
evidence = "measured"
scope = "{scope}"
"""


def profile(folder: Path, more: str = "", **entries: Any) -> Target:
    path = folder / "mine.toml"
    values = {"value": 26.0, "unit": "pJ", "scope": "all_in"} | entries
    path.write_text(PROFILE.format(**values) + more)
    return target(str(path))


def test_all_in_figure_takes_no_other_terms(graph: Graph, record: Record, tmp_path: Path) -> None:
    counted = totals(graph, record)
    report = energy(graph, record, profile(tmp_path), host_profile=CMOS)
    expected = 26 * counted["synaptic_operation"]
    assert nominal(report.total_picojoules) == pytest.approx(expected, rel=1e-12)
    assert report.unpriced == ()
    assert report.figures["synaptic_operation"].source == "measured by me"
    per_term = energy(graph, record, profile(tmp_path, scope="per_term"), host_profile=CMOS)
    assert per_term.unpriced == (ACTIVE, INACTIVE, "spike_out")


def test_all_in_figure_stands_alone(tmp_path: Path) -> None:
    more = PROFILE.partition("summary")[2].partition("\n")[2]
    more = more.replace("synaptic_operation", ACTIVE)
    with refused("SD104", "all-in"):
        profile(tmp_path, more.format(value=1.0, unit="pJ", scope="per_term"))


@pytest.mark.parametrize(
    ("value", "unit"), [(26e3, "fJ"), (26.0, "pJ"), (0.026, "nJ"), (26e-6, "uJ")]
)
def test_units(value: float, unit: str, tmp_path: Path) -> None:
    chip = profile(tmp_path, value=value, unit=unit)
    found = nominal(price({"synaptic_operation": 2}, chip)["synaptic_operation"])
    assert found == pytest.approx(52)


@pytest.mark.parametrize("chip", available(), ids=lambda chip: chip.id)
def test_figures_that_come_with_the_package_name_their_source(chip: Target) -> None:
    for row in chip.energy.values():
        assert isinstance(row, EnergyRow)
        assert row.source
        assert row.picojoules > 0
