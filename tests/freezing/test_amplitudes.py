"""Spikes of the height of the threshold, as the papers' released code emits them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze, prove_freeze
from snn_deploy.graph import LIF
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import neurons
from tests.helpers.spiking import (
    FLATTEN,
    architecture,
    avgpool,
    conv,
    linear,
    random_input,
    residual,
    settled,
)
from tests.helpers.spiking import LIF as LIF_LAYER

LAYERS = [
    conv(4, padding=1), LIF_LAYER,
    residual([conv(4, padding=1), LIF_LAYER, conv(4, padding=1)]), LIF_LAYER,
    avgpool(2), FLATTEN, linear(3),
]  # fmt: skip


def test_the_threshold_goes_into_the_weights_of_every_reader() -> None:
    nets = []
    for emit in ("spike", "threshold"):
        lif = {"emit": emit, "learn_threshold": True}
        net = SpikingNet(architecture(LAYERS, (2, 6, 6), kind="spikes", threshold=0.3, lif=lif))
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.4)
        nets.append(net.eval())
    plain, scaled = (freeze(net) for net in nets)
    for one, other in zip(plain.projections, scaled.projections, strict=True):
        factor = 1.0
        if not plain.is_input(one.source):
            source = plain.population(one.source).neurons
            assert isinstance(source, LIF)
            factor = float(source.threshold)
        assert other.name == one.name
        assert np.allclose(other.synapses.weight, one.synapses.weight * factor, rtol=1e-12)
    assert any(p.name == "conv1->conv3" for p in scaled.projections)  # the identity shortcut
    described = nets[1].architecture
    proof = prove_freeze(nets[1], random_input(described, np.random.default_rng(0), 10))
    assert proof.holds


def test_reset_and_recurrence_see_the_spike() -> None:
    lif = {"emit": "threshold", "reset": "subtract", "current_decay": 0.5}
    layers = [linear(6, bias=False), {"type": "lif", "recurrent": True}, linear(3, bias=False)]
    net = settled(architecture(layers, (5,), kind="spikes", timesteps=9, threshold=0.4, lif=lif), 2)
    (hidden,) = neurons(net)
    values = hidden(torch.randn(9, 4, 6)).unique().tolist()
    assert values == pytest.approx([0.0, 0.4])
    graph = freeze(net)
    (recurrent,) = (p for p in graph.incoming("linear1") if p.source == "linear1")
    weight = net.state_dict()["layers.1.recurrent.weight"].double().numpy()
    assert np.array_equal(recurrent.synapses.weight, weight)
    proof = prove_freeze(net, random_input(net.architecture, np.random.default_rng(0), 20))
    assert proof.holds


def test_steps_emit_as_sequences_do() -> None:
    net = settled(architecture([linear(6), LIF_LAYER, linear(3)], (5,), lif={"emit": "threshold"}))
    (hidden,) = neurons(net)
    current = torch.randn(5, 4, 6)
    state, out = None, []
    for step in current:
        spikes, state = hidden.step(step, state)
        out.append(spikes)
    assert torch.equal(torch.stack(out), hidden(current))


def test_a_learned_threshold_has_a_gradient_through_the_height() -> None:
    lif = {"emit": "threshold", "learn_threshold": True}
    net = SpikingNet(architecture([linear(6), LIF_LAYER, linear(3)], (5,), lif=lif))
    (hidden,) = neurons(net)
    hidden(torch.full((2, 1, 6), 100.0)).sum().backward()
    # d(theta * s)/d(log theta) = theta, for 12 spikes far beyond every width
    (gradient,) = (p.grad for n, p in hidden.named_parameters() if n == "log_threshold")
    assert gradient.item() == pytest.approx(12 * 0.5)


def test_an_architecture_of_before_emits_spikes() -> None:
    described = architecture([linear(6), LIF_LAYER, linear(3)], (5,))
    data = described.to_data()
    assert data["lif"].pop("emit") == "spike"
    assert parse(data, "a checkpoint") == described


@pytest.mark.parametrize("emit", ["spikes", 1, None])
def test_another_height_is_refused(emit: object) -> None:
    with pytest.raises(SnnDeployError, match="emit"):
        architecture([linear(6), LIF_LAYER, linear(3)], (5,), lif={"emit": emit})
