"""Spike functions: what a neuron emits of its membrane, in training and in evaluation.

Every one is the Heaviside step in evaluation, with no switch that could leave a smooth function
behind. In training they differ in what passes forward and in what gradient flows back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LARGEST_LOG = 60.0


def heaviside(x: Tensor) -> Tensor:
    """1 where ``x >= 0``, else 0, in the dtype of ``x``."""
    return (x >= 0).to(x.dtype)


def ramp(x: Tensor, width: Tensor) -> Tensor:
    """``clip(x / width + 1/2, 0, 1)``: ASGL's forward surrogate (ICML 2023, Eq. 8)."""
    return torch.clamp(x / width + 0.5, 0.0, 1.0)


class SpikeFunction(nn.Module):
    """Common part: a positive width, learned or not, and the Heaviside step in evaluation.

    The width is stored as its logarithm, so that no optimiser step can make it non-positive.

    Parameters
    ----------
    width : width of the window around the threshold, in units of the membrane; > 0.
    learn_width : whether the width is trained, one per spike function.
    """

    def __init__(self, width: float, learn_width: bool) -> None:
        super().__init__()
        if not 0 < width < math.inf:
            raise ValueError(f"a width must be positive, not {width}")
        self.log_width = nn.Parameter(torch.tensor(math.log(width)), requires_grad=learn_width)

    @property
    def width(self) -> Tensor:
        """The width, a scalar tensor."""
        # exp of less than -87 is 0 in float32, which no width may be
        return self.log_width.clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of ``x`` = membrane minus threshold, same shape and dtype."""
        return self.training_spikes(x) if self.training else heaviside(x)

    def training_spikes(self, x: Tensor) -> Tensor:
        """What is emitted in training."""
        raise NotImplementedError


class ASGL(SpikeFunction):
    """Adaptive smoothing gradient learning (ICML 2023, Eq. 8-11 and Algorithm 1).

    ``H(x) + m * detach(Theta(x) - H(x))`` with m ~ Bernoulli(probability), fresh for every element,
    timestep and forward pass: an element takes the spike with this probability, else the smooth
    value, and the gradient is always H's. So dH/dx = 1/width inside the window, dH/dwidth =
    -x / width^2 there, both 0 outside. probability 1 is a surrogate gradient with learned width.
    """

    def __init__(
        self, width: float = 2.5, probability: float = 0.8, learn_width: bool = True
    ) -> None:
        super().__init__(width, learn_width)
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability lies in [0, 1], not {probability}")
        self.probability = probability

    def training_spikes(self, x: Tensor) -> Tensor:
        """Smooth values, replaced by spikes with the given probability."""
        smooth = ramp(x, self.width)
        mask = torch.rand_like(x) < self.probability
        return smooth + (mask * (heaviside(x) - smooth)).detach()


class SurrogateGradient(SpikeFunction):
    """Heaviside forward, the rectangular window's gradient backward (ICML 2023, Eq. 7)."""

    def __init__(self, width: float = 1.0, learn_width: bool = False) -> None:
        super().__init__(width, learn_width)

    def training_spikes(self, x: Tensor) -> Tensor:
        """Spikes with the gradient of the ramp."""
        smooth = ramp(x, self.width)
        return smooth + (heaviside(x) - smooth).detach()
