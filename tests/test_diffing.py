"""``diff`` between stages: module, float graph and integer graph; rounding is told from faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy import SnnDeployError, diff, freeze, quantize, simulate
from snn_deploy.graph import LIF, Graph
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording
from snn_deploy.sim.diagnosis import contributions
from snn_deploy.sim.divergence import Comparison
from snn_deploy.sim.ledger import Side, driven, membrane_unit, open_books
from snn_deploy.synapses import Dense
from tests.helpers.brute_force import neurons_of
from tests.helpers.causal import run_of, without_resets
from tests.helpers.deploy import small_net, small_recording
from tests.helpers.faults import with_population, with_projection
from tests.helpers.graphs import GENERIC, SMALL, Case, float_cases
from tests.helpers.nets import lif, one_layer, spike_input
from tests.helpers.refusals import refused
from tests.helpers.spiking import LIF as SPIKING
from tests.helpers.spiking import architecture, linear

Array = NDArray[Any]


# --- float against integer ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant", "spikes"])
@pytest.mark.parametrize("to", ["generic", "loihi2"])
@pytest.mark.parametrize("seed", range(6))
def test_rounding_explains_what_quantization_does(seed: int, to: str, kind: str) -> None:
    """No state of a sound net differs by more than its rounding; what flips is called rounding."""
    net = small_net(seed, kind)
    frozen = freeze(net)
    recording = small_recording(24)
    if kind == "spikes":
        spikes = np.random.default_rng(seed).random((24, 3, 1, 6, 6)) < 0.4
        recording = Recording(spikes={"": spikes.astype(np.uint8)})
    integer = quantize(frozen, to)
    found = diff(frozen, integer, recording, batch=5)
    decisions = (
        simulate(frozen, recording, engine="reference").decisions(),
        simulate(integer, recording).decisions(),
    )
    assert found.decisions_changed == tuple(np.flatnonzero(decisions[0] != decisions[1]))
    assert found.first_state is None
    assert [p.states for p in found.populations] == [0, 0, 0]
    assert not any(p.exact for p in found.populations)
    if found.first_spike is not None:
        assert found.first_spike.cause in ("rounding", "comparator", "decay")


def quantized(graph: Graph) -> Graph | None:
    """For the target ``generic``; None if it does not fit."""
    try:
        return quantize(graph, "generic")
    except SnnDeployError as error:
        if error.code not in ("SD202", "SD203"):
            raise
        return None


@settings(max_examples=40)
@given(case=float_cases(SMALL), factor=st.floats(0.01, 100))
def test_the_bound_holds_on_random_graphs(case: Case, factor: float) -> None:
    """Weights and biases that are no dyadic numbers, all decays, filters, delays and loops."""
    case = without_resets(case)
    scaled = replace(
        case.graph,
        projections=tuple(
            replace(p, synapses=replace(p.synapses, weight=p.synapses.weight * factor))
            for p in case.graph.projections
        ),
    )
    integer = quantized(scaled)
    assume(integer is not None)
    assert integer is not None
    found = diff(scaled, integer, case.recording, steps=case.steps)
    assert found.first_state is None


def of_frozen(fault: str) -> tuple[Graph, Graph, str]:
    """A frozen net, its integer graph with a fault beyond rounding, and the population."""
    net = small_net(3)
    norm: Any = net.layers[1]
    norm.module.bias.data += 0.25
    frozen = freeze(net)
    graph = quantize(frozen, "loihi2")
    planted = {
        "bias": lambda: with_population(graph, "conv1", bias=np.zeros((4, 1, 1), np.int64)),
        "scale": lambda: with_projection(
            graph,
            graph.projections[1],
            synapses=replace(
                graph.projections[1].synapses,
                weight=graph.projections[1].synapses.weight.astype(np.int64) * 4,
            ),
        ),
        "order": lambda: with_projection(
            graph,
            graph.projections[2],
            synapses=Dense(
                graph.projections[2]
                .synapses.weight.reshape(3, 5, 2, 2)
                .transpose(0, 2, 3, 1)
                .reshape(3, 20)
            ),
        ),
    }[fault]()
    return frozen, planted, {"bias": "conv1", "scale": "conv2", "order": "output"}[fault]


@pytest.mark.parametrize("fault", ["bias", "scale", "order"])
def test_a_fault_is_told_from_rounding(fault: str) -> None:
    """Against the float graph, where every sum differs a little."""
    frozen, planted, name = of_frozen(fault)
    recording = small_recording(16)
    found = diff(frozen, planted, recording)
    assert found.first_state is not None
    assert (found.first_state.population, found.first_state.cause) == (name, fault)
    source = {"bias": None, "scale": "conv1", "order": "conv2"}[fault]
    expected = 0
    if source is not None:
        spikes = simulate(frozen, recording, engine="reference", trace=True).spikes[source]
        expected = int(np.flatnonzero(spikes.any(axis=(0, 2, 3, 4)))[0])
    assert found.first_state.timestep == expected
    again = diff(planted, frozen, recording).first_state
    assert again is not None
    assert (again.population, again.timestep, again.cause) == (name, expected, fault)


def test_one_side_on_the_threshold_is_no_tie() -> None:
    """100.4 reaches 100.4; its weight, rounded to 100, stays 26 membrane units below."""
    neurons = LIF(decay=np.array(0.0), threshold=np.array(100.4), bias=np.array(0.0))
    real = one_layer(
        Dense(np.array([[100.4]])), spike_input(1), neurons, number_format=None, scale=None
    )
    integer = one_layer(Dense(np.array([[100]])), spike_input(1), lif(0, 6426))
    first = diff(real, integer, Recording(spikes={"": np.ones((1, 1, 1), np.uint8)})).first
    assert first is not None
    assert (first.quantity, first.cause) == ("spike", "rounding")
    assert (first.a.membrane, first.b.membrane) == (100.4, 100.0)
    assert (first.a.spikes, first.b.spikes) == (1, 0)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.9123])
@pytest.mark.parametrize("off", [0, 1])
def test_a_decay_is_rounded_to_its_nearest_field(kept: float, off: int) -> None:
    """Weights are exact: half a bit of the decay is rounding, a whole one more is a fault."""
    field = round(kept * 4096) + off * (1 if round(kept * 4096) > kept * 4096 else -1)
    never = 1 << 20
    integer = one_layer(
        Dense(np.array([[30_000]])), spike_input(1), lif(field, never * 64), number_format=GENERIC
    )
    neurons = LIF(decay=np.array(kept), threshold=np.array(float(never)), bias=np.array(0.0))
    real = one_layer(
        Dense(np.array([[30_000.0]])), spike_input(1), neurons, number_format=None, scale=None
    )
    spikes = np.zeros((1, 6, 1), np.uint8)
    spikes[0, 1] = 1
    first = diff(real, integer, Recording(spikes={"": spikes})).first
    if off == 0:
        assert first is None
    else:
        assert first is not None
        assert (first.timestep, first.quantity, first.cause) == (2, "membrane", "decay")


@pytest.mark.parametrize("to", ["generic", "loihi2"])
def test_a_clipped_weight_is_shown_in_network_units(to: str) -> None:
    """Of a layer that is fed values, whose mantissas also hold the scale of the input."""
    frozen = freeze(small_net())
    integer = quantize(frozen, to)
    first, real = integer.projections[0], frozen.projections[0].synapses.weight
    weight = first.synapses.weight.astype(np.int64)
    weight[2, 0, 1, 1] -= np.abs(weight).max() // 2
    wrong = with_projection(integer, first, synapses=replace(first.synapses, weight=weight))
    found = diff(frozen, wrong, small_recording(8)).first_state
    assert found is not None
    place = (found.population, found.timestep, found.position[0], found.cause)
    assert place == ("conv1", 0, 2, "weights")
    form, scale, spec = integer.number_format, integer.populations[0].scale, integer.inputs[0]
    assert form is not None
    assert scale is not None
    assert spec.scale is not None
    shift = form.bias_shift - form.fraction_bits if integer.on_host(first) else 0
    unit = scale * 2.0 ** (first.exponent + shift) / spec.scale
    worst = abs(real[2, 0, 1, 1] - weight[2, 0, 1, 1] * unit)
    assert f"the largest by {worst:.6g} at [2, 0, 1, 1]; 1 by more" in found.facts[1]


def test_a_flip_of_rounding_beside_a_fault_has_its_own_cause() -> None:
    """The fault is in one channel; spikes that rounding flips in others do not follow from it."""
    frozen = freeze(small_net(0))
    integer = quantize(frozen, "generic")
    sound = diff(frozen, integer, small_recording(32)).first_spike
    assert sound is not None
    bias = np.zeros((4, 1, 1), np.int64)
    channel = (sound.position[0] + 1) % 4
    bias[channel] = -3 * int(integer.populations[0].neurons.threshold.max())  # never fires
    found = diff(frozen, with_population(integer, "conv1", bias=bias), small_recording(32))
    assert found.first_state is not None
    assert (found.first_state.cause, found.first_state.position[0]) == ("bias", channel)
    assert found.first_spike is not None
    if found.first_spike.position[0] == channel:
        assert found.first_spike.cause is None
    else:
        assert (found.first_spike.position, found.first_spike.cause) == (
            sound.position,
            sound.cause,
        )


@pytest.mark.parametrize("seed", range(4))
def test_contributions_add_up(seed: int) -> None:
    """Of every neuron's difference, at the end of a run on equal spikes."""
    frozen = freeze(small_net(seed))
    integer = quantize(frozen, "loihi2")
    case = Case(frozen, small_recording(3), 3)
    runs = (run_of(case), run_of(case, integer))
    for name in ("conv1", "conv2"):
        p = frozen.population(name)
        sides = []
        for label, run in zip("AB", runs, strict=True):
            own = run.graph.population(name)
            unit = membrane_unit(run.graph, own)
            books = open_books(run.graph, own, run.plan, run.trace, unit)
            sides.append(
                Side(
                    label=label, graph=run.graph, population=own, plan=run.plan, trace=run.trace,
                    books=books, unit=unit,
                )
            )  # fmt: skip
        for neuron in list(neurons_of(p.shape))[::7]:
            at = (1, 2, *neuron)
            parts = contributions(sides[0], sides[1], at)
            apart = sides[1].books.before[at] - sides[0].books.before[at]
            assert sum(parts.values()) == pytest.approx(apart, abs=1e-12)
            assert parts["overflow"] == 0


