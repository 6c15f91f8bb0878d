"""Counts once more: every synapse, window and timestep one by one, in plain Python."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product
from math import ceil, prod

import numpy as np

from snn_deploy.counting import Convention
from snn_deploy.graph import Projection
from snn_deploy.sim import Trace
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool
from tests.helpers.brute_force import Neuron, Simulation, neurons_of, synapses_of
from tests.helpers.graphs import Case


class Enumeration:
    """What one run did, by lists of what every neuron sent."""

    def __init__(self, case: Case, trace: Trace) -> None:
        self.graph, self.samples, self.steps = case.graph, trace.record.samples, case.steps
        self.sent: dict[str, Counter[Neuron]] = {}
        for name, spikes in trace.spikes.items():
            counts = spikes.astype(int).sum(axis=(0, 1)).tolist()
            shape = self.graph.shape_of(name)
            self.sent[name] = Counter({n: _at(counts, n) for n in neurons_of(shape)})
        for spec in self.graph.inputs:
            found: Counter[Neuron] = Counter()
            for sample in range(self.samples):
                simulation = Simulation(case, "zero_delay", sample)
                for step in range(1 if spec.kind == "constant" else self.steps):
                    found.update(simulation.sent(spec.name, step).keys())
            self.sent[spec.name] = found

    def shapes(self, projection: Projection) -> tuple[Shape, Shape]:
        """Of source and target."""
        return self.graph.shape_of(projection.source), self.graph.shape_of(projection.target)

    def carries_values(self, projection: Projection) -> bool:
        names = {spec.name for spec in self.graph.inputs if spec.kind != "spikes"}
        return projection.source in names

    def is_constant(self, projection: Projection) -> bool:
        names = {spec.name for spec in self.graph.inputs if spec.kind == "constant"}
        return projection.source in names

    def one_to_one(self, projection: Projection) -> bool:
        """Whether a kernel of one place hands neurons on to the one in their place."""
        synapses = projection.synapses
        if not isinstance(synapses, Conv2d) or projection.pool is not None:
            return False
        pairs = synapses_of(projection, *self.shapes(projection))
        same_place = all(source == target for source, target in pairs)
        return (
            same_place and synapses.weight.shape[2:] == (1, 1) and tuple(synapses.stride) == (1, 1)
        )

    def is_shortcut(self, projection: Projection) -> bool:
        beside = [p for p in self.graph.projections if p.target == projection.target]
        return (
            self.one_to_one(projection)
            and not self.carries_values(projection)
            and projection.source != projection.target
            and len(beside) > 1
        )

    def is_handed_on(self, projection: Projection) -> bool:
        form = self.graph.number_format
        return (
            self.is_constant(projection)
            and form is not None
            and form.first_layer == "host_bias"
            and projection.exponent == 0
            and self.one_to_one(projection)
            and set(projection.synapses.weight.ravel().tolist()) == {1}
        )

    def reached(self, projection: Projection, sent: Counter[Neuron], rule: str, zeros: str) -> int:
        """Targets of what was sent, as a whole or broken number."""
        source, target = self.shapes(projection)
        if rule == "exact":
            pairs = synapses_of(projection, source, target).items()
            return sum(sent[s] for (s, _), w in pairs if zeros == "counted" or w != 0)
        seen = pooled(projection.pool, source)
        arriving = sum(sent[neuron] for window in seen.values() for neuron in window)
        if rule == "padded":
            return Fraction(arriving * multiplications(projection, target, zeros), len(seen))
        synapses = projection.synapses
        if isinstance(synapses, Dense):
            return arriving * target[0]
        down, across = (
            ceil(Fraction(k, s))
            for k, s in zip(synapses.weight.shape[2:], synapses.stride, strict=True)
        )
        return arriving * target[0] // synapses.groups * down * across

    def accumulates(self, projection: Projection, convention: Convention) -> int:
        if self.carries_values(projection):
            return 0
        if self.is_shortcut(projection) and not convention.count_residual:
            return 0
        sent = self.sent[projection.source]
        return self.reached(projection, sent, convention.fanout, convention.zero_weights)

    def products(self, projection: Projection, convention: Convention) -> int:
        if not self.carries_values(projection) or convention.values == "none":
            return 0
        if self.is_handed_on(projection):
            return 0
        constant = self.is_constant(projection)
        sent = self.sent[projection.source]
        if convention.zero_values == "counted":
            times = self.samples * (1 if constant else self.steps)
            sent = Counter(dict.fromkeys(neurons_of(self.shapes(projection)[0]), times))
        if constant and convention.first_layer == "per_timestep":
            sent = Counter({neuron: n * self.steps for neuron, n in sent.items()})
        rule = "exact" if convention.fanout == "exact" else "padded"
        return self.reached(projection, sent, rule, convention.zero_weights)

    def twin(self, projection: Projection, convention: Convention) -> int:
        """With activations that are never zero, except those of the input."""
        if self.is_handed_on(projection) or self.is_shortcut(projection):
            return 0
        source, target = self.shapes(projection)
        behind = Projection(source="a", target="b", synapses=projection.synapses)
        seen = source if projection.pool is None else projection.pool.output_shape(source)
        each = Counter(dict.fromkeys(neurons_of(seen), 1))
        times = 1
        given = projection.source in {spec.name for spec in self.graph.inputs}
        if convention.ann_activation_sparsity and given and projection.pool is None:
            each = self.sent[projection.source]
            times = self.samples * (1 if self.is_constant(projection) else self.steps)
        if convention.fanout == "exact":
            pairs = synapses_of(behind, seen, target).items()
            zeros = convention.zero_weights
            found = sum(each[s] for (s, _), w in pairs if zeros == "counted" or w != 0)
        else:
            layer = multiplications(behind, target, convention.zero_weights)
            found = Fraction(layer * sum(each.values()), prod(seen))
        return Fraction(found, times)


def pooled(pool: SumPool | None, source: Shape) -> dict[Neuron, list[Neuron]]:
    """The neurons in each window, by the place behind the pool."""
    if pool is None:
        return {neuron: [neuron] for neuron in neurons_of(source)}
    windows = {}
    for channel, row, column in neurons_of(pool.output_shape(source)):
        windows[channel, row, column] = [
            (channel, row * pool.stride[0] + y, column * pool.stride[1] + x)
            for y, x in product(range(pool.kernel[0]), range(pool.kernel[1]))
        ]
    return windows


def multiplications(projection: Projection, target: Shape, zeros: str) -> int:
    """Of a layer evaluated once: every output, every tap, inside the map or in its padding."""
    weight = projection.synapses.weight
    places = target[1:] if isinstance(projection.synapses, Conv2d) else ()
    taps = sum(zeros == "counted" or w != 0 for w in weight.ravel().tolist())
    return sum(taps for _ in neurons_of(places))


def _at(nested: list, neuron: Neuron) -> int:
    found = np.asarray(nested)[neuron]
    return int(found)
