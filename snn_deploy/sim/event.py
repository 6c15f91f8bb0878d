"""The event-driven engine: work is done where a spike arrives, nowhere else.

Spikes are bit-packed; tables made once from the geometry say which rows of weights an active input
adds where. Stretches of populations whose sums and membranes fit in 32 bits run in one compiled
pass of vector kernels (:mod:`snn_deploy.sim.sweep`), the others in plain loops
(:mod:`snn_deploy.sim.plain`). Integer graphs only. Identical to :mod:`snn_deploy.sim.reference` in
spikes, membranes, currents and counts.

With ``SNN_DEPLOY_PLAIN_KERNELS`` set to anything in the environment the plain ones do everything,
with the same results.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.numerics import NumberFormat, rounding_shift_right, wrap
from snn_deploy.sim.batch import Batch, Memory, batch, written
from snn_deploy.sim.depthwise import Depthwise
from snn_deploy.sim.neurons import (
    Parameters,
    lane_drive,
    lane_parameters,
    lanes_of,
    padded,
    parameters,
    rules_in_32_bits,
)
from snn_deploy.sim.packing import (
    by_pixel,
    channels_first,
    count,
    pack,
    spike_counts,
    unpack,
)
from snn_deploy.sim.panels import Panels
from snn_deploy.sim.plain import run_plain
from snn_deploy.sim.plan import Plan, Timing, schedule
from snn_deploy.sim.program import Arrival, Program, Stage, Workspace
from snn_deploy.sim.reference import readout
from snn_deploy.sim.tables import DelayedSynapses, SynapseTable, delayed_synapses, synapse_table
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.sim.vectors import room

Array = NDArray[Any]
PlainTable = SynapseTable | DelayedSynapses
Table = PlainTable | Panels | Depthwise

PLAIN = "SNN_DEPLOY_PLAIN_KERNELS"

_NO_HOST = np.zeros((1, 1, 1, 1), np.int64)
# Batches up to this size are kept for the next run.
_READY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where a run that is made in pieces has got to: of each thread's share of the samples."""

    shares: tuple[Memory, ...]


def _own(counts: Array, shape: tuple[int, ...]) -> Array:
    """[pixels, channels] as a copy of [*shape]."""
    moved = channels_first(counts, shape)
    return moved.copy() if np.may_share_memory(moved, counts) else moved


class _Ready:
    """A small batch that has been run, to be run again with other spikes of the same extents.

    What small networks spend their time with is made once.
    """

    def __init__(self, made: Batch, program: Program, space: Workspace) -> None:
        self.made, self.program, self.space = made, program, space

    def again(self, plan: Plan) -> Batch:
        """The batch, run with this plan."""
        made = self.made
        for name, spikes in plan.inputs.items():
            if name in made.words:
                made.words[name][...] = pack(spikes)
        made.begin(plan)
        self.program.begin()
        self.program.run(self.space, made.threads)
        return replace(made, plan=plan)


