"""What a report holds beside sums: placements, static energy, gates, origins of figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from rich.table import Table

from snn_deploy import energy
from snn_deploy.counting import Counts, PopulationCount, ProjectionCount, Term, asgl, syops
from snn_deploy.energy_model import (
    CAVEAT,
    MEANING,
    EnergyReport,
    Placed,
    Range,
    gate_failure,
    products,
    provenance,
    tally,
)
from snn_deploy.energy_model.pricing import PART_OF, Prices
from snn_deploy.hardware import OPERATIONS, EnergyRow, Static, available, target
from snn_deploy.reporting import joules, plain
from snn_deploy.reporting.energy_tables import (
    chips_lines,
    chips_table,
    energy_lines,
    energy_table,
    products_lines,
    products_table,
)
from snn_deploy.sim import Record
from tests.energy.drawn import STEP, chip, figure
from tests.helpers.nets import dense, fed_with_spikes, one_layer, spike_input
from tests.helpers.refusals import refused

AC, MAC = "synaptic_operation", "multiply_accumulate"
ACTIVE, INACTIVE = "neuron_update_active", "neuron_update_inactive"


def row(value: float, **more: object) -> EnergyRow:
    given = {"unit": "pJ", "source": f"Source of {value}", "evidence": "measured"}
    return EnergyRow(**{**given, "scope": "per_term", "value": value, **more})  # type: ignore[arg-type]


# Two samples of four timesteps: values into a, spikes from a to b, which is read out.
COUNTS = Counts(
    convention=asgl(),
    samples=2,
    timesteps=4,
    projections=(
        ProjectionCount("in->a", "in", "a", 0, 600, 300),
        ProjectionCount("a->b", "a", "b", 100, 0, 40),
    ),
    populations=(
        PopulationCount("a", 10, True, 20, 30, 50),
        PopulationCount("b", 4, False, 0, 32, 0),
    ),
)
MESSAGES = {"in": {"message_in": 8}, "a": {"message_out": 12, "hop_east_west": 6}}
PLACED = Placed(3, 2, MESSAGES, {"in": 5})
PRICED = {
    AC: row(2.0, low=1.0, low_source="Lower", high=8.0, high_source="Higher"),
    ACTIVE: row(10.0, unit="fJ"),
    "spike_out": row(4.0),
    "message_out": row(0.5, unit="nJ"),
    "hop_north_south": row(3.0),
}


def report(
    energies: Mapping[str, EnergyRow] = PRICED,
    counts: Counts = COUNTS,
    placed: Placed | None = PLACED,
    host: bool = False,
    static: Static | None = None,
    seconds: float | None = None,
) -> EnergyReport:
    by_host = chip({MAC: row(5.0, source="Host's")}, name="host") if host else None
    return tally(counts, Prices(chip(dict(energies), static), None, by_host), placed, seconds)


def cells(made: Table) -> dict[str, list[str]]:
    """Columns of a table, the second of one name as NAME'."""
    found: dict[str, list[str]] = {}
    for column in made.columns:
        name = str(column.header)
        found[f"{name}'" if name in found else name] = [str(c) for c in column.cells]
    return found


def test_by_hand() -> None:
    found = report()
    assert found.rate == 20 / (10 * 2 * 4)
    assert [layer.name for layer in found.layers] == ["in", "a", "b"]
    assert [layer.neurons for layer in found.layers] == [5, 10, 4]
    sender, a, b = found.layers
    assert a.operations == {AC: 0, MAC: 300, ACTIVE: 15, INACTIVE: 25, "spike_out": 10,
                            "message_out": 6, "hop_east_west": 3}  # fmt: skip
    assert b.operations == {AC: 50, MAC: 0, ACTIVE: 16, INACTIVE: 0}
    assert sender.total_picojoules is None
    assert (a.parts["synaptic"], a.parts["memory"]) == (None, None)
    assert a.parts["routing"] == Range(3000.0, 3000.0, 3000.0)
    assert a.parts["neuron"] is not None
    assert a.parts["neuron"].nominal == pytest.approx(15 * 0.010 + 10 * 4, rel=1e-12)
    assert b.parts["synaptic"] == Range(50.0, 100.0, 400.0)
    assert found.unpriced == (MAC, INACTIVE, "message_in", "hop_east_west")
    assert found.uncounted == ("hop_north_south",)
    assert (found.cores, found.chips, found.twin.operations) == (3, 2, {MAC: 340})
    assert found.twin.picojoules is None


