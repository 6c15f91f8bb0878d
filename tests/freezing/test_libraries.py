"""What all neurons of other libraries rest on; beside the libraries themselves: tests/peers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snn_deploy.freezing.libraries.common import (
    fires_at_threshold,
    fraction,
    one_value,
    parameter,
    resetting_to,
    subtracting,
    threshold,
)
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.graph import ResetSubtract, ResetTo

STEPS: dict[str, tuple[Any, bool]] = {
    "above": (lambda x: (x > 0).float(), False),
    "from": (lambda x: (x >= 0).to(x.dtype), True),
    "heaviside": (lambda x: torch.heaviside(x, torch.zeros(1, dtype=x.dtype)), False),
}
NO_STEPS: dict[str, Any] = {
    "sigmoid": torch.sigmoid,
    "steep sigmoid": lambda x: torch.sigmoid(x * 1e6),
    "late": lambda x: (x > 1e-20).float(),
    "early": lambda x: (x > -1e-20).float(),
    "capped": lambda x: ((x > 0) & (x < 100)).float(),
    "signed": torch.sign,
    "graded": lambda x: x.clamp(0, 1),
    "drawn": lambda x: torch.bernoulli(torch.sigmoid(x)),
    "several": lambda x: (x > 0).float() * 2,
    "below": lambda x: (x < 0).float(),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_functions_are_told_apart_at_zero(name: str) -> None:
    step, reached = STEPS[name]
    assert fires_at_threshold(step) is reached


@pytest.mark.parametrize("name", NO_STEPS)
def test_what_is_no_step_is_refused(name: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnfoldableError, match="not a step"):
        fires_at_threshold(NO_STEPS[name])


@given(theta=st.floats(1e-6, 1e6), above=st.integers(-3, 3), reached=st.booleans())
def test_a_threshold_says_what_the_comparator_says(theta: float, above: int, reached: bool) -> None:
    u = theta
    for _ in range(abs(above)):
        u = float(np.nextafter(u, np.inf if above > 0 else -np.inf))
    fires = u >= theta if reached else u > theta
    assert (u >= float(threshold(np.array(theta), reached))) is fires


@given(
    seed=st.integers(0, 2**31), own=st.booleans(), theta=st.floats(0.3, 2), decay=st.floats(0.1, 1)
)
def test_membranes_counted_in_what_they_subtract(
    seed: int, own: bool, theta: float, decay: float
) -> None:
    """The same spikes as neurons that subtract amounts of their own, except at ties."""
    random = np.random.default_rng(seed)
    amounts = random.uniform(0.3, 2, 4) if own else np.full(4, theta)
    how, unit = subtracting(amounts)
    assert isinstance(how, ResetSubtract)
    assert (np.ndim(unit) == 0) is not own
    u, v = np.zeros(4), np.zeros(4)
    for _ in range(20):
        current = random.normal(0.3, 1, 4)
        u, v = decay * u + current, decay * v + current / unit
        fires = u >= theta
        assert ((v >= theta / unit) == fires)[abs(u - theta) > 1e-9].all()
        u, v = u - fires * amounts, v - fires * how.amount


@pytest.mark.parametrize("value", [0.3, torch.tensor(0.3), torch.tensor([0.3]), torch.ones(1, 1)])
def test_one_parameter_has_no_axes(value: Any) -> None:
    assert parameter(value).shape == ()
    assert parameter(value) == float(value)


def test_parameters_keep_the_axes_of_their_neurons() -> None:
    assert parameter(torch.rand(5)).shape == (5,)
    assert parameter(torch.rand(1, 4, 1, 1)).shape == (4, 1, 1)
    assert parameter(torch.rand(4, 3, 3)).shape == (4, 3, 3)
    with pytest.raises(UnfoldableError, match="shape"):
        parameter(torch.rand(2, 3))


def test_values_that_no_graph_has() -> None:
    with pytest.raises(UnfoldableError, match="outside"):
        fraction(np.array([0.5, 1.01]), "decay")
    with pytest.raises(UnfoldableError, match="differs"):
        one_value(np.array([0.5, 0.6]), "reset potential")
    with pytest.raises(UnfoldableError, match="subtract"):
        subtracting(np.array([0.5, 0.0]))
    with pytest.raises(UnfoldableError, match="not above"):
        threshold(np.array(0.0), True)
    how, unit = resetting_to(np.array([0.2, 0.2]))
    assert isinstance(how, ResetTo)
    assert (how.value, unit) == (0.2, 1.0)


def test_libraries_that_nobody_loaded_are_not_loaded() -> None:
    code = (
        "import sys; from snn_deploy.freezing.leaves import libraries; names = "
        "[type(one).__name__ for one in libraries()]; assert names == ['Ours'], names; "
        "assert not {'snntorch', 'spikingjelly', 'norse'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
