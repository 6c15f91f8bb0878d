"""Any counts on any chip: reports against rational arithmetic over counts and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snn_deploy.counting import Counts
from snn_deploy.energy_model import EnergyReport, Placed, Range, products, tally
from snn_deploy.energy_model.pricing import Prices
from snn_deploy.hardware import OPERATIONS, EnergyRow, Target
from tests.energy.drawn import ROUTING, STEP, chip, chips, counts, placements, rows, statics

AC, MAC = "synaptic_operation", "multiply_accumulate"
ENDS = ("low", "value", "high")

Case = tuple[Counts, Placed | None]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Counts, with a placement or without."""
    counted = draw(counts())
    return counted, draw(st.none() | placements(counted))


def report(case: Case, target: Target, host: Target | None = None, **more: Any) -> EnergyReport:
    counted, placed = case
    return tally(counted, Prices(target, None, host), placed, **more)


# --- the oracle: every operation by hand, in fractions --------------------------------------------


def occurred(case: Case) -> Iterator[tuple[str, str, int]]:
    """Layer, operation and number over all samples, of everything that is counted."""
    counted, placed = case
    for p in counted.projections:
        yield p.target, AC, int(p.accumulates)
        yield p.target, MAC, int(p.multiply_accumulates)
    for q in counted.populations:
        yield q.name, "neuron_update_active", q.active_updates
        yield q.name, "neuron_update_inactive", q.inactive_updates
        yield q.name, "spike_out", q.spikes
    for term in counted.terms:
        if not term.twin:
            yield term.population, term.operation, int(term.count)
    if placed is not None:
        for layer, messages in placed.messages.items():
            for operation, number in messages.items():
                yield layer, operation, number


def per_inference(case: Case) -> Counter[str]:
    found: Counter[Any] = Counter()
    for _, operation, number in occurred(case):
        found[operation] += Fraction(number, case[0].samples)
    return found


def figure(row: EnergyRow, end: str) -> Fraction:
    value = getattr(row, end)
    return Fraction(row.value if value is None else value)


def dynamic(case: Case, target: Target, end: str, layer: str | None = None) -> Fraction:
    """pJ per inference at one end of the figures, of one layer or of all."""
    return sum(
        (
            Fraction(number, case[0].samples) * figure(target.energy[operation], end)
            for name, operation, number in occurred(case)
            if operation in target.energy and layer in (None, name)
        ),
        start=Fraction(0),
    )


def static(case: Case, target: Target) -> Fraction:
    counted, placed = case
    known = target.static
    if known is None or known.timestep_seconds is None:
        return Fraction(0)
    chips_used, cores_used = (1, 0) if placed is None else (placed.chips, placed.cores)
    per_chip = known.watts_per_chip.value if known.watts_per_chip else 0
    per_core = known.watts_per_core.value if known.watts_per_core else 0
    watts = Fraction(per_chip) * chips_used + Fraction(per_core) * cores_used
    return watts * counted.timesteps * Fraction(STEP) * 10**12


def ends(energy: Range | None) -> tuple[Fraction, ...] | None:
    if energy is None:
        return None
    return tuple(Fraction(e) for e in (energy.low, energy.nominal, energy.high))


@settings(max_examples=150)
@given(case=cases(), target=chips())
def test_every_sum_is_that_of_counts_times_figures(case: Case, target: Target) -> None:
    found = report(case, target)
    priced = {operation for _, operation, _ in occurred(case)} & target.energy.keys()
    # a silent population without spikes has no spike_out, a projection of spikes no MAC
    expected = tuple(dynamic(case, target, end) for end in ENDS)
    if any(expected):
        assert ends(found.dynamic_picojoules) == expected
        whole = tuple(e + static(case, target) for e in expected)
        assert ends(found.total_picojoules) == whole
    else:
        assert ends(found.dynamic_picojoules) in (None, expected)
    if not priced:
        assert found.dynamic_picojoules is None
        assert found.total_picojoules is None
    for layer in found.layers:
        whole = tuple(dynamic(case, target, end, layer.name) for end in ENDS)
        assert (ends(layer.total_picojoules) or whole) == whole
    sent = {name for name, operation, n in occurred(case) if n and operation in target.energy}
    assert sent <= {layer.name for layer in found.layers if layer.total_picojoules is not None}


