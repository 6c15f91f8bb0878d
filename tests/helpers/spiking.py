"""Spiking networks: as data, with weights that make them spike, and inputs that fit them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from snn_deploy.nn import neurons
from snn_deploy.nn.architecture import Architecture, parse
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording

Layers = list[dict[str, Any]]

LIF: dict[str, Any] = {"type": "lif"}
FLATTEN: dict[str, Any] = {"type": "flatten"}
BATCHNORM: dict[str, Any] = {"type": "batchnorm"}


def conv(channels: int, kernel: int = 3, **options: Any) -> dict[str, Any]:
    return {"type": "conv", "channels": channels, "kernel": kernel, **options}


def linear(features: int, **options: Any) -> dict[str, Any]:
    return {"type": "linear", "features": features, **options}


def residual(layers: Layers, shortcut: Layers | None = None) -> dict[str, Any]:
    return {"type": "residual", "layers": layers, "shortcut": shortcut or []}


def avgpool(kernel: int = 2) -> dict[str, Any]:
    return {"type": "avgpool", "kernel": kernel}


def architecture(
    layers: Layers,
    shape: tuple[int, ...] = (1, 6, 6),
    *,
    kind: str = "constant",
    timesteps: int = 3,
    threshold: float = 0.5,
    decay: float = 0.5,
    spike: dict[str, Any] | None = None,
    lif: dict[str, Any] | None = None,
    **normalisation: Any,
) -> Architecture:
    data = {
        "timesteps": timesteps,
        "input": {"kind": kind, "shape": list(shape), **normalisation},
        "lif": {"threshold": threshold, "decay": decay, **(lif or {})},
        "spike": {"function": "asgl"} if spike is None else spike,
        "layers": layers,
    }
    return parse(data, "a test")


# Every kind of layer that freezing folds, with a border that the pool drops.
EVERY_KIND: Layers = [
    conv(6, padding=1),
    BATCHNORM,
    LIF,
    conv(8, padding=1, bias=True),
    LIF,
    avgpool(2),
    conv(8, 2),
    BATCHNORM,
    LIF,
    FLATTEN,
    linear(12),
    BATCHNORM,
    LIF,
    linear(5),
]


def every_kind(seed: int = 0) -> SpikingNet:
    """A network with every kind of layer, in evaluation mode."""
    return settled(
        architecture(EVERY_KIND, (2, 7, 7), mean=[0.25, 0.5], std=[0.5, 0.25]), seed=seed
    )


@torch.no_grad()
def settled(described: Architecture, seed: int = 0, passes: int = 3) -> SpikingNet:
    """A network with random weights whose batch statistics are run in, in evaluation mode."""
    torch.manual_seed(seed)
    net = SpikingNet(described)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.mul_(2)  # enough to make neurons spike where nothing is normalised
        elif isinstance(module, neurons.LIF):
            if hasattr(module, "decay_logit"):
                module.decay_logit.add_(torch.randn_like(module.decay_logit))
            if hasattr(module, "log_threshold"):
                module.log_threshold.add_(0.3 * torch.randn(()))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.normal_()
            module.bias.normal_()
    rng = np.random.default_rng(seed)
    net.train()
    for _ in range(passes):
        net(as_tensor(described, random_input(described, rng, 8)))
    return net.eval()


def random_input(described: Architecture, rng: np.random.Generator, samples: int) -> Recording:
    """Spikes, or values that fill the declared range."""
    shape = described.input_shape
    if described.input_kind == "spikes":
        spikes = rng.random((samples, described.timesteps, *shape)) < 0.4
        return Recording(spikes={"": spikes.astype(np.uint8)})
    values = rng.uniform(described.low, described.high, (samples, *shape))
    return Recording(values={"": values.astype(np.float32)})


def as_tensor(described: Architecture, recording: Recording) -> torch.Tensor:
    """What a network is fed of a recording."""
    held = recording.spikes if described.input_kind == "spikes" else recording.values
    return torch.from_numpy(held[""].astype(np.float32))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small networks of every kind that can be frozen.

    Normalisation is in multiples of 1/16, so that float32 and float64 hold the same numbers.
    """
    family = draw(st.sampled_from(("lif", "lif", "lif", "cuba", "clif")))
    decay = draw(st.sampled_from((0.0, 0.25, 0.5, 0.7, 0.9)))
    lif: dict[str, Any] = {"reset": draw(st.sampled_from(("zero", "zero", "subtract")))}
    if family == "clif":
        decay, lif["current_decay"] = draw(st.sampled_from(((0.5, 0.25), (0.9, 0.7), (0.9, 0.0))))
    else:
        lif["current_decay"] = draw(st.sampled_from((0.3, 0.75))) if family == "cuba" else 0.0
        if decay > 0:
            names = ("no", "no", "layer", "channel", "neuron")
            lif["learn_decay"] = draw(st.sampled_from(names))
        lif["learn_threshold"] = draw(st.integers(0, 3)) == 0
    kind = draw(st.sampled_from(("constant", "spikes")))
    make = _Drawn(draw, family, kind == "constant")
    is_map = draw(st.integers(0, 3)) > 0
    shape: tuple[int, ...] = (draw(st.integers(1, 6)),)
    if is_map:
        shape = (draw(st.integers(1, 3)), draw(st.integers(4, 8)), draw(st.integers(4, 8)))
    layers = make.conv_blocks(shape[1:]) if is_map else []
    for _ in range(draw(st.integers(0, 1 if is_map else 2))):
        layers += make.linear_block()
    layers.append(linear(draw(st.integers(2, 4)), bias=draw(st.booleans())))
    normalisation: dict[str, Any] = {}
    if kind == "constant":
        sixteenths = st.integers(1, 40).map(lambda n: n / 16)
        low = draw(st.sampled_from((0.0, -1.0)))
        normalisation = {"low": low, "high": low + draw(sixteenths)}
        for name, offset in (("mean", -1.0), ("std", 0.0)):
            size = draw(st.sampled_from((1, shape[0])))
            normalisation[name] = [draw(sixteenths) + offset for _ in range(size)]
    return architecture(
        layers,
        shape,
        kind=kind,
        timesteps=draw(st.integers(1, 6)),
        threshold=draw(st.sampled_from((0.25, 0.3, 0.5, 1.0, 1.7))),
        decay=decay,
        lif=lif,
        **normalisation,
    )


