"""The reference equals a simulator of plain loops over plain numbers, integer and float."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.checks import check_float, check_integer
from snn_deploy.sim.plan import Timing
from tests.helpers.brute_force import assert_equals_brute_force
from tests.helpers.graphs import SMALL, Case, float_cases, integer_cases

timings = st.sampled_from(("zero_delay", "pipelined"))


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
