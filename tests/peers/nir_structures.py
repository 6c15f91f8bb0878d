"""Networks by what is special about them, to see who reads our NIR files rightly.

Each entry of :data:`STRUCTURES` draws a float graph from a generator. Weights and biases are
multiples of 1/8, decays, thresholds and resets dyadic: sums in float32 are exact but for what the
decays leave behind, and membranes meet thresholds exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Neurons,
    Population,
    Projection,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool

Array = NDArray[Any]
Random = np.random.Generator

SAMPLES, STEPS = 3, 48
MAP = (2, 6, 6)


def weights(random: Random, *shape: int) -> Array:
    """Multiples of 1/8; a neuron's sum grows little with how many it sums."""
    inputs = int(np.prod(shape[1:]))
    return np.round(random.normal(1.2 / inputs, 1.6 / np.sqrt(inputs), shape) * 8) / 8


def lif(decay: Any = 0.5, threshold: Any = 1.0, bias: Any = 0.0, **more: Any) -> LIF:
    """LIF neurons."""
    arrays = (np.asarray(value, np.float64) for value in (decay, threshold, bias))
    return LIF(**dict(zip(("decay", "threshold", "bias"), arrays, strict=True)), **more)


def biases(random: Random, size: int) -> Array:
    """Multiples of 1/8 around 0."""
    return np.round(random.normal(0, 0.2, size) * 8) / 8


class Net:
    """A graph as it grows, population by population."""

    def __init__(self, *shape: int, kind: Any = "spikes") -> None:
        self.inputs = (InputSpec(name="in", kind=kind, shape=shape),)
        self.populations: list[Population] = []
        self.projections: list[Projection] = []

    def add(
        self, name: str, shape: Shape, neurons: Neurons, max_spikes: int = 1, **ways: Any
    ) -> None:
        """A population and what projects to it: synapses, or a dict of a projection's fields."""
        self.populations.append(
            Population(name=name, shape=shape, neurons=neurons, max_spikes=max_spikes)
        )
        for source, way in ways.items():
            fields = way if isinstance(way, dict) else {"synapses": way}
            self.projections.append(
                Projection(source=source.removesuffix("_"), target=name, **fields)
            )

    def graph(self) -> Graph:
        """The last population is the output."""
        return Graph(
            inputs=self.inputs,
            populations=tuple(self.populations),
            projections=tuple(self.projections),
            outputs=(self.populations[-1].name,),
            timesteps=STEPS,
        )


def chain(random: Random, first: LIF, second: LIF | None = None, max_spikes: int = 1) -> Graph:
    """6 -> 8 -> 4, fully connected."""
    net = Net(6)
    net.add("a", (8,), first, max_spikes, in_=Dense(weights(random, 8, 6)))
    net.add("b", (4,), second or first, max_spikes, a=Dense(weights(random, 4, 8)))
    return net.graph()


def dense(random: Random) -> Graph:
    return chain(random, lif(0.5, bias=biases(random, 8)), lif(0.75, bias=biases(random, 4)))


def without_leak(random: Random) -> Graph:
    return chain(random, lif(1.0), lif(1.0, 1.5))


def without_memory(random: Random) -> Graph:
    return chain(random, lif(0.0), lif(0.0))


def decay_by_neuron(random: Random) -> Graph:
    return chain(random, lif(random.choice([0.5, 0.75], 8)), lif(random.choice([0.25, 0.5], 4)))


def threshold_by_neuron(random: Random) -> Graph:
    return chain(random, lif(threshold=random.choice([0.75, 1.5], 8)), lif())


def reset_to_a_value(random: Random) -> Graph:
    return chain(random, lif(reset=ResetTo(-0.25)))


def reset_by_subtraction(random: Random) -> Graph:
    return chain(random, lif(reset=ResetSubtract(1.0)))


def several_spikes(random: Random) -> Graph:
    return chain(random, lif(reset=ResetSubtract(1.0)), max_spikes=255)


def synaptic_current(random: Random) -> Graph:
    return chain(random, lif(threshold=2.0, current_decay=np.asarray(0.5)))


