"""The dense engine equals the reference in every bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Integrator
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Dense
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import Case, integer_cases
from tests.helpers.nets import integers, one_layer, spike_input
from tests.helpers.refusals import refused
from tests.property.test_engines import assert_same

TIMINGS: tuple[Timing, ...] = ("zero_delay", "pipelined")


@settings(max_examples=120)
@given(case=integer_cases(), batch=st.sampled_from((None, 1, 2)))
def test_equal_to_the_reference(case: Case, batch: int | None) -> None:
    for timing in TIMINGS:
        if stages_of(case.graph, timing) is None:
            with refused("SD207", "a loop"):
                case.run("dense", timing)
            continue
        trace = case.run("reference", timing)
        assert_same(trace, case.run("dense", timing))
        quiet = case.run("dense", timing, batch=batch, trace=False)
        assert quiet.record.difference(trace.record) == 0
        for name, output in quiet.output.items():
            np.testing.assert_array_equal(output, trace.output[name])


@pytest.mark.parametrize("fan_in", [1 << 10, 66_100, 1 << 18])
def test_sums_beyond_float32(fan_in: int) -> None:
    """One more than 24 bits hold: float32 would lose the last."""
    weight = np.full((2, fan_in), 254)
    weight[1, ::2] = -256
    weight[:, -1] = 2
    graph = one_layer(
        Dense(integers(weight)),
        spike_input(fan_in),
        Integrator(decay=integers(0), bias=integers(0), readout="sum"),
    )
    spikes = np.ones((1, 2, fan_in), np.uint8)
    spikes[0, 1, ::3] = 0
    fed = Recording(spikes={"": spikes})
    one, other = (simulate(graph, fed, engine=e, trace=True) for e in ("reference", "dense"))
    assert_same(one, other)
