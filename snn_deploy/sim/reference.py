"""The plain statement of what a graph does: dense, step by step, generic in its arithmetic.

With :mod:`snn_deploy.numerics` this is the norm; other engines are tested against it. A float graph
runs in float64, an integer graph in its number format. Sums are exact: float64 BLAS while every
partial sum stays below 2**53, int64 beyond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snn_deploy import numerics
from snn_deploy.graph import LIF, Graph, Integrator, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.synapses import Conv2d, Dense, Shape

Array = NDArray[Any]


class FloatArithmetic:
    """float64, and a spike where the membrane reaches the threshold: as ASGL trains."""

    dtype = np.float64

    def synaptic(self, total: Array, exponent: int) -> Array:
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

    def decay(self, membrane: Array, decay: Array) -> Array:
        """What is left of the membrane."""
        return membrane * decay

    def limit_membrane(self, membrane: Array) -> Array:
        """No width."""
        return membrane

    def fires(self, membrane: Array, threshold: Array) -> Array:
        """Where a spike is emitted."""
        return membrane >= threshold


class IntegerArithmetic:
    """The same operations in a target's number format."""

    dtype = np.int64

    def __init__(self, number_format: NumberFormat) -> None:
        self.format = number_format

    def synaptic(self, total: Array, exponent: int) -> Array:
        """Current in membrane units."""
        return total << (exponent + self.format.fraction_bits)

    def bias(self, value: Array) -> Array:
        """Bias mantissas in membrane units."""
        return value.astype(np.int64) << self.format.bias_shift

    def host_sum(self, total: Array, exponent: int) -> Array:
        """Sum of input values as bias mantissas, rounded once."""
        return numerics.rounding_shift_right(total, -exponent)

    def limit_current(self, current: Array) -> Array:
        """The current's register."""
        return numerics.wrap_once(current, self.format.membrane_bits)

    def decay(self, membrane: Array, decay: Array) -> Array:
        """What is left of the membrane, cut toward zero."""
        return numerics.multiply_truncate(membrane, decay.astype(np.int64), self.format.decay_bits)

    def limit_membrane(self, membrane: Array) -> Array:
        """The membrane's register."""
        return numerics.saturate(membrane, self.format.membrane_bits)

    def fires(self, membrane: Array, threshold: Array) -> Array:
        """Where a spike is emitted, by the target's comparator."""
        shifted = threshold.astype(np.int64) << self.format.threshold_shift
        return membrane > shifted if self.format.comparator == ">" else membrane >= shifted


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
        bound = (
            int(np.abs(values).max(initial=0))
            * int(np.abs(weight.astype(np.int64)).max(initial=0))
            * weight[0].size
            * (1 if pool is None else pool.kernel[0] * pool.kernel[1])
        )
        number = np.dtype(np.float64 if bound < 1 << 53 else np.int64)
    values, weight = values.astype(number), weight.astype(number)
    if pool is not None:
        windows = sliding_window_view(values, pool.kernel, axis=(2, 3))
        values = windows[:, :, :: pool.stride[0], :: pool.stride[1]].sum(axis=(4, 5))
    if isinstance(synapses, Dense):
        total = values.reshape(len(values), -1) @ weight.T
    else:
        total = _convolve(synapses, weight, values)
    total = total.reshape(*batch, *total.shape[1:])
    return np.asarray(total.astype(np.int64) if exact else total)


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


