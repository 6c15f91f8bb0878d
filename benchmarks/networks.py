"""The networks that are timed: random weights, thresholds at which populations fire at one rate.

Weights are even 8-bit mantissas. Membranes stay exact in float32: decays are 1/2 over at most seven
timesteps, or 1 (integrate and fire), so that every simulator must make the same spikes. This module
knows the event engine only; ``in_torch`` has the same networks for everyone else, and sets their
thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.packets import Recording
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.plan import plan
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import Conv2d, Dense, one_to_one

IDENTITY = 200  # weight of a shortcut that changes nothing else
# Loihi's arithmetic, with a bias wide enough for the current of random images.
FORMAT = replace(target("loihi2").require_format(), bias_bits=32)


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Synapses into a population; ``weight`` None: from every neuron to the one in its place."""

    source: str
    weight: NDArray[np.int64] | None
    stride: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A population and what feeds it; ``recurrent`` [N, N] from itself, a timestep later."""

    name: str
    shape: tuple[int, ...]
    feeds: tuple[Feed, ...]
    recurrent: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Units in order, the last one the output.

    Attributes
    ----------
    input_shape, constant : of the input; constant values or spikes.
    steps : timesteps.
    leak : whether a membrane is halved in every timestep; else it keeps all.
    thresholds : by unit, integers; a neuron fires above.
    """

    name: str
    input_shape: tuple[int, ...]
    constant: bool
    steps: int
    leak: bool
    units: tuple[Unit, ...]
    thresholds: dict[str, int] = field(default_factory=dict)

    @property
    def decay(self) -> float:
        """What a membrane keeps in a timestep."""
        return 0.5 if self.leak else 1.0

    def graph(self) -> Graph:
        """As an integer graph."""
        populations, projections = [], []
        for unit in self.units:
            projections += [
                Projection(source=feed.source, target=unit.name, synapses=_synapses(feed, unit))
                for feed in unit.feeds
            ]
            if unit.recurrent is not None:
                projections.append(
                    Projection(
                        source=unit.name,
                        target=unit.name,
                        synapses=Dense(unit.recurrent),
                        delay=1,
                    )
                )
            neurons = LIF(
                decay=np.array(int(4096 * self.decay)),
                threshold=np.array(self.thresholds[unit.name]),
                bias=np.array(0),
            )
            populations.append(
                Population(name=unit.name, shape=unit.shape, neurons=neurons, scale=1.0)
            )
        spec = InputSpec(
            name="in",
            kind="constant" if self.constant else "spikes",
            shape=self.input_shape,
            high=255.0 if self.constant else 1.0,
            scale=1.0 if self.constant else None,
        )
        return Graph(
            inputs=(spec,),
            populations=tuple(populations),
            projections=tuple(projections),
            outputs=(self.units[-1].name,),
            timesteps=self.steps,
            number_format=FORMAT,
        )

    def draw(self, samples: int, rate: float = 0.0, seed: int = 1) -> NDArray[Any]:
        """An input: uint8 values [samples, ...], or spikes [samples, steps, ...] at ``rate``."""
        rng = np.random.default_rng(seed)
        if self.constant:
            return rng.integers(0, 32, (samples, *self.input_shape), np.uint8)
        return (rng.random((samples, self.steps, *self.input_shape)) < rate).astype(np.uint8)


def _synapses(feed: Feed, unit: Unit) -> Conv2d | Dense:
    if feed.weight is None:
        return one_to_one(unit.shape, IDENTITY)
    if feed.weight.ndim == 2:
        return Dense(feed.weight)
    pad = feed.weight.shape[2] // 2
    return Conv2d(feed.weight, (feed.stride, feed.stride), (pad, pad))


# ---- in the engine ----


class Ours:
    """A network in the event engine, tables made once."""

    def __init__(self, network: Network, **options: Any) -> None:
        self.network, self.graph = network, network.graph()
        self.engine = EventEngine(self.graph, **options)

    def __call__(self, data: NDArray[Any], trace: bool = False) -> Trace:
        """Run one batch: all that ``simulate`` does, save for making the tables."""
        given = {"in": data}
        recording = Recording(values=given) if self.network.constant else Recording(spikes=given)
        ready = plan(
            self.graph, recording, steps=self.network.steps, timing="zero_delay", trace=trace
        )
        return self.engine.run(ready)


