"""Models built from an architecture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snn_deploy.nn.architecture import Architecture, Layer
from snn_deploy.nn.neurons import LIF
from snn_deploy.nn.spikes import ASGL, SpikeFunction, SurrogateGradient


class OverTime(nn.Module):
    """Applies a stateless module to every timestep at once: [T, B, ...] as a batch of T*B.

    Batch normalisation inside therefore takes its statistics over time, batch and space.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, ...] to [T, B, ...]."""
        out: Tensor = self.module(x.flatten(0, 1))
        return out.reshape(*x.shape[:2], *out.shape[1:])


class SpikingNet(nn.Module):
    """A feed-forward spiking network with mean-current readout (ASGL, ICML 2023, Eq. 1-5).

    A constant input is fed as the same current at every timestep. Input is raw: the normalisation
    of the architecture happens inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        per_channel = (-1, *([1] * (len(architecture.input_shape) - 1)))
        for name, value in (("mean", architecture.mean), ("std", architecture.std)):
            self.register_buffer(name, torch.tensor(value).reshape(per_channel), persistent=False)
        self.layers = nn.Sequential(*(_build(architecture, layer) for layer in architecture.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Mean readout current [B, classes].

        ``x`` is [B, *input shape] for a constant input, [B, T, *input shape] for spikes.
        """
        if self.architecture.input_kind == "constant":
            normal = (x - self.mean) / self.std
            sequence = normal.expand(self.architecture.timesteps, *normal.shape)
        else:
            sequence = x.transpose(0, 1)
        out: Tensor = self.layers(sequence)
        return out.mean(dim=0)


def spike_function(architecture: Architecture) -> SpikeFunction:
    """A new spike function, as the architecture describes it."""
    name, options = architecture.spike
    functions: dict[str, type[SpikeFunction]] = {"asgl": ASGL, "surrogate": SurrogateGradient}
    return functions[name](**options)


def _build(architecture: Architecture, layer: Layer) -> nn.Module:
    options = layer.options
    if layer.type == "lif":
        return LIF(architecture.threshold, architecture.decay, spike_function(architecture))
    module: nn.Module
    if layer.type == "conv":
        module = nn.Conv2d(
            layer.source[0],
            options["channels"],
            options["kernel"],
            options["stride"],
            options["padding"],
            bias=options["bias"],
        )
    elif layer.type == "batchnorm":
        norm = nn.BatchNorm2d if len(layer.source) == 3 else nn.BatchNorm1d
        module = norm(layer.source[0])
    elif layer.type == "avgpool":
        module = nn.AvgPool2d(options["kernel"])
    elif layer.type == "flatten":
        module = nn.Flatten()
    else:
        module = nn.Linear(layer.source[0], options["features"], bias=options["bias"])
    return OverTime(module)
