"""The best step of a grid, against every breakpoint there is and against many others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.quantization import clipping
from snn_deploy.quantization.clipping import least_error_step, step_error

Floats = NDArray[np.float64]


def brute_force(weight: Floats, moment: Floats, low: int, high: int) -> float:
    """The smallest error: of every interval between breakpoints, and of a dense scan."""
    size = np.abs(weight[weight != 0])
    codes = np.arange(max(-low, high)) + 0.5
    edges = np.unique(np.concatenate([(size[:, None] / codes).reshape(-1), [size.max() * 2.0]]))[
        ::-1
    ]
    errors = []
    for middle in (edges[:-1] + edges[1:]) / 2:  # the codes of an interval decide its vertex
        found = np.clip(np.rint(weight / middle), low, high)
        squares = (moment * found**2).sum()
        if squares > 0:
            errors.append((moment * found * weight).sum() / squares)
    scan = np.geomspace(size.max() / (8 * high), size.max() * 2, 4000)
    steps = [step for step in (*errors, *scan) if step > 0]
    return min(step_error(weight, moment, step, low, high) for step in steps)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, Floats, int, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 40))
    weight = rng.normal(size=count) if draw(st.booleans()) else rng.uniform(-1, 1, count)
    if draw(st.booleans()):
        weight[0] *= draw(st.sampled_from((3.0, 10.0)))  # one that is worth clipping
    moment = rng.uniform(0.05, 1, count) if draw(st.booleans()) else np.ones(count)
    bits = draw(st.integers(2, 6))
    high = (1 << (bits - 1)) - 1
    return weight, moment, -high - draw(st.integers(0, 1)), high


@given(problem=problems())
def test_no_step_errs_less(problem: tuple[Floats, Floats, int, int]) -> None:
    weight, moment, low, high = problem
    found = least_error_step(weight, moment, low, high)
    least = brute_force(weight, moment, low, high)
    error = step_error(weight, moment, found, low, high)
    assert error <= least + 1e-9 * (moment * weight**2).sum()


@given(problem=problems())
def test_with_few_breakpoints_to_spare_the_best_end_is_not_beaten(
    problem: tuple[Floats, Floats, int, int],
) -> None:
    weight, moment, low, high = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clipping, "_MOST_BREAKPOINTS", 0)
        found = least_error_step(weight, moment, low, high)
    limit = np.where(weight < 0, -low, high)
    ends = 2 * (np.abs(weight) / limit).max() * 2.0 ** (-np.arange(97) / 16)
    scan = min(step_error(weight, moment, end, low, high) for end in ends)
    error = step_error(weight, moment, found, low, high)
    assert error <= scan + 1e-9 * (moment * weight**2).sum()


def test_by_hand() -> None:
    """Codes -1, 0, 1: two weights of 2 and one of 3 err least at (2 + 2 + 3) / 3."""
    weight = np.array([2.0, -2.0, 3.0])
    assert least_error_step(weight, np.ones(3), -1, 1) == pytest.approx(7 / 3, rel=1e-12)
    # a weight that matters a hundred times as much draws the step to itself
    moment = np.array([1.0, 1.0, 100.0])
    found = least_error_step(weight, moment, -1, 1)
    assert found == pytest.approx(304 / 102, rel=1e-12)


def test_weights_on_a_grid_are_met_exactly() -> None:
    weight = 0.37 * np.array([-7, 5, 0, 1, 7, 3])
    found = least_error_step(weight, np.ones(6), -7, 7)
    assert step_error(weight, np.ones(6), found, -7, 7) < 1e-20
    silent = least_error_step(weight, np.zeros(6), -7, 7)  # nothing matters: all alike
    assert silent == pytest.approx(found)
