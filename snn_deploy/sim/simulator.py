"""A graph made ready to run recordings, of any length, in bounded memory.

Samples are taken a batch at a time. Where one sample alone would take too much memory, the event
engine runs it a stretch of timesteps at a time, and the pieces are put together again; the other
engines keep no state and run every sample whole.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packet_files import StoredRecording
from snn_deploy.packets import Recording
from snn_deploy.sim import reference
from snn_deploy.sim.feeding import Feed, fit
from snn_deploy.sim.plan import Plan, Timing, plan
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import Shape, as_map

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snn_deploy.sim.event import EventEngine

EngineName = Literal["event", "dense", "reference"]
EngineChoice = Literal["auto", "event", "dense", "reference"]

# Working memory of one batch or piece, roughly: large enough to amortise the calls, small beside
# any machine.
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a run has come.

    Attributes
    ----------
    samples, of_samples : samples finished, of how many.
    timesteps, of_timesteps : the same of the samples' timesteps, all added up: these also grow
        while a long sample runs.
    events : synaptic events of spikes and values so far, without those of constant input.
    """

    samples: int
    of_samples: int
    timesteps: int
    of_timesteps: int
    events: int


Progress = Callable[[Advance], None]


class RunOptions(TypedDict, total=False):
    """How a recording is run: the options of :meth:`Simulator.batches`."""

    timing: Timing
    steps: int | None
    reset_interval: int | None
    reset_offset: int | None
    trace: bool
    batch: int | None
    progress: Progress | None


