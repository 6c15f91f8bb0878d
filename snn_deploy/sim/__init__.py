"""Simulation: one interface, several engines, identical to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packets import Recording
from snn_deploy.sim import reference
from snn_deploy.sim.plan import Plan, Timing, plan, steps_of, with_sample_axis
from snn_deploy.sim.trace import Record, Trace

__all__ = ["EngineName", "Progress", "Record", "Trace", "simulate", "simulate_batches"]

EngineName = Literal["event", "reference"]
Progress = Callable[[int, int], None]

# One batch's working memory, roughly; large enough to amortise the calls, small beside any machine.
_BATCH_BYTES = 64 << 20


def _runner(graph: Graph, engine: EngineName) -> Callable[[Plan], Trace]:
    if engine == "reference":
        return lambda batch: reference.run(graph, batch)
    if engine != "event":
        raise SnnDeployError("SD105", f"no engine {engine!r}", fix="choose `event` or `reference`")
    if graph.number_format is None:
        raise SnnDeployError(
            "SD105",
            "the event engine runs integer networks only",
            fix="use engine `reference`, or quantize the network first",
        )
    from snn_deploy.sim.event import EventEngine  # numba takes a moment to import

    return EventEngine(graph).run


def simulate_batches(
    graph: Graph,
    recording: Recording,
    *,
    engine: EngineName = "event",
    timing: Timing = "zero_delay",
    steps: int | None = None,
    trace: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Simulate batch by batch; see :func:`simulate`. Yields one trace per batch, in order."""
    recording = with_sample_axis(graph, recording)
    length = steps_of(graph, recording, steps)
    samples = len(next(iter([*recording.spikes.values(), *recording.values.values()])))
    if batch is None:
        neurons = sum(p.size for p in graph.populations)
        batch = max(1, _BATCH_BYTES // (length * neurons * 24))
    run = _runner(graph, engine)
    for start in range(0, samples, batch):
        stop = min(start + batch, samples)
        part = plan(graph, recording.part(start, stop), steps=length, timing=timing, trace=trace)
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
    trace: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Run a recording through a graph.

    Parameters
    ----------
    graph : float (engine ``reference`` only) or integer graph.
    recording : inputs; every sample starts from silence.
    engine : ``event`` (fast) or ``reference`` (the norm). They agree on every bit.
    timing : ``zero_delay``: a spike crosses a projection without delay within its timestep;
        ``pipelined``: every hop takes the number format's ``hop_delay``, as on the chip.
    steps : timesteps to run; default: the graph's, else the recording's.
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
        SD103 or SD106 if the recording does not fit the graph, SD105 for an unknown engine.
    """
    return Trace.joined(
        list(
            simulate_batches(
                graph,
                recording,
                engine=engine,
                timing=timing,
                steps=steps,
                trace=trace,
                batch=batch,
                progress=progress,
            )
        )
    )
