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
from snn_deploy.numerics import NumberFormat, rounding_shift_right, wrap
from snn_deploy.sim import kernels
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import readout
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.synapses import AxisReach, Conv2d, Dense, as_map, axis_reach, pooled_shape

Array = NDArray[Any]

_NOTHING = np.zeros((0, 0, 0, 0), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class SynapseTable:
    """Connectivity of one projection, per target pixel.

    Entries ``starts[p]`` to ``starts[p + 1]`` of ``pixels`` and ``taps`` are the source pixels that
    reach target pixel p, each once, and the row of ``weights`` to add: [taps, source channels,
    target channels per group], int16 or int64, exponent included (unless the sum wraps before it).
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

    def add_spikes(
        self,
        words: NDArray[np.uint64],
        first: int,
        last: int,
        delay: Any,
        current: Array,
        events: NDArray[np.int64],
    ) -> None:
        """Add what 0/1 spikes bring in steps ``first`` to ``last``."""
        kernels.accumulate_spikes(
            words, first, last, delay, self.starts, self.pixels, self.taps, self.weights,
            self.channels_per_group, current, events,
        )  # fmt: skip

    def add_values(
        self,
        values: Array,
        first: int,
        last: int,
        delay: Any,
        current: Array,
        events: NDArray[np.int64],
        count_value: bool,
    ) -> None:
        """Add what values, or several spikes per timestep, bring in steps ``first`` to ``last``."""
        kernels.accumulate_values(
            values, first, last, delay, self.starts, self.pixels, self.taps, self.weights,
            self.channels_per_group, current, events, count_value,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class DelayedSynapses:
    """Dense synapses with delays of their own, sorted by delay and source neuron.

    Synapses ``starts[d, n]`` to ``starts[d, n + 1]`` lead from source neuron n (counted by pixel,
    then channel, as spikes are stored) to ``targets`` with ``weights``, and take the d-th distinct
    delay beyond that of the shortest one.
    """

    starts: NDArray[np.int64]
    targets: NDArray[np.int32]
    weights: NDArray[np.int64]

    def add_values(
        self,
        values: Array,
        first: int,
        last: int,
        delay: Any,
        current: Array,
        events: NDArray[np.int64],
        count_value: bool,
    ) -> None:
        """Add what arrives in steps ``first`` to ``last``."""
        kernels.accumulate_delayed(
            values, first, last, np.unique(delay), self.starts, self.targets, self.weights,
            current, events, count_value,
        )  # fmt: skip


def delayed_synapses(graph: Graph, projection: Projection) -> DelayedSynapses:
    """Sort the synapses of a Dense projection whose delay is an array."""
    weight = projection.synapses.weight.astype(np.int64)
    if projection.sum_bits is None:
        weight = weight << max(projection.exponent, 0)
    source = graph.shape_of(projection.source)
    channels, height, width = as_map(source)
    # columns from C, H, W order to the order of pixels, then channels
    order = np.arange(weight.shape[1]).reshape(channels, height * width).T.reshape(-1)
    weight = weight[:, order]
    delay = np.broadcast_to(np.asarray(projection.delay), weight.shape)[:, order]
    starts, targets, weights = [], [], []
    found = 0
    for value in np.unique(delay):
        column, row = np.nonzero((delay == value).T)
        counts = np.bincount(column, minlength=weight.shape[1])
        starts.append(found + np.concatenate([[0], np.cumsum(counts)]))
        targets.append(row)
        weights.append(weight[row, column])
        found += len(row)
    return DelayedSynapses(
        starts=np.array(starts, np.int64),
        targets=np.concatenate(targets).astype(np.int32),
        weights=np.concatenate(weights),
    )


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
    if projection.sum_bits is None:
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


def _pixels(values: Array, shape: tuple[int, ...]) -> Array:
    """[..., *shape] to contiguous [..., pixels, channels]."""
    lead = values.shape[: values.ndim - len(shape)]
    channels, height, width = as_map(shape)
    rows = values.reshape(*lead, channels, height * width)
    return np.ascontiguousarray(np.swapaxes(rows, -1, -2))


class _State:
    """Everything that grows while one batch runs, per population."""

    def __init__(self, population: Population, plan: Plan, sum_dtype: type, keep: bool) -> None:
        channels, height, width = as_map(population.shape)
        pixels, samples, steps = height * width, plan.samples, plan.steps
        self.current: Array = np.zeros((samples, steps, pixels, channels), sum_dtype)
        windows = 1 + int(plan.windows[population.name].max(initial=0))
        self.host = np.zeros((samples, windows, pixels, channels), np.int64)
        self.membrane = np.zeros((samples, pixels, channels), np.int64)
        remembers = samples if population.neurons.current_decay is not None else 0
        self.memory = np.zeros((remembers, pixels, channels), np.int64)
        self.words = np.zeros((samples, steps, pixels, -(-channels // 64)), np.uint64)
        self.spikes = np.zeros((pixels, channels), np.int64)
        self.sample_spikes = np.zeros(samples, np.int64)
        self.updates = np.zeros(samples, np.int64)
        traced = samples if keep else 0
        self.membrane_trace = np.zeros((traced, steps, pixels, channels), np.int64)
        self.current_trace = np.zeros((traced, steps, pixels, channels), np.int64)
        self._apart: Array | None = None

    def apart(self) -> Array:
        """Room for a sum that wraps before it joins ``current``."""
        if self._apart is None:
            self._apart = np.zeros_like(self.current)
        return self._apart


class EventEngine:
    """A graph's synapses and neuron parameters, made once, run on any number of batches."""

    def __init__(self, graph: Graph) -> None:
        if graph.number_format is None:
            raise ValueError("the event engine runs integer graphs only")
        self.graph = graph
        self.format: NumberFormat = graph.number_format
        self.synapses: dict[str, SynapseTable | DelayedSynapses] = {
            p.name: delayed_synapses(graph, p)
            if isinstance(p.delay, np.ndarray) and not graph.is_constant(p)
            else synapse_table(graph, p)
            for p in graph.projections
        }
        self.neurons = {p.name: self._parameters(p) for p in graph.populations}
        # Sources that are read as numbers: values, several spikes per timestep, delays per synapse.
        self.numeric = {
            p.source
            for p in graph.projections
            if not graph.is_binary(p) or isinstance(p.delay, np.ndarray)
        } | {p.name for p in graph.populations if p.max_spikes > 1}

    def _parameters(self, population: Population) -> dict[str, Any]:
        neurons = population.neurons

        def spread(value: Array) -> NDArray[np.int64]:
            wide = np.broadcast_to(value, population.shape).astype(np.int64)
            return _pixels(wide, population.shape)

        threshold: Array = np.array(1 << 62)  # never reached
        subtracts, reset = False, 0
        if isinstance(neurons, LIF):
            threshold = neurons.threshold.astype(np.int64) << self.format.threshold_shift
            threshold = threshold - (self.format.comparator == ">=")
            subtracts = isinstance(neurons.reset, ResetSubtract)
            reset = int(
                neurons.reset.amount
                if isinstance(neurons.reset, ResetSubtract)
                else neurons.reset.value
            )
        memory = neurons.current_decay
        return {
            "bias": spread(neurons.bias),
            "decay": spread(neurons.decay),
            "current_decay": np.zeros((0, 0), np.int64) if memory is None else spread(memory),
            "threshold": spread(threshold),
            "subtracts": subtracts,
            "reset": reset,
        }

    def _sum_dtype(self, population: Population) -> type:
        """int32 where no sum of this population can leave it, and no sum wraps on its own."""
        largest = 0
        for projection in self.graph.incoming(population.name):
            table = self.synapses[projection.name]
            if self.graph.on_host(projection):
                continue
            binary = self.graph.is_binary(projection) and projection.sum_bits is None
            if not binary or isinstance(table, DelayedSynapses):
                return np.int64
            largest += table.largest_sum
        return np.int64 if largest >= 1 << 31 else np.int32

    def run(self, plan: Plan) -> Trace:
        """Run one batch."""
        graph = self.graph
        words: dict[str, NDArray[np.uint64]] = {}
        values: dict[str, Array] = {}
        for spec in graph.inputs:
            if spec.kind == "spikes":
                words[spec.name] = pack(plan.inputs[spec.name])
            if spec.name in self.numeric:
                values[spec.name] = _pixels(plan.inputs[spec.name], spec.shape)
        events = {p.name: np.zeros(plan.samples, np.int64) for p in graph.projections}
        states: dict[str, _State] = {}
        for population in graph.populations:
            name = population.name
            keep = plan.trace or (name in graph.outputs and population.neurons.readout is not None)
            states[name] = _State(population, plan, self._sum_dtype(population), keep)
            words[name] = states[name].words
            if name in self.numeric:
                values[name] = np.zeros(states[name].current.shape, np.uint8)
        for projection in graph.projections:
            if graph.is_constant(projection):
                self._add_constant(projection, plan, values, states[projection.target], events)
        for group in graph.order:
            looped = len(group) > 1 or any(p.source == group[0] for p in graph.incoming(group[0]))
            spans = [(t, t + 1) for t in range(plan.steps)] if looped else [(0, plan.steps)]
            for first, last in spans:
                for name in group:
                    self._gather(name, plan, first, last, words, values, states[name], events)
                    self._update(name, plan, first, last, values, states[name])
        return self._trace(plan, states, words, values, events)

    def _add_constant(
        self,
        projection: Projection,
        plan: Plan,
        values: dict[str, Array],
        state: _State,
        events: dict[str, Array],
    ) -> None:
        """Multiply-accumulate constant input, once per window, before the first step."""
        constant = values[projection.source]
        count = constant.shape[1]
        total = np.zeros((plan.samples, count, *state.current.shape[2:]), np.int64)
        self.synapses[projection.name].add_values(
            constant, 0, count, 0, total, events[projection.name], False
        )
        total = total[:, : state.host.shape[1]]
        if self.graph.on_host(projection):
            state.host = state.host + rounding_shift_right(total, -projection.exponent)
            return
        if projection.sum_bits is not None:
            total = wrap(total, projection.sum_bits) << projection.exponent
        state.current += total[:, plan.windows[projection.target]]

    def _gather(
        self,
        name: str,
        plan: Plan,
        first: int,
        last: int,
        words: dict[str, NDArray[np.uint64]],
        values: dict[str, Array],
        state: _State,
        events: dict[str, Array],
    ) -> None:
        """Add up what arrives at one population in these steps."""
        for projection in self.graph.incoming(name):
            if self.graph.is_constant(projection):
                continue
            synapses, counted = self.synapses[projection.name], events[projection.name]
            delay, source = plan.delays[projection.name], projection.source
            current = state.current
            if projection.sum_bits is not None:
                current = state.apart()
                current[:, first:last] = 0
            if isinstance(synapses, SynapseTable) and self.graph.is_binary(projection):
                synapses.add_spikes(words[source], first, last, delay, current, counted)
            else:
                spikes = not self.graph.carries_values(projection)
                synapses.add_values(values[source], first, last, delay, current, counted, spikes)
            if projection.sum_bits is not None:
                sums = wrap(current[:, first:last], projection.sum_bits) << projection.exponent
                state.current[:, first:last] += sums

    def _update(
        self,
        name: str,
        plan: Plan,
        first: int,
        last: int,
        values: dict[str, Array],
        state: _State,
    ) -> None:
        """Advance one population's neurons through these steps."""
        neurons, number_format = self.neurons[name], self.format
        kernels.update_neurons(
            state.current, state.host, plan.windows[name], plan.resets[name], first, last,
            number_format.fraction_bits, 64 - number_format.word_bits,
            1 << (number_format.membrane_bits - 1),
            kernels.OVERFLOW_RULES[number_format.current_overflow],
            kernels.OVERFLOW_RULES[number_format.membrane_overflow],
            kernels.DECAY_RULES[number_format.decay_rule], number_format.decay_bits,
            neurons["bias"], number_format.bias_shift, neurons["decay"], neurons["current_decay"],
            neurons["threshold"], neurons["subtracts"], neurons["reset"],
            self.graph.population(name).max_spikes, state.membrane, state.memory, state.words,
            values.get(name, _NOTHING), state.spikes, state.sample_spikes, state.updates,
            state.membrane_trace, state.current_trace,
        )  # fmt: skip

    def _trace(
        self,
        plan: Plan,
        states: dict[str, _State],
        words: dict[str, NDArray[np.uint64]],
        values: dict[str, Array],
        events: dict[str, Array],
    ) -> Trace:
        graph = self.graph
        inputs = {
            spec.name: (plan.inputs[spec.name] != 0).sum(axis=(0, 1), dtype=np.int64)
            for spec in graph.inputs
        }
        spiking = {p.name: p for p in graph.spiking()}
        membrane = {
            p.name: _channels_first(states[p.name].membrane_trace, p.shape)
            for p in graph.populations
            if len(states[p.name].membrane_trace)
        }
        spikes: dict[str, Array] = {}
        for name in {n for n in spiking if plan.trace or n in graph.outputs}:
            several = spiking[name].max_spikes > 1
            shape = spiking[name].shape
            spikes[name] = (
                _channels_first(values[name], shape) if several else unpack(words[name], shape)
            )
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
