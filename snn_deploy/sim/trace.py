"""What a simulation leaves behind: a trace of every neuron, and the raw record of counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Record:
    """Exact counts over a number of samples; all int64, so that sums do not depend on batching.

    Attributes
    ----------
    samples : number of samples.
    timesteps : timesteps per sample.
    spikes : per population, spikes of each neuron summed over samples and time (population shape).
    sample_spikes : per population, spikes of each sample, [samples].
    inputs : per input, how often each element was not zero, summed over samples; a constant value
        counts once per sample, whatever the number of timesteps (input shape).
    events : per projection, [samples]: pairs (source event, target neuron) that the engine carried
        out. Spikes: accumulates, n for a neuron that fires n times in a timestep. Values:
        multiply-accumulates with a value that is not zero, a constant value counted once per
        sample.
    updates : per population, [samples]: neuron updates that changed the membrane or fired.
    """

    samples: int
    timesteps: int
    spikes: dict[str, Integers]
    sample_spikes: dict[str, Integers]
    inputs: dict[str, Integers]
    events: dict[str, Integers]
    updates: dict[str, Integers]

    @staticmethod
    def joined(records: Iterable[Record]) -> Record:
        """One record of consecutive batches, at least one; they are added up as they come."""
        samples = timesteps = 0
        totals: dict[str, dict[str, Integers]] = {"spikes": {}, "inputs": {}}
        lists: dict[str, dict[str, list[Integers]]] = {
            "sample_spikes": {},
            "events": {},
            "updates": {},
        }
        for record in records:
            samples, timesteps = samples + record.samples, record.timesteps
            for part, total in totals.items():
                _add(total, getattr(record, part))
            for part, listed in lists.items():
                for name, counts in getattr(record, part).items():
                    listed.setdefault(name, []).append(counts)
        return Record(
            samples=samples,
            timesteps=timesteps,
            **totals,
            **{p: _end_to_end(v) for p, v in lists.items()},
        )

    @staticmethod
    def continued(graph: Graph, records: Iterable[Record]) -> Record:
        """One record of consecutive timesteps of the same samples, at least one piece.

        What is constant was counted in every piece, and counts once.
        """
        samples = timesteps = 0
        totals: dict[str, dict[str, Integers]] = {
            "spikes": {},
            "sample_spikes": {},
            "inputs": {},
            "events": {},
            "updates": {},
        }
        once = {spec.name for spec in graph.inputs if spec.kind == "constant"}
        once |= {p.name for p in graph.projections if graph.is_constant(p)}
        for record in records:
            for part, total in totals.items():
                counts: dict[str, Integers] = getattr(record, part)
                if timesteps:
                    counts = {name: n for name, n in counts.items() if name not in once}
                _add(total, counts)
            samples, timesteps = record.samples, timesteps + record.timesteps
        return Record(samples=samples, timesteps=timesteps, **totals)

    def difference(self, other: Record) -> int:
        """Number of counts that differ from another record's."""
        count = int((self.samples, self.timesteps) != (other.samples, other.timesteps))
        for part in ("spikes", "sample_spikes", "inputs", "events", "updates"):
            mine, theirs = getattr(self, part), getattr(other, part)
            count += len(mine.keys() ^ theirs.keys())
            for name in mine.keys() & theirs.keys():
                same_shape = mine[name].shape == theirs[name].shape
                count += int((mine[name] != theirs[name]).sum()) if same_shape else 1
        return count


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trace:
    """What the neurons did.

    Attributes
    ----------
    output : readout of each output population, [samples, *shape]: int64 in integer graphs, float64
        in float graphs.
    record : the counts.
    spikes : per spiking population, [samples, timesteps, *shape]: bool, or uint8 where neurons may
        fire several times per timestep; empty unless asked for.
    membrane : per population, after the step (after the reset of a neuron that fired), int64 in
        membrane units or float64; empty unless asked for.
    current : per population, the synaptic current after the step, without bias; as ``membrane``.
    """

    output: dict[str, NDArray[Any]]
    record: Record
    spikes: dict[str, NDArray[Any]]
    membrane: dict[str, NDArray[Any]]
    current: dict[str, NDArray[Any]]

    @staticmethod
    def joined(traces: Iterable[Trace]) -> Trace:
        """One trace of consecutive batches, at least one; they are taken as they come."""
        parts: dict[str, dict[str, list[NDArray[Any]]]] = {p: {} for p in ("output", *_TRACED)}

        def records() -> Iterator[Record]:
            for trace in traces:
                for part, found in parts.items():
                    for name, values in getattr(trace, part).items():
                        found.setdefault(name, []).append(values)
                yield trace.record

        record = Record.joined(records())
        return Trace(record=record, **{part: _end_to_end(found) for part, found in parts.items()})

    @staticmethod
    def continued(graph: Graph, traces: Iterable[Trace]) -> Trace:
        """One trace of consecutive timesteps of the same samples, at least one piece.

        For integer graphs: readouts are sums, maxima or the last value, spike counts are sums.
        """
        output: dict[str, NDArray[Any]] = {}
        parts: dict[str, dict[str, list[NDArray[Any]]]] = {part: {} for part in _TRACED}

        def records() -> Iterator[Record]:
            for trace in traces:
                for name, values in trace.output.items():
                    kind = graph.population(name).neurons.readout
                    if name not in output or kind == "last":
                        output[name] = values
                    elif kind == "max":
                        output[name] = np.maximum(output[name], values)
                    else:
                        output[name] = output[name] + values
                for part, found in parts.items():
                    for name, values in getattr(trace, part).items():
                        found.setdefault(name, []).append(values)
                yield trace.record

        record = Record.continued(graph, records())
        traced = {part: _end_to_end(found, axis=1) for part, found in parts.items()}
        return Trace(output=output, record=record, **traced)

    def decisions(self) -> NDArray[np.int64]:
        """Index of the largest readout per sample, ties to the lowest; single-output graphs."""
        (output,) = self.output.values()
        return np.asarray(output.reshape(len(output), -1).argmax(axis=1), np.int64)


_TRACED = ("spikes", "membrane", "current")


def _add(total: dict[str, Integers], counts: dict[str, Integers]) -> None:
    """Add counts to totals, in place; arrays of the counts are not kept."""
    for name, more in counts.items():
        if name in total:
            total[name] += more
        else:
            total[name] = more.copy()


def _end_to_end(parts: dict[str, list[NDArray[Any]]], axis: int = 0) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate(arrays, axis=axis) for name, arrays in parts.items()}