def test_a_filtered_difference_stays_the_weights() -> None:
    """Doubles, a synaptic filter, and weights a tenth too large: nothing is left for the decay."""
    never = {"threshold": np.array(1e9), "bias": np.array(0.0)}
    neurons = LIF(decay=np.array(0.75), current_decay=np.array(0.5), **never)
    spikes = np.random.default_rng(0).random((1, 6, 4)) < 0.5
    sides = []
    for label, factor in (("A", 1.0), ("B", 1.1)):
        weight = factor * np.array([[0.3, 0.7, -0.2, 0.9]])
        graph = one_layer(Dense(weight), spike_input(4), neurons, number_format=None, scale=None)
        run = run_of(Case(graph, Recording(spikes={"": spikes.astype(np.uint8)}), 6))
        (p,) = graph.populations
        unit = membrane_unit(graph, p)
        books = open_books(graph, p, run.plan, run.trace, unit)
        sides.append(
            Side(label=label, graph=graph, population=p, plan=run.plan, trace=run.trace,
                 books=books, unit=unit)
        )  # fmt: skip
    parts = contributions(sides[0], sides[1], (0, 5, 0))
    apart = sides[1].books.before[0, 5, 0] - sides[0].books.before[0, 5, 0]
    assert apart == pytest.approx(0.1 * sides[0].books.before[0, 5, 0])
    assert parts.pop("weights") == pytest.approx(apart)
    assert max(map(abs, parts.values())) < 1e-12


