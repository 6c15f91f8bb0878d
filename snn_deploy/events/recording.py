"""Files of events into one recording of bit-packed spikes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.binning import Binning
from snn_deploy.events.choice import Choice, choose
from snn_deploy.events.files import Indices
from snn_deploy.events.lists import first_outside
from snn_deploy.events.reading import EventFile, read_events
from snn_deploy.events.streams import Events, last_times
from snn_deploy.packets import MAX_UNPACKED_BYTES, write_npz

# What is written can also be read whole (:func:`snn_deploy.packets.read_recording`).
MAX_PACKED_BYTES = MAX_UNPACKED_BYTES // 8


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Recorded:
    """A recording, and how it was made.

    Attributes
    ----------
    packed : uint8 [N, T, ceil(n / 8)], little-endian (:mod:`snn_deploy.packet_layout`).
    shape : of the n neurons.
    labels : int64 [N], where every file has them.
    about : what was done, as data for JSON: the choice, the files with their SHA-256, and
        ``counts``: ``events`` = ``other_polarity`` + ``late`` + ``merged`` + ``spikes``.
    """

    packed: NDArray[np.uint8]
    shape: tuple[int, ...]
    labels: Indices | None
    about: dict[str, Any]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the recording; ``about`` is in it as a text of JSON under this name.

        Raises
        ------
        SnnDeployError
            SD102.
        """
        arrays: dict[str, NDArray[Any]] = {
            "spikes.packed": self.packed,
            "spikes.shape": np.array(self.shape, np.int64),
            "about": np.array(json.dumps(self.about, sort_keys=True)),
        }
        if self.labels is not None:
            arrays["labels"] = self.labels
        write_npz(path, arrays)


