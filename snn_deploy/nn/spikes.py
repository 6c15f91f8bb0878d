"""Spike functions: what a neuron emits of its membrane, in training and in evaluation.

One interface: a smooth step H (:mod:`snn_deploy.nn.smooth`) of some width, and the probability with
which an element takes the spike instead of H's value, while the gradient is always H's:

``H(x) + m * detach(Theta(x) - H(x))``, m ~ Bernoulli(probability)       (ASGL, ICML 2023, Eq. 10)

With probability 1 that is a surrogate gradient, with 0 an analog network. Every spike function is
the Heaviside step in evaluation, with no switch that could leave a smooth function behind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from snn_deploy.nn.noise import draw_seed, noise_mask
from snn_deploy.nn.recurrence import Emission
from snn_deploy.nn.smooth import SMOOTH_STEPS

# Gradients have x / width^2 in them, which must not overflow float32.
_LARGEST_LOG = 40.0


def heaviside(x: Tensor) -> Tensor:
    """1 where ``x >= 0``, else 0, in the dtype of ``x``."""
    return (x >= 0).to(x.dtype)


class SpikeFunction(nn.Module):
    """Common part: the width of H, learned or not, and the Heaviside step in evaluation.

    The width is stored as its logarithm, so that no optimiser step can make it non-positive.

    Parameters
    ----------
    smooth : name of H in :data:`snn_deploy.nn.smooth.SMOOTH_STEPS`.
    width : width of the region around the threshold, in units of the membrane; > 0.
    learn_width : whether the width is trained.
    shape : of the width: () for one per layer, (C, 1, 1) per channel, the neurons' shape for each.
    probability : with which an element takes the spike, in [0, 1].
    shared : one mask for all timesteps of a forward pass, not a fresh one for each.
    """

    def __init__(
        self,
        smooth: str,
        width: float,
        learn_width: bool,
        *,
        shape: tuple[int, ...] = (),
        probability: float = 1.0,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if smooth not in SMOOTH_STEPS:
            raise ValueError(f"no smooth step {smooth!r}: choose one of {', '.join(SMOOTH_STEPS)}")
        if not 0 < width < math.inf:
            raise ValueError(f"a width must be positive, not {width}")
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability lies in [0, 1], not {probability}")
        self.smooth = smooth
        self.probability = probability
        self.shared = shared
        log_width = torch.full(shape, math.log(width))
        self.log_width = nn.Parameter(log_width, requires_grad=learn_width)

    @property
    def width(self) -> Tensor:
        """The width, of the parameter's shape."""
        return self.log_width.clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()

    def width_for(self, threshold: Tensor, decay: Tensor) -> Tensor:
        """The width for a neuron with these parameters; :class:`LSG` derives it from them."""
        return self.width

    @property
    def emission(self) -> Emission:
        """What is emitted now: the spike itself in evaluation."""
        probability = self.probability if self.training else 1.0
        return Emission(self.smooth, probability, self.shared)

    def forward(self, x: Tensor) -> Tensor:
        """What is emitted of ``x`` = membrane minus threshold, same shape and dtype."""
        sharp = heaviside(x)
        if not self.training:
            return sharp
        smooth = SMOOTH_STEPS[self.smooth](x, self.width)
        mask = noise_mask(draw_seed(), 0, x.shape, self.probability).to(x.device)
        # smooth + (sharp - smooth) would leave rounding errors in the spikes
        return torch.where(mask, sharp, smooth.detach()) + (smooth - smooth.detach())


class ASGL(SpikeFunction):
    """Adaptive smoothing gradient learning (ICML 2023, Eq. 8-11 and Algorithm 1).

    An element takes the spike with ``probability``, else the smooth value; the gradient is always
    H's. With H = ``clip``: dH/dx = 1/width inside the window, dH/dwidth = -x / width^2 there, both
    0 outside. The mask is not divided by the probability (the algorithm, not the theory, Eq. 12).
    """

    def __init__(
        self,
        width: float = 2.5,
        probability: float = 0.8,
        learn_width: bool = True,
        *,
        smooth: str = "clip",
        shape: tuple[int, ...] = (),
        shared: bool = False,
    ) -> None:
        super().__init__(
            smooth, width, learn_width, shape=shape, probability=probability, shared=shared
        )


class SurrogateGradient(SpikeFunction):
    """Heaviside forward, the slope of a smooth step backward (ICML 2023, Eq. 7).

    ``smooth="clip"`` is the rectangular surrogate gradient. A learned width gets H's derivative by
    the width, as in ASGL with probability 1.
    """

    def __init__(
        self,
        width: float = 1.0,
        learn_width: bool = False,
        *,
        smooth: str = "clip",
        shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(smooth, width, learn_width, shape=shape)


class LSG(SpikeFunction):
    """Learnable surrogate gradient: ``width = 2 * threshold * sqrt(1 + decay^2)`` (LSG, Eq. 14).

    The rectangular surrogate gradient whose width follows the neuron's (learned) decay, per layer.
    The width is detached: the decay's own gradient comes only from the forward pass (Eq. 15).
    """

    def __init__(self) -> None:
        super().__init__("clip", 1.0, learn_width=False)

    def width_for(self, threshold: Tensor, decay: Tensor) -> Tensor:
        """``2 * threshold * sqrt(1 + decay^2)``, detached."""
        with torch.no_grad():
            width = 2 * threshold * torch.sqrt(1 + decay * decay)
            self.log_width.copy_(width.mean().log())  # what reports and plots show
        return width


class Dspike(SpikeFunction):
    """Heaviside forward, the slope of Dspike of one global temperature backward (Dspike, Eq. 7).

    The temperature is not learned by gradient: :func:`snn_deploy.nn.schedules.dspike_temperature`
    chooses it at the start of an epoch (Algorithm 1).

    Parameters
    ----------
    temperature : b > 0; the width is 1 / b.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__("dspike", 1.0, learn_width=False)
        self.temperature = temperature

    @property
    def temperature(self) -> float:
        """The present temperature b."""
        return 1.0 / self.width.item()

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(f"a temperature must be positive, not {value}")
        with torch.no_grad():
            self.log_width.fill_(-math.log(value))


class Whetstone(SpikeFunction):
    """Sharpening: an analog network whose ramps become steps (Whetstone; ASGL with p = 0).

    The ramp's width is ``width * (1 - sharpness)``; a schedule raises the sharpness towards 1.
    """

    # A ramp never gets narrower than this share of its first width: no gradient would be left.
    LEAST = 1e-3

    def __init__(self, width: float = 1.0) -> None:
        super().__init__("clip", width, learn_width=False, probability=0.0)
        self.first_width = width

    def sharpen(self, sharpness: float) -> None:
        """Set the sharpness, in [0, 1]."""
        if not 0 <= sharpness <= 1:
            raise ValueError(f"a sharpness lies in [0, 1], not {sharpness}")
        with torch.no_grad():
            self.log_width.fill_(math.log(self.first_width * max(1 - sharpness, self.LEAST)))
