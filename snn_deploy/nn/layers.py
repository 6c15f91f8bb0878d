"""Layers without memory, over sequences [T, B, ...]; [1, B, ...] where all timesteps are alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OverTime(nn.Module):
    """Applies a stateless module to every timestep at once: [T, B, ...] as a batch of T*B."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, ...] to [T, B, ...]."""
        out: Tensor = self.module(x.flatten(0, 1))
        return out.reshape(*x.shape[:2], *out.shape[1:])


class BatchNormOverTime(nn.Module):
    """Batch normalisation whose statistics are over time, batch and space.

    ``y = gamma * scale * (c - E) / sqrt(Var + eps) + beta``. ``scale`` 1 is the plain batch
    normalisation over T*B of the papers' released code; tdBN as printed has ``alpha * threshold``,
    with alpha 1/sqrt(2) at the end of a residual branch and on its shortcut.
    """

    def __init__(self, module: nn.BatchNorm1d | nn.BatchNorm2d, scale: float = 1.0) -> None:
        super().__init__()
        self.module = module
        self.scale = scale

    def forward(self, x: Tensor, timesteps: int) -> Tensor:
        """[T, B, ...] to the same; [1, B, ...] stands for ``timesteps`` equal steps."""
        module = self.module
        if self.training and len(x) == 1 < timesteps and x.numel() == x.shape[2]:
            x = x.expand(timesteps, *x.shape[1:])  # torch asks for two values per channel
        weight = module.weight if self.scale == 1.0 else module.weight * self.scale
        flat = x.flatten(0, 1)
        mean, variance, momentum = module.running_mean, module.running_var, module.momentum
        if self.training and mean is not None and variance is not None:
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.add_(1)
            if momentum is None:  # as in torch: the plain mean of all batches
                momentum = 1.0 / float(module.num_batches_tracked)
            variance = variance.clone()  # corrected below, while backward keeps what it was given
        out = nn.functional.batch_norm(
            flat, mean, variance, weight, module.bias, self.training or mean is None,
            momentum or 0.0, module.eps,
        )  # fmt: skip
        if self.training and module.running_var is not None and variance is not None:
            _update(module.running_var, variance, momentum or 0.0, flat, timesteps // len(x))
        return out.reshape(x.shape)


@torch.no_grad()
def _update(kept: Tensor, found: Tensor, momentum: float, flat: Tensor, repeats: int) -> None:
    """Take over a running variance, as if each value had stood there ``repeats`` times.

    The unbiased variance of n values repeated T times has n*T - 1 in its denominator, not n - 1.
    """
    if repeats > 1:
        n = flat.numel() // flat.shape[1]
        before = kept * (1 - momentum)
        found = before + (found - before) * (repeats * (n - 1) / (repeats * n - 1))
    kept.copy_(found)


class Residual(nn.Module):
    """Two ways from the same spikes, whose currents are added; an empty shortcut is identity."""

    def __init__(self, layers: Chain, shortcut: Chain) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut

    def forward(self, x: Tensor, timesteps: int) -> Tensor:
        """Spikes [T, B, ...] to a current of the same."""
        out: Tensor = self.layers(x, timesteps) + self.shortcut(x, timesteps)
        return out


class Chain(nn.Sequential):
    """Layers one after the other; those that ask for it are told the number of timesteps."""

    def forward(self, x: Tensor, timesteps: int) -> Tensor:  # type: ignore[override]
        """[T, B, ...] to [T, B, ...]; see :class:`OverTime` for the shapes."""
        for layer in self:
            x = layer(x) if isinstance(layer, OverTime) else layer(x, timesteps)
        return x
