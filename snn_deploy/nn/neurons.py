"""Neurons of the training side, over whole sequences [T, B, ...]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snn_deploy.nn.spikes import SpikeFunction


class LIF(nn.Module):
    """Leaky integrate-and-fire with hard reset (ASGL, ICML 2023, Eq. 1-4).

    ``u[t] = decay * u[t-1] * (1 - s[t-1]) + c[t]``, ``s[t] = spike(u[t] - threshold)``; the state
    is zero before the first step. The reset path carries gradient (Eq. 6), and in training it uses
    the spike function's own, possibly smooth, output.

    Parameters
    ----------
    threshold, decay : fixed; threshold > 0, 0 <= decay < 1.
    spike : the spike function.
    """

    def __init__(self, threshold: float, decay: float, spike: SpikeFunction) -> None:
        super().__init__()
        if threshold <= 0 or not 0 <= decay < 1:
            raise ValueError(f"threshold {threshold} must be > 0 and decay {decay} in [0, 1)")
        self.threshold = threshold
        self.decay = decay
        self.spike = spike

    def forward(self, current: Tensor) -> Tensor:
        """Spikes [T, B, ...] of a current [T, B, ...]."""
        membrane = torch.zeros_like(current[0])
        spikes = []
        for step in current.unbind(0):
            membrane = self.decay * membrane + step
            emitted = self.spike(membrane - self.threshold)
            membrane = membrane * (1 - emitted)
            spikes.append(emitted)
        return torch.stack(spikes)