@given(case=cases(), target=chips())
def test_totals_are_sums_of_layers_parts_and_products(case: Case, target: Target) -> None:
    found = report(case, target)
    zero = Range(0.0, 0.0, 0.0)
    layers = sum((x.total_picojoules or zero for x in found.layers), start=zero)
    parts = sum((e or zero for e in found.parts.values()), start=zero)
    assert layers == parts == (found.dynamic_picojoules or zero)
    explained = [p for p in products(found) if p.product is not None and p.operation != "static"]
    assert sum((p.product or zero for p in explained), start=zero) == parts
    for p in explained:
        assert p.figure is not None
        assert p.figure * p.count == p.product
    counted = {o: n for o, n in per_inference(case).items() if n}
    listed: Counter[str] = Counter()
    for p in products(found):
        if p.operation != "static":
            listed[p.operation] += p.count  # type: ignore[assignment]
    assert listed == counted


@given(case=cases(), target=chips(), times=st.integers(2, 5))
def test_dynamic_energy_is_linear_in_counts(case: Case, target: Target, times: int) -> None:
    once, (counted, placed) = report(case, target), case
    more = replace(
        counted,
        projections=tuple(
            replace(
                p,
                accumulates=times * p.accumulates,
                multiply_accumulates=times * p.multiply_accumulates,
            )
            for p in counted.projections
        ),
        populations=tuple(
            replace(
                p,
                spikes=times * p.spikes,
                active_updates=times * p.active_updates,
                inactive_updates=times * p.inactive_updates,
            )
            for p in counted.populations
        ),
        terms=tuple(t if t.twin else replace(t, count=times * t.count) for t in counted.terms),
    )
    if placed is not None:
        placed = replace(
            placed,
            messages={
                name: {op: times * n for op, n in sent.items()}
                for name, sent in placed.messages.items()
            },
        )
    scaled = report((more, placed), target)
    assert scaled.static == once.static
    assert (scaled.dynamic_picojoules is None) == (once.dynamic_picojoules is None)
    if once.dynamic_picojoules is not None:
        assert scaled.dynamic_picojoules == once.dynamic_picojoules * times
    assert scaled.twin.operations == once.twin.operations


@given(case=cases(), target=chips(), host=rows())
def test_low_nominal_high(case: Case, target: Target, host: EnergyRow) -> None:
    found = report(case, target, chip({MAC: host}, name="host"))
    energies = [found.dynamic_picojoules, found.total_picojoules, found.twin.picojoules]
    energies += [cost.picojoules for x in found.layers for cost in (*x.costs, *x.twin)]
    energies += [e for x in found.layers for e in (x.total_picojoules, *x.parts.values())]
    energies += [found.host.picojoules if found.host else None]
    for energy in energies:
        assert energy is None or 0 <= energy.low <= energy.nominal <= energy.high
    flat = chip({n: replace(r, low=None, high=None) for n, r in target.energy.items()})
    agreed = report(case, flat).dynamic_picojoules
    assert agreed is None or not agreed.disagrees
    assert (agreed is None) == (found.dynamic_picojoules is None)
    if agreed is not None and found.dynamic_picojoules is not None:
        assert agreed.nominal == found.dynamic_picojoules.nominal


@given(case=cases(), target=chips(), name=st.sampled_from(OPERATIONS))
def test_unset_changes_no_other_figure(case: Case, target: Target, name: str) -> None:
    """Without a row, exactly its own products are missing, and it is named if it occurred."""
    assume(name in target.energy)
    whole = report(case, target)
    bare = replace(target, energy={n: r for n, r in target.energy.items() if n != name})
    found = report(case, bare)
    number = per_inference(case)[name]
    assert (name in found.unpriced) == (number > 0)
    assert name not in whole.unpriced
    for end, key in zip(ENDS, ("low", "nominal", "high"), strict=True):
        taken = Fraction(getattr(whole.dynamic_picojoules, key, 0))
        left = Fraction(getattr(found.dynamic_picojoules, key, 0))
        assert taken - left == number * figure(target.energy[name], end)
    kept = [p for p in products(whole) if p.operation != name]
    assert [p for p in products(found) if p.operation != name] == kept
    for p in products(found):
        if p.operation == name:
            assert (p.status, p.figure, p.product) == ("unset", None, None)


