"""Fold batch normalisation into the synapses before it (ASGL.md, part B, item 3)."""

from __future__ import annotations

import numpy as np
from torch import nn

from snn_deploy.freezing.current import Current


def fold_batchnorm(current: Current, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Current:
    """Multiply weights by k = gamma / sqrt(var + eps); the bias becomes beta + k * (bias - mean).

    Statistics are the running ones, the same at every timestep.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("without running statistics")
    mean = norm.running_mean.double().numpy()
    variance = norm.running_var.double().numpy()
    gamma = np.ones_like(mean) if norm.weight is None else norm.weight.detach().double().numpy()
    beta = np.zeros_like(mean) if norm.bias is None else norm.bias.detach().double().numpy()
    factor = gamma / np.sqrt(variance + norm.eps)
    per_output = (-1, *([1] * (current.weight.ndim - 1)))
    return current.replaced(
        weight=current.weight * factor.reshape(per_output),
        bias=beta + factor * (current.bias - mean),
        magnitude=np.abs(beta) + np.abs(factor) * (current.magnitude + np.abs(mean)),
    )
