"""Losses on readout currents [T, B, classes]."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def mean_current_cross_entropy(currents: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the current's mean over time (ASGL, ICML 2023, Eq. 5; LSG, Eq. 9-10)."""
    return functional.cross_entropy(currents.mean(0), labels)


def tet(currents: Tensor, labels: Tensor, weight: float = 1e-3, target: float = 1.0) -> Tensor:
    """Temporal efficient training (Deng et al. 2022).

    ``(1 - weight) * mean_t CE(currents[t], labels) + weight * MSE(currents, target)``.
    """
    steps = len(currents)
    cross = functional.cross_entropy(currents.flatten(0, 1), labels.repeat(steps))
    return (1 - weight) * cross + weight * ((currents - target) ** 2).mean()


def mean_current_error(currents: Tensor, values: Tensor) -> Tensor:
    """Mean squared error of the current's mean over time, for reconstruction."""
    return functional.mse_loss(currents.mean(0), values)
