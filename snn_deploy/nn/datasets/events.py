"""Lists of events as samples: binned into spikes batch by batch.

A spike is 1 where at least one event falls into a pixel, channel and timestep: however many events
do, they count once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Array, Indices

# Times in microseconds below this can be multiplied by a number of timesteps in 64 bits.
MAX_TIME = 1 << 50
MAX_TIMESTEPS = 1 << 12


class Events(NamedTuple):
    """Events of several samples, one after the other.

    Attributes
    ----------
    counts : int64 [samples], events of each.
    t : int64, microseconds from the beginning of the sample.
    x, y, p : integers; y and p may be missing. p is 1 for ON.
    """

    counts: Indices
    t: NDArray[np.int64]
    x: Array
    y: Array | None
    p: Array | None


class EventSource(Protocol):
    """Where the events of samples come from."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def read(self, indices: Indices) -> Events:
        """Events of the samples at these places."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EventList:
    """Events held in memory, in the types in which they were stored.

    Attributes
    ----------
    offsets : int64 [samples + 1]; events of sample k are ``offsets[k]:offsets[k + 1]``.
    t : whole microseconds, or seconds if floating; with ``relative`` since the event before.
    x, y, p : as in :class:`Events`.
    """

    offsets: Indices
    t: Array
    x: Array
    y: Array | None = None
    p: Array | None = None
    relative: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, indices: Indices) -> Events:
        """See :class:`EventSource`."""
        starts, stops = self.offsets[indices], self.offsets[indices + 1]
        counts = stops - starts
        ends = np.cumsum(counts)
        # place of every event in the list: its rank among those read, moved to its sample
        places = np.arange(counts.sum()) + np.repeat(starts - (ends - counts), counts)
        t = self.t[places]
        if self.relative:
            total = np.concatenate([[0], np.cumsum(t, dtype=np.int64)])
            t = total[1:] - np.repeat(total[ends - counts], counts)
        return Events(
            counts=counts,
            t=microseconds(t),
            x=self.x[places],
            y=None if self.y is None else self.y[places],
            p=None if self.p is None else self.p[places],
        )


def microseconds(t: Array) -> NDArray[np.int64]:
    """Stored times as int64 microseconds: floating ones are seconds, rounded."""
    if t.dtype.kind == "f":
        return np.rint(t.astype(np.float64) * 1e6).astype(np.int64)
    return t.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Binning:
    """How events become spikes.

    Attributes
    ----------
    timesteps : T.
    window : microseconds per timestep; None where ``duration`` is divided.
    duration : microseconds that are divided into T; None: up to the last event of the sample.
    sensor : (W,) or (H, W).
    size : the same after shrinking.
    scale : what coordinates are divided by; 0: they are mapped to ``size``.
    polarities : channels, 1 or 2.
    """

    timesteps: int
    window: int | None
    duration: int | None
    sensor: tuple[int, ...]
    size: tuple[int, ...]
    scale: int
    polarities: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample, without time: (polarities, H, W); (W,), or (2, 1, W) for a line."""
        if len(self.size) == 2:
            return (self.polarities, *self.size)
        return self.size if self.polarities == 1 else (self.polarities, 1, *self.size)

    def whole(self) -> int | None:
        """Microseconds that all timesteps take; None if it depends on the sample."""
        return self.duration if self.window is None else self.window * self.timesteps

    def spikes(self, events: Events, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Spikes [n, T, *shape] of samples whose time begins at ``starts``, in microseconds.

        Timestep k holds the events with k ≤ (t − start) · T / duration < k + 1.
        """
        count = len(events.counts)
        t = events.t - np.repeat(starts, events.counts)
        if self.window is not None:
            step = t // self.window
        else:
            lasts = last_times(events) + 1  # so that the last event is in time
            spans = lasts if self.duration is None else np.full(count, self.duration)
            step = t * self.timesteps // np.repeat(spans, events.counts)
        seen = (step >= 0) & (step < self.timesteps)
        place = np.repeat(np.arange(count), events.counts)[seen]
        place = place * self.timesteps + step[seen]
        if self.polarities == 2 and events.p is not None:
            place = place * 2 + events.p[seen]
        if events.y is not None:
            place = place * self.size[0] + self._shrunk(events.y[seen], 0)
        place = place * self.size[-1] + self._shrunk(events.x[seen], -1)
        spikes = np.zeros(count * self.timesteps * math.prod(self.shape), np.uint8)
        spikes[place] = 1
        return spikes.reshape(count, self.timesteps, *self.shape)

    def _shrunk(self, coordinate: Array, axis: int) -> Indices:
        value = coordinate.astype(np.int64)
        if self.scale:
            return value // self.scale
        return value * self.size[axis] // self.sensor[axis]


def last_times(events: Events) -> NDArray[np.int64]:
    """Time of the last event of each sample, 0 where there is none; int64 [samples]."""
    last = np.zeros(len(events.counts), np.int64)
    filled = events.counts > 0
    if filled.any():
        starts = np.cumsum(events.counts) - events.counts
        last[filled] = np.maximum.reduceat(events.t, starts[filled])
    return last


@dataclass(frozen=True, slots=True, eq=False)
class EventSamples:
    """Samples whose spikes are made when they are asked for (see :class:`.samples.Samples`).

    Attributes
    ----------
    source, binning : the events, and what is made of them.
    places : samples of the source that these are.
    random_start : each time a sample is asked for, its time begins at a random microsecond such
        that all timesteps lie before its last event (at 0 where it is too short), drawn from
        torch's generator.
    """

    source: EventSource
    binning: Binning
    places: Indices
    random_start: bool = False

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, indices: Indices) -> NDArray[np.uint8]:
        """Spikes uint8 [n, T, *shape]."""
        events = self.source.read(self.places[np.asarray(indices, np.int64)])
        starts = np.zeros(len(events.counts), np.int64)
        whole = self.binning.whole()
        if self.random_start and whole is not None:
            latest = np.maximum(last_times(events) + 1 - whole, 0)
            drawn = torch.rand(len(starts), dtype=torch.float64).numpy()
            starts = np.floor(drawn * (latest + 1)).astype(np.int64)
        return self.binning.spikes(events, starts)

    def take(self, indices: Indices) -> EventSamples:
        """See :class:`.samples.Samples`."""
        return replace(self, places=self.places[np.asarray(indices, np.int64)])

    def steady(self) -> EventSamples:
        """See :class:`.samples.Samples`."""
        return replace(self, random_start=False)


def binning(
    options: DataOptions,
    timesteps: int,
    sensor: Sequence[int],
    polarities: int,
    duration: float | None = None,
) -> Binning:
    """The binning that options ask for.

    Parameters
    ----------
    sensor : (W,) or (H, W).
    polarities : 2 if the events have polarities, else 1.
    duration : of a sample in milliseconds, where the data set knows one.

    Raises
    ------
    SnnDeployError
        SD104 where the options do not fit the sensor.
    """
    where = f"data set {options.name}"
    if not 1 <= timesteps <= MAX_TIMESTEPS:
        raise SnnDeployError(
            "SD104",
            f"[model] timesteps: {timesteps} for a list of events, at most {MAX_TIMESTEPS}",
            where=where,
            fix="lower it, and widen [data] window",
        )
    extents = tuple(int(extent) for extent in sensor)
    size, scale = tuple(-(-extent // (options.scale or 1)) for extent in extents), options.scale
    if options.size is not None:
        given = options.size
        size = given * len(extents) if len(given) == 1 else given
        scale = 0
        if len(size) != len(extents):
            raise SnnDeployError(
                "SD104",
                f"[data] size: {list(given)} for a sensor of {list(extents)}",
                where=where,
                fix="one number for a line, [height, width] for an image",
            )
    if options.duration is not None:
        duration = options.duration
    return Binning(
        timesteps=timesteps,
        window=None if options.window is None else round(options.window * 1000),
        duration=None if duration is None else round(duration * 1000),
        sensor=extents,
        size=size,
        scale=1 if scale is None else scale,
        polarities=1 if options.polarity == "merge" else polarities,
    )
