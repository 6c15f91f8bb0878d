"""The activity record against lists of what every neuron did, one sample at a time."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.counting import MembraneAccess, Spread, activity_record
from snn_deploy.graph import Projection
from snn_deploy.synapses import Conv2d, Dense, one_to_one
from tests.counting.enumeration import Enumeration
from tests.helpers.brute_force import Simulation, synapses_of
from tests.helpers.graphs import SMALL, Case, float_cases, integer_cases
from tests.helpers.nets import (
    fed_with_spikes,
    integers,
    one_layer,
    population,
    spike_input,
)


def assert_spread(found: Spread, counts: list[int]) -> None:
    assert (found.least, found.most) == (min(counts), max(counts))
    assert found.mean == pytest.approx(fmean(counts), rel=1e-12)
    assert found.deviation == pytest.approx(pstdev(counts), rel=1e-9, abs=1e-12)


@settings(max_examples=80)
@given(
    st.one_of(integer_cases((SMALL,)), float_cases(SMALL)),
    st.sampled_from(("per_update", "per_event")),
)
def test_against_brute_force(case: Case, membrane: MembraneAccess) -> None:
    trace = case.run("reference")
    samples = [Simulation(case, "zero_delay", s) for s in range(trace.record.samples)]
    enumerated = Enumeration(case, trace)
    found = activity_record(case.graph, trace.record, membrane)
    changes = {
        group.name: [sum(s.changes(group.name, t) for t in range(case.steps)) for s in samples]
        for group in case.graph.populations
    }
    events = {
        p.name: [simulation.events(p) for simulation in samples] for p in case.graph.projections
    }
    slots = len(samples) * case.steps
    for projection, seen in zip(case.graph.projections, found.projections, strict=True):
        pairs = synapses_of(projection, *enumerated.shapes(projection))
        sent = enumerated.sent[projection.source]
        once = len(samples) if enumerated.is_constant(projection) else slots
        assert seen.synapses == len(pairs)
        assert seen.sent == sum(sent.values())
        assert_spread(seen.events, events[projection.name])
        carried = sum(sent[source] for source, _ in pairs)
        assert seen.weighted_rate == pytest.approx(carried / (len(pairs) * once) if pairs else 0)
    for group, here in zip(case.graph.populations, found.populations, strict=True):
        spikes = trace.spikes.get(group.name)
        updates = changes[group.name]
        assert (here.neurons, here.spiking) == (group.size, spikes is not None)
        assert_spread(here.active_updates, updates)
        assert_spread(here.inactive_updates, [group.size * case.steps - n for n in updates])
        into = [p for p in case.graph.projections if p.target == group.name]
        out = [p for p in case.graph.projections if p.source == group.name]
        arriving = [sum(events[p.name][s] for p in into) for s in range(len(samples))]
        assert_spread(here.events_in, arriving)
        assert_spread(
            here.events_out, [sum(events[p.name][s] for p in out) for s in range(len(samples))]
        )
        assert here.weight_reads == sum(arriving)
        if membrane == "per_event":
            assert (here.membrane_reads, here.membrane_writes) == (sum(arriving),) * 2
        else:
            assert here.membrane_reads == group.size * slots
            assert here.membrane_writes == sum(updates)
        if spikes is None:
            assert here.rate is None
            assert here.weighted_rate is None
            assert (here.dead, here.saturated) == (0, 0)
            continue
        times = spikes.astype(int).reshape(len(samples), case.steps, -1)
        assert_spread(here.spikes, times.sum(axis=(1, 2)).tolist())
        assert here.rate == pytest.approx(times.sum() / times.size)
        assert here.dead == sum(not times[:, :, n].any() for n in range(group.size))
        full = [(times[:, :, n] == group.max_spikes).all() for n in range(group.size)]
        assert here.saturated == sum(full)
        pairs_out = [pair for p in out for pair in synapses_of(p, *enumerated.shapes(p))]
        if not pairs_out:
            assert here.weighted_rate is None
        else:
            carried = sum(enumerated.sent[group.name][source] for source, _ in pairs_out)
            assert here.weighted_rate == pytest.approx(carried / (len(pairs_out) * slots))


def test_dead_and_saturated_neurons() -> None:
    """Of three neurons one never fires, one always does and one in the second sample only."""
    graph = one_layer(Dense(integers([[0, 0], [200, 200], [0, 200]])), spike_input(2))
    spikes = np.array([[[1, 0], [1, 0]], [[1, 1], [1, 0]]])
    record = fed_with_spikes(graph, spikes).run("event").record
    (found,) = activity_record(graph, record).populations
    assert (found.dead, found.saturated) == (1, 1)
    assert found.rate == pytest.approx(5 / 12)
    assert_spread(found.spikes, [2, 3])
    assert found.weighted_rate is None


def test_a_rate_is_weighed_by_fan_out() -> None:
    """Of a row of three the first fires: a third of the neurons, two of the seven synapses."""
    first = one_layer(one_to_one((1, 1, 3), 200), spike_input(1, 1, 3))
    row = Conv2d(integers([[[[1, 0, 1]]]]), padding=(0, 1))  # a zero weight is a synapse
    graph = replace(
        first,
        populations=(*first.populations, population("out", 1, 1, 3)),
        projections=(*first.projections, Projection(source="p", target="out", synapses=row)),
        outputs=("out",),
    )
    record = fed_with_spikes(graph, [[[[[1, 0, 0]]]] * 4]).run("event").record
    found = activity_record(graph, record)
    assert found.populations[0].rate == pytest.approx(1 / 3)
    assert found.populations[0].weighted_rate == pytest.approx(2 / 7)
    assert found.projections[1].weighted_rate == pytest.approx(2 / 7)
    assert_spread(found.populations[0].events_out, [8])
    assert_spread(found.populations[1].events_in, [8])
