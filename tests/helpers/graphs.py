"""Random graphs of every kind the simulators know, with recordings that fit them.

Hypothesis draws the structure; a generator seeded by hypothesis fills the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.numerics import Comparator, DecayRule, NumberFormat, OverflowRule
from snn_deploy.packet_files import StoredRecording
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, Trace, simulate
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, Dense, Pair, Shape, SumPool, Synapses, pooled_shape
from tests.helpers.numbers import FloatNumbers, IntegerNumbers

LOIHI2 = target("loihi2").require_format()
GENERIC = target("generic").require_format()
# Registers so narrow that small random graphs wrap and saturate, in words not much wider; weights
# of 8 bits with exponents; pipelined hops.
NARROW = replace(
    GENERIC,
    weight_min=-127,
    weight_max=127,
    fraction_bits=2,
    membrane_bits=12,
    word_bits=14,
    weight_exponent_max=3,
    threshold_bits=11,
    bias_bits=9,
    bias_shift=1,
    hop_delay=1,
)
# The largest weights and values there may be: sums that turn over in 64 bits.
FOREIGN = replace(
    GENERIC,
    weight_min=-(1 << 31),
    weight_max=(1 << 31) - 1,
    weight_exponent_max=16,
    input_bits=31,
    word_bits=32,
)

Array = NDArray[Any]

KINDS: tuple[Literal["spikes", "constant", "graded"], ...] = ("spikes", "constant", "graded")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A graph, what it is fed, and for how long it runs."""

    graph: Graph
    recording: Recording | StoredRecording
    steps: int
    reset_interval: int | None = None
    reset_offset: int | None = None

    def run(
        self,
        engine: EngineName,
        timing: Timing = "zero_delay",
        *,
        batch: int | None = None,
        trace: bool = True,
        threads: int | None = None,
    ) -> Trace:
        return simulate(
            self.graph,
            self.recording,
            engine=engine,
            threads=threads,
            timing=timing,
            steps=self.steps,
            reset_interval=self.reset_interval,
            reset_offset=self.reset_offset,
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


def draw_pair(draw: st.DrawFn, low: int, high: int) -> Pair:
    return draw(st.integers(low, high)), draw(st.integers(low, high))


class Builder:
    """Draws a graph population by population."""

    def __init__(
        self,
        draw: st.DrawFn,
        extent: Extent,
        numbers: IntegerNumbers | FloatNumbers,
        *,
        delays: bool,
    ) -> None:
        self.draw, self.extent, self.numbers, self.delays = draw, extent, numbers, delays
        self.rng = numbers.rng
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

    def synapses(self, seen: Shape, *, host: bool) -> Synapses:
        """Synapses to whatever shape they make."""
        if len(seen) == 1 and self.draw(st.integers(0, 3)) == 0:
            return self._convolution_of_a_vector(seen, self._groups(seen[0]), host=host)
        if len(seen) == 1 or self.draw(st.integers(0, 3)) == 0:
            size = self.draw(st.sampled_from(self.extent.neurons))
            weight = self.numbers.weights((size, int(np.prod(seen))), host=host)
            return Dense(weight)
        groups = self._groups(seen[0])
        wanted = self.draw(st.sampled_from(self.extent.channels))
        axes = [_axis(self.draw, size) for size in seen[1:]]
        kernel, stride, padding, dilation = ((a, b) for a, b in zip(*axes, strict=True))
        shape = (max(1, wanted // groups) * groups, seen[0] // groups, *kernel)
        weight = self.numbers.weights(shape, host=host)
        return Conv2d(weight, stride, padding, dilation, groups)

    def _convolution_of_a_vector(self, seen: Shape, groups: int, *, host: bool) -> Conv2d:
        """Of its single pixel a kernel meets one place, and the padding."""
        (top, left), more = draw_pair(self.draw, 0, 2), draw_pair(self.draw, 0, 1)
        kernel = (2 * top + 1, 2 * left + 1)
        wanted = groups * self.draw(st.integers(1, 3))
        weight = self.numbers.weights((wanted, seen[0] // groups, *kernel), host=host)
        return Conv2d(weight, (1 + more[0], 1 + more[1]), (top, left), groups=groups)

    def synapses_to(self, seen: Shape, wanted: Shape, *, host: bool) -> Synapses:
        """Synapses to a population that exists."""
        if len(wanted) == 1:
            weight = self.numbers.weights((wanted[0], int(np.prod(seen))), host=host)
            return Dense(weight)
        axes = [_axis_to(self.draw, a, b) for a, b in zip(seen[1:], wanted[1:], strict=True)]
        kernel: Pair = (axes[0][0], axes[1][0])
        groups = self._groups(seen[0], wanted[0])
        weight = self.numbers.weights((wanted[0], seen[0] // groups, *kernel), host=host)
        return Conv2d(weight, padding=(axes[0][1], axes[1][1]), groups=groups)

    def delay(self, synapses: Synapses, pool: SumPool | None, least: int) -> int | Array:
        """One delay for all synapses, or one per target, per source or per synapse."""
        if not self.delays and not least:
            return 0
        if isinstance(synapses, Dense) and pool is None and self.draw(st.booleans()):
            rows, columns = synapses.weight.shape
            shape = self.draw(st.sampled_from(((rows, 1), (1, columns), (rows, columns))))
            dtype = self.draw(st.sampled_from((np.int64, np.int8, np.uint16)))
            return self.rng.integers(least, least + 4, shape).astype(dtype)
        return least + self.draw(st.sampled_from((0, 0, 0, 1, 3)))

    def project(
        self, source: str, name: str, *, wanted: Shape | None = None, least_delay: int = 0
    ) -> Shape:
        """Add a projection; returns the shape of its target."""
        pool = self.pool(self.shapes[source])
        seen = pooled_shape(self.shapes[source], pool)
        constant = any(i.name == source and i.kind == "constant" for i in self.inputs)
        form = self.numbers.format
        host = constant and form is not None and form.first_layer == "host_bias"
        if wanted is None:
            synapses = self.synapses(seen, host=host)
        else:
            synapses = self.synapses_to(seen, wanted, host=host)
        self.projections.append(
            Projection(
                source=source,
                target=name,
                synapses=synapses,
                pool=pool,
                delay=self.delay(synapses, pool, least_delay),
                exponent=self.numbers.exponent(host=host),
                sum_bits=self.numbers.sum_bits(host=host),
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
        source = self.draw(st.sampled_from(list(self.shapes)))
        shape = self.project(source, name)
        others = self._fitting(shape, but=[source])
        if self.draw(st.booleans()) and others:  # a residual or skip connection
            other = self.draw(st.sampled_from(others))
            self.project(other, name, wanted=shape)
        neurons = self.numbers.neurons(shape, sink=sink)
        scale = None if self.numbers.format is None else 0.5
        self.populations.append(
            Population(
                name=name,
                shape=shape,
                neurons=neurons,
                scale=scale,
                max_spikes=self.numbers.max_spikes(neurons),
            )
        )
        if not sink:
            self.shapes[name] = shape
            if self.delays and self.draw(st.integers(0, 3)) == 0:  # recurrence
                self.project(name, name, wanted=shape, least_delay=1)

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
        for _ in range(min(len(pairs), self.draw(st.integers(1, 2)))):
            later, early = self.draw(st.sampled_from(pairs))
            least_delay = self.draw(st.integers(1, 2))  # less than the hops, sometimes
            if not any((p.source, p.target) == (later, early) for p in self.projections):
                self.project(later, early, wanted=self.shapes[early], least_delay=least_delay)

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

    def recording(self, length: int) -> Recording:
        samples = self.draw(st.integers(1, self.extent.samples))
        spikes, values = {}, {}
        for spec in self.inputs:
            name = spec.name if len(self.inputs) > 1 or self.draw(st.booleans()) else ""
            time = () if spec.kind == "constant" else (length,)
            shape = (samples, *time, *spec.shape)
            if spec.kind == "spikes":
                density = self.draw(st.sampled_from((0.0, 0.05, 0.3, 0.6, 1.0)))
                spikes[name] = (self.rng.random(shape) < density).astype(np.uint8)
            else:
                values[name] = self.numbers.values(shape, spec.low, spec.high)
        return Recording(spikes=spikes, values=values)


def _case(
    draw: st.DrawFn,
    extent: Extent,
    numbers: IntegerNumbers | FloatNumbers,
    *,
    delays: bool = True,
) -> Case:
    builder = Builder(draw, extent, numbers, delays=delays)
    for _ in range(draw(st.integers(1, 2))):
        builder.add_input()
    count = draw(st.sampled_from((extent.populations, *range(1, extent.populations + 1))))
    for index in range(count):
        builder.add_population(sink=index == count - 1 and draw(st.booleans()))
    if delays and draw(st.integers(0, 2)):
        builder.add_loop()
    lengths = st.sampled_from((extent.steps, extent.steps, extent.steps // 2, 1))
    length, fixed = draw(lengths), draw(st.booleans())
    steps = length if fixed else draw(lengths)  # the run may be shorter or longer, too
    graph = builder.graph(length if fixed else None)
    interval = draw(st.sampled_from((None, None, 1, 2, 3, extent.steps)))
    offset = None if interval is None else draw(st.sampled_from((None, 0, 1, 5)))
    return Case(graph, builder.recording(length), steps, interval, offset)


def _generator(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def narrow_formats(draw: st.DrawFn, membrane_bits: int = 12) -> NumberFormat:
    """Every decay rule with every rule of overflow, in registers that overflow soon."""
    overflow = st.sampled_from(get_args(OverflowRule))
    first_layers: tuple[Literal["host_bias", "graded"], ...] = ("host_bias", "graded")
    return replace(
        NARROW,
        membrane_bits=membrane_bits,
        decay_rule=draw(st.sampled_from(get_args(DecayRule))),
        decay_bits=draw(st.sampled_from((4, 12))),
        current_overflow=draw(overflow),
        membrane_overflow=draw(overflow),
        word_bits=draw(st.sampled_from((*(membrane_bits + n for n in (0, 1, 2, 4)), 64))),
        comparator=draw(st.sampled_from(get_args(Comparator))),
        first_layer=draw(st.sampled_from(first_layers)),
    )


@st.composite
def integer_cases(
    draw: st.DrawFn,
    extents: Sequence[Extent] = (MEDIUM, MEDIUM, WIDE),
    *,
    formats: st.SearchStrategy[NumberFormat] | None = None,
    delays: bool = True,
    hop_delay: int | None = None,
) -> Case:
    """An integer graph in one of the number formats, and its input.

    Without ``delays`` it has no loop either. ``hop_delay`` replaces the format's own.
    """
    rng = _generator(draw)
    if formats is None:
        fixed = st.sampled_from((LOIHI2, GENERIC, FOREIGN))
        formats = st.one_of(fixed, narrow_formats(), narrow_formats())
    form = draw(formats)
    if hop_delay is not None:
        form = replace(form, hop_delay=hop_delay)
    numbers = IntegerNumbers(draw, rng, form)
    return _case(draw, draw(st.sampled_from(extents)), numbers, delays=delays)


@st.composite
def float_cases(draw: st.DrawFn, extent: Extent = SMALL) -> Case:
    """A float graph whose arithmetic is exact, and its input."""
    rng = _generator(draw)
    return _case(draw, extent, FloatNumbers(draw, rng))


def integers(value: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(value, np.int64)


def lif(decay: int = 0, threshold: ArrayLike = 10, bias: ArrayLike = 0, **options: Any) -> LIF:
    return LIF(decay=integers(decay), threshold=integers(threshold), bias=integers(bias), **options)


def one_layer(
    synapses: Synapses | ArrayLike,
    neurons: LIF | Integrator | None = None,
    *,
    spec: InputSpec | None = None,
    timesteps: int | None = 1,
    form: NumberFormat = GENERIC,
    **projection: Any,
) -> Graph:
    """An integer graph: an input, synapses, and neurons "p"."""
    if not isinstance(synapses, Dense | Conv2d):
        synapses = Dense(integers(synapses))
    if spec is None:
        spec = InputSpec(name="in", kind="spikes", shape=synapses.weight.shape[1:2])
    shape = synapses.target_shape(pooled_shape(spec.shape, projection.get("pool")))
    return Graph(
        inputs=(spec,),
        populations=(Population(name="p", shape=shape, neurons=neurons or lif(), scale=1.0),),
        projections=(Projection(source=spec.name, target="p", synapses=synapses, **projection),),
        outputs=("p",),
        timesteps=timesteps,
        number_format=form,
    )
