"""The networks of ``networks`` as torch modules, around neurons of one's choice.

Synapses see all timesteps as one batch: maps are [steps * samples, C, H, W].
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import IDENTITY, Network, Unit
from snn_deploy.sim.trace import Trace

# That there is no Triton is no news on a CPU.
logging.getLogger("torch._library.triton").setLevel(logging.ERROR)

# Thresholds lie between two values that a membrane can have: > and >= are then the same.
BETWEEN = 1 / 16


class Layer(nn.Module):
    """Neurons over time, after currents that were computed for all timesteps at once.

    Subclasses say what one neuron does in a timestep.
    """

    threshold: Tensor
    recurrent: Tensor | None

    def __init__(self, threshold: float, decay: float, recurrent: Tensor | None) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("threshold", torch.tensor(threshold))
        self.register_buffer("recurrent", recurrent)

    def step(self, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and what is left of the membrane."""
        raise NotImplementedError

    def forward(self, current: Tensor, membrane: Tensor, sent: Tensor) -> tuple[Tensor, ...]:
        """Spikes [steps * samples, ...], membrane and last spikes after them.

        ``current`` is [steps * samples, ...]; ``sent`` are the spikes of the timestep before.
        """
        out = []
        for arriving in current.split(len(membrane)):
            if self.recurrent is not None:
                arriving = torch.addmm(arriving, sent, self.recurrent)
            sent, membrane = self.step(arriving, membrane)
            out.append(sent)
        return torch.cat(out), membrane, sent


