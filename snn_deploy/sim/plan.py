"""What an engine is given besides the graph: encoded inputs, the number of steps, the timing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph
from snn_deploy.packet_files import StoredRecording
from snn_deploy.packets import Recording
from snn_deploy.sim.feeding import Feed, fit
from snn_deploy.sim.timing import Delay, Schedule, pipelined, zero_delay

Timing = Literal["zero_delay", "pipelined"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """One batch, ready for an engine.

    Attributes
    ----------
    inputs : per input, what reaches the synapses. Spikes: uint8 [samples, steps, *shape]; graded:
        [samples, steps, *shape]; constant: [samples, windows, *shape]. Silent where the recording
        has ended.
    samples, steps : extent of the run.
    first : timestep of the whole run at which this piece of it begins.
    delays : per projection, timesteps from a spike to its arrival: one, or one per synapse.
    resets : per population, whether its neurons are cleared at the start of a step, bool [steps].
    windows : per population, which window's constant input is in force, int64 [steps].
    trace : whether every neuron is traced.

    What has a step axis is of the steps ``first`` to ``first + steps``.
    """

    inputs: dict[str, NDArray[Any]]
    samples: int
    steps: int
    delays: dict[str, Delay]
    resets: dict[str, NDArray[np.bool_]]
    windows: dict[str, NDArray[np.int64]]
    trace: bool
    first: int = 0

    def part(self, start: int, stop: int) -> Plan:
        """Samples ``start`` to ``stop``."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, samples=stop - start)


def with_sample_axis(graph: Graph, recording: Recording | StoredRecording) -> Recording:
    """The recording with a sample axis on every array, in memory, checked against the graph.

    Raises
    ------
    SnnDeployError
        SD103 where names, kinds or shapes do not fit, SD106 where values leave the declared range,
        SD403 where they are not finite.
    """
    return fit(graph, recording).piece(slice(None))


def steps_of(graph: Graph, recording: Recording, steps: int | None) -> int:
    """Timesteps to run a recording that :func:`with_sample_axis` has checked; see :class:`Feed`."""
    fed = Feed(graph=graph, arrays={**recording.spikes, **recording.values}, labels=None)
    return fed.steps(steps)


def schedule(graph: Graph, timing: Timing) -> Schedule:
    """The schedule of a graph in this timing."""
    return pipelined(graph) if timing == "pipelined" else zero_delay(graph)


def plan(
    graph: Graph,
    recording: Recording,
    *,
    steps: int,
    timing: Timing,
    trace: bool,
    reset_interval: int | None = None,
    reset_offset: int | None = None,
    first: int = 0,
) -> Plan:
    """Encode one batch of a recording that :func:`with_sample_axis` has checked.

    The recording, and the plan, begin at timestep ``first`` of the whole run.
    """
    inputs: dict[str, NDArray[Any]] = {}
    for spec in graph.inputs:
        if spec.always_fires:
            inputs[spec.name] = np.ones((recording.samples, steps, *spec.shape), np.uint8)
            continue
        if spec.kind == "constant":
            inputs[spec.name] = spec.encode(recording.values[spec.name])[:, None]
            continue
        held = recording.spikes if spec.kind == "spikes" else recording.values
        inputs[spec.name] = _lengthened(spec.encode(held[spec.name][:, :steps]), steps)
    timed = schedule(graph, timing)
    return _planned(graph, inputs, steps, timed, trace, reset_interval, reset_offset, first)


def plan_stream(graph: Graph, recording: Recording, *, steps: int, trace: bool) -> Plan:
    """All samples of a recording in one pipelined run, one window of ``steps`` after another.

    Every population is cleared when its next window begins. The run is longer than the windows by
    the latency.
    """
    timed = pipelined(graph)
    inputs: dict[str, NDArray[Any]] = {}
    length = recording.samples * steps + timed.latency
    for spec in graph.inputs:
        if spec.always_fires:
            inputs[spec.name] = np.ones((1, length, *spec.shape), np.uint8)
            continue
        held = recording.spikes if spec.kind == "spikes" else recording.values
        encoded = spec.encode(held[spec.name])
        if spec.kind != "constant":
            encoded = _lengthened(encoded[:, :steps], steps).reshape(-1, *spec.shape)
            encoded = _lengthened(encoded[None], length)[0]
        inputs[spec.name] = encoded[None]
    return _planned(graph, inputs, length, timed, trace, steps, None)


def _lengthened(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """[samples, time, ...] with silence up to ``steps``."""
    missing = steps - values.shape[1]
    if missing == 0:
        return np.ascontiguousarray(values)
    return np.pad(values, ((0, 0), (0, missing), *([(0, 0)] * (values.ndim - 2))))


def _planned(
    graph: Graph,
    inputs: dict[str, NDArray[Any]],
    steps: int,
    timed: Schedule,
    trace: bool,
    interval: int | None,
    offset: int | None,
    first: int = 0,
) -> Plan:
    time = first + np.arange(steps)
    resets, windows = {}, {}
    constant = [inputs[spec.name].shape[1] for spec in graph.inputs if spec.kind == "constant"]
    for population in graph.populations:
        name = population.name
        resets[name], windows[name] = np.zeros(steps, bool), np.zeros(steps, np.int64)
        if interval is not None:
            begin = timed.stages[name] if offset is None else offset + timed.index(name)
            resets[name] = time % interval == begin % interval
            last = max(constant, default=1) - 1
            windows[name] = np.clip((time - begin) // interval, 0, last)
    return Plan(
        inputs=inputs,
        samples=len(next(iter(inputs.values()))),
        steps=steps,
        delays=timed.delays,
        resets=resets,
        windows=windows,
        trace=trace,
        first=first,
    )