# --- the module -----------------------------------------------------------------------------------

SLIGHT = 2.0**-30  # lost beside 1/2 in float32, not in float64


def tied() -> SpikingNet:
    """Neuron 1 of the first layer ends SLIGHT below its threshold of 1/2, or on it in float32."""
    layers = [linear(2, bias=False), SPIKING, linear(2, bias=False)]
    net = SpikingNet(architecture(layers, (2,), kind="spikes", timesteps=3)).eval()
    weights = ([[0.25, 0.125], [0.5, -SLIGHT]], [[0.0, 1.0], [0.5, 0.0]])
    for index, weight in zip((0, 2), weights, strict=True):
        layer: Any = net.layers[index]
        layer.module.weight.data = layer.module.weight.data.new_tensor(weight)
    return net


def test_float32_decides_a_tie() -> None:
    spikes = np.zeros((2, 3, 2), np.uint8)
    spikes[1, 1] = 1
    net = tied()
    found = diff(net, freeze(net), Recording(spikes={"": spikes}))
    assert (found.first_state, found.differing, found.populations[0].roots) == (None, 1, 1)
    first = found.first_spike
    assert first is not None
    place = (first.population, first.timestep, first.sample, first.neuron, first.cause)
    assert place == ("linear1", 1, 1, 1, "comparator")
    assert (first.a.spikes, first.b.spikes, first.a.threshold) == (1, 0, 0.5)
    assert first.a.membrane == first.b.membrane == 0.5 - SLIGHT


