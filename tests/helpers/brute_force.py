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
from hypothesis import event
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection, ResetSubtract
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Dense, Shape, SumPool
from tests.helpers.graphs import Case
from tests.helpers.refusals import refused

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
    # a vector is a map of one pixel
    windows = {(*seen, 0, 0)[:3]: window for seen, window in windows.items()}
    for out, y, x in neurons_of((*target, 1, 1)[:3]):
        group = out // (out_channels // synapses.groups)
        for channel, row, column in neurons_of((group_channels, *kernel)):
            seen = (
                group * group_channels + channel,
                y * step_y - pad_y + row * dilation_y,
                x * step_x - pad_x + column * dilation_x,
            )
            for neuron in windows.get(seen, ()):  # there is none in the padding
                found[neuron, (out, y, x)[: len(target)]] += weight[out][channel][row][column]
    return found


def own_delay(projection: Projection, source: Shape, sender: Neuron, target: Neuron) -> int:
    """Delay of one synapse in the graph's own timesteps, the hop not included."""
    if not isinstance(projection.delay, np.ndarray):
        return projection.delay
    column = list(neurons_of(source)).index(sender)
    rows = projection.delay.tolist()
    row = rows[target[0] if len(rows) > 1 else 0]
    return int(row[column if len(row) > 1 else 0])


def stages_of(graph: Graph, timing: Timing) -> dict[str, int] | None:
    """Timesteps each population runs behind zero-delay timing; None if no such numbers exist.

    Every requirement is tried in turn, and the target raised to what it asks for, until none asks
    for more. Each population on a path adds one at most: whoever is raised beyond the number of
    populations is raised for ever.
    """
    names = [p.name for p in graph.populations]
    stages = dict.fromkeys(names, 0)
    if timing == "zero_delay" or not graph.number_format or not graph.number_format.hop_delay:
        return stages
    reaches = {(p.source, p.target) for p in graph.projections}
    for through, start, end in product(names, names, names):
        if (start, through) in reaches and (through, end) in reaches:
            reaches.add((start, end))
    while True:
        calm = True
        for projection in graph.projections:
            source, target = projection.source, projection.target
            if graph.is_input(source):
                least = 0 if graph.input(source).kind == "constant" else 1
            else:
                looped = (target, source) in reaches
                shortest = int(np.min(projection.delay)) if looped else 0
                least = stages[source] + 1 - shortest
            if stages[target] < least:
                stages[target], calm = least, False
            if least > len(names):
                return None
        if calm:
            return stages


@dataclass(frozen=True, slots=True)
class Step:
    """What one population did in one timestep."""

    current: list[Number]
    membrane: list[Number]
    fired: list[int]


