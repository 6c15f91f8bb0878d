"""The event engine equals the reference in every bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from snn_deploy.checks import check_integer
from snn_deploy.graph import InputSpec, Integrator
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, Trace
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import GENERIC, LOIHI2, Case, integer_cases
from tests.helpers.nets import fed_with_spikes, integers, lif, one_layer, spike_input
from tests.helpers.refusals import refused

ENGINES: tuple[EngineName, ...] = ("reference", "event")
TIMINGS: tuple[Timing, ...] = ("zero_delay", "pipelined")
LIMIT = (1 << 23) - 1


def assert_same(a: Trace, b: Trace) -> None:
    assert a.record.difference(b.record) == 0
    for part in ("spikes", "membrane", "current", "output"):
        mine, theirs = getattr(a, part), getattr(b, part)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name], f"{part} of {name}")


def both(case: Case, timing: Timing = "zero_delay") -> Trace:
    """The trace on which both engines agree."""
    check_integer(case.graph)
    reference = case.run("reference", timing)
    assert_same(reference, case.run("event", timing))
    return reference


@settings(max_examples=250)
@given(case=integer_cases(), batch=st.sampled_from((None, 1, 2, 3)))
def test_engines_agree(case: Case, batch: int | None) -> None:
    for timing in TIMINGS:
        if stages_of(case.graph, timing) is None:
            event("cannot be pipelined")
            for engine in ENGINES:
                with refused("SD207", "a loop"):
                    case.run(engine, timing)
            continue
        trace = both(case, timing)
        for engine in ENGINES:
            quiet = case.run(engine, timing, batch=batch, trace=False)
            assert quiet.record.difference(trace.record) == 0
            for name, output in quiet.output.items():
                np.testing.assert_array_equal(output, trace.output[name])


@pytest.mark.parametrize(
    ("weights", "current"),
    [
        pytest.param([254] * 600, 254 * 600 * 64 - 2**24, id="above"),
        pytest.param([-256] * 600, -256 * 600 * 64 + 2**24, id="below"),
        pytest.param([254] * 516 + [8], 2**23, id="upper edge stays"),
        pytest.param([-256] * 512, 2**23, id="lower edge turns"),
        pytest.param([254] * 516 + [6], 2**23 - 128, id="inside"),
        pytest.param([254] * 70_000, 254 * 70_000 * 64 - 2**24, id="one turn only"),
    ],
)
def test_current_wraps_and_membrane_saturates(weights: list[int], current: int) -> None:
    graph = one_layer(
        Dense(integers([weights, [0] * len(weights)])),
        spike_input(len(weights)),
        Integrator(decay=integers(0), bias=integers(0), readout="sum"),
        number_format=LOIHI2,
    )
    trace = both(fed_with_spikes(graph, np.ones((1, 1, len(weights)))))
    assert trace.current["p"].tolist() == [[[current, 0]]]
    assert trace.membrane["p"].tolist() == [[[min(current, LIMIT), 0]]]


@pytest.mark.parametrize(("weight", "limit"), [(254, LIMIT), (-256, -LIMIT)])
def test_membrane_stays_at_its_limit(weight: int, limit: int) -> None:
    neurons = Integrator(decay=integers(4096), bias=integers(0), readout="last")
    weights = Dense(np.full((1, 500), weight))
    graph = one_layer(weights, spike_input(500), neurons, number_format=LOIHI2)
    trace = both(fed_with_spikes(graph, np.ones((1, 4, 500))))
    assert trace.membrane["p"].ravel().tolist() == [500 * 64 * weight, limit, limit, limit]


@pytest.mark.parametrize("number_format", [LOIHI2, GENERIC])
@pytest.mark.parametrize("active", [False, True])
def test_silent_and_saturated(number_format: NumberFormat, active: bool) -> None:
    kernel = Conv2d(np.full((65, 2, 3, 2), 2), stride=(2, 1), padding=(1, 1))
    graph = one_layer(kernel, spike_input(2, 9, 8), lif(threshold=1 - active), number_format=LOIHI2)
    graph = replace(graph, number_format=number_format)
    trace = both(fed_with_spikes(graph, np.full((3, 5, 2, 9, 8), active)))
    assert trace.spikes["p"].all() == active
    assert trace.spikes["p"].any() == active
    fan_out = int(graph.fan_out(graph.projections[0]).sum())
    assert trace.record.events["in->p"].tolist() == [5 * fan_out * active] * 3


def test_one_timestep() -> None:
    kernel = Conv2d(np.full((4, 1, 3, 3), 100), padding=(1, 1), groups=2)
    graph = one_layer(kernel, spike_input(2, 6, 6), pool=SumPool((3, 2), (1, 2)))
    case = fed_with_spikes(graph, np.random.default_rng(1).random((2, 1, 2, 6, 6)) < 0.5)
    assert both(case).spikes["p"].any()
    assert not both(replace_hop(case), "pipelined").spikes["p"].any()


def replace_hop(case: Case) -> Case:
    number_format = replace(GENERIC, hop_delay=1)
    return replace(case, graph=replace(case.graph, number_format=number_format))


def test_nothing_but_padding_is_reached() -> None:
    """Outputs at -2 and 2 of a map of one pixel; and all outputs but one of a larger one."""
    for size, events in ((1, 0), (3, 1)):
        kernel = Conv2d(np.ones((2, 1, 1, 1), int), stride=(4, 4), padding=(2, 2))
        graph = one_layer(kernel, spike_input(1, size, size))
        trace = both(fed_with_spikes(graph, np.ones((1, 1, 1, size, size))))
        assert trace.record.events["in->p"].tolist() == [2 * events]
        assert trace.current["p"].sum() == 2 * events * 64


@pytest.mark.parametrize("shape", [(70_000,), (7, 100, 100)])
def test_large_fan_in(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    weight = rng.integers(-127, 128, (3, 70_000))
    spikes = rng.random((2, 2, *shape)) < 0.3
    graph = one_layer(Dense(weight), spike_input(*shape), lif(threshold=1000))
    trace = both(fed_with_spikes(graph, spikes))
    expected = 64 * np.einsum("on,stn->sto", weight, spikes.reshape(2, 2, -1))
    np.testing.assert_array_equal(trace.current["p"], expected)


@pytest.mark.parametrize("exponent", [8, 9])
def test_weights_and_sums_beyond_16_and_32_bits(exponent: int) -> None:
    """127 * 2**8 still fits in 16 bits, 127 * 2**9 does not; 70000 of either leave 32 bits."""
    number_format = replace(GENERIC, weight_exponent_max=9, fraction_bits=0, membrane_bits=24)
    weight = np.full((2, 70_000), 127)
    graph = one_layer(
        Dense(weight), spike_input(70_000), exponent=exponent, number_format=number_format
    )
    spikes = np.stack([np.ones(70_000), np.arange(70_000) == 3])
    trace = both(fed_with_spikes(graph, spikes[None]))
    expected = [(127 * 70_000 << exponent) - 2**24, 127 << exponent]
    assert trace.current["p"][0, :, 0].tolist() == expected


def test_overlapping_windows_of_the_largest_weights() -> None:
    """A value in several windows meets the sum of their weights, here more than 16 bits."""
    spec = InputSpec(name="in", kind="constant", shape=(1, 3, 3), scale=1.0)
    kernel = Conv2d(np.full((1, 1, 2, 2), 32_767))
    graph = one_layer(kernel, spec, pool=SumPool((2, 2), (1, 1)), number_format=LOIHI2, exponent=-7)
    values = np.zeros((1, 1, 3, 3))
    values[..., 1, 1] = 1
    trace = both(Case(graph, Recording(values={"": values}), steps=1))
    assert trace.record.events["in->p"].tolist() == [1]
    assert trace.spikes["p"].all()  # 4 * 32767 / 2**7 is 1024, the threshold 100


def test_sums_that_float64_cannot_hold() -> None:
    """No format has such weights; the simulators do not rely on it."""
    graph = one_layer(Dense(integers([[2**53, 1]])), spike_input(2))
    case = fed_with_spikes(graph, np.ones((1, 1, 2)))
    reference = case.run("reference")
    assert reference.current["p"].tolist() == [[[(2**53 + 1) * 64 - 2**32]]]
    assert_same(reference, case.run("event"))
