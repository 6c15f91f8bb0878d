"""Stages and physical delays of a pipelined chip, worked out by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Graph, InputSpec, Population, Projection
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, simulate, simulate_stream
from snn_deploy.sim.timing import pipelined, repeatable, zero_delay
from snn_deploy.synapses import Dense
from tests.helpers.brute_force import assert_equals_brute_force, stages_of
from tests.helpers.graphs import GENERIC, LOIHI2, Case
from tests.helpers.nets import dense, fed_with_spikes, integers, lif, population, spike_input
from tests.helpers.refusals import refused

ENGINES: tuple[EngineName, ...] = ("reference", "event")
PIPELINED = replace(GENERIC, hop_delay=1)

Edge = tuple[str, str] | tuple[str, str, Any]


def net(*edges: Edge, kind: Any = "spikes", **parts: Any) -> Graph:
    """Populations of one neuron, joined as said: source, target and delay. "in" is the input."""
    names = dict.fromkeys(name for edge in edges for name in edge[:2] if name != "in")
    projections = tuple(
        dense(source, target, 1, 1, delay=more[0] if more else 0) for source, target, *more in edges
    )
    return Graph(
        **{
            "inputs": (InputSpec(name="in", kind=kind, shape=(1,), scale=1.0),),
            "populations": tuple(population(name, 1) for name in names),
            "projections": projections,
            "outputs": (list(names)[-1],),
            "number_format": PIPELINED,
            **parts,
        }
    )


CHAIN: tuple[Edge, ...] = (("in", "a"), ("a", "b"), ("b", "c"))
STAGES: dict[str, tuple[Graph, dict[str, int], dict[str, int]]] = {
    "a chain": (
        net(*CHAIN),
        {"a": 1, "b": 2, "c": 3},
        {"in->a": 1, "a->b": 1, "b->c": 1},
    ),
    "constant input does not travel": (
        net(*CHAIN, kind="constant"),
        {"a": 0, "b": 1, "c": 2},
        {"in->a": 0, "a->b": 1, "b->c": 1},
    ),
    "graded input does": (
        net(*CHAIN, kind="graded"),
        {"a": 1, "b": 2, "c": 3},
        {"in->a": 1, "a->b": 1, "b->c": 1},
    ),
    "a residual path waits for the longer one": (
        net(*CHAIN, ("a", "c")),
        {"a": 1, "b": 2, "c": 3},
        {"in->a": 1, "a->b": 1, "b->c": 1, "a->c": 2},
    ),
    "so does an input that skips populations": (
        net(*CHAIN, ("in", "c")),
        {"a": 1, "b": 2, "c": 3},
        {"in->a": 1, "a->b": 1, "b->c": 1, "in->c": 3},
    ),
    "but not a constant one": (
        net(*CHAIN, ("in", "c"), kind="constant"),
        {"a": 0, "b": 1, "c": 2},
        {"in->a": 0, "a->b": 1, "b->c": 1, "in->c": 0},
    ),
    "a delay adds to the hop, and makes no stage": (
        net(("in", "a", 2), ("a", "b", 5)),
        {"a": 1, "b": 2},
        {"in->a": 3, "a->b": 6},
    ),
    "recurrence with delay 1 is one step": (
        net(("in", "a"), ("a", "a", 1), ("a", "b")),
        {"a": 1, "b": 2},
        {"in->a": 1, "a->a": 1, "a->b": 1},
    ),
    "a longer recurrent delay stays as long": (
        net(("in", "a"), ("a", "a", 3)),
        {"a": 1},
        {"in->a": 1, "a->a": 3},
    ),
    "two populations in a loop share its delay of two": (
        net(("in", "a"), ("a", "b"), ("b", "a", 2)),
        {"a": 1, "b": 2},
        {"in->a": 1, "a->b": 1, "b->a": 1},
    ),
    "a loop may have more delay than it needs": (
        net(("in", "a"), ("a", "b"), ("b", "a", 5)),
        {"a": 1, "b": 2},
        {"in->a": 1, "a->b": 1, "b->a": 4},
    ),
    "inside a loop a delay may be the hop": (
        net(("in", "a"), ("a", "b", 1), ("b", "a", 1)),
        {"a": 1, "b": 1},
        {"in->a": 1, "a->b": 1, "b->a": 1},
    ),
    "what follows a loop is a hop away, whatever the delay": (
        net(("in", "a"), ("a", "b", 1), ("b", "a", 1), ("b", "c", 1)),
        {"a": 1, "b": 1, "c": 2},
        {"in->a": 1, "a->b": 1, "b->a": 1, "b->c": 2},
    ),
    "a late entry shifts the whole loop": (
        net(("in", "x"), ("x", "b"), ("in", "a"), ("a", "b", 3), ("b", "a", 1)),
        {"x": 1, "a": 2, "b": 2},
        {"in->x": 1, "x->b": 1, "in->a": 2, "a->b": 3, "b->a": 1},
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_by_hand(name: str) -> None:
    graph, stages, delays = STAGES[name]
    found = pipelined(graph)
    assert found.stages == stages
    assert found.delays == delays
    assert found.latency == max(stages.values())
    assert [found.index(n) for n in stages] == [s - min(stages.values()) for s in stages.values()]


def test_delays_per_synapse_move_together() -> None:
    """The shortest one counts: it must be a hop at least."""
    delay = np.array([[1, 3]], np.int8)
    loop = Graph(
        inputs=(spike_input(2),),
        populations=(population("a", 2), population("b", 1)),
        projections=(
            dense("in", "a", 2, 2),
            dense("a", "b", 1, 2, delay=delay),
            dense("b", "a", 2, 1, delay=1),
        ),
        outputs=("b",),
        number_format=PIPELINED,
    )
    found = pipelined(loop)
    assert found.stages == {"a": 1, "b": 1}
    assert np.array_equal(found.delays["a->b"], [[1, 3]])
    forward = replace(loop, projections=loop.projections[:2])
    assert np.array_equal(pipelined(forward).delays["a->b"], [[2, 4]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_a_physical_delay_may_not_fit_the_type_of_the_delay(dtype: type) -> None:
    delay = np.array([[127]], dtype)
    found = pipelined(net(("in", "a"), ("a", "b", delay), ("in", "x"), ("x", "y"), ("y", "b")))
    assert np.asarray(found.delays["a->b"]).tolist() == [[127 + 2]]


@pytest.mark.parametrize(
    ("edges", "where"),
    [
        ((("in", "a"), ("a", "b"), ("b", "a", 1)), "a, b"),
        ((("in", "a"), ("a", "b"), ("b", "c"), ("c", "a", 2)), "a, b, c"),
        ((("in", "a"), ("a", "b"), ("b", "a", np.array([[1]]))), "a, b"),
        # the shorter of two loops through the same populations
        ((("in", "a"), ("a", "b"), ("b", "c"), ("c", "a", 3), ("b", "a", 1)), "a, b, c"),
        # whoever follows is late without end, but has no part in it
        ((("in", "a"), ("a", "b"), ("b", "a", 1), ("b", "c"), ("c", "c", 1)), "a, b"),
    ],
)
def test_a_loop_with_less_delay_than_hops(edges: tuple[Edge, ...], where: str) -> None:
    graph = net(*edges)
    with refused("SD207", rf"shorter than its hops(.|\n)*--> {where}\n"):
        pipelined(graph)
    recording = Recording(spikes={"": np.zeros((1, 3, 1), np.uint8)})
    for engine in ENGINES:
        with refused("SD207"):
            simulate(graph, recording, engine=engine, timing="pipelined")
        simulate(graph, recording, engine=engine)  # zero-delay timing has no hops
    promptly = replace(graph, number_format=GENERIC)
    assert pipelined(promptly).stages == zero_delay(promptly).stages


def test_zero_delay_timing_is_the_graphs_own() -> None:
    graph = net(("in", "a", 2), ("a", "b"), ("b", "b", 1))
    assert zero_delay(graph).stages == {"a": 0, "b": 0}
    assert zero_delay(graph).delays == {"in->a": 2, "a->b": 0, "b->b": 1}
    constant = net(("in", "a", 2), ("a", "b"), kind="constant")
    assert zero_delay(constant).delays == {"in->a": 0, "a->b": 0}


# What the delays do to spikes.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("graph", "zero", "late"),
    [
        pytest.param(net(*CHAIN), [1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], id="chain"),
        pytest.param(
            net(("in", "a"), ("a", "b", 2)), [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], id="delay"
        ),
        pytest.param(
            net(("in", "a"), ("a", "a", 1)), [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], id="recurrent"
        ),
        pytest.param(
            net(("in", "a"), ("a", "b"), ("b", "a", 2)),
            [1, 0, 1, 0, 1, 0],
            [0, 0, 1, 0, 1, 0],
            id="loop",
        ),
    ],
)
def test_one_spike_arrives_when_it_should(
    graph: Graph, zero: list[int], late: list[int], engine: EngineName
) -> None:
    eager = tuple(replace(p, neurons=lif(threshold=64)) for p in graph.populations)
    case = fed_with_spikes(replace(graph, populations=eager), [[[1], *[[0]] * 5]])
    (name,) = graph.outputs
    assert case.run(engine).spikes[name].ravel().tolist() == zero
    assert case.run(engine, "pipelined").spikes[name].ravel().tolist() == late


@pytest.mark.parametrize("engine", ENGINES)
def test_every_synapse_has_its_own_delay(engine: EngineName) -> None:
    """Weights are powers of two, so that the sum says which spikes have arrived."""
    weight, delay = integers([[1, 2], [4, 8]]), np.array([[0, 2], [3, 1]])
    spikes = [[[1, 0], [0, 0], [0, 1], [0, 0], [0, 0]]]
    form = replace(PIPELINED, fraction_bits=0)
    synapses = Projection(source="in", target="p", synapses=Dense(weight), delay=delay)
    graph = Graph(
        inputs=(spike_input(2),),
        populations=(population("p", 2),),
        projections=(synapses,),
        outputs=("p",),
        number_format=form,
    )
    first, second = [1, 0, 0, 0, 2], [0, 0, 0, 4 + 8, 0]
    case = fed_with_spikes(graph, spikes)
    assert case.run(engine).current["p"][0].T.tolist() == [first, second]
    hop = case.run(engine, "pipelined").current["p"][0].T.tolist()
    assert hop == [[0, *first[:-1]], [0, *second[:-1]]]
    for shape, expected in (
        ([[1], [3]], [[0, 1, 0, 2, 0], [0, 0, 0, 4, 0]]),  # one per target
        ([[1, 2]], [[0, 1, 0, 0, 2], [0, 4, 0, 0, 8]]),  # one per source
    ):
        same = replace(graph, projections=(replace(synapses, delay=np.array(shape)),))
        found = fed_with_spikes(same, spikes).run(engine).current["p"][0].T.tolist()
        assert found == expected


# Resets.


def charging(threshold: int = 1 << 20, **parts: Any) -> Graph:
    """A neuron without a leak that gains one unit per step of bias, and one that follows it."""
    neurons = lif(4096, threshold=threshold, bias=1, current_decay=integers(4096))
    graph = net(("in", "a"), ("a", "b"), **parts)
    return replace(graph, populations=tuple(replace(p, neurons=neurons) for p in graph.populations))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("offset", "first", "second"),
    [
        # stages 1 and 2: cleared at the start of steps 1, 4, 7 and 2, 5
        (None, [1, 1, 2, 3, 1, 2, 3, 1], [1, 2, 1, 2, 3, 1, 2, 3]),
        # counted from the first population: steps 0, 3, 6 and 1, 4, 7
        (0, [1, 2, 3, 1, 2, 3, 1, 2], [1, 1, 2, 3, 1, 2, 3, 1]),
        (2, [1, 2, 1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3, 1, 2]),
        (5, [1, 2, 1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3, 1, 2]),  # modulo the interval
    ],
)
def test_resets_are_staggered(
    engine: EngineName, offset: int | None, first: list[int], second: list[int]
) -> None:
    case = fed_with_spikes(charging(), np.zeros((1, 8, 1)))
    case = replace(case, reset_interval=3, reset_offset=offset)
    trace = case.run(engine, "pipelined")
    assert trace.membrane["a"].ravel().tolist() == first
    assert trace.membrane["b"].ravel().tolist() == second
    assert trace.record.updates["a"].tolist() == [8]  # 1 from 0 is a change, after a 1 too
    if offset is None:  # without hops all are cleared at once
        prompt = case.run(engine).membrane
        assert prompt["a"].ravel().tolist() == prompt["b"].ravel().tolist()
        assert prompt["a"].ravel().tolist() == [1, 2, 3, 1, 2, 3, 1, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reset_clears_the_current_and_not_the_delay_line(engine: EngineName) -> None:
    """A spike that has arrived is forgotten; one under way arrives after the reset."""
    spikes = np.zeros((1, 6, 1))
    spikes[0, 0] = 1
    graph = charging(number_format=GENERIC)
    case = replace(fed_with_spikes(graph, spikes), reset_interval=2)
    assert case.run(engine).current["a"].ravel().tolist() == [64, 64, 0, 0, 0, 0]
    waiting = tuple(replace(p, delay=3) if p.source == "in" else p for p in graph.projections)
    case = replace(case, graph=replace(graph, projections=waiting))
    assert case.run(engine).current["a"].ravel().tolist() == [0, 0, 0, 64, 0, 0]


def test_resets_that_make_no_sense() -> None:
    case = fed_with_spikes(charging(), np.zeros((1, 4, 1)))
    for interval, offset, text in ((0, None, "at least 1"), (None, 1, "needs a reset interval")):
        with refused("SD104", text):
            replace(case, reset_interval=interval, reset_offset=offset).run("reference")


# One window after another.


@pytest.mark.parametrize(
    ("edges", "where"),
    [
        ((("in", "a", 1), ("a", "b")), "in->a"),
        ((("in", "a"), ("a", "b"), ("b", "b", 1)), "b->b"),
        ((("in", "a"), ("a", "b", np.array([[2]]))), "a->b"),
    ],
)
def test_what_outlives_a_window_is_refused(edges: tuple[Edge, ...], where: str) -> None:
    graph = net(*edges)
    with refused("SD207", f"--> {where}"):
        repeatable(graph)
    with refused("SD207", f"--> {where}"):
        simulate_stream(graph, Recording(spikes={"": np.zeros((1, 3, 1), np.uint8)}))


def test_a_delay_of_constant_input_outlives_nothing() -> None:
    repeatable(net(("in", "a", 3), ("a", "b"), kind="constant"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number_format", [PIPELINED, LOIHI2], ids=["graded", "host_bias"])
def test_every_window_has_its_own_constant_input(engine: EngineName, number_format: Any) -> None:
    """Two hops and windows of two steps: three samples are under way at once."""
    graph = net(*CHAIN, ("in", "c"), kind="constant", number_format=number_format)
    spec = replace(graph.inputs[0], high=9.0)
    sums = lif(4096, threshold=1 << 17 - 1)
    graph = replace(
        graph,
        inputs=(spec,),
        populations=tuple(replace(p, neurons=sums) for p in graph.populations),
    )
    recording = Recording(values={"": np.array([[1], [5], [2], [9]])})
    windows = simulate_stream(graph, recording, engine=engine, steps=2)
    expected = [[[64 * v], [128 * v]] for v in (1, 5, 2, 9)]
    assert windows.membrane["a"].tolist() == windows.membrane["c"].tolist() == expected
    trace = simulate(graph, recording, engine=engine, steps=2, trace=True)
    assert windows.difference(trace) == 0


def test_a_window_that_differs_is_told() -> None:
    graph = net(*CHAIN)
    spikes = np.ones((2, 3, 1), np.uint8)
    windows = simulate_stream(graph, Recording(spikes={"": spikes}))
    trace = simulate(graph, Recording(spikes={"": spikes * 0}), trace=True)
    assert windows.difference(trace) == 2 * 3 * 2  # membrane and current of "a": too weak to fire


# Random nets of single neurons, with loops of every length.


@st.composite
def tangles(draw: st.DrawFn) -> Case:
    names = "abcd"[: draw(st.sampled_from((4, 3, 2, 1)))]
    projections = {("in", name): draw(st.integers(0, 2)) for name in names if draw(st.booleans())}
    projections["in", "a"] = 0
    for source, target in itertools.product(names, names):
        if source < target and (draw(st.booleans()) or ord(target) - ord(source) == 1):
            projections[source, target] = draw(st.sampled_from((0, 0, 1, 2)))
        if source >= target and draw(st.integers(0, 2)) == 0:  # backward: with a delay
            projections[source, target] = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    graph = net(
        *((*pair, delay) for pair, delay in projections.items()),
        kind=draw(st.sampled_from(("spikes", "constant", "graded"))),
        number_format=draw(st.sampled_from((PIPELINED, LOIHI2))),
    )
    steps = draw(st.integers(4, 8))
    return Case(busy(graph, rng), recorded(graph, rng, steps), steps)


def busy(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph with weights around thresholds."""

    def weighed(projection: Projection) -> Projection:
        weight = 2 * rng.integers(-10, 20, projection.synapses.weight.shape)
        return replace(projection, synapses=Dense(weight))

    def alive(population: Population) -> Population:
        neurons = lif(rng.integers(0, 4097), threshold=rng.integers(1, 20), bias=rng.integers(9))
        return replace(population, neurons=neurons)

    return replace(
        graph,
        populations=tuple(map(alive, graph.populations)),
        projections=tuple(map(weighed, graph.projections)),
    )


def recorded(graph: Graph, rng: np.random.Generator, steps: int) -> Recording:
    (spec,) = graph.inputs
    time = () if spec.kind == "constant" else (steps,)
    array = rng.integers(0, 2, (1, *time, 1)).astype(np.uint8)
    return Recording(spikes={"": array}) if spec.kind == "spikes" else Recording(values={"": array})


@settings(max_examples=300)
@given(case=tangles())
def test_tangles(case: Case) -> None:
    """Stages are the least that obey the rules; engines do in them what brute force does."""
    stages = stages_of(case.graph, "pipelined")
    event(f"loop: {any(len(g) > 1 for g in case.graph.order)}, possible: {stages is not None}")
    assert_equals_brute_force(case, "pipelined")  # which refuses what has no stages
    if stages is not None:
        assert pipelined(case.graph).stages == stages
        reference = case.run("reference", "pipelined")
        assert case.run("event", "pipelined").record.difference(reference.record) == 0
