"""What an engine is given besides the graph: encoded inputs, the number of steps, the timing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, InputSpec, Projection
from snn_deploy.packets import Recording

Timing = Literal["zero_delay", "pipelined"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """One batch, ready for an engine.

    Attributes
    ----------
    inputs : per input, what reaches the synapses. Spikes: uint8 [samples, steps, *shape]; graded:
        [samples, steps, *shape]; constant: [samples, *shape]. Silent where the recording has ended.
    samples, steps : extent of the run.
    hop_delay : timesteps that every projection adds to its own delay (pipelined timing).
    trace : whether every neuron is traced.
    """

    inputs: dict[str, NDArray[Any]]
    samples: int
    steps: int
    hop_delay: int
    trace: bool
    prompt: frozenset[str]

    def delay(self, projection: Projection) -> int:
        """Timesteps from a spike to its arrival; none for what the host sets as a bias."""
        return 0 if projection.name in self.prompt else projection.delay + self.hop_delay


def with_sample_axis(graph: Graph, recording: Recording) -> Recording:
    """The recording with a sample axis on every array, checked against the graph's inputs.

    Raises
    ------
    SnnDeployError
        SD103 where names, kinds or shapes do not fit, SD106 where values leave the declared range.
    """
    spikes, values = dict(recording.spikes), dict(recording.values)
    samples = set()
    for spec in graph.inputs:
        held = spikes if spec.kind == "spikes" else values
        if "" in held and len(graph.inputs) == 1:
            held[spec.name] = held.pop("")
        if spec.name not in held:
            wanted = "spikes" if spec.kind == "spikes" else "values"
            key = wanted if len(graph.inputs) == 1 else f"{spec.name}.{wanted}"
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
    names = {i.name for i in graph.inputs}
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
    if timed and array.ndim == len(spec.shape) + 1:
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
        if not np.isin(array, (0, 1)).all():
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
        for s in graph.inputs
        if s.kind != "constant"
    }
    if len(lengths) != 1:
        raise SnnDeployError(
            "SD103",
            "the number of timesteps follows neither from the network nor from its input",
            fix="give the number of steps",
        )
    return lengths.pop()


def plan(graph: Graph, recording: Recording, *, steps: int, timing: Timing, trace: bool) -> Plan:
    """Encode one batch of a recording that :func:`with_sample_axis` has checked."""
    inputs = {}
    for spec in graph.inputs:
        if spec.kind == "constant":
            inputs[spec.name] = spec.encode(recording.values[spec.name])
            continue
        held = recording.spikes if spec.kind == "spikes" else recording.values
        encoded = spec.encode(held[spec.name][:, :steps])
        missing = steps - encoded.shape[1]
        inputs[spec.name] = np.pad(encoded, ((0, 0), (0, missing), *([(0, 0)] * len(spec.shape))))
    number_format = graph.number_format
    hop = number_format.hop_delay if number_format and timing == "pipelined" else 0
    return Plan(
        inputs=inputs,
        samples=len(next(iter(inputs.values()))),
        steps=steps,
        hop_delay=hop,
        trace=trace,
        prompt=frozenset(p.name for p in graph.projections if graph.on_host(p)),
    )
