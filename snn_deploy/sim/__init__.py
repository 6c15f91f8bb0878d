"""Simulation: one interface, several engines, identical to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from snn_deploy.graph import Graph
from snn_deploy.packet_files import StoredRecording
from snn_deploy.packets import Recording
from snn_deploy.sim.plan import Timing, plan_stream, steps_of, with_sample_axis
from snn_deploy.sim.simulator import (
    Advance,
    EngineChoice,
    EngineName,
    Progress,
    RunOptions,
    Simulator,
)
from snn_deploy.sim.timing import pipelined, repeatable
from snn_deploy.sim.trace import Record, Trace

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Advance",
    "EngineChoice",
    "EngineName",
    "Progress",
    "Record",
    "RunOptions",
    "Simulator",
    "Trace",
    "Windows",
    "simulate",
    "simulate_batches",
    "simulate_stream",
]


def simulate_batches(
    graph: Graph,
    recording: Recording | StoredRecording,
    *,
    engine: EngineChoice = "auto",
    threads: int | None = None,
    **options: Unpack[RunOptions],
) -> Iterator[Trace]:
    """Simulate batch by batch; see :func:`simulate`. Yields one trace per batch, in order."""
    return Simulator(graph, engine, threads).batches(recording, **options)


def simulate(
    graph: Graph,
    recording: Recording | StoredRecording,
    *,
    engine: EngineChoice = "auto",
    threads: int | None = None,
    timing: Timing = "zero_delay",
    steps: int | None = None,
    reset_interval: int | None = None,
    reset_offset: int | None = None,
    trace: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Run a recording through a graph.

    Parameters
    ----------
    graph : float (engine ``reference`` only) or integer graph.
    recording : inputs; every sample starts from silence. One that
        :func:`snn_deploy.open_recording` gives is read piece by piece.
    engine, threads : see :class:`Simulator`, which also runs several recordings through one graph.
    timing : ``zero_delay``: a spike crosses a projection without delay within its timestep;
        ``pipelined``: every hop takes the number format's ``hop_delay``, as on the chip.
    steps : timesteps to run; default: the graph's, else the recording's.
    reset_interval : clear all neurons every so many timesteps, the first population first and each
        later one when the same samples reach it. Spikes on their way are not lost.
    reset_offset : timestep (counted from 0) at which the first population is cleared for the first
        time, modulo the interval: Lava's ``reset_offset``. Default: when its first input arrives.
    trace : keep spikes, membranes and currents of every neuron at every timestep.
    batch : samples at a time; default: as many as fit a modest amount of memory. Where one sample
        does not, the event engine runs it a stretch of timesteps at a time; the others run it
        whole.
    progress : called with an :class:`Advance` after each batch or stretch.

    Returns
    -------
    Trace
        Readout, counts, and the traces if asked for.

    Raises
    ------
    SnnDeployError
        SD103, SD106 or SD403 if the recording does not fit the graph, SD104 for steps or resets
        that make no sense, SD105 for an unknown engine, SD207 if the graph cannot be pipelined.
    """
    return Simulator(graph, engine, threads).run(
        recording,
        timing=timing,
        steps=steps,
        reset_interval=reset_interval,
        reset_offset=reset_offset,
        trace=trace,
        batch=batch,
        progress=progress,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A pipelined run, cut into one window per sample: as in :class:`Trace`, without record."""

    spikes: dict[str, NDArray[Any]]
    membrane: dict[str, NDArray[Any]]
    current: dict[str, NDArray[Any]]

    def difference(self, trace: Trace) -> int:
        """Number of spikes, membranes and currents that differ from those of a traced run."""
        return sum(
            int((mine[name] != theirs[name]).sum())
            for mine, theirs in (
                (self.spikes, trace.spikes),
                (self.membrane, trace.membrane),
                (self.current, trace.current),
            )
            for name in theirs
        )


def simulate_stream(
    graph: Graph,
    recording: Recording,
    *,
    engine: EngineChoice = "auto",
    steps: int | None = None,
) -> Windows:
    """Run all samples through a pipelined chip in one go, and cut the run into their windows.

    One window of timesteps per sample, every population cleared when its next window reaches it.
    What a chip with a delay per hop does must, window by window, be what the zero-delay graph does.

    Parameters
    ----------
    graph : integer graph without loops and delays.
    recording : inputs; samples follow each other.
    engine : as for :func:`simulate`.
    steps : timesteps per window; default: the graph's, else the recording's.

    Raises
    ------
    SnnDeployError
        As :func:`simulate`; SD207 where a window would feel the one before.
    """
    repeatable(graph)
    recording = with_sample_axis(graph, recording)
    length = steps_of(graph, recording, steps)
    trace = Simulator(graph, engine).run_plan(
        plan_stream(graph, recording, steps=length, trace=True)
    )
    timed = pipelined(graph)

    def cut(part: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        windows = {}
        for name, values in part.items():
            stage = timed.stages[name]
            run = values[0, stage : values.shape[1] - timed.latency + stage]
            windows[name] = run.reshape(-1, length, *run.shape[1:])
        return windows

    return Windows(cut(trace.spikes), cut(trace.membrane), cut(trace.current))
