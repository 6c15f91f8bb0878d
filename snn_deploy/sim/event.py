"""The event-driven engine: work is done where a spike arrives, nowhere else.

Spikes are bit-packed; tables made once from the geometry say which rows of weights an active input
adds where. Populations run one after another over all timesteps, those in a loop together step by
step; and in blocks of samples and steps so small that sums stay in the cache, are never kept, and
membranes live only as long as their block. Integer graphs only. Identical to
:mod:`snn_deploy.sim.reference` in spikes, membranes, currents and counts.

Vector kernels do what fits them, plain ones the rest; with ``SNN_DEPLOY_PLAIN_KERNELS`` set to
anything in the environment the plain ones do everything, with the same results.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.numerics import NumberFormat, rounding_shift_right, wrap
from snn_deploy.sim.depthwise import Depthwise
from snn_deploy.sim.neurons import (
    Parameters,
    lane_drive,
    lane_parameters,
    parameters,
    rules_in_32_bits,
)
from snn_deploy.sim.packing import by_pixel, channels_first, count, pack, unpack
from snn_deploy.sim.panels import Panels, Room
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import readout
from snn_deploy.sim.tables import DelayedSynapses, SynapseTable, delayed_synapses, synapse_table
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.sim.updating import LaneNeurons, WideNeurons, Written, written
from snn_deploy.sim.vectors import LANES

Array = NDArray[Any]
Table = SynapseTable | DelayedSynapses | Panels | Depthwise

PLAIN = "SNN_DEPLOY_PLAIN_KERNELS"

_NO_HOST = np.zeros((1, 1, 1, 1), np.int64)
# Sums of one block: they are written, then read once, and should not leave the cache meanwhile.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """One batch while it runs; everything is [samples, ...], by name."""

    plan: Plan
    words: dict[str, NDArray[np.uint64]]
    values: dict[str, Array]  # of sources that are read as numbers
    host: dict[str, Array]  # bias mantissas set by the host, [samples, windows, pixels, channels]
    constant: dict[str, Array]  # sums of constant input, the same
    events: dict[str, NDArray[np.int64]]  # per projection
    written: dict[str, Written]
    sums: _Sums


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Arrival:
    """What reaches a population through one projection in one batch."""

    projection: Projection
    table: Table
    room: Room | None  # of a table that needs some
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
        if isinstance(table, Panels):
            assert self.room is not None
            table.add_spikes(sent, first, last, self.delay, total, events, self.room)
        elif isinstance(table, Depthwise) or (isinstance(table, SynapseTable) and self.binary):
            table.add_spikes(sent, first, last, self.delay, total, events)
        else:
            table.add_values(sent, first, last, self.delay, total, events, self.spikes)
        if sum_bits is not None:
            current += wrap(total, sum_bits) << self.projection.exponent


class EventEngine:
    """A graph's synapses and neuron parameters, made once, run on any number of batches."""

    def __init__(self, graph: Graph) -> None:
        if graph.number_format is None:
            raise ValueError("the event engine runs integer graphs only")
        self.graph = graph
        self.format: NumberFormat = graph.number_format
        self.vectors = not os.environ.get(PLAIN)
        self.synapses: dict[str, Table] = {
            p.name: delayed_synapses(graph, p)
            if isinstance(p.delay, np.ndarray) and not graph.is_constant(p)
            else synapse_table(graph, p, vectors=self.vectors)
            for p in graph.projections
        }
        self.neurons: dict[str, Parameters] = {
            p.name: parameters(p, self.format) for p in graph.populations
        }
        self._largest_sums = {p.name: self._largest_sum(p) for p in graph.populations}
        shift = self.format.bias_shift
        # as the vector kernel reads them: parameters, and bias without a host's sums
        self._lanes = {
            name: (lane_parameters(neurons), lane_drive(neurons, _NO_HOST, shift))
            for name, neurons in self.neurons.items()
        }
        self._rules: dict[tuple[str, int, int], NDArray[np.int32] | None] = {}
        # Sources that are read as numbers: values, several spikes per timestep, delays per synapse.
        self.numeric = {
            p.source
            for p in graph.projections
            if not graph.is_binary(p) or isinstance(p.delay, np.ndarray)
        } | {p.name for p in graph.populations if p.max_spikes > 1}

    def _largest_sum(self, population: Population) -> int | None:
        """No sum of this population exceeds this magnitude; None if nothing is known of it."""
        largest = 0
        for projection in self.graph.incoming(population.name):
            table = self.synapses[projection.name]
            if self.graph.on_host(projection):
                continue
            binary = self.graph.is_binary(projection) and projection.sum_bits is None
            if not binary or isinstance(table, DelayedSynapses):
                return None
            largest += table.largest_sum
        return largest

    def _sum_dtype(self, population: Population) -> type:
        """int32 where no sum of this population can leave it, and no sum wraps on its own."""
        largest = self._largest_sums[population.name]
        return np.int64 if largest is None or largest >= 1 << 31 else np.int32

    def run(self, plan: Plan) -> Trace:
        """Run one batch."""
        graph = self.graph
        batch = _Batch(
            plan, {}, {}, {}, {},
            {p.name: np.zeros(plan.samples, np.int64) for p in graph.projections}, {}, _Sums(),
        )  # fmt: skip
        for spec in graph.inputs:
            if spec.kind == "spikes":
                batch.words[spec.name] = pack(plan.inputs[spec.name])
            if spec.name in self.numeric:
                batch.values[spec.name] = by_pixel(plan.inputs[spec.name], spec.shape)
        for population in graph.populations:
            name = population.name
            keep = plan.trace or (name in graph.outputs and population.neurons.readout is not None)
            leaves = written(population, plan, trace=keep, numeric=name in self.numeric)
            batch.written[name], batch.words[name] = leaves, leaves.words
            if name in self.numeric:
                batch.values[name] = leaves.sent
        for projection in graph.projections:
            if graph.is_constant(projection):
                self._add_constant(projection, batch)
        for group in graph.order:
            self._run_group(group, batch)
        return self._trace(batch)

    def _add_constant(self, projection: Projection, batch: _Batch) -> None:
        """Multiply-accumulate constant input, once per window, before the first step."""
        constant = batch.values[projection.source]
        samples, count = constant.shape[:2]
        name, table = projection.target, self.synapses[projection.name]
        assert isinstance(table, SynapseTable)
        largest = table.largest_sum * int(np.abs(constant).max(initial=0))
        dtype = np.int64 if largest >= 1 << 31 else np.int32
        total: Array = np.zeros((samples, count, *self.neurons[name].bias.shape), dtype)
        table.add_values(constant, 0, count, 0, total, batch.events[projection.name], False)
        total = total.astype(np.int64)
        total = total[:, : 1 + int(batch.plan.windows[name].max(initial=0))]
        if self.graph.on_host(projection):
            total = rounding_shift_right(total, -projection.exponent)
        elif projection.sum_bits is not None:
            total = wrap(total, projection.sum_bits) << projection.exponent
        sums = batch.host if self.graph.on_host(projection) else batch.constant
        sums[name] = sums[name] + total if name in sums else total

    def _run_group(self, group: tuple[str, ...], batch: _Batch) -> None:
        """Run populations through all steps, block by block; those in a loop step by step."""
        graph, plan = self.graph, batch.plan
        looped = len(group) > 1 or any(p.source == group[0] for p in graph.incoming(group[0]))
        populations = [graph.population(name) for name in group]
        row = max(p.size * np.dtype(self._sum_dtype(p)).itemsize for p in populations)
        steps = 1 if looped else min(plan.steps, max(1, _BLOCK_BYTES // row))
        samples = 1
        if looped or steps == plan.steps:
            samples = min(plan.samples, max(1, _BLOCK_BYTES // (row * steps)))
        dtypes = {p.name: self._sum_dtype(p) for p in populations}
        arrivals = {name: self._arrivals(name, batch) for name in group}
        at_once = steps >= plan.steps
        neurons = {p.name: self._neurons(p, batch, samples, at_once) for p in populations}
        for begin in range(0, plan.samples, samples):
            block = slice(begin, min(begin + samples, plan.samples))
            leave = {name: batch.written[name].of(block) for name in group}
            for first in range(0, plan.steps, steps):
                last = min(first + steps, plan.steps)
                for name in group:
                    shape = (block.stop - begin, last - first, *self.neurons[name].bias.shape)
                    current = batch.sums.zeroed(shape, dtypes[name])
                    if name in batch.constant:
                        windows = plan.windows[name][first:last]
                        current += batch.constant[name][block][:, windows]
                    for arrival in arrivals[name]:
                        arrival.add(block, first, last, current)
                    neurons[name].update(current, plan, name, first, last, block, leave[name])
        for name in group:
            neurons[name].finish(batch.written[name].spikes)

    def _neurons(
        self, population: Population, batch: _Batch, samples: int, at_once: bool
    ) -> WideNeurons | LaneNeurons:
        """Neurons for blocks of so many samples: in 32 bits where that is proved to be enough."""
        name, plan = population.name, batch.plan
        neurons, host = self.neurons[name], batch.host.get(name, _NO_HOST)
        rules = self._rules_for(population, host, plan.steps)
        if rules is not None:
            told, drive = self._lanes[name]
            if name in batch.host:
                drive = lane_drive(neurons, host, self.format.bias_shift)
            channels = neurons.bias.shape[1]
            return LaneNeurons(rules, told, drive, samples, channels, at_once=at_once)
        if name not in batch.host:
            windows = 1 + int(plan.windows[name].max(initial=0))
            host = np.zeros((plan.samples, windows, *neurons.bias.shape), np.int64)
        return WideNeurons(self.format, neurons, host, samples, population.max_spikes)

    def _rules_for(
        self, population: Population, host: Array, steps: int
    ) -> NDArray[np.int32] | None:
        """What the vector kernel is told of these neurons; None: it may not have them."""
        name, largest = population.name, self._largest_sums[population.name]
        if not self.vectors or largest is None or largest >> 31 or population.max_spikes > 1:
            return None
        # to the next power of two: a bound that does not change from batch to batch
        drive = 1 << int(np.abs(host).max(initial=0)).bit_length()
        key = (name, steps, drive)
        if key not in self._rules:
            neurons = self.neurons[name]
            self._rules[key] = rules_in_32_bits(
                self.format,
                neurons,
                largest_sum=largest,
                largest_drive=(int(np.abs(neurons.bias).max(initial=0)) + drive)
                << self.format.bias_shift,
                steps=steps,
            )
        return self._rules[key]

    def _arrivals(self, name: str, batch: _Batch) -> list[_Arrival]:
        """What reaches one population, step by step."""
        graph, found = self.graph, []
        for projection in graph.incoming(name):
            if graph.is_constant(projection):
                continue
            table = self.synapses[projection.name]
            binary = graph.is_binary(projection) and not isinstance(table, DelayedSynapses)
            found.append(
                _Arrival(
                    projection=projection,
                    table=table,
                    room=table.room() if isinstance(table, Panels) else None,
                    binary=binary,
                    spikes=not graph.carries_values(projection),
                    sent=(batch.words if binary else batch.values)[projection.source],
                    delay=batch.plan.delays[projection.name],
                    events=batch.events[projection.name],
                )
            )
        return found

    def _trace(self, batch: _Batch) -> Trace:
        graph, plan, leaves = self.graph, batch.plan, batch.written
        inputs = {
            spec.name: count((plan.inputs[spec.name] != 0).view(np.uint8)) for spec in graph.inputs
        }
        spiking = {p.name: p for p in graph.spiking()}
        membrane = {
            p.name: channels_first(leaves[p.name].membrane_trace, p.shape)
            for p in graph.populations
            if len(leaves[p.name].membrane_trace)
        }
        spikes: dict[str, Array] = {}
        for name in {n for n in spiking if plan.trace or n in graph.outputs}:
            several = spiking[name].max_spikes > 1
            shape = spiking[name].shape
            spikes[name] = (
                channels_first(batch.values[name], shape)
                if several
                else unpack(batch.words[name], shape)
            )
        output = {n: readout(graph.population(n), spikes, membrane) for n in graph.outputs}
        record = Record(
            samples=plan.samples,
            timesteps=plan.steps,
            spikes={n: channels_first(leaves[n].spikes, p.shape) for n, p in spiking.items()},
            sample_spikes={n: leaves[n].sample_spikes for n in spiking},
            inputs=inputs,
            events=batch.events,
            updates={n: w.updates for n, w in leaves.items()},
        )
        return Trace(
            output=output,
            record=record,
            spikes={n: spikes[n] for n in spiking} if plan.trace else {},
            membrane=membrane if plan.trace else {},
            current={
                p.name: channels_first(leaves[p.name].current_trace, p.shape)
                for p in graph.populations
            }
            if plan.trace
            else {},
        )


class _Sums:
    """Room for the sums of one block of one population, used by one after another."""

    def __init__(self) -> None:
        self.room = np.empty(0, np.uint8)

    def zeroed(self, shape: tuple[int, ...], dtype: type) -> Array:
        """Zeros, and beyond them what vectors may touch."""
        size = math.prod(shape)
        needed = (size + LANES) * np.dtype(dtype).itemsize
        if self.room.size < needed:
            self.room = np.empty(needed, np.uint8)
        sums: Array = self.room[:needed].view(dtype)[:size]
        sums[:] = 0
        return sums.reshape(shape)
