"""Schedules against the papers' tables and plain restatements."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_deploy.nn import schedules
from snn_deploy.nn.losses import mean_current_cross_entropy
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.schedules import (
    dspike_temperature,
    matched_width_rate,
    probability_at,
    set_probability,
    sharpen,
    sharpness_at,
)
from snn_deploy.nn.spikes import Dspike, SpikeFunction, Whetstone
from tests.helpers.spiking import BATCHNORM, FLATTEN, LIF, architecture, avgpool, conv, linear

MILESTONES = (0.3, 0.7, 0.9, 0.95)

# ASGL, Table 7: (first probability, zeta, epochs), and from which epoch on which probability holds.
TABLE_7 = {
    "CIFAR-100": (
        (0.6, 0.8, 300),
        {0: 0.6, 90: 0.68, 210: 0.744, 270: 0.7952, 285: 0.83616},
    ),
    "SHD": ((0.8, 0.9, 100), {0: 0.8, 30: 0.82, 70: 0.838, 90: 0.8542, 95: 0.86878}),
    "MedlyDB": ((0.5, 0.9, 100), {0: 0.5, 30: 0.55, 70: 0.595, 90: 0.6355, 95: 0.67195}),
    "CIFAR-10, DVS-CIFAR10, Gesture": ((0.8, 1.0, 300), {0: 0.8}),
    "Tiny-ImageNet": ((0.9, 1.0, 300), {0: 0.9}),
}


@pytest.mark.parametrize("name", TABLE_7)
def test_the_probabilities_of_table_7_begin_at_its_epochs(name: str) -> None:
    (first, zeta, epochs), begins = TABLE_7[name]
    wanted = first
    for epoch in range(epochs):
        wanted = begins.get(epoch, wanted)
        found = probability_at(first, zeta, MILESTONES, epoch, epochs)
        assert found == pytest.approx(wanted, rel=1e-12), epoch


def test_a_milestone_at_0_counts_before_the_first_epoch() -> None:
    assert probability_at(0.8, 0.5, [0.0], 0, 10) == pytest.approx(0.9)
    assert probability_at(0.8, 0.5, [1.0], 9, 10) == pytest.approx(0.8)
    assert probability_at(0.8, 0.0, [0.5], 5, 10) == 1.0
    assert probability_at(0.8, 0.5, [], 9, 10) == pytest.approx(0.8)


def test_set_probability_reaches_every_spike_function() -> None:
    net = SpikingNet(architecture([linear(3), LIF, linear(4), LIF, linear(2)], (5,)))
    set_probability(net, 0.25)
    functions = [m for m in net.modules() if isinstance(m, SpikeFunction)]
    assert [f.probability for f in functions] == [0.25, 0.25]
    assert {f.train().emission.probability for f in functions} == {0.25}
    assert {f.eval().emission.probability for f in functions} == {1.0}


# Layer, progress -> sharpness of four layers sharpened from 0.1 to 0.9: each takes 0.2.
SHARPNESS = {
    (0, 0.0): 0.0,
    (0, 0.1): 0.0,
    (0, 0.15): 0.25,
    (0, 0.3): 1.0,
    (0, 1.0): 1.0,
    (1, 0.3): 0.0,
    (1, 0.4): 0.5,
    (1, 0.5): 1.0,
    (2, 0.5): 0.0,
    (2, 0.65): 0.75,
    (3, 0.7): 0.0,
    (3, 0.9): 1.0,
}


@pytest.mark.parametrize(("layer", "progress"), SHARPNESS)
def test_layers_are_sharpened_one_after_the_other(layer: int, progress: float) -> None:
    found = sharpness_at(layer, 4, 0.1, 0.9, progress)
    assert found == pytest.approx(SHARPNESS[layer, progress], abs=1e-9)


def test_only_one_layer_is_under_way_at_a_time() -> None:
    for progress in np.linspace(0, 1, 101):
        values = [sharpness_at(layer, 3, 0.2, 0.8, float(progress)) for layer in range(3)]
        assert values == sorted(values, reverse=True)
        assert sum(0 < v < 1 for v in values) <= 1


def test_sharpening_narrows_ramps_and_leaves_a_gradient() -> None:
    layers = [linear(3), LIF, linear(4), LIF, linear(2)]
    net = SpikingNet(architecture(layers, (5,), spike={"function": "whetstone", "width": 2.0}))
    ramps = [m for m in net.modules() if isinstance(m, Whetstone)]
    for progress, wanted in ((0.0, [2.0, 2.0]), (0.3, [1.0, 2.0]), (0.7, [2e-3, 1.0])):
        sharpen(net, 0.1, 0.9, progress)
        assert [r.width.item() for r in ramps] == pytest.approx(wanted, rel=1e-5)
    sharpen(net, 0.1, 0.9, 1.0)
    assert [r.width.item() for r in ramps] == pytest.approx([2e-3, 2e-3], rel=1e-5)
    sharpen(nn.Linear(2, 2), 0.1, 0.9, 0.5)  # nothing to sharpen


def test_the_matched_rate_lets_a_log_width_travel_ten_nats() -> None:
    # digits, 25 epochs of 20 steps; the papers' CIFAR: 300 epochs of 390 steps, 3e-4
    assert matched_width_rate(500) == pytest.approx(2e-2)
    assert matched_width_rate(875) == pytest.approx(10 / 875)
    assert matched_width_rate(300 * 390) == pytest.approx(3e-4)
    assert matched_width_rate(1) == pytest.approx(3e-2)
    for steps in (400, 1000, 30_000):
        assert matched_width_rate(steps) * steps == pytest.approx(10)


def test_adam_moves_a_log_width_by_its_rate_per_step() -> None:
    """What the matched rate rests on."""
    steps = 500
    width = nn.Parameter(torch.zeros(()))
    adam = torch.optim.Adam([width], lr=matched_width_rate(steps))
    for _ in range(steps):
        adam.zero_grad()
        (1e-4 * width).backward()  # type: ignore[no-untyped-call]
        adam.step()
    assert width.item() == pytest.approx(-10, rel=1e-2)


# --- Dspike's search for a temperature ------------------------------------------------------------


def dspike_net(temperature: float = 1.0, seed: int = 0) -> SpikingNet:
    torch.manual_seed(seed)
    spike = {"function": "dspike", "temperature": temperature}
    layers = [conv(2), BATCHNORM, LIF, avgpool(), FLATTEN, linear(4), LIF, linear(3)]
    return SpikingNet(architecture(layers, (1, 6, 6), spike=spike))


def some_batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(8, 1, 6, 6, generator=generator)
    return x, torch.randint(0, 3, (8,), generator=generator)


def loss_with(
    net: SpikingNet, place: tuple[int, ...], change: float, x: Tensor, y: Tensor
) -> float:
    """The loss in training mode with one weight of the first layer changed."""
    moved = copy.deepcopy(net).train()
    with torch.no_grad():
        moved.get_parameter("layers.0.module.weight")[place] += change
        return mean_current_cross_entropy(moved.currents(x), y).item()


def gradient_at(net: SpikingNet, temperature: float, x: Tensor, y: Tensor) -> np.ndarray:
    """Dspike's own gradient of the first layer's weights, at a temperature."""
    tried = copy.deepcopy(net).train()
    for module in tried.modules():
        if isinstance(module, Dspike):
            module.temperature = temperature
    mean_current_cross_entropy(tried.currents(x), y).backward()  # type: ignore[no-untyped-call]
    gradient = tried.get_parameter("layers.0.module.weight").grad
    assert gradient is not None
    return gradient.double().numpy().ravel()


def restated(net: SpikingNet, x: Tensor, y: Tensor, step: float, epsilon: float) -> float:
    """Dspike's Eq. 10 and section 4.3: the temperature whose gradient points as differences do."""
    shape = net.get_parameter("layers.0.module.weight").shape
    differences = np.array(
        [
            (loss_with(net, place, epsilon, x, y) - loss_with(net, place, -epsilon, x, y))
            / (2 * epsilon)
            for place in np.ndindex(*shape)
        ]
    )
    present = next(m for m in net.modules() if isinstance(m, Dspike)).temperature
    similarities = {}
    for temperature in (present, present - step, present + step):
        if temperature > 0:
            gradient = gradient_at(net, temperature, x, y)
            norms = np.linalg.norm(gradient) * np.linalg.norm(differences)
            similarities[temperature] = float(gradient @ differences) / norms
    return max(similarities, key=lambda t: similarities[t])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("start", "step", "epsilon"), [(1.0, 0.2, 0.1), (3.0, 1.5, 0.05)])
