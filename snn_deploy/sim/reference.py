"""The plain statement of what a graph does: dense, step by step, generic in its arithmetic.

With :mod:`snn_deploy.numerics` this is the norm; other engines are tested against it. A float graph
runs in float64, an integer graph in its number format. Sums are exact: float64 BLAS while every
partial sum stays below 2**53, int64 beyond.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snn_deploy import numerics
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.timing import Delay
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.synapses import Conv2d, Dense, Shape, as_map, pooled_shape, with_weights

Array = NDArray[Any]


class FloatArithmetic:
    """float64, and a spike where the membrane reaches the threshold: as ASGL trains."""

    dtype = np.float64

    def synaptic(self, total: Array, projection: Projection) -> Array:
        """Current that a synaptic sum adds."""
        return total

    def bias(self, value: Array) -> Array:
        """Bias in membrane units."""
        return value

    def host_sum(self, total: Array, exponent: int) -> Array:
        """Sum of input values, as a bias."""
        return total

    def limit_current(self, current: Array) -> Array:
        """No width."""
        return current

    def decay(self, state: Array, decay: Array) -> Array:
        """What is left of a membrane or current."""
        return np.asarray(state * decay)

    def limit_membrane(self, membrane: Array) -> Array:
        """No width."""
        return membrane

    def spikes(self, membrane: Array, neurons: LIF, most: int) -> NDArray[np.int64]:
        """How often every neuron fires: again while what a reset leaves reaches the threshold."""
        above = membrane - neurons.threshold
        if most == 1:
            return np.asarray(above >= 0, np.int64)
        times = np.floor(above / _amount(neurons)) + 1
        return np.asarray(np.clip(times, 0, most), np.int64)


class IntegerArithmetic:
    """The same operations in a target's number format."""

    dtype = np.int64

    def __init__(self, number_format: NumberFormat) -> None:
        self.format = number_format

    def synaptic(self, total: Array, projection: Projection) -> Array:
        """Current in membrane units; the sum wraps in its own register first, if it has one."""
        if projection.sum_bits is not None:
            total = numerics.wrap(total, projection.sum_bits)
        return total << (projection.exponent + self.format.fraction_bits)

    def bias(self, value: Array) -> Array:
        """Bias mantissas in membrane units."""
        return value.astype(np.int64) << self.format.bias_shift

    def host_sum(self, total: Array, exponent: int) -> Array:
        """Sum of input values as bias mantissas, rounded once."""
        return numerics.rounding_shift_right(total, -exponent)

    def limit_current(self, current: Array) -> Array:
        """The word that adds up, then the current's register."""
        word = numerics.wrap(current, self.format.word_bits)
        return numerics.limit(word, self.format.current_overflow, self.format.membrane_bits)

    def decay(self, state: Array, decay: Array) -> Array:
        """What is left of a membrane or current, by the target's decay rule."""
        rule, bits = self.format.decay_rule, self.format.decay_bits
        return numerics.decayed(state, decay.astype(np.int64), rule, bits)

    def limit_membrane(self, membrane: Array) -> Array:
        """The word that adds up, then the membrane's register."""
        word = numerics.wrap(membrane, self.format.word_bits)
        return numerics.limit(word, self.format.membrane_overflow, self.format.membrane_bits)

    def spikes(self, membrane: Array, neurons: LIF, most: int) -> NDArray[np.int64]:
        """How often every neuron fires, by the target's comparator."""
        threshold = neurons.threshold.astype(np.int64) << self.format.threshold_shift
        amount = int(_amount(neurons))
        return numerics.spikes_fired(membrane, threshold, amount, most, self.format.comparator)


def _amount(neurons: LIF) -> float | int:
    """What one spike subtracts; of no consequence for neurons that fire once at most."""
    return neurons.reset.amount if isinstance(neurons.reset, ResetSubtract) else 1


def synaptic_sum(projection: Projection, shape: Shape, source: Array) -> Array:
    """Sum of weights times source, per target neuron, without exponent and delay.

    ``source`` is [..., *shape] (bool, int64 or float64), ``shape`` that of the projection's source;
    returns [..., *target shape], int64 for integer weights, else float64.
    """
    synapses, pool = projection.synapses, projection.pool
    weight = synapses.weight
    batch = source.shape[: source.ndim - len(shape)]
    values = source.reshape(-1, *shape)
    exact = np.issubdtype(weight.dtype, np.integer)
    number: np.dtype[Any] = np.dtype(np.float64)
    if exact:
        values = values.astype(np.int64)
        small = largest_sum(projection, int(np.abs(values).max(initial=0))) < 1 << 53
        number = np.dtype(np.float64 if small else np.int64)
    values, weight = values.astype(number), weight.astype(number)
    seen = pooled_shape(shape, pool)
    if pool is not None:
        windows = sliding_window_view(values, pool.kernel, axis=(2, 3))
        values = windows[:, :, :: pool.stride[0], :: pool.stride[1]].sum(axis=(4, 5))
    if isinstance(synapses, Dense):
        total = values.reshape(len(values), -1) @ weight.T
    else:
        total = _convolve(synapses, weight, values.reshape(len(values), *as_map(seen)))
        if len(seen) == 1:
            total = total[:, :, 0, 0]
    total = total.reshape(*batch, *total.shape[1:])
    return np.asarray(total.astype(np.int64) if exact else total)