def test_only_values_through_weights_are_the_hosts() -> None:
    """A leak that a convention counts as a MAC is the chip's, and stays unset."""
    leak = replace(COUNTS, terms=(Term("leak", "a", MAC, 10), Term("leak", "a", MAC, 7, twin=True)))
    found = report(counts=leak, host=True)
    assert found.host is not None
    assert (found.host.count, found.host.picojoules) == (300, Range(1500.0, 1500.0, 1500.0))
    assert found.unpriced == (MAC, INACTIVE, "message_in", "hop_east_west")
    status = {cost.what: cost.status for cost in found.layers[1].costs if cost.operation == MAC}
    assert status == {"in->a": "host", "leak": "unset"}
    assert report(host=True).unpriced == (INACTIVE, "message_in", "hop_east_west")
    assert found.twin.operations == {MAC: 347}


def test_neurons_are_not_counted_twice() -> None:
    """Where a convention makes accumulates of neurons, the chip's updates are not added."""
    added = replace(COUNTS, convention=syops(), terms=(Term("neuron", "a", AC, 80),))
    found = report(counts=added)
    assert found.layers[1].operations[AC] == 40
    assert ACTIVE not in found.layers[1].operations
    assert ACTIVE in found.uncounted
    assert found.layers[1].operations["spike_out"] == 10


# --- static energy --------------------------------------------------------------------------------

POWER = Static(watts_per_chip=figure(0.5, "W"), watts_per_core=figure(0.25, "W"))
TIMED = replace(POWER, timestep_seconds=figure(STEP, "s"))


def test_static_energy() -> None:
    known = report(static=TIMED)
    assert [(s.per, s.number, s.seconds) for s in known.static] == [
        ("chip", 2, 4 * STEP),
        ("core", 3, 4 * STEP),
    ]
    joule = 1e12
    assert [s.picojoules for s in known.static] == [
        2 * 0.5 * 4 * STEP * joule,
        3 * 0.25 * 4 * STEP * joule,
    ]
    dynamic = report().total_picojoules
    assert dynamic is not None
    chips, cores = (Range(s.picojoules, s.picojoules, s.picojoules) for s in known.static)
    assert known.total_picojoules == dynamic + chips + cores
    assert known.dynamic_picojoules == dynamic
    assert known.static[0].time_source == "drawn s"


def test_static_energy_needs_a_time() -> None:
    assert report(static=POWER).static == ()
    asked = report(static=POWER, seconds=STEP / 2)
    assert [s.seconds for s in asked.static] == [2 * STEP, 2 * STEP]
    assert report(static=TIMED, seconds=STEP / 2).static == asked.static
    assert asked.static[0].time_source == "as asked for"


def test_static_energy_without_a_placement_is_that_of_one_chip() -> None:
    (static,) = report(static=TIMED, placed=None).static
    assert (static.per, static.number, static.placed) == ("chip", 1, False)
    assert "one at least" in "\n".join(energy_lines(report(static=TIMED, placed=None)))
    assert "one at least" not in "\n".join(energy_lines(report(static=TIMED)))
    assert (
        report(static=Static(watts_per_core=figure(0.25, "W")), placed=None, seconds=1).static == ()
    )


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_no_time(seconds: float, run: tuple[object, Record]) -> None:
    graph, record = run
    with refused("SD104", "seconds"):
        energy(graph, record, "loihi1-davies2018", seconds_per_step=seconds)  # type: ignore[arg-type]


