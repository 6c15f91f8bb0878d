"""A recording fitted to a graph, and handed out in pieces that have been checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.packet_files import StoredArray, StoredRecording, read_piece
from snn_deploy.packets import Recording

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Feed:
    """What a graph is fed: per input, an array with its sample axis, in memory or in a file.

    Attributes
    ----------
    graph : the graph.
    arrays : per input that a recording feeds, [N, T, *shape], or [N, *shape] where it is constant.
        Those in memory have been checked.
    labels : int64 [N], or None.
    """

    graph: Graph
    arrays: dict[str, Array | StoredArray]
    labels: NDArray[np.int64] | None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return next(iter(self.arrays.values())).shape[0]

    def steps(self, asked: int | None) -> int:
        """Timesteps to run: as asked, else as the graph says, else as long as the input is.

        Raises
        ------
        SnnDeployError
            SD103 where it follows from nothing, SD104 for less than one.
        """
        if asked is not None:
            if asked < 1:
                raise SnnDeployError("SD104", f"steps must be at least 1, not {asked}")
            return asked
        if self.graph.timesteps is not None:
            return self.graph.timesteps
        timed = [spec.name for spec in self.graph.fed if spec.kind != "constant"]
        lengths = {self.arrays[name].shape[1] for name in timed}
        if len(lengths) != 1:
            raise SnnDeployError(
                "SD103",
                "the number of timesteps follows neither from the network nor from its input",
                fix="give the number of steps",
            )
        return lengths.pop()

    def piece(self, samples: slice, steps: slice | None = None) -> Recording:
        """Samples, and timesteps (None: all there are; less where the input ends) of each.

        Raises
        ------
        SnnDeployError
            SD401, SD403 or SD106 for what a file turns out to hold.
        """
        spikes: dict[str, Array] = {}
        values: dict[str, Array] = {}
        for spec in self.graph.fed:
            array = self.arrays[spec.name]
            piece = read_piece(array, samples, None if spec.kind == "constant" else steps)
            if isinstance(array, StoredArray):
                piece = _checked(spec, piece)
            (spikes if spec.kind == "spikes" else values)[spec.name] = piece
        labels = None if self.labels is None else self.labels[samples]
        return Recording(spikes=spikes, values=values, labels=labels)


def fit(graph: Graph, recording: Recording | StoredRecording) -> Feed:
    """The recording with a sample axis on every array, checked against the graph's inputs.

    Raises
    ------
    SnnDeployError
        SD103 where names, kinds or shapes do not fit; SD106 and SD403 where values in memory leave
        the declared range or are not finite.
    """
    spikes: dict[str, Array | StoredArray] = dict(recording.spikes)
    values: dict[str, Array | StoredArray] = dict(recording.values)
    arrays: dict[str, Array | StoredArray] = {}
    fed = graph.fed
    for spec in fed:
        held = spikes if spec.kind == "spikes" else values
        if len(fed) == 1:
            if spec.kind == "graded" and not values:  # called spikes where they carry payloads
                held = spikes
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
        array = _fitted(graph, spec, held[spec.name])
        arrays[spec.name] = array if isinstance(array, StoredArray) else _checked(spec, array)
    samples = {array.shape[0] for array in arrays.values()}
    if len(samples) != 1:
        raise SnnDeployError("SD103", f"inputs have different numbers of samples: {samples}")
    return Feed(graph=graph, arrays=arrays, labels=recording.labels)


def _fitted(graph: Graph, spec: InputSpec, array: Array | StoredArray) -> Array | StoredArray:
    """One input's array with its sample axis (and time axis, unless constant)."""
    where = f"input {spec.name}"
    if array.dtype.kind not in "biuf":
        raise SnnDeployError("SD103", f"an array of {array.dtype} is no input", where=where)
    timed = spec.kind != "constant"
    if array.ndim == len(spec.shape) + timed:  # one sample, without its axis
        array = array.alone() if isinstance(array, StoredArray) else array[None]
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
    return array


def _checked(spec: InputSpec, array: Array) -> Array:
    """Values that an input may have; spikes as uint8."""
    where = f"input {spec.name}"
    if not array.size:  # the input has ended
        return array.astype(np.uint8) if spec.kind == "spikes" else array
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
