"""Layers and small nets on which vector kernels are likely to err, and that fire by construction.

Numbers of channels lie around the words and lanes of the kernels, weights at the ends of their
range, rates differ from timestep to timestep and reach 0 and 1. Thresholds are what the membranes
of the reference reach, so that most populations fire now and then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from hypothesis import event
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, InputSpec
from snn_deploy.hardware import available
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.synapses import Conv2d, Dense, Shape, Synapses, one_to_one
from tests.helpers.graphs import FOREIGN, Builder, Case, Extent, narrow_formats
from tests.helpers.numbers import IntegerNumbers

Array = NDArray[Any]

CHANNELS = (1, 3, 7, 63, 64, 65, 127, 128, 129, 192)
RATES = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)
LAYERS = ("dense", "conv 1x1", "conv 3x3", "conv 5x5", "strided", "dilated", "grouped", "depthwise")
WEIGHTS = ("lowest", "highest", "alternating", "one column", "16 bits", "random", "sparse")
SIZES = Extent(3, CHANNELS, 5, CHANNELS, 5, 5)
SHIPPED = tuple(t.number_format for t in available() if t.number_format is not None)


def examples(number: int) -> int:
    """How many examples a property is tried on: so many, unless the environment says otherwise."""
    return int(os.environ.get("SNN_DEPLOY_EXAMPLES", number))


def weights_of(
    kind: str, shape: tuple[int, ...], limits: tuple[int, int, int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Weights of one kind within ``limits`` (lowest, highest, step), int64.

    All but those of ``16 bits`` are 8 bits wide once the step is divided out. ``one column``: those
    of one source are the lowest, the others at most one step.
    """
    low, high, step = limits
    wide = kind == "16 bits"
    low = max(low, (1 - (1 << 15) if wide else -128) * step)
    high = min(high, ((1 << 15) - 1 if wide else 127) * step)
    if kind == "alternating":
        return np.where(np.arange(np.prod(shape)) % 2, high, low).reshape(shape)
    if kind in ("lowest", "highest"):
        return np.full(shape, low if kind == "lowest" else high)
    if kind == "one column":
        weight = step * rng.integers(-1, 2, shape)
        weight[:, rng.integers(shape[1])] = low
        return weight
    weight = step * rng.integers(-(-low // step), high // step + 1, shape)
    return weight * (rng.random(shape) < 0.05) if kind == "sparse" else weight


class ExtremeNumbers(IntegerNumbers):
    """Mantissas that a number format allows, with weights of the kinds above."""

    def weights(self, shape: Shape, *, host: bool) -> Array:
        form = self.format
        limits = (form.weight_min, form.weight_max, form.weight_step)
        if host:
            limits = (-form.first_layer_weight_limit, form.first_layer_weight_limit, 1)
        kind = self.draw(st.sampled_from(WEIGHTS))
        event(kind)
        return weights_of(kind, shape, limits, self.rng)

    def sum_bits(self, *, host: bool) -> int | None:
        """A narrow register now and then only: it hides what is wrong above its bits."""
        return super().sum_bits(host=host) if self.draw(st.integers(0, 5)) == 0 else None


class LayerBuilder(Builder):
    """Draws layers of named kinds, behind an input of spikes and sometimes a second of any kind."""

    def add_input(self) -> None:
        if self.inputs:
            super().add_input()
            return
        shape = self.shape()
        self.inputs.append(InputSpec(name="in0", kind="spikes", shape=shape))
        self.shapes["in0"] = shape

    def synapses(self, seen: Shape, *, host: bool) -> Synapses:
        kind = self.draw(st.sampled_from(LAYERS if len(seen) == 3 else ("dense", "conv 1x1")))
        targets = self.draw(st.sampled_from(CHANNELS))
        if kind == "dense":
            return Dense(self.numbers.weights((targets, int(np.prod(seen))), host=host))
        groups = 1
        if kind == "depthwise":
            targets = groups = seen[0]
        elif kind == "grouped":
            groups = self._groups(seen[0])
            targets = max(1, min(targets, 64) // groups) * groups
        side = {"conv 1x1": 1, "conv 5x5": 5}.get(kind, 3)
        stride = (self.draw(st.integers(1, 3)), 2) if kind == "strided" else (1, 1)
        dilation = (2, self.draw(st.integers(1, 2))) if kind == "dilated" else (1, 1)
        # at least so much that the kernel fits, hence not the same along both axes
        least = [
            max(0, -(-(d * (side - 1) + 1 - size) // 2))
            for size, d in zip(seen[1:] or (1, 1), dilation, strict=True)
        ]
        more = (0, 0) if len(seen) == 1 else (self.draw(st.integers(0, 1)), 0)
        weight = self.numbers.weights((targets, seen[0] // groups, side, side), host=host)
        padding = (least[0] + more[0], least[1] + more[1])
        return Conv2d(weight, stride, padding, dilation, groups)

    def synapses_to(self, seen: Shape, wanted: Shape, *, host: bool) -> Synapses:
        """A residual connection where shapes allow it."""
        if seen != wanted or self.draw(st.booleans()):
            return super().synapses_to(seen, wanted, host=host)
        return one_to_one(wanted, int(self.numbers.weights((1, 1), host=host)[0, 0]))

    def recording(self, length: int) -> Recording:
        """Spikes at a rate of its own in each timestep."""
        drawn = super().recording(length)
        for name, spikes in drawn.spikes.items():
            rates = self.draw(st.lists(st.sampled_from(RATES), min_size=length, max_size=length))
            rate = np.reshape(rates, (length, *([1] * (spikes.ndim - 2))))
            drawn.spikes[name] = (self.rng.random(spikes.shape) < rate).astype(np.uint8)
        return drawn


def with_threshold(graph: Graph, name: str, threshold: Array) -> Graph:
    """The graph with another threshold of one population."""
    return replace(
        graph,
        populations=tuple(
            replace(p, neurons=replace(p.neurons, threshold=threshold))
            if p.name == name and isinstance(p.neurons, LIF)
            else p
            for p in graph.populations
        ),
    )


def tuned(case: Case, share: float) -> Case:
    """The case with thresholds that membranes reach, one population after another.

    A threshold lies around what ``1 - share`` of the membranes of its population stay below while
    none of its neurons fires.
    """
    form = case.graph.number_format
    assert form is not None
    few = replace(case, recording=case.recording.head(2))
    for name in (name for group in case.graph.order for name in group):
        neurons = case.graph.population(name).neurons
        if not isinstance(neurons, LIF):
            continue
        never = np.full_like(neurons.threshold, form.threshold_limit)
        silent = replace(few, graph=with_threshold(case.graph, name, never))
        reached = np.quantile(silent.run("reference").membrane[name], 1 - share)
        level = max(int(reached), 0) >> form.threshold_shift
        # from half to one and a half of it, as random as what was drawn
        spread = level // 2 + neurons.threshold % (level + 1)
        threshold = np.minimum(spread, form.threshold_limit)
        case = replace(case, graph=with_threshold(case.graph, name, threshold))
    return case


@st.composite
def formats(draw: st.DrawFn) -> NumberFormat:
    """Those of the targets that come with the package, mostly; narrow and foreign ones."""
    kind: Literal["shipped", "narrow", "foreign"]
    kind = draw(st.sampled_from(("shipped", "shipped", "shipped", "narrow", "foreign")))
    if kind == "shipped":
        return draw(st.sampled_from(SHIPPED))
    return draw(narrow_formats()) if kind == "narrow" else FOREIGN


def features(graph: Graph) -> Iterator[str]:
    """What there is in a graph: kinds of layers, and of connections."""
    for projection in graph.projections:
        synapses, source = projection.synapses, graph.shape_of(projection.source)
        yield str(synapses.weight.shape[0])
        if isinstance(synapses, Dense):
            yield "dense"
        else:
            yield f"conv {synapses.weight.shape[2]}x{synapses.weight.shape[3]}"
            if 1 < synapses.groups < source[0]:
                yield "grouped"
            elif synapses.groups > 1:
                yield "one to one" if synapses.weight[0].size == 1 else "depthwise"
            if max(synapses.stride) > 1:
                yield "strided"
            if max(synapses.dilation) > 1:
                yield "dilated"
            if synapses.padding[0] != synapses.padding[1]:
                yield "padded along one axis"
        if projection.pool is not None:
            yield "pooled"
        if projection.longest_delay > 0:
            yield "delayed"
        if projection.source == projection.target:
            yield "recurrent"
        if graph.is_input(projection.source):
            yield graph.input(projection.source).kind
    if any(len(graph.incoming(p.name)) > 1 for p in graph.populations):
        yield "several into one"
    if any(len(group) > 1 for group in graph.order):
        yield "in a loop"


@st.composite
def net_cases(draw: st.DrawFn, sizes: Extent = SIZES) -> Case:
    """One to three populations, with all that may lie between them, and their input."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    form = draw(formats())
    builder = LayerBuilder(draw, sizes, ExtremeNumbers(draw, rng, form), delays=True)
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        builder.add_input()
    count = draw(st.integers(1, sizes.populations))
    for index in range(count):
        builder.add_population(sink=index == count - 1 and draw(st.integers(0, 2)) == 0)
    if draw(st.integers(0, 2)) == 0:
        builder.add_loop()
    steps = draw(st.sampled_from((sizes.steps, sizes.steps, 2, 1)))
    interval = draw(st.sampled_from((None, None, None, 2)))
    graph = builder.graph(None)
    case = Case(graph, builder.recording(steps), steps, interval)
    return tuned(case, draw(st.sampled_from((0.5, 0.2, 0.05))))
