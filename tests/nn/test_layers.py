"""Layers over time: batch statistics, constant inputs, two ways that are added."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from snn_deploy.nn.layers import BatchNormOverTime, Chain, OverTime, Residual
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import LIF
from snn_deploy.nn.spikes import ASGL
from tests.helpers.spiking import BATCHNORM, FLATTEN, architecture, conv, linear
from tests.helpers.spiking import LIF as LIF_LAYER

SHAPES = [(5,), (3, 4, 2)]


def norm_for(shape: tuple[int, ...], momentum: float | None = 0.1) -> nn.BatchNorm1d:
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    norm = kind(shape[0], momentum=momentum).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return norm


def buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in norm.named_buffers()}


@pytest.mark.parametrize("momentum", [0.1, 0.4, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_plain_batch_norm_is_torchs_over_time_and_batch(
    shape: tuple[int, ...], momentum: float | None
) -> None:
    torch.manual_seed(0)
    norm = norm_for(shape, momentum)
    reference = copy.deepcopy(norm)
    layer = BatchNormOverTime(norm)
    for training in (True, True, True, False):
        layer.train(training)
        reference.train(training)
        one = torch.randn(4, 6, *shape, dtype=torch.float64).requires_grad_()
        other = one.detach().clone().requires_grad_()
        found, expected = layer(one, 4), reference(other.flatten(0, 1)).reshape(other.shape)
        assert torch.equal(found, expected)
        for name, value in buffers(reference).items():
            assert torch.equal(buffers(norm)[name], value), name
        weights = torch.randn_like(found)
        gradients = torch.autograd.grad((found * weights).sum(), [one, *norm.parameters()])
        references = torch.autograd.grad(
            (expected * weights).sum(), [other, *reference.parameters()]
        )
        for gradient, value in zip(gradients, references, strict=True):
            assert torch.allclose(gradient, value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 1 / math.sqrt(2)])
@pytest.mark.parametrize("shape", SHAPES)
def test_td_batch_norm_is_the_printed_formula(shape: tuple[int, ...], alpha: float) -> None:
    """y = gamma * alpha * theta * (c - E) / sqrt(Var + eps) + beta over (T, B, H, W)."""
    torch.manual_seed(1)
    theta = 0.7
    norm = norm_for(shape)
    layer = BatchNormOverTime(norm, alpha * theta).train()
    c = torch.randn(4, 6, *shape, dtype=torch.float64) * 3 + 1
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    found = layer(c, 4)
    for channel in range(shape[0]):
        values = c[:, :, channel].flatten().tolist()
        n = len(values)
        expected = sum(values) / n
        spread = sum((value - expected) ** 2 for value in values) / n
        gamma, beta = norm.weight[channel].item(), norm.bias[channel].item()
        by_hand = [
            gamma * alpha * theta * (value - expected) / math.sqrt(spread + 1e-5) + beta
            for value in values
        ]
        assert found[:, :, channel].flatten().tolist() == pytest.approx(by_hand, rel=1e-10)
        kept = 0.9 * mean[channel].item() + 0.1 * expected
        assert norm.running_mean[channel].item() == pytest.approx(kept, rel=1e-12)
        kept = 0.9 * variance[channel].item() + 0.1 * spread * n / (n - 1)
        assert norm.running_var[channel].item() == pytest.approx(kept, rel=1e-12)
    layer.eval()
    scale = (norm.weight * alpha * theta / torch.sqrt(norm.running_var + 1e-5)).detach()
    per_channel = (-1, *([1] * (len(shape) - 1)))
    expected_now = (c - norm.running_mean.reshape(per_channel)) * scale.reshape(
        per_channel
    ) + norm.bias.reshape(per_channel)
    assert torch.allclose(layer(c, 4), expected_now, rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.35])
@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("timesteps", [1, 2, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_step_stands_for_equal_steps(
    shape: tuple[int, ...], timesteps: int, momentum: float | None, scale: float
) -> None:
    """Output, gradients and running statistics are those of so many copies."""
    torch.manual_seed(2)
    one = BatchNormOverTime(norm_for(shape, momentum), scale).train()
    other = copy.deepcopy(one)
    for _ in range(3):
        x = torch.randn(1, 6, *shape, dtype=torch.float64).requires_grad_()
        y = x.detach().repeat(timesteps, *([1] * (x.ndim - 1))).requires_grad_()
        found, expected = one(x, timesteps), other(y, timesteps)
        assert found.shape == x.shape
        assert torch.allclose(found.expand_as(expected), expected, rtol=1e-12, atol=1e-12)
        for name, value in buffers(other).items():
            assert torch.allclose(buffers(one)[name], value, rtol=1e-12, atol=1e-12), name
        weights = torch.randn_like(expected)
        gradients = torch.autograd.grad(
            (found.expand_as(expected) * weights).sum(), [x, *one.parameters()]
        )
        by_copies = torch.autograd.grad((expected * weights).sum(), [y, *other.parameters()])
        by_copies = (by_copies[0].sum(0, keepdim=True), *by_copies[1:])
        for gradient, value in zip(gradients, by_copies, strict=True):
            assert torch.allclose(gradient, value, rtol=1e-9, atol=1e-10)
    one.eval()
    other.eval()
    assert torch.allclose(one(x, timesteps).expand_as(y), other(y, timesteps), rtol=1e-12)


def test_one_sample_stands_for_equal_steps_too() -> None:
    """A batch of one has one value per channel, but as many as there are timesteps in truth."""
    torch.manual_seed(2)
    one = BatchNormOverTime(norm_for((5,))).train()
    other = copy.deepcopy(one)
    x = torch.randn(1, 1, 5, dtype=torch.float64)
    expected = other(x.repeat(4, 1, 1), 4)
    assert torch.allclose(one(x, 4).expand(4, 1, 5), expected, rtol=1e-12)
    for name, value in buffers(other).items():
        assert torch.allclose(buffers(one)[name], value, rtol=1e-12, atol=1e-12), name
    with pytest.raises(ValueError, match="more than 1 value"):
        one(x, 1)


def test_evaluation_keeps_the_statistics() -> None:
    layer = BatchNormOverTime(norm_for((5,))).eval()
    before = buffers(layer)
    layer(torch.randn(1, 6, 5, dtype=torch.float64), 4)
    assert all(torch.equal(value, before[name]) for name, value in buffers(layer).items())


def test_without_running_statistics_those_of_the_batch_are_taken() -> None:
    norm = nn.BatchNorm1d(5, track_running_stats=False).double()
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    for training in (True, False):
        layer = BatchNormOverTime(norm).train(training)
        assert torch.equal(layer(x, 4).flatten(0, 1), norm(x.flatten(0, 1)))


def test_a_module_is_applied_to_each_timestep() -> None:
    module = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.randn(4, 5, 2, 6, 6)
    out = OverTime(module)(x)
    assert out.shape == (4, 5, 3, 6, 6)
    for t in range(4):
        assert torch.allclose(out[t], module(x[t]), atol=1e-6)
    assert OverTime(nn.Flatten())(x).shape == (4, 5, 72)


def test_residual_adds_its_two_ways() -> None:
    torch.manual_seed(0)
    main = Chain(OverTime(nn.Linear(4, 4)), LIF(0.5, 0.5, ASGL()), OverTime(nn.Linear(4, 4)))
    way = Chain(OverTime(nn.Linear(4, 4)), BatchNormOverTime(nn.BatchNorm1d(4)))
    x = (torch.rand(3, 6, 4) > 0.5).float()
    for shortcut in (way, Chain()):
        layer = Residual(main, shortcut).eval()
        beside = shortcut(x, 3) if len(shortcut) else x
        assert torch.equal(layer(x, 3), main(x, 3) + beside)


def test_a_chain_tells_those_who_ask_how_many_steps_there_are() -> None:
    """[1, B, ...] becomes [T, B, ...] at the first neuron, and statistics count all T."""
    torch.manual_seed(0)
    chain = Chain(
        OverTime(nn.Linear(4, 6)),
        BatchNormOverTime(nn.BatchNorm1d(6)),
        LIF(0.5, 0.5, ASGL(2.5, 0.8)),
        OverTime(nn.Linear(6, 2)),
        BatchNormOverTime(nn.BatchNorm1d(2)),
    ).double()
    copied = copy.deepcopy(chain)
    x = torch.randn(1, 8, 4, dtype=torch.float64)
    torch.manual_seed(3)
    found = chain.train()(x, 5)
    torch.manual_seed(3)
    expected = copied.train()(x.repeat(5, 1, 1), 5)
    assert found.shape == (5, 8, 2)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    for name, value in buffers(copied).items():
        assert torch.allclose(buffers(chain)[name], value, rtol=1e-9), name


def test_a_net_of_a_constant_input_is_that_of_its_copies() -> None:
    """SpikingNet computes once what precedes the first neuron: as if it was fed T times."""
    described = architecture(
        [conv(4, padding=1), BATCHNORM, LIF_LAYER, FLATTEN, linear(3)],
        (2, 5, 5),
        timesteps=4,
        mean=[0.5],
        std=[0.25],
    )
    torch.manual_seed(0)
    net = SpikingNet(described).double()
    copied = copy.deepcopy(net)
    x = torch.rand(6, 2, 5, 5, dtype=torch.float64)
    torch.manual_seed(1)
    found = net.train().currents(x)
    torch.manual_seed(1)
    expected = copied.train().layers(((x - 0.5) / 0.25)[None].repeat(4, 1, 1, 1, 1), 4)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    for name, value in buffers(copied).items():
        assert torch.allclose(buffers(net)[name], value, rtol=1e-9), name