@pytest.mark.parametrize("kind", ["constant", "spikes"])
def test_the_module_is_its_frozen_graph(kind: str) -> None:
    net = small_net(1, kind)
    recording = small_recording(70)
    if kind == "spikes":
        spikes = np.random.default_rng(0).random((70, 3, 1, 6, 6)) < 0.4
        recording = Recording(spikes={"": spikes.astype(np.uint8)})
    assert diff(net, freeze(net), recording, batch=32).identical


def test_a_spike_that_float32_does_not_explain_is_the_freezes() -> None:
    """A module that fires where its frozen graph is far from the threshold."""
    run = run_of(Case(freeze(small_net()), small_recording(4), 3))
    spikes = {name: s.copy() for name, s in run.trace.spikes.items()}
    name, place = "conv2", (2, 1, 3, 0, 0)
    p = run.graph.population(name)
    books = open_books(run.graph, p, run.plan, run.trace, membrane_unit(run.graph, p))
    assert abs(books.before[place] - 0.5) > 1e-3
    spikes[name][place] ^= True
    bound = {n: np.full(m.shape, 1e-6) for n, m in run.trace.membrane.items()}
    trace = driven(run.graph, run.plan, run.trace, spikes)
    comparison = Comparison(run.graph, run.graph)
    comparison.add(replace(run, trace=trace, bound=bound), run, 0)
    assert comparison.first_state is None
    first = comparison.first_spike
    assert first is not None
    assert (first.population, first.sample, first.timestep, *first.position) == (name, *place)
    assert first.cause == "freeze"


def test_a_threshold_that_differs_is_named() -> None:
    net = small_net(2)
    graph = freeze(net)
    wrong = with_population(graph, "conv1", threshold=np.array(0.9))
    found = diff(net, wrong, small_recording(8))
    first = found.first
    assert first is not None
    assert (first.population, first.timestep, first.quantity) == ("conv1", 0, "spike")
    assert first.cause == "threshold"
    apart = [p.threshold_apart for p in found.populations]
    assert apart == [pytest.approx(0.4), 0.0, 0.0]


def test_another_normalisation_is_the_inputs() -> None:
    graph = quantize(freeze(small_net()), "loihi2")
    (spec,) = graph.inputs
    shifted = replace(graph, inputs=(replace(spec, mean=np.array([1.0])),))
    first = diff(graph, shifted, small_recording(4)).first
    assert first is not None
    assert (first.population, first.timestep, first.cause) == ("conv1", 0, "input")


def test_a_module_runs_all_its_timesteps() -> None:
    net = small_net()
    recording = small_recording(2)
    with refused("SD104", "all its timesteps"):
        diff(net, freeze(net), recording, steps=2)
    assert diff(freeze(net), freeze(net), recording, steps=2).timesteps == 2


def test_as_many_timesteps_on_both_sides() -> None:
    frozen = freeze(small_net())
    with refused("SD108", "one runs 3 timesteps, one 8"):
        diff(frozen, replace(frozen, timesteps=8), small_recording(1))
