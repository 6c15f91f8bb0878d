"""The trainable graph is the integer graph, bit for bit, and its gradients are the network's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph
from snn_deploy.hardware import target
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording
from snn_deploy.quantization import quantize
from snn_deploy.quantization.scheme import weight_grid
from snn_deploy.quantization.trainable import Emission, TrainableGraph
from snn_deploy.sim import simulate
from tests.helpers.spiking import (
    FLATTEN,
    LIF,
    architecture,
    architectures,
    conv,
    linear,
    random_input,
    residual,
    settled,
)

Array = NDArray[Any]


def trainable(
    graph: Graph, to: str, bits: int, granularity: str = "tensor", **options: Any
) -> TrainableGraph:
    integer = quantize(graph, to, bits=bits, granularity=granularity, clipping="mse")
    grid = weight_grid(target(to).require_format(), bits)
    return TrainableGraph(graph, integer, grid, **options)


def encoded(net: TrainableGraph, recording: Recording) -> torch.Tensor:
    (raw,) = [*recording.values.values(), *recording.spikes.values()]
    return torch.from_numpy(np.asarray(net.graph.inputs[0].encode(raw), np.float64))


def shaken(net: TrainableGraph, size: float) -> None:
    """Other weights, biases and scales, as training would leave them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in [*net.weights, *net.biases, *net.log_scales]:
            if parameter.requires_grad:
                spread = float(parameter.abs().mean())
                parameter.add_(size * spread * torch.randn_like(parameter))


def hold_together(net: TrainableGraph, recording: Recording) -> Graph:
    """The module in evaluation is its own integer graph: spikes and membranes of all timesteps."""
    graph = net.integer_graph()
    exact = copy.deepcopy(net).double().eval()
    with torch.no_grad():
        sent, membranes = exact.membranes(encoded(net, recording))
    trace = simulate(graph, recording, engine="reference", trace=True)
    for name, expected in trace.membrane.items():
        found = membranes[name].transpose(0, 1).numpy()
        assert np.array_equal(found, expected), name
    for name, spikes in trace.spikes.items():
        assert np.array_equal(sent[name].transpose(0, 1).numpy() != 0, spikes), name
    return graph


@given(
    described=architectures(),
    seed=st.integers(0, 2**16),
    bits=st.sampled_from((2, 3, 4, 8)),
    how=st.sampled_from((("generic", "tensor"), ("generic", "channel"), ("loihi2", "tensor"))),
)
@settings(max_examples=60)
def test_in_evaluation_it_is_the_integer_graph(
    described: Architecture, seed: int, bits: int, how: tuple[str, str]
) -> None:
    model = settled(described, seed)
    recording = random_input(described, np.random.default_rng(seed), 3)
    try:
        net = trainable(freeze(model), how[0], bits, how[1])
    except SnnDeployError as error:
        if error.code not in ("SD202", "SD203"):  # soft resets and filters on loihi2
            raise
        return
    hold_together(net, recording)
    shaken(net, 0.02)
    try:
        hold_together(net, recording)
    except SnnDeployError as error:
        if error.code != "SD203":  # shaken out of what the format holds
            raise


RESIDUAL = architecture(
    [
        conv(4, padding=1), LIF,
        residual([conv(4, padding=1), LIF, conv(4, padding=1)]), LIF,
        FLATTEN, linear(5),
    ],
    (1, 5, 5),
)  # fmt: skip
RECURRENT = architecture(
    [linear(9, bias=False), {"type": "lif", "recurrent": True}, linear(3)],
    (6,), kind="spikes", timesteps=7, lif={"current_decay": 0.6},
)  # fmt: skip


@pytest.mark.parametrize("described", [RESIDUAL, RECURRENT], ids=["residual", "recurrent"])
@pytest.mark.parametrize("bits", [3, 8])
def test_after_training_it_still_is(described: Architecture, bits: int) -> None:
    net = trainable(freeze(settled(described, 1)), "generic", bits)
    recording = random_input(described, np.random.default_rng(1), 6)
    before = net.integer_graph()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    net.train()
    labels = torch.arange(6) % 3
    losses = []
    for _ in range(20):
        out = net(encoded(net, recording).float()).mean(0)
        loss = torch.nn.functional.cross_entropy(out, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = hold_together(net, recording)
    assert any(
        (a.synapses.weight != b.synapses.weight).any()
        for a, b in zip(before.projections, after.projections, strict=True)
    )


def test_gradients_are_those_of_the_network() -> None:
    """With 16 bits rounding is small: gradients are the float network's, where no spike differs."""
    described = architecture(
        [linear(20, bias=False), LIF, linear(12, bias=False), LIF, linear(4)],
        (10,), kind="spikes", timesteps=5, spike={"function": "surrogate", "width": 1.5},
    )  # fmt: skip
    model = settled(described, 2)
    recording = random_input(described, np.random.default_rng(2), 8)
    emissions = {name: Emission("clip", 1.5, 1.0) for name in ("linear1", "linear2")}
    net = trainable(freeze(model), "generic", 16, emissions=emissions)
    twin: SpikingNet = copy.deepcopy(model).double().train()
    (raw,) = recording.spikes.values()
    weights = torch.randn(5, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (twin.currents(torch.from_numpy(raw)) * weights).sum().backward()
    exact = copy.deepcopy(net).double().train()
    (exact(encoded(net, recording)) * weights).sum().backward()
    synapses = [m for m in twin.modules() if isinstance(m, torch.nn.Linear)]
    for found, layer in zip(exact.weights, synapses, strict=True):
        wanted = layer.weight.grad
        assert found.grad is not None
        assert wanted is not None
        assert wanted.abs().max() > 0.1
        assert (found.grad - wanted).abs().max() < 2e-3 * wanted.abs().max()
    assert torch.allclose(exact.biases[-1].grad, synapses[-1].bias.grad)


def test_a_scale_learns_as_a_step_size_does() -> None:
    """The gradient by the scale is LSQ's: (round(w S) - w S) of each weight, by 1 / S^2."""
    described = architecture([linear(3, bias=False)], (4,), kind="spikes", timesteps=1)
    net = trainable(freeze(settled(described, 3)), "generic", 4).double().eval()
    x = torch.ones(1, 1, 4, dtype=torch.float64)
    net(x).sum().backward()
    scale = net.scale(net.graph.populations[0]).detach()
    scaled = net.weights[0].detach() * scale
    inside = scaled.abs() <= 7
    codes = scaled.round().clamp(-7, 7)
    by_scale = torch.where(inside, scaled - codes, -codes).sum() / scale  # d/d log S
    assert torch.allclose(net.log_scales[0].grad, by_scale)


def test_what_the_host_computes_is_left_alone() -> None:
    described = architecture([linear(6), LIF, linear(3)], (4,))
    net = trainable(freeze(settled(described)), "loihi2", 4)
    net.freeze_host()
    assert [p.requires_grad for p in net.weights] == [False, True]
    assert [p.requires_grad for p in net.biases] == [False, True]
    assert [p.requires_grad for p in net.log_scales] == [False, True]
