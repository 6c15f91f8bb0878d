"""Spike functions against the equations of ASGL (ICML 2023), stated here once more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_deploy.nn.smooth import SMOOTH_STEPS
from snn_deploy.nn.smooth import clip as smooth_clip
from snn_deploy.nn.spikes import (
    ASGL,
    LSG,
    Dspike,
    SpikeFunction,
    SurrogateGradient,
    Whetstone,
    heaviside,
)

# Membrane minus threshold, inside and outside of every window used here; none on a window's edge.
POINTS = [-9.0, -2.6, -1.3, -0.6, -0.2, -1e-3, 0.0, 1e-3, 0.2, 0.6, 1.3, 2.6, 9.0]
WIDTHS = (0.5, 1.0, 2.5)
STEP = 1e-6


def points() -> Tensor:
    return torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)


def in_double(spike: SpikeFunction, width: float) -> SpikeFunction:
    """The same function in float64, in training mode, with this width."""
    spike = spike.double().train()
    spike.log_width.data.fill_(math.log(width))
    return spike


def clip(x: float, width: float) -> float:
    """Eq. 8, in plain Python."""
    return min(1.0, max(0.0, x / width + 0.5))


def step(x: float) -> float:
    return 1.0 if x >= 0 else 0.0


def inside(x: float, width: float) -> bool:
    return abs(x) <= width / 2


@given(
    x=st.floats(-20, 20, allow_subnormal=False),
    width=st.floats(1e-3, 100, allow_subnormal=False),
)
def test_the_smooth_value_is_eq_8(x: float, width: float) -> None:
    value = smooth_clip(
        torch.tensor(x, dtype=torch.float64), torch.tensor(width, dtype=torch.float64)
    )
    assert value.item() == clip(x, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_smooth_value_at_the_marks(width: float) -> None:
    marks = torch.tensor([-1e9, -width / 2, -width / 4, 0.0, width / 4, width / 2, 1e9])
    expected = torch.tensor([0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    assert torch.equal(smooth_clip(marks, torch.tensor(width)), expected)


def test_a_spike_is_emitted_at_exactly_zero() -> None:
    least = np.nextafter(np.float32(0), np.float32(-1)).item()
    x = torch.tensor([0.0, -0.0, least, -least, math.inf, -math.inf])
    assert heaviside(x).tolist() == [1, 1, 0, 1, 1, 0]
    assert heaviside(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    "spike",
    [
        ASGL(7.0, 0.3),
        ASGL(1e-3, 0.0),
        ASGL(2.5, 0.5, shared=True),
        SurrogateGradient(3.0),
        LSG(),
        Dspike(0.1),
        Dspike(10.0),
        Whetstone(),
        *(ASGL(2.5, 0.0, smooth=name) for name in SMOOTH_STEPS),
        *(SurrogateGradient(2.5, smooth=name) for name in SMOOTH_STEPS),
    ],
)
def test_evaluation_is_the_step_whatever_the_options(spike: SpikeFunction) -> None:
    x = points()
    out = spike.eval()(x)
    assert out.tolist() == [step(p) for p in POINTS]
    assert not out.requires_grad
    assert spike.emission.probability == 1.0
    assert spike.train()(x).shape == x.shape


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.8, 1.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_an_element_is_a_spike_or_smooth(width: float, probability: float) -> None:
    """Eq. 10: H + m * (Theta - H)."""
    spike = in_double(ASGL(width, probability), width)
    x = points().detach().repeat(400, 1)
    torch.manual_seed(0)
    out = spike(x)
    smooth = torch.tensor([clip(p, width) for p in POINTS], dtype=torch.float64).expand_as(x)
    sharp = torch.tensor([step(p) for p in POINTS], dtype=torch.float64).expand_as(x)
    is_smooth, is_sharp = torch.isclose(out, smooth), torch.isclose(out, sharp)
    assert (is_smooth | is_sharp).all()
    blurred = ~torch.isclose(smooth, sharp)
    share = is_sharp[blurred].double().mean().item()
    deviation = math.sqrt(probability * (1 - probability) / blurred.sum().item())
    assert abs(share - probability) <= 4 * deviation


def test_the_mask_is_fresh_for_every_element_and_call() -> None:
    spike = in_double(ASGL(4.0, 0.5), 4.0)
    x = torch.ones(2, 2000, dtype=torch.float64)
    torch.manual_seed(1)
    first, second = spike(x) == 1.0, spike(x) == 1.0
    for one, other in ((first, second), (first[0], first[1])):
        agreement = (one == other).double().mean().item()
        assert 0.45 < agreement < 0.55  # independent fair masks agree half of the time
    torch.manual_seed(1)
    assert torch.equal(spike(x) == 1.0, first)


def with_fixed_mask(spike: SpikeFunction, x: Tensor) -> Tensor:
    torch.manual_seed(7)
    out: Tensor = spike(x)
    return out


def gradients(spike: SpikeFunction, x: Tensor) -> tuple[list[float], list[float]]:
    """Per point: derivative by the membrane, and by the width, of what it emits."""
    by_x, by_width = [], []
    for index in range(len(x)):
        emitted = with_fixed_mask(spike, x)[index]
        x_gradient, log_gradient = torch.autograd.grad(emitted, [x, spike.log_width])
        by_x.append(x_gradient[index].item())
        by_width.append((log_gradient / spike.width).item())  # d width = width * d log width
    return by_x, by_width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "make",
    [
        lambda width: ASGL(width, 0.8),
        lambda width: ASGL(width, 0.0),
        lambda width: ASGL(width, 1.0),
        lambda width: SurrogateGradient(width, learn_width=True),
    ],
    ids=["asgl", "analog", "certain", "surrogate"],
)
def test_the_gradients_are_eq_11(make: Any, width: float) -> None:
    spike = in_double(make(width), width)
    by_x, by_width = gradients(spike, points())
    expected_x = [1 / width if inside(p, width) else 0.0 for p in POINTS]
    expected_width = [-p / width**2 if inside(p, width) else 0.0 for p in POINTS]
    assert by_x == pytest.approx(expected_x, rel=1e-12)
    assert by_width == pytest.approx(expected_width, rel=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_gradients_are_those_of_the_smooth_value(width: float) -> None:
    """Finite differences of H alone, with the mask (which takes no part in it) fixed."""
    by_x, by_width = gradients(in_double(ASGL(width, 0.8), width), points())
    slope_x = [(clip(p + STEP, width) - clip(p - STEP, width)) / (2 * STEP) for p in POINTS]
    slope_width = [(clip(p, width + STEP) - clip(p, width - STEP)) / (2 * STEP) for p in POINTS]
    assert by_x == pytest.approx(slope_x, abs=1e-8)
    assert by_width == pytest.approx(slope_width, abs=1e-8)


@pytest.mark.parametrize("width", WIDTHS)
def test_without_spikes_the_net_is_its_own_derivative(width: float) -> None:
    """At probability 0 what is emitted is H itself: finite differences of the forward pass."""
    spike = in_double(ASGL(width, 0.0), width)
    x = points()
    by_x, _ = gradients(spike, x)
    slope = (spike(x.detach() + STEP) - spike(x.detach() - STEP)) / (2 * STEP)
    assert by_x == pytest.approx(slope.tolist(), abs=1e-8)
    assert spike(x).tolist() == pytest.approx([clip(p, width) for p in POINTS])


@pytest.mark.parametrize("width", WIDTHS)
def test_certain_spikes_are_a_surrogate_gradient_with_learned_width(width: float) -> None:
    asgl = in_double(ASGL(width, 1.0), width)
    surrogate = in_double(SurrogateGradient(width, learn_width=True), width)
    assert torch.equal(asgl(points()), surrogate(points()))
    assert asgl(points()).tolist() == [step(p) for p in POINTS]
    assert gradients(asgl, points()) == gradients(surrogate, points())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spike_in_training_is_exactly_one(dtype: torch.dtype) -> None:
    """Smooth + (spike - smooth) must not leave a rounding error in the forward pass."""
    torch.manual_seed(2)
    x = torch.randn(20_000, dtype=dtype) * 3
    for spike in (SurrogateGradient(2.5).to(dtype), ASGL(2.5, 1.0).to(dtype)):
        assert torch.equal(spike.train()(x), heaviside(x))


@pytest.mark.parametrize("direction", [-1.0, 1.0])
@pytest.mark.parametrize("rate", [1.0, 1e3])
def test_no_optimiser_step_makes_a_width_non_positive(direction: float, rate: float) -> None:
    """Whatever the step, the width stays positive, and what is emitted stays a number."""
    spike = ASGL(2.5, 0.0).train()
    optimizer = torch.optim.SGD(spike.parameters(), lr=rate)
    for _ in range(3):
        optimizer.zero_grad()
        (direction * spike.log_width).backward()
        optimizer.step()
    assert spike.width.item() > 0
    assert not torch.isnan(spike(torch.tensor(POINTS))).any()


@pytest.mark.parametrize("log_width", [-1e4, -50.0, 50.0, 1e4])
@pytest.mark.parametrize("smooth", SMOOTH_STEPS)
def test_gradients_are_numbers_at_the_bounds_of_a_width(smooth: str, log_width: float) -> None:
    """In torch operations, which run where there are no kernels, and in single precision."""
    spike = ASGL(1.0, 0.0, smooth=smooth).train()
    spike.log_width.data.fill_(log_width)
    x = torch.tensor([-500.0, *POINTS, 500.0], requires_grad=True)
    for gradient in torch.autograd.grad(spike(x).sum(), [x, spike.log_width]):
        assert torch.isfinite(gradient).all()


def test_whether_a_width_is_learned_is_an_option() -> None:
    for kind in (ASGL, SurrogateGradient):
        for learned in (True, False):
            spike = kind(1.5, learn_width=learned)
            assert spike.log_width.requires_grad is learned
            assert spike.width.item() == pytest.approx(1.5)
    assert isinstance(ASGL().log_width, nn.Parameter)
    assert (ASGL().width.item(), ASGL().probability) == (pytest.approx(2.5), 0.8)


@pytest.mark.parametrize("width", [0.0, -1.0, math.inf, math.nan])
def test_a_width_must_be_positive_and_finite(width: float) -> None:
    with pytest.raises(ValueError, match="width"):
        ASGL(width)
    with pytest.raises(ValueError, match="width"):
        SurrogateGradient(width)


@pytest.mark.parametrize("probability", [-0.1, 1.1, 2.0, math.nan])
def test_a_probability_must_be_one(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        ASGL(2.5, probability)


@pytest.mark.parametrize("kind", [ASGL, SurrogateGradient])
def test_an_unknown_smooth_step_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="no smooth step 'ramp': choose one of clip"):
        kind(1.0, smooth="ramp")


@pytest.mark.parametrize("shape", [(), (3, 1, 1), (3, 2, 2)])
def test_a_width_has_the_shape_asked_for(shape: tuple[int, ...]) -> None:
    """Each element is H of its own width, and each width gets the gradient of its own elements."""
    spike = ASGL(2.0, 0.0, shape=shape).double().train()
    widths = torch.linspace(1.0, 3.0, max(1, math.prod(shape)), dtype=torch.float64).reshape(shape)
    spike.log_width.data.copy_(widths.log())
    x = torch.linspace(-0.4, 0.45, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    out = spike(x)
    everywhere = widths.expand(2, 3, 2, 2)
    expected = [
        clip(p, w) for p, w in zip(x.flatten().tolist(), everywhere.flatten().tolist(), strict=True)
    ]
    assert out.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    (found,) = torch.autograd.grad(out.sum(), spike.log_width)
    by_log_width = (-x / everywhere).sum_to_size(shape)  # width * -x / width^2, all inside
    assert torch.allclose(found, by_log_width, rtol=1e-12)


def test_lsg_has_the_width_of_its_equation() -> None:
    """2 * threshold * sqrt(1 + decay^2) = 1.0198 at threshold 0.5 and decay 0.2; no gradient."""
    threshold = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    decay = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    spike = LSG().double()
    width = spike.width_for(threshold, decay)
    assert width.item() == pytest.approx(2 * 0.5 * math.sqrt(1 + 0.2**2), rel=1e-15)
    assert round(width.item(), 4) == 1.0198
    assert not width.requires_grad
    assert spike.width.item() == pytest.approx(width.item())  # what reports show
    assert not spike.log_width.requires_grad


def test_the_temperature_of_dspike_is_one_over_its_width() -> None:
    spike = Dspike(4.0)
    assert spike.temperature == pytest.approx(4.0)
    assert spike.width.item() == pytest.approx(0.25)
    spike.temperature = 10.0
    assert spike.temperature == pytest.approx(10.0)
    assert (spike.smooth, spike.probability) == ("dspike", 1.0)
    assert not spike.log_width.requires_grad


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_must_be_positive_and_finite(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Dspike(temperature)
    spike = Dspike(2.0)
    with pytest.raises(ValueError, match="temperature"):
        spike.temperature = temperature
    assert spike.temperature == pytest.approx(2.0)


def test_whetstone_sharpens_its_ramp_to_a_step() -> None:
    spike = Whetstone(2.0).train()
    assert (spike.smooth, spike.probability) == ("clip", 0.0)
    x = torch.tensor(POINTS)
    for sharpness, width in ((0.0, 2.0), (0.5, 1.0), (0.75, 0.5)):
        spike.sharpen(sharpness)
        assert spike.width.item() == pytest.approx(width)
        assert spike(x).tolist() == pytest.approx([clip(p, width) for p in POINTS], abs=1e-6)
    spike.sharpen(1.0)
    assert spike.width.item() == pytest.approx(2.0 * Whetstone.LEAST)  # not 0: gradients remain
    away = [p for p in POINTS if abs(p) > 2e-3]
    assert spike(torch.tensor(away)).tolist() == [step(p) for p in away]


@pytest.mark.parametrize("sharpness", [-0.1, 1.1, math.nan])
def test_a_sharpness_lies_between_zero_and_one(sharpness: float) -> None:
    with pytest.raises(ValueError, match="sharpness"):
        Whetstone().sharpen(sharpness)
