"""The range proof: nothing ever leaves it, and inputs exist that get to its edges."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    ResetSubtract,
)
from snn_deploy.hardware import target
from snn_deploy.numerics import NumberFormat, multiply_truncate, rounding_shift_right
from snn_deploy.packets import Recording
from snn_deploy.quantization import Range, prove_ranges
from snn_deploy.quantization.ranges import out_of_range, population_range
from snn_deploy.sim import Trace, simulate
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, Dense, SumPool, Synapses, pooled_shape
from tests.helpers.graphs import Case, integer_cases
from tests.helpers.refusals import refused

Array = NDArray[Any]

LOIHI2 = target("loihi2").require_format()
GENERIC = target("generic").require_format()


def integers(value: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(value, np.int64)


def lif(decay: int = 0, threshold: ArrayLike = 10, bias: ArrayLike = 0, **options: Any) -> LIF:
    return LIF(decay=integers(decay), threshold=integers(threshold), bias=integers(bias), **options)


def one_layer(
    synapses: Synapses | ArrayLike,
    neurons: LIF | Integrator | None = None,
    *,
    spec: InputSpec | None = None,
    timesteps: int | None = 1,
    form: NumberFormat = GENERIC,
    **projection: Any,
) -> Graph:
    """An integer graph: an input, synapses, and neurons "p"."""
    if not isinstance(synapses, Dense | Conv2d):
        synapses = Dense(integers(synapses))
    if spec is None:
        spec = InputSpec(name="in", kind="spikes", shape=synapses.weight.shape[1:2])
    shape = synapses.target_shape(pooled_shape(spec.shape, projection.get("pool")))
    return Graph(
        inputs=(spec,),
        populations=(Population(name="p", shape=shape, neurons=neurons or lif(), scale=1.0),),
        projections=(Projection(source=spec.name, target="p", synapses=synapses, **projection),),
        outputs=("p",),
        timesteps=timesteps,
        number_format=form,
    )


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
    decayed = multiply_truncate(before, neurons.decay.astype(np.int64), form.decay_bits)
    bias = host + neurons.bias.astype(np.int64)
    reached = decayed + current + (bias << form.bias_shift)
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
    kept = after[~trace.spikes[name]] if name in trace.spikes else after
    silent = reached[~trace.spikes[name]] if name in trace.spikes else reached
    assert np.array_equal(kept, silent)  # nothing was wrapped or cut off


def host_bias(graph: Graph, name: str, recording: Recording, trace: Trace) -> Array:
    """Bias that the host adds, [N, 1 or T, *shape], summed here by plain matrices."""
    total = np.zeros((1, 1, *graph.population(name).shape), np.int64)
    for projection in graph.incoming(name):
        if graph.on_host(projection):
            spec = graph.input(projection.source)
            raw = recording.values.get(spec.name, recording.values.get(""))
            assert raw is not None
            encoded = spec.encode(raw)
            lead = encoded.ndim - len(spec.shape)
            rows = encoded.reshape(-1, int(np.prod(spec.shape))) @ matrix(graph, projection)
            rounded = rounding_shift_right(rows, -projection.exponent)
            rounded = rounded.reshape(*encoded.shape[:lead], *total.shape[2:])
            rounded = rounded[:, None] if lead == 1 else rounded
            if lead == 2:  # silent where the recording has ended
                steps = trace.membrane[name].shape[1]
                rounded = rounded[:, :steps]
                missing = ((0, 0), (0, steps - rounded.shape[1]))
                rounded = np.pad(rounded, (*missing, *([(0, 0)] * (rounded.ndim - 2))))
            total = total + rounded
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
    shape = graph.shape_of(projection.target)
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
    trace = simulate(
        graph, recording, engine="reference", timing=timing, steps=case.steps, trace=True
    )
    for population in graph.populations:
        name = population.name
        found = population_range(bounded, population, bounded.incoming(name), form)
        if out_of_range(found, form) is None:
            event("proved")
            check_inside(graph, name, found, trace, host_bias(graph, name, recording, trace))
        else:
            event("not proved")


# Tightness.


@st.composite
def single_projections(draw: st.DrawFn) -> Graph:
    """One population of one timestep, fed directly by an input of any kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    form = draw(st.sampled_from((LOIHI2, GENERIC)))
    kinds = ("spikes", "constant") if form is LOIHI2 else ("spikes", "constant", "graded")
    kind = draw(st.sampled_from(kinds))
    channels = draw(st.integers(1, 4))
    shape: tuple[int, ...] = (channels,)
    pool = None
    if draw(st.booleans()):
        shape = (channels, draw(st.integers(2, 5)), draw(st.integers(2, 5)))
        if draw(st.booleans()):  # windows that overlap are bounded too, but not tightly
            pool = SumPool((2, draw(st.integers(1, 2))), (2, 2))
    seen = pooled_shape(shape, pool)
    step = 1 if kind != "spikes" else form.weight_step
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
    host = kind != "spikes" and form is LOIHI2
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
        assert found.current == (reached(bottom, up=False)[0], reached(top, up=True)[0])
        assert found.current == (least.min() * 64, most.max() * 64)
    # before the first step the membrane is 0, so that the range always holds 0
    assert found.membrane[0] == min(0, reached(bottom, up=False)[1])
    assert found.membrane[1] == max(0, reached(top, up=True)[1])


