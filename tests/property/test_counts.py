"""Fan-out and events, against a count of every single synapse."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Graph, Integrator, Population, Projection, ResetSubtract
from snn_deploy.sim import EngineName, Trace
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.brute_force import Neuron, neurons_of, own_delay, stages_of, synapses_of
from tests.helpers.graphs import GENERIC, MEDIUM, SMALL, Case, integer_cases
from tests.helpers.nets import fed_with_spikes, integers, lif, one_layer, population, spike_input

ENGINES: tuple[EngineName, ...] = ("reference", "event")


def fan_out_of(case: Case, projection: Projection) -> Counter[Neuron]:
    """Distinct targets of each source neuron."""
    shapes = (case.graph.shape_of(name) for name in (projection.source, projection.target))
    return Counter(source for source, _ in synapses_of(projection, *shapes))


def events_of(case: Case, trace: Trace, projection: Projection, hops: int) -> list[int]:
    """Per sample, pairs of a source event and a target that it reached before the end."""
    graph, source = case.graph, projection.source
    if graph.is_input(source):
        spec = graph.input(source)
        held = case.recording.spikes if spec.kind == "spikes" else case.recording.values
        sent = spec.encode(held[source] if source in held else held[""]) != 0
        if spec.kind == "constant":
            fan_out = fan_out_of(case, projection)
            return [sum(fan_out[n] for n in neurons_of(spec.shape) if row[n]) for row in sent]
    else:
        sent = trace.spikes[source]  # one for every spike of a neuron that fires several times
    shape = graph.shape_of(source)
    synapses = synapses_of(projection, shape, graph.shape_of(projection.target))
    reached = Counter(
        (sender, own_delay(projection, shape, sender, target)) for sender, target in synapses
    )
    found = np.zeros(len(sent), np.int64)
    for (sender, delay), targets in reached.items():
        in_time = sent[:, : max(case.steps - delay - hops, 0)]
        found += targets * in_time[(..., *sender)].sum(axis=1, dtype=np.int64)
    return list(found.tolist())


@settings(max_examples=150)
@given(
    case=integer_cases((SMALL, SMALL, MEDIUM)), timing=st.sampled_from(("zero_delay", "pipelined"))
)
def test_counts(case: Case, timing: Timing) -> None:
    for projection in case.graph.projections:
        found = case.graph.fan_out(projection)
        expected = fan_out_of(case, projection)
        assert found.shape == case.graph.shape_of(projection.source)
        assert {n: found[n] for n in neurons_of(found.shape) if found[n]} == expected
    stages = stages_of(case.graph, timing)
    if stages is None:
        timing, stages = "zero_delay", dict.fromkeys((p.name for p in case.graph.populations), 0)
    for engine in ENGINES:
        trace = case.run(engine, timing)
        for projection in case.graph.projections:
            hops = stages[projection.target] - stages.get(projection.source, 0)
            found = trace.record.events[projection.name]
            assert found.tolist() == events_of(case, trace, projection, hops), projection.name


@pytest.mark.parametrize("engine", ENGINES)
def test_overlapping_windows_count_once(engine: EngineName) -> None:
    """The middle pixel lies in all four windows, hence reaches the one target in four ways."""
    graph = one_layer(
        Conv2d(np.ones((1, 1, 2, 2), int)), spike_input(1, 3, 3), pool=SumPool((2, 2), (1, 1))
    )
    spikes = np.zeros((1, 1, 1, 3, 3))
    spikes[..., 1, 1] = 1
    trace = fed_with_spikes(graph, spikes).run(engine)
    assert trace.record.events["in->p"].tolist() == [1]
    assert trace.current["p"].ravel().tolist() == [4 * 64]


@pytest.mark.parametrize("engine", ENGINES)
def test_several_spikes_are_several_events(engine: EngineName) -> None:
    """7 thresholds of 10 in a membrane of 75, three of them in one timestep at most: 3, 3, 1."""
    neurons = lif(4096, threshold=10, reset=ResetSubtract(10))
    sink = Integrator(decay=integers(0), bias=integers(0), readout="sum")
    form = replace(GENERIC, fraction_bits=0)
    graph = Graph(
        inputs=(spike_input(1),),
        populations=(
            Population(name="p", shape=(1,), neurons=neurons, scale=1.0, max_spikes=3),
            population("out", 2, neurons=sink),
        ),
        projections=(
            Projection(source="in", target="p", synapses=Dense(integers([[75]]))),
            Projection(source="p", target="out", synapses=Dense(integers([[5], [-1]]))),
        ),
        outputs=("out",),
        number_format=form,
    )
    trace = fed_with_spikes(graph, [[[1], [0], [0], [0]]]).run(engine)
    assert trace.spikes["p"].ravel().tolist() == [3, 3, 1, 0]
    assert trace.membrane["p"].ravel().tolist() == [45, 15, 5, 5]
    assert trace.current["out"][0].tolist() == [[15, -3], [15, -3], [5, -1], [0, 0]]
    assert trace.record.spikes["p"].tolist() == trace.record.sample_spikes["p"].tolist() == [7]
    assert {n: e.tolist() for n, e in trace.record.events.items()} == {"in->p": [1], "p->out": [14]}
