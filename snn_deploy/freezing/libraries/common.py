"""What the neurons of other libraries have in common: parameters, comparators, resets.

An UnfoldableError says what a neuron has that the graph has not, and what to use instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.graph import Reset, ResetSubtract, ResetTo

Floats = NDArray[np.float64]


def parameter(value: Any) -> Floats:
    """A number or tensor of a module in float64, broadcastable to its neurons.

    A size of 1 becomes (); an axis for the batch goes.
    """
    if isinstance(value, Tensor):
        value = value.detach().double().cpu().numpy()
    found = np.array(value, np.float64)  # a plain number is not rounded to float32
    if found.size == 1:
        return found.reshape(())
    while found.shape[0] == 1:
        found = found[0]
    if found.ndim not in (1, 3):
        raise UnfoldableError(
            f"it has parameters of shape {np.shape(value)}",
            "give one for all, [N], or [C, 1, 1] for the channels of a map",
        )
    return found


def fraction(value: Floats, what: str) -> Floats:
    """A decay, checked: in [0, 1]."""
    if not ((value >= 0) & (value <= 1)).all():
        raise UnfoldableError(
            f"its {what} is outside [0, 1]", "use time constants of at least a timestep"
        )
    return value


def one_value(value: Floats, what: str) -> float:
    """A parameter of which the graph has one for all neurons of a population."""
    if not (value == value.flat[0]).all():
        raise UnfoldableError(f"its {what} differs between neurons", "use one for all of a layer")
    return float(value.flat[0])


def fires_at_threshold(step: Callable[[Tensor], Tensor]) -> bool:
    """Whether a spike function is the step ``x >= 0`` (True) or ``x > 0`` (False).

    Its derivative is of no interest here. It is called on numbers of both signs and all
    magnitudes, twice, as some libraries let it draw its spikes.
    """
    for dtype in (torch.float32, torch.float64):
        tiny = torch.finfo(dtype).tiny
        sizes = torch.logspace(np.log10(tiny) + 1, 4, 400, dtype=dtype)
        x = torch.cat([-sizes.flip(0), torch.zeros(1, dtype=dtype), sizes])
        with torch.no_grad():
            found = [step(x).detach().double() for _ in range(2)]
        reached = bool(found[0][len(sizes)])
        expected = (x >= 0 if reached else x > 0).double()
        if not all(torch.equal(one, expected) for one in found):
            raise UnfoldableError(
                "its spike function is not a step in evaluation: it is smooth, graded or random",
                "use a surrogate gradient, which spikes where the membrane exceeds the threshold",
            )
    return reached


def threshold(value: Floats, reached: bool) -> Floats:
    """The threshold of ``u >= threshold`` for a comparator ``u > value``, or ``u >= value``."""
    if not (value > 0).all():
        raise UnfoldableError(
            "its threshold is not above its membrane at rest", "use a higher threshold"
        )
    return value if reached else np.nextafter(value, np.inf)


def subtracting(amount: Floats) -> tuple[Reset, Floats]:
    """A reset by subtraction, and the unit in which each membrane is counted.

    A population subtracts one amount. Where neurons subtract their own, their membranes are counted
    in these: all that is fed to them and their thresholds are divided by the unit.
    """
    if not (np.isfinite(amount) & (amount > 0)).all():
        raise UnfoldableError(
            "its reset does not subtract anything above 0", "use a threshold above 0"
        )
    if (amount == amount.flat[0]).all():
        return ResetSubtract(float(amount.flat[0])), np.ones(())
    return ResetSubtract(1.0), amount


def resetting_to(value: Floats) -> tuple[Reset, Floats]:
    """A hard reset, and the unit of the membranes."""
    return ResetTo(one_value(value, "reset potential")), np.ones(())
