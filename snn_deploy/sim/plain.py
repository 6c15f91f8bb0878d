"""Populations of the event engine whose numbers do not fit the vector kernels: plain loops.

Whatever the number format says, in 64 bits; values and several spikes per timestep; delays of
every synapse; grouped convolutions. And everything, where vector kernels are not wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Projection
from snn_deploy.numerics import NumberFormat, wrap
from snn_deploy.sim import kernels
from snn_deploy.sim.batch import Batch, Written
from snn_deploy.sim.neurons import Parameters
from snn_deploy.sim.tables import DelayedSynapses, SynapseTable

Array = NDArray[Any]

# Sums of one block: they are written, then read once, and should not leave the cache meanwhile.
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Arrival:
    """What reaches a population through one projection in one batch."""

    projection: Projection
    table: SynapseTable | DelayedSynapses
    binary: bool  # ``sent`` are words of 0/1 spikes, not values
    spikes: bool  # values are numbers of spikes
    sent: Array
    delay: Any
    events: NDArray[np.int64]

    def add(self, block: slice, first: int, last: int, current: Array) -> None:
        """Add it to the sums of a block, [samples, steps, pixels, channels]."""
        table, sum_bits = self.table, self.projection.sum_bits
        total = current if sum_bits is None else np.zeros_like(current)
        sent, events = self.sent[block], self.events[block]
        if self.binary and isinstance(table, SynapseTable):
            table.add_spikes(sent, first, last, self.delay, total, events)
        else:
            table.add_values(sent, first, last, self.delay, total, events, self.spikes)
        if sum_bits is not None:
            current += wrap(total, sum_bits) << self.projection.exponent


class Neurons:
    """Neurons in 64 bits, and their states, of a block of so many ``samples``."""

    def __init__(
        self, form: NumberFormat, neurons: Parameters, samples: int, max_spikes: int
    ) -> None:
        self.form, self.neurons, self.max_spikes = form, neurons, max_spikes
        shape = neurons.shape
        self.membrane = np.empty((samples, *shape), np.int64)
        self.memory = np.empty((samples if neurons.remembers else 0, *shape), np.int64)

    def update(
        self, current: Array, host: Array, windows: Array, clears: Array, first: int, last: int,
        written: Written,
    ) -> None:  # fmt: skip
        """Advance a block of samples through these steps.

        ``host``: bias mantissas set by the host, int64 [samples, windows, pixels, channels].
        """
        neurons, form = self.neurons, self.form
        kernels.update_neurons(
            current, host, windows, clears, first, last,
            form.fraction_bits, 64 - form.word_bits, 1 << (form.membrane_bits - 1),
            kernels.OVERFLOW_RULES[form.current_overflow],
            kernels.OVERFLOW_RULES[form.membrane_overflow],
            kernels.DECAY_RULES[form.decay_rule], form.decay_bits,
            neurons.bias, form.bias_shift, neurons.decay, neurons.current_decay,
            neurons.threshold, neurons.subtracts, neurons.reset, self.max_spikes,
            self.membrane, self.memory, written.words, written.sent, written.spikes,
            written.sample_spikes, written.updates,
            written.membrane_trace, written.current_trace,
        )  # fmt: skip


def run_plain(
    graph: Graph,
    group: tuple[str, ...],
    batch: Batch,
    tables: dict[str, SynapseTable | DelayedSynapses],
    parameters: dict[str, Parameters],
    *,
    looped: bool,
) -> None:
    """Run populations through all steps, block by block; those in a loop step by step.

    ``tables`` of all projections that reach the group, ``parameters`` of its populations.
    """
    plan, memory = batch.plan, batch.memory
    form = graph.number_format
    assert form is not None
    populations = [graph.population(name) for name in group]
    arrivals = {name: _arrivals(graph, name, batch, tables) for name in group}
    dtypes = {name: _sum_dtype(arrivals[name], name in batch.constant) for name in group}
    row = max(p.size * np.dtype(dtypes[p.name]).itemsize for p in populations)
    steps = 1 if looped else min(plan.steps, max(1, BLOCK_BYTES // row))
    samples = 1
    if memory is not None:
        samples = plan.samples
    elif looped or steps == plan.steps:
        samples = min(plan.samples, max(1, BLOCK_BYTES // (row * steps)))
    neurons = {
        p.name: Neurons(form, parameters[p.name], samples, p.max_spikes) for p in populations
    }
    host = {name: _host(batch, name, parameters[name]) for name in group}
    if memory is not None:
        neurons = {name: memory.states.setdefault(name, neurons[name]) for name in group}
    sums = _Sums()
    for begin in range(0, plan.samples, samples):
        block = slice(begin, min(begin + samples, plan.samples))
        leave = {name: batch.written[name].of(block) for name in group}
        for first in range(batch.first, batch.last, steps):
            last = min(first + steps, batch.last)
            for name in group:
                shape = (block.stop - begin, last - first, *parameters[name].shape)
                current = sums.zeroed(shape, dtypes[name])
                windows = batch.windows[name]
                if name in batch.constant:
                    current += batch.constant[name][block][:, windows[first:last]]
                for arrival in arrivals[name]:
                    arrival.add(block, first, last, current)
                neurons[name].update(
                    current, host[name][block], windows, batch.clears[name], first, last,
                    leave[name],
                )  # fmt: skip


def _host(batch: Batch, name: str, parameters: Parameters) -> Array:
    """Bias mantissas set by the host, [samples, windows, pixels, channels]."""
    if name in batch.host:
        return batch.host[name]
    windows = 1 + int(batch.windows[name].max(initial=0))
    return np.zeros((batch.plan.samples, windows, *parameters.shape), np.int64)


def _sum_dtype(arrivals: list[_Arrival], constant: bool) -> type:
    """int32 where no sum of 0/1 spikes can leave it, and none wraps on its own."""
    largest = 0
    for arrival in arrivals:
        table = arrival.table
        plain = arrival.binary and arrival.projection.sum_bits is None and not constant
        if not plain or not isinstance(table, SynapseTable):
            return np.int64
        largest += table.largest_sum
    return np.int64 if constant or largest >= 1 << 31 else np.int32


def _arrivals(
    graph: Graph, name: str, batch: Batch, tables: dict[str, SynapseTable | DelayedSynapses]
) -> list[_Arrival]:
    """What reaches one population, step by step."""
    found = []
    for projection in graph.incoming(name):
        if graph.is_constant(projection):
            continue
        table = tables[projection.name]
        binary = graph.is_binary(projection) and isinstance(table, SynapseTable)
        found.append(
            _Arrival(
                projection=projection,
                table=table,
                binary=binary,
                spikes=not graph.carries_values(projection),
                sent=(batch.words if binary else batch.values)[projection.source],
                delay=batch.plan.delays[projection.name],
                events=batch.events[projection.name],
            )
        )
    return found


class _Sums:
    """Room for the sums of one block of one population, used by one after another."""

    def __init__(self) -> None:
        self.room = np.empty(0, np.uint8)

    def zeroed(self, shape: tuple[int, ...], dtype: type) -> Array:
        """Zeros."""
        needed = math.prod(shape) * np.dtype(dtype).itemsize
        if self.room.size < needed:
            self.room = np.empty(needed, np.uint8)
        sums: Array = self.room[:needed].view(dtype)
        sums[:] = 0
        return sums.reshape(shape)
