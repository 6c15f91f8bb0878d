"""The range proof: nothing ever leaves it, and inputs exist that get to its edges."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.numerics import Comparator, DecayRule, decayed, rounding_shift_right
from snn_deploy.packets import Recording
from snn_deploy.quantization import Range, prove_ranges
from snn_deploy.quantization.ranges import out_of_range, population_range
from snn_deploy.quantization.reach import Side, reach
from snn_deploy.quantization.sums import Accumulator, accumulator
from snn_deploy.sim import Trace, simulate
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.plan import Timing
from snn_deploy.sim.tables import DelayedSynapses
from snn_deploy.synapses import Conv2d, Dense, SumPool, Synapses, as_map, pooled_shape
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import (
    FOREIGN,
    GENERIC,
    LOIHI2,
    SMALL,
    Case,
    integer_cases,
    integers,
    lif,
    narrow_formats,
    one_layer,
)
from tests.helpers.refusals import refused

Array = NDArray[Any]


def proved(graph: Graph) -> Range:
    return prove_ranges(graph)["p"]


def fed(graph: Graph, values: ArrayLike, **options: Any) -> Trace:
    """Run one sample."""
    array = np.asarray(values)[None]
    recording = Recording(values={"": array})
    if graph.inputs[0].kind == "spikes":
        recording = Recording(spikes={"": array})
    return simulate(graph, recording, engine="reference", trace=True, **options)


# Soundness.


def extreme(case: Case, seed: int) -> Recording:
    """The case's recording, with inputs at their edges: all low, all high, or mixed at random."""
    rng = np.random.default_rng(seed)
    spikes, values = {}, {}
    for name, given_spikes in case.recording.spikes.items():
        spikes[name] = np.concatenate(
            [given_spikes[:1] * 0, given_spikes[:1] * 0 + 1, given_spikes]
        ).astype(np.uint8)
    for name, given_values in case.recording.values.items():
        spec = case.graph.input(name) if name else case.graph.inputs[0]
        chosen = rng.integers(0, 2, given_values.shape)
        chosen = np.concatenate([chosen[:1] * 0, chosen[:1] * 0 + 1, chosen])
        values[name] = np.where(chosen == 1, spec.high, spec.low)
    return Recording(spikes=spikes, values=values)


def check_inside(graph: Graph, name: str, found: Range, trace: Trace, host: Array) -> None:
    """Every current, bias and membrane of a population against its proved range."""
    form = graph.number_format
    assert form is not None
    neurons = graph.population(name).neurons
    after, current = trace.membrane[name], trace.current[name]
    before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
    remaining = decayed(before, neurons.decay.astype(np.int64), form.decay_rule, form.decay_bits)
    bias = host + neurons.bias.astype(np.int64)
    reached = remaining + current + (bias << form.bias_shift)
    for values, (least, most) in (
        (current, found.current),
        (bias, found.host_bias),
        (reached, found.membrane),
    ):
        assert least <= values.min()
        assert values.max() <= most
    largest = max(map(abs, (*found.current, *found.membrane)))
    assert largest < 1 << (found.bits - 1)
    assert found.bits == 1 or largest >= 1 << (found.bits - 2)
    assert found.bits <= form.membrane_bits
    kept = after[trace.spikes[name] == 0] if name in trace.spikes else after
    silent = reached[trace.spikes[name] == 0] if name in trace.spikes else reached
    assert np.array_equal(kept, silent)  # nothing was wrapped or cut off


def host_bias(graph: Graph, name: str, recording: Recording) -> Array:
    """Bias that the host adds, [N, 1, *shape], summed here by plain matrices."""
    total = np.zeros((1, 1, *graph.population(name).shape), np.int64)
    for projection in graph.incoming(name):
        if graph.on_host(projection):
            spec = graph.input(projection.source)
            raw = recording.values.get(spec.name, recording.values.get(""))
            assert raw is not None
            encoded = spec.encode(raw)
            rows = encoded.reshape(len(encoded), -1) @ matrix(graph, projection)
            rounded = rounding_shift_right(rows, -projection.exponent)
            total = total + rounded.reshape(len(encoded), 1, *total.shape[2:])
    return total


