"""Measures: scores, losses and similarities against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from snn_deploy.nn.datasets import ArraySamples, Split
from snn_deploy.nn.measures import (
    Judgement,
    evaluate,
    layer_similarities,
    noisy,
    spiking_layers,
    widths,
)
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.spikes import SpikeFunction
from tests.helpers.spiking import BATCHNORM, LIF, architecture, every_kind, linear

TET = {"weight": 0.25, "target": 1.0}


def by_hand(spike: dict[str, object] | None = None, timesteps: int = 2) -> SpikingNet:
    """One input to two neurons to one output: currents 0.6 x and 0.2 x, threshold 0.5."""
    layers = [linear(2, bias=False), LIF, linear(1, bias=False)]
    net = SpikingNet(architecture(layers, (1,), timesteps=timesteps, decay=0.5, spike=spike))
    net.get_parameter("layers.0.module.weight").data = torch.tensor([[0.6], [0.2]])
    net.get_parameter("layers.2.module.weight").data = torch.tensor([[1.0, 2.0]])
    return net


ANALOG = {"function": "asgl", "width": 2.0, "probability": 0.0}


def test_similarity_by_hand() -> None:
    """H(x) = clip(x / 2 + 1/2), no spikes at all in the noisy network.

    First neuron, current 0.6: u = 0.6, h = 0.55; the reset leaves 0.27, u = 0.735, h = 0.6175. The
    spiking one: u = 0.6, spike, reset, u = 0.6, spike. Second, current 0.2: h = 0.35, left 0.13,
    u = 0.265, h = 0.3825; it never spikes (0.2, 0.3).
    """
    analog = np.array([0.55, 0.35, 0.6175, 0.3825])
    spikes = np.array([1.0, 0.0, 1.0, 0.0])
    wanted = analog @ spikes / np.linalg.norm(analog) / np.linalg.norm(spikes)
    found = layer_similarities(by_hand(ANALOG), torch.ones(1, 1))
    assert found == {"layers.1": pytest.approx(float(wanted), rel=1e-6)}


def test_similarity_is_a_mean_over_samples() -> None:
    x = torch.tensor([[1.0], [3.0]])
    one, other = (layer_similarities(by_hand(ANALOG), part)["layers.1"] for part in (x[:1], x[1:]))
    assert one != other
    both = layer_similarities(by_hand(ANALOG), x)["layers.1"]
    assert both == pytest.approx((one + other) / 2)


def test_a_silent_layer_is_similar_to_a_silent_one_only() -> None:
    silent = torch.zeros(1, 1)
    surrogate = {"function": "surrogate"}
    assert layer_similarities(by_hand(surrogate), silent) == {"layers.1": 1.0}
    assert layer_similarities(by_hand(ANALOG), silent) == {"layers.1": 0.0}


@pytest.mark.parametrize("function", ["surrogate", "dspike"])
def test_a_surrogate_gradient_has_no_noise(function: str) -> None:
    net = by_hand({"function": function}, timesteps=5)
    found = layer_similarities(net, torch.linspace(0, 3, 8)[:, None])
    assert found == {"layers.1": pytest.approx(1.0, abs=1e-12)}


def test_similarity_leaves_no_hooks_and_evaluation() -> None:
    net = every_kind().train()
    layer_similarities(net, torch.rand(4, 2, 7, 7))
    assert not any(m.training for m in net.modules())
    assert not any(m._forward_hooks for m in net.modules())


def test_noisy_is_noise_and_nothing_else() -> None:
    net = every_kind().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.rand(4, 2, 7, 7)
    sharp = net.eval()(x)
    with noisy(net), torch.no_grad():
        training = {name for name, m in net.named_modules() if m.training}
        assert training == {n for n, m in net.named_modules() if isinstance(m, SpikeFunction)}
        assert not torch.equal(net(x), sharp)
        assert not torch.equal(net(x), net(x))  # fresh noise in every pass
    assert not any(m.training for m in net.modules())
    assert torch.equal(net(x), sharp)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_noisy_leaves_evaluation_after_an_error() -> None:
    net = every_kind()
    with pytest.raises(KeyError), noisy(net):
        raise KeyError
    assert not any(m.training for m in net.modules())


def test_widths_are_means_over_a_layer() -> None:
    spike = {"function": "asgl", "granularity": "neuron"}
    net = SpikingNet(architecture([linear(2), LIF, linear(3), LIF, linear(2)], (4,), spike=spike))
    layers = spiking_layers(net)
    assert list(layers) == ["layers.1", "layers.3"]
    layers["layers.1"].spike.log_width.data = torch.tensor([math.log(1.0), math.log(2.0)])
    assert widths(net) == {
        "layers.1": pytest.approx(1.5),
        "layers.3": pytest.approx(2.5),
    }
    assert widths(nn.Linear(2, 2)) == {}


def split(x: np.ndarray, labels: np.ndarray) -> Split:
    return Split(ArraySamples(x.astype(np.float32)), labels.astype(np.int64))


@pytest.mark.parametrize("samples", [5, 300])  # one batch, and one that is cut
@pytest.mark.parametrize("loss", ["cross_entropy", "tet"])
def test_evaluation_by_plain_sums(samples: int, loss: str) -> None:
    layers = [linear(6), BATCHNORM, LIF, linear(3)]
    torch.manual_seed(0)
    net = SpikingNet(architecture(layers, (4,), timesteps=3)).train()
    rng = np.random.default_rng(0)
    x, labels = rng.random((samples, 4)), rng.integers(0, 3, samples)
    found = evaluate(net, split(x, labels), Judgement(loss, TET, net.architecture))
    assert not net.training
    with torch.inference_mode():
        out = net.currents(torch.from_numpy(x).float()).double().numpy()
    mean = out.mean(0)
    each = np.arange(samples)
    if loss == "tet":
        cross = np.log(np.exp(out).sum(-1)) - out[:, each, labels]
        wanted = 0.75 * cross.mean() + 0.25 * ((out - 1) ** 2).mean()
    else:
        wanted = (np.log(np.exp(mean).sum(1)) - mean[each, labels]).mean()
    assert found == pytest.approx((100 * (mean.argmax(1) == labels).mean(), wanted), rel=1e-5)


def test_reconstruction_is_judged_by_psnr_of_scaled_values() -> None:
    about = architecture([linear(4)], (4,), low=-2.0, high=6.0)
    judge = Judgement("reconstruction", TET, about)
    assert judge.measure == "psnr"
    x = torch.tensor([[-2.0, 0.0, 2.0, 6.0], [6.0, 6.0, 6.0, 6.0]])
    target = judge.target(x, torch.zeros(2))
    assert target.tolist() == [[0.0, 0.25, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]]
    readout = target + torch.tensor([[0.1, -0.1, 0.1, -0.1], [0.0, 0.0, 0.0, 0.02]])
    # mean squared errors 0.01 and 0.0001: 20 dB and 40 dB
    assert judge.score(readout, target) == pytest.approx(30.0, rel=1e-4)
    assert judge.score(target, target) == pytest.approx(120.0, abs=1e-3)  # not infinite
    loss = judge.loss(readout[None], target).item()
    assert loss == pytest.approx((0.01 + 0.0001) / 2, rel=1e-4)


def test_accuracy_is_in_percent_and_ties_go_to_the_first() -> None:
    judge = Judgement("cross_entropy", TET, architecture([linear(3)], (4,)))
    assert judge.measure == "accuracy"
    readout = torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, 1.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0]])
    assert judge.score(readout, torch.tensor([1, 0, 2, 1])) == 75.0
    labels = torch.tensor([1, 2])
    assert judge.target(torch.rand(2, 4), labels) is labels


def test_keeping_the_mode_keeps_the_noise() -> None:
    net = every_kind()
    rng = np.random.default_rng(0)
    data = split(rng.random((40, 2, 7, 7)), rng.integers(0, 5, 40))
    judge = Judgement("cross_entropy", TET, net.architecture)
    sharp = evaluate(net, data, judge)
    with noisy(net):
        assert evaluate(net, data, judge, keep_mode=True) != sharp
    assert evaluate(net, data, judge) == sharp