def test_the_temperature_is_the_one_whose_gradient_points_as_differences_do(
    seed: int, start: float, step: float, epsilon: float
) -> None:
    net, (x, y) = dspike_net(start, seed), some_batch(seed)
    wanted = restated(net, x, y, step, epsilon)
    found = dspike_temperature(
        net, x, y, mean_current_cross_entropy, step=step, epsilon=epsilon, weights=1000
    )
    assert found == pytest.approx(wanted, rel=1e-6)
    temperatures = {m.temperature for m in net.modules() if isinstance(m, Dspike)}
    assert len(temperatures) == 1  # one for the whole network
    assert temperatures.pop() == pytest.approx(found, rel=1e-6)


def test_all_three_choices_are_made_somewhere() -> None:
    chosen = set()
    for seed in range(12):
        net, (x, y) = dspike_net(2.0, seed), some_batch(seed)
        found = dspike_temperature(net, x, y, mean_current_cross_entropy, step=1.0)
        chosen.add(round(found))
    assert {1, 3} <= chosen <= {1, 2, 3}


def test_a_temperature_never_falls_to_0() -> None:
    net, (x, y) = dspike_net(0.15), some_batch()
    for _ in range(5):
        assert dspike_temperature(net, x, y, mean_current_cross_entropy, weights=4) > 0


