"""Learned rounding, against all ways to round."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.quantization.rounding import learned_rounding, rounding_error

Floats = NDArray[np.float64]


def problem(rng: np.random.Generator, synapses: int, channels: int) -> tuple[Floats, ...]:
    """Float weights, both grid points of each, and the statistics of correlated inputs."""
    weight = rng.normal(size=(channels, synapses)) * 2
    start = np.rint(weight)
    other = start + np.sign(weight - start)
    common = rng.random((200, 1)) < rng.uniform(0.1, 0.9)
    inputs = ((rng.random((200, synapses)) < 0.3) | common).astype(np.float64)
    wanted = inputs @ weight.T
    return start, other, inputs.T @ inputs / 200, wanted.T @ inputs / 200


@given(
    seed=st.integers(0, 2**32 - 1), synapses=st.integers(1, 8), channels=st.integers(1, 3),
    fixed=st.booleans(),
)  # fmt: skip
def test_between_the_nearest_and_the_best(
    seed: int, synapses: int, channels: int, fixed: bool
) -> None:
    start, other, gram, cross = problem(np.random.default_rng(seed), synapses, channels)
    if fixed:
        other[:, 0] = start[:, 0]
    moved = learned_rounding(start, other, gram, cross)
    found = rounding_error(np.where(moved, other, start), gram, cross)
    nearest = rounding_error(start, gram, cross)
    ways = np.array(list(product((False, True), repeat=synapses)))
    all_errors = np.array(
        [rounding_error(np.where(way, other, start), gram, cross) for way in ways]
    )
    best = all_errors.min(axis=0)
    assert (found <= nearest).all()
    assert (found >= best - 1e-9).all()
    event(f"best of all: {bool((found <= best + 1e-9).all())}")
    # no single change helps any more
    for channel in range(channels):
        for synapse in range(synapses):
            flipped = moved[channel].copy()
            flipped[synapse] ^= True
            one = np.where(flipped, other[channel], start[channel])[None]
            error = rounding_error(one, gram, cross[channel][None])
            assert error[0] >= found[channel] - 1e-9


def test_what_matters_most_is_found_by_hand() -> None:
    """Two inputs that always spike together want 0.4 + 0.4: one up, one down, not 0 + 0."""
    gram, exact = np.ones((2, 2)), np.array([[0.4, 0.4]])
    start, other = np.rint(exact), np.ones((1, 2))
    moved = learned_rounding(start, other, gram, exact @ gram)
    assert moved.sum() == 1


def test_channels_do_not_depend_on_each_other() -> None:
    start, other, gram, cross = problem(np.random.default_rng(5), 20, 6)
    together = learned_rounding(start, other, gram, cross)
    for channel in range(6):
        one = slice(channel, channel + 1)
        alone = learned_rounding(start[one], other[one], gram, cross[one])
        assert np.array_equal(together[one], alone)
