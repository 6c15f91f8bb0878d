"""Simulation: one interface, several engines, identical to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packets import Recording
from snn_deploy.sim import reference
from snn_deploy.sim.plan import Plan, Timing, plan, plan_stream, steps_of, with_sample_axis
from snn_deploy.sim.timing import pipelined, repeatable
from snn_deploy.sim.trace import Record, Trace

__all__ = [
    "EngineName",
    "Progress",
    "Record",
    "Trace",
    "Windows",
    "simulate",
    "simulate_batches",
    "simulate_stream",
]

EngineName = Literal["event", "dense", "reference"]
Progress = Callable[[int, int], None]

# One batch's working memory, roughly; large enough to amortise the calls, small beside any machine.
_BATCH_BYTES = 64 << 20


def _runner(graph: Graph, engine: EngineName) -> Callable[[Plan], Trace]:
    if engine == "reference":
        return lambda batch: reference.run(graph, batch)
    if engine not in ("event", "dense"):
        raise SnnDeployError(
            "SD105", f"no engine {engine!r}", fix="choose `event`, `dense` or `reference`"
        )
    if graph.number_format is None:
        raise SnnDeployError(
            "SD105",
            f"the {engine} engine runs integer networks only",
            fix="use engine `reference`, or quantize the network first",
        )
    if engine == "dense":
        try:
            from snn_deploy.sim.dense import DenseEngine
        except ModuleNotFoundError as error:
            raise SnnDeployError(
                "SD107",
                f"the dense engine needs {error.name}",
                fix="pip install 'snn-deploy[train]', or use engine `event`",
            ) from None
        return DenseEngine(graph).run
    from snn_deploy.sim.event import EventEngine  # numba takes a moment to import

    return EventEngine(graph).run


def simulate_batches(
    graph: Graph,
    recording: Recording,
    *,
    engine: EngineName = "event",
    timing: Timing = "zero_delay",
    steps: int | None = None,
    reset_interval: int | None = None,
    reset_offset: int | None = None,
    trace: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Simulate batch by batch; see :func:`simulate`. Yields one trace per batch, in order."""
    recording = with_sample_axis(graph, recording)
    if reset_interval is not None and reset_interval < 1:
        raise SnnDeployError("SD104", f"a reset interval must be at least 1, not {reset_interval}")
    if reset_offset is not None and reset_interval is None:
        raise SnnDeployError("SD104", "a reset offset needs a reset interval")
    length = steps_of(graph, recording, steps)
    samples = recording.samples
    if batch is None:
        places = sum(p.size for p in graph.populations)
        places += sum(math.prod(spec.shape) for spec in graph.inputs)
        # membrane, current and sum; the event engine keeps spikes only, unless it has to trace
        held = 1 if engine == "event" and not trace else 24
        batch = max(1, _BATCH_BYTES // (length * places * held))
    run = _runner(graph, engine)
    for start in range(0, samples, batch):
        stop = min(start + batch, samples)
        part = plan(
            graph,
            recording.part(start, stop),
            steps=length,
            timing=timing,
            trace=trace,
            reset_interval=reset_interval,
            reset_offset=reset_offset,
        )
        yield run(part)
        if progress is not None:
            progress(stop, samples)


def simulate(
    graph: Graph,
    recording: Recording,
    *,
    engine: EngineName = "event",
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
    recording : inputs; every sample starts from silence.
    engine : ``event`` (work where a spike arrives), ``dense`` (whole layers, in torch) or
        ``reference`` (the norm). They agree on every bit.
    timing : ``zero_delay``: a spike crosses a projection without delay within its timestep;
        ``pipelined``: every hop takes the number format's ``hop_delay``, as on the chip.
    steps : timesteps to run; default: the graph's, else the recording's.
    reset_interval : clear all neurons every so many timesteps, the first population first and each
        later one when the same samples reach it. Spikes on their way are not lost.
    reset_offset : timestep (counted from 0) at which the first population is cleared for the first
        time, modulo the interval: Lava's ``reset_offset``. Default: when its first input arrives.
    trace : keep spikes, membranes and currents of every neuron at every timestep.
    batch : samples at a time; default: as many as fit a modest amount of memory.
    progress : called with (samples done, samples in all) after each batch.

    Returns
    -------
    Trace
        Readout, counts, and the traces if asked for.

    Raises
    ------
    SnnDeployError
        SD103 or SD106 if the recording does not fit the graph, SD104 for steps or resets that make
        no sense, SD105 for an unknown engine, SD207 if the graph cannot be pipelined.
    """
    return Trace.joined(
        list(
            simulate_batches(
                graph,
                recording,
                engine=engine,
                timing=timing,
                steps=steps,
                reset_interval=reset_interval,
                reset_offset=reset_offset,
                trace=trace,
                batch=batch,
                progress=progress,
            )
        )
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
    graph: Graph, recording: Recording, *, engine: EngineName = "event", steps: int | None = None
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
    trace = _runner(graph, engine)(plan_stream(graph, recording, steps=length, trace=True))
    timed = pipelined(graph)

    def cut(part: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        windows = {}
        for name, values in part.items():
            stage = timed.stages[name]
            run = values[0, stage : values.shape[1] - timed.latency + stage]
            windows[name] = run.reshape(-1, length, *run.shape[1:])
        return windows

    return Windows(cut(trace.spikes), cut(trace.membrane), cut(trace.current))
