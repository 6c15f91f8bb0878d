"""The training-side neuron against plain Python, and batch statistics over time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_deploy.nn.models import OverTime, SpikingNet, spike_function
from snn_deploy.nn.neurons import LIF
from snn_deploy.nn.spikes import ASGL, SurrogateGradient
from tests.helpers.spiking import BATCHNORM, FLATTEN, architecture, conv, linear
from tests.helpers.spiking import LIF as LIF_LAYER

numbers = st.floats(-3, 3, allow_subnormal=False)


def run(current: list[float], threshold: float, decay: float) -> tuple[list[int], list[float]]:
    """Eq. 1-4 for one neuron: spikes, and membranes before the reset."""
    membrane, fired = 0.0, 0
    spikes, membranes = [], []
    for arriving in current:
        membrane = decay * membrane * (1 - fired) + arriving
        fired = 1 if membrane >= threshold else 0
        spikes.append(fired)
        membranes.append(membrane)
    return spikes, membranes


@given(
    currents=st.integers(1, 8).flatmap(
        lambda steps: st.lists(
            st.lists(numbers, min_size=steps, max_size=steps), min_size=1, max_size=4
        )
    ),
    threshold=st.floats(0.01, 2),
    decay=st.floats(0, 0.999),
)
def test_evaluation_is_the_plain_loop_to_the_bit(
    currents: list[list[float]], threshold: float, decay: float
) -> None:
    neuron = LIF(threshold, decay, ASGL()).double().eval()
    spikes = neuron(torch.tensor(currents, dtype=torch.float64).T)  # [T, B]
    expected = [run(current, threshold, decay)[0] for current in currents]
    assert spikes.T.tolist() == expected


def test_a_spike_resets_the_membrane_to_zero() -> None:
    neuron = LIF(1.0, 0.5, ASGL()).double().eval()
    # 5 fires and is forgotten; 0.9 does not fire; 0.9 / 2 + 0.55 is exactly 1; then 0.99 is alone
    current = torch.tensor([5.0, 0.9, 0.55, 0.99], dtype=torch.float64)
    assert neuron(current[:, None]).flatten().tolist() == [1, 0, 1, 0]


def test_every_run_starts_from_silence() -> None:
    neuron = LIF(1.0, 0.9, ASGL()).eval()
    current = torch.full((3, 1), 0.6)
    first, second = neuron(current), neuron(current)
    assert torch.equal(first, second)
    assert first.flatten().tolist() == [0, 1, 0]


def surrogate_derivative(x: float, width: float) -> float:
    return 1 / width if abs(x) <= width / 2 else 0.0


@pytest.mark.parametrize("currents", [(0.4, 0.3, 0.2), (0.6, 0.3, 0.45), (0.3, 0.9, 0.1)])
def test_gradient_flows_through_the_reset(currents: tuple[float, ...]) -> None:
    """Eq. 6: du[t+1]/du[t] = decay * (1 - s[t] - u[t] * Theta'(u[t] - threshold))."""
    threshold, decay, width = 0.5, 0.8, 1.0
    neuron = LIF(threshold, decay, SurrogateGradient(width)).double().train()
    current = torch.tensor(currents, dtype=torch.float64).reshape(3, 1).requires_grad_()
    last = neuron(current)[-1].sum()
    (found,) = torch.autograd.grad(last, current)

    spikes, membranes = run(list(currents), threshold, decay)
    slope = [surrogate_derivative(u - threshold, width) for u in membranes]
    carried = [decay * (1 - s - u * d) for s, u, d in zip(spikes, membranes, slope, strict=True)]
    expected = [slope[2] * carried[1] * carried[0], slope[2] * carried[1], slope[2]]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_the_reset_of_a_smooth_net_is_smooth() -> None:
    """With probability 0 the membrane keeps 1 - H of itself, and autograd agrees with that."""
    threshold, decay, width = 0.5, 0.8, 2.0

    def second_step(first: float, second: float) -> float:
        smooth = (first - threshold) / width + 0.5
        return (decay * first * (1 - smooth) + second - threshold) / width + 0.5

    neuron = LIF(threshold, decay, ASGL(width, 0.0)).double().train()
    current = torch.tensor([[0.7], [0.1]], dtype=torch.float64, requires_grad=True)
    out = neuron(current)[1, 0]
    assert out.item() == pytest.approx(second_step(0.7, 0.1))
    (found,) = torch.autograd.grad(out, current)
    step = 1e-6
    slope = (second_step(0.7 + step, 0.1) - second_step(0.7 - step, 0.1)) / (2 * step)
    assert found[0].item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(("threshold", "decay"), [(0.0, 0.5), (-1.0, 0.5), (0.5, 1.0), (0.5, -0.1)])
def test_impossible_neurons_are_refused(threshold: float, decay: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        LIF(threshold, decay, ASGL())


def test_batch_statistics_are_taken_over_time_and_batch() -> None:
    net = SpikingNet(
        architecture(
            [conv(4, padding=1), BATCHNORM, LIF_LAYER, FLATTEN, linear(3)],
            (2, 5, 5),
            kind="spikes",
            timesteps=4,
        )
    )
    norm = net.layers[1]
    assert isinstance(norm, OverTime)
    seen: list[tuple[Tensor, Tensor]] = []
    norm.register_forward_hook(lambda module, arguments, out: seen.append((arguments[0], out)))
    torch.manual_seed(0)
    net.train()(torch.rand(6, 4, 2, 5, 5).round())
    (current, normalised) = seen[0]
    assert current.shape == (4, 6, 4, 5, 5)  # time first

    plain = nn.BatchNorm2d(4)
    merged = current.reshape(24, 4, 5, 5)
    assert torch.equal(plain(merged), normalised.reshape(24, 4, 5, 5))
    assert torch.equal(plain.running_var, norm.module.running_var)
    by_hand = (merged.double() - merged.double().mean((0, 2, 3), keepdim=True)) / torch.sqrt(
        merged.double().var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    )
    assert torch.allclose(by_hand, normalised.reshape(24, 4, 5, 5).double(), atol=1e-5)


def test_a_constant_input_is_the_same_current_at_every_step() -> None:
    described = architecture(
        [linear(2), LIF_LAYER, linear(2)], (3,), timesteps=4, mean=[1.0], std=[2.0]
    )
    net = SpikingNet(described)
    seen: list[Tensor] = []
    net.layers[0].register_forward_hook(lambda module, arguments, out: seen.append(arguments[0]))
    x = torch.tensor([[0.0, 0.5, 1.0]])
    net.eval()(x)
    assert seen[0].tolist() == [((x - 1) / 2).tolist()] * 4


def test_the_readout_is_the_mean_current() -> None:
    net = SpikingNet(
        architecture([linear(4), LIF_LAYER, linear(3)], (2,), kind="spikes", timesteps=5)
    ).eval()
    last: list[Tensor] = []
    net.layers[-1].register_forward_hook(lambda module, arguments, out: last.append(out))
    torch.manual_seed(0)
    out = net(torch.rand(2, 5, 2).round())
    assert torch.allclose(out, sum(last[0].unbind(0)) / 5, atol=1e-6)
    assert out.shape == (2, 3)


def test_the_spike_function_is_the_one_described() -> None:
    options = {"function": "surrogate", "width": 3.0, "learn_width": True}
    described = architecture([linear(2), LIF_LAYER, linear(2)], (2,), spike=options)
    spike = spike_function(described)
    assert isinstance(spike, SurrogateGradient)
    assert spike.width.item() == pytest.approx(3.0)
    assert spike.log_width.requires_grad
    asgl = architecture([linear(2)], (2,), spike={"function": "asgl", "probability": 0.25})
    assert isinstance(spike_function(asgl), ASGL)
    assert spike_function(asgl).probability == 0.25