def test_ratio_leaves_static_energy_out() -> None:
    both = {AC: row(2.0), MAC: row(5.0)}
    still, drawing = report(both), report(both, static=TIMED)
    assert still.twin.ratio == drawing.twin.ratio == (300 * 5 + 50 * 2) / (340 * 5)
    assert drawing.total_picojoules != still.total_picojoules


# --- placements -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> tuple[object, Record]:
    """Two neurons that fire whenever their input does."""
    projection = dense("in", "p", 2, 3)
    graph = one_layer(projection.synapses, spike_input(3))
    case = fed_with_spikes(graph, [[[1, 0, 1], [1, 1, 1]]])
    return graph, case.run("reference").record


@dataclass(frozen=True)
class Two:
    """Every neuron on a core of its own."""

    sender: str = "in"
    cores: int = 2
    chips: int = 1

    def messages(self, record: Record) -> dict[str, dict[str, int]]:
        fired = int(record.inputs["in"].sum())
        return {self.sender: {"message_out": 0, "message_in": 2 * fired}}


def test_energy_takes_messages_of_a_placement(run: tuple[object, Record]) -> None:
    graph, record = run
    priced = chip({AC: row(2.0), "message_in": row(0.5)})
    found = energy(graph, record, priced, placement=Two())  # type: ignore[arg-type]
    assert found.parts["routing"] == Range(5.0, 5.0, 5.0)
    assert found.parts["synaptic"] == Range(20.0, 20.0, 20.0)
    assert found.total_picojoules == Range(25.0, 25.0, 25.0)
    assert (found.layers[0].name, found.layers[0].neurons) == ("in", 3)
    assert (found.cores, found.chips) == (2, 1)
    without = energy(graph, record, priced)  # type: ignore[arg-type]
    assert without.parts["routing"] is None
    assert without.uncounted == ("message_in",)


def test_messages_of_nobody(run: tuple[object, Record]) -> None:
    graph, record = run
    with pytest.raises(ValueError, match="spam"):
        energy(graph, record, "cmos45", placement=Two("spam"))  # type: ignore[arg-type]


# --- gates ----------------------------------------------------------------------------------------


def test_gate() -> None:
    found = report(host=True)
    assert found.total_picojoules is not None
    taken = found.total_picojoules.nominal + 1500  # the host's MACs are energy, too
    assert gate_failure([found], taken) is None
    assert gate_failure([found], taken * 0.999) == (
        f"not within {taken * 0.999:,.1f} pJ per inference: chip takes {taken:,.1f} pJ"
    )


def test_gate_fails_where_arithmetic_has_no_figure() -> None:
    """A total that leaves accumulates or MACs out shows nothing, however small it is."""
    for energies in ({}, {MAC: row(1.0)}, {AC: row(1.0)}, {"spike_out": row(1.0)}):
        failure = gate_failure([report(energies)], 1e12)
        assert failure is not None
        missing = [name.replace("_", " ") for name in (AC, MAC) if name not in energies]
        assert failure.endswith(f"chip has no figure for {', '.join(missing)}")
    assert gate_failure([report({AC: row(1.0), MAC: row(1.0)})], 1e12) is None
    assert gate_failure([report({AC: row(1.0)}, host=True)], 1e12) is None


def test_gate_of_several_chips() -> None:
    small, large = report({AC: row(1.0), MAC: row(1.0)}), report({AC: row(1.0), MAC: row(100.0)})
    assert gate_failure([small, large], 1000) is not None
    assert gate_failure([large, small], 1000) == gate_failure([large], 1000)
    assert gate_failure([small], 1000) is None


# --- where figures come from ----------------------------------------------------------------------


def test_every_operation_has_a_meaning_and_a_part() -> None:
    assert MEANING.keys() - {"static"} == set(OPERATIONS) == PART_OF.keys()


