"""Smooth steps against their formulas in plain Python, in torch and in the compiled kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from snn_deploy.nn import kernels
from snn_deploy.nn.smooth import SMOOTH_STEPS, dspike

Formula = Callable[[float, float], float]


class Statement(NamedTuple):
    """H, dH/dx and dH/dwidth in plain Python."""

    height: Formula
    slope: Formula
    by_width: Formula


def sech2(z: float) -> float:
    return 1 / math.cosh(z) ** 2 if abs(z) < 300 else 0.0


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def triangle_integral(x: float, w: float) -> float:
    """The area of the triangle of height 1 / w on [-w, w] that lies left of x."""
    if x <= -w:
        return 0.0
    if x <= 0:
        return (x + w) ** 2 / (2 * w * w)
    return 1 - (w - x) ** 2 / (2 * w * w) if x <= w else 1.0


def dspike_height(x: float, w: float) -> float:
    """ASGL.md section 7, x from 0 to 1 there: (tanh(b(x-.5)) + tanh(b/2)) / (2 tanh(b/2))."""
    b = 1 / w
    if abs(x) > 0.5:
        return 1.0 if x > 0 else 0.0
    return (math.tanh(b * x) + math.tanh(b / 2)) / (2 * math.tanh(b / 2))


def dspike_slope(x: float, w: float) -> float:
    b = 1 / w
    return b * sech2(b * x) / (2 * math.tanh(b / 2)) if abs(x) <= 0.5 else 0.0


def dspike_by_width(x: float, w: float) -> float:
    """By the quotient rule in b, times db/dw = -b^2."""
    b = 1 / w
    if abs(x) > 0.5:
        return 0.0
    up, down = math.tanh(b * x), math.tanh(b / 2)
    by_b = (x * sech2(b * x) * down - up * sech2(b / 2) / 2) / (2 * down * down)
    return -b * b * by_b


HALF_PI = math.pi / 2
STATEMENTS: dict[str, Statement] = {
    "clip": Statement(
        lambda x, w: min(1.0, max(0.0, x / w + 0.5)),
        lambda x, w: 1 / w if abs(x) <= w / 2 else 0.0,
        lambda x, w: -x / w**2 if abs(x) <= w / 2 else 0.0,
    ),
    "triangular": Statement(
        triangle_integral,
        lambda x, w: max(0.0, 1 - abs(x / w)) / w,
        lambda x, w: -x / w * max(0.0, 1 - abs(x / w)) / w,
    ),
    "sigmoid": Statement(
        lambda x, w: logistic(x / w),
        lambda x, w: logistic(x / w) * logistic(-x / w) / w,
        lambda x, w: -x / w**2 * logistic(x / w) * logistic(-x / w),
    ),
    "tanh": Statement(
        lambda x, w: math.tanh(x / w) / 2 + 0.5,
        lambda x, w: sech2(x / w) / (2 * w),
        lambda x, w: -x / w**2 * sech2(x / w) / 2,
    ),
    "arctan": Statement(
        lambda x, w: math.atan(HALF_PI * x / w) / math.pi + 0.5,
        lambda x, w: 1 / (2 * w * (1 + (HALF_PI * x / w) ** 2)),
        lambda x, w: -x / w**2 / (2 * (1 + (HALF_PI * x / w) ** 2)),
    ),
    "dspike": Statement(dspike_height, dspike_slope, dspike_by_width),
}
# Where H has no derivative, in units of the width (of 1 for dspike).
EDGES = {"clip": 0.5, "triangular": 1.0, "dspike": 0.5}
NAMES = list(SMOOTH_STEPS)

# Inside and outside of every window, on no edge.
POINTS = [-40.0, -2.6, -1.3, -0.6, -0.49, -0.2, -1e-3, 0.0, 1e-3, 0.2, 0.49, 0.6, 1.3, 2.6, 40.0]
WIDTHS = [0.1, 0.45, 1.0, 2.5, 10.0]


def height(name: str, x: float, width: float) -> float:
    value = SMOOTH_STEPS[name](
        torch.tensor(x, dtype=torch.float64), torch.tensor(width, dtype=torch.float64)
    )
    return value.item()


def derivatives(name: str, x: float, width: float) -> tuple[float, float]:
    """By autograd: dH/dx and dH/dwidth."""
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    wide = torch.tensor(width, dtype=torch.float64, requires_grad=True)
    by_x, by_width = torch.autograd.grad(SMOOTH_STEPS[name](at, wide), [at, wide])
    return by_x.item(), by_width.item()


@njit
def compiled_height(kind: int, x: float, width: float) -> float:
    return kernels._height(kind, x, width, 1.0)


@njit
def compiled_slopes(kind: int, x: float, width: float) -> tuple[float, float]:
    return kernels._slopes(kind, x, width, 1.0)


def test_every_smooth_step_is_stated() -> None:
    assert list(STATEMENTS) == NAMES


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_height_and_derivatives_are_those_of_the_formula(name: str, width: float) -> None:
    stated = STATEMENTS[name]
    for x in POINTS:
        assert height(name, x, width) == pytest.approx(stated.height(x, width), abs=1e-14)
        expected = stated.slope(x, width), stated.by_width(x, width)
        assert derivatives(name, x, width) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_the_kernels_compute_the_formula(name: str, width: float) -> None:
    kind, stated = NAMES.index(name), STATEMENTS[name]
    for x in POINTS:
        found = compiled_height(kind, x, width)
        assert found == pytest.approx(stated.height(x, width), abs=1e-14)
        expected = stated.slope(x, width), stated.by_width(x, width)
        assert compiled_slopes(kind, x, width) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(
    name=st.sampled_from(NAMES),
    x=st.floats(-20, 20, allow_subnormal=False),
    width=st.floats(0.05, 50),
)
def test_the_kernels_compute_what_torch_computes(name: str, x: float, width: float) -> None:
    kind = NAMES.index(name)
    assert compiled_height(kind, x, width) == pytest.approx(height(name, x, width), abs=1e-13)
    found = compiled_slopes(kind, x, width)
    # differences of nearly equal numbers, divided by the width squared, or by the temperature
    noise = 1e-13 * max(1 / width**2, width)
    assert found == pytest.approx(derivatives(name, x, width), rel=1e-9, abs=noise)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_finite_differences_of_the_height(name: str, width: float) -> None:
    step = 1e-6 * min(width, 1.0)
    for x in POINTS:
        # a central difference of rounding errors of 1e-16, and the third derivative
        by_x = (height(name, x + step, width) - height(name, x - step, width)) / (2 * step)
        by_width = (height(name, x, width + step) - height(name, x, width - step)) / (2 * step)
        tolerance = 1e-8 / min(width, 1.0)
        if name == "triangular" and x == 0.0:
            tolerance = 1e-5  # its second derivative jumps there
        assert derivatives(name, x, width) == pytest.approx((by_x, by_width), abs=tolerance)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_one_half_at_the_threshold_and_0_and_1_far_from_it(name: str, width: float) -> None:
    assert height(name, 0.0, width) == 0.5
    assert compiled_height(NAMES.index(name), 0.0, width) == 0.5
    assert height(name, -1e9 * width, width) == pytest.approx(0.0, abs=1e-9)
    assert height(name, 1e9 * width, width) == pytest.approx(1.0, abs=1e-9)
    for x in (-math.inf, math.inf):
        exact = 1.0 if x > 0 else 0.0
        assert height(name, x, width) == pytest.approx(exact, abs=1e-15)
        assert compiled_height(NAMES.index(name), x, width) == pytest.approx(exact, abs=1e-15)


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_windows_end_where_they_end(name: str, width: float) -> None:
    edge = EDGES[name] * (1.0 if name == "dspike" else width)
    for x in (edge, edge + 1e-9, 2 * edge, 1e9):
        assert height(name, x, width) == 1.0
        assert height(name, -x, width) == 0.0
    inside = edge * (1 - 1e-3)
    assert 0 < height(name, -inside, width) < 0.5 < height(name, inside, width) < 1
    assert derivatives(name, edge * 1.001, width) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert derivatives(name, -edge * 1.001, width) == (0.0, pytest.approx(0.0, abs=1e-12))


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0, 4.0])
def test_the_window_of_eq_8_includes_its_edges(width: float) -> None:
    """Eq. 11: 1/a and -x/a^2 where |x| <= a/2, in torch and in the kernels."""
    for sign in (-1.0, 1.0):
        at, beyond = sign * width / 2, sign * math.nextafter(width / 2, math.inf)
        for found in (derivatives("clip", at, width), compiled_slopes(0, at, width)):
            assert found == (1 / width, -at / width**2)
        outside = sign * (width / 2 + 4 * abs(beyond - at))
        for found in (derivatives("clip", outside, width), compiled_slopes(0, outside, width)):
            assert found == (0.0, 0.0)
        assert height("clip", at, width) == (1.0 if sign > 0 else 0.0)


@given(
    name=st.sampled_from(NAMES),
    x=st.floats(-20, 20),
    more=st.floats(0, 20),
    width=st.floats(0.05, 50),
)
def test_the_height_rises_symmetrically_from_0_to_1(
    name: str, x: float, more: float, width: float
) -> None:
    low, high = height(name, x, width), height(name, x + more, width)
    assert 0 <= low <= high + 1e-15
    assert high <= 1
    assert height(name, -x, width) == pytest.approx(1 - low, abs=1e-14)
    slope, by_width = derivatives(name, x, width)
    assert slope >= 0
    assert by_width * x <= 1e-12  # a wider step is flatter: lower right of 0, higher left of it


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_the_slope_has_an_area_of_1(name: str, width: float) -> None:
    """Midpoint sums of the surrogate gradient, plus what H has not yet reached at the ends."""
    reach, number = 20 * max(width, 1.0), 200_001
    step = 2 * reach / number
    x = (torch.arange(number, dtype=torch.float64) + 0.5) * step - reach
    x.requires_grad_()
    (slope,) = torch.autograd.grad(
        SMOOTH_STEPS[name](x, torch.tensor(width, dtype=torch.float64)).sum(), x
    )
    missing = 2 * height(name, -reach, width)
    assert slope.sum().item() * step == pytest.approx(1 - missing, abs=2 * step / min(width, 1.0))


@pytest.mark.parametrize(("temperature", "peak"), [(1e-3, 1.0), (1, 1.08), (4, 2.07), (10, 5.0)])
def test_the_peak_slope_of_dspike(temperature: float, peak: float) -> None:
    assert round(derivatives("dspike", 0.0, 1 / temperature)[0], 2) == peak


def test_dspike_of_no_temperature_is_a_ramp_and_of_a_high_one_a_step() -> None:
    for x in (-0.4, -0.1, 0.2, 0.45):
        assert height("dspike", x, 1e4) == pytest.approx(height("clip", x, 1.0), abs=1e-8)
        assert height("dspike", x, 1e-3) == (1.0 if x > 0 else 0.0)


def test_dspike_does_not_overflow_at_any_width_that_a_parameter_can_have() -> None:
    for width in (math.exp(-60), 1e-6, 1e6, math.exp(60)):
        for dtype in (torch.float32, torch.float64):
            x = torch.tensor([-9.0, -0.5, -0.1, 0.0, 0.1, 0.5, 9.0], dtype=dtype)
            assert torch.isfinite(dspike(x, torch.tensor(width, dtype=dtype))).all()


@pytest.mark.parametrize("name", NAMES)
def test_neither_height_nor_slope_overflows(name: str) -> None:
    for x in (-1e30, -50.0, 0.0, 50.0, 1e30):
        for width in (1e-6, 1.0, 1e6):
            value = compiled_height(NAMES.index(name), x, width)
            slope, by_width = compiled_slopes(NAMES.index(name), x, width)
            assert 0 <= value <= 1
            assert math.isfinite(slope)
            assert math.isfinite(by_width)


@njit
def compiled_in_single(kind: int, x: float, width: float) -> tuple[float, float, float]:
    one = np.float32(1)
    slope, by_width = kernels._slopes(kind, np.float32(x), np.float32(width), one)
    return kernels._height(kind, np.float32(x), np.float32(width), one), slope, by_width


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overflows_in_single_precision_either(name: str) -> None:
    """At any width that a parameter can have, gradients stay numbers."""
    for width in (math.exp(-60), 1e-6, 1.0, 1e6, math.exp(50), math.exp(60)):
        for x in (-50.0, -0.3, 0.0, 1e-3, 0.3, 50.0):
            value, slope, by_width = compiled_in_single(NAMES.index(name), x, width)
            assert 0 <= value <= 1
            assert math.isfinite(slope)
            assert math.isfinite(by_width)
