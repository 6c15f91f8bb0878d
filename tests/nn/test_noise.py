"""The noise against its hash in integers of Python, and its statistics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snn_deploy.nn.noise import draw_seed, noise_mask
from snn_deploy.nn.recurrence import Emission, Parameters, run

SEED = 0x1234_5678_9ABC_DEF0 >> 2


def lowbias32(word: int) -> int:
    """C. Wellons's integer hash, on 32 bits."""
    word ^= word >> 16
    word = word * 0x7FEB352D % 2**32
    word ^= word >> 15
    word = word * 0x846CA68B % 2**32
    return word ^ (word >> 16)


def takes_the_spike(seed: int, timestep: int, index: int, probability: float) -> bool:
    """A hash of (seed, t, index) below probability * 2^32."""
    low, high = seed % 2**32, seed // 2**32
    word = lowbias32(timestep ^ low)
    word = lowbias32(index ^ word)
    return lowbias32(word ^ high) < probability * 2**32


def test_the_hash_is_the_published_one() -> None:
    """Bijective on a sample, no fixed point but 0, and half of the bits flip with any one."""
    assert lowbias32(0) == 0
    rng = np.random.default_rng(0)
    words = [int(word) for word in rng.integers(1, 2**32, 500)]
    flipped = [
        (lowbias32(word) ^ lowbias32(word ^ (1 << bit))).bit_count()
        for word, bit in itertools.product(words, range(32))
    ]
    assert abs(np.mean(flipped) - 16) < 4 * math.sqrt(8 / len(flipped))


@given(
    seed=st.integers(0, 2**62 - 1),
    timestep=st.integers(0, 10_000),
    probability=st.floats(0, 1, exclude_max=True),
    shape=st.sampled_from([(1,), (2, 3), (2, 3, 2, 2)]),
)
def test_the_mask_is_the_hash_in_integers(
    seed: int, timestep: int, probability: float, shape: tuple[int, ...]
) -> None:
    found = noise_mask(seed, timestep, torch.Size(shape), probability)
    assert found.dtype == torch.bool
    assert found.shape == shape
    expected = [
        takes_the_spike(seed, timestep, index, int(probability * 2**32) / 2**32)
        for index in range(math.prod(shape))
    ]
    assert found.flatten().tolist() == expected


def mask(seed: int, timestep: int, probability: float, number: int = 100_000) -> Tensor:
    return noise_mask(seed, timestep, torch.Size((number,)), probability)


@pytest.mark.parametrize("seed", [0, 1, SEED])
@pytest.mark.parametrize("probability", [0.001, 0.2, 0.5, 0.8, 0.99])
def test_the_share_of_spikes_is_the_probability(seed: int, probability: float) -> None:
    for timestep in (0, 1, 77):
        share = mask(seed, timestep, probability).double().mean().item()
        deviation = math.sqrt(probability * (1 - probability) / 100_000)
        assert abs(share - probability) <= 4 * deviation


def test_probabilities_0_and_1_are_exact() -> None:
    for seed, timestep in itertools.product((0, 1, SEED), (0, 1, 77)):
        assert not mask(seed, timestep, 0.0).any()
        assert mask(seed, timestep, 1.0).all()
        # what hashes to 0 is the first element of seed 0 at timestep 0: below no probability of 0
        assert mask(0, 0, 1e-9)[0]


def test_a_larger_probability_only_adds_spikes() -> None:
    few, many = mask(SEED, 3, 0.3), mask(SEED, 3, 0.7)
    assert not (few & ~many).any()


def uncorrelated(one: Tensor, other: Tensor) -> bool:
    """Whether two masks of probability 1/2 agree half of the time, within 4 deviations."""
    agreement = (one == other).double().mean().item()
    return abs(agreement - 0.5) <= 4 * 0.5 / math.sqrt(one.numel())


def test_elements_timesteps_and_seeds_are_independent() -> None:
    here = mask(SEED, 5, 0.5)
    for distance in (1, 2, 3, 4, 7, 8, 16, 64, 1000, 1024, 4096):
        assert uncorrelated(here[distance:], here[:-distance])
    for timestep in (0, 1, 4, 6, 7, 13, 5 + 2**16):
        assert uncorrelated(here, mask(SEED, timestep, 0.5))
    for bit in range(62):
        assert uncorrelated(here, mask(SEED ^ (1 << bit), 5, 0.5))
    for seed in (SEED + 1, SEED - 1, 0, 1):
        assert uncorrelated(here, mask(seed, 5, 0.5))


def test_pairs_of_neighbours_fall_evenly() -> None:
    """Element and neighbour, timestep and next: all four outcomes alike (chi-squared, 3 df)."""
    here, later = mask(SEED, 8, 0.5, 200_000), mask(SEED, 9, 0.5, 200_000)
    for one, other in ((here[::2], here[1::2]), (here, later)):
        counts = torch.bincount(2 * one.long() + other.long(), minlength=4).double()
        expected = len(one) / 4
        assert ((counts - expected) ** 2 / expected).sum().item() < 21.1  # p = 1e-4


def test_a_position_is_that_of_the_flattened_tensor() -> None:
    flat = noise_mask(SEED, 2, torch.Size((24,)), 0.5)
    assert torch.equal(noise_mask(SEED, 2, torch.Size((2, 3, 4)), 0.5).flatten(), flat)


def test_seeds_come_from_the_generator_of_torch() -> None:
    torch.manual_seed(4)
    first = [draw_seed() for _ in range(100)]
    torch.manual_seed(4)
    assert [draw_seed() for _ in range(100)] == first
    assert len(set(first)) == 100
    assert all(0 <= seed < 2**62 for seed in first)
    assert max(first) >= 2**61  # both key words are used


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("shared", "per_neuron"), [(False, False), (False, True), (True, False)])
def test_the_kernels_make_the_same_mask(probability: float, shared: bool, per_neuron: bool) -> None:
    """A current far above the threshold of a wide ramp: 1 is a spike, what is below is smooth."""
    samples, neurons, steps, at = 3, 1500, 4, 6
    shape = (neurons,) if per_neuron else ()
    one = torch.ones((), dtype=torch.float64)
    parameters = Parameters(theta=one * 0.5, decay=one * 0.0, width=one.expand(shape) * 10)
    current = torch.ones(1, samples, neurons, dtype=torch.float64)
    emission = Emission("clip", probability, shared)
    spikes, _ = run(current, steps, parameters, emission, SEED, at=at)
    assert set(spikes.unique().tolist()) <= {1.0, 0.5 / 10 + 0.5}
    for t in range(steps):
        step = 0 if shared else at + t
        expected = noise_mask(SEED, step, torch.Size((samples, neurons)), probability)
        assert torch.equal(spikes[t] == 1, expected)


def test_the_kernels_emit_no_spike_with_probability_0_even_where_the_hash_is_0() -> None:
    """Which is at the first element of seed 0 at timestep 0."""
    one = torch.ones((), dtype=torch.float64)
    parameters = Parameters(theta=one * 0.5, decay=one * 0.0, width=one * 10)
    current = torch.ones(1, 1, 3, dtype=torch.float64)
    for probability, spikes in ((0.0, 0), (1e-9, 1)):
        emitted, _ = run(current, 1, parameters, Emission("clip", probability), 0)
        assert (emitted == 1).sum() == spikes
        assert (emitted[0, 0, 0] == 1) == spikes
