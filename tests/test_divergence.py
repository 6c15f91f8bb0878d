"""``diff`` finds planted faults where brute force finds them, and calls them by their name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy import diff, simulate
from snn_deploy.diffing import Divergence
from snn_deploy.graph import Graph, Integrator, Population, Projection, ResetSubtract
from snn_deploy.packets import Recording
from snn_deploy.sim.divergence import Run, reached
from snn_deploy.sim.ledger import membrane_unit, open_books
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.brute_force import neurons_of
from tests.helpers.causal import Watched, first_difference, run_of, without_resets
from tests.helpers.faults import PLANTS, Planted, with_population, with_projection
from tests.helpers.graphs import (
    GENERIC,
    LOIHI2,
    SMALL,
    Case,
    float_cases,
    integer_cases,
    narrow_formats,
)
from tests.helpers.nets import (
    fed_with_spikes,
    integers,
    lif,
    one_layer,
    population,
    spike_input,
)
from tests.helpers.random_graphs import chain, network
from tests.helpers.refusals import refused

Array = NDArray[Any]


# All whose sums a double holds.
FORMATS = st.one_of(st.sampled_from((LOIHI2, GENERIC)), narrow_formats())


def samples_of(case: Case) -> int:
    return len([*case.recording.spikes.values(), *case.recording.values.values()][0])


# --- planted faults -------------------------------------------------------------------------------


def assert_located(case: Case, planted: Planted) -> Divergence:
    """What ``diff`` says against brute force; the cause is the planted one."""
    found = diff(case.graph, planted.graph, case.recording, steps=case.steps)
    expected = first_difference(case, planted.graph)
    if expected is None:
        assert found.identical
        return found
    step, rank, quantity, sample, neuron = expected
    first = found.first
    assert first is not None
    name = [n for group in case.graph.order for n in group][rank]
    place = (first.timestep, first.population, first.quantity, first.sample, first.neuron)
    assert place == (step, name, quantity, sample, neuron)
    assert planted.population in ("", name)
    assert first.cause in planted.causes, first.facts
    assert first.facts
    return found


@pytest.mark.parametrize("fault", PLANTS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), branching=st.booleans())
def test_planted_faults_are_located_and_named(fault: str, seed: int, branching: bool) -> None:
    graph, recording = network(seed) if branching else chain(seed)
    assert graph.timesteps is not None
    planted = PLANTS[fault](graph, np.random.default_rng(seed))
    if planted is None:
        event("no place for it")
        return
    found = assert_located(Case(graph, recording, graph.timesteps), planted)
    event("silent" if found.identical else "located")


@pytest.mark.parametrize("fault", PLANTS)
@settings(max_examples=15)
@given(case=integer_cases([SMALL], formats=FORMATS), seed=st.integers(0, 10_000))
def test_in_every_number_format(fault: str, case: Case, seed: int) -> None:
    """Every decay rule and overflow, delays per synapse, loops, several spikes per timestep."""
    assume(any(case.graph.spiking()))
    planted = PLANTS[fault](case.graph, np.random.default_rng(seed))
    if planted is None:
        event("no place for it")
        return
    assert_located(without_resets(case), planted)


# A net in which every fault matters: what arrives is odd, and biases and decays count.
def busy() -> Case:
    rng = np.random.default_rng(0)
    first = Conv2d(rng.integers(-40, 60, (3, 2, 3, 3)), padding=(1, 1))
    second = Dense(rng.integers(-40, 60, (5, 12)))
    bias = rng.integers(1, 40, (3, 1, 1))
    graph = Graph(
        inputs=(spike_input(2, 4, 4),),
        populations=(
            population("conv", 3, 4, 4, neurons=lif(3000, 5000, bias)),
            population("dense", 5, neurons=lif(3500, 6000, [30, -20, 10, 50, 1])),
            Population(
                name="out",
                shape=(2,),
                neurons=Integrator(decay=integers(3000), bias=integers([4, -4])),
                scale=1.0,
            ),
        ),
        projections=(
            Projection(source="in", target="conv", synapses=first),
            Projection(
                source="conv", target="dense", synapses=second, pool=SumPool((2, 2), (2, 2))
            ),
            Projection(source="dense", target="out", synapses=Dense(rng.integers(-40, 40, (2, 5)))),
        ),
        outputs=("out",),
        number_format=GENERIC,
    )
    return fed_with_spikes(graph, rng.random((6, 8, 2, 4, 4)) < 0.4)


# What shows at ties only may be silent.
LOUD = [n for n in PLANTS if n not in ("comparator swapped", "threshold off by one")]


@pytest.mark.parametrize("fault", LOUD)
@pytest.mark.parametrize("seed", range(4))
def test_no_fault_is_silent_in_a_busy_net(fault: str, seed: int) -> None:
    case = busy()
    planted = PLANTS[fault](case.graph, np.random.default_rng(seed))
    assert planted is not None
    found = assert_located(case, planted)
    assert not found.identical
    silent = found.first_spike is None
    assert silent == (found.differing == 0)


def test_an_earlier_timestep_comes_before_an_earlier_population() -> None:
    """A decay off in the first population shows one step after a missing bias in the second."""
    case = busy()
    decay = with_population(case.graph, "conv", decay=integers(2000))
    both = with_population(decay, "dense", bias=integers([0] * 5))
    found = assert_located(case, Planted(both, "dense", ("bias",)))
    assert found.first_state is not None
    assert found.first_state.timestep == 0
    alone = assert_located(case, Planted(decay, "conv", ("decay",)))
    assert alone.first_state is not None
    assert alone.first_state.timestep == 1


def test_a_swapped_comparator_is_found_at_the_first_tie() -> None:
    """Two spikes of 50 reach a threshold of 100 exactly, for the first time at timestep 3."""
    spikes = np.zeros((2, 5, 2))
    spikes[1, 3] = 1
    weight = Dense(np.full((1, 2), 50))
    scaled = lif(threshold=100 << GENERIC.fraction_bits)
    case = fed_with_spikes(one_layer(weight, spike_input(2), scaled), spikes)
    planted = PLANTS["comparator swapped"](case.graph, np.random.default_rng(0))
    assert planted is not None
    found = assert_located(case, planted)
    assert found.first_state is None
    first = found.first_spike
    assert first is not None
    assert (first.timestep, first.sample, first.a.spikes, first.b.spikes) == (3, 1, 1, 0)
    assert (first.a.membrane, first.a.threshold) == (100.0, 100.0)
    assert (first.b.membrane, first.b.threshold) == (100.0, 100.0 + 2.0**-GENERIC.fraction_bits)


# --- each cause by itself -------------------------------------------------------------------------


def test_a_narrower_register_overflows() -> None:
    case = busy()
    form = replace(GENERIC, membrane_bits=13, word_bits=32)
    found = assert_located(
        case, Planted(replace(case.graph, number_format=form), "", ("overflow",))
    )
    assert found.first is not None
    assert "13 bits" in " ".join(found.first.facts)


def test_a_sum_in_a_register_of_its_own_overflows() -> None:
    case = busy()
    narrow = with_projection(case.graph, case.graph.projections[1], sum_bits=6)
    assert_located(case, Planted(narrow, "dense", ("overflow",)))


def test_weights_beyond_a_step_are_named_with_their_place() -> None:
    case = busy()
    last = case.graph.projections[2]
    weight = last.synapses.weight.copy()
    weight[1, 2] += 7
    wrong = with_projection(case.graph, last, synapses=Dense(weight))
    found = assert_located(case, Planted(wrong, "out", ("weights",)))
    assert found.first is not None
    assert found.first.facts[1] == (
        "1 of 10 weights differ, the largest by 7 at [1, 2]; 1 by more than a step of the "
        "mantissa, at most by 7 steps"
    )


def test_how_often_a_neuron_fires_hangs_on_its_reset() -> None:
    """250 is 2 times above 100 if 100 is subtracted, and once if 200 is."""
    unit = 1 << GENERIC.fraction_bits
    graphs = []
    for amount in (100, 200):
        neurons = lif(threshold=100 * unit, reset=ResetSubtract(amount * unit))
        graph = one_layer(Dense(np.array([[250]])), spike_input(1), neurons)
        several = replace(graph.populations[0], max_spikes=3)
        form = replace(GENERIC, spikes_max=3)
        graphs.append(replace(graph, populations=(several,), number_format=form))
    case = fed_with_spikes(graphs[0], np.ones((1, 2, 1)))
    found = assert_located(case, Planted(graphs[1], "p", ("reset",)))
    assert found.first_spike is not None
    assert (found.first_spike.a.spikes, found.first_spike.b.spikes) == (2, 1)
    assert "subtracts 100, B subtracts 200" in found.first_spike.facts[-1]


def test_a_single_weight_off_by_one_is_no_scale() -> None:
    """One weight of 5 or 6: every sum is 1.2 times as large, and yet it is but a step."""
    pool = SumPool((2, 2), (2, 2))
    graphs = [
        one_layer(Conv2d(np.array([[[[w]]]])), spike_input(1, 4, 4), pool=pool) for w in (5, 6)
    ]
    spikes = np.random.default_rng(0).random((1, 3, 1, 4, 4)) < 0.5
    case = fed_with_spikes(graphs[0], spikes)
    assert not assert_located(case, Planted(graphs[1], "p", ("rounding",))).identical


def test_any_order_of_columns_is_an_order() -> None:
    case = busy()
    middle = case.graph.projections[1]
    shuffled = middle.synapses.weight[:, np.random.default_rng(1).permutation(12)]
    wrong = with_projection(case.graph, middle, synapses=Dense(shuffled))
    assert_located(case, Planted(wrong, "dense", ("order",)))


@pytest.mark.parametrize("axes", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("swapped", ["A", "B"])
def test_an_order_of_flattening_is_named(axes: tuple[int, ...], swapped: str) -> None:
    """The same matrix in the other order; what is said undoes it."""
    rng = np.random.default_rng(3)
    spec = spike_input(2, 3, 4)
    weight = rng.integers(-40, 60, (3, 24))
    other = weight.reshape(3, 2, 3, 4).transpose(0, *(i + 1 for i in axes)).reshape(3, 24)
    graphs = [one_layer(Dense(w), spec) for w in (weight, other)]
    if swapped == "A":
        graphs.reverse()
    spikes = (rng.random((2, 3, 2, 3, 4)) < 0.5).astype(np.uint8)
    first = diff(*graphs, Recording(spikes={"": spikes})).first
    assert first is not None
    assert first.cause == "order"
    assert ", ".join("CHW"[i] for i in axes) in first.facts[1]


def test_a_missing_projection_is_named() -> None:
    graph, recording = next(
        (g, r) for g, r in map(network, range(50)) if len(g.incoming(g.outputs[0])) > 1
    )
    least = graph.incoming(graph.outputs[0])[0]
    rest = tuple(p for p in graph.projections if p is not least)
    found = diff(graph, replace(graph, projections=rest), recording)
    if found.first is None:
        assert not simulate(graph, recording).record.spikes[least.source].any()
    else:
        assert found.first.facts == (f"A has a projection {least.name}, B has none",)


# --- the books ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(case=st.one_of(integer_cases([SMALL], formats=FORMATS), float_cases(SMALL)))
def test_books_are_what_brute_force_reckons(case: Case) -> None:
    """Sums, currents and the membranes that meet the threshold, of every neuron and timestep."""
    case = without_resets(case)
    run = run_of(case)
    every = [(Watched(case, n), n) for n in range(samples_of(case))]
    for p in case.graph.populations:
        unit = membrane_unit(case.graph, p)
        books = open_books(case.graph, p, run.plan, run.trace, unit)
        for (watched, sample), step in product(every, range(case.steps)):
            done = watched.step(p.name, step)
            at = (sample, step)
            np.testing.assert_array_equal(
                books.before[at], np.reshape(watched.membranes[p.name, step], p.shape) * unit
            )
            np.testing.assert_array_equal(books.spikes[at], np.reshape(done.fired, p.shape))
            np.testing.assert_array_equal(
                books.after[at], np.reshape(done.membrane, p.shape) * unit
            )
            names = sorted(books.sums)
            brought = watched.sums(p.name, step)
            for name, values in zip(names, brought, strict=True):
                host = case.graph.on_host(next(q for q in case.graph.projections if q.name == name))
                shift = case.graph.number_format.bias_shift if host else 0  # type: ignore[union-attr]
                expected = np.reshape(values, p.shape).astype(np.float64) * 2.0**shift * unit
                np.testing.assert_array_equal(books.sums[name][at], expected)
        fires = books.before >= books.level
        np.testing.assert_array_equal(fires, books.spikes > 0)


@settings(max_examples=40)
@given(case=st.one_of(integer_cases([SMALL]), float_cases(SMALL)), batch=st.integers(1, 3))
def test_a_graph_is_identical_to_itself(case: Case, batch: int) -> None:
    case = without_resets(case)
    found = diff(case.graph, case.graph, case.recording, steps=case.steps, batch=batch)
    assert found.identical
    assert all(p.exact and p.membrane_apart == 0 for p in found.populations)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_batches_do_not_matter(seed: int) -> None:
    graph, recording = chain(seed)
    planted = PLANTS["weight off by one"](graph, np.random.default_rng(seed))
    assert planted is not None
    results = [diff(graph, planted.graph, recording, batch=n) for n in (None, 1, 2)]
    assert results[0] == results[1] == results[2]


# --- roots and cascades ---------------------------------------------------------------------------


def history_differs(
    run: Run, sample: Watched, flips: dict[str, Array], index: int
) -> Callable[[str, int, tuple[int, ...]], bool]:
    """Per slot, whether a flip may have led to it: followed back through every synapse."""
    known: dict[tuple[str, int, tuple[int, ...]], bool] = {}

    def flipped(name: str, step: int, neuron: tuple[int, ...]) -> bool:
        return step >= 0 and name in flips and bool(flips[name][(index, step, *neuron)])

    def tainted(name: str, step: int, neuron: tuple[int, ...]) -> bool:
        key = (name, step, neuron)
        if key not in known:
            known[key] = step >= 0 and (
                tainted(name, step - 1, neuron)
                or flipped(name, step - 1, neuron)
                or any(
                    weight != 0 and flipped(p.source, step - delay, source)
                    for p in run.graph.incoming(name)
                    for source, weight, delay in sample.synapses[p.name].get(neuron, ())
                )
            )
        return known[key]

    return tainted


@settings(max_examples=150)
@given(case=integer_cases([SMALL]), seed=st.integers(0, 10_000))
def test_flips_reach_what_synapses_reach(case: Case, seed: int) -> None:
    """Of flips anywhere, through every synapse and delay."""
    case = without_resets(case)
    run, rng = run_of(case), np.random.default_rng(seed)
    density = rng.choice((0.02, 0.1, 0.3))  # few enough to leave something untouched
    flips = {n: rng.random(s.shape) < density for n, s in run.trace.spikes.items()}
    for p in case.graph.populations:
        found = reached(run, p.name, flips)
        for index in range(samples_of(case)):
            tainted = history_differs(run, Watched(case, index), flips, index)
            for step, neuron in product(range(case.steps), neurons_of(p.shape)):
                assert found[(index, step, *neuron)] == tainted(p.name, step, neuron)


@settings(max_examples=30)
@given(case=integer_cases([SMALL]), seed=st.integers(0, 10_000))
def test_roots_have_an_equal_history(case: Case, seed: int) -> None:
    case = without_resets(case)
    assume(any(case.graph.spiking()))
    planted = PLANTS["threshold off by one"](case.graph, np.random.default_rng(seed))
    assert planted is not None
    one, other = run_of(case), run_of(case, planted.graph)
    flips = {n: one.trace.spikes[n] != other.trace.spikes[n] for n in one.trace.spikes}
    tallies = diff(case.graph, planted.graph, case.recording, steps=case.steps).populations
    for tally in tallies:
        roots = 0
        flipped = np.argwhere(flips.get(tally.population, np.zeros((1,), bool))).tolist()
        for index, step, *neuron in flipped:
            tainted = history_differs(one, Watched(case, index), flips, index)
            roots += not tainted(tally.population, step, tuple(neuron))
        counts = (tally.roots, tally.cascaded, tally.differing)
        assert counts == (roots, len(flipped) - roots, len(flipped))


# --- what cannot be compared ----------------------------------------------------------------------


def test_networks_that_cannot_be_compared() -> None:
    case = busy()
    graph = case.graph
    other = one_layer(Dense(np.ones((1, 2), np.int64)), spike_input(2))
    with refused("SD108", r"graph has no conv, dense, out; graph has no p"):
        diff(graph, other, case.recording)
    wider = one_layer(Dense(np.ones((3, 2), np.int64)), spike_input(2))
    with refused("SD108", r"p has shape \(1,\) in graph, \(3,\) in graph"):
        diff(other, wider, case.recording)
    silent = replace(
        other,
        populations=(
            replace(
                other.populations[0],
                neurons=Integrator(decay=integers(0), bias=integers(0), readout="sum"),
            ),
        ),
    )
    with refused("SD108", "p fires in only one of them"):
        diff(other, silent, case.recording)
    with refused("SD108", "outputs"):
        diff(graph, replace(graph, outputs=("dense",)), case.recording)


def test_numbered_populations_are_matched_in_order() -> None:
    case = busy()
    names = {"conv": "0", "dense": "1", "out": "2", "in": "in"}
    numbered = Graph(
        inputs=case.graph.inputs,
        populations=tuple(replace(p, name=names[p.name]) for p in case.graph.populations),
        projections=tuple(
            replace(p, source=names[p.source], target=names[p.target])
            for p in case.graph.projections
        ),
        outputs=("2",),
        number_format=GENERIC,
    )
    found = diff(case.graph, numbered, case.recording)
    assert found.identical
    assert found.notes == ("populations 0, 1, 2 of graph are taken for conv, dense, out",)


def test_integers_without_a_scale_are_read_in_the_others() -> None:
    """As a .net file beside the folder that it is from."""
    case = busy()
    scaled = replace(
        case.graph, populations=tuple(replace(p, scale=0.125) for p in case.graph.populations)
    )
    found = diff(scaled, case.graph, case.recording)
    assert found.identical
    assert all(p.exact for p in found.populations)
    planted = PLANTS["bias dropped"](case.graph, np.random.default_rng(0))
    assert planted is not None
    first, same = (diff(g, planted.graph, case.recording).first for g in (scaled, case.graph))
    assert first is not None
    assert same is not None
    assert (first.population, first.cause) == (same.population, "bias")
    assert first.a.membrane == 0.125 * same.a.membrane


def test_progress_reaches_the_end() -> None:
    said = []
    graph, recording = chain(1)
    diff(graph, graph, recording, batch=1, progress=lambda *step: said.append(step))
    total = len(said)
    assert said == [("compare", n + 1, total) for n in range(total)]
