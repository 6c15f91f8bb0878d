"""What a simulation leaves behind: a trace of every neuron, and the raw record of counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    def joined(records: list[Record]) -> Record:
        """One record of consecutive batches."""
        first = records[0]

        def added(part: str) -> dict[str, Integers]:
            parts = [getattr(r, part) for r in records]
            return {name: np.sum([p[name] for p in parts], axis=0) for name in parts[0]}

        def listed(part: str) -> dict[str, Integers]:
            parts = [getattr(r, part) for r in records]
            return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

        return Record(
            samples=sum(r.samples for r in records),
            timesteps=first.timesteps,
            spikes=added("spikes"),
            sample_spikes=listed("sample_spikes"),
            inputs=added("inputs"),
            events=listed("events"),
            updates=listed("updates"),
        )

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
    def joined(traces: list[Trace]) -> Trace:
        """One trace of consecutive batches."""

        def listed(part: str) -> dict[str, NDArray[Any]]:
            parts = [getattr(t, part) for t in traces]
            return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

        return Trace(
            output=listed("output"),
            record=Record.joined([t.record for t in traces]),
            spikes=listed("spikes"),
            membrane=listed("membrane"),
            current=listed("current"),
        )

    def decisions(self) -> NDArray[np.int64]:
        """Index of the largest readout per sample, ties to the lowest; single-output graphs."""
        (output,) = self.output.values()
        return np.asarray(output.reshape(len(output), -1).argmax(axis=1), np.int64)
