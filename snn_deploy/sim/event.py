"""The event-driven engine: work is done where a spike arrives, nowhere else.

Spikes are bit-packed. For every target pixel a table lists the source pixels that reach it and the
kernel position on the way; the kernel walks the set bits and adds weight rows. The table is built
from the geometry alone, so Dense, convolution and pooling share one kernel. Integer graphs only.
Identical to :mod:`snn_deploy.sim.reference` in spikes, membranes, currents and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, rounding_shift_right
from snn_deploy.sim import kernels
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import readout
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.synapses import AxisReach, Conv2d, Dense, as_map, axis_reach, pooled_shape

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SynapseTable:
    """Connectivity of one projection, per target pixel.

    Entries ``starts[p]`` to ``starts[p + 1]`` of ``pixels`` and ``taps`` are the source pixels that
    reach target pixel p, each once, and the row of ``weights`` to add: [taps, source channels,
    target channels per group], int16 or int64, exponent included.
    """

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    taps: NDArray[np.int32]
    weights: Array
    channels_per_group: int

    @property
    def largest_sum(self) -> int:
        """No sum over 0/1 inputs can exceed this magnitude."""
        entries = int(np.diff(self.starts).max(initial=0)) * self.channels_per_group
        return entries * int(np.abs(self.weights.astype(np.int64)).max(initial=0))


def synapse_table(graph: Graph, projection: Projection) -> SynapseTable:
    """Build the table of a projection.

    Where pooling windows overlap, a source pixel reaches a target through several kernel positions:
    such a set becomes a position of its own, with the sum of their weights.
    """
    source = graph.shape_of(projection.source)
    synapses = projection.synapses
    vertical, horizontal = axis_reach(synapses, projection.pool, source)
    rows, row_taps, row_sets = _padded(vertical)
    columns, column_taps, column_sets = _padded(horizontal)
    # [target rows, target columns, reached rows, reached columns]; -1 where there is none
    row, column = rows[:, None, :, None], columns[None, :, None, :]
    reached = (row >= 0) & (column >= 0)
    pixel = row * as_map(source)[2] + column
    tap = row_taps[:, None, :, None] * len(column_sets) + column_taps[None, :, None, :]
    kernel = _kernel(projection, pooled_shape(source, projection.pool))
    weights = np.array(
        [kernel[np.ix_(ys, xs)].sum(axis=(0, 1)) for ys in row_sets for xs in column_sets]
    )
    weights <<= max(projection.exponent, 0)
    narrow = np.abs(weights).max() < 1 << 15
    entries = reached.reshape(-1, reached.shape[2] * reached.shape[3]).sum(axis=1)
    return SynapseTable(
        starts=np.concatenate([[0], np.cumsum(entries)]).astype(np.int64),
        pixels=pixel[reached].astype(np.int32),
        taps=tap[reached].astype(np.int32),
        weights=weights.astype(np.int16 if narrow else np.int64),
        channels_per_group=as_map(source)[0]
        // (synapses.groups if isinstance(synapses, Conv2d) else 1),
    )


def _padded(
    reach: AxisReach,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[tuple[int, ...]]]:
    """One axis as arrays [outputs, most inputs]: input index (-1: none) and tap set, and the sets.

    The empty axis of a population that nothing reaches still has one, empty, tap set.
    """
    sets = sorted({taps for row in reach.taps for _, taps in row}) or [()]
    number = {taps: index for index, taps in enumerate(sets)}
    most = max((len(row) for row in reach.taps), default=0)
    indices = np.full((len(reach.taps), max(most, 1)), -1, np.int64)
    taps = np.zeros_like(indices)
    for output, row in enumerate(reach.taps):
        for place, (index, through) in enumerate(row):
            indices[output, place], taps[output, place] = index, number[through]
    return indices, taps, sets


def _kernel(projection: Projection, seen: tuple[int, ...]) -> NDArray[np.int64]:
    """Weights as [K_h, K_w, source channels, target channels per group]."""
    synapses = projection.synapses
    weight = synapses.weight.astype(np.int64)
    if isinstance(synapses, Dense):
        kernel = weight.reshape(weight.shape[0], *as_map(seen))
        return kernel.transpose(2, 3, 1, 0)
    out, per_group, height, width = weight.shape
    grouped = weight.reshape(synapses.groups, out // synapses.groups, per_group, height, width)
    channels = grouped.transpose(3, 4, 0, 2, 1)
    return channels.reshape(height, width, synapses.groups * per_group, -1)


def pack(spikes: Array) -> NDArray[np.uint64]:
    """0/1 [samples, steps, *shape] to words [samples, steps, pixels, ceil(channels / 64)]."""
    channels, height, width = as_map(spikes.shape[2:])
    rows = spikes.reshape(*spikes.shape[:2], channels, height * width).transpose(0, 1, 3, 2)
    padded = np.zeros((*rows.shape[:3], -(-channels // 64) * 64), np.uint8)
    padded[..., :channels] = rows
    packed = np.packbits(padded, axis=3, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False)


def unpack(words: NDArray[np.uint64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The inverse of :func:`pack`: bool [samples, steps, *shape]."""
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=3, bitorder="little")
    return _channels_first(bits[..., : shape[0]].astype(bool), shape)