def matrix(graph: Graph, projection: Projection) -> Array:
    """Weights as a matrix [sources, targets], by the definition of convolution and pooling."""
    source = graph.shape_of(projection.source)
    seen = pooled_shape(source, projection.pool)
    pooled = np.zeros((int(np.prod(source)), int(np.prod(seen))), np.int64)
    if projection.pool is None:
        pooled = np.eye(len(pooled), dtype=np.int64)
    else:
        (kernel_y, kernel_x), (step_y, step_x) = projection.pool.kernel, projection.pool.stride
        for c, y, x in np.ndindex(*seen):
            for dy, dx in np.ndindex(kernel_y, kernel_x):
                row = np.ravel_multi_index((c, y * step_y + dy, x * step_x + dx), source)
                pooled[row, np.ravel_multi_index((c, y, x), seen)] = 1
    weight = projection.synapses.weight.astype(np.int64)
    synapses = projection.synapses
    if isinstance(synapses, Dense):
        return pooled @ weight.T
    seen, shape = as_map(seen), as_map(graph.shape_of(projection.target))
    connected = np.zeros((int(np.prod(seen)), int(np.prod(shape))), np.int64)
    per_group = weight.shape[0] // synapses.groups
    for out, y, x in np.ndindex(*shape):
        column = np.ravel_multi_index((out, y, x), shape)
        for channel, ky, kx in np.ndindex(*weight.shape[1:]):
            row_y = y * synapses.stride[0] - synapses.padding[0] + ky * synapses.dilation[0]
            row_x = x * synapses.stride[1] - synapses.padding[1] + kx * synapses.dilation[1]
            if 0 <= row_y < seen[1] and 0 <= row_x < seen[2]:
                source_channel = channel + out // per_group * weight.shape[1]
                row = np.ravel_multi_index((source_channel, row_y, row_x), seen)
                connected[row, column] += weight[out, channel, ky, kx]
    return pooled @ connected


@settings(max_examples=250)
@given(
    case=integer_cases(),
    seed=st.integers(0, 2**16),
    timing=st.sampled_from(("zero_delay", "pipelined")),
)
def test_nothing_leaves_its_range(case: Case, seed: int, timing: Timing) -> None:
    graph = replace(case.graph, timesteps=None)
    bounded = replace(graph, timesteps=case.steps)
    form = graph.number_format
    assert form is not None
    recording = extreme(case, seed)
    if stages_of(graph, timing) is None:
        timing = "zero_delay"
    trace = simulate(
        graph, recording, engine="reference", timing=timing, steps=case.steps, trace=True
    )
    for population in graph.populations:
        name = population.name
        found = population_range(bounded, population, bounded.incoming(name), form)
        if out_of_range(found, form) is None:
            event("proved")
            check_inside(graph, name, found, trace, host_bias(graph, name, recording))
        else:
            event("not proved")


@settings(max_examples=250)
@given(
    case=integer_cases((SMALL,), formats=st.one_of(narrow_formats(20), narrow_formats(24))),
    seed=st.integers(0, 2**16),
)
def test_what_is_proved_would_be_the_same_without_registers(case: Case, seed: int) -> None:
    """A graph whose ranges are proved does in 32 bits, without a rule of overflow, what it does."""
    graph = replace(case.graph, timesteps=case.steps)
    form = graph.number_format
    assert form is not None
    try:
        prove_ranges(graph)
    except SnnDeployError as error:
        assert error.code == "SD203"  # noqa: PT017
        event("not proved")
        return
    event(f"proved, {form.membrane_bits} bits")
    wide = replace(
        form,
        membrane_bits=32,
        word_bits=64,
        current_overflow="saturate",
        membrane_overflow="saturate",
    )
    free = tuple(replace(p, sum_bits=None) for p in graph.projections)
    narrow_run, wide_run = (
        simulate(
            replace(made, timesteps=None),
            extreme(case, seed),
            engine="reference",
            steps=case.steps,
            reset_interval=case.reset_interval,
            reset_offset=case.reset_offset,
            trace=True,
        )
        for made in (graph, replace(graph, number_format=wide, projections=free))
    )
    for name, membrane in narrow_run.membrane.items():
        assert np.array_equal(membrane, wide_run.membrane[name])
        assert np.array_equal(narrow_run.current[name], wide_run.current[name])


# Tightness.