def test_products_by_hand() -> None:
    found = {(p.layer, p.what, p.operation): p for p in products(report(host=True, static=TIMED))}
    synapses = found["b", "a->b", AC]
    assert (synapses.count, synapses.figure) == (50, Range(1.0, 2.0, 8.0))
    assert synapses.product == Range(50.0, 100.0, 400.0)
    assert synapses.source == "Source of 2.0; low 1: Lower; high 8: Higher"
    assert (synapses.evidence, synapses.profile, synapses.status) == ("measured", "chip", "priced")
    host = found["a", "in->a", MAC]
    assert (host.profile, host.source, host.status) == ("host", "Host's", "host")
    assert found["in", "messages", "message_in"].status == "unset"
    chips = found["chip", f"2 for {4 * STEP:.9g} s", "static"]
    assert (chips.count, chips.figure) == (8 * STEP, Range(5e11, 5e11, 5e11))
    assert (chips.source, chips.product) == (
        "drawn W; time of a timestep: drawn s",
        Range(4 * STEP * 1e12, 4 * STEP * 1e12, 4 * STEP * 1e12),
    )
    assert not [p for p in found.values() if p.count == 0]


def test_derived_figures_show_their_arithmetic() -> None:
    derived = row(3.0, derived="a + b", inputs={"a": 1.0, "b": 2.0})
    assert provenance(derived) == "Source of 3.0; a + b with a = 1, b = 2"


def test_proxy_figures_are_the_proxys() -> None:
    stand_in = chip(dict(PRICED), name="other")
    found = tally(COUNTS, Prices(chip({}, name="silent"), stand_in, None))
    assert {p.profile for p in products(found) if p.status == "priced"} == {"other"}
    assert found.total_picojoules == report(placed=None).total_picojoules


# --- tables and JSON ------------------------------------------------------------------------------


def test_json_holds_what_the_text_shows() -> None:
    found = report(host=True, static=TIMED)
    data = json.loads(json.dumps(plain(found), allow_nan=False))
    assert data["total_picojoules"] == plain(found.total_picojoules)
    assert data["switches"] == asgl().switches()
    assert data["twin"]["caveat"] == CAVEAT
    assert data["figures"][AC]["low_source"] == "Lower"
    assert data["host_figure"]["source"] == "Host's"
    assert data["layers"][2]["costs"][0] == {
        "what": "a->b",
        "operation": AC,
        "count": 50.0,
        "status": "priced",
        "picojoules": {"low": 50.0, "nominal": 100.0, "high": 400.0},
    }
    assert [s["number"] for s in data["static"]] == [2, 3]
    assert data["unpriced"] == [INACTIVE, "message_in", "hop_east_west"]
    assert data["uncounted"] == ["hop_north_south"]


def test_layers_table() -> None:
    shown = cells(energy_table(report(host=True)))
    assert shown["population"] == ["in", "a", "b"]
    assert shown["AC"] == ["0", "0", "50"]
    assert shown["synaptic"] == ["-", "host", "100 pJ"]
    assert shown["neuron"] == ["-", "40.1 pJ", "0.160 pJ"]
    assert shown["routing"] == ["unset", "3.00 nJ", "-"]
    assert [shown[end][2] for end in ("low", "total", "high")] == ["50.2 pJ", "100 pJ", "400 pJ"]
    assert shown["total"][0] == "unset"
    agreed = {AC: row(2.0), MAC: row(5.0)}
    plain_table = cells(energy_table(report(agreed, placed=None)))
    assert not {"low", "high", "routing", "memory"} & plain_table.keys()
    assert plain_table["neuron"] == ["unset", "unset"]
    assert plain_table["ANN twin"] == ["1.50 nJ", "200 pJ"]