@pytest.mark.parametrize("training", [True, False])
def test_the_search_leaves_everything_but_the_temperature(training: bool) -> None:
    net, (x, y) = dspike_net(), some_batch()
    net.train(training)
    net.layers[0].eval()  # a mode of its own
    modes = [m.training for m in net.modules()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    dspike_temperature(net, x, y, mean_current_cross_entropy, step=0.5)
    assert [m.training for m in net.modules()] == modes
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) or name.endswith("log_width"), name
    assert all(p.grad is None for p in net.parameters())


def test_the_search_takes_as_many_weights_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, y) = dspike_net(), some_batch()
    calls = []

    def counted(currents: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(labels))
        return mean_current_cross_entropy(currents, labels)

    for weights, wanted in ((5, 5), (18, 18), (1000, 18)):  # 2 x 1 x 3 x 3 weights
        calls.clear()
        dspike_temperature(net, x, y, counted, weights=weights)
        assert len(calls) == 2 * wanted + 3


def test_the_search_does_not_mind_the_memory_format() -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        spike = {"function": "dspike"}
        net = SpikingNet(
            architecture([conv(4), LIF, conv(4), LIF, FLATTEN, linear(3)], (3, 6, 6), spike=spike)
        )
        net = net.to(memory_format=layout)  # type: ignore[call-overload]
        torch.manual_seed(1)
        x = torch.rand(8, 3, 6, 6)
        found.append(
            dspike_temperature(net, x, torch.arange(8) % 3, mean_current_cross_entropy, weights=20)
        )
    assert found[0] == found[1]


def test_a_network_without_dspike_has_no_temperature() -> None:
    net = SpikingNet(architecture([linear(3)], (5,), spike={"function": "dspike"}))
    with pytest.raises(ValueError, match="no temperature"):
        schedules.dspike_temperature(
            net, torch.rand(2, 5), torch.tensor([0, 1]), mean_current_cross_entropy
        )


def test_dspike_becomes_the_step_with_rising_temperature() -> None:
    """The slope at the threshold: b / (2 tanh(b / 2)), by Dspike's Eq. 7."""
    for b, peak in ((1e-3, 1.0), (1.0, 1.0820), (4.0, 2.0746), (10.0, 5.0005)):
        x = torch.zeros((), requires_grad=True)
        Dspike(b)(x).backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert x.grad.item() == pytest.approx(peak, rel=1e-3)
        assert x.grad.item() == pytest.approx(b / (2 * math.tanh(b / 2)), rel=1e-3)