@st.composite
def single_projections(draw: st.DrawFn) -> Graph:
    """One population of one timestep, fed directly by an input of any kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    form = draw(st.sampled_from((LOIHI2, GENERIC)))
    kind = draw(st.sampled_from(("spikes", "constant", "graded")))
    host = kind == "constant" and form is LOIHI2
    channels = draw(st.integers(1, 4))
    shape: tuple[int, ...] = (channels,)
    pool = None
    if draw(st.booleans()):
        shape = (channels, draw(st.integers(2, 5)), draw(st.integers(2, 5)))
        if draw(st.booleans()):  # windows may overlap, on one axis or both
            pool = SumPool((2, draw(st.integers(1, 2))), (draw(st.integers(1, 2)), 1))
    seen = pooled_shape(shape, pool)
    step = 1 if host else form.weight_step
    synapses: Synapses = Dense(step * rng.integers(-60, 61, (3, int(np.prod(seen)))))
    if len(seen) == 3 and draw(st.booleans()):
        weight = step * rng.integers(-60, 61, (2 * channels, 1, 2, 2))
        pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
        synapses = Conv2d(weight, draw(pair), (1, draw(st.integers(1, 2))), (1, 1), channels)
    low, high = draw(st.sampled_from(((0.0, 1.0), (-1.0, 0.5), (0.25, 1.0), (-1.0, -0.5))))
    mean = rng.integers(-4, 5, channels) / 8
    spec = InputSpec(name="in", kind="spikes", shape=shape)
    if kind != "spikes":
        spec = InputSpec(
            name="in", kind=kind, shape=shape, low=low, high=high, mean=mean, scale=1 / 61
        )
    return one_layer(
        synapses,
        lif(threshold=100, bias=draw(st.integers(-50, 50))),
        spec=spec,
        form=form,
        pool=pool,
        exponent=-draw(st.integers(0, 3)) if host else 0,
    )


@settings(max_examples=200)
@given(graph=single_projections())
def test_an_input_gets_to_the_edges_of_the_range(graph: Graph) -> None:
    """For every edge, one input is built that reaches it, in currents, biases and membranes."""
    form = graph.number_format
    assert form is not None
    (spec,), (projection,) = graph.inputs, graph.projections
    found = population_range(graph, graph.populations[0], graph.projections, form)
    assume(out_of_range(found, form) is None)  # or a current wraps before it gets there
    weights = matrix(graph, projection)
    low, high = (bound.ravel() for bound in spec.encoded_range())
    # a value that is never 0 still is absent before it arrives, which no input can bring about
    assume(spec.kind != "graded" or (low.max() <= 0 <= high.min()))
    rows_high = np.where(weights > 0, high[:, None], low[:, None])
    rows_low = np.where(weights > 0, low[:, None], high[:, None])
    most = (rows_high * weights).sum(axis=0)
    least = (rows_low * weights).sum(axis=0)
    raw_high, raw_low = (1, 0) if spec.kind == "spikes" else (spec.high, spec.low)
    time = () if spec.kind == "constant" else (1,)

    def reached(column: int, *, up: bool) -> tuple[int, int]:
        """Current and membrane of a neuron whose inputs all push one way."""
        pushes = (weights[:, column] > 0) == up
        values = np.where(pushes, raw_high, raw_low).reshape(*time, *spec.shape)
        trace = fed(graph, values)
        current = trace.current["p"].ravel()[column]
        membrane = trace.membrane["p"].ravel()[column]
        if trace.spikes["p"].ravel()[column]:  # the reset has hidden it
            assert membrane == 0
            membrane = found.membrane[1]
        return int(current), int(membrane)

    top, bottom = int(most.argmax()), int(least.argmin())
    if graph.on_host(projection):
        bias = int(graph.populations[0].neurons.bias)
        edges = tuple(
            int(rounding_shift_right(integers(edge), -projection.exponent)) + bias
            for edge in (least.min(), most.max())
        )
        assert found.host_bias == edges
        assert found.current == (0, 0)
    else:
        # before the first step the current is 0
        edge_low, edge_high = reached(bottom, up=False)[0], reached(top, up=True)[0]
        assert found.current == (min(0, edge_low), max(0, edge_high))
        assert (edge_low, edge_high) == (least.min() * 64, most.max() * 64)
    # before the first step the membrane is 0, so that the range always holds 0
    assert found.membrane[0] == min(0, reached(bottom, up=False)[1])
    assert found.membrane[1] == max(0, reached(top, up=True)[1])


def left(state: int, decay: int, rule: DecayRule) -> int:
    """What is left of a state, in plain Python."""
    if rule == "shift_subtract":
        lost = state >> decay
        return state - (lost or (state > 0) - (state < 0))
    product = state * decay
    return product >> 12 if rule == "multiply_floor" or product > 0 else -(-product >> 12)


@settings(max_examples=150)
@given(
    weights=st.lists(st.integers(-9, 9), min_size=1, max_size=2),
    bias=st.integers(-300, 300),
    rule=st.sampled_from(get_args(DecayRule)),
    decays=st.tuples(*[st.sampled_from((0, 1000, 2048, 4000, 4096))] * 2),
    remembers=st.booleans(),
    steps=st.integers(1, 4),
    threshold=st.integers(0, 700),
    amount=st.one_of(st.none(), st.integers(1, 300)),
    most=st.sampled_from((1, 2, 5)),
    comparator=st.sampled_from((">", ">=")),
    largest=st.sampled_from((1, 1, 2, 3)),
)
def test_every_input_of_a_small_neuron(
    weights: list[int],
    bias: int,
    rule: DecayRule,
    decays: tuple[int, int],
    remembers: bool,
    steps: int,
    threshold: int,
    amount: int | None,
    most: int,
    comparator: Comparator,
    largest: int,
) -> None:
    """All of them, in plain Python: none leaves the range, and its edges are reached."""
    if rule == "shift_subtract":
        decays = (decays[0] // 1000, decays[1] // 1000)
    if amount is None:
        most = 1
    steps = min(steps, 4 if len(weights) == 1 or largest == 1 else 2)
    form = replace(GENERIC, decay_rule=rule, comparator=comparator)
    neurons = lif(
        decays[0],
        threshold,
        bias,
        reset=ResetTo() if amount is None else ResetSubtract(amount),
        current_decay=integers(decays[1]) if remembers else None,
    )
    values = InputSpec(
        name="in", kind="graded", shape=(len(weights),), high=float(largest), scale=1.0
    )
    graph = one_layer([weights], neurons, spec=values, timesteps=steps, form=form)
    (population,) = graph.populations
    graph = replace(graph, populations=(replace(population, max_spikes=most),))
    found = proved(graph)
    membranes, currents = [0], [0]
    for sent in itertools.product(range(largest + 1), repeat=len(weights) * steps):
        membrane = current = 0
        for step in range(steps):
            arriving = sent[step * len(weights) : (step + 1) * len(weights)]
            current = left(current, decays[1], rule) if remembers else 0
            current += 64 * sum(w * s for w, s in zip(weights, arriving, strict=True))
            membrane = left(membrane, decays[0], rule) + current + bias
            currents.append(current)
            membranes.append(membrane)
            for _ in range(most):
                if membrane > threshold or (membrane == threshold and comparator == ">="):
                    membrane = 0 if amount is None else membrane - amount
                    if amount is None:
                        break
    assert found.current == (min(currents), max(currents))
    assert found.membrane[0] <= min(membranes)
    assert max(membranes) <= found.membrane[1]
    ends: dict[Side, int] = {
        "current-": min(currents), "current+": max(currents),
        "membrane-": min(membranes), "membrane+": max(membranes),
    }  # fmt: skip
    for side, end in ends.items():  # so few inputs are searched to the last
        got = reach(graph, "p", side=side)
        assert got.reached == got.bound == end
    # without memory the lowest membrane comes from steady inhibition, which never fires
    if amount is None and not remembers:
        assert found.membrane[0] == min(membranes)


# By hand.


def test_a_falling_membrane_by_hand() -> None:
    """-64 each step, a quarter of it forgotten: -64, -112, -148, -175 (cut toward zero)."""
    for steps, lowest in ((1, -64), (2, -112), (3, -148), (4, -175)):
        assert proved(one_layer([[-1]], lif(decay=3072), timesteps=steps)).membrane == (lowest, 0)
    for steps in (1, 2, 7):
        found = proved(one_layer([[-1]], lif(decay=4096), timesteps=steps))
        assert found.membrane == (-64 * steps, 0)


def test_a_rising_membrane_stops_at_what_does_not_fire() -> None:
    """At most one below the threshold is kept (>=), or the threshold itself (>)."""
    found = proved(one_layer([[1]], lif(decay=4096, threshold=100), timesteps=50))
    assert found.membrane == (0, 99 + 64)
    leaky = proved(one_layer([[1]], lif(decay=2048, threshold=100), timesteps=50))
    assert leaky.membrane == (0, 99 // 2 + 64)
    above = proved(one_layer([[2]], lif(decay=4096, threshold=3), timesteps=50, form=LOIHI2))
    assert above.membrane == (0, 3 * 64 + 2 * 64)


def test_negative_weights_count_against_and_inputs_may_be_negative() -> None:
    found = proved(one_layer([[3, -5, 0]], lif(threshold=10**6)))
    assert (found.current, found.membrane, found.bits) == ((-320, 192), (-320, 192), 10)
    spec = InputSpec(name="in", kind="graded", shape=(1,), low=-2.0, high=1.0, scale=1.0)
    found = proved(one_layer([[-5]], lif(threshold=10**6), spec=spec))
    assert found.current == (-320, 640)


def test_biases_are_in_the_membrane_and_not_in_the_current() -> None:
    found = proved(one_layer([[1]], lif(threshold=10**6, bias=-200)))
    assert (found.current, found.membrane) == ((0, 64), (-200, 0))
    found = proved(one_layer([[2]], lif(threshold=10**5, bias=3), form=LOIHI2))
    assert (found.current, found.membrane, found.host_bias) == ((0, 128), (0, 320), (3, 3))


def test_reset_by_subtraction_may_leave_a_membrane_far_below() -> None:
    reset = ResetSubtract(500)
    found = proved(one_layer([[1]], lif(4096, threshold=10, reset=reset), timesteps=3))
    # 64 fires and leaves -436, +64 does not fire: -372; and 10 may leave -490
    assert found.membrane[0] <= -436
    assert found.membrane[1] == 9 + 64


def test_an_integrator_keeps_all() -> None:
    sink = Integrator(decay=integers(4096), bias=integers(5))
    found = proved(one_layer([[1, -2]], sink, timesteps=10))
    assert found.membrane == (10 * (5 - 128), 10 * (5 + 64))


@pytest.mark.parametrize("timing", ["zero_delay", "pipelined"])
def test_before_a_value_arrives_there_is_none(timing: Timing) -> None:
    """A value that is never 0 is delayed: until it arrives, nothing holds the bias down."""
    spec = InputSpec(name="in", kind="graded", shape=(1,), low=1.0, high=2.0, scale=1.0)
    delay = 1 if timing == "zero_delay" else 0
    form = replace(GENERIC, hop_delay=1)
    neurons = lif(threshold=10**6, bias=1000)
    graph = one_layer([[-5]], neurons, spec=spec, timesteps=3, form=form, delay=delay)
    found = proved(graph)
    trace = fed(graph, np.ones((3, 1)), timing=timing)
    assert trace.current["p"].max() <= found.current[1]
    assert trace.membrane["p"].max() <= found.membrane[1]


def test_a_current_with_memory_by_hand() -> None:
    """64 each step and half of what was: 64, 96, 112; of -64: -64, -96, -112."""
    for steps, reached in ((1, 64), (2, 96), (3, 112)):
        neurons = lif(0, threshold=10**6, current_decay=integers(2048))
        found = proved(one_layer([[1, -1]], neurons, timesteps=steps))
        assert found.current == found.membrane == (-reached, reached)
    # the membrane adds up what the current remembers: 64, 64 + 96, 64 + 96 + 112
    neurons = lif(4096, threshold=10**6, current_decay=integers(2048))
    found = proved(one_layer([[1]], neurons, timesteps=3))
    assert (found.current, found.membrane) == ((0, 112), (0, 272))


def test_a_current_is_not_reset_by_a_spike() -> None:
    """The membrane fires at 64 and is cleared; the current goes on: 64, 128, 192."""
    neurons = lif(4096, threshold=10, current_decay=integers(4096))
    assert proved(one_layer([[1]], neurons, timesteps=3)).membrane == (0, 192 + 9)


def test_several_spikes_by_hand() -> None:
    """64 of them, each of 64, against a threshold of 10: what is left of them depends on how often
    the target may fire in one step."""
    for most, kept in ((1, 54), (3, 34), (5, 14), (6, 9), (200, 9)):
        graph = one_layer([[1]], lif(4096, threshold=10, reset=ResetSubtract(10)), timesteps=2)
        (population,) = graph.populations
        graph = replace(graph, populations=(replace(population, max_spikes=most),))
        assert proved(graph).membrane == (0, kept + 64)


def test_what_fires_several_times_counts_several_times() -> None:
    several = Population(
        name="a",
        shape=(2,),
        neurons=lif(threshold=10, reset=ResetSubtract(10)),
        scale=1.0,
        max_spikes=7,
    )
    graph = one_layer([[3, -1]], spec=InputSpec(name="in", kind="spikes", shape=(2,)))
    weight = Dense(np.eye(2, dtype=int))
    graph = replace(
        graph,
        populations=(several, *graph.populations),
        projections=(
            Projection(source="in", target="a", synapses=weight),
            replace(graph.projections[0], source="a"),
        ),
    )
    assert proved(graph).current == (-7 * 64, 3 * 7 * 64)


@pytest.mark.parametrize(
    ("rule", "lowest"),
    [
        ("multiply_truncate", [-64, -112, -148, -175]),  # 3/4 of -148 is -111
        ("multiply_floor", [-64, -112, -148, -175]),
        ("shift_subtract", [-64, -112, -148, -175]),
    ],
)
def test_every_decay_rule_is_followed(rule: DecayRule, lowest: list[int]) -> None:
    form = replace(GENERIC, decay_rule=rule)
    decay = 2 if rule == "shift_subtract" else 3072
    for steps, least in enumerate(lowest, start=1):
        found = proved(one_layer([[-1]], lif(decay), timesteps=steps, form=form))
        assert found.membrane == (least, 0)


def test_decay_rules_differ_in_the_last_unit() -> None:
    """A bias of -1: three quarters of -1 are 0, -1, or 0; so is what it adds up to."""
    expected = {"multiply_truncate": -1, "multiply_floor": -3, "shift_subtract": -1}
    for rule in get_args(DecayRule):
        form = replace(GENERIC, decay_rule=rule)
        decay = 2 if rule == "shift_subtract" else 3072
        graph = one_layer([[0]], lif(decay, bias=-1), timesteps=3, form=form)
        assert proved(graph).membrane == (expected[rule], 0)


# Without a number of timesteps, and what cannot be proved.


def test_with_a_leak_the_bounds_converge() -> None:
    for decay in (1000, 2048, 4000):
        endless = proved(one_layer([[-1, 2]], lif(decay, threshold=50), timesteps=None))
        long = proved(one_layer([[-1, 2]], lif(decay, threshold=50), timesteps=2000))
        assert endless == long
        short = proved(one_layer([[-1, 2]], lif(decay, threshold=50), timesteps=1))
        assert endless.membrane[0] < short.membrane[0]


def test_without_a_leak_a_membrane_may_fall_for_ever() -> None:
    graph = one_layer([[-200, 2]], lif(4096, threshold=50), timesteps=None, form=LOIHI2)
    with refused("SD203", "membrane(.|\n)*p(.|\n)*lower the weights"):
        prove_ranges(graph)
    # but not a membrane that only rises, for it fires
    rising = one_layer([[2, 2]], lif(4096, threshold=50), timesteps=None, form=LOIHI2)
    assert proved(rising).membrane == (0, 50 * 64 + 4 * 64)
    sink = Integrator(decay=integers(4096), bias=integers(0))
    with refused("SD203", "membrane"):
        prove_ranges(one_layer([[200]], sink, timesteps=None, form=LOIHI2))


@pytest.mark.parametrize("weight", [1, -1])
def test_without_a_leak_a_current_may_grow_for_ever(weight: int) -> None:
    neurons = lif(0, threshold=50, current_decay=integers(4096))
    with refused("SD203", "synaptic current"):
        prove_ranges(one_layer([[weight]], neurons, timesteps=None))


def test_a_current_that_leaks_may_feed_a_membrane_that_does_not() -> None:
    """In balance with the bias in one step, and below it by what the current remembers."""
    neurons = lif(4096, threshold=50, bias=64, current_decay=integers(2048))
    with refused("SD203", "membrane"):
        prove_ranges(
            one_layer([[-1]], neurons, timesteps=None, form=replace(GENERIC, membrane_bits=12))
        )
    found = proved(one_layer([[-1]], replace(neurons, bias=integers(128)), timesteps=None))
    assert found.current == (-127, 0)  # 64 + 63; half of 127, cut toward zero, is 63


def test_a_state_that_loses_a_unit_each_step_is_bounded() -> None:
    """Shifted by more than it has bits it loses one unit: a bias of 1 is lost again."""
    form = replace(GENERIC, decay_rule="shift_subtract")
    sink = Integrator(decay=integers(31), bias=integers(-1))
    assert proved(one_layer([[0]], sink, timesteps=None, form=form)).membrane == (-1, 0)
    with refused("SD203", "membrane"):
        prove_ranges(one_layer([[0]], replace(sink, bias=integers(-2)), timesteps=None, form=form))


def test_what_falls_slowly_falls_for_ever_too() -> None:
    """Too slowly to leave 32 bits in any number of steps that one would try."""
    graph = one_layer([[-1]], lif(4096, threshold=50), timesteps=None)
    with refused("SD203", "membrane"):
        prove_ranges(graph)


UNPROVABLE: dict[str, tuple[Graph, str]] = {
    "current": (one_layer(np.full((1, 600), 254), form=LOIHI2), "current"),
    "current, negative": (one_layer(np.full((1, 600), -254), form=LOIHI2), "current"),
    "membrane": (
        one_layer(np.full((1, 100), -254), lif(4096), form=LOIHI2, timesteps=10), "membrane"
    ),
    "host": (
        one_layer(
            np.full((1, 2), 20),
            spec=InputSpec(name="in", kind="constant", shape=(2,), high=128.0, scale=1.0),
            form=LOIHI2,
        ),
        "bias set by the host",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNPROVABLE)
def test_what_cannot_be_proved_names_population_and_register(name: str) -> None:
    graph, register = UNPROVABLE[name]
    with refused("SD203", rf"{register}(.|\n)*--> p"):
        prove_ranges(graph)


def test_the_last_value_that_fits_is_proved() -> None:
    """Registers of 8 and 24 bits hold +-127 and +-(2^23 - 1)."""
    narrow = replace(LOIHI2, membrane_bits=8)
    assert proved(one_layer([[1]], form=narrow)).current == (0, 64)
    with refused("SD203", "0 to 128(.|\n)*127: neuron 0 may go 1 too far"):
        prove_ranges(one_layer([[2]], form=narrow))
    found = proved(one_layer(np.full((1, 516), 254), form=LOIHI2))
    assert (found.current, found.bits) == ((0, 516 * 254 * 64), 24)
    with refused("SD203", "current"):
        prove_ranges(one_layer(np.full((1, 517), 254), form=LOIHI2))


def test_a_sum_must_stay_in_its_own_register() -> None:
    """8 bits hold -128 to 127."""
    for weight, fits in (([127], True), ([128], False), ([-128], True), ([-129], False)):
        form = replace(GENERIC, weight_min=-200, weight_max=200)
        graph = one_layer([weight], lif(threshold=10**6), form=form, sum_bits=8)
        if fits:
            proved(graph)
        else:
            with refused("SD203", "the synaptic sum of in->p(.|\n)*--> p"):
                prove_ranges(graph)
    both = one_layer([[100, 100]], lif(threshold=10**6), sum_bits=8)
    with refused("SD203", "the synaptic sum of in->p"):
        prove_ranges(both)
    assert proved(replace(both, projections=(replace(both.projections[0], sum_bits=9),)))


def test_a_sum_beyond_64_bits_is_not_proved() -> None:
    """2^16 spikes' worth of values of 2^31 - 1 through weights of 2^31, shifted by 22: modulo 2^64
    the bounds are 0."""
    spec = InputSpec(name="in", kind="graded", shape=(1,), high=2.0**31 - 1, scale=1.0)
    graph = one_layer([[-(1 << 31)]], spec=spec, form=FOREIGN, exponent=16)
    with refused("SD203", "synaptic current"):
        prove_ranges(graph)


def test_the_neuron_is_named_and_how_far_it_goes() -> None:
    """12 bits hold +-2047; 64 units per weight and step."""
    form = replace(GENERIC, membrane_bits=12)
    weight = [[-1], [-10], [-30], [-30]]
    graph = one_layer(weight, lif(4096, 10**4), timesteps=4, form=form)
    with refused(
        "SD203", r"membrane may span -7680 to 0(.|\n)*neuron 2 may go 5633 too far \(3 ne"
    ):
        prove_ranges(graph)
    with refused("SD203", r"current(.|\n)*neuron 1 may go 1 too far \(1 neurons"):
        prove_ranges(one_layer([[3], [32], [-31]], form=form))
    with refused("SD203", "neuron 1 may go without end"):
        prove_ranges(one_layer([[0], [-1]], lif(4096), timesteps=None, form=form))
    host = one_layer(
        [[3], [-20]],
        spec=InputSpec(name="in", kind="constant", shape=(1,), high=128.0, scale=1.0),
        form=LOIHI2,
    )
    limit = LOIHI2.bias_limit
    short = replace(host, number_format=replace(LOIHI2, bias_bits=12))
    with refused("SD203", rf"bias set by the host(.|\n)*neuron 1 may go {20 * 128 - 2047} too far"):
        prove_ranges(short)
    assert proved(host).host_bias == (-20 * 128, 3 * 128)
    assert limit >= 20 * 128


def test_nothing_arrives_before_its_delay() -> None:
    """64 in every step that is late enough: none of 3 steps, one, two, or three."""
    for delay, steps in ((3, 0), (2, 1), (1, 2), (0, 3)):
        graph = one_layer([[-1]], lif(4096, 10**6), timesteps=3, delay=delay)
        assert proved(graph).membrane == (-64 * steps, 0)
    apart = one_layer([[-1, -1]], lif(4096, 10**6), timesteps=3, delay=np.array([[0, 2]]))
    assert proved(apart).membrane == (-64 * 4, 0)
    assert proved(apart).accumulators["in->p"].low == -2  # both may arrive in the third step


def test_what_always_fires_is_never_silent() -> None:
    """A bias of 150 against a threshold of 100: what is kept is the 0 of the reset, not 99."""
    graph = one_layer([[1]], lif(4096, threshold=100, bias=150), timesteps=9)
    assert proved(graph).membrane == (0, 150 + 64)


# Accumulators.


@settings(max_examples=100)
@given(graph=single_projections())
def test_an_accumulator_holds_every_partial_sum(graph: Graph) -> None:
    """Any inputs of any sources, whatever the order: the extremes are sums of one sign."""
    (projection,), (spec,) = graph.projections, graph.inputs
    found = population_accumulator(graph)
    weights = matrix(graph, projection)
    ends = np.stack([bound.ravel() for bound in spec.encoded_range()])
    products = (ends[:, :, None] * weights).astype(np.int64)
    low = np.minimum(products, 0).min(axis=0).sum(axis=0).min()
    high = np.maximum(products, 0).max(axis=0).sum(axis=0).max()
    assert (found.low, found.high) == (low, high)
    half = 1 << (found.bits - 1)
    assert -half <= low
    assert high < half
    if found.bits > 1:
        assert low < -(half >> 1) or high >= half >> 1  # a narrower one does not


def population_accumulator(graph: Graph) -> Accumulator:
    wide = replace(graph, number_format=replace(LOIHI2, membrane_bits=32, bias_bits=32))
    return prove_ranges(wide)["p"].accumulators["in->p"]


@settings(max_examples=150)
@given(case=integer_cases((SMALL,), formats=st.one_of(narrow_formats(20), narrow_formats(24))))
def test_the_event_engine_adds_in_registers_that_are_wide_enough(case: Case) -> None:
    """Its own bound is never below the proof's; where it adds in 32 bits, all partial sums fit."""
    graph = replace(case.graph, timesteps=case.steps)
    engine = EventEngine(graph)
    for population in graph.populations:
        low = high = 0
        for projection in graph.incoming(population.name):
            if graph.is_constant(projection):  # bounded by what it is, in every run
                continue
            found = accumulator(graph, projection)
            table = engine.synapses[projection.name]
            scale = 1 if projection.sum_bits is not None else 1 << projection.exponent
            if graph.is_binary(projection) and not isinstance(table, DelayedSynapses):
                assert scale * max(-found.low, found.high) <= table.largest_sum
            low, high = low + scale * found.low, high + scale * found.high
        largest = engine._largest_sums[population.name]
        event("plain" if largest is None else "vectors")
        if largest is not None:
            assert max(-low, high) <= largest < 1 << 31


def test_ranges_are_proved_of_integer_graphs() -> None:
    with pytest.raises(ValueError, match="integer"):
        prove_ranges(replace(one_layer([[1]]), number_format=None))


def test_what_cannot_be_proved_is_refused_at_once() -> None:
    """No scale bounds a membrane that falls for ever: the search must not try them step by step."""
    began = time.monotonic()
    with refused("SD203", "membrane"):
        proved(one_layer([[-1]], lif(4096, threshold=50), timesteps=None))
    assert time.monotonic() - began < 1
