"""Models built from an architecture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snn_deploy.nn.architecture import Architecture, Layer
from snn_deploy.nn.layers import BatchNormOverTime, Chain, OverTime, Residual
from snn_deploy.nn.neurons import CLIF, LIF
from snn_deploy.nn.spikes import ASGL, LSG, Dspike, SpikeFunction, SurrogateGradient, Whetstone

__all__ = ["SpikingNet", "spike_function"]


class SpikingNet(nn.Module):
    """A spiking network with mean-current readout (ASGL, ICML 2023, Eq. 1-5).

    A constant input is fed as the same current at every timestep; what precedes the first neuron
    is computed once. Input is raw: the normalisation of the architecture happens inside.

    Attributes
    ----------
    timesteps : T; may be changed, to train with fewer steps (Time Inheritance Training).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.timesteps = architecture.timesteps
        per_channel = (-1, *([1] * (len(architecture.input_shape) - 1)))
        for name, value in (("mean", architecture.mean), ("std", architecture.std)):
            self.register_buffer(name, torch.tensor(value).reshape(per_channel), persistent=False)
        self.layers = _chain(architecture, architecture.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Mean readout current [B, classes]; see :meth:`currents` for the input."""
        return self.currents(x).mean(dim=0)

    def currents(self, x: Tensor) -> Tensor:
        """Readout currents [T, B, classes].

        ``x`` is [B, *input shape] for a constant input, [B, T, *input shape] for spikes.
        """
        if self.architecture.input_kind == "constant":
            sequence, steps = ((x - self.mean) / self.std)[None], self.timesteps
        else:
            sequence = x.to(self.mean.dtype).transpose(0, 1)
            steps = len(sequence)
        out: Tensor = self.layers(sequence, steps)
        return out.expand(steps, *out.shape[1:])


def spike_function(architecture: Architecture, shape: tuple[int, ...] = ()) -> SpikeFunction:
    """A new spike function, as the architecture describes it, for neurons of this shape."""
    name, options = architecture.spike
    options = dict(options)
    if "granularity" in options:
        options["shape"] = _granular(options.pop("granularity"), shape)
    functions: dict[str, type[SpikeFunction]] = {
        "asgl": ASGL,
        "surrogate": SurrogateGradient,
        "lsg": LSG,
        "dspike": Dspike,
        "whetstone": Whetstone,
    }
    return functions[name](**options)


def _granular(granularity: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a parameter of neurons of this shape."""
    if granularity == "neuron":
        return shape
    if granularity == "channel":
        return (shape[0], *([1] * (len(shape) - 1)))
    return ()


def _chain(architecture: Architecture, layers: tuple[Layer, ...]) -> Chain:
    return Chain(*(_build(architecture, layer) for layer in layers))


def _build(architecture: Architecture, layer: Layer) -> nn.Module:
    options = layer.options
    if layer.type == "residual":
        return Residual(_chain(architecture, layer.layers), _chain(architecture, layer.shortcut))
    if layer.type in ("lif", "clif"):
        return _neuron(architecture, layer)
    if layer.type == "batchnorm":
        norm = nn.BatchNorm2d if len(layer.source) == 3 else nn.BatchNorm1d
        scale = options["alpha"] * architecture.threshold if options["kind"] == "td" else 1.0
        return BatchNormOverTime(norm(layer.source[0]), scale)
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
    elif layer.type == "avgpool":
        module = nn.AvgPool2d(options["kernel"])
    elif layer.type == "flatten":
        module = nn.Flatten()
    else:
        module = nn.Linear(layer.source[0], options["features"], bias=options["bias"])
    return OverTime(module)


def _neuron(architecture: Architecture, layer: Layer) -> nn.Module:
    spike = spike_function(architecture, layer.source)
    if layer.type == "clif":
        return CLIF(architecture.threshold, architecture.decay, architecture.current_decay, spike)
    learned = architecture.learn_decay
    return LIF(
        architecture.threshold,
        architecture.decay,
        spike,
        reset=architecture.reset,
        current_decay=architecture.current_decay,
        learn_decay=learned != "no",
        learn_threshold=architecture.learn_threshold,
        emit=architecture.emit,
        shape=_granular(learned, layer.source),
        recurrent=layer.source[0] if layer.options["recurrent"] else 0,
    )