def convolution(random: Random) -> Graph:
    net = Net(*MAP)
    bias = biases(random, 3).reshape(3, 1, 1)
    net.add("a", (3, 6, 6), lif(bias=bias), in_=Conv2d(weights(random, 3, 2, 3, 3), padding=(1, 1)))
    net.add("b", (4, 2, 2), lif(0.75), a=Conv2d(weights(random, 4, 3, 3, 3), stride=(2, 2)))
    net.add("c", (4,), lif(), b=Dense(weights(random, 4, 16)))
    return net.graph()


def kernels(random: Random) -> Graph:
    """One that is not square, one with groups, one dilated."""
    net = Net(*MAP)
    net.add("a", (4, 6, 5), lif(), in_=Conv2d(weights(random, 4, 2, 1, 2)))
    net.add("b", (4, 4, 3), lif(), a=Conv2d(weights(random, 4, 2, 3, 3), groups=2))
    net.add("c", (2, 2, 1), lif(), b=Conv2d(weights(random, 2, 4, 2, 2), dilation=(2, 2)))
    return net.graph()


def sum_pool(random: Random) -> Graph:
    net, pool = Net(*MAP), SumPool((2, 2), (2, 2))
    net.add("a", (3, 6, 6), lif(), in_=Conv2d(weights(random, 3, 2, 3, 3), padding=(1, 1)))
    pooled = {"synapses": Dense(weights(random, 4, 27)), "pool": pool}
    net.add("b", (4,), lif(), a=pooled)
    return net.graph()


def average_pool(random: Random) -> Graph:
    """Its 1/4 is in the weights."""
    net, pool = Net(*MAP), SumPool((2, 2), (2, 2))
    net.add("a", (3, 6, 6), lif(), in_=Conv2d(weights(random, 3, 2, 3, 3), padding=(1, 1)))
    pooled = {"synapses": Conv2d(weights(random, 4, 3, 2, 2) / 2), "pool": pool}
    net.add("b", (4, 2, 2), lif(), a=pooled)
    return net.graph()


def identity_shortcut(random: Random) -> Graph:
    net = Net(*MAP)
    net.add("a", (3, 6, 6), lif(), in_=Conv2d(weights(random, 3, 2, 3, 3), padding=(1, 1)))
    net.add("b", (3, 6, 6), lif(), a=Conv2d(weights(random, 3, 3, 3, 3), padding=(1, 1)))
    around = Conv2d(np.ones((3, 1, 1, 1)), groups=3)
    net.add("c", (3, 6, 6), lif(), b=Conv2d(weights(random, 3, 3, 3, 3), padding=(1, 1)), a=around)
    net.add("d", (4,), lif(), c=Dense(weights(random, 4, 108)))
    return net.graph()


def weighted_shortcut(random: Random) -> Graph:
    net = Net(*MAP)
    net.add("a", (3, 6, 6), lif(), in_=Conv2d(weights(random, 3, 2, 3, 3), padding=(1, 1)))
    net.add("b", (3, 6, 6), lif(), a=Conv2d(weights(random, 3, 3, 3, 3), padding=(1, 1)))
    second = Conv2d(weights(random, 4, 3, 3, 3), stride=(2, 2), padding=(1, 1))
    shortcut = Conv2d(weights(random, 4, 3, 1, 1), stride=(2, 2))
    net.add("c", (4, 3, 3), lif(), b=second, a=shortcut)
    net.add("d", (4,), lif(), c=Dense(weights(random, 4, 36)))
    return net.graph()


def recurrence(random: Random) -> Graph:
    net = Net(6)
    itself = {"synapses": Dense(weights(random, 8, 8) - 0.125), "delay": 1}
    net.add("a", (8,), lif(), in_=Dense(weights(random, 8, 6)), a=itself)
    net.add("b", (4,), lif(), a=Dense(weights(random, 4, 8)))
    return net.graph()


def recurrent_current(random: Random) -> Graph:
    """What snnTorch calls RSynaptic."""
    net, memory = Net(6), np.asarray(0.5)
    itself = {"synapses": Dense(weights(random, 8, 8) - 0.125), "delay": 1}
    neurons = lif(threshold=2.0, current_decay=memory)
    net.add("a", (8,), neurons, in_=Dense(weights(random, 8, 6)), a=itself)
    net.add("b", (4,), neurons, a=Dense(weights(random, 4, 8)))
    return net.graph()


