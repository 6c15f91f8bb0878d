"""Random graphs of every kind the simulators know, with recordings that fit them.

Hypothesis draws the structure; a generator seeded by hypothesis fills the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from hypothesis import strategies as st

from snn_deploy.graph import Graph, InputSpec, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, Trace, simulate
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, Dense, Pair, Shape, SumPool, Synapses, pooled_shape
from tests.helpers.numbers import FloatNumbers, IntegerNumbers

LOIHI2 = target("loihi2").require_format()
GENERIC = target("generic").require_format()
# Registers so narrow that small random graphs wrap and saturate; weight exponents; pipelined hops.
NARROW = replace(
    GENERIC,
    fraction_bits=2,
    membrane_bits=12,
    weight_exponent_max=3,
    threshold_bits=11,
    bias_bits=9,
    bias_shift=1,
    hop_delay=1,
)
FORMATS = (LOIHI2, GENERIC, NARROW)

KINDS: tuple[Literal["spikes", "constant", "graded"], ...] = ("spikes", "constant", "graded")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A graph, what it is fed, and for how long it runs."""

    graph: Graph
    recording: Recording
    steps: int

    def run(
        self,
        engine: EngineName,
        timing: Timing = "zero_delay",
        *,
        batch: int | None = None,
        trace: bool = True,
    ) -> Trace:
        return simulate(
            self.graph,
            self.recording,
            engine=engine,
            timing=timing,
            steps=self.steps,
            batch=batch,
            trace=trace,
        )


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a drawn graph may be."""

    populations: int
    channels: Sequence[int]
    side: int
    neurons: Sequence[int]
    steps: int
    samples: int


SMALL = Extent(3, (1, 2, 3, 4), 5, (1, 2, 5), 5, 2)
MEDIUM = Extent(4, (1, 2, 3, 4), 8, (1, 3, 10), 8, 4)
# Around the 64 channels of one packed word.
WIDE = Extent(3, (1, 3, 63, 64, 65, 70), 3, (1, 63, 64, 65, 70), 6, 3)


def _axis_to(draw: st.DrawFn, size: int, wanted: int) -> tuple[int, int]:
    """Kernel and padding of a convolution axis from ``size`` to ``wanted`` outputs."""
    padding = max(0, -(-(wanted - size) // 2)) + draw(st.integers(0, 1))
    return size + 2 * padding - wanted + 1, padding


def _axis(draw: st.DrawFn, size: int) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a convolution axis that fits ``size``."""
    padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    kernel = draw(st.integers(1, min(4, (size + 2 * padding - 1) // dilation + 1)))
    return kernel, draw(st.integers(1, 3)), padding, dilation


class Builder:
    """Draws a graph population by population."""

    def __init__(
        self, draw: st.DrawFn, extent: Extent, numbers: IntegerNumbers | FloatNumbers
    ) -> None:
        self.draw, self.extent, self.numbers = draw, extent, numbers
        self.inputs: list[InputSpec] = []
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.shapes: dict[str, Shape] = {}  # of everything that may feed a population

    def shape(self) -> Shape:
        if self.draw(st.integers(0, 2)) == 0:
            return (self.draw(st.sampled_from(self.extent.neurons)),)
        side = st.integers(1, self.extent.side)
        return self.draw(st.sampled_from(self.extent.channels)), self.draw(side), self.draw(side)

    def add_input(self) -> None:
        name = f"in{len(self.inputs)}"
        shape, kind = self.shape(), self.draw(st.sampled_from(KINDS))
        low, high = self.draw(st.sampled_from(((0.0, 1.0), (-1.0, 1.0), (0.0, 4.0), (2.0, 2.0))))
        mean, std = self.numbers.statistics(shape[0], low, high)
        spec = InputSpec(name=name, kind=kind, shape=shape, low=low, high=high, mean=mean, std=std)
        self.inputs.append(self.numbers.finish(spec))
        self.shapes[name] = shape

    def pool(self, source: Shape) -> SumPool | None:
        """Sometimes a pool: windows that overlap, leave gaps or do not divide the map."""
        if len(source) == 1 or not self.draw(st.booleans()):
            return None
        kernel = tuple(self.draw(st.integers(1, min(3, size))) for size in source[1:])
        stride = (self.draw(st.integers(1, 4)), self.draw(st.integers(1, 4)))
        return SumPool((kernel[0], kernel[1]), stride)

    def _groups(self, *channels: int) -> int:
        fitting = [n for n in range(1, min(channels) + 1) if not any(c % n for c in channels)]
        return self.draw(st.sampled_from(fitting))

    def synapses(self, seen: Shape, *, values: bool) -> Synapses:
        """Synapses to whatever shape they make."""
        if len(seen) == 1 or self.draw(st.integers(0, 3)) == 0:
            size = self.draw(st.sampled_from(self.extent.neurons))
            weight = self.numbers.weights((size, int(np.prod(seen))), values=values)
            return Dense(weight)
        groups = self._groups(seen[0])
        wanted = self.draw(st.sampled_from(self.extent.channels))
        axes = [_axis(self.draw, size) for size in seen[1:]]
        kernel, stride, padding, dilation = ((a, b) for a, b in zip(*axes, strict=True))
        shape = (max(1, wanted // groups) * groups, seen[0] // groups, *kernel)
        weight = self.numbers.weights(shape, values=values)
        return Conv2d(weight, stride, padding, dilation, groups)

    def synapses_to(self, seen: Shape, wanted: Shape, *, values: bool) -> Synapses:
        """Synapses to a population that exists."""
        if len(wanted) == 1:
            weight = self.numbers.weights((wanted[0], int(np.prod(seen))), values=values)
            return Dense(weight)
        axes = [_axis_to(self.draw, a, b) for a, b in zip(seen[1:], wanted[1:], strict=True)]
        kernel: Pair = (axes[0][0], axes[1][0])
        groups = self._groups(seen[0], wanted[0])
        weight = self.numbers.weights((wanted[0], seen[0] // groups, *kernel), values=values)
        return Conv2d(weight, padding=(axes[0][1], axes[1][1]), groups=groups)

    def project(self, source: str, name: str, *, wanted: Shape | None = None, delay: int) -> Shape:
        """Add a projection; returns the shape of its target."""
        pool = self.pool(self.shapes[source])
        seen = pooled_shape(self.shapes[source], pool)
        values = any(i.name == source and i.kind != "spikes" for i in self.inputs)
        if wanted is None:
            synapses = self.synapses(seen, values=values)
        else:
            synapses = self.synapses_to(seen, wanted, values=values)
        form = self.numbers.format
        host = values and form is not None and form.first_layer == "host_bias"
        self.projections.append(
            Projection(
                source=source,
                target=name,
                synapses=synapses,
                pool=pool,
                delay=delay,
                exponent=self.numbers.exponent(host=host, values=values),
            )
        )
        return synapses.target_shape(seen)

    def _fitting(self, wanted: Shape, but: Sequence[str]) -> list[str]:
        """What could also feed a population of this shape: maps come from maps only."""
        return [
            name
            for name, shape in self.shapes.items()
            if name not in but and (len(wanted) == 1 or len(shape) == 3)
        ]

    def add_population(self, *, sink: bool) -> None:
        name = f"p{len(self.populations)}"
        delay = st.sampled_from((0, 0, 0, 1, 3))
        source = self.draw(st.sampled_from(list(self.shapes)))
        shape = self.project(source, name, delay=self.draw(delay))
        others = self._fitting(shape, but=[source])
        if self.draw(st.booleans()) and others:  # a residual or skip connection
            other = self.draw(st.sampled_from(others))
            self.project(other, name, wanted=shape, delay=self.draw(delay))
        neurons = self.numbers.neurons(shape, sink=sink)
        scale = None if self.numbers.format is None else 0.5
        self.populations.append(Population(name=name, shape=shape, neurons=neurons, scale=scale))
        if not sink:
            self.shapes[name] = shape
            if self.draw(st.integers(0, 3)) == 0:  # recurrence
                self.project(name, name, wanted=shape, delay=self.draw(st.integers(1, 2)))

    def add_loop(self) -> None:
        """A projection from a later population back to an earlier one, where shapes allow it."""
        names = [p.name for p in self.populations]
        pairs = [
            (later, early)
            for index, later in enumerate(names)
            for early in names[:index]
            if later in self.shapes
            and (len(self.shapes[early]) == 1 or len(self.shapes[later]) == 3)
        ]
        if pairs:
            later, early = self.draw(st.sampled_from(pairs))
            self.project(
                later, early, wanted=self.shapes[early], delay=self.draw(st.integers(1, 3))
            )

    def graph(self, timesteps: int | None) -> Graph:
        names = [p.name for p in self.populations]
        outputs = self.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
        return Graph(
            inputs=tuple(self.inputs),
            populations=tuple(self.draw(st.permutations(self.populations))),
            projections=tuple(self.draw(st.permutations(self.projections))),
            outputs=tuple(dict.fromkeys((*outputs, names[-1]))),
            timesteps=timesteps,
            number_format=self.numbers.format,
        )

    def recording(self, rng: np.random.Generator, length: int) -> Recording:
        samples = self.draw(st.integers(1, self.extent.samples))
        spikes, values = {}, {}
        for spec in self.inputs:
            name = spec.name if len(self.inputs) > 1 or self.draw(st.booleans()) else ""
            time = () if spec.kind == "constant" else (length,)
            shape = (samples, *time, *spec.shape)
            if spec.kind == "spikes":
                density = self.draw(st.sampled_from((0.0, 0.05, 0.3, 0.6, 1.0)))
                spikes[name] = (rng.random(shape) < density).astype(np.uint8)
            else:
                values[name] = self.numbers.values(shape, spec.low, spec.high)
        return Recording(spikes=spikes, values=values)


def _case(
    draw: st.DrawFn,
    extent: Extent,
    numbers: IntegerNumbers | FloatNumbers,
    rng: np.random.Generator,
) -> Case:
    builder = Builder(draw, extent, numbers)
    for _ in range(draw(st.integers(1, 2))):
        builder.add_input()
    count = draw(st.integers(1, extent.populations))
    for index in range(count):
        builder.add_population(sink=index == count - 1 and draw(st.booleans()))
    if draw(st.booleans()):
        builder.add_loop()
    lengths = st.sampled_from((1, extent.steps // 2, extent.steps, extent.steps))
    length, fixed = draw(lengths), draw(st.booleans())
    steps = length if fixed else draw(lengths)  # the run may be shorter or longer, too
    graph = builder.graph(length if fixed else None)
    return Case(graph, builder.recording(rng, length), steps)


def _generator(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def integer_cases(draw: st.DrawFn, extents: Sequence[Extent] = (MEDIUM, MEDIUM, WIDE)) -> Case:
    """An integer graph in one of the number formats, and its input."""
    rng = _generator(draw)
    numbers = IntegerNumbers(draw, rng, draw(st.sampled_from(FORMATS)))
    return _case(draw, draw(st.sampled_from(extents)), numbers, rng)


@st.composite
def float_cases(draw: st.DrawFn, extent: Extent = SMALL) -> Case:
    """A float graph whose arithmetic is exact, and its input."""
    rng = _generator(draw)
    return _case(draw, extent, FloatNumbers(draw, rng), rng)
