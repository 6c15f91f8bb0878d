"""What an engine is given besides the graph: encoded inputs, the number of steps, the timing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.packets import Recording
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
    delays : per projection, timesteps from a spike to its arrival: one, or one per synapse.
    resets : per population, whether its neurons are cleared at the start of a step, bool [steps].
    windows : per population, which window's constant input is in force, int64 [steps].
    trace : whether every neuron is traced.
    """

    inputs: dict[str, NDArray[Any]]
    samples: int
    steps: int
    delays: dict[str, Delay]
    resets: dict[str, NDArray[np.bool_]]
    windows: dict[str, NDArray[np.int64]]
    trace: bool

    def part(self, start: int, stop: int) -> Plan:
        """Samples ``start`` to ``stop``."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, samples=stop - start)


def with_sample_axis(graph: Graph, recording: Recording) -> Recording:
    """The recording with a sample axis on every array, checked against the graph's inputs.

    Raises
    ------
    SnnDeployError
        SD103 where names, kinds or shapes do not fit, SD106 where values leave the declared range.
    """
    spikes, values = dict(recording.spikes), dict(recording.values)
    samples = set()
    fed = graph.fed
    for spec in fed:
        held = spikes if spec.kind == "spikes" else values
        if len(fed) == 1:
            if spec.kind == "graded" and not values:  # called spikes where they carry payloads
                held, values, spikes = spikes, spikes, {}
            if "" in held:
                held[spec.name] = held.pop("")
        if spec.name not in held:
            wanted = "spikes" if spec.kind == "spikes" else "values"
            key = wanted if len(fed) == 1 else f"{spec.name}.{wanted}"
            raise SnnDeployError(
                "SD103",
                f"the network wants `{key}`, the recording has "
                f"{sorted(recording.arrays()) or 'nothing'}",
                where=f"input {spec.name}",
            )
        held[spec.name] = _checked(graph, spec, held[spec.name])
        samples.add(len(held[spec.name]))
    if len(samples) != 1:
        raise SnnDeployError("SD103", f"inputs have different numbers of samples: {samples}")
    names = {spec.name for spec in fed}
    return Recording(
        spikes={k: v for k, v in spikes.items() if k in names},
        values={k: v for k, v in values.items() if k in names},
        labels=recording.labels,
    )


def _checked(graph: Graph, spec: InputSpec, array: NDArray[Any]) -> NDArray[Any]:
    """One input's array with its sample axis (and time axis, unless constant)."""
    where = f"input {spec.name}"
    if array.dtype.kind not in "biuf":
        raise SnnDeployError("SD103", f"an array of {array.dtype} is no input", where=where)
    timed = spec.kind != "constant"
    if array.ndim == len(spec.shape) + timed:  # one sample, without its axis
        array = array[None]
    wanted = ("N", "T", *spec.shape) if timed else ("N", *spec.shape)
    lead = len(wanted) - len(spec.shape)
    if array.ndim != len(wanted) or array.shape[lead:] != spec.shape or 0 in array.shape:
        raise SnnDeployError(
            "SD103",
            f"the recording has shape {array.shape}, the network wants "
            f"({', '.join(str(n) for n in wanted)})",
            where=where,
            fix="reshape the recording, or export the network it was made for",
        )
    if timed and graph.timesteps is not None and array.shape[1] != graph.timesteps:
        raise SnnDeployError(
            "SD103",
            f"the recording has {array.shape[1]} timesteps, the network runs {graph.timesteps}",
            where=where,
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SnnDeployError("SD403", "the recording holds NaN or infinity", where=where)
    if spec.kind == "spikes":
        bits = array.dtype.kind in "bu" and array.max() <= 1  # in one pass, without temporaries
        if not bits and not ((array == 0) | (array == 1)).all():
            raise SnnDeployError("SD106", "spikes must be 0 or 1", where=where)
        return array.astype(np.uint8, copy=False)
    if array.min() < spec.low or array.max() > spec.high:
        raise SnnDeployError(
            "SD106",
            f"values from {array.min()} to {array.max()} leave the declared range "
            f"[{spec.low}, {spec.high}]",
            where=where,
            why="the proof that no register overflows holds for the declared range only",
            fix="clip the recording, or declare the wider range and export again",
        )
    return array


def steps_of(graph: Graph, recording: Recording, steps: int | None) -> int:
    """Timesteps to run: as asked, else as the graph says, else as long as the input is."""
    if steps is not None:
        if steps < 1:
            raise SnnDeployError("SD104", f"steps must be at least 1, not {steps}")
        return steps
    if graph.timesteps is not None:
        return graph.timesteps
    lengths = {
        len((recording.spikes if s.kind == "spikes" else recording.values)[s.name][0])
        for s in graph.fed
        if s.kind != "constant"
    }
    if len(lengths) != 1:
        raise SnnDeployError(
            "SD103",
            "the number of timesteps follows neither from the network nor from its input",
            fix="give the number of steps",
        )
    return lengths.pop()


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
) -> Plan:
    """Encode one batch of a recording that :func:`with_sample_axis` has checked."""
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
    return _planned(
        graph, inputs, steps, schedule(graph, timing), trace, reset_interval, reset_offset
    )


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
    return np.pad(values, ((0, 0), (0, missing), *([(0, 0)] * (values.ndim - 2))))


def _planned(
    graph: Graph,
    inputs: dict[str, NDArray[Any]],
    steps: int,
    timed: Schedule,
    trace: bool,
    interval: int | None,
    offset: int | None,
) -> Plan:
    time = np.arange(steps)
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
    )