def test_lines() -> None:
    lines = energy_lines(report(host=True, static=TIMED))
    assert (
        "host         1.50 nJ for 300 MAC of the first layer (at host; not in the total)" in lines
    )
    assert "not priced   neuron update inactive, message in, hop east west" in lines
    assert "not counted  hop north south" in lines
    assert "placed on    3 cores of 2 chips" in lines
    assert not [line for line in energy_lines(report(placed=None)) if "placed on" in line]
    refused_by = replace(report(placed=None), unplaced="fan-in 9 is beyond 4")
    assert "not placed   chip: fan-in 9 is beyond 4" in chips_lines([report(), refused_by])
    assert "placed on    chip: 3 cores of 2 chips" in chips_lines([report(), refused_by])
    assert "ANN twin     340 MAC, unset" in lines
    assert not [line for line in lines if CAVEAT in line]
    assert any(line.startswith("source       synaptic operation 2 pJ (measured") for line in lines)
    whole = report().total_picojoules
    assert whole is not None
    spread = f"{joules(whole.nominal)}, {joules(whole.low)} to {joules(whole.high)}"
    assert energy_lines(report())[0] == f"chip total   {spread} (priced operations only)"


@pytest.mark.parametrize("energies", [{AC: row(2.0), MAC: row(5.0)}])
def test_a_ratio_never_stands_alone(energies: dict[str, EnergyRow]) -> None:
    found = report(energies)
    lines = energy_lines(found)
    (place,) = (i for i, line in enumerate(lines) if "the SNN takes 94.12% of it" in line)
    assert lines[place + 1] == f"caveat       {CAVEAT}; here it is 25.00%"
    assert f"caveat       {CAVEAT}; here it is 25.00%" in chips_lines([report(), found])
    assert not [line for line in chips_lines([report(), report()]) if "caveat" in line]


def test_chips_side_by_side() -> None:
    reports = [
        report(static=TIMED),
        report({}),
        report({MAC: row(5.0)}),
        report({AC: row(3.0, scope="all_in")}),
    ]
    shown = cells(chips_table(reports))
    assert shown["synaptic"] == ["100 pJ", "unset", "1.50 nJ", "150 pJ"]
    assert shown["neuron"] == ["40.3 pJ", "unset", "unset", "included"]
    assert shown["routing"] == ["3.00 nJ", "unset", "unset", "included"]
    assert shown["static"][1:] == ["unset"] * 3
    assert shown["total"] == [joules(reports[0].total_picojoules.nominal),  # type: ignore[union-attr]
                              "unset", "> 1.50 nJ", "150 pJ"]  # fmt: skip
    assert shown["low"][1:3] == ["", "> 1.50 nJ"]
    assert shown["SNN / ANN"] == ["-"] * 4


def test_products_table() -> None:
    found = report(host=True)
    shown = cells(products_table(found))
    index = shown["operation"].index("synaptic operation")
    assert [shown[c][index] for c in ("layer", "for", "count", "low", "pJ each", "high")] == [
        "b", "a->b", "50", "1", "2", "8"]  # fmt: skip
    assert [shown[c][index] for c in ("low'", "energy", "high'", "evidence")] == [
        "50.0 pJ", "100 pJ", "400 pJ", "measured"]  # fmt: skip
    lines = products_lines(found)
    number = shown["source"][index]
    assert (
        f"{number} chip, synaptic operation: Source of 2.0; low 1: Lower; high 8: Higher" in lines
    )
    assert "sum on the host  1.50 nJ" in lines
    unset = shown["operation"].index("neuron update inactive")
    assert [shown[c][unset] for c in ("pJ each", "energy", "source")] == ["unset", "-", "-"]
    assert f"synaptic operation: {MEANING[AC]}" in lines


@pytest.mark.parametrize("shipped", available(), ids=lambda chip: chip.id)
def test_every_profile_reports(shipped: object) -> None:
    found = tally(COUNTS, Prices(shipped, None, None), PLACED, 1e-3)  # type: ignore[arg-type]
    json.dumps(plain(found), allow_nan=False)
    for made in (energy_table(found), products_table(found), chips_table([found])):
        assert all(column.no_wrap for column in made.columns)
    assert energy_lines(found)
    if not found.figures:
        assert found.total_picojoules is None
        assert "chip total   unset" in energy_lines(found)[0]
    assert target(found.profile).notes == found.notes