@settings(max_examples=60)
@given(
    weights=st.lists(st.integers(-9, 9), min_size=1, max_size=2),
    bias=st.integers(-300, 300),
    decay=st.sampled_from((0, 1000, 2048, 4000, 4096)),
    steps=st.integers(1, 4),
    threshold=st.integers(0, 700),
    soft=st.booleans(),
)
def test_every_input_of_a_small_neuron(
    weights: list[int], bias: int, decay: int, steps: int, threshold: int, soft: bool
) -> None:
    """All of them, in plain Python: none leaves the range, and the lowest membrane is reached."""
    options = {"reset": ResetSubtract(threshold)} if soft else {}
    graph = one_layer([weights], lif(decay, threshold, bias, **options), timesteps=steps)
    found = proved(graph)
    membranes, currents = [0], []
    for spikes in itertools.product((0, 1), repeat=len(weights) * steps):
        membrane = 0
        for step in range(steps):
            arriving = spikes[step * len(weights) : (step + 1) * len(weights)]
            current = 64 * sum(w * s for w, s in zip(weights, arriving, strict=True))
            kept = abs(membrane) * decay >> 12
            membrane = (kept if membrane > 0 else -kept) + current + bias
            currents.append(current)
            membranes.append(membrane)
            if membrane >= threshold:
                membrane = membrane - threshold if soft else 0
    assert found.current == (min(currents), max(currents))
    assert found.membrane[0] <= min(membranes)
    assert max(membranes) <= found.membrane[1]
    if not soft:  # the lowest membrane comes from steady inhibition, which never fires
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
    with refused("SD203", "0 to 128(.|\n)*127"):
        prove_ranges(one_layer([[2]], form=narrow))
    found = proved(one_layer(np.full((1, 516), 254), form=LOIHI2))
    assert (found.current, found.bits) == ((0, 516 * 254 * 64), 24)
    with refused("SD203", "current"):
        prove_ranges(one_layer(np.full((1, 517), 254), form=LOIHI2))


def test_ranges_are_proved_of_integer_graphs() -> None:
    with pytest.raises(ValueError, match="integer"):
        prove_ranges(replace(one_layer([[1]]), number_format=None))


def test_what_cannot_be_proved_is_refused_at_once() -> None:
    """No scale bounds a membrane that falls for ever: the search must not try them step by step."""
    began = time.monotonic()
    with refused("SD203", "membrane"):
        proved(one_layer([[-1]], lif(4096, threshold=50), timesteps=None))
    assert time.monotonic() - began < 1