class Simulator:
    """A graph whose tables and tensors are made once, for any number of runs.

    Parameters
    ----------
    graph : float (engine ``reference`` only) or integer graph.
    engine : ``event`` (work where a spike arrives), ``dense`` (whole layers, in torch) or
        ``reference`` (the norm), which agree on every bit; ``auto``: event for integer graphs,
        reference for float graphs.
    threads : of the event and dense engines; default: as many as this process has cores, or torch
        uses. No result depends on it.

    Attributes
    ----------
    engine, engine_reason : the engine that runs, and why.

    Raises
    ------
    SnnDeployError
        SD104 for less than one thread, SD105 for an unknown engine or one that cannot run the
        graph, SD107 where torch is missing.
    """

    def __init__(
        self,
        graph: Graph,
        engine: EngineChoice = "auto",
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise SnnDeployError("SD104", f"threads must be at least 1, not {threads}")
        self.graph = graph
        self.engine, self.engine_reason = _picked(graph, engine)
        self._event: EventEngine | None = None
        self.run_plan: Callable[[Plan], Trace] = lambda batch: reference.run(graph, batch)
        if self.engine == "dense":
            self.run_plan = _dense(graph, threads)
        elif self.engine == "event":
            from snn_deploy.sim.event import EventEngine  # numba takes a moment to import

            self._event = EventEngine(graph, threads=threads or _cores())
            self.run_plan = self._event.run

    def batches(
        self,
        recording: Recording | StoredRecording,
        *,
        timing: Timing = "zero_delay",
        steps: int | None = None,
        reset_interval: int | None = None,
        reset_offset: int | None = None,
        trace: bool = False,
        batch: int | None = None,
        progress: Progress | None = None,
        start: int = 0,
    ) -> Iterator[Trace]:
        """Run batch by batch, from sample ``start`` on; the rest as :func:`snn_deploy.simulate`.

        Yields one trace per batch, in order, each as if its samples had been run alone.
        """
        feed = fit(self.graph, recording)
        for value, what in ((reset_interval, "a reset interval"), (batch, "a batch")):
            if value is not None and value < 1:
                raise SnnDeployError("SD104", f"{what} must be at least 1, not {value}")
        if reset_offset is not None and reset_interval is None:
            raise SnnDeployError("SD104", "a reset offset needs a reset interval")
        run = _Run(self.graph, feed, feed.steps(steps), timing, trace, reset_interval, reset_offset)
        step_bytes = self._bytes_per_step(trace)
        if batch is None:
            batch = max(1, _BATCH_BYTES // (run.steps * step_bytes))
        at_once = run.steps
        if self._event is not None:
            at_once = min(run.steps, max(1, _BATCH_BYTES // step_bytes))
        report = _Report(self.graph, progress, start, feed.samples, run.steps)
        for first in range(start, feed.samples, batch):
            samples = slice(first, min(first + batch, feed.samples))
            if at_once == run.steps:
                found = self.run_plan(run.plan(samples, 0, run.steps))
                report.add(found, samples.stop)
                yield found
            else:
                pieces = self._pieces(run, samples, at_once, report)
                yield Trace.continued(self.graph, pieces)

    def run(self, recording: Recording | StoredRecording, **options: Unpack[RunOptions]) -> Trace:
        """Run a whole recording; options as of :func:`snn_deploy.simulate`."""
        return Trace.joined(self.batches(recording, **options))

    def _pieces(self, run: _Run, samples: slice, at_once: int, report: _Report) -> Iterator[Trace]:
        """The same samples, a stretch of timesteps after the other."""
        assert self._event is not None
        count = samples.stop - samples.start
        state = self._event.begin(count, run.steps, run.timing)
        for first in range(0, run.steps, at_once):
            last = min(first + at_once, run.steps)
            found = self._event.run(run.plan(samples, first, last), state)
            report.add(found, samples.stop if last == run.steps else samples.start)
            yield found

    def _bytes_per_step(self, trace: bool) -> int:
        """Working memory of one timestep of one sample, roughly."""
        # membrane, current and sum; event and dense keep spikes only, unless they have to trace
        held = 24 if trace or self.engine == "reference" else 1
        size = sum(held * p.size + _packed_bytes(p.shape) for p in self.graph.populations)
        # an output read out from its membranes keeps them
        size += sum(16 * self.graph.population(name).size for name in self.graph.outputs)
        for spec in self.graph.inputs:
            # graded values are read, normalised and quantized in 64 bits
            each = {"spikes": 1, "graded": 24, "constant": 0}[spec.kind]
            size += each * math.prod(spec.shape)
            size += _packed_bytes(spec.shape) if spec.kind == "spikes" else 0
        return size


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One run of a recording, of which any part can be planned."""

    graph: Graph
    feed: Feed
    steps: int
    timing: Timing
    trace: bool
    reset_interval: int | None
    reset_offset: int | None

    def plan(self, samples: slice, first: int, last: int) -> Plan:
        """Some samples from timestep ``first`` to ``last``."""
        return plan(
            self.graph,
            self.feed.piece(samples, slice(first, last)),
            steps=last - first,
            timing=self.timing,
            trace=self.trace,
            reset_interval=self.reset_interval,
            reset_offset=self.reset_offset,
            first=first,
        )


class _Report:
    """Adds up how far a run has come, and tells it."""

    def __init__(
        self, graph: Graph, progress: Progress | None, start: int, samples: int, steps: int
    ) -> None:
        self.progress, self.start, self.samples, self.steps = progress, start, samples, steps
        self.counted = [p.name for p in graph.projections if not graph.is_constant(p)]
        self.timesteps = self.events = 0

    def add(self, found: Trace, done: int) -> None:
        """A batch or piece has been run; ``done`` samples are finished."""
        if self.progress is None:
            return
        record = found.record
        self.timesteps += record.samples * record.timesteps
        self.events += sum(int(record.events[name].sum()) for name in self.counted)
        told = Advance(
            samples=done - self.start,
            of_samples=self.samples - self.start,
            timesteps=self.timesteps,
            of_timesteps=(self.samples - self.start) * self.steps,
            events=self.events,
        )
        self.progress(told)


def _picked(graph: Graph, engine: EngineChoice) -> tuple[EngineName, str]:
    """The engine that runs, and why."""
    if engine not in ("auto", "event", "dense", "reference"):
        raise SnnDeployError(
            "SD105", f"no engine {engine!r}", fix="choose `auto`, `event`, `dense` or `reference`"
        )
    if engine == "auto":
        if graph.number_format is None:
            return "reference", "a network of floats, which only the reference runs"
        return "event", "an integer network: work is done only where spikes arrive"
    if engine != "reference" and graph.number_format is None:
        raise SnnDeployError(
            "SD105",
            f"the {engine} engine runs integer networks only",
            fix="use engine `reference`, or quantize the network first",
        )
    return engine, "asked for"


def _packed_bytes(shape: Shape) -> int:
    """Bytes of one timestep's spikes in the event engine: 64 channels of a pixel to a word."""
    channels, height, width = as_map(shape)
    return 8 * height * width * -(-channels // 64)


def _dense(graph: Graph, threads: int | None) -> Callable[[Plan], Trace]:
    try:
        from snn_deploy.sim.dense import DenseEngine
    except ModuleNotFoundError as error:
        raise SnnDeployError(
            "SD107",
            f"the dense engine needs {error.name}",
            fix="pip install 'snn-deploy[train]', or use engine `event`",
        ) from None
    return DenseEngine(graph, threads=threads).run


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