class Plain(Layer):
    """Leaky integrate and fire, as one writes it down."""

    def step(self, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Layer`."""
        membrane = membrane * self.decay + current
        silent = membrane <= self.threshold
        return 1 - silent.to(current.dtype), membrane * silent


class InPlace(Layer):
    """The same with few passes over memory, for maps that no cache holds."""

    def forward(self, current: Tensor, membrane: Tensor, sent: Tensor) -> tuple[Tensor, ...]:
        """As in :class:`Layer`."""
        out = torch.empty_like(current)
        samples = len(membrane)
        for arriving, fired in zip(current.split(samples), out.split(samples), strict=True):
            membrane.mul_(self.decay).add_(arriving)
            if self.recurrent is not None:
                membrane.addmm_(sent, self.recurrent)
            torch.gt(membrane, self.threshold, out=fired)
            membrane.mul_(membrane <= self.threshold)
            sent = fired
        return out, membrane, sent


MakeLayer = Callable[[float, float, Tensor | None], Layer]


class TorchNet(nn.Module):
    """A network around neurons of one's choice.

    Parameters
    ----------
    network : with thresholds, unless they are yet to be set.
    neurons : makes a :class:`Layer` of threshold, decay and recurrent weights (transposed).
    channels_last : layout of maps and kernels.
    block : timesteps that neurons are given at once, where they are compiled in parts; None: all.
    """

    def __init__(
        self,
        network: Network,
        neurons: MakeLayer,
        *,
        channels_last: bool = False,
        block: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.block = network.steps if block is None else block
        self.weights: dict[tuple[str, str], Tensor] = {}
        self.layers = nn.ModuleList()
        for unit in network.units:
            for feed in unit.feeds:
                if feed.weight is not None:
                    weight = torch.from_numpy(feed.weight.astype(np.float32))
                    if weight.ndim == 4:
                        weight = weight.to(memory_format=self.layout)
                    self.weights[unit.name, feed.source] = weight
            recurrent = None
            if unit.recurrent is not None:
                recurrent = torch.from_numpy(unit.recurrent.astype(np.float32)).t().contiguous()
            threshold = network.thresholds.get(unit.name, 0) + BETWEEN
            self.layers.append(neurons(threshold, network.decay, recurrent))
        self.eval()

    def take_thresholds(self) -> None:
        """Take the network's thresholds, which may be new."""
        layer: Any
        for unit, layer in zip(self.network.units, self.layers, strict=True):
            layer.threshold.fill_(self.network.thresholds[unit.name] + BETWEEN)

    def current(self, unit: Unit, sent: dict[str, Tensor]) -> Tensor:
        """Sum of all that arrives from other populations, [steps * samples, ...]."""
        total: Tensor | None = None
        for feed in unit.feeds:
            source = sent[feed.source]
            if feed.weight is None:
                arriving = source * float(IDENTITY)
            elif feed.weight.ndim == 2:
                weight = self.weights[unit.name, feed.source]
                arriving = functional.linear(source.flatten(1), weight)
            else:
                weight = self.weights[unit.name, feed.source]
                arriving = functional.conv2d(
                    source, weight, stride=feed.stride, padding=weight.shape[2] // 2
                )
            total = arriving if total is None else total + arriving
        assert total is not None
        return total

    def fire(self, unit: Unit, layer: Any, current: Tensor, samples: int) -> Tensor:
        """Spikes of a unit, [steps * samples, ...]."""
        steps = self.network.steps
        if len(current) == samples != steps * samples:  # computed once, of constant input
            current = current.repeat(steps, *[1] * (current.ndim - 1))
        membrane = torch.zeros_like(current[:samples])
        sent = torch.zeros_like(membrane)
        out = []
        for part in current.split(self.block * samples):
            spikes, membrane, sent = layer(part, membrane, sent)
            out.append(spikes)
        return out[0] if len(out) == 1 else torch.cat(out)

    def forward(self, data: Tensor, sent: dict[str, Tensor] | None = None) -> Tensor:
        """Output spikes [steps * samples, ...]; those of all units are put into ``sent``."""
        samples = len(data) if self.network.constant else len(data) // self.network.steps
        if data.ndim == 4:
            data = data.to(memory_format=self.layout)
        known = {"in": data}
        left = [f.source for unit in self.network.units for f in unit.feeds]
        for unit, layer in zip(self.network.units, self.layers, strict=True):
            current = self.current(unit, known)
            for feed in unit.feeds:
                left.remove(feed.source)
                if feed.source not in left:
                    del known[feed.source]
            known[unit.name] = self.fire(unit, layer, current, samples)
            if sent is not None:
                sent[unit.name] = known[unit.name]
        return known[self.network.units[-1].name]


def compile_neurons(model: TorchNet, data: Tensor) -> str:
    """Let torch compile the neurons of a network for such an input; if it cannot, say why.

    They are what there is to gain: synapses are one call of a library each, whatever is done.
    """
    torch._dynamo.config.recompile_limit = 64  # populations of many shapes share one statement
    for layer in model.layers:
        layer.compile(dynamic=False)
    try:
        with torch.inference_mode():
            model(data)
    except (
        RuntimeError
    ) as error:  # what all of torch's compiler raises, without a C++ compiler, too
        return f"not compiled: {type(error).__name__}"
    return ""


def as_torch(data: NDArray[Any]) -> Tensor:
    """An input as :class:`TorchNet` wants it: float32, [samples, ...] or [steps * samples, ...]."""
    if data.dtype == np.uint8 and data.ndim in (3, 5):
        data = np.swapaxes(data, 0, 1).reshape(-1, *data.shape[2:])
    return torch.from_numpy(np.ascontiguousarray(data, np.float32))


def calibrate(network: Network, data: NDArray[Any], rate: float) -> None:
    """Set thresholds, one unit after another, at which units fire at ``rate`` on ``data``."""
    model = TorchNet(network, lambda t, d, r: Plain(t, d, r))
    sent = {"in": as_torch(data)}
    layer: Any
    with torch.inference_mode():
        for unit, layer in zip(network.units, model.layers, strict=True):
            current = model.current(unit, sent)
            low, high = 1, 1 << 17
            while high - low > 1:
                middle = (low + high) // 2
                layer.threshold.fill_(middle + BETWEEN)
                fired = model.fire(unit, layer, current, len(data)).mean()
                low, high = (middle, high) if fired > rate else (low, middle)
            layer.threshold.fill_(low + BETWEEN)
            network.thresholds[unit.name] = low
            sent[unit.name] = model.fire(unit, layer, current, len(data))


def same_spikes(title: str, trace: Trace, model: TorchNet, data: Tensor) -> None:
    """Stop if a module makes other spikes than a run.

    All that the run kept is compared: of a traced one every spike, of others those of the output
    and how many every population had in every sample.
    """
    sent: dict[str, Tensor] = {}
    with torch.inference_mode():
        model(data, sent)
    record, wrong = trace.record, 0
    for name, counted in record.sample_spikes.items():
        spikes = sent[name].numpy().astype(bool)
        by_sample = spikes.reshape(record.timesteps, record.samples, -1).sum((0, 2))
        wrong += int(np.abs(by_sample - counted).sum())
        if name in trace.spikes:
            mine = np.swapaxes(trace.spikes[name], 0, 1)
            wrong += int((mine.reshape(spikes.shape) != spikes).sum())
    if wrong:
        raise SystemExit(f"{title}: {wrong} spikes differ")
