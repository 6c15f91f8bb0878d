"""Long runs that can be interrupted: what is finished is kept in a journal, and not run again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.journal import Identity, Journal, damaged, digest
from snn_deploy.packet_files import StoredRecording
from snn_deploy.sim.feeding import fit
from snn_deploy.sim.simulator import RunOptions, Simulator
from snn_deploy.sim.trace import Record, Trace

if TYPE_CHECKING:
    from typing_extensions import Unpack

Array = NDArray[Any]

# Batches are kept together until so much time has passed. Who kills the process loses that much,
# who interrupts it nothing.
_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run of which ``done`` of ``samples`` samples are kept."""

    def __init__(self, done: int, samples: int) -> None:
        super().__init__(f"interrupted after {done} of {samples} samples")
        self.done, self.samples = done, samples


class ResumableRun:
    """A run of a recording whose finished samples outlive an interruption; a context manager.

    The journal is of a network, a recording and the options that may change a result; a run may go
    on with another engine or another number of threads.

    Parameters
    ----------
    simulator, recording, options : as for :meth:`Simulator.run`, without a trace.
    path : the journal. It is there from the first batch that is kept until :meth:`finish`.
    resume : go on from the journal, if there is one.

    Attributes
    ----------
    samples, done : samples of the recording, and how many of them the journal holds.

    Raises
    ------
    SnnDeployError
        SD104 where an interrupted run is in the way, or was of another network, recording or
        option; SD102 and SD401 where the journal cannot be written or read; SD103 and SD104 as
        :meth:`Simulator.run`.
    """

    def __init__(
        self,
        simulator: Simulator,
        recording: StoredRecording,
        path: Path,
        *,
        resume: bool,
        **options: Unpack[RunOptions],
    ) -> None:
        if options.get("trace"):
            raise SnnDeployError("SD104", "a run that traces every neuron cannot be resumed")
        self.simulator, self.recording, self.path = simulator, recording, path
        self.options = options
        feed = fit(simulator.graph, recording)
        self.samples, self.done = feed.samples, 0
        self._steps = feed.steps(options.get("steps"))
        self._identity = self._named()
        self._journal: Journal | None = None
        self._kept: Trace | None = None
        self._pending: list[Trace] = []
        if not resume:
            Journal.require_none(path)
        elif path.exists():
            self._journal = Journal.resume(path, self._identity)
            try:
                self._read(self._journal)
            except BaseException:
                self._journal.close()
                raise

    def run(self) -> Trace:
        """The trace of all samples, those of the journal included; without spikes and membranes.

        Raises
        ------
        Interrupted
            On Ctrl-C; what was finished is in the journal then.
        SnnDeployError
            As :meth:`Simulator.run`, and SD102 where the journal cannot be written.
        """
        try:
            whole = Trace.joined(self._traces())
            self._keep()
        except KeyboardInterrupt:
            self._keep()
            raise Interrupted(self.done, self.samples) from None
        except SnnDeployError as error:
            if error.code in ("SD106", "SD403"):  # with this recording it cannot be finished
                self.finish()
            raise
        return whole

    def finish(self) -> None:
        """Delete the journal: the results have been written."""
        if self._journal is not None:
            self._journal.delete()

    def _traces(self) -> Iterator[Trace]:
        if self._kept is not None:
            yield self._kept
        if self.done == self.samples:
            return
        last = time.monotonic()
        batches = self.simulator.batches(self.recording, start=self.done, **self.options)
        for trace in batches:
            self._pending.append(trace)
            if time.monotonic() - last >= _SECONDS:
                self._keep()
                last = time.monotonic()
            yield trace

    def _keep(self) -> None:
        """Append what is pending to the journal."""
        if not self._pending:
            return
        if self._journal is None:
            self._journal = Journal.begin(self.path, self._identity)
        trace = Trace.joined(self._pending)
        self._journal.append({"first": np.array(self.done), **_arrays(trace)})
        self.done += trace.record.samples
        self._pending.clear()

    def _read(self, journal: Journal) -> None:
        """Take over what the journal holds."""
        traces = []
        for arrays in journal.parts():
            # an interruption between two lines of _keep leaves a record twice
            if arrays.pop("first", None) == self.done:
                traces.append(self._trace(arrays))
                self.done += traces[-1].record.samples
        if traces:
            self._kept = Trace.joined(traces)

    def _trace(self, arrays: dict[str, Array]) -> Trace:
        """The trace of one record, whose arrays must be those of this graph."""
        graph = self.simulator.graph
        samples = len(
            next((a for k, a in arrays.items() if k.startswith("updates.") and a.ndim), ())
        )
        found = {key: (array.shape, array.dtype) for key, array in arrays.items()}
        if not 0 < samples <= self.samples - self.done or found != _layout(graph, samples):
            raise damaged(self.path, "it does not hold what this network leaves behind")
        parts: dict[str, dict[str, Array]] = {part: {} for part in ("output", *_COUNTED)}
        for key, array in arrays.items():
            part, _, name = key.partition(".")
            parts[part][name] = array
        return Trace(
            output=parts.pop("output"),
            record=Record(samples=samples, timesteps=self._steps, **parts),
            spikes={},
            membrane={},
            current={},
        )

    def _named(self) -> Identity:
        """What the journal is of; its keys are what an error names."""
        graph, options = self.simulator.graph, self.options
        # sums of floats may depend on how many samples are summed at once
        batch = options.get("batch") if graph.number_format is None else None
        return {
            "version": version("snn-deploy"),
            "network": digest(graph),
            "recording": self.recording.digest(),
            "number of steps": self._steps,
            "timing": options.get("timing", "zero_delay"),
            "reset interval": options.get("reset_interval"),
            "reset offset": options.get("reset_offset"),
            "batch": batch,
        }

    def __enter__(self) -> ResumableRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._journal is not None:
            self._journal.close()


_COUNTED = ("spikes", "sample_spikes", "inputs", "events", "updates")


def _arrays(trace: Trace) -> dict[str, Array]:
    """Readouts and counts of a trace, by the names they have in a journal."""
    parts = {"output": trace.output} | {part: getattr(trace.record, part) for part in _COUNTED}
    return {f"{part}.{name}": v for part, held in parts.items() for name, v in held.items()}


def _layout(graph: Graph, samples: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shapes and types of the arrays that so many samples leave in a journal."""
    number = np.dtype(np.float64 if graph.number_format is None else np.int64)
    shapes: dict[str, tuple[int, ...]] = {f"inputs.{s.name}": s.shape for s in graph.inputs}
    shapes |= {f"spikes.{p.name}": p.shape for p in graph.spiking()}
    shapes |= {f"sample_spikes.{p.name}": (samples,) for p in graph.spiking()}
    shapes |= {f"events.{p.name}": (samples,) for p in graph.projections}
    shapes |= {f"updates.{p.name}": (samples,) for p in graph.populations}
    layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    layout = {key: (shape, np.dtype(np.int64)) for key, shape in shapes.items()}
    for name in graph.outputs:
        counts = graph.population(name).neurons.readout is None
        shape = (samples, *graph.shape_of(name))
        layout[f"output.{name}"] = (shape, np.dtype(np.int64) if counts else number)
    return layout
