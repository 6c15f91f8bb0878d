"""The event engine in its other ways: plain kernels only, and blocks of every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from snn_deploy.packets import Recording
from snn_deploy.sim import plain as plain_module
from snn_deploy.sim import program as program_module
from snn_deploy.sim import simulate_stream
from snn_deploy.sim.event import PLAIN, EventEngine
from snn_deploy.sim.plan import plan, with_sample_axis
from snn_deploy.sim.tables import DelayedSynapses, SynapseTable
from snn_deploy.synapses import Conv2d, Dense
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import LOIHI2, MEDIUM, Case, integer_cases
from tests.helpers.layers import examples, net_cases
from tests.helpers.nets import fed_with_spikes, lif, one_layer, spike_input
from tests.property.test_engines import assert_same, both

cheaply = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def agree(case: Case) -> None:
    both(case)
    if stages_of(case.graph, "pipelined") is not None:
        both(case, "pipelined")


@cheaply
@given(case=integer_cases())
def test_plain_kernels_agree(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLAIN, "1")
    engine = EventEngine(case.graph)
    assert {type(table) for table in engine.synapses.values()} <= {SynapseTable, DelayedSynapses}
    agree(case)


@cheaply
@given(case=integer_cases((MEDIUM,), delays=False, hop_delay=1))
def test_plain_kernels_stream(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant input changes from window to window."""
    monkeypatch.setenv(PLAIN, "1")
    case = replace(case, reset_interval=None, reset_offset=None)
    alone = case.run("reference")
    windows = simulate_stream(case.graph, case.recording, engine="event", steps=case.steps)
    assert windows.difference(alone) == 0
    for name, part in alone.membrane.items():
        np.testing.assert_array_equal(windows.membrane[name], part, name)


def cut_to(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and tiles of so many bytes, whatever the weights."""
    monkeypatch.setattr(plain_module, "BLOCK_BYTES", size)
    for name in ("_TILE_BYTES", "_BLOCK_BYTES", "_LISTED_BYTES"):
        monkeypatch.setattr(program_module, name, size)


@cheaply
@given(
    case=integer_cases(),
    weights=st.sampled_from((0, 1 << 20)),
    size=st.sampled_from((1, 40, 300, 2000)),
)
def test_blocks_of_any_size_agree(
    case: Case, weights: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One neuron's sums of one step, up to several samples."""
    monkeypatch.setattr(program_module, "_CACHED_WEIGHTS", weights)
    cut_to(size, monkeypatch)
    agree(case)


@cheaply
@given(case=integer_cases(), threads=st.integers(2, 7), samples=st.integers(1, 3))
def test_any_number_of_threads_agrees(
    case: Case, threads: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than samples, and than pixels, too."""
    monkeypatch.setattr(program_module, "_WORTH", 0)
    recording = with_sample_axis(case.graph, case.recording).head(samples)
    for trace in (False, True):
        made = plan(
            case.graph, recording, steps=case.steps, timing="zero_delay", trace=trace,
            reset_interval=case.reset_interval, reset_offset=case.reset_offset,
        )  # fmt: skip
        alone = EventEngine(case.graph).run(made)
        engine = EventEngine(case.graph, threads)
        for _ in range(2):
            assert_same(engine.run(made), alone)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.filter_too_much])
@given(case=net_cases(), seed=st.integers(0, 2**32 - 1))
def test_a_run_leaves_nothing_behind(case: Case, seed: int) -> None:
    """One engine, many recordings of the same extents, results that are kept meanwhile."""
    engine = EventEngine(case.graph)
    assume(engine._vectors_only)
    graph, first = case.graph, with_sample_axis(case.graph, case.recording)
    rng = np.random.default_rng(seed)
    second = replace(first, spikes={n: rng.permuted(s, axis=None) for n, s in first.spikes.items()})
    plans = [
        plan(
            graph, recording, steps=case.steps, timing="zero_delay", trace=trace,
            reset_interval=interval,
        )
        for recording, trace, interval in (
            (first, False, None), (second, False, 2), (first, True, None), (first, False, None),
            (second.head(1), False, None), (second, False, None),
        )
    ]  # fmt: skip
    found = [engine.run(made) for made in plans]
    for trace, made in zip(found, plans, strict=True):
        assert_same(trace, EventEngine(graph).run(made))


def test_small_batches_are_made_once() -> None:
    graph = one_layer(Dense(np.full((70, 5), 3)), spike_input(5), lif(threshold=4))
    engine = EventEngine(graph)
    spikes = np.ones((2, 3, 5), np.uint8)
    made = plan(graph, Recording(spikes={"in": spikes}), steps=3, timing="zero_delay", trace=False)
    engine.run(made)
    ready = engine._local.ready
    engine.run(made)
    assert engine._local.ready is ready
    engine.run(made.part(0, 1))
    assert engine._local.ready is not ready


@pytest.mark.parametrize("plain", ["", "1"])
def test_a_layer_of_several_blocks(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a block of plain loops holds a whole number of steps of one sample: 2 of 5."""
    monkeypatch.setenv(PLAIN, plain)
    rng = np.random.default_rng(0)
    kernel = Conv2d(2 * rng.integers(-128, 128, (130, 3, 3, 3)), padding=(1, 1))
    neurons = lif(decay=3000, threshold=500)
    graph = one_layer(kernel, spike_input(3, 31, 29), neurons, number_format=LOIHI2)
    row = graph.populations[0].size * 4
    assert 2 * row <= plain_module.BLOCK_BYTES < 5 * row
    trace = both(fed_with_spikes(graph, rng.random((2, 5, 3, 31, 29)) < 0.2))
    assert 0.02 < trace.spikes["p"].mean() < 0.5