def accumulates(ours: Ours, trace: Trace) -> int:
    """Additions of a weight for a spike."""
    graph = ours.graph
    return sum(
        int(trace.record.events[p.name].sum())
        for p in graph.projections
        if not graph.carries_values(p)
    )


def rates(ours: Ours, trace: Trace) -> dict[str, float]:
    """Spikes per neuron and timestep, by population."""
    record = trace.record
    slots = record.samples * record.timesteps
    return {
        p.name: float(record.sample_spikes[p.name].sum()) / (slots * p.size)
        for p in ours.graph.populations
    }


# ---- networks ----


def _weights(rng: np.random.Generator, *shape: int, limit: int = 128) -> NDArray[np.int64]:
    return 2 * rng.integers(-limit, limit, shape)


# Membranes that forget nothing wander: with weights this small they stay within their 24 bits.
_SMALL = 32


def resnet18(width: int = 64) -> Network:
    """A stem and four stages of two blocks of two convolutions with a shortcut, on 3x32x32."""
    rng = np.random.default_rng(0)
    units = [Unit("stem", (width, 32, 32), (Feed("in", _weights(rng, width, 3, 3, 3)),))]
    side, before = 32, width
    for stage in range(4):
        channels = width << stage
        for block in range(2):
            stride = 2 if stage and not block else 1
            side //= stride
            shape, last, name = (channels, side, side), units[-1].name, f"s{stage}b{block}"
            first = Feed(last, _weights(rng, channels, before, 3, 3), stride)
            units.append(Unit(f"{name}a", shape, (first,)))
            second = Feed(f"{name}a", _weights(rng, channels, channels, 3, 3))
            across = None if before == channels else _weights(rng, channels, before, 1, 1)
            units.append(Unit(f"{name}b", shape, (second, Feed(last, across, stride))))
            before = channels
    dense = Feed(units[-1].name, _weights(rng, 10, before * side**2))
    units.append(Unit("out", (10,), (dense,)))
    return Network("ResNet-18", (3, 32, 32), True, 4, True, tuple(units))


def five_convolutions() -> Network:
    """3x3 convolutions of 64, 64, 128, 128 and 256 channels on 3x32x32, and ten outputs."""
    rng = np.random.default_rng(0)
    units: list[Unit] = []
    side, before, source = 32, 3, "in"
    for index, (channels, stride) in enumerate(((64, 1), (64, 1), (128, 2), (128, 1), (256, 2))):
        side //= stride
        feed = Feed(source, _weights(rng, channels, before, 3, 3), stride)
        units.append(Unit(f"c{index}", (channels, side, side), (feed,)))
        before, source = channels, f"c{index}"
    units.append(Unit("out", (10,), (Feed(source, _weights(rng, 10, before * side**2)),)))
    return Network("5 convolutions", (3, 32, 32), True, 4, True, tuple(units))


def perceptron() -> Network:
    """784-128-10 over 100 timesteps of spikes."""
    rng = np.random.default_rng(0)
    units = (
        Unit("hidden", (128,), (Feed("in", _weights(rng, 128, 784, limit=_SMALL)),)),
        Unit("out", (10,), (Feed("hidden", _weights(rng, 10, 128, limit=_SMALL)),)),
    )
    return Network("784-128-10", (784,), False, 100, False, units)


def recurrent() -> Network:
    """700-240-20 with recurrent weights on the hidden layer, over 250 timesteps of spikes."""
    rng = np.random.default_rng(0)
    inside = _weights(rng, 240, 240, limit=_SMALL)
    units = (
        Unit("hidden", (240,), (Feed("in", _weights(rng, 240, 700, limit=_SMALL)),), inside),
        Unit("out", (20,), (Feed("hidden", _weights(rng, 20, 240, limit=_SMALL)),)),
    )
    return Network("700-240-20 recurrent", (700,), False, 250, False, units)