class Simulation:
    """One sample of a case; steps are worked out when asked for."""

    def __init__(self, case: Case, timing: Timing, sample: int) -> None:
        self.case, self.graph, self.steps = case, case.graph, case.steps
        self.form = case.graph.number_format
        stages = stages_of(case.graph, timing)
        assert stages is not None, "cannot be pipelined"
        self.stages = stages
        self.done: dict[tuple[str, int], Step] = {}
        self.outgoing: dict[tuple[str, int], dict[Neuron, int]] = {}
        self.fed = {spec.name: _fed(case, spec, sample) for spec in self.graph.inputs}
        # per projection and target: source, weight and physical delay of every synapse
        self.synapses: dict[str, dict[Neuron, list[tuple[Neuron, Number, int]]]] = {}
        for projection in self.graph.projections:
            seen, shape = (self.graph.shape_of(n) for n in (projection.source, projection.target))
            hops = stages[projection.target] - stages.get(projection.source, 0)
            incoming: dict[Neuron, list[tuple[Neuron, Number, int]]] = defaultdict(list)
            for (source, target), weight in synapses_of(projection, seen, shape).items():
                delay = own_delay(projection, seen, source, target) + hops
                if self._is_constant(projection.source):
                    delay = 0
                incoming[target].append((source, weight, delay))
            self.synapses[projection.name] = incoming

    def _is_constant(self, name: str) -> bool:
        return self.graph.is_input(name) and self.graph.input(name).kind == "constant"

    def _on_host(self, projection: Projection) -> bool:
        constant = self._is_constant(projection.source)
        return constant and self.form is not None and self.form.first_layer == "host_bias"

    def sent(self, name: str, step: int) -> dict[Neuron, Number]:
        """What an input or population sends in this step, by neuron, zeros left out."""
        if self._is_constant(name):
            return self.fed[name][0]
        if step < 0:
            return {}
        if name in self.fed:
            return self.fed[name][step] if step < len(self.fed[name]) else {}
        if (name, step) not in self.outgoing:
            fired = zip(
                neurons_of(self.graph.shape_of(name)), self.step(name, step).fired, strict=True
            )
            self.outgoing[name, step] = {neuron: n for neuron, n in fired if n}
        return self.outgoing[name, step]

    def events(self, projection: Projection) -> int:
        """Pairs of something sent and a target it reached; a constant value once in all."""
        name, found = projection.source, 0
        once = self._is_constant(name)
        for incoming in self.synapses[projection.name].values():
            for source, _, delay in incoming:
                for step in range(1 if once else self.steps):
                    arrived = self.sent(name, step - delay).get(source, 0)
                    found += bool(arrived) if name in self.fed else arrived
        return found

    def step(self, name: str, step: int) -> Step:
        """One timestep of one population, and of all that it depends on."""
        if (name, step) not in self.done:
            self.done[name, step] = self._step(self.graph.population(name), step)
        return self.done[name, step]

    def _cleared(self, name: str, step: int) -> bool:
        """Whether a population starts this step from rest."""
        interval, offset = self.case.reset_interval, self.case.reset_offset
        if step == 0 or interval is None:
            return step == 0
        begin = self.stages[name]
        if offset is not None:
            begin = offset + self.stages[name] - min(self.stages.values())
        return (step - begin) % interval == 0

    def before(self, name: str, step: int) -> tuple[list[Number], list[Number]]:
        """Currents and membranes that a step starts from."""
        if self._cleared(name, step):
            size = self.graph.population(name).size
            return [0] * size, [0] * size
        last = self.step(name, step - 1)
        return last.current, last.membrane

    def changes(self, name: str, step: int) -> int:
        """Neurons that fired in this step, or have another membrane after it than before."""
        now, (_, before) = self.step(name, step), self.before(name, step)
        return sum(n > 0 or a != b for a, b, n in zip(now.membrane, before, now.fired, strict=True))

    def _step(self, population: Population, step: int) -> Step:
        neurons, size = population.neurons, population.size
        current_before, before = self.before(population.name, step)
        arriving: list[Number] = [0] * size
        host: list[Number] = [0] * size
        for projection in self.graph.projections:
            if projection.target != population.name:
                continue
            for index, neuron in enumerate(neurons_of(population.shape)):
                total = sum(
                    weight * self.sent(projection.source, step - delay).get(source, 0)
                    for source, weight, delay in self.synapses[projection.name][neuron]
                )
                if self._on_host(projection):  # to nearest, halves up
                    exact = Fraction(total) / 2**-projection.exponent
                    host[index] += floor(exact + Fraction(1, 2))
                else:
                    arriving[index] += self._weighed(total, projection)
        memory = neurons.current_decay
        current = arriving
        if memory is not None:
            decays = _spread(memory, population.shape)
            current = [
                self._decayed(*state) + new
                for *state, new in zip(current_before, decays, arriving, strict=True)
            ]
        decay, bias = (_spread(v, population.shape) for v in (neurons.decay, neurons.bias))
        if self.form is not None:
            current = [self._in_register(c, self.form.current_overflow) for c in current]
            bias = [(b + h) * 2**self.form.bias_shift for b, h in zip(bias, host, strict=True)]
        after = [
            self._decayed(u, kept) + i + b
            for u, kept, i, b in zip(before, decay, current, bias, strict=True)
        ]
        if self.form is not None:
            after = [self._in_register(u, self.form.membrane_overflow) for u in after]
        if not isinstance(neurons, LIF):
            return Step(current, after, [0] * size)
        fired = [0] * size
        for index, threshold in enumerate(_spread(neurons.threshold, population.shape)):
            while fired[index] < population.max_spikes and self._fires(after[index], threshold):
                fired[index] += 1
                if isinstance(neurons.reset, ResetSubtract):
                    after[index] -= neurons.reset.amount
                else:
                    after[index] = neurons.reset.value
        return Step(current, after, fired)

    def _weighed(self, total: Number, projection: Projection) -> Number:
        """What a synaptic sum adds to the current, in membrane units."""
        if self.form is None:
            return total
        if projection.sum_bits is not None:
            total = _turned(total, projection.sum_bits)
        return total * 2 ** (projection.exponent + self.form.fraction_bits)

    def _in_register(self, value: Number, rule: str) -> Number:
        """A sum in the word that adds up, then in the register, by its overflow rule."""
        assert self.form is not None
        value = _turned(value, self.form.word_bits)
        half = 2 ** (self.form.membrane_bits - 1)
        if rule == "saturate":
            return max(1 - half, min(half - 1, value))
        if rule == "wrap":
            return _turned(value, self.form.membrane_bits)
        assert rule == "wrap_once"
        if value > half:
            return value - 2 * half
        return value + 2 * half if value <= -half else value

    def _decayed(self, state: Number, decay: Number) -> Number:
        """What is left of a state."""
        if self.form is None:
            return state * decay
        if self.form.decay_rule == "shift_subtract":
            lost = floor(Fraction(state, 2**decay))
            if lost == 0 and state != 0:
                lost = 1 if state > 0 else -1
            return state - lost
        kept = Fraction(state * decay, 2**self.form.decay_bits)
        return trunc(kept) if self.form.decay_rule == "multiply_truncate" else floor(kept)

    def _fires(self, membrane: Number, threshold: Number) -> bool:
        if self.form is None:
            return bool(membrane >= threshold)
        threshold *= 2**self.form.threshold_shift
        return bool(membrane > threshold if self.form.comparator == ">" else membrane >= threshold)

    def readout(self, name: str) -> list[Number]:
        """Spike counts, or what an integrator makes of its membranes."""
        neurons = self.graph.population(name).neurons
        steps = [self.step(name, step) for step in range(self.steps)]
        if neurons.readout is None:
            return [sum(fired) for fired in zip(*(s.fired for s in steps), strict=True)]
        series = list(zip(*(s.membrane for s in steps), strict=True))
        if neurons.readout in ("last", "max"):
            return [v[-1] if neurons.readout == "last" else max(v) for v in series]
        divisor = self.steps if neurons.readout == "mean" and self.form is None else 1
        return [sum(v) if divisor == 1 else sum(v) / divisor for v in series]


