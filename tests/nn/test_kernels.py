"""The elementary functions of the kernels against those of numpy in a higher precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from snn_deploy.nn import kernels

Array = NDArray[Any]


@njit(error_model="numpy")
def exponential(z: Array, out: Array, one: float) -> None:
    for k in range(len(z)):
        out[k] = kernels._exp(z[k])


@njit(error_model="numpy")
def hyperbolic(z: Array, out: Array, one: float) -> None:
    for k in range(len(z)):
        out[k] = kernels._tanh(z[k], one)


@njit(error_model="numpy")
def inverse_tangent(z: Array, out: Array, one: float) -> None:
    for k in range(len(z)):
        out[k] = kernels._arctan(z[k])


# What is compiled, what it is, and how far (in roundings of a result) it may be off.
FUNCTIONS: dict[str, tuple[Any, Callable[[Array], Array], float]] = {
    "exp": (exponential, np.exp, 2.0),
    "tanh": (hyperbolic, np.tanh, 3.0),
    "arctan": (inverse_tangent, np.arctan, 3.0),
}
PRECISIONS = [np.float32, np.float64]


def applied(name: str, z: Array) -> Array:
    out = np.empty_like(z)
    FUNCTIONS[name][0](z, out, z.dtype.type(1))
    return out


def points(name: str, precision: Any) -> Array:
    """Evenly spaced, and of every size; exp is made for z <= 0, and here normal."""
    far = 87.0 if precision is np.float32 else 708.0
    below = -np.concatenate([np.linspace(0, far, 200_001), np.geomspace(1e-30, far, 200_001)])
    return (below if name == "exp" else np.concatenate([below, -below])).astype(precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_are_exact_to_a_few_roundings_of_the_result(name: str, precision: Any) -> None:
    """Relative to the result, so near 0 and in the tail of exp too."""
    if np.finfo(np.longdouble).nmant <= np.finfo(precision).nmant:
        pytest.skip("nothing more precise on this machine")
    z = points(name, precision)
    _, exact, roundings = FUNCTIONS[name]
    expected = exact(z.astype(np.longdouble))
    error = np.abs(applied(name, z) - expected)
    assert (error <= roundings * np.finfo(precision).eps * np.abs(expected)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_beyond_all_bounds_they_are_what_they_tend_to(precision: Any) -> None:
    z = np.array([-1e30, -np.inf], precision)
    least = applied("exp", z)
    assert ((least >= 0) & (least < 1e-37)).all()
    assert applied("tanh", np.concatenate([z, -z])).tolist() == [-1, -1, 1, 1]
    right = precision(np.pi / 2)
    assert applied("arctan", np.concatenate([z, -z])).tolist() == [-right, -right, right, right]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_zero_is_exact_and_no_number_stays_none(name: str, precision: Any) -> None:
    expected = 1.0 if name == "exp" else 0.0
    assert applied(name, np.array([0.0, -0.0], precision)).tolist() == [expected, expected]
    assert np.isnan(applied(name, np.array([np.nan], precision))).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_result_does_not_depend_on_its_place(name: str) -> None:
    """In a whole vector, or left over at the end of an array: the same bits."""
    for precision in PRECISIONS:
        z = -np.abs(np.random.default_rng(0).normal(size=37)).astype(precision)
        whole = applied(name, z)
        for k in range(len(z)):
            assert applied(name, z[k : k + 1])[0] == whole[k]
