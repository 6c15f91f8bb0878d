"""Events of samples, as every reader gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from snn_deploy.events.files import Array, Indices

# Times in microseconds below this can be multiplied by a number of timesteps in 64 bits.
MAX_TIME = 1 << 50


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


def last_times(events: Events) -> NDArray[np.int64]:
    """Time of the last event of each sample, 0 where there is none; int64 [samples]."""
    last = np.zeros(len(events.counts), np.int64)
    filled = events.counts > 0
    if filled.any():
        starts = np.cumsum(events.counts) - events.counts
        last[filled] = np.maximum.reduceat(events.t, starts[filled])
    return last
