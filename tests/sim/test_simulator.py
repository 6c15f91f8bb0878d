"""Which engine runs, with what; and one simulator for many recordings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy import simulate
from snn_deploy.sim import Simulator
from snn_deploy.synapses import Dense
from tests.helpers.graphs import Case, float_cases, integer_cases
from tests.helpers.nets import fed_with_spikes, one_layer, spike_input
from tests.helpers.refusals import refused
from tests.property.test_engines import assert_same


def layer(**more: Any) -> Case:
    spikes = np.random.default_rng(0).random((4, 6, 5)) < 0.5
    return fed_with_spikes(one_layer(Dense(np.full((2, 5), 3)), spike_input(5), **more), spikes)


@settings(max_examples=20)
@given(case=st.one_of(integer_cases(), float_cases()))
def test_auto_is_the_engine_of_the_numbers(case: Case) -> None:
    made = Simulator(case.graph)
    integer = case.graph.number_format is not None
    assert made.engine == ("event" if integer else "reference")
    assert ("integer network" if integer else "floats") in made.engine_reason
    named = Simulator(case.graph, made.engine)
    assert (named.engine, named.engine_reason) == (made.engine, "asked for")
    assert_same(
        made.run(case.recording, steps=case.steps), named.run(case.recording, steps=case.steps)
    )


@settings(max_examples=40)
@given(case=integer_cases(), threads=st.integers(1, 3), batch=st.integers(1, 3))
def test_threads_and_batches_change_nothing(case: Case, threads: int, batch: int) -> None:
    wanted = case.run("reference")
    given: dict[str, Any] = {
        "steps": case.steps,
        "reset_interval": case.reset_interval,
        "reset_offset": case.reset_offset,
        "trace": True,
    }
    made = Simulator(case.graph, "event", threads)
    for _ in range(2):  # what a run leaves behind does not reach the next
        assert_same(made.run(case.recording, batch=batch, **given), wanted)
    assert_same(simulate(case.graph, case.recording, threads=threads, **given), wanted)


def test_what_cannot_run() -> None:
    case, floats = layer(), layer(number_format=None, scale=None)
    with refused("SD105", "no engine 'spam'"):
        Simulator(case.graph, "spam")  # type: ignore[arg-type]
    for engine in ("event", "dense"):
        with refused("SD105", "integer networks only"):
            Simulator(floats.graph, engine)  # type: ignore[arg-type]
    with refused("SD104", "threads"):
        Simulator(case.graph, threads=0)
    for wrong in ({"batch": 0}, {"steps": 0}, {"reset_interval": 0}, {"reset_offset": 1}):
        with refused("SD104"):
            simulate(case.graph, case.recording, **wrong)  # type: ignore[arg-type]


COMPILE = """
import numba
from snn_deploy.sim.compiling import compilation

@numba.njit
def inner(x):
    return x + 1

@numba.njit
def outer(x):
    return inner(x) * 2

told = []
for argument in (1, 1, 1.0):
    with compilation(lambda: told.append("begun"), told.append):
        assert outer(argument) == 4
    told.append(None)
begun, seconds, again, silent, *rest = told
assert (begun, again, silent, rest[0], rest[2]) == ("begun", None, None, "begun", None), told
assert 0 < seconds < 60 and 0 < rest[1] < 60, told
"""


def test_compilation_is_told_once() -> None:
    """Of kernels for new types only, those that others call included."""
    subprocess.run([sys.executable, "-c", COMPILE], check=True, timeout=120)


def test_the_reference_loads_no_compiler() -> None:
    code = (
        "import sys\n"
        "from tests.sim.test_simulator import layer\n"
        "from snn_deploy.sim.compiling import compilation\n"
        "case = layer()\n"
        "from snn_deploy import simulate\n"
        "with compilation(lambda: sys.exit(1), print):\n"
        "    simulate(case.graph, case.recording, engine='reference')\n"
        "sys.exit('numba' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("engine", ["event", "reference"])
def test_traces_are_kept_only_where_asked_for(engine: Any) -> None:
    case = layer()
    quiet = simulate(case.graph, case.recording, engine=engine, batch=1)
    assert (quiet.spikes, quiet.membrane, quiet.current) == ({}, {}, {})
    loud = simulate(case.graph, case.recording, engine=engine, batch=1, trace=True)
    assert loud.spikes["p"].shape == (4, 6, 2)
