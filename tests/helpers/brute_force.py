"""The contracts of docs/design.md once more: neuron by neuron, in plain Python numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import floor, trunc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, InputSpec, Population, Projection, ResetSubtract
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Dense, Shape, SumPool
from tests.helpers.graphs import Case

Neuron = tuple[int, ...]
Number = Any  # int in integer graphs, float in float graphs


def neurons_of(shape: Shape) -> Iterator[Neuron]:
    """Indices of all neurons, in C, H, W order."""
    return product(*(range(size) for size in shape))


def _summed_by(shape: Shape, pool: SumPool | None) -> dict[Neuron, list[Neuron]]:
    """For each neuron behind the pool, in C, H, W order, the source neurons in its window."""
    if pool is None:
        return {neuron: [neuron] for neuron in neurons_of(shape)}
    channels, height, width = shape
    windows: dict[Neuron, list[Neuron]] = {}
    for channel in range(channels):
        for row, top in enumerate(range(0, height - pool.kernel[0] + 1, pool.stride[0])):
            for column, left in enumerate(range(0, width - pool.kernel[1] + 1, pool.stride[1])):
                windows[channel, row, column] = [
                    (channel, top + y, left + x)
                    for y in range(pool.kernel[0])
                    for x in range(pool.kernel[1])
                ]
    return windows


def synapses_of(
    projection: Projection, source: Shape, target: Shape
) -> dict[tuple[Neuron, Neuron], Number]:
    """Weight of every synapse, by (source neuron, target neuron), whatever the weight is."""
    synapses, windows = projection.synapses, _summed_by(source, projection.pool)
    weight = synapses.weight.tolist()
    found: dict[tuple[Neuron, Neuron], Number] = defaultdict(int)
    if isinstance(synapses, Dense):
        for out, (index, window) in product(range(target[0]), enumerate(windows.values())):
            for neuron in window:
                found[neuron, (out,)] += weight[out][index]
        return found
    out_channels, group_channels, *kernel = synapses.weight.shape
    (step_y, step_x), (pad_y, pad_x) = synapses.stride, synapses.padding
    dilation_y, dilation_x = synapses.dilation
    for out, y, x in neurons_of(target):
        group = out // (out_channels // synapses.groups)
        for channel, row, column in neurons_of((group_channels, *kernel)):
            seen = (
                group * group_channels + channel,
                y * step_y - pad_y + row * dilation_y,
                x * step_x - pad_x + column * dilation_x,
            )
            for neuron in windows.get(seen, ()):  # there is none in the padding
                found[neuron, (out, y, x)] += weight[out][channel][row][column]
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """What one population did in one timestep."""

    current: list[Number]
    membrane: list[Number]
    fired: list[bool]


class Simulation:
    """One sample of a case; steps are worked out when asked for."""

    def __init__(self, case: Case, timing: Timing, sample: int) -> None:
        self.graph, self.steps = case.graph, case.steps
        self.form = case.graph.number_format
        self.hop = self.form.hop_delay if self.form and timing == "pipelined" else 0
        self.done: dict[tuple[str, int], Step] = {}
        self.fed = {spec.name: _fed(case, spec, sample) for spec in self.graph.inputs}
        self.synapses: dict[str, dict[Neuron, list[tuple[Neuron, Number]]]] = {}
        for projection in self.graph.projections:
            shapes = (self.graph.shape_of(n) for n in (projection.source, projection.target))
            incoming: dict[Neuron, list[tuple[Neuron, Number]]] = defaultdict(list)
            for (source, target), weight in synapses_of(projection, *shapes).items():
                incoming[target].append((source, weight))
            self.synapses[projection.name] = incoming

    def _is_constant(self, name: str) -> bool:
        return self.graph.is_input(name) and self.graph.input(name).kind == "constant"

    def _on_host(self, projection: Projection) -> bool:
        values = self.graph.is_input(projection.source) and (
            self.graph.input(projection.source).kind != "spikes"
        )
        return values and self.form is not None and self.form.first_layer == "host_bias"

    def sent(self, projection: Projection, step: int) -> dict[Neuron, Number]:
        """What arrives through a projection in this step, by source neuron, zeros left out."""
        name = projection.source
        if self._is_constant(name):
            return self.fed[name][0]
        then = step if self._on_host(projection) else step - projection.delay - self.hop
        if then < 0:
            return {}
        if name in self.fed:
            return self.fed[name][then] if then < len(self.fed[name]) else {}
        fired = self.step(name, then).fired
        shape = self.graph.shape_of(name)
        return {neuron: 1 for neuron, spike in zip(neurons_of(shape), fired, strict=True) if spike}

    def events(self, projection: Projection) -> int:
        """Pairs of something sent and a target it reached; a constant value once in all."""
        fan_out: dict[Neuron, int] = defaultdict(int)
        for sources in self.synapses[projection.name].values():
            for source, _ in sources:
                fan_out[source] += 1
        steps = 1 if self._is_constant(projection.source) else self.steps
        return sum(fan_out[n] for step in range(steps) for n in self.sent(projection, step))

    def step(self, name: str, step: int) -> Step:
        """One timestep of one population, and of all that it depends on."""
        if (name, step) not in self.done:
            self.done[name, step] = self._step(self.graph.population(name), step)
        return self.done[name, step]

    def changes(self, name: str, step: int) -> int:
        """Neurons that fired in this step, or have another membrane after it than before."""
        now = self.step(name, step)
        before = self.step(name, step - 1).membrane if step else [0] * len(now.membrane)
        return sum(f or a != b for a, b, f in zip(now.membrane, before, now.fired, strict=True))

    def _step(self, population: Population, step: int) -> Step:
        neurons, size = population.neurons, population.size
        before = self.step(population.name, step - 1).membrane if step else [0] * size
        current: list[Number] = [0] * size
        host: list[Number] = [0] * size
        for projection in self.graph.projections:
            if projection.target != population.name:
                continue
            arriving = self.sent(projection, step)
            for index, neuron in enumerate(neurons_of(population.shape)):
                sources = self.synapses[projection.name][neuron]
                total = sum(weight * arriving.get(source, 0) for source, weight in sources)
                if self._on_host(projection):  # to nearest, halves up
                    exact = Fraction(total) / 2**-projection.exponent
                    host[index] += floor(exact + Fraction(1, 2))
                else:
                    current[index] += total * 2**projection.exponent
        current = [self._arrived(c) for c in current]
        decay, bias = (_spread(v, population.shape) for v in (neurons.decay, neurons.bias))
        after = [
            self._integrated(*values)
            for values in zip(
                before, decay, current, map(sum, zip(bias, host, strict=True)), strict=True
            )
        ]
        if not isinstance(neurons, LIF):
            return Step(current, after, [False] * size)
        threshold = _spread(neurons.threshold, population.shape)
        fired = [self._fires(u, theta) for u, theta in zip(after, threshold, strict=True)]
        for index, spike in enumerate(fired):
            if not spike:
                continue
            if isinstance(neurons.reset, ResetSubtract):
                after[index] -= neurons.reset.amount
            else:
                after[index] = neurons.reset.value
        return Step(current, after, fired)

    def _arrived(self, current: Number) -> Number:
        """The current in membrane units, back by one turn if it left its register."""
        if self.form is None:
            return current
        current *= 2**self.form.fraction_bits
        half = 2 ** (self.form.membrane_bits - 1)
        if current > half:
            return current - 2 * half
        return current + 2 * half if current <= -half else current

    def _integrated(self, before: Number, decay: Number, current: Number, bias: Number) -> Number:
        if self.form is None:
            return before * decay + current + bias
        kept = trunc(Fraction(before * decay, 2**self.form.decay_bits))
        limit = 2 ** (self.form.membrane_bits - 1) - 1
        return max(-limit, min(limit, kept + current + bias * 2**self.form.bias_shift))

    def _fires(self, membrane: Number, threshold: Number) -> bool:
        if self.form is None:
            return bool(membrane >= threshold)
        threshold *= 2**self.form.threshold_shift
        return bool(membrane > threshold if self.form.comparator == ">" else membrane >= threshold)

    def readout(self, name: str) -> list[Number]:
        """Spike counts, or what an integrator makes of its membranes."""
        neurons = self.graph.population(name).neurons
        steps = [self.step(name, step) for step in range(self.steps)]
        if isinstance(neurons, LIF):
            return [sum(fired) for fired in zip(*(s.fired for s in steps), strict=True)]
        series = list(zip(*(s.membrane for s in steps), strict=True))
        if neurons.readout in ("last", "max"):
            return [v[-1] if neurons.readout == "last" else max(v) for v in series]
        divisor = self.steps if neurons.readout == "mean" and self.form is None else 1
        return [sum(v) if divisor == 1 else sum(v) / divisor for v in series]


def _fed(case: Case, spec: InputSpec, sample: int) -> list[dict[Neuron, Number]]:
    """What an input sends in each step (in one, if constant), zeros left out."""
    held = case.recording.spikes if spec.kind == "spikes" else case.recording.values
    array = held.get(spec.name, held.get(""))
    assert array is not None
    steps = array[sample : sample + 1] if spec.kind == "constant" else array[sample]
    mean, std = (np.broadcast_to(v, spec.shape[:1]).tolist() for v in (spec.mean, spec.std))

    def encoded(neuron: Neuron, value: float) -> Number:
        if spec.kind == "spikes":
            return int(value)
        normal = (value - mean[neuron[0]]) / std[neuron[0]]
        return normal if spec.scale is None else round(normal / spec.scale)  # ties to even

    rows = ({n: encoded(n, frame[n].item()) for n in neurons_of(spec.shape)} for frame in steps)
    return [{neuron: value for neuron, value in row.items() if value} for row in rows]


def _spread(value: NDArray[Any], shape: Shape) -> list[Number]:
    return [number.item() for number in np.broadcast_to(value, shape).ravel()]
