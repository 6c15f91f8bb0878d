"""The bounds by which operators of overflow are left out hold at every timestep."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snn_deploy.exporters.onnx.spans import Span, current_span, membrane_span, sum_span

from snn_deploy.graph import LIF, Integrator, Population, Projection, ResetSubtract, ResetTo
from snn_deploy.numerics import Comparator, DecayRule, decayed, spikes_fired
from snn_deploy.synapses import Dense
from tests.helpers.graphs import GENERIC
from tests.helpers.nets import integers

STEPS = 60


@settings(max_examples=400)
@given(
    rule=st.sampled_from(get_args(DecayRule)),
    comparator=st.sampled_from(get_args(Comparator)),
    fields=st.tuples(st.integers(0, 16), st.integers(0, 16)),
    drive=st.tuples(st.integers(-200, 0), st.integers(0, 200)),
    threshold=st.one_of(st.none(), st.integers(0, 300)),
    reset=st.one_of(
        st.builds(ResetTo, st.integers(-400, 400)), st.builds(ResetSubtract, st.integers(1, 400))
    ),
    most=st.sampled_from((1, 2, 255)),
    ends=st.lists(st.booleans(), min_size=STEPS, max_size=STEPS),
)
def test_states_stay_inside(
    rule: DecayRule,
    comparator: Comparator,
    fields: tuple[int, int],
    drive: tuple[int, int],
    threshold: int | None,
    reset: ResetTo | ResetSubtract,
    most: int,
    ends: list[bool],
) -> None:
    """Driven to either end, one after another or all the time."""
    form = replace(GENERIC, decay_rule=rule, decay_bits=4, comparator=comparator)
    decay, memory = map(integers, fields)
    neurons: LIF | Integrator = Integrator(decay=decay, bias=integers(0), current_decay=memory)
    if threshold is not None:
        neurons = LIF(
            decay=decay, bias=integers(0), current_decay=memory, reset=reset,
            threshold=integers(threshold),
        )  # fmt: skip
    most = most if isinstance(reset, ResetSubtract) else 1
    population = Population(name="p", shape=(1,), neurons=neurons, scale=1.0, max_spikes=most)
    currents = current_span(population, Span(*drive), form)
    for arriving, within in ((memory, currents), (integers(0), Span(*drive))):
        membranes = membrane_span(population, within, form)
        for chosen in (ends, [False] * STEPS, [True] * STEPS):
            current, membrane = integers(0), integers(0)
            for end in chosen:
                current = decayed(current, arriving, rule, 4) + drive[end]
                if arriving is memory:
                    assert within.low <= current <= within.high
                else:
                    current = integers(drive[end])
                membrane = decayed(membrane, decay, rule, 4) + current
                assert membranes.low <= membrane <= membranes.high
                if isinstance(neurons, LIF):
                    amount = getattr(reset, "amount", 1)
                    fired = spikes_fired(membrane, neurons.threshold, amount, most, comparator)
                    left = membrane - fired * amount
                    if isinstance(reset, ResetTo):
                        left = np.where(fired > 0, reset.value, membrane)
                    membrane = left


@pytest.mark.parametrize(("decay", "within"), [(0, 101), (2048, 202), (4095, 101 * 4096)])
def test_the_bounds_are_near(decay: int, within: int) -> None:
    neurons = Integrator(decay=integers(decay), bias=integers(0))
    population = Population(name="p", shape=(1,), neurons=neurons, scale=1.0)
    found = membrane_span(population, Span(-100, 100), GENERIC)
    assert found == Span(-within, within)


def test_a_neuron_that_fires_does_not_rise_for_ever() -> None:
    for reset in (ResetTo(0), ResetSubtract(1000)):
        neurons = LIF(
            decay=integers(4096), threshold=integers(1000), bias=integers(0), reset=reset
        )  # fmt: skip
        population = Population(name="p", shape=(1,), neurons=neurons, scale=1.0)
        found = membrane_span(population, Span(-100, 100), GENERIC)
        assert 1099 <= found.high <= 1101
        assert not found.fits(64)  # it may fall for ever


@given(weight=st.lists(st.integers(-50, 50), min_size=6, max_size=6), data=st.data())
def test_sums_stay_inside(weight: list[int], data: st.DataObject) -> None:
    matrix = integers(weight).reshape(2, 3)
    projection = Projection(source="a", target="b", synapses=Dense(matrix))
    sent = Span(data.draw(st.integers(-9, 0)), data.draw(st.integers(0, 9)))
    found = sum_span(projection, sent)
    for row in matrix:
        assert found.low <= np.where(row > 0, row * sent.low, row * sent.high).sum()
        assert found.high >= np.where(row > 0, row * sent.high, row * sent.low).sum()
