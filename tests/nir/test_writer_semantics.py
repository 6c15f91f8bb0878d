"""What others simulate is what we simulate: random graphs of every kind, against a small simulator
of NIR that knows nothing of the writer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from snn_deploy.exporters.nir.encoding import encode
from snn_deploy.exporters.nir.neurons import DialectName
from snn_deploy.exporters.nir.values import rounds

from snn_deploy.checks import check_integer
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.quantization import prove_ranges
from snn_deploy.synapses import Conv2d, Dense, Synapses, with_weights
from tests.helpers.graphs import (
    GENERIC,
    LOIHI2,
    SMALL,
    Case,
    float_cases,
    integer_cases,
)
from tests.helpers.nets import dense, integers, lif, population, spike_input
from tests.helpers.nir_interpreter import Fires, assert_said, nearly_fires
from tests.helpers.refusals import refused

Array = NDArray[Any]


SHIFTING = replace(
    GENERIC, decay_rule="shift_subtract", comparator=">", first_layer="host_bias", bias_shift=3
)


def gentle(population: Population) -> Population:
    """The same neurons with decays that keep all, half or nothing, all of them divisible."""
    neurons = population.neurons

    def rounded(decay: Array) -> Array:
        return np.asarray((decay + 1024) // 2048 * 2048)

    memory = neurons.current_decay
    kept = None if memory is None else rounded(memory)
    changed = replace(neurons, decay=rounded(neurons.decay), current_decay=kept)
    return replace(population, neurons=changed)


def with_bias_neuron(draw: st.DrawFn, graph: Graph) -> Graph:
    """An input that always fires in front of one of the populations, at once or later."""
    population = draw(st.sampled_from(graph.populations))
    seen = (1, *population.shape[1:])
    spec = InputSpec(name="always", kind="spikes", shape=seen, low=1.0)
    numbers = np.arange(1, population.shape[0] + 1)
    synapses: Synapses = Dense(2 * numbers[:, None])
    if len(seen) == 3:
        synapses = Conv2d(2 * numbers[:, None, None, None])
    if graph.number_format is None:
        synapses = with_weights(synapses, synapses.weight / 16)
    added = Projection(
        source="always",
        target=population.name,
        synapses=synapses,
        delay=draw(st.sampled_from((0, 0, 0, 2))),
    )
    return replace(graph, inputs=(*graph.inputs, spec), projections=(added, *graph.projections))


def length(case: Case) -> int:
    """Timesteps of the recording, of the run where every value is constant."""
    held = case.recording.spikes | case.recording.values
    lengths = (
        (held[""] if "" in held else held[spec.name]).shape[1]
        for spec in case.graph.fed
        if spec.kind != "constant"
    )
    return next(lengths, case.steps)


@st.composite
def nets(draw: st.DrawFn) -> Case:
    """Legal graphs of every kind, run once from the beginning; no membrane nearly fires.

    No register of an integer graph can overflow, and the decays of most cut nothing.
    """
    form = draw(st.sampled_from((None, LOIHI2, GENERIC, SHIFTING)))
    if form is None:
        case = draw(float_cases())
    else:
        case = draw(integer_cases((SMALL,), formats=st.just(form)))
        if form.decay_rule != "shift_subtract" and draw(st.integers(0, 3)):
            soft = tuple(map(gentle, case.graph.populations))
            case = replace(case, graph=replace(case.graph, populations=soft))
        wide = tuple(replace(p, sum_bits=None) for p in case.graph.projections)
        steps = length(case)
        graph = replace(case.graph, projections=wide, timesteps=steps)
        case = replace(case, graph=graph, steps=steps)
    if not draw(st.integers(0, 3)):
        case = replace(case, graph=with_bias_neuron(draw, case.graph))
    if form is not None:
        try:
            check_integer(case.graph)
            prove_ranges(case.graph)
        except SnnDeployError:
            assume(False)
    case = replace(case, reset_interval=None, reset_offset=None)
    assume(not nearly_fires(case))
    return case


@pytest.mark.parametrize("fires", [np.greater, np.greater_equal], ids=[">", ">="])
@settings(max_examples=70)
@given(case=nets())
def test_the_tensors_say_what_the_graph_does(case: Case, fires: Fires) -> None:
    if any(rounds(case.graph)):
        event("rounds")
        assume(False)
    event("float" if case.graph.number_format is None else "integer")
    assert_said(case, "portable", fires)


@settings(max_examples=40)
@given(case=nets())
def test_in_the_words_of_sinabs(case: Case) -> None:
    assume(not any(rounds(case.graph)))
    try:
        encode(case.graph, "sinabs")
    except SnnDeployError:
        with refused("SD204", "sinabs cannot say a bias"):
            encode(case.graph, "sinabs")
        assume(False)
    assert_said(case, "sinabs")


@pytest.mark.parametrize("form", [LOIHI2, replace(LOIHI2, bias_shift=3)])
@pytest.mark.parametrize("readout", [False, True])
@pytest.mark.parametrize("dialect", ["portable", "sinabs"])
def test_what_a_host_adds_bypasses_the_synaptic_current(
    dialect: DialectName, readout: bool, form: NumberFormat
) -> None:
    """A constant input of Loihi is a bias; spikes beside it pass the filter of the current."""
    value = InputSpec(name="value", kind="constant", shape=(2,), scale=1.0, high=3.0)
    threshold = 24 if form is LOIHI2 else 10  # a bias mantissa is one weight unit, or an eighth
    neurons: LIF | Integrator = lif(2048, threshold, bias=7, current_decay=integers(2048))
    if readout:
        neurons = Integrator(
            decay=integers(0), bias=integers(7), readout="last", current_decay=integers(2048)
        )
    graph = Graph(
        inputs=(value, spike_input(2, name="spikes")),
        populations=(population("p", 2, neurons=neurons),),
        projections=(dense("value", "p", 2, 2), dense("spikes", "p", 2, 2)),
        outputs=("p",),
        timesteps=4,
        number_format=form,
    )
    even = tuple(replace(p, synapses=Dense(2 * p.synapses.weight)) for p in graph.projections)
    graph = replace(graph, projections=even)
    spikes = np.random.default_rng(0).integers(0, 2, (3, 4, 2), np.uint8)
    values = np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 0.0]])
    case = Case(graph, Recording(spikes={"spikes": spikes}, values={"value": values}), 4)
    assert not list(rounds(graph))
    trace = case.run("reference")
    assert len(np.unique(trace.membrane["p"])) > 5
    assert readout or 0 < trace.spikes["p"].mean() < 1
    assert_said(case, dialect)


def biased(always: Synapses, other: Synapses, source: str = "in", **more: Any) -> Case:
    """A population "p" with a synaptic current, before it an input that always fires, and another.

    ``other`` are the synapses from ``source``; ``more`` is for those of the bias.
    """
    shape = always.target_shape((1,) if isinstance(always, Dense) else (1, 3, 3))
    seen = shape if source == "p" else (2,) if isinstance(always, Dense) else (1, 3, 3)
    first = () if source == "p" else (spike_input(*seen),)
    spec = InputSpec(name="always", kind="spikes", low=1.0, shape=(1, *shape[1:]))
    neurons = lif(2048, threshold=9, current_decay=integers(2048))
    graph = Graph(
        inputs=(*first, spec),
        populations=(population("p", *shape, neurons=neurons),),
        projections=(
            Projection(source="always", target="p", synapses=always, **more),
            Projection(source=source, target="p", synapses=other, delay=int(source == "p")),
        ),
        outputs=("p",),
        timesteps=6,
        number_format=GENERIC,
    )
    drawn = np.random.default_rng(0).integers(0, 2, (2, 6, *seen), np.uint8)
    return Case(graph, Recording(spikes={} if source == "p" else {"": drawn}), 6)


BIAS, WEIGHT = Dense(integers([[3], [-2]])), Dense(integers([[4, -1], [2, 5]]))
ROWS = integers([[[[3]]], [[[-2]]]])
KERNEL = Conv2d(np.arange(18).reshape(2, 1, 3, 3) - 8, padding=(1, 1))


@pytest.mark.parametrize(
    ("case", "is_bias"),
    [
        (biased(BIAS, WEIGHT), True),
        (biased(BIAS, WEIGHT, delay=2), False),
        (biased(BIAS, WEIGHT, delay=integers([[1], [0]])), False),
        (biased(Conv2d(ROWS), KERNEL), True),
        (biased(KERNEL, KERNEL), False),
    ],
    ids=["vector", "later", "some later", "map", "less at the border"],
)
def test_an_input_that_always_fires_is_a_bias(case: Case, is_bias: bool) -> None:
    """Before the synaptic current; where no bias says the same, it is an input of the file."""
    encoded = encode(case.graph)
    assert ("always" not in encoded.nodes) == is_bias
    assert 0 < case.run("reference").spikes["p"].mean() < 1
    assert_said(case)


def test_weights_of_a_loop_hold_no_bias() -> None:
    """Readers disagree whether those add their bias in the first timestep."""
    encoded = encode(biased(BIAS, WEIGHT, source="p").graph)
    assert encoded.nodes["always"] == "input"
    assert not encoded.graph.nodes["p_from_p_synapses"].bias.any()


@pytest.mark.parametrize("padding", range(5))
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_convolution_of_a_vector_meets_one_place(padding: int, dilation: int) -> None:
    """The kernel's place that lies on the only pixel, or none."""
    size = 2 * padding // dilation + 1  # one place for the kernel
    rng = np.random.default_rng(0)
    weight = rng.permutation(2 * 3 * size * size).reshape(2, 3, size, size)
    synapses = Conv2d(weight, padding=(padding,) * 2, dilation=(dilation,) * 2)
    neurons = Integrator(decay=integers(0), bias=integers(0), readout="last")
    graph = Graph(
        inputs=(spike_input(3),),
        populations=(population("p", 2, neurons=neurons),),
        projections=(Projection(source="in", target="p", synapses=synapses),),
        outputs=("p",),
        timesteps=4,
        number_format=GENERIC,
    )
    case = Case(graph, Recording(spikes={"": rng.integers(0, 2, (2, 4, 3), np.uint8)}), 4)
    assert case.run("reference").membrane["p"].any() == (padding % dilation == 0)
    assert_said(case)
