"""Frozen residual layers: every way is a projection of its own into the same neurons."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snn_deploy.freezing import freeze, prove_freeze
from snn_deploy.graph import Graph
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.spiking import (
    FLATTEN,
    LIF,
    Layers,
    architecture,
    avgpool,
    conv,
    linear,
    random_input,
    residual,
    settled,
)


def test_a_residual_block_adds_both_ways() -> None:
    """A hand-made block: each way alone is below the threshold, both together reach it."""
    layers = [conv(1, 1), LIF, residual([conv(1, 1), LIF, conv(1, 1)]), LIF]
    described = architecture(
        [*layers, FLATTEN, linear(1)], (1, 2, 2), kind="spikes", timesteps=1,
        threshold=1.25, decay=0.5,
    )  # fmt: skip
    net = SpikingNet(described).eval()
    with torch.no_grad():
        for weight, value in zip(
            (p for n, p in net.named_parameters() if n.endswith("module.weight")),
            (2.0, 2.0, 0.25),
            strict=False,
        ):
            weight.fill_(value)
    graph = freeze(net)
    ways = {p.name: p.synapses.weight.ravel().tolist() for p in graph.incoming("conv3")}
    assert ways == {"conv2->conv3": [0.25], "conv1->conv3": [1.0]}
    spikes = np.array([[[[[1, 0], [0, 1]]]]], np.uint8)
    trace = simulate(graph, Recording(spikes={"": spikes}), engine="reference", trace=True)
    assert trace.spikes["conv3"].astype(int).tolist() == spikes.tolist()


def ways(graph: Graph, name: str) -> list[str]:
    return [p.source for p in graph.incoming(name)]


def test_an_identity_shortcut_of_a_vector_is_one_synapse_per_neuron() -> None:
    block = residual([linear(4), LIF, linear(3)])
    net = settled(architecture([linear(3), LIF, block, LIF, linear(2)], (5,), kind="spikes"))
    graph = freeze(net)
    assert [p.name for p in graph.populations] == ["linear1", "linear2", "linear3", "output"]
    main, shortcut = graph.incoming("linear3")
    assert (main.source, shortcut.source) == ("linear2", "linear1")
    assert isinstance(main.synapses, Dense)
    assert isinstance(shortcut.synapses, Conv2d)
    assert shortcut.synapses.groups == 3
    assert shortcut.synapses.weight.tolist() == [[[[1.0]]]] * 3
    assert shortcut.synapses.weight.dtype == np.float64
    assert graph.fan_out(shortcut).tolist() == [1, 1, 1]
    assert prove_freeze(net, random_input(net.architecture, np.random.default_rng(0), 20)).holds


def block_of(shortcut: Layers, out: int, stride: int) -> SpikingNet:
    td = {"type": "batchnorm", "kind": "td", "alpha": 0.75}
    main = [conv(out, 3, stride=stride, padding=1), td, LIF, conv(out, 3, padding=1, bias=True), td]
    layers = [conv(3, 3, padding=1, bias=True), LIF, residual(main, shortcut), LIF]
    return settled(architecture([*layers, FLATTEN, linear(3)], (2, 6, 6), threshold=0.3), 1)


def test_every_way_is_folded_by_itself() -> None:
    """tdBN scales weights by gamma * alpha * threshold / sqrt(var + eps); biases of ways add."""
    net = block_of([avgpool(2), conv(4, 1, bias=True), {"type": "batchnorm"}], 4, 2)
    graph = freeze(net)
    main, shortcut = graph.incoming("conv3")
    assert (main.pool, shortcut.pool) == (None, SumPool((2, 2), (2, 2)))
    state = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def folded(path: str, conv: int, norm: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
        at, by = f"layers.2.{path}.{conv}.module", f"layers.2.{path}.{norm}.module"
        k = state[f"{by}.weight"] * scale / np.sqrt(state[f"{by}.running_var"] + 1e-5)
        shift = state[f"{by}.bias"] + k * (state[f"{at}.bias"] - state[f"{by}.running_mean"])
        return state[f"{at}.weight"] * k.reshape(-1, 1, 1, 1), shift

    weight, bias = folded("layers", 3, 4, 0.75 * 0.3)
    other, shift = folded("shortcut", 1, 2, 1.0)
    assert main.synapses.weight == pytest.approx(weight, rel=1e-12)
    assert shortcut.synapses.weight == pytest.approx(other / 4, rel=1e-12)
    both = graph.population("conv3").neurons.bias
    assert both.shape == (4, 1, 1)
    assert both.ravel() == pytest.approx(bias + shift, rel=1e-12)


def test_a_strided_shortcut_keeps_its_stride() -> None:
    net = block_of([conv(5, 1, stride=2)], 5, 2)
    main, shortcut = freeze(net).incoming("conv3")
    assert isinstance(shortcut.synapses, Conv2d)
    assert (shortcut.synapses.stride, shortcut.synapses.padding) == ((2, 2), (0, 0))
    assert (main.source, shortcut.source) == ("conv2", "conv1")
    assert prove_freeze(net, random_input(net.architecture, np.random.default_rng(0), 20)).holds


def test_a_residual_layer_inside_another_makes_three_ways() -> None:
    inner = residual([conv(2, 3, padding=1), LIF, conv(3, 3, padding=1)])
    block = residual([conv(3, 3, padding=1), LIF, inner])
    layers = [conv(3, 3, padding=1), LIF, block, LIF, FLATTEN, linear(3)]
    net = settled(architecture(layers, (2, 5, 5), kind="spikes"), 2)
    graph = freeze(net)
    assert [p.name for p in graph.populations] == ["conv1", "conv2", "conv3", "conv4", "output"]
    assert ways(graph, "conv4") == ["conv3", "conv2", "conv1"]
    assert ways(graph, "conv3") == ["conv2"]
    assert prove_freeze(net, random_input(net.architecture, np.random.default_rng(0), 20)).holds


@pytest.mark.parametrize("name", ["resnet18", "resnet18-stem3", "resnet19"])
def test_the_papers_residual_networks_are_frozen(name: str) -> None:
    """Blocks with identity shortcuts have two ways, and so have those that change the shape."""
    data = {"timesteps": 2, "input": {"kind": "constant", "shape": [3, 32, 32]}, "name": name}
    described = parse(data, "a test")
    graph = freeze(SpikingNet(described).eval())
    blocks = sum(layer.type == "residual" for layer in described.layers)
    assert sum(len(graph.incoming(p.name)) == 2 for p in graph.populations) == blocks
    assert len(graph.projections) == len(graph.populations) + blocks
