"""The noise of ASGL: which elements take the spike, as a function of a seed and a position.

A mask is never stored: element ``index`` at timestep ``t`` takes the spike where a hash of (seed,
t, index) is below ``probability * 2**32``. So a kernel can make it where it is used, it is the same
on every device and with any number of threads, and it is repeatable from the seed alone, which is
drawn from torch's generator. The mixing steps are those of the integer hash "lowbias32" (C.
Wellons), applied once per key word.
"""

from __future__ import annotations

import torch
from torch import Tensor

MULTIPLIER_1 = 0x7FEB352D
MULTIPLIER_2 = 0x846CA68B
_WORD = 0xFFFFFFFF


def draw_seed() -> int:
    """A seed from torch's global generator."""
    return int(torch.randint(1 << 62, ()))


def keys(seed: int) -> tuple[int, int]:
    """The two 32-bit key words of a seed."""
    return seed & _WORD, seed >> 32


def noise_mask(seed: int, timestep: int, shape: torch.Size, probability: float) -> Tensor:
    """Where the spike is taken at one timestep: bool of ``shape``, True with ``probability``."""
    if probability >= 1:
        return torch.ones(shape, dtype=torch.bool)
    first, second = keys(seed)
    at_step = _mix(torch.tensor(timestep & _WORD) ^ first)
    index = torch.arange(shape.numel()) & _WORD
    word = _mix(_mix(index ^ at_step) ^ second)
    return (word < below(probability)).reshape(shape)


def below(probability: float) -> int:
    """The 32-bit number below which a hashed word means a spike."""
    return min(int(probability * (1 << 32)), _WORD)


def _mix(word: Tensor) -> Tensor:
    """Scramble 32-bit words, held in int64."""
    word = word ^ (word >> 16)
    word = (word * MULTIPLIER_1) & _WORD
    word = word ^ (word >> 15)
    word = (word * MULTIPLIER_2) & _WORD
    return word ^ (word >> 16)