def run(graph: Graph, plan: Plan) -> Trace:
    """Run ``plan`` through ``graph``, one timestep after another."""
    arithmetic = (
        FloatArithmetic() if graph.number_format is None else IntegerArithmetic(graph.number_format)
    )
    samples, steps = plan.samples, plan.steps
    spikes: dict[str, Array] = {
        name: values.astype(bool)
        for name, values in plan.inputs.items()
        if graph.input(name).kind == "spikes"
    }
    membrane: dict[str, Array] = {}
    current: dict[str, Array] = {}
    updates: dict[str, Array] = {}
    for population in graph.populations:
        shape = (samples, steps, *population.shape)
        spikes[population.name] = np.zeros(shape, bool)
        membrane[population.name] = np.zeros(shape, arithmetic.dtype)
        current[population.name] = np.zeros(shape, arithmetic.dtype)
        updates[population.name] = np.zeros(samples, np.int64)

    constant = {
        p.name: synaptic_sum(p, graph.shape_of(p.source), plan.inputs[p.source])
        for p in graph.projections
        if graph.carries_values(p) and graph.input(p.source).kind == "constant"
    }

    def total(projection: Projection, step: int) -> Array | None:
        """Synaptic sum that arrives in this step, None if nothing can."""
        if projection.name in constant:
            return constant[projection.name]
        then = step - plan.delay(projection)
        if then < 0:
            return None
        if graph.carries_values(projection):
            source = plan.inputs[projection.source][:, then]
        else:
            source = spikes[projection.source][:, then]
        return synaptic_sum(projection, graph.shape_of(projection.source), source)

    for step in range(steps):
        for name in (name for group in graph.order for name in group):
            population = graph.population(name)
            neurons = population.neurons
            synaptic = np.zeros((samples, *population.shape), arithmetic.dtype)
            bias = np.broadcast_to(neurons.bias, population.shape)
            host = np.zeros((samples, *population.shape), arithmetic.dtype)
            for projection in graph.incoming(name):
                arriving = total(projection, step)
                if arriving is None:
                    continue
                if graph.on_host(projection):
                    host = host + arithmetic.host_sum(arriving, projection.exponent)
                else:
                    synaptic = synaptic + arithmetic.synaptic(arriving, projection.exponent)
            synaptic = arithmetic.limit_current(synaptic)
            before = (
                membrane[name][:, step - 1]
                if step
                else np.zeros((samples, *population.shape), arithmetic.dtype)
            )
            after = arithmetic.limit_membrane(
                arithmetic.decay(before, neurons.decay) + synaptic + arithmetic.bias(bias + host)
            )
            if isinstance(neurons, LIF):
                fired = arithmetic.fires(after, neurons.threshold)
                if isinstance(neurons.reset, ResetSubtract):
                    after = np.where(fired, after - neurons.reset.amount, after)
                else:
                    after = np.where(fired, neurons.reset.value, after)
                after = after.astype(arithmetic.dtype)
                spikes[name][:, step] = fired
            else:
                fired = np.zeros(after.shape, bool)
            membrane[name][:, step] = after
            current[name][:, step] = synaptic
            updates[name] += ((after != before) | fired).reshape(samples, -1).sum(axis=1)

    output = {name: readout(graph.population(name), spikes, membrane) for name in graph.outputs}
    record = _record(graph, plan, spikes, updates)
    spiking = {p.name: spikes[p.name] for p in graph.spiking()}
    return Trace(
        output=output,
        record=record,
        spikes=spiking if plan.trace else {},
        membrane=membrane if plan.trace else {},
        current=current if plan.trace else {},
    )


def readout(population: Population, spikes: dict[str, Array], membrane: dict[str, Array]) -> Array:
    """Readout of an output population over time (axis 1): spike counts where it spikes."""
    if not isinstance(population.neurons, Integrator):
        return np.asarray(spikes[population.name].sum(axis=1, dtype=np.int64))
    values = membrane[population.name]
    kind = population.neurons.readout
    if kind == "last":
        return values[:, -1].copy()
    if kind == "max":
        return np.asarray(values.max(axis=1))
    if kind == "mean" and values.dtype == np.float64:
        return np.asarray(values.mean(axis=1))
    return np.asarray(values.sum(axis=1))


def _record(
    graph: Graph, plan: Plan, spikes: dict[str, Array], updates: dict[str, Array]
) -> Record:
    inputs = {}
    events = {}
    for spec in graph.inputs:
        values = plan.inputs[spec.name] != 0
        time = () if spec.kind == "constant" else (1,)
        inputs[spec.name] = values.sum(axis=(0, *time), dtype=np.int64)
    for projection in graph.projections:
        fan_out = graph.fan_out(projection)
        if graph.carries_values(projection):
            seen = plan.inputs[projection.source] != 0
        else:
            seen = spikes[projection.source]
        if graph.is_input(projection.source) and graph.input(projection.source).kind == "constant":
            per_neuron = seen.astype(np.int64)
        else:  # what is sent later than the last step minus the delay never arrives
            arrived = max(plan.steps - plan.delay(projection), 0)
            per_neuron = seen[:, :arrived].sum(axis=1, dtype=np.int64)
        events[projection.name] = (per_neuron * fan_out).reshape(plan.samples, -1).sum(axis=1)
    return Record(
        samples=plan.samples,
        timesteps=plan.steps,
        spikes={p.name: spikes[p.name].sum(axis=(0, 1), dtype=np.int64) for p in graph.spiking()},
        sample_spikes={
            p.name: spikes[p.name].reshape(plan.samples, -1).sum(axis=1, dtype=np.int64)
            for p in graph.spiking()
        },
        inputs=inputs,
        events=events,
        updates=updates,
    )
