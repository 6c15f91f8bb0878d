"""Losses against sums written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from snn_deploy.nn.losses import mean_current_cross_entropy, mean_current_error, tet

T, B, CLASSES = 3, 4, 5
RNG = np.random.default_rng(0)
CURRENTS = RNG.normal(0, 2, (T, B, CLASSES))
LABELS = np.array([4, 0, 2, 2])


def cross_entropy(scores: NDArray[np.float64], label: int) -> float:
    """``-log softmax(scores)[label]``."""
    return math.log(sum(math.exp(score) for score in scores)) - float(scores[label])


def test_cross_entropy_is_of_the_mean_over_time() -> None:
    wanted = 0.0
    for sample in range(B):
        mean = [sum(CURRENTS[t, sample, c] for t in range(T)) / T for c in range(CLASSES)]
        wanted += cross_entropy(np.array(mean), LABELS[sample]) / B
    found = mean_current_cross_entropy(torch.from_numpy(CURRENTS), torch.from_numpy(LABELS))
    assert found.item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("weight", "target"), [(1e-3, 1.0), (0.0, 1.0), (0.25, -0.5), (1.0, 2.0)])
def test_tet_is_the_mean_of_the_losses_of_all_timesteps(weight: float, target: float) -> None:
    cross = square = 0.0
    for t in range(T):
        for sample in range(B):
            cross += cross_entropy(CURRENTS[t, sample], LABELS[sample]) / (T * B)
            for c in range(CLASSES):
                square += (CURRENTS[t, sample, c] - target) ** 2 / (T * B * CLASSES)
    currents, labels = torch.from_numpy(CURRENTS), torch.from_numpy(LABELS)
    found = tet(currents, labels, weight, target)
    assert found.item() == pytest.approx((1 - weight) * cross + weight * square, rel=1e-12)
    if (weight, target) == (1e-3, 1.0):
        assert torch.equal(found, tet(currents, labels))  # the defaults are TET's


def test_tet_of_equal_timesteps_is_cross_entropy() -> None:
    currents = torch.from_numpy(CURRENTS[:1]).expand(T, B, CLASSES)
    labels = torch.from_numpy(LABELS)
    whole = mean_current_cross_entropy(currents, labels).item()
    assert tet(currents, labels, 0.0).item() == pytest.approx(whole, rel=1e-12)


def test_reconstruction_compares_the_mean_over_time() -> None:
    values = RNG.random((B, CLASSES))
    wanted = 0.0
    for sample in range(B):
        for c in range(CLASSES):
            mean = sum(CURRENTS[t, sample, c] for t in range(T)) / T
            wanted += (mean - values[sample, c]) ** 2 / (B * CLASSES)
    found = mean_current_error(torch.from_numpy(CURRENTS), torch.from_numpy(values))
    assert found.item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("loss", [mean_current_cross_entropy, tet])
def test_gradients_reach_every_timestep(loss: object) -> None:
    currents = torch.from_numpy(CURRENTS).requires_grad_()
    assert callable(loss)
    (gradient,) = torch.autograd.grad(loss(currents, torch.from_numpy(LABELS)), [currents])
    assert (gradient.abs().sum(-1) > 0).all()
