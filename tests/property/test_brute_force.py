"""The reference equals a simulator of plain loops over plain numbers, integer and float."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.checks import check_float, check_integer
from snn_deploy.sim.plan import Timing
from tests.helpers.brute_force import Simulation, stages_of
from tests.helpers.graphs import SMALL, Case, float_cases, integer_cases
from tests.helpers.refusals import refused

timings = st.sampled_from(("zero_delay", "pipelined"))


def assert_equals_brute_force(case: Case, timing: Timing) -> None:
    if stages_of(case.graph, timing) is None:
        event("cannot be pipelined")
        with refused("SD207", "a loop"):
            case.run("reference", timing)
        timing = "zero_delay"
    trace = case.run("reference", timing)
    samples = [Simulation(case, timing, sample) for sample in range(trace.record.samples)]
    every = list(product(samples, range(case.steps)))

    def same(expected: list[Any], found: NDArray[Any], what: str) -> None:
        np.testing.assert_array_equal(found, np.reshape(expected, found.shape), what)

    for population in case.graph.populations:
        name = population.name
        same([s.step(name, t).current for s, t in every], trace.current[name], f"current of {name}")
        same([s.step(name, t).membrane for s, t in every], trace.membrane[name], f"{name}")
        updates = [sum(s.changes(name, t) for t in range(case.steps)) for s in samples]
        same(updates, trace.record.updates[name], f"updates of {name}")
        if name in trace.spikes:
            same([s.step(name, t).fired for s, t in every], trace.spikes[name], f"{name} spikes")
    for name in case.graph.outputs:
        same([s.readout(name) for s in samples], trace.output[name], f"readout of {name}")
    for projection in case.graph.projections:
        events = trace.record.events[projection.name]
        same([s.events(projection) for s in samples], events, f"events of {projection.name}")


@settings(max_examples=500)
@given(case=integer_cases((SMALL,)), timing=timings)
def test_integer(case: Case, timing: Timing) -> None:
    check_integer(case.graph)
    assert_equals_brute_force(case, timing)


@settings(max_examples=150)
@given(case=float_cases(), timing=timings)
def test_float(case: Case, timing: Timing) -> None:
    check_float(case.graph)
    assert_equals_brute_force(case, timing)