def _turned(value: int, bits: int) -> int:
    """Two's complement: the number of this width that differs by whole turns."""
    turn = 2**bits
    value %= turn
    return value - turn if value >= turn // 2 else value


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


def assert_equals_brute_force(case: Case, timing: Timing) -> None:
    """Run the reference, and compare all it did; SD207 where brute force finds no stages."""
    if stages_of(case.graph, timing) is None:
        event("cannot be pipelined")
        with refused("SD207", "a loop"):
            case.run("reference", timing)
        timing = "zero_delay"
    trace = case.run("reference", timing)
    samples = [Simulation(case, timing, sample) for sample in range(trace.record.samples)]
    every = list(product(samples, range(case.steps)))

    def same(expected: list[Any], found: NDArray[Any], what: str) -> None:
        np.testing.assert_array_equal(found, np.reshape(expected, found.shape), what)

    for population in case.graph.populations:
        name = population.name
        same([s.step(name, t).current for s, t in every], trace.current[name], f"current of {name}")
        same([s.step(name, t).membrane for s, t in every], trace.membrane[name], f"{name}")
        updates = [sum(s.changes(name, t) for t in range(case.steps)) for s in samples]
        same(updates, trace.record.updates[name], f"updates of {name}")
        if name in trace.spikes:
            same([s.step(name, t).fired for s, t in every], trace.spikes[name], f"{name} spikes")
    for name in case.graph.outputs:
        same([s.readout(name) for s in samples], trace.output[name], f"readout of {name}")
    for projection in case.graph.projections:
        events = trace.record.events[projection.name]
        same([s.events(projection) for s in samples], events, f"events of {projection.name}")
