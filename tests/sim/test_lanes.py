"""Neurons in 32 bits against the norm, fed with currents as extreme as may arrive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Integrator, ResetSubtract, ResetTo
from snn_deploy.numerics import Comparator, DecayRule, NumberFormat, OverflowRule
from snn_deploy.sim.lanes import RULES, update_tile
from snn_deploy.sim.neurons import (
    lane_drive,
    lane_parameters,
    lanes_of,
    parameters,
    rules_in_32_bits,
)
from snn_deploy.sim.packing import unpack
from snn_deploy.sim.reference import IntegerArithmetic
from snn_deploy.sim.vectors import LANES
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.nets import lif, population

Array = NDArray[Any]

STEPS, SAMPLES = 5, 2


@st.composite
def formats(draw: st.DrawFn) -> NumberFormat:
    membrane_bits = draw(st.sampled_from((8, 12, 24, 30, 31, 32)))
    words = [bits for bits in (8, 12, 14, 24, 30, 31, 32, 64) if bits >= membrane_bits]
    return replace(
        GENERIC,
        membrane_bits=membrane_bits,
        word_bits=draw(st.sampled_from(words)),
        fraction_bits=draw(st.sampled_from((0, 2, 6))),
        bias_shift=draw(st.sampled_from((0, 3))),
        decay_rule=draw(st.sampled_from(get_args(DecayRule))),
        decay_bits=draw(st.sampled_from((1, 4, 12))),
        current_overflow=draw(st.sampled_from(get_args(OverflowRule))),
        membrane_overflow=draw(st.sampled_from(get_args(OverflowRule))),
        comparator=draw(st.sampled_from(get_args(Comparator))),
    )


def numbers(rng: np.random.Generator, limit: int, shape: tuple[int, ...]) -> Array:
    """Integers up to a magnitude: of every size, and both ends."""
    sizes = np.exp(rng.uniform(0, np.log(limit + 1), shape)).astype(np.int64)
    values = np.clip(sizes, 0, limit) * rng.choice([-1, 1], shape)
    ends = rng.choice([-limit, limit, 0, 1, -1], shape)
    return np.where(rng.random(shape) < 0.2, ends, values)


def stepped(
    form: NumberFormat, neurons: Any, current: Array, host: Array, resets: Array, windows: Array
) -> dict[str, Array]:
    """The norm: [samples, steps, channels] of everything."""
    arithmetic = IntegerArithmetic(form)
    found: dict[str, list[Array]] = {"spikes": [], "membrane": [], "current": [], "changed": []}
    membrane = memory = np.zeros_like(current[:, 0])
    for step in range(STEPS):
        if resets[step]:
            membrane, memory = np.zeros_like(membrane), np.zeros_like(memory)
        arriving = current[:, step] << form.fraction_bits
        if neurons.current_decay is not None:
            arriving = arriving + arithmetic.decay(memory, neurons.current_decay)
        memory = arithmetic.limit_current(arriving)
        bias = arithmetic.bias(neurons.bias + host[:, windows[step]])
        after = arithmetic.limit_membrane(arithmetic.decay(membrane, neurons.decay) + memory + bias)
        fired = np.zeros_like(after)
        if isinstance(neurons, LIF):
            fired = arithmetic.spikes(after, neurons, 1)
            if isinstance(neurons.reset, ResetSubtract):
                after = after - fired * neurons.reset.amount
            else:
                after = np.where(fired > 0, neurons.reset.value, after)
        found["changed"].append((after != membrane) | (fired > 0))
        membrane = after
        found["spikes"].append(fired)
        found["membrane"].append(membrane)
        found["current"].append(memory)
    return {name: np.stack(parts, axis=1) for name, parts in found.items()}


@settings(max_examples=300, deadline=None)
@given(
    form=formats(),
    channels=st.sampled_from((1, 5, 63, 64, 65, 130)),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_lanes_are_the_norm(
    form: NumberFormat, channels: int, data: st.DataObject, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (channels,)
    draw = data.draw
    top = min(form.membrane_limit, (1 << 31) - 1)
    decays = form.decay_limit if form.decay_rule != "shift_subtract" else min(form.decay_limit, 31)
    decay = rng.integers(0, decays + 1, shape)
    decay[rng.random(shape) < 0.2] = decays
    shared: dict[str, Any] = {
        "decay": decay,
        "bias": numbers(rng, draw(st.sampled_from((0, 5, top >> form.bias_shift))), shape),
        "current_decay": rng.integers(0, decays + 1, shape) if draw(st.booleans()) else None,
    }
    neurons: LIF | Integrator
    if draw(st.integers(0, 5)) == 0:
        neurons = Integrator(**shared, readout="sum")
    else:
        amount = draw(st.sampled_from((0, 1, 7, top >> 1, top)))
        reset = draw(
            st.sampled_from((ResetTo(amount), ResetTo(-amount), ResetSubtract(amount or 1)))
        )
        threshold = np.abs(numbers(rng, draw(st.sampled_from((1, 100, top))), shape))
        neurons = LIF(**shared, threshold=threshold, reset=reset)
    largest_sum = draw(st.sampled_from((10, 1 << 12, 1 << 20, (1 << 31) - 1)))
    largest_host = draw(st.sampled_from((0, 0, 100, 1 << 24)))
    windows = np.array([0, 0, 1, 1, 2]) if largest_host else np.zeros(STEPS, np.int64)
    current = numbers(rng, largest_sum, (SAMPLES, STEPS, channels))
    host = numbers(rng, largest_host, (SAMPLES, 3, channels))
    resets = rng.random(STEPS) < draw(st.sampled_from((0.0, 0.4)))

    told = parameters(population("p", channels, neurons=neurons), form)
    rules = rules_in_32_bits(
        form,
        told,
        largest_sum=largest_sum,
        largest_drive=(int(np.abs(neurons.bias).max()) + largest_host) << form.bias_shift,
        steps=STEPS,
    )
    event("64 bits" if rules is None else "32 bits" if form.word_bits > 32 else "32, wrapping")
    if rules is None:
        return
    if not largest_host:
        host = host[:1, :1]
    lanes = lanes_of(channels)
    spans = [(0, STEPS)] if draw(st.booleans()) else [(0, 2), (2, 3), (3, STEPS)]
    one = len(spans) == 1 and draw(st.booleans())
    states = np.full((1 if one else SAMPLES, 2, lanes), 12345, np.int32)
    counts = np.zeros(lanes, np.int32)
    words = np.zeros((SAMPLES, STEPS, 1, lanes // LANES), np.uint64)
    sent = np.zeros((SAMPLES, STEPS, 1, channels), np.uint8)
    traces = np.zeros((2, SAMPLES, STEPS, 1, channels), np.int64)
    sample_spikes, updates = np.zeros((2, SAMPLES), np.int64)
    clears = resets.astype(np.uint8)
    clears[0] = 1
    for first, last in spans:
        sums = np.full((last - first, SAMPLES, 1, lanes), -5, np.int32)
        sums[:, :, 0, :channels] = np.swapaxes(current[:, first:last], 0, 1)
        update_tile(
            sums.reshape(-1), 0, first, SAMPLES, last - first, 0, 1, 1, channels, windows, clears,
            rules, lane_drive(told, host[:, :, None], form.bias_shift), lane_parameters(told),
            states, counts, words, sent, sample_spikes, updates, traces[0], traces[1],
        )  # fmt: skip
    wanted = stepped(form, neurons, current, np.broadcast_to(host, (SAMPLES, *host.shape[1:])),
                     resets, windows)  # fmt: skip
    np.testing.assert_array_equal(traces[1][:, :, 0], wanted["current"])
    np.testing.assert_array_equal(traces[0][:, :, 0], wanted["membrane"])
    np.testing.assert_array_equal(unpack(words, shape), wanted["spikes"] > 0)
    np.testing.assert_array_equal(sent[:, :, 0], wanted["spikes"])
    np.testing.assert_array_equal(counts[:channels], wanted["spikes"].sum(axis=(0, 1)))
    assert sample_spikes.tolist() == wanted["spikes"].sum(axis=(1, 2)).tolist()
    assert updates.tolist() == wanted["changed"].sum(axis=(1, 2)).tolist()


def told(form: NumberFormat, neurons: Any, **more: int) -> dict[str, int] | None:
    facts = {"largest_sum": 1000, "largest_drive": 0, "steps": 4} | more
    rules = rules_in_32_bits(form, parameters(population("p", 3, neurons=neurons), form), **facts)
    return None if rules is None else dict(zip(RULES, rules.tolist(), strict=True))


def test_limits_are_left_out_where_nothing_reaches_them() -> None:
    never = {"current_wrap": 0, "current_turn": 0, "current_clips": 0, "membrane_clips": 0}
    for form in (GENERIC, LOIHI2):
        found = told(form, lif(decay=2048))
        assert found is not None
        assert {name: found[name] for name in never} == never


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_a_membrane_that_keeps_everything_grows_with_the_steps(steps: int) -> None:
    """1000 << 6 arrive at every step."""
    for kept, times in ((4096, steps), (3072, min(steps, 4)), (2048, min(steps, 2)), (0, 1)):
        form = replace(GENERIC, membrane_bits=18)
        assert (told(form, lif(decay=kept), steps=steps) is None) == (64_000 * times > 1 << 17)


def test_wide_words_need_the_bound_and_narrow_ones_do_not() -> None:
    huge = {"largest_sum": (1 << 31) - 1}
    assert told(GENERIC, lif(), **huge) is None
    assert told(LOIHI2, lif(), **huge) is not None
    assert told(replace(LOIHI2, word_bits=33), lif(), **huge) is None
    assert told(replace(LOIHI2, membrane_bits=31), lif(), **huge) is None
    far = lif(reset=ResetSubtract(1 << 24))
    assert told(LOIHI2, far, **huge) is None