def largest_sum(projection: Projection, value: int) -> int:
    """No synaptic sum over integers up to ``value`` can exceed this magnitude."""
    weight, pool = projection.synapses.weight, projection.pool
    summed = weight[0].size * (1 if pool is None else pool.kernel[0] * pool.kernel[1])
    return int(value * int(np.abs(weight.astype(np.int64)).max(initial=0)) * summed)


def _convolve(synapses: Conv2d, weight: Array, values: Array) -> Array:
    """Cross-correlation of [N, C, H, W] as one matrix product per group."""
    (pad_y, pad_x), (step_y, step_x) = synapses.padding, synapses.stride
    dilation_y, dilation_x = synapses.dilation
    out_channels, group_channels, kernel_y, kernel_x = weight.shape
    padded = np.pad(values, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    span = (dilation_y * (kernel_y - 1) + 1, dilation_x * (kernel_x - 1) + 1)
    windows = sliding_window_view(padded, span, axis=(2, 3))
    patches = windows[:, :, ::step_y, ::step_x, ::dilation_y, ::dilation_x]
    samples, _, height, width = patches.shape[:4]
    per_group = out_channels // synapses.groups
    sums = []
    for group in range(synapses.groups):
        part = patches[:, group * group_channels : (group + 1) * group_channels]
        rows = part.transpose(0, 2, 3, 1, 4, 5).reshape(samples * height * width, -1)
        kernel = weight[group * per_group : (group + 1) * per_group].reshape(per_group, -1)
        sums.append((rows @ kernel.T).reshape(samples, height, width, per_group))
    return np.concatenate(sums, axis=3).transpose(0, 3, 1, 2)


def delayed_sums(
    projection: Projection, delay: Delay, shape: Shape, source: Array, step: int
) -> Array | None:
    """Synaptic sum that arrives in ``step``, None if nothing can.

    ``source`` is [samples, steps, *shape]; synapses of equal delay are summed together.
    """
    if not isinstance(delay, np.ndarray):
        then = step - delay
        return None if then < 0 else synaptic_sum(projection, shape, source[:, then])
    total = None
    for value in np.unique(delay):
        if value <= step:
            weight = np.where(delay == value, projection.synapses.weight, 0)
            part = replace(projection, synapses=with_weights(projection.synapses, weight))
            some = synaptic_sum(part, shape, source[:, step - value])
            total = some if total is None else total + some
    return total


def run(graph: Graph, plan: Plan) -> Trace:
    """Run ``plan`` through ``graph``, one timestep after another."""
    arithmetic = (
        FloatArithmetic() if graph.number_format is None else IntegerArithmetic(graph.number_format)
    )
    samples, steps = plan.samples, plan.steps
    sent: dict[str, Array] = dict(plan.inputs)
    membrane: dict[str, Array] = {}
    current: dict[str, Array] = {}
    updates: dict[str, Array] = {}
    for population in graph.populations:
        shape = (samples, steps, *population.shape)
        sent[population.name] = np.zeros(shape, np.uint8)
        membrane[population.name] = np.zeros(shape, arithmetic.dtype)
        current[population.name] = np.zeros(shape, arithmetic.dtype)
        updates[population.name] = np.zeros(samples, np.int64)

    constant = {
        p.name: synaptic_sum(p, graph.shape_of(p.source), plan.inputs[p.source])
        for p in graph.projections
        if graph.is_constant(p)
    }

    def total(projection: Projection, step: int) -> Array | None:
        """Synaptic sum that arrives in this step, None if nothing can."""
        if projection.name in constant:
            return constant[projection.name][:, plan.windows[projection.target][step]]
        shape, delay = graph.shape_of(projection.source), plan.delays[projection.name]
        return delayed_sums(projection, delay, shape, sent[projection.source], step)

    for step in range(steps):
        for name in (name for group in graph.order for name in group):
            population = graph.population(name)
            neurons = population.neurons
            zero = np.zeros((samples, *population.shape), arithmetic.dtype)
            silent = step == 0 or plan.resets[name][step]
            before = zero if silent else membrane[name][:, step - 1]
            arriving, host = zero, zero
            for projection in graph.incoming(name):
                sums = total(projection, step)
                if sums is None:
                    continue
                if graph.on_host(projection):
                    host = host + arithmetic.host_sum(sums, projection.exponent)
                else:
                    arriving = arriving + arithmetic.synaptic(sums, projection)
            if neurons.current_decay is not None and not silent:
                kept = arithmetic.decay(current[name][:, step - 1], neurons.current_decay)
                arriving = arriving + kept
            synaptic = arithmetic.limit_current(arriving)
            bias = arithmetic.bias(np.broadcast_to(neurons.bias, population.shape) + host)
            after = arithmetic.decay(before, neurons.decay) + synaptic + bias
            after = arithmetic.limit_membrane(after)
            fired = np.zeros(after.shape, np.int64)
            if isinstance(neurons, LIF):
                fired = arithmetic.spikes(after, neurons, population.max_spikes)
                if isinstance(neurons.reset, ResetSubtract):
                    after = after - fired * neurons.reset.amount
                else:
                    after = np.where(fired > 0, neurons.reset.value, after)
                after = after.astype(arithmetic.dtype)
            sent[name][:, step] = fired
            membrane[name][:, step] = after
            current[name][:, step] = synaptic
            updates[name] += ((after != before) | (fired > 0)).reshape(samples, -1).sum(axis=1)

    spikes = {
        p.name: sent[p.name] if p.max_spikes > 1 else sent[p.name].astype(bool)
        for p in graph.spiking()
    }
    output = {name: readout(graph.population(name), spikes, membrane) for name in graph.outputs}
    return Trace(
        output=output,
        record=_record(graph, plan, sent, updates),
        spikes=spikes if plan.trace else {},
        membrane=membrane if plan.trace else {},
        current=current if plan.trace else {},
    )


def readout(population: Population, spikes: dict[str, Array], membrane: dict[str, Array]) -> Array:
    """Readout of an output population over time (axis 1): spike counts, or of its membranes."""
    kind = population.neurons.readout
    if kind is None:
        return np.asarray(spikes[population.name].sum(axis=1, dtype=np.int64))
    values = membrane[population.name]
    if kind == "last":
        return values[:, -1].copy()
    if kind == "max":
        return np.asarray(values.max(axis=1))
    if kind == "mean" and values.dtype == np.float64:
        return np.asarray(values.mean(axis=1))
    return np.asarray(values.sum(axis=1))


def _record(graph: Graph, plan: Plan, sent: dict[str, Array], updates: dict[str, Array]) -> Record:
    inputs = {
        spec.name: (plan.inputs[spec.name] != 0).sum(axis=(0, 1), dtype=np.int64)
        for spec in graph.inputs
    }
    spiking = [p.name for p in graph.spiking()]
    return Record(
        samples=plan.samples,
        timesteps=plan.steps,
        spikes={name: sent[name].sum(axis=(0, 1), dtype=np.int64) for name in spiking},
        sample_spikes={
            name: sent[name].reshape(plan.samples, -1).sum(axis=1, dtype=np.int64)
            for name in spiking
        },
        inputs=inputs,
        events=events_of(graph, plan, sent),
        updates=updates,
    )


def events_of(graph: Graph, plan: Plan, sent: dict[str, Array]) -> dict[str, Array]:
    """Events of every projection, [samples]; ``sent`` is what inputs and populations send."""
    events = {}
    for projection in graph.projections:
        seen = sent[projection.source]
        if graph.carries_values(projection):
            seen = (seen != 0).astype(np.uint8)
        events[projection.name] = _events(graph, plan, projection, seen)
    return events


def _events(graph: Graph, plan: Plan, projection: Projection, seen: Array) -> Array:
    """Pairs of something sent and a target neuron it reached within the run, [samples].

    What is sent later than the last step minus the delay never arrives.
    """
    delay = 0 if graph.is_constant(projection) else plan.delays[projection.name]
    if not isinstance(delay, np.ndarray):
        arrived = seen.shape[1] if graph.is_constant(projection) else max(plan.steps - delay, 0)
        per_neuron = seen[:, :arrived].sum(axis=1, dtype=np.int64)
        per_sample = (per_neuron * graph.fan_out(projection)).reshape(plan.samples, -1)
        return np.asarray(per_sample.sum(axis=1))
    targets, sources = projection.synapses.weight.shape
    flat = seen.reshape(plan.samples, plan.steps, sources)
    found = np.zeros(plan.samples, np.int64)
    for value in np.unique(delay):
        fan_out = np.broadcast_to(delay == value, (targets, sources)).sum(axis=0)
        per_neuron = flat[:, : max(plan.steps - int(value), 0)].sum(axis=1, dtype=np.int64)
        found += per_neuron @ fan_out
    return found
