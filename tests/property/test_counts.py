"""Fan-out and events, against a count of every single synapse."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Projection
from snn_deploy.sim import EngineName, Trace
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, SumPool
from tests.helpers.brute_force import Neuron, neurons_of, synapses_of
from tests.helpers.graphs import MEDIUM, SMALL, Case, integer_cases
from tests.helpers.nets import fed_with_spikes, one_layer, spike_input


def fan_out_of(case: Case, projection: Projection) -> Counter[Neuron]:
    """Distinct targets of each source neuron."""
    shapes = (case.graph.shape_of(name) for name in (projection.source, projection.target))
    return Counter(source for source, _ in synapses_of(projection, *shapes))


def events_of(case: Case, trace: Trace, projection: Projection, hop: int) -> list[int]:
    """Per sample, pairs of a source event and a target that it reached before the end."""
    graph, source = case.graph, projection.source
    fan_out = fan_out_of(case, projection)
    if graph.is_input(source):
        spec = graph.input(source)
        held = case.recording.spikes if spec.kind == "spikes" else case.recording.values
        sent = spec.encode(held[source] if source in held else held[""])
        if spec.kind == "constant":
            return [sum(fan_out[n] for n in neurons_of(spec.shape) if row[n]) for row in sent]
    else:
        sent = trace.spikes[source]
    delay = 0 if graph.on_host(projection) else projection.delay + hop
    return [
        sum(fan_out[tuple(n)] for n in np.argwhere(sample[: max(case.steps - delay, 0)])[:, 1:])
        for sample in sent[:, : case.steps]
    ]


@settings(max_examples=150)
@given(
    case=integer_cases((SMALL, SMALL, MEDIUM)), timing=st.sampled_from(("zero_delay", "pipelined"))
)
def test_counts(case: Case, timing: Timing) -> None:
    assert case.graph.number_format is not None
    hop = case.graph.number_format.hop_delay if timing == "pipelined" else 0
    for projection in case.graph.projections:
        found = case.graph.fan_out(projection)
        expected = fan_out_of(case, projection)
        assert found.shape == case.graph.shape_of(projection.source)
        assert {n: found[n] for n in neurons_of(found.shape) if found[n]} == expected
    for engine in ("reference", "event"):
        trace = case.run(engine, timing)
        for projection in case.graph.projections:
            found = trace.record.events[projection.name]
            assert found.tolist() == events_of(case, trace, projection, hop), projection.name


@pytest.mark.parametrize("engine", ["reference", "event"])
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
