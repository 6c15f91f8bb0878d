"""Lists of events as samples: binned into spikes batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.binning import MAX_TIMESTEPS, Binning
from snn_deploy.events.streams import EventSource, last_times
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Indices


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
