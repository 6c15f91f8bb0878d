"""Random graphs in Loihi's integers, as quantization makes them: chains, and branching networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy.checks import check_integer
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.packets import Recording
from snn_deploy.quantization import prove_ranges
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, one_to_one, pooled_shape
from tests.helpers.numbers import Array

LOIHI2 = target("loihi2").require_format()


class Builder:
    """Draws one graph and its input."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.shapes: dict[str, Shape] = {}

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def weights(self, shape: tuple[int, ...]) -> Array:
        most = self.one_of(10, 30, 127)
        weight = 2 * self.rng.integers(-most, most + 1, shape)
        weight.flat[0], weight.flat[-1] = 2, -2  # netx keeps matrices of both signs as they are
        if weight.size == 1:
            weight.flat[0] = 6
        return weight.astype(np.int16)

    def spread(self, shape: Shape, low: int, high: int, *, neuron: bool = False) -> Array:
        per_channel = (shape[0], *([1] * (len(shape) - 1)))
        sizes = [(), (), per_channel] + ([shape] if neuron else [])
        return np.asarray(self.rng.integers(low, high, self.one_of(*sizes), endpoint=True))

    def neurons(self, shape: Shape) -> LIF:
        bias = self.spread(shape, -30, 30, neuron=True) if self.chance(0.4) else np.array(0)
        memory = self.spread(shape, 0, 4000) if self.chance(0.4) else None
        return LIF(
            decay=self.one_of(np.array(0), np.array(4000), self.spread(shape, 0, 4090)),
            threshold=np.array(self.rng.integers(1, 200)),
            bias=bias,
            current_decay=memory,
        )

    def convolution(self, shape: Shape) -> Conv2d:
        groups = self.one_of(*[g for g in (1, 1, 2, 3) if shape[0] % g == 0])
        out = groups * int(self.rng.integers(1, 4))
        axes = []
        for size in shape[1:]:
            pad, spread = int(self.rng.integers(0, 2)), int(self.rng.integers(1, 3))
            most = (size + 2 * pad - 1) // spread + 1
            kernel = int(self.rng.integers(1, min(3, most) + 1))
            axes.append((kernel, int(self.rng.integers(1, 3)), pad, spread))
        kernel, stride, padding, dilation = ((int(a), int(b)) for a, b in zip(*axes, strict=True))
        weight = self.weights((out, shape[0] // groups, *kernel))
        return Conv2d(weight, stride, padding, dilation, groups)

    def pool(self, shape: Shape, *, dense: bool) -> SumPool | None:
        if len(shape) == 1 or not self.chance(0.4):
            return None
        fitting = [k for k in (2, 3) if not any(n % k for n in shape[1:])]
        if dense and self.chance(0.5) and min(shape[1:]) >= 2:
            return SumPool((2, 2), (2, int(self.rng.integers(2, 4))))
        return SumPool((fitting[0],) * 2, (fitting[0],) * 2) if fitting else None

    def add(self, source: str, *, recurrent: bool, delays: bool) -> str:
        """A population behind ``source``."""
        name = f"p{len(self.populations)}"
        shape = self.shapes[source]
        convolve = len(shape) == 3 and self.chance(0.7)
        pool = self.pool(shape, dense=not convolve)
        seen = pooled_shape(shape, pool)
        delay: Any = 0
        if convolve:
            synapses: Any = self.convolution(seen)
        else:
            out, size = int(self.rng.integers(1, 9)), int(np.prod(seen))
            synapses = Dense(self.weights((out, size)))
            loop = recurrent and self.chance(0.3)
            if loop:
                itself = Dense(self.weights((out, out)))
                self.projections.append(
                    Projection(source=name, target=name, synapses=itself, delay=1)
                )
            elif delays and pool is None and self.chance(0.4):
                shapes = ((out, 1), (1, size), (out, size))
                delay = self.one_of(
                    int(self.rng.integers(1, 5)), self.rng.integers(0, 6, self.one_of(*shapes))
                )
        self.projections.append(
            Projection(source=source, target=name, synapses=synapses, pool=pool, delay=delay)
        )
        made = synapses.target_shape(seen)
        self.shapes[name] = made
        self.populations.append(
            Population(name=name, shape=made, neurons=self.neurons(made), scale=1.0)
        )
        return name

    def skip(self, source: str, target: str) -> None:
        """A second path from ``source``: the identity, or a convolution or matrix that fits."""
        if any((p.source, p.target) == (source, target) for p in self.projections):
            return
        have, want = self.shapes[source], self.shapes[target]
        if have == want and self.chance(0.6):
            synapses: Any = one_to_one(have, 2 * int(self.rng.integers(1, 40)))
        elif len(want) == 1:
            synapses = Dense(self.weights((want[0], int(np.prod(have)))))
        elif len(have) == 3 and all(h >= w for h, w in zip(have[1:], want[1:], strict=True)):
            kernel = (have[1] - want[1] + 1, have[2] - want[2] + 1)
            synapses = Conv2d(self.weights((want[0], have[0], *kernel)))
        else:
            return
        self.projections.append(Projection(source=source, target=target, synapses=synapses))

    def block(self, source: str) -> str:
        """Two convolutions that keep the shape, and the identity around them."""
        shape, before = self.shapes[source], source
        for _ in range(2):
            name = f"p{len(self.populations)}"
            synapses = Conv2d(self.weights((shape[0], shape[0], 3, 3)), padding=(1, 1))
            self.projections.append(Projection(source=before, target=name, synapses=synapses))
            self.shapes[name] = shape
            self.populations.append(
                Population(name=name, shape=shape, neurons=self.neurons(shape), scale=1.0)
            )
            before = name
        self.skip(source, before)
        return before

    def readout(self, source: str) -> None:
        size = int(np.prod(self.shapes[source]))
        kind = self.one_of("mean", "sum", "last", "max")
        neurons = Integrator(
            decay=np.array(self.one_of(0, 0, 3000)),
            bias=self.spread((4,), -20, 20),
            readout=kind,
        )
        self.populations.append(Population(name="out", shape=(4,), neurons=neurons, scale=1.0))
        self.projections.append(
            Projection(source=source, target="out", synapses=Dense(self.weights((4, size))))
        )
        self.shapes["out"] = (4,)

    def input(self, kinds: tuple[str, ...]) -> InputSpec:
        shape: Shape = self.one_of(
            (int(self.rng.integers(1, 4)), *(int(n) for n in self.rng.integers(3, 8, 2))),
            (int(self.rng.integers(2, 20)),),
        )
        kind = self.one_of(*kinds)
        scale = None if kind == "spikes" else 1.0 / 255
        self.shapes["in"] = shape
        return InputSpec(name="in", kind=kind, shape=shape, low=0.0, high=1.0, scale=scale)

    def recording(self, spec: InputSpec, samples: int, steps: int) -> Recording:
        if spec.kind == "spikes":
            spikes = self.rng.random((samples, steps, *spec.shape)) < self.one_of(0.1, 0.4, 0.7)
            return Recording(spikes={"": spikes.astype(np.uint8)})
        time = () if spec.kind == "constant" else (steps,)
        values = self.rng.random((samples, *time, *spec.shape))
        return Recording(values={"": values * (self.rng.random(values.shape) < 0.6)})

    def first(self, spec: InputSpec) -> str:
        """The first population; the host sums values that are constant."""
        name = self.add("in", recurrent=spec.kind == "spikes", delays=spec.kind == "spikes")
        if spec.kind == "constant":
            index = next(i for i, p in enumerate(self.projections) if p.target == name)
            given = self.projections[index]
            fine = Projection(
                source="in", target=name, synapses=given.synapses, pool=given.pool, exponent=-5
            )
            self.projections[index] = fine
        return name

    def graph(self, spec: InputSpec, timesteps: int) -> Graph | None:
        """The graph, None where its integers do not fit the chip."""
        made = Graph(
            inputs=(spec,),
            populations=tuple(self.populations),
            projections=tuple(self.projections),
            outputs=(self.populations[-1].name,),
            timesteps=timesteps,
            number_format=LOIHI2,
        )
        try:
            check_integer(made)
            prove_ranges(made)
        except SnnDeployError as error:
            if error.code not in ("SD202", "SD203"):
                raise
            return None
        return made


def chain(seed: int) -> tuple[Graph, Recording]:
    """A chain that fits: dense and conv, pools, recurrence, delays, a readout or not."""
    for attempt in range(50):
        builder = Builder(1000 * seed + attempt)
        spec = builder.input(("spikes", "spikes", "graded", "constant"))
        timesteps = int(builder.rng.integers(2, 8))
        name = builder.first(spec)
        for _ in range(int(builder.rng.integers(0, 3))):
            name = builder.add(name, recurrent=True, delays=True)
        if builder.chance(0.5):
            builder.readout(name)
        graph = builder.graph(spec, timesteps)
        if graph is not None:
            return graph, builder.recording(spec, int(builder.rng.integers(1, 4)), timesteps)
    raise AssertionError(f"no graph of seed {seed} fits")


def network(seed: int) -> tuple[Graph, Recording]:
    """A feed-forward network with shortcuts over one or more populations."""
    for attempt in range(50):
        builder = Builder(7_000_000 + 1000 * seed + attempt)
        spec = builder.input(("spikes", "constant", "graded"))
        timesteps = int(builder.rng.integers(2, 8))
        names = [builder.first(spec)]
        for _ in range(int(builder.rng.integers(1, 4))):
            if len(builder.shapes[names[-1]]) == 3 and builder.chance(0.5):
                names.append(builder.block(names[-1]))
            else:
                names.append(builder.add(names[-1], recurrent=False, delays=False))
            if len(names) > 2:
                builder.skip(builder.one_of(*names[:-2]), names[-1])
        if builder.chance(0.5):
            builder.readout(names[-1])
            builder.skip(builder.one_of(*names), "out")
        graph = builder.graph(spec, timesteps)
        if graph is not None:
            return graph, builder.recording(spec, int(builder.rng.integers(1, 4)), timesteps)
    raise AssertionError(f"no graph of seed {seed} fits")
