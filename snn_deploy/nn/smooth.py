"""Smooth steps H: what a spike function emits instead of a spike, or whose slope it borrows.

Each rises from 0 to 1 around x = 0, x being membrane minus threshold, over a region set by its
width; its slope dH/dx is the surrogate gradient of the same name in the literature. Written in
differentiable torch operations: the plain statement that the kernels are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]


def clip(x: Tensor, width: Tensor) -> Tensor:
    """``clip(x / width + 1/2, 0, 1)`` (ASGL, ICML 2023, Eq. 8); its slope is a rectangle."""
    return torch.clamp(x / width + 0.5, 0.0, 1.0)


def triangular(x: Tensor, width: Tensor) -> Tensor:
    """The integral of the triangle ``max(0, 1 - |x / width|) / width``."""
    z = torch.clamp(x / width, -1.0, 1.0)
    return 0.5 + z - 0.5 * z * z.abs()


def sigmoid(x: Tensor, width: Tensor) -> Tensor:
    """``1 / (1 + exp(-x / width))``. The paper prints exp(-a x), its released code has x / a."""
    return torch.sigmoid(x / width)


def tanh(x: Tensor, width: Tensor) -> Tensor:
    """``tanh(x / width) / 2 + 1/2``; the width divides, as in the sigmoid."""
    return 0.5 * torch.tanh(x / width) + 0.5


def arctan(x: Tensor, width: Tensor) -> Tensor:
    """``arctan(pi/2 * x / width) / pi + 1/2``; its slope is 1 / (2 width) at 0."""
    return torch.atan(x / width * (math.pi / 2)) / math.pi + 0.5


def dspike(x: Tensor, width: Tensor) -> Tensor:
    """``tanh(x / width) / (2 tanh(1 / (2 width))) + 1/2`` on |x| <= 1/2 (Dspike, Eq. 7).

    The window keeps its extent of 1; the temperature of the paper is b = 1 / width: towards 0 this
    is :func:`clip` of width 1, towards infinity the step. The paper has its threshold at 1/2; here
    x is relative to the threshold, whatever that is.
    """
    z = torch.clamp(x, -0.5, 0.5)
    return torch.tanh(z / width) / (2 * torch.tanh(0.5 / width)) + 0.5


# The order numbers them for the kernels.
SMOOTH_STEPS: dict[str, Step] = {
    "clip": clip,
    "triangular": triangular,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "arctan": arctan,
    "dspike": dspike,
}