def record(
    files: Sequence[str | os.PathLike[str]],
    *,
    shape: Sequence[int],
    step: str | None = None,
    steps: int | None = None,
    scale: str = "1",
    polarity: str = "both",
    from_first: bool = False,
    flat: bool = False,
) -> Recorded:
    """Bin the events of files into one recording, their samples one after the other.

    A neuron spikes in a timestep if at least one event falls there; how many more did is counted
    as ``merged``. Events after the last timestep are ``late``. Timesteps after a sample's last
    event are silent.

    Parameters
    ----------
    files : see :func:`snn_deploy.events.reading.read_events`.
    shape : of the sensor: (2, H, W) for a channel OFF and a channel ON, (1, H, W) where
        polarities are not told apart, or (N,).
    step : length of a timestep, as "10ms", "250us" or "1s": a whole number of microseconds.
    steps : timesteps of every sample. Without ``step`` the time of each sample, up to its last
        event, is divided into so many; without ``steps`` there are as many as the longest sample
        needs.
    scale : "1/2": two pixels along each axis become one; those left over make one more.
    polarity : "both", or events "on" or "off" only, in one channel.
    from_first : time begins at the first event of each sample instead of at 0. Times of camera
        files always begin at the first event.
    flat : write (n,) for the shape of the neurons, for networks whose input has one axis; their
        order stays channel, row, column.

    Raises
    ------
    SnnDeployError
        SD104 (options), SD103 or SD106 (events that do not fit the shape), and those of
        :func:`snn_deploy.events.reading.read_events`.
    """
    choice = choose(shape, step, steps, scale, polarity, from_first, flat)
    if not files:
        raise SnnDeployError("SD104", "no files", fix="name at least one file of events")
    read = [read_events(Path(path)) for path in files]
    for file in read:
        _require_fit(file, choice)
    timesteps = _timesteps(read, choice)
    samples = sum(len(file.events) for file in read)
    row = -(-math.prod(choice.made) // 8)
    if samples * timesteps * row > MAX_PACKED_BYTES:
        raise SnnDeployError(
            "SD104",
            f"{samples} samples of {timesteps} timesteps and {math.prod(choice.made)} neurons are "
            f"more than {MAX_PACKED_BYTES >> 30} GiB",
            fix="give a longer step, fewer steps, a smaller scale or fewer files; times that do "
            "not begin near 0 need --from-first",
        )
    packed = np.zeros((samples, timesteps, row), np.uint8)
    counts = dict.fromkeys(("events", "other_polarity", "late", "merged", "spikes"), 0)
    target = iter(packed)
    for file in read:
        for index in range(len(file.events)):
            events = file.events.read(np.array([index]))
            _add(events, choice, timesteps, next(target), counts)
    if counts["events"] and not counts["spikes"]:
        raise SnnDeployError(
            "SD104",
            f"none of {counts['events']} events becomes a spike: {counts['other_polarity']} are of "
            f"the other polarity, {counts['late']} come after the last timestep",
            where=", ".join(str(path) for path in files)[:200],
            fix="give a longer step or more steps; integer times are microseconds, others seconds",
        )
    labels = [file.labels for file in read if file.labels is not None]
    return Recorded(
        packed=packed,
        shape=choice.made,
        labels=np.concatenate(labels) if len(labels) == len(read) else None,
        about=_about(read, choice, timesteps, counts),
    )


def _require_fit(file: EventFile, choice: Choice) -> None:
    """Refuse events that the shape has no neuron for."""
    events, where = file.events, str(file.path)
    shape = ",".join(map(str, choice.shape))
    if (events.y is None) != (len(choice.sensor) == 1) and choice.sensor[:-1] != (1,):
        axes = "no row" if events.y is None else "a row and a column"
        raise SnnDeployError(
            "SD103",
            f"events have {axes}, the shape is {shape}",
            where=where,
            fix="--shape N" if events.y is None else "--shape 2,H,W",
        )
    if events.p is None and (choice.channels == 2 or choice.polarity != "both"):
        raise SnnDeployError(
            "SD103",
            "events have no polarity",
            where=where,
            fix="--polarity both, and --shape 1,H,W or N",
        )
    outside = first_outside(events, choice.sensor)
    if outside is not None:
        sample = int(np.searchsorted(events.offsets, outside.event, "right")) - 1
        raise SnnDeployError(
            "SD106",
            f"event {outside.event} (sample {sample}) lies at {outside.what}",
            where=where,
            why=f"the shape is {shape}",
            fix="--shape is that of the sensor, before --scale",
        )


def _timesteps(read: Sequence[EventFile], choice: Choice) -> int:
    if choice.steps is not None:
        return choice.steps
    assert choice.step is not None  # one of the two is given
    longest = 0
    for file in read:
        for index in range(len(file.events)):
            events = file.events.read(np.array([index]))
            last = int(last_times(events)[0]) - _start(events, choice)
            longest = max(longest, last // choice.step)
    return longest + 1


def _start(events: Events, choice: Choice) -> int:
    """Microsecond at which the time of a sample begins."""
    return int(events.t.min()) if choice.from_first and events.t.size else 0


def _add(
    events: Events,
    choice: Choice,
    timesteps: int,
    packed: NDArray[np.uint8],
    counts: dict[str, int],
) -> None:
    """Bin one sample into its place [T, ceil(n / 8)], and count what became of its events."""
    start = _start(events, choice)
    line = events.y is None
    how = Binning(
        timesteps=timesteps,
        window=choice.step,
        # of all events, whatever their polarity
        duration=int(last_times(events)[0]) - start + 1,
        sensor=choice.sensor[-1:] if line else choice.sensor,
        size=choice.size[-1:] if line else choice.size,
        scale=choice.scale,
        polarities=choice.channels,
    )
    kept = events
    if choice.polarity != "both" and events.p is not None:
        kept = _only(events, events.p == (choice.polarity == "on"))
    places = how.places(kept, np.array([start]))
    spikes = np.unique(places)
    counts["events"] += len(events.t)
    counts["other_polarity"] += len(events.t) - len(kept.t)
    counts["late"] += len(kept.t) - len(places)
    counts["merged"] += len(places) - len(spikes)
    counts["spikes"] += len(spikes)
    neurons = math.prod(choice.made)
    step, neuron = spikes // neurons, spikes % neurons
    bits = (1 << (neuron % 8)).astype(np.uint8)
    np.bitwise_or.at(packed, (step, neuron // 8), bits)


def _only(events: Events, chosen: NDArray[np.bool_]) -> Events:
    """The chosen events of one sample."""
    return Events(
        counts=np.array([np.count_nonzero(chosen)]),
        t=events.t[chosen],
        x=events.x[chosen],
        y=None if events.y is None else events.y[chosen],
        p=None if events.p is None else events.p[chosen],
    )


def _about(
    read: Sequence[EventFile], choice: Choice, timesteps: int, counts: dict[str, int]
) -> dict[str, Any]:
    return {
        "made_by": "snn-deploy record",
        "done": choice.words(),
        "sensor": list(choice.shape),
        "shape": list(choice.made),
        "timesteps": timesteps,
        "step_microseconds": choice.step,
        "scale": f"1/{choice.scale}",
        "polarity": choice.polarity,
        "from_first": choice.from_first,
        "counts": counts,
        "files": [
            {
                "name": file.path.name,
                "sha256": file.sha256,
                "format": file.form,
                "samples": len(file.events),
                "events": len(file.events.x),
                "clock_at_0_microseconds": file.origin,
            }
            for file in read
        ],
    }
