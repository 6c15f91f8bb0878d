"""One small network twice: as a torch module that counters of operations watch, and as a graph.

Two convolutions and a linear layer with LIF neurons between them; its numbers are few and short, so
that both forms compute the same. ``height`` is what a neuron emits where it fires (ASGL's code
emits its threshold), ``pool`` an average of 2x2 behind the first neurons, ``padding`` that of the
convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.packets import Recording
from snn_deploy.sim import Trace, simulate
from snn_deploy.synapses import Conv2d, Dense, SumPool

LAYERS = ("conv1", "conv2", "linear")
SAMPLES, STEPS, SIDE = 4, 6, 8
_DECAY, _THRESHOLD = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What is drawn: see the module."""

    name: str
    height: float = 1.0
    pool: bool = False
    padding: int = 0
    input: Literal["spikes", "constant"] = "spikes"


class Net(nn.Module):
    """One timestep after another; each call of a layer is of one timestep of all samples."""

    def __init__(self, kind: Kind, seed: int) -> None:
        super().__init__()
        self.kind = kind
        random = np.random.default_rng(seed)
        size = SIDE - 2 + 2 * kind.padding
        size = size // 2 if kind.pool else size
        last = (size + 2 * kind.padding - 3) // 2 + 1
        self.conv1 = _drawn(nn.Conv2d(2, 4, 3, padding=kind.padding, bias=False), random)
        self.conv2 = _drawn(
            nn.Conv2d(4, 6, 3, 2, padding=kind.padding, bias=False), random, 1 / kind.height
        )
        self.linear = _drawn(nn.Linear(6 * last * last, 5, bias=False), random)
        self.fired: dict[str, list[NDArray[Any]]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is [N, T, 2, 8, 8] (spikes) or [N, 2, 8, 8]; returns summed currents."""
        self.fired = {"p1": [], "p2": []}
        membranes: dict[str, Tensor] = {}
        total = torch.zeros(len(x), 5, dtype=x.dtype)
        for step in range(STEPS):
            z = self.fire("p1", membranes, self.conv1(x if x.ndim == 4 else x[:, step]))
            if self.kind.pool:
                z = avg_pool2d(z, 2)
            z = self.fire("p2", membranes, self.conv2(z))
            total = total + self.linear(z.flatten(1))
        return total

    def fire(self, name: str, membranes: dict[str, Tensor], current: Tensor) -> Tensor:
        membrane = _DECAY * membranes.get(name, torch.zeros_like(current)) + current
        spikes = (membrane >= _THRESHOLD).to(current.dtype)
        membranes[name] = membrane * (1 - spikes)
        self.fired[name].append(spikes.numpy())
        return spikes * self.kind.height

    def graph(self) -> Graph:
        """The same network; heights and the 1/4 of an average are in the weights behind them."""
        kind, pool = self.kind, SumPool((2, 2), (2, 2)) if self.kind.pool else None
        one, two, three = (getattr(self, name).weight.numpy() for name in LAYERS)
        share = kind.height / (4 if kind.pool else 1)
        padding = (kind.padding, kind.padding)
        first = Conv2d(one, padding=padding)
        second = Conv2d(two * share, stride=(2, 2), padding=padding)
        shapes = {"p1": first.target_shape((2, SIDE, SIDE))}
        seen = shapes["p1"] if pool is None else pool.output_shape(shapes["p1"])
        shapes["p2"] = second.target_shape(seen)
        neurons = LIF(decay=np.array(_DECAY), threshold=np.array(_THRESHOLD), bias=np.zeros(()))
        readout = Integrator(decay=np.zeros(()), bias=np.zeros(()), readout="sum")
        return Graph(
            inputs=(InputSpec(name="in", kind=kind.input, shape=(2, SIDE, SIDE)),),
            populations=(
                *(Population(name=n, shape=s, neurons=neurons) for n, s in shapes.items()),
                Population(name="out", shape=(5,), neurons=readout),
            ),
            projections=(
                Projection(source="in", target="p1", synapses=first),
                Projection(source="p1", target="p2", synapses=second, pool=pool),
                Projection(source="p2", target="out", synapses=Dense(three * kind.height)),
            ),
            outputs=("out",),
            timesteps=STEPS,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A network that ran in both forms, and did the same."""

    net: Net
    graph: Graph
    trace: Trace
    x: Tensor


def run(kind: Kind, seed: int = 0) -> Run:
    """Run both forms; they must agree on every spike, and some neurons fire, some do not."""
    net = Net(kind, seed).double().eval().requires_grad_(False)
    random = np.random.default_rng(seed + 1)
    if kind.input == "spikes":
        array = (random.random((SAMPLES, STEPS, 2, SIDE, SIDE)) < 0.3).astype(np.uint8)
        recording = Recording(spikes={"": array})
    else:
        # multiples of 1/8, a quarter of them zero
        array = np.maximum(random.integers(-2, 7, (SAMPLES, 2, SIDE, SIDE)), 0) / 8
        recording = Recording(values={"": array})
    graph, x = net.graph(), torch.from_numpy(array.astype(np.float64))
    trace = simulate(graph, recording, trace=True)
    output = net(x)
    for name, steps in net.fired.items():
        np.testing.assert_array_equal(np.stack(steps, axis=1), trace.spikes[name])
        assert 0.02 < trace.spikes[name].mean() < 0.9
    np.testing.assert_array_equal(output.numpy(), trace.output["out"])
    return Run(net, graph, trace, x)


def _drawn(layer: Any, random: np.random.Generator, strength: float = 1.0) -> Any:
    """Weights that are multiples of 1/8 (times a strength), a fifth of them zero."""
    numbers = random.integers(-3, 6, tuple(layer.weight.shape))
    numbers[random.random(numbers.shape) < 0.2] = 0
    layer.weight.data = torch.from_numpy(numbers / 8 * strength)
    return layer
