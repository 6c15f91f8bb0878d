"""Fold batch normalisation into the synapses before it : gamma, beta and running statistics."""

from __future__ import annotations

import numpy as np

from snn_deploy.freezing.current import Current
from snn_deploy.nn.layers import BatchNormOverTime


def fold_batchnorm(current: Current, layer: BatchNormOverTime) -> Current:
    """Multiply weights by k = gamma * scale / sqrt(var + eps); bias: beta + k * (bias - mean).

    Statistics are the running ones, the same at every timestep; ``scale`` is 1, or tdBN's
    alpha * threshold.
    """
    norm = layer.module
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("without running statistics")
    mean = norm.running_mean.double().numpy()
    variance = norm.running_var.double().numpy()
    gamma = np.ones_like(mean) if norm.weight is None else norm.weight.detach().double().numpy()
    beta = np.zeros_like(mean) if norm.bias is None else norm.bias.detach().double().numpy()
    factor = gamma * layer.scale / np.sqrt(variance + norm.eps)
    return current.scaled(
        factor,
        beta + factor * (current.bias - mean),
        np.abs(beta) + np.abs(factor) * (current.magnitude + np.abs(mean)),
    )