class _Drawn:
    """Draws layers; a constant input does not flow into C-LIF."""

    def __init__(self, draw: st.DrawFn, family: str, constant: bool) -> None:
        self.draw = draw
        self.family = family
        self.constant = constant  # the next neurons are the first, and their input is constant

    def neurons(self) -> dict[str, Any]:
        """Neurons of the family; among C-LIF there are LIF, too."""
        constant, self.constant = self.constant, False
        if self.family == "clif" and not constant and self.draw(st.integers(0, 2)) > 0:
            return {"type": "clif"}
        return LIF

    def bias(self) -> bool:
        """Whether synapses have a bias."""
        return self.draw(st.booleans())

    def normalised(self, synapses: dict[str, Any]) -> Layers:
        """Synapses, and perhaps batch normalisation behind them."""
        if not self.draw(st.booleans()):
            return [synapses]
        kind = self.draw(st.sampled_from(("plain", "td")))
        alpha = self.draw(st.sampled_from((1.0, 0.75))) if kind == "td" else 1.0
        return [synapses, {"type": "batchnorm", "kind": kind, "alpha": alpha}]

    def closed(self, synapses: dict[str, Any]) -> Layers:
        """Synapses with neurons behind them."""
        return [*self.normalised(synapses), self.neurons()]

    def linear_block(self) -> Layers:
        """A linear layer, perhaps recurrent, and perhaps a residual layer after it."""
        features = self.draw(st.integers(1, 6))
        layers = self.closed(linear(features, bias=self.bias()))
        if layers[-1] == LIF and self.draw(st.booleans()):
            layers[-1] = {"type": "lif", "recurrent": True}
        if self.draw(st.booleans()):
            out, way = features, Layers()
            if self.draw(st.booleans()):
                out = self.draw(st.integers(1, 6))
                way = self.normalised(linear(out, bias=self.bias()))
            main = self.closed(linear(self.draw(st.integers(1, 6)), bias=self.bias()))
            layers += [residual([*main, *self.normalised(linear(out, bias=self.bias()))], way), LIF]
        return layers

    def conv_blocks(self, extents: tuple[int, ...]) -> Layers:
        """Up to two convolutions with what may follow them, and the flattening after them."""
        draw, layers = self.draw, Layers()
        for _ in range(draw(st.integers(0, 2))):
            padding = draw(st.integers(0, 2))
            kernel = draw(st.integers(1, min(3, *(n + 2 * padding for n in extents))))
            stride, channels = draw(st.integers(1, 2)), draw(st.integers(1, 4))
            options = {"stride": stride, "padding": padding, "bias": self.bias()}
            layers += self.closed(conv(channels, kernel, **options))
            extents = tuple((n + 2 * padding - kernel) // stride + 1 for n in extents)
            if draw(st.booleans()):
                block, extents = self._residual(channels, extents)
                layers += block
            pool = draw(st.integers(1, min(3, *extents)))
            if pool > 1:
                layers.append(avgpool(pool))
                extents = tuple(n // pool for n in extents)
        return [*layers, FLATTEN]

    def _residual(self, channels: int, extents: tuple[int, ...]) -> tuple[Layers, tuple[int, ...]]:
        """A block with an identity, strided or pooled shortcut, and the map that it makes."""
        even = all(n % 2 == 0 for n in extents)
        kinds = ("identity", "strided", "pooled") if even else ("identity", "strided")
        kind = self.draw(st.sampled_from(kinds))
        stride = 1 if kind == "identity" else 2
        out = channels if kind == "identity" else self.draw(st.integers(1, 4))
        way: Layers = []
        if kind == "strided":
            way = self.normalised(conv(out, 1, stride=2, bias=self.bias()))
        elif kind == "pooled":
            way = [avgpool(2), *self.normalised(conv(out, 1, bias=self.bias()))]
        main = self.closed(conv(out, 3, stride=stride, padding=1, bias=self.bias()))
        last = self.normalised(conv(out, 3, padding=1, bias=self.bias()))
        if self.draw(st.integers(0, 3)) == 0:  # three ways into the same neurons
            inner = self.closed(conv(2, 3, padding=1, bias=self.bias()))
            last = [residual([*inner, *last])]
        smaller = tuple(-(-n // stride) for n in extents)
        return [residual([*main, *last], way), LIF], smaller
