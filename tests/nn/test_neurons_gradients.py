"""Gradients through neurons: step by step, and against loops in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snn_deploy.nn.neurons import CLIF, LIF, Neuron
from snn_deploy.nn.recurrence import State
from snn_deploy.nn.smooth import SMOOTH_STEPS
from snn_deploy.nn.spikes import ASGL, LSG, Dspike, SpikeFunction, SurrogateGradient, Whetstone
from tests.nn.test_neurons import NEURONS, SPIKES, TAUS, clip, eq_27, eq_28, numbers, run

WIDTH = 30.0  # of a clip in whose window all membranes stay: no finite difference meets an edge


def gradients_of(neuron: Neuron, out: Tensor, current: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(9)
    weights = torch.randn_like(out)
    learned = {n: p for n, p in neuron.named_parameters() if p.requires_grad}
    leaves = {"current": current, **learned}
    found = torch.autograd.grad((out * weights).sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize(
    ("function", "kind"),
    [*(("asgl", kind) for kind in NEURONS), ("asgl shared", "lif"), ("asgl shared", "clif")],
)
def test_gradients_step_by_step_are_those_of_the_whole_sequence(function: str, kind: str) -> None:
    torch.manual_seed(0)
    neuron = NEURONS[kind](SPIKES[function]()).double().train()
    current = (torch.randn(7, 4, 6, dtype=torch.float64) + 0.3).requires_grad_()
    torch.manual_seed(5)
    expected = gradients_of(neuron, neuron(current), current)
    torch.manual_seed(5)
    state, rows = None, []
    for row in current:
        spikes, state = neuron.step(row, state)
        rows.append(spikes)
    found = gradients_of(neuron, torch.stack(rows), current)
    assert {"current", "spike.log_width"} <= set(found)
    for name, value in expected.items():
        assert value.abs().sum() > 0
        # parameters: 7 sums in place of one
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.parametrize("kind", NEURONS)
def test_a_gradient_reaches_back_through_a_state_only_as_far_as_it_is_kept(kind: str) -> None:
    """Truncated backpropagation: with a state detached between, earlier currents get nothing."""
    torch.manual_seed(0)
    neuron = NEURONS[kind](SPIKES["asgl"]()).double().train()
    both = torch.randn(2, 4, 6, dtype=torch.float64) + 0.3
    early, late = (row.clone().requires_grad_() for row in both)
    _, state = neuron.step(early)
    whole, _ = neuron.step(late, state)
    (reaching,) = torch.autograd.grad(whole.sum(), [early])
    assert reaching.abs().sum() > 0
    arriving = None if state.arriving is None else state.arriving.detach()
    kept = State(*(value.detach() for value in state.state))
    spikes, _ = neuron.step(late, state._replace(state=kept, arriving=arriving))
    assert torch.equal(spikes, whole)
    (nothing,) = torch.autograd.grad(spikes.sum(), [early], allow_unused=True)
    assert nothing is None


def slopes(total: Callable[[list[list[float]]], float], rows: list[list[float]]) -> Tensor:
    """Central differences of a function of a table of numbers."""
    step = 1e-5
    found = torch.zeros(len(rows), len(rows[0]), dtype=torch.float64)
    for r, row in enumerate(rows):
        for k, value in enumerate(row):
            moved = [total([*rows[:r], [*row[:k], value + by, *row[k + 1 :]], *rows[r + 1 :]])
                     for by in (step, -step)]  # fmt: skip
            found[r, k] = (moved[0] - moved[1]) / (2 * step)
    return found


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_gradient_of_a_filtered_and_recurrent_layer_is_that_of_eq_28(
    recurrent: bool, reset: str
) -> None:
    """Of an analog net, by its currents and by its recurrent weights."""
    torch.manual_seed(3)
    steps, number = 12, 3
    spike = ASGL(WIDTH, 0.0)
    neuron = LIF(0.5, 0.8, spike, reset=reset, current_decay=0.6, recurrent=number * recurrent)
    neuron.double().train()
    width = spike.width.item()
    current = (torch.randn(steps, 1, number, dtype=torch.float64) * 0.4).requires_grad_()
    weights = neuron.recurrent.weight.tolist() if recurrent else None

    def total(arriving: list[list[float]], table: list[list[float]] | None) -> float:
        out = eq_28(
            arriving, table, threshold=0.5, decay=0.8, current_decay=0.6, width=width,
            subtract=reset == "subtract",
        )  # fmt: skip
        assert all(0 < value < 1 for row in out for value in row)
        return sum((k + 1) * value for row in out for k, value in enumerate(row))

    weighted = (neuron(current) * torch.arange(1, number + 1)).sum()
    assert weighted.item() == pytest.approx(total(current[:, 0].tolist(), weights), rel=1e-12)
    (found,) = torch.autograd.grad(weighted, current, retain_graph=True)
    expected = slopes(lambda rows: total(rows, weights), current[:, 0].tolist())
    assert torch.allclose(found[:, 0], expected, rtol=1e-6, atol=1e-8)
    if weights is not None:
        (found,) = torch.autograd.grad(weighted, neuron.recurrent.weight)
        expected = slopes(lambda table: total(current[:, 0].tolist(), table), weights)
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("taus", TAUS)
def test_the_gradient_of_the_three_state_neuron_is_that_of_eq_27(taus: tuple[int, int]) -> None:
    """Of an analog net, by its currents; the last of them arrives too late for any."""
    decay, current_decay = (math.exp(-1 / tau) for tau in taus)
    spike = ASGL(WIDTH, 0.0)
    neuron = CLIF(0.7, decay, current_decay, spike).double().train()
    width = spike.width.item()
    torch.manual_seed(1)
    current = (torch.randn(30, 1, 1, dtype=torch.float64) * 0.2).requires_grad_()

    def total(arriving: list[list[float]]) -> float:
        out = eq_27(
            [row[0] for row in arriving], threshold=0.7, decay=decay, current_decay=current_decay,
            spike=lambda x: clip(x, width),
        )  # fmt: skip
        assert all(0 < value < 1 for value in out)
        return sum(value * math.cos(t) for t, value in enumerate(out))

    weighted = (neuron(current).flatten() * torch.cos(torch.arange(30))).sum()
    (found,) = torch.autograd.grad(weighted, current)
    expected = slopes(total, current[:, 0].tolist())
    assert torch.allclose(found[:, 0], expected, rtol=1e-6, atol=1e-8)
    assert found[-1].item() == 0


@st.composite
def any_spike(draw: st.DrawFn) -> SpikeFunction:
    """Any spike function with any options."""
    width = draw(st.floats(1e-3, 100))
    smooth = draw(st.sampled_from(list(SMOOTH_STEPS)))
    kind = draw(st.sampled_from(["asgl", "surrogate", "lsg", "dspike", "whetstone"]))
    learned = draw(st.booleans())
    if kind == "asgl":
        return ASGL(
            width, draw(st.floats(0, 1)), learned, smooth=smooth, shared=draw(st.booleans())
        )
    if kind == "surrogate":
        return SurrogateGradient(width, learned, smooth=smooth)
    if kind == "dspike":
        return Dspike(1 / width)
    if kind == "whetstone":
        whetstone = Whetstone(width)
        whetstone.sharpen(draw(st.floats(0, 1)))
        return whetstone
    return LSG()


@given(
    spike=any_spike(),
    current=st.lists(numbers, min_size=1, max_size=8),
    threshold=st.floats(0.01, 2),
    decay=st.floats(0.01, 0.99),
)
def test_nothing_smooth_is_left_in_evaluation(
    spike: SpikeFunction, current: list[float], threshold: float, decay: float
) -> None:
    """Whatever the function and its options, trained or not: the spikes of the plain loop."""
    learned: dict[str, Any] = {"learn_decay": True} if isinstance(spike, LSG) else {}
    neuron = LIF(threshold, decay, spike, **learned).double()
    arriving = torch.tensor(current, dtype=torch.float64)[:, None].requires_grad_()
    if learned:
        # the sigmoid of the logit is not the decay to the bit
        decay = neuron.decay.item()
    expected = run(current, threshold, decay)[0]
    for before in ("eval", "train"):
        if before == "train":
            neuron.train()(arriving)
        out = neuron.eval()(arriving)
        assert out.flatten().tolist() == expected
        assert not out.requires_grad
