"""Events into timesteps and neurons.

A spike is 1 where at least one event falls into a pixel, channel and timestep: however many events
do, they count once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.events.files import Array, Indices
from snn_deploy.events.streams import Events, last_times

MAX_TIMESTEPS = 1 << 12


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

    def places(self, events: Events, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in [n, T, *shape], flat, each event falls that lies in one of the timesteps.

        Timestep k holds the events with k ≤ (t − start) · T / duration < k + 1; ``starts`` are the
        microseconds at which the time of each sample begins.
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
        return place * self.size[-1] + self._shrunk(events.x[seen], -1)

    def spikes(self, events: Events, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Spikes [n, T, *shape]; see :meth:`places`."""
        count = len(events.counts)
        spikes = np.zeros(count * self.timesteps * math.prod(self.shape), np.uint8)
        spikes[self.places(events, starts)] = 1
        return spikes.reshape(count, self.timesteps, *self.shape)

    def _shrunk(self, coordinate: Array, axis: int) -> Indices:
        value = coordinate.astype(np.int64)
        if self.scale:
            return value // self.scale
        return value * self.size[axis] // self.sensor[axis]
