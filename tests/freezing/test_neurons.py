"""Frozen neurons against the papers' equations as written, over thousands of timesteps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze, prove_freeze
from snn_deploy.graph import LIF, Graph, ResetSubtract, ResetTo
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import CLIF, postsynaptic_scale
from snn_deploy.packets import Recording
from snn_deploy.quantization import quantize
from snn_deploy.sim import simulate
from snn_deploy.synapses import Dense, with_weights
from tests.helpers.spiking import (
    FLATTEN,
    architecture,
    architectures,
    avgpool,
    conv,
    linear,
    random_input,
    residual,
    settled,
)
from tests.helpers.spiking import LIF as LIF_LAYER

Array = NDArray[Any]
STEPS = 10_000
MEMBRANE, SYNAPSE, THRESHOLD = np.exp(-1 / 20), np.exp(-1 / 5), 0.5


def clif_net(timesteps: int) -> SpikingNet:
    """3 inputs, 4 C-LIF neurons with weights of both signs."""
    described = architecture(
        [linear(4, bias=False), {"type": "clif"}, linear(2)],
        (3,),
        kind="spikes",
        timesteps=timesteps,
        threshold=THRESHOLD,
        decay=float(MEMBRANE),
        lif={"current_decay": float(SYNAPSE)},
    )
    torch.manual_seed(3)
    net = SpikingNet(described).eval()
    weight: Any = net.layers[0].get_submodule("module").weight
    with torch.no_grad():
        weight.copy_(torch.tensor(np.random.default_rng(3).uniform(-0.5, 1.0, (4, 3))))
    return net


def equation_27(arriving: Array, printed: bool = False) -> tuple[Array, Array]:
    """Spikes and membranes [T, N] of weighted inputs [T, N]: the three states as written.

    c = u0 W s; v = b_v v + c; m = b_m m + c; e[t] = b_m e[t-1] + theta s[t-1]; u = m - v - e.
    The paper prints m[t-1] in the place of e[t-1].
    """
    u0 = postsynaptic_scale(float(MEMBRANE), float(SYNAPSE))
    v, m, e, fired = (np.zeros(arriving.shape[1]) for _ in range(4))
    spikes, membranes = [], []
    for step in arriving:
        c = u0 * step
        e = MEMBRANE * (m if printed else e) + THRESHOLD * fired
        v = SYNAPSE * v + c
        m = MEMBRANE * m + c
        u = m - v - e
        fired = (u >= THRESHOLD).astype(float)
        spikes.append(fired)
        membranes.append(u)
    return np.array(spikes), np.array(membranes)


def test_c_lif_in_the_graph_is_equation_27_for_ten_thousand_steps() -> None:
    net = clif_net(STEPS)
    graph = freeze(net)
    neurons = graph.population("linear1").neurons
    assert isinstance(neurons, LIF)
    assert isinstance(neurons.reset, ResetSubtract)
    assert neurons.reset.amount == pytest.approx(THRESHOLD / MEMBRANE)
    assert graph.incoming("linear1")[0].delay == 1

    spikes = (np.random.default_rng(0).random((1, STEPS, 3)) < 0.08).astype(np.uint8)
    weight: Any = net.layers[0].get_submodule("module").weight
    arriving = spikes[0].astype(float) @ weight.detach().double().numpy().T
    expected, membranes = equation_27(arriving)
    trace = simulate(graph, Recording(spikes={"": spikes}), engine="reference", trace=True)
    assert 300 < expected.sum() < 0.3 * expected.size
    assert np.array_equal(trace.spikes["linear1"][0], expected != 0)
    # after the step, d' = u - theta / b_m * s is what the graph keeps
    kept = membranes - expected * THRESHOLD / MEMBRANE
    assert np.abs(trace.membrane["linear1"][0] - kept).max() < 1e-9
    assert np.abs(np.abs(membranes) - THRESHOLD).min() > 1e-9  # no tie hides anything

    proof = prove_freeze(clif_net(500), Recording(spikes={"": spikes[:, :500]}))
    assert proof.holds


def test_c_lif_as_printed_never_fires() -> None:
    arriving = np.random.default_rng(1).uniform(0, 5, (2000, 4))
    spikes, membranes = equation_27(arriving, printed=True)
    assert spikes.sum() == 0
    assert membranes.max() <= 0
    assert equation_27(arriving)[0].sum() > 1000


def test_the_scale_makes_a_single_potential_peak_at_one() -> None:
    scale = postsynaptic_scale(float(MEMBRANE), float(SYNAPSE))
    n = np.arange(1, 200)
    assert scale * (MEMBRANE**n - SYNAPSE**n).max() == pytest.approx(1.0)
    assert scale == pytest.approx(2.1172, abs=5e-5)


def recurrent_net(reset: str = "zero") -> SpikingNet:
    """Eq. 28: synaptic currents with recurrent weights."""
    described = architecture(
        [linear(6, bias=False), {"type": "lif", "recurrent": True}, linear(3, bias=False)],
        (5,),
        kind="spikes",
        timesteps=400,
        threshold=0.7,
        decay=0.9,
        lif={"current_decay": 0.75, "reset": reset, "learn_decay": "neuron"},
    )
    return settled(described, 1)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_recurrent_layer_in_the_graph_is_equation_28(reset: str) -> None:
    net = recurrent_net(reset)
    graph = freeze(net)
    assert [(p.name, p.delay) for p in graph.incoming("linear1")] == [
        ("input->linear1", 0),
        ("linear1->linear1", 1),
    ]
    spikes = (np.random.default_rng(2).random((2, 400, 5)) < 0.3).astype(np.uint8)
    trace = simulate(graph, Recording(spikes={"": spikes}), engine="reference", trace=True)
    state = {k: v.double().numpy() for k, v in net.state_dict().items()}
    w, v = state["layers.0.module.weight"], state["layers.1.recurrent.weight"]
    decay = 1 / (1 + np.exp(-state["layers.1.decay_logit"]))
    c, u, fired = (np.zeros((2, 6)) for _ in range(3))
    for t in range(400):
        c = 0.75 * c + spikes[:, t] @ w.T + fired @ v.T
        u = decay * u + c
        fired = (u >= 0.7).astype(float)
        assert np.array_equal(trace.spikes["linear1"][:, t], fired != 0), t
        u = u - 0.7 * fired if reset == "subtract" else u * (1 - fired)
    assert 0.02 < trace.spikes["linear1"].mean() < 0.9


def test_a_bias_passes_the_filter() -> None:
    """As a neuron that fires at every timestep, a step late as all input of a C-LIF."""
    net = clif_net(3)
    module: Any = net.layers[0]
    module.module.bias = torch.nn.Parameter(torch.arange(4.0))
    graph = freeze(net)
    assert [(spec.name, spec.low) for spec in graph.inputs] == [("input", 0), ("always_on", 1)]
    (of_bias,) = (p for p in graph.projections if p.source == "always_on")
    assert of_bias.delay == 1
    weights = of_bias.synapses.weight[:, 0]
    np.testing.assert_allclose(weights / weights[1], np.arange(4.0))
    assert not graph.population(of_bias.target).neurons.bias.any()
    assert isinstance(net.layers[1], CLIF)


def test_a_c_lif_takes_no_constant_input() -> None:
    """A constant input has no delay in any engine; behind other neurons there are spikes."""
    clif, tail = {"type": "clif"}, [linear(2)]
    first = [linear(4, bias=False), LIF_LAYER, linear(4, bias=False), clif, *tail]
    graph = freeze(settled(architecture(first, (3,), lif={"current_decay": 0.25})))
    assert [p.delay for p in graph.projections] == [0, 1, 0]
    alone = settled(architecture([linear(4, bias=False), LIF_LAYER, *tail], (3,)))
    alone.layers[1] = CLIF(0.5, 0.5, 0.25, alone.layers[1].spike)
    with pytest.raises(SnnDeployError, match="constant input") as caught:
        freeze(alone)
    assert (caught.value.code, caught.value.where) == ("SD205", "layers.1")


def test_the_number_of_timesteps_is_the_modules_own() -> None:
    net = settled(architecture([linear(4), LIF_LAYER, linear(2)], (3,), timesteps=6))
    net.timesteps = 2
    recording = random_input(net.architecture, np.random.default_rng(0), 5)
    assert freeze(net).timesteps == 2
    proof = prove_freeze(net, recording)
    assert (proof.holds, proof.slots) == (True, 5 * 2 * 4)


def test_a_learned_threshold_is_also_what_is_subtracted() -> None:
    lif = {"reset": "subtract", "learn_threshold": True, "learn_decay": "channel"}
    net = settled(architecture([conv(2), LIF_LAYER, FLATTEN, linear(2)], lif=lif), 1)
    learned: Any = net.layers[1]
    neurons = freeze(net).population("conv1").neurons
    assert isinstance(neurons, LIF)
    assert isinstance(neurons.reset, ResetSubtract)
    assert neurons.threshold == np.exp(np.float64(learned.log_threshold.item()))
    assert neurons.reset.amount == neurons.threshold != 0.5
    logit = learned.decay_logit.detach().double().numpy()
    assert neurons.decay.shape == (2, 1, 1)
    assert neurons.decay == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-15)


@given(described=architectures(), seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_quantized_they_run_alike_in_both_engines(described: Architecture, seed: int) -> None:
    graph = freeze(settled(described, seed))
    recording = random_input(described, np.random.default_rng(seed), 4)
    for target in ("generic", "loihi2"):
        try:
            integer = quantize(graph, target)
        except SnnDeployError as error:
            # loihi2 has no reset by subtraction; no target takes a layer that gets nothing
            assert error.code in ("SD203", "SD202" if target == "loihi2" else "")  # noqa: PT017
            continue
        one = simulate(integer, recording, engine="reference", trace=True)
        other = simulate(integer, recording, engine="event", trace=True)
        for kind in ("spikes", "membrane", "current", "output"):
            mine, theirs = getattr(one, kind), getattr(other, kind)
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def changed(graph: Graph, name: str, **fields: Any) -> Graph:
    """The graph with other fields of one projection."""
    projections = tuple(replace(p, **fields) if p.name == name else p for p in graph.projections)
    return replace(graph, projections=projections)


def with_neurons(graph: Graph, name: str, **fields: Any) -> Graph:
    """The graph with other neurons in one population."""
    populations = tuple(
        replace(p, neurons=replace(p.neurons, **fields)) if p.name == name else p
        for p in graph.populations
    )
    return replace(graph, populations=populations)


def block_net() -> SpikingNet:
    """A residual block with tdBN on both ways and a pooled shortcut."""
    td = {"type": "batchnorm", "kind": "td", "alpha": 0.7}
    way = [avgpool(2), conv(4, 1), td]
    main = [conv(4, 3, stride=2, padding=1), td, LIF_LAYER, conv(4, 3, padding=1), td]
    layers = [conv(3, 3, padding=1), td, LIF_LAYER, residual(main, way), LIF_LAYER]
    described = architecture([*layers, FLATTEN, linear(3)], (2, 6, 6), kind="spikes")
    net = settled(described, 4)
    for module in net.modules():  # tdBN's scale is small: let currents decide, not biases
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.mul_(3)
            module.bias.data.mul_(0.2)
    return net


def plain_block_net() -> SpikingNet:
    """A residual layer of vectors with an identity shortcut."""
    block = residual([linear(6), LIF_LAYER, linear(5)])
    layers = [linear(5), LIF_LAYER, block, LIF_LAYER, linear(3)]
    return settled(architecture(layers, (4,), kind="spikes"), 2)


def learning_net() -> SpikingNet:
    """Learned decays and thresholds, and a reset that subtracts the threshold."""
    lif = {"reset": "subtract", "learn_threshold": True, "learn_decay": "neuron"}
    layers = [linear(6), LIF_LAYER, linear(3)]
    return settled(architecture(layers, (4,), kind="spikes", timesteps=20, lif=lif), 5)


def transposed(graph: Graph) -> Graph:
    (recurrent,) = (p for p in graph.incoming("linear1") if p.source == "linear1")
    weight = recurrent.synapses.weight.T.copy()
    return changed(graph, recurrent.name, synapses=Dense(weight))


def scaled(graph: Graph, name: str, factor: float) -> Graph:
    (projection,) = (p for p in graph.projections if p.name == name)
    weight = projection.synapses.weight * factor
    return changed(graph, name, synapses=with_weights(projection.synapses, weight))


def dropped(graph: Graph, name: str) -> Graph:
    return replace(graph, projections=tuple(p for p in graph.projections if p.name != name))


Fault = Callable[[Graph], Graph]
FAULTS: dict[str, tuple[Callable[[], SpikingNet], Fault]] = {
    "C-LIF without its delay": (
        lambda: clif_net(60),
        lambda g: changed(g, "input->linear1", delay=0),
    ),
    "C-LIF with the plain threshold subtracted": (
        lambda: clif_net(60),
        lambda g: with_neurons(g, "linear1", reset=ResetSubtract(THRESHOLD)),
    ),
    "C-LIF without its gain": (lambda: clif_net(60), lambda g: scaled(g, "input->linear1", 1.01)),
    "C-LIF with a hard reset": (
        lambda: clif_net(60),
        lambda g: with_neurons(g, "linear1", reset=ResetTo()),
    ),
    "recurrent weights transposed": (recurrent_net, transposed),
    "recurrence forgotten": (recurrent_net, lambda g: dropped(g, "linear1->linear1")),
    "recurrence a step late": (recurrent_net, lambda g: changed(g, "linear1->linear1", delay=2)),
    "the filter's decay off": (
        recurrent_net,
        lambda g: with_neurons(g, "linear1", current_decay=np.array(0.74)),
    ),
    "one decay for all neurons": (
        recurrent_net,
        lambda g: with_neurons(g, "linear1", decay=np.array(0.9)),
    ),
    "a subtraction made a hard reset": (
        lambda: recurrent_net("subtract"),
        lambda g: with_neurons(g, "linear1", reset=ResetTo()),
    ),
    "the first threshold, not the learned one": (
        learning_net,
        lambda g: with_neurons(g, "linear1", threshold=np.array(0.5)),
    ),
    "the first threshold subtracted": (
        learning_net,
        lambda g: with_neurons(g, "linear1", reset=ResetSubtract(0.5)),
    ),
    "an identity shortcut dropped": (plain_block_net, lambda g: dropped(g, "linear1->linear3")),
    "an identity shortcut a step late": (
        plain_block_net,
        lambda g: changed(g, "linear1->linear3", delay=1),
    ),
    "the shortcut dropped": (block_net, lambda g: dropped(g, "conv1->conv3")),
    "tdBN's scale forgotten on the shortcut": (
        block_net,
        lambda g: scaled(g, "conv1->conv3", 1 / (0.7 * 0.5)),
    ),
    "the pool's factor forgotten on the shortcut": (
        block_net,
        lambda g: scaled(g, "conv1->conv3", 4.0),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    make, fault = FAULTS[name]
    net = make()
    shape = net.architecture.input_shape
    spikes = np.random.default_rng(7).random((8, net.architecture.timesteps, *shape)) < 0.3
    recording = Recording(spikes={"": spikes.astype(np.uint8)})
    assert prove_freeze(net, recording).holds
    assert not prove_freeze(net, recording, graph=fault(freeze(net))).holds