class EventEngine:
    """A graph's synapses and neuron parameters, made once, run on any number of batches.

    ``threads``: so many share the samples of a batch, and the pixels where samples are fewer.
    """

    def __init__(self, graph: Graph, threads: int = 1) -> None:
        if graph.number_format is None:
            raise ValueError("the event engine runs integer graphs only")
        if threads < 1:
            raise ValueError(f"at least one thread, not {threads}")
        self.graph, self.threads = graph, threads
        self.format: NumberFormat = graph.number_format
        self.vectors = not os.environ.get(PLAIN)
        self.synapses: dict[str, Table] = {
            p.name: self._table(p, vectors=self.vectors) for p in graph.projections
        }
        self.neurons: dict[str, Parameters] = {
            p.name: parameters(p, self.format) for p in graph.populations
        }
        self._largest_sums = {p.name: self._largest_sum(p) for p in graph.populations}
        shift = self.format.bias_shift
        # as the vector kernels read them: parameters, and bias without a host's sums
        self._lanes = {
            name: (lane_parameters(neurons), lane_drive(neurons, _NO_HOST, shift))
            for name, neurons in self.neurons.items()
            if self._largest_sums[name] is not None
        }
        self._incoming = {p.name: graph.incoming(p.name) for p in graph.populations}
        self._groups = [
            (g, any(p.source in g for name in g for p in self._incoming[name])) for g in graph.order
        ]
        self._rules: dict[tuple[str, int, int, int], NDArray[np.int32] | None] = {}
        # whether runs may be one compiled pass over nothing but spikes
        self._vectors_only = (
            None not in self._largest_sums.values()
            and not any(graph.is_constant(p) for p in graph.projections)
            and not any(isinstance(p.delay, np.ndarray) for p in graph.projections)
        )
        self._local = threading.local()  # working memory of each thread that runs this engine
        self._plain_tables: dict[str, PlainTable] = {
            name: table
            for name, table in self.synapses.items()
            if isinstance(table, SynapseTable | DelayedSynapses)
        }
        # Sources that are read as numbers: values, several spikes per timestep, delays per synapse.
        self.numeric = {
            p.source
            for p in graph.projections
            if not graph.is_binary(p) or isinstance(p.delay, np.ndarray)
        } | {p.name for p in graph.populations if p.max_spikes > 1}

    def _table(self, projection: Projection, *, vectors: bool) -> Table:
        if isinstance(projection.delay, np.ndarray) and not self.graph.is_constant(projection):
            return delayed_synapses(self.graph, projection)
        return synapse_table(self.graph, projection, vectors=vectors)

    def _largest_sum(self, population: Population) -> int | None:
        """No sum over spikes exceeds this magnitude; None: not for the vector kernels."""
        largest = 0
        for projection in self.graph.incoming(population.name):
            if self.graph.is_constant(projection):
                continue
            table = self.synapses[projection.name]
            if not isinstance(table, Panels | Depthwise) or projection.sum_bits is not None:
                return None
            largest += table.largest_sum
        fits = self.vectors and largest >> 31 == 0 and population.max_spikes == 1
        return largest if fits else None

    def begin(self, samples: int, steps: int, timing: Timing = "zero_delay") -> State:
        """The state of a run of so many steps, in this timing, before its first piece."""
        delays = schedule(self.graph, timing).delays.values()
        history = max((int(np.max(delay)) for delay in delays), default=0)
        return State(tuple(Memory(n, steps, history) for n in self._share(samples)))

    def _share(self, samples: int) -> list[int]:
        """How many samples each thread takes."""
        threads = max(1, min(self.threads, samples))
        return [(samples + index) // threads for index in range(threads)]

    def run(self, plan: Plan, state: State | None = None) -> Trace:
        """Run one batch; with a state, the next piece of its run.

        The trace, counts and readouts are those of this piece alone.

        Raises
        ------
        ValueError
            If the state is of another number of samples.
        """
        shares = self._share(plan.samples)
        memories: list[Memory | None] = [None] * len(shares)
        if state is not None:
            memories = list(state.shares)
            if [m.samples for m in state.shares] != shares:
                raise ValueError(f"a state of {[m.samples for m in state.shares]} samples")
        # fewer samples than threads: these share the pixels
        each = self.threads // len(shares)
        if len(shares) == 1:
            return self._run(plan, memories[0], each)
        ends = np.cumsum(shares)
        parts = [
            plan.part(int(end) - number, int(end)) for end, number in zip(ends, shares, strict=True)
        ]
        with ThreadPoolExecutor(len(shares)) as pool:
            run = partial(self._run, threads=each)
            return Trace.joined(list(pool.map(run, parts, memories)))

    def _run(self, plan: Plan, memory: Memory | None, threads: int) -> Trace:
        again = self._vectors_only and memory is None and not plan.trace
        key = (plan.samples, plan.steps, threads, tuple(plan.delays.items()) if again else ())
        if again and self._local.__dict__.get("key") == key:
            made = self._local.ready.again(plan)
        else:
            made, program = self._made(plan, memory, threads)
            made.remember()
            if again and program is not None and made.nbytes <= _READY_BYTES:
                self._local.key, self._local.ready = key, _Ready(made, program, self._workspace())
        return self._trace(made)

    def _made(
        self, plan: Plan, memory: Memory | None, threads: int
    ) -> tuple[Batch, Program | None]:
        """A batch that has been run, and the compiled pass if that is all it took."""
        graph = self.graph
        made = batch(plan, tuple(p.name for p in graph.projections), memory, threads)
        for spec in graph.inputs:
            sent = plan.inputs[spec.name]
            if spec.kind == "spikes":
                words = pack(sent)
                if memory is not None:
                    words = memory.after(words, memory.words, spec.name)
                made.words[spec.name] = words
            if spec.name in self.numeric:
                values = by_pixel(sent, spec.shape)
                if memory is not None and spec.kind != "constant":
                    values = memory.after(values, memory.values, spec.name)
                made.values[spec.name] = values
        for population in graph.populations:
            name = population.name
            keep = plan.trace or (name in graph.outputs and population.neurons.readout is not None)
            numeric = name in self.numeric
            leaves = written(population, plan.samples, made.last, trace=keep, numeric=numeric)
            if memory is not None and name in memory.words:
                leaves.words[:, : made.first] = memory.words[name]
                if numeric:
                    leaves.sent[:, : made.first] = memory.values[name]
            made.written[name], made.words[name] = leaves, leaves.words
            if numeric:
                made.values[name] = leaves.sent
        for projection in graph.projections:
            if graph.is_constant(projection):
                self._add_constant(projection, made)
        return made, self._run_groups(made)

    def _workspace(self) -> Workspace:
        """Working memory of this thread."""
        if not hasattr(self._local, "space"):
            self._local.space = Workspace()
        space: Workspace = self._local.space
        return space

    def _add_constant(self, projection: Projection, made: Batch) -> None:
        """Multiply-accumulate constant input, once per window, before the first step."""
        constant = made.values[projection.source]
        samples, count = constant.shape[:2]
        name, table = projection.target, self.synapses[projection.name]
        assert isinstance(table, SynapseTable)
        largest = table.largest_sum * int(np.abs(constant).max(initial=0))
        dtype = np.int64 if largest >= 1 << 31 else np.int32
        total: Array = np.zeros((samples, count, *self.neurons[name].shape), dtype)
        table.add_values(constant, 0, count, 0, total, made.events[projection.name], False)
        total = total.astype(np.int64)
        total = total[:, : 1 + int(made.windows[name].max(initial=0))]
        if self.graph.on_host(projection):
            total = rounding_shift_right(total, -projection.exponent)
        elif projection.sum_bits is not None:
            total = wrap(total, projection.sum_bits) << projection.exponent
        sums = made.host if self.graph.on_host(projection) else made.constant
        sums[name] = sums[name] + total if name in sums else total

    def _run_groups(self, made: Batch) -> Program | None:
        """Run all populations; as many as can be, one after another, in one compiled pass.

        Returns the pass, if it was the only one and had all of them.
        """
        graph = self.graph
        program: Program | None = None
        space = self._workspace()
        for group, looped in self._groups:
            rules = [self._rules_for(graph.population(name), made) for name in group]
            known = [rule for rule in rules if rule is not None]
            if len(known) == len(rules):
                if program is None:
                    program = Program(made.plan.samples, made.first, made.last)
                stages = [self._stage(n, r, group, made) for n, r in zip(group, known, strict=True)]
                program.add(tuple(stages), looped=looped)
                continue
            if program is not None:
                program.run(space, made.threads)
                program = None
            tables = {
                p.name: self._plain_table(p)
                for name in group
                for p in self._incoming[name]
                if not graph.is_constant(p)
            }
            run_plain(graph, group, made, tables, self.neurons, looped=looped)
        if program is not None:
            program.run(space, made.threads)
            if program.groups == len(self._groups):
                return program
        return None

    def _plain_table(self, projection: Projection) -> PlainTable:
        """Of a projection whose target needs the plain loops."""
        if projection.name not in self._plain_tables:
            table = self._table(projection, vectors=False)
            assert isinstance(table, SynapseTable | DelayedSynapses)
            self._plain_tables[projection.name] = table
        return self._plain_tables[projection.name]

    def _rules_for(self, population: Population, made: Batch) -> NDArray[np.int32] | None:
        """What the vector kernels are told of these neurons; None: they may not have them."""
        name, largest = population.name, self._largest_sums[population.name]
        if largest is None:
            return None
        # to the next power of two: bounds that do not change from batch to batch
        drive, constant = (
            1 << int(np.abs(sums[name]).max(initial=0)).bit_length() if name in sums else 0
            for sums in (made.host, made.constant)
        )
        if (largest + constant) >> 31:
            return None
        key = (name, made.whole_steps, drive, constant)
        if key not in self._rules:
            neurons = self.neurons[name]
            self._rules[key] = rules_in_32_bits(
                self.format,
                neurons,
                largest_sum=largest + constant,
                largest_drive=(int(np.abs(neurons.bias).max(initial=0)) + drive)
                << self.format.bias_shift,
                steps=made.whole_steps,
            )
        return self._rules[key]

    def _stage(
        self, name: str, rules: NDArray[np.int32], group: tuple[str, ...], made: Batch
    ) -> Stage:
        """A population, as the compiled pass is told of it."""
        graph, neurons = self.graph, self.neurons[name]
        pixels, channels = neurons.shape
        told, drive = self._lanes[name]
        if name in made.host:
            drive = lane_drive(neurons, made.host[name], self.format.bias_shift)
        constant = made.constant.get(name)
        states = None
        if made.memory is not None:
            shape = (made.plan.samples, 2, pixels * lanes_of(channels))
            states = made.memory.states.setdefault(name, room(shape, np.int32))
        arrivals = []
        for projection in self._incoming[name]:
            if graph.is_constant(projection):
                continue
            table = self.synapses[projection.name]
            assert isinstance(table, Panels | Depthwise)
            delay = made.plan.delays[projection.name]
            assert not isinstance(delay, np.ndarray)
            arrivals.append(
                Arrival(
                    table=table,
                    words=made.words[projection.source],
                    delay=delay,
                    events=made.events[projection.name],
                    inner=projection.source in group,
                )
            )
        return Stage(
            arrivals=tuple(arrivals),
            channels=channels,
            pixels=pixels,
            clears=made.clears[name],
            windows=made.windows[name],
            rules=rules,
            parameters=told,
            drive=drive,
            constant=None if constant is None else padded(constant, 0),
            states=states,
            written=made.written[name],
        )

    def _trace(self, made: Batch) -> Trace:
        graph, plan, leaves, first = self.graph, made.plan, made.written, made.first
        inputs = {
            spec.name: count((plan.inputs[spec.name] != 0).view(np.uint8)) for spec in graph.inputs
        }
        spiking = {p.name: p for p in graph.spiking()}
        membrane = {
            p.name: channels_first(leaves[p.name].membrane_trace[:, first:], p.shape)
            for p in graph.populations
            if len(leaves[p.name].membrane_trace)
        }
        # output spikes are counted where they are packed, unless each is asked for
        counted = {
            n: spike_counts(leaves[n].words[:, first:], spiking[n].shape)
            for n in graph.outputs
            if not plan.trace and n not in membrane and spiking[n].max_spikes == 1
        }
        spikes: dict[str, Array] = {}
        for name in {n for n in spiking if plan.trace or n in graph.outputs} - counted.keys():
            several = spiking[name].max_spikes > 1
            shape = spiking[name].shape
            spikes[name] = (
                channels_first(leaves[name].sent[:, first:], shape)
                if several
                else unpack(leaves[name].words[:, first:], shape)
            )
        output = {
            n: counted[n] if n in counted else readout(graph.population(n), spikes, membrane)
            for n in graph.outputs
        }
        record = Record(
            samples=plan.samples,
            timesteps=plan.steps,
            # copies: what a batch holds may be used again
            spikes={n: _own(leaves[n].spikes, p.shape) for n, p in spiking.items()},
            sample_spikes={n: leaves[n].sample_spikes.copy() for n in spiking},
            inputs=inputs,
            events={n: events.copy() for n, events in made.events.items()},
            updates={n: w.updates.copy() for n, w in leaves.items()},
        )
        return Trace(
            output=output,
            record=record,
            spikes={n: spikes[n] for n in spiking} if plan.trace else {},
            membrane=membrane if plan.trace else {},
            current={
                p.name: channels_first(leaves[p.name].current_trace[:, first:], p.shape)
                for p in graph.populations
            }
            if plan.trace
            else {},
        )
