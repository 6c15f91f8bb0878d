"""Every convention against an enumeration of every synapse of random small networks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from snn_deploy.counting import Convention, FirstLayer, conventions, count
from snn_deploy.counting.fans import FanOutRule, ZeroWeights
from snn_deploy.synapses import with_weights
from tests.counting.enumeration import Enumeration
from tests.counting.expected_terms import expected_terms
from tests.helpers.graphs import SMALL, Case, float_cases, integer_cases

SWITCHES = st.builds(
    dict,
    fanout=st.sampled_from(get_args(FanOutRule)),
    first_layer=st.sampled_from(get_args(FirstLayer)),
    values=st.sampled_from(("mac", "mac", "none")),
    zero_weights=st.sampled_from(get_args(ZeroWeights)),
    zero_values=st.sampled_from(("counted", "free")),
    count_residual=st.booleans(),
    ann_activation_sparsity=st.booleans(),
)


def with_zeros(case: Case, seed: int) -> Case:
    """The same case with a third of its weights zero."""
    rng = np.random.default_rng(seed)
    projections = []
    for projection in case.graph.projections:
        weight = projection.synapses.weight
        weight = np.where(rng.random(weight.shape) < 1 / 3, 0, weight).astype(weight.dtype)
        projections.append(replace(projection, synapses=with_weights(projection.synapses, weight)))
    return replace(case, graph=replace(case.graph, projections=tuple(projections)))


CASES = st.one_of(
    integer_cases((SMALL,)), integer_cases((SMALL,), delays=False), float_cases(SMALL)
)


def same(found: float, expected: Any) -> None:
    exact = Fraction(expected)
    assert found == (exact.numerator if exact.denominator == 1 else float(exact))
    assert type(found) is (int if exact.denominator == 1 else float)


@settings(max_examples=150)
@given(CASES, SWITCHES, st.integers(0, 9))
def test_synaptic_operations(case: Case, switches: dict[str, Any], seed: int) -> None:
    if switches["fanout"] == "ceiling":
        switches["zero_weights"] = "counted"
    drawn = Convention(name="drawn", source="a test", **switches)
    case = with_zeros(case, seed)
    trace = case.run("reference")
    enumerated = Enumeration(case, trace)
    for convention in (drawn, *(factory() for factory in conventions().values())):
        counted = count(case.graph, trace.record, convention)
        for projection, found in zip(case.graph.projections, counted.projections, strict=True):
            same(found.accumulates, enumerated.accumulates(projection, convention))
            same(found.multiply_accumulates, enumerated.products(projection, convention))
            same(found.twin, enumerated.twin(projection, convention))
    event(f"shortcut: {any(enumerated.is_shortcut(p) for p in case.graph.projections)}")
    event(f"recurrent: {any(p.source == p.target for p in case.graph.projections)}")


TERM_SWITCHES = st.builds(
    dict,
    first_layer=st.sampled_from(get_args(FirstLayer)),
    values=st.sampled_from(("mac", "mac", "none")),
    count_bias=st.sampled_from(("no", "per_timestep", "rate")),
    count_pool=st.sampled_from(("no", "inputs")),
    count_neuron=st.sampled_from(("no", "add", "leak")),
    count_reset=st.booleans(),
    memory=st.sampled_from(("none", "per_update", "per_event", "lemaire2022")),
    ann_adds=st.booleans(),
)


@settings(max_examples=150)
@given(CASES, TERM_SWITCHES)
def test_terms(case: Case, switches: dict[str, Any]) -> None:
    drawn = Convention(name="drawn", source="a test", **switches)
    trace = case.run("reference")
    enumerated = Enumeration(case, trace)
    for convention in (drawn, *(factory() for factory in conventions().values())):
        counted = count(case.graph, trace.record, convention)
        expected = expected_terms(enumerated, trace, convention)
        found: Counter[Any] = Counter()
        for term in counted.terms:
            found[term.name, term.population, term.operation, term.twin] += term.count
        assert found.keys() == expected.keys()
        for key, number in found.items():
            same(number, expected[key])