def _channels_first(pixels: Array, shape: tuple[int, ...]) -> Array:
    """[..., pixels, channels] to [..., *shape]."""
    return np.ascontiguousarray(np.swapaxes(pixels, -1, -2)).reshape(*pixels.shape[:-2], *shape)


def _pixels(values: Array, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """[..., *shape] to contiguous int64 [..., pixels, channels]."""
    lead = values.shape[: values.ndim - len(shape)]
    channels, height, width = as_map(shape)
    rows = values.reshape(*lead, channels, height * width)
    return np.ascontiguousarray(np.swapaxes(rows, -1, -2), dtype=np.int64)


class _State:
    """Everything that grows while one batch runs, per population."""

    def __init__(self, population: Population, plan: Plan, sum_dtype: type, keep: bool) -> None:
        channels, height, width = as_map(population.shape)
        pixels, samples, steps = height * width, plan.samples, plan.steps
        self.current: Array = np.zeros((samples, steps, pixels, channels), sum_dtype)
        self.host = np.zeros((samples, 1, pixels, channels), np.int64)
        self.membrane = np.zeros((samples, pixels, channels), np.int64)
        self.words = np.zeros((samples, steps, pixels, -(-channels // 64)), np.uint64)
        self.spikes = np.zeros((pixels, channels), np.int64)
        self.sample_spikes = np.zeros(samples, np.int64)
        self.updates = np.zeros(samples, np.int64)
        traced = samples if keep else 0
        self.membrane_trace = np.zeros((traced, steps, pixels, channels), np.int64)
        self.current_trace = np.zeros((traced, steps, pixels, channels), np.int64)


class EventEngine:
    """A graph's synapse tables and neuron parameters, made once, run on any number of batches."""

    def __init__(self, graph: Graph) -> None:
        if graph.number_format is None:
            raise ValueError("the event engine runs integer graphs only")
        self.graph = graph
        self.format: NumberFormat = graph.number_format
        self.tables = {p.name: synapse_table(graph, p) for p in graph.projections}
        self.neurons = {p.name: self._parameters(p) for p in graph.populations}

    def _parameters(self, population: Population) -> dict[str, Any]:
        neurons = population.neurons

        def spread(value: Array) -> NDArray[np.int64]:
            return _pixels(np.broadcast_to(value, population.shape), population.shape)

        never = np.iinfo(np.int64).max
        threshold = np.full(population.shape, never, np.int64)
        subtracts, reset = False, 0
        if isinstance(neurons, LIF):
            strict = self.format.comparator == ">"
            shifted = neurons.threshold.astype(np.int64) << self.format.threshold_shift
            threshold = np.broadcast_to(shifted if strict else shifted - 1, population.shape)
            subtracts = isinstance(neurons.reset, ResetSubtract)
            reset = int(
                neurons.reset.amount
                if isinstance(neurons.reset, ResetSubtract)
                else neurons.reset.value
            )
        return {
            "bias": spread(neurons.bias),
            "decay": spread(neurons.decay),
            "threshold": _pixels(threshold, population.shape),
            "subtracts": subtracts,
            "reset": reset,
        }

    def run(self, plan: Plan) -> Trace:
        """Run one batch."""
        graph = self.graph
        words = {
            name: pack(values)
            for name, values in plan.inputs.items()
            if graph.input(name).kind == "spikes"
        }
        events = {p.name: np.zeros(plan.samples, np.int64) for p in graph.projections}
        states: dict[str, _State] = {}
        for population in graph.populations:
            largest = sum(
                self.tables[p.name].largest_sum
                for p in graph.incoming(population.name)
                if not graph.carries_values(p)
            )
            valued = any(
                graph.carries_values(p) and not graph.on_host(p)
                for p in graph.incoming(population.name)
            )
            wide = valued or largest >= 1 << 31
            keep = plan.trace or not isinstance(population.neurons, LIF)
            states[population.name] = _State(population, plan, np.int64 if wide else np.int32, keep)
            words[population.name] = states[population.name].words
        for projection in graph.projections:
            if graph.carries_values(projection):
                self._add_values(projection, plan, states[projection.target], events)
        for group in graph.order:
            looped = len(group) > 1 or any(p.source == group[0] for p in graph.incoming(group[0]))
            spans = [(t, t + 1) for t in range(plan.steps)] if looped else [(0, plan.steps)]
            for first, last in spans:
                for name in group:
                    self._advance(name, plan, first, last, words, states[name], events)
        return self._trace(plan, states, words, events)

    def _add_values(
        self, projection: Projection, plan: Plan, state: _State, events: dict[str, Array]
    ) -> None:
        """Multiply-accumulate a whole input of values, before the first step."""
        table = self.tables[projection.name]
        spec = self.graph.input(projection.source)
        values = _pixels(plan.inputs[projection.source], spec.shape)
        if spec.kind == "constant":
            values = values[:, None]
        total = np.zeros((*values.shape[:2], *state.current.shape[2:]), np.int64)
        products = np.zeros(values.shape[:2], np.int64)
        kernels.accumulate_values(
            values, table.starts, table.pixels, table.taps, table.weights,
            table.channels_per_group, total, products,
        )  # fmt: skip
        delay = 0 if spec.kind == "constant" else plan.delay(projection)
        arrived = values.shape[1] if spec.kind == "constant" else max(plan.steps - delay, 0)
        events[projection.name] += products[:, :arrived].sum(axis=1)
        if self.graph.on_host(projection):
            state.host = state.host + rounding_shift_right(total, -projection.exponent)
        else:
            state.current[:, delay:] += total[:, :arrived]

    def _advance(
        self,
        name: str,
        plan: Plan,
        first: int,
        last: int,
        words: dict[str, NDArray[np.uint64]],
        state: _State,
        events: dict[str, Array],
    ) -> None:
        """Gather what arrives at one population in these steps, then update its neurons."""
        for projection in self.graph.incoming(name):
            if self.graph.carries_values(projection):
                continue
            table = self.tables[projection.name]
            kernels.accumulate_spikes(
                words[projection.source], first, last, plan.delay(projection), table.starts,
                table.pixels, table.taps, table.weights, table.channels_per_group,
                state.current, events[projection.name],
            )  # fmt: skip
        neurons, number_format = self.neurons[name], self.format
        kernels.update_neurons(
            state.current, state.host, first, last, number_format.fraction_bits,
            1 << (number_format.membrane_bits - 1), neurons["bias"], number_format.bias_shift,
            neurons["decay"], number_format.decay_bits, number_format.membrane_limit,
            neurons["threshold"], neurons["subtracts"], neurons["reset"], state.membrane,
            state.words, state.spikes, state.sample_spikes, state.updates,
            state.membrane_trace, state.current_trace,
        )  # fmt: skip

    def _trace(
        self,
        plan: Plan,
        states: dict[str, _State],
        words: dict[str, NDArray[np.uint64]],
        events: dict[str, Array],
    ) -> Trace:
        graph = self.graph
        inputs = {}
        for spec in graph.inputs:
            time = () if spec.kind == "constant" else (1,)
            inputs[spec.name] = (plan.inputs[spec.name] != 0).sum(axis=(0, *time), dtype=np.int64)
        spiking = {p.name: p for p in graph.spiking()}
        membrane = {
            p.name: _channels_first(states[p.name].membrane_trace, p.shape)
            for p in graph.populations
            if len(states[p.name].membrane_trace)
        }
        wanted = {n for n in spiking if plan.trace or n in graph.outputs}
        spikes = {name: unpack(words[name], spiking[name].shape) for name in wanted}
        output = {n: readout(graph.population(n), spikes, membrane) for n in graph.outputs}
        record = Record(
            samples=plan.samples,
            timesteps=plan.steps,
            spikes={n: _channels_first(states[n].spikes, p.shape) for n, p in spiking.items()},
            sample_spikes={n: states[n].sample_spikes for n in spiking},
            inputs=inputs,
            events=events,
            updates={n: s.updates for n, s in states.items()},
        )
        return Trace(
            output=output,
            record=record,
            spikes={n: spikes[n] for n in spiking} if plan.trace else {},
            membrane=membrane if plan.trace else {},
            current={
                p.name: _channels_first(states[p.name].current_trace, p.shape)
                for p in graph.populations
            }
            if plan.trace
            else {},
        )