def delays(random: Random) -> Graph:
    net = Net(6)
    net.add("a", (8,), lif(), in_={"synapses": Dense(weights(random, 8, 6)), "delay": 2})
    net.add("b", (4,), lif(), a=Dense(weights(random, 4, 8)))
    return net.graph()


def mean_current(random: Random) -> Graph:
    """The readout of an ASGL network: the mean current of a last layer without neurons."""
    net = Net(6)
    net.add("a", (8,), lif(), in_=Dense(weights(random, 8, 6)))
    readout = Integrator(decay=np.zeros(()), bias=biases(random, 4), readout="mean")
    net.add("b", (4,), readout, a=Dense(weights(random, 4, 8)))
    return net.graph()


def values_over_time(random: Random) -> Graph:
    net = Net(6, kind="graded")
    net.add("a", (8,), lif(bias=biases(random, 8)), in_=Dense(weights(random, 8, 6)))
    net.add("b", (4,), lif(), a=Dense(weights(random, 4, 8)))
    return net.graph()


def still_image(random: Random) -> Graph:
    """As ASGL trains them: a constant current, an average pool, a readout of the mean current.

    A constant current drives a membrane towards a multiple of 1/32, and float32 takes it there when
    exact numbers never arrive: no threshold may lie at such a place.
    """
    net, pool = Net(*MAP, kind="constant"), SumPool((2, 2), (2, 2))
    bias = biases(random, 3).reshape(3, 1, 1)
    apart = 1 + 1 / 128
    first = lif(threshold=apart, bias=bias)
    net.add("a", (3, 6, 6), first, in_=Conv2d(weights(random, 3, 2, 3, 3), padding=(1, 1)))
    second = Conv2d(weights(random, 3, 3, 3, 3), padding=(1, 1))
    net.add("b", (3, 6, 6), lif(threshold=apart), a=second)
    readout = Integrator(decay=np.zeros(()), bias=biases(random, 4), readout="mean")
    net.add("c", (4,), readout, b={"synapses": Dense(weights(random, 4, 27)), "pool": pool})
    return net.graph()


def leaky_readout(random: Random) -> Graph:
    net = Net(6)
    net.add("a", (8,), lif(), in_=Dense(weights(random, 8, 6)))
    readout = Integrator(decay=np.asarray(0.5), bias=np.zeros(4), readout="last")
    net.add("b", (4,), readout, a=Dense(weights(random, 4, 8)))
    return net.graph()


STRUCTURES: dict[str, Callable[[Random], Graph]] = {
    "fully connected, biases": dense,
    "neurons without leak (IF)": without_leak,
    "neurons without memory (decay 0)": without_memory,
    "a decay per neuron": decay_by_neuron,
    "a threshold per neuron": threshold_by_neuron,
    "reset to a value other than 0": reset_to_a_value,
    "reset by subtraction": reset_by_subtraction,
    "several spikes per timestep": several_spikes,
    "synaptic current (CubaLIF)": synaptic_current,
    "convolution, biases, stride": convolution,
    "non-square, grouped, dilated kernels": kernels,
    "sum pool": sum_pool,
    "average pool (folded)": average_pool,
    "identity shortcut": identity_shortcut,
    "shortcut with weights": weighted_shortcut,
    "recurrent, fully connected": recurrence,
    "recurrent, synaptic current": recurrent_current,
    "delay of two timesteps": delays,
    "values at every timestep": values_over_time,
    "still image in, mean current out": still_image,
    "readout: mean current": mean_current,
    "readout: leaky membrane": leaky_readout,
}


def drawn(name: str, seed: int) -> tuple[Graph, Array]:
    """The graph of this seed, and input [samples, timesteps, ...] for it: 0/1, or eighths."""
    random = np.random.default_rng([seed, [*STRUCTURES].index(name)])
    graph = STRUCTURES[name](random)
    (spec,) = graph.inputs
    shape = (SAMPLES, STEPS, *spec.shape)
    if spec.kind == "spikes":
        return graph, (random.random(shape) < random.uniform(0.2, 0.6)).astype(np.uint8)
    values = random.integers(0, 9, shape) / 8
    if spec.kind == "constant":
        values[:] = values[:, :1]
    return graph, values
