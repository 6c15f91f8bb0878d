"""Energy: published totals reproduced, missing figures left missing, host and chip kept apart."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from snn_deploy import energy, quantize, simulate
from snn_deploy.counting import asgl
from snn_deploy.energy_model import EnergyReport, price
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph
from snn_deploy.hardware import OPERATIONS, EnergyRow, Target, available, target
from snn_deploy.reporting import joules
from snn_deploy.reporting.tables import energy_lines, energy_table
from snn_deploy.sim import Record
from tests.helpers.deploy import TIMESTEPS, small_net, small_recording
from tests.helpers.refusals import refused

SAMPLES = 4
ACTIVE, INACTIVE = "neuron_update_active", "neuron_update_inactive"
LOIHI1, CMOS = "loihi1-davies2018", "cmos45"

# --- published totals -----------------------------------------------------------------------------

# Dspike, NeurIPS 2021, Table 3: additions and multiplications in millions, energy as printed. The
# printed units are a thousand times too large: J stands for mJ, mJ for uJ.
DSPIKE = {
    "ANN ResNet-19": (2285, 2285, "12.6", "mJ"),
    "ANN ResNet-18": (187, 187, "1.03", "mJ"),
    "SNN ResNet-20, T=5": (142, 8.80, "168", "uJ"),
    "SNN ResNet-19, T=2": (360, 6.8, "355", "uJ"),
    "SNN ResNet-18, T=2": (71.2, 3.52, "80.3", "uJ"),
}


def picojoules(adds: float, mults: float) -> float:
    operations = {
        "synaptic_operation": round(adds * 1e6),
        "multiply_accumulate": round(mults * 1e6),
    }
    return sum(v for v in price(operations, target(CMOS)).values() if v is not None)


@pytest.mark.parametrize("row", DSPIKE)
def test_dspike_table_3(row: str) -> None:
    adds, mults, printed, unit = DSPIKE[row]
    assert joules(picojoules(adds, mults)) == f"{printed} {unit}"


def test_dspike_counts_the_adds_of_the_ann_twice() -> None:
    """4.6 pJ are a multiplication and its addition: the ANN's additions are already inside."""
    snn = picojoules(71.2, 3.52)
    as_printed, as_meant = picojoules(187, 187), picojoules(0, 187)
    assert as_printed / snn == pytest.approx(12.8, abs=0.05)
    assert as_meant / snn == pytest.approx(10.7, abs=0.05)
    assert snn / as_meant == pytest.approx(0.0933, abs=5e-5)


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
    summed = (sum(events.values()), products, updates, slots - updates)
    return {name: n / SAMPLES for name, n in zip(OPERATIONS, summed, strict=True)}


def text(report: EnergyReport) -> str:
    return "\n".join([str(energy_table(report).title), *energy_lines(report)])


def test_chip_and_host_are_apart(graph: Graph, record: Record) -> None:
    counted = totals(graph, record)
    report = energy(graph, record, LOIHI1, host_profile=CMOS)
    expected = 23.6 * counted["synaptic_operation"] + 81 * counted[ACTIVE] + 52 * counted[INACTIVE]
    assert report.total_picojoules == pytest.approx(expected, rel=1e-12)
    assert report.host_operations == counted["multiply_accumulate"]
    assert report.host_picojoules == pytest.approx(4.6 * report.host_operations, rel=1e-12)
    assert report.unpriced == ()
    assert report.twin_picojoules is None
    assert "not in the total" in text(report)
    assert joules(report.total_picojoules) in text(report)
    without = energy(graph, record, LOIHI1)
    assert without.host_picojoules is None
    assert without.total_picojoules == report.total_picojoules
    assert without.unpriced == ("multiply_accumulate",)
    assert "unset" in text(without)


def test_host_prices_nothing_that_the_chip_prices(graph: Graph, record: Record) -> None:
    counted = totals(graph, record)
    report = energy(graph, record, CMOS, host_profile=CMOS)
    expected = 0.9 * counted["synaptic_operation"] + 4.6 * counted["multiply_accumulate"]
    assert report.total_picojoules == pytest.approx(expected, rel=1e-12)
    assert report.host_picojoules is None
    assert report.host_operations == 0
    assert report.unpriced == (ACTIVE, INACTIVE)
    assert report.twin_picojoules == pytest.approx(4.6 * report.twin_operations, rel=1e-12)
    share = report.total_picojoules / report.twin_picojoules
    assert f"takes {100 * share:.2f}% of it" in text(report)


def test_missing_figures_are_not_zero(graph: Graph, record: Record) -> None:
    report = energy(graph, record, "loihi2")
    assert report.total_picojoules is None
    assert report.host_picojoules is None
    assert report.unpriced == OPERATIONS
    for layer in report.layers:
        assert set(layer.picojoules.values()) == {None}
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
    parts = [v for layer in report.layers for v in layer.picojoules.values() if v is not None]
    assert report.total_picojoules == pytest.approx(sum(parts), rel=1e-12)
    assert report.twin_operations == sum(layer.twin for layer in report.layers)


def test_first_layer_per_timestep(graph: Graph, record: Record) -> None:
    once, each = (
        energy(graph, record, LOIHI1, host_profile=CMOS, convention=asgl(first))
        for first in ("once", "per_timestep")
    )
    assert each.host_operations == TIMESTEPS * once.host_operations
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
    assert report.total_picojoules == pytest.approx(26 * counted["synaptic_operation"], rel=1e-12)
    assert report.unpriced == ()
    assert report.sources["synaptic_operation"] == "measured by me"
    per_term = energy(graph, record, profile(tmp_path, scope="per_term"), host_profile=CMOS)
    assert per_term.unpriced == (ACTIVE, INACTIVE)


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
    assert price({"synaptic_operation": 2}, chip)["synaptic_operation"] == pytest.approx(52)


@pytest.mark.parametrize("chip", available(), ids=lambda chip: chip.id)
def test_figures_that_come_with_the_package_name_their_source(chip: Target) -> None:
    for row in chip.energy.values():
        assert isinstance(row, EnergyRow)
        assert row.source
        assert row.picojoules > 0