@given(case=cases(), row=rows(scope="all_in"), power=statics())
def test_an_all_in_figure_stands_alone(case: Case, row: EnergyRow, power: Any) -> None:
    """Nothing of neurons, memory, messages or leakage is added to it, and none of it is missing."""
    target = chip({AC: row}, power)
    found = report(case, target)
    number = per_inference(case)[AC]
    assert (found.static, found.uncounted) == ((), ())
    assert set(found.unpriced) <= {MAC}
    if found.total_picojoules is None:
        assert number == 0
    else:
        expected = tuple(number * figure(row, end) for end in ENDS)
        assert ends(found.total_picojoules) == expected
    for p in products(found):
        assert p.status == {AC: "priced", MAC: "unset"}.get(p.operation, "included")


@given(case=cases(), target=chips(), row=rows())
def test_the_host_is_apart(case: Case, target: Target, row: EnergyRow) -> None:
    """It prices values through weights where the chip does not, and changes no total."""
    host = chip({MAC: row}, name="host")
    alone, shared = report(case, target), report(case, target, host)
    assert shared.total_picojoules == alone.total_picojoules
    assert shared.parts == alone.parts
    assert shared.twin == alone.twin
    values = sum(int(p.multiply_accumulates) for p in case[0].projections)
    if MAC in target.energy or not values:
        assert shared.host is None
        assert shared.host_figure is None
        return
    assert shared.host is not None
    assert alone.host is not None
    assert (shared.host.status, alone.host.status) == ("host", "unset")
    number = Fraction(values, case[0].samples)
    assert ends(shared.host.picojoules) == tuple(number * figure(row, end) for end in ENDS)
    by_host = [p for p in products(shared) if p.status == "host"]
    assert sum(Fraction(p.count) for p in by_host) == number
    assert {p.profile for p in by_host} == {"host"}
    assert MAC in alone.unpriced


@given(case=cases(), row=rows())
def test_a_twin_that_does_nothing_has_no_ratio(case: Case, row: EnergyRow) -> None:
    counted, placed = case
    idle = replace(
        counted,
        projections=tuple(replace(p, twin=0) for p in counted.projections),
        terms=tuple(t for t in counted.terms if not t.twin),
    )
    twin = report((idle, placed), chip({AC: row, MAC: row})).twin
    assert (twin.ratio, twin.picojoules) == (None, Range(0.0, 0.0, 0.0))


@given(case=cases(), target=chips())
def test_what_nobody_counted_is_named(case: Case, target: Target) -> None:
    found = report(case, target)
    missing = set(found.uncounted)
    if case[1] is None:
        assert missing >= set(ROUTING) & target.energy.keys()
    listed = {c.operation for layer in found.layers for c in layer.costs}
    assert not missing & (listed | {AC, MAC})
    assert missing <= target.energy.keys()


@given(case=cases(), target=chips())
def test_twin_and_ratio(case: Case, target: Target) -> None:
    counted = case[0]
    found = report(case, target)
    does: Counter[str] = Counter({MAC: sum(int(p.twin) for p in counted.projections)})
    for term in counted.terms:
        if term.twin:
            does[term.operation] += int(term.count)
    assert +Counter(found.twin.operations) == +does  # without what is zero
    priced = sum(
        (n * figure(target.energy[o], "value") for o, n in does.items() if o in target.energy),
        start=Fraction(0),
    )
    assert Fraction(found.twin.picojoules.nominal if found.twin.picojoules else 0) == priced
    arithmetic = {o for o in (AC, MAC) if does[o] or per_inference(case)[o]}
    if found.twin.ratio is None:
        assert not arithmetic <= target.energy.keys() or not priced or not arithmetic
    else:
        assert arithmetic <= target.energy.keys()
        assert found.twin.ratio == float(dynamic(case, target, "value")) / float(priced)
