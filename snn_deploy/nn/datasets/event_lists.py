"""Lists of events in ``.npz`` and HDF5 files, checked before they are binned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from snn_deploy.nn.datasets.events import MAX_TIME, EventList
from snn_deploy.nn.datasets.ragged import read_ragged
from snn_deploy.nn.datasets.samples import Array, Indices
from snn_deploy.nn.datasets.sources import arrays, damaged, labels_of

FIELDS = ("t", "dt", "x", "y", "p", "offsets", "label", "labels", "sensor")


def read_event_file(path: Path) -> dict[str, Array]:
    """The arrays of a file that have a meaning here, from ``.npz`` or HDF5."""
    found = arrays(path) if path.suffix == ".npz" else read_ragged(path, FIELDS)
    return {name: array for name, array in found.items() if name in FIELDS}


def event_list(path: Path, found: Mapping[str, Array]) -> tuple[EventList, Indices]:
    """Events and labels, where everything fits together.

    Parameters
    ----------
    path : for messages.
    found : ``x``, ``offsets`` [samples + 1] and ``label`` or ``labels`` [samples]; ``t`` (whole
        microseconds from the beginning of the sample, or seconds if floating) or ``dt`` (whole
        microseconds since the event before in the same sample); ``y`` and ``p`` where there are
        such (p 1 for ON, 0 or −1 for OFF).

    Raises
    ------
    SnnDeployError
        SD401.
    """
    labels = found.get("labels", found.get("label"))
    if labels is None:
        raise damaged(path, "it has no array 'labels'")
    for name in ("x", "offsets", "t" if "dt" not in found else "dt"):
        if name not in found:
            raise damaged(path, f"it has no array {name!r}")
    counts = labels_of(path, labels, labels.size)
    offsets = _offsets(path, found["offsets"], len(counts))
    relative = "dt" in found
    if relative and "t" in found:
        raise damaged(path, "it has both 't' and 'dt'")
    for name in ("t", "dt", "x", "y", "p"):
        if name in found and found[name].shape != (offsets[-1],):
            raise damaged(
                path, f"{name} of shape {found[name].shape} for {offsets[-1]} events in the offsets"
            )
    times = found["dt" if relative else "t"]
    if times.dtype.kind not in ("iu" if relative else "iuf"):
        raise damaged(path, f"times of type {times.dtype}")
    if times.size:
        # a comparison with what is not a number is false
        scale = 1 if times.dtype.kind != "f" else 1e6
        earliest, latest = float(times.min()), float(times.max())
        if not (earliest >= 0 and latest < MAX_TIME / scale):
            raise damaged(
                path,
                f"times from {earliest} to {latest}: they count from the beginning of the sample, "
                "in microseconds if they are integers, else in seconds",
            )
        if relative and int(times.sum(dtype=np.float64)) >= MAX_TIME:
            raise damaged(path, "times that are too long to add up")
    events = EventList(
        offsets=offsets,
        t=times,
        x=_coordinate(path, found["x"], "x"),
        y=_coordinate(path, found["y"], "y") if "y" in found else None,
        p=_polarity(path, found["p"]) if "p" in found else None,
        relative=relative,
    )
    return events, counts


def require_inside(path: Path, events: EventList, sensor: tuple[int, ...]) -> None:
    """Refuse events outside the sensor, (W,) or (H, W): SD401."""
    if (len(sensor) == 2) != (events.y is not None):
        raise damaged(
            path,
            f"a sensor of {list(sensor)}, but events {'without' if events.y is None else 'with'} y",
        )
    for name, values, extent in (("x", events.x, sensor[-1]), ("y", events.y, sensor[0])):
        if values is not None and values.size and int(values.max()) >= extent:
            raise damaged(path, f"an event at {name} = {values.max()}, outside {extent}")


def _offsets(path: Path, values: Array, samples: int) -> Indices:
    if values.dtype.kind not in "iu" or values.shape != (samples + 1,):
        raise damaged(
            path,
            f"offsets of shape {values.shape} and type {values.dtype}: {samples + 1} integers are "
            f"needed for {samples} samples",
        )
    offsets = values.astype(np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise damaged(path, "offsets do not rise from 0")
    return offsets


def _coordinate(path: Path, values: Array, name: str) -> Array:
    if values.dtype.kind not in "iu":
        raise damaged(path, f"{name} of type {values.dtype}, not integers")
    if values.size and int(values.min()) < 0:
        raise damaged(path, f"{name} below 0")
    return values


def _polarity(path: Path, values: Array) -> Array:
    """0 and 1 as uint8, from 0/1, −1/1 or truth values."""
    if values.dtype.kind in "iub":
        off = values.astype(bool) if values.dtype.kind == "u" else values > 0
        if np.isin(values, (-1, 0, 1) if values.dtype.kind == "i" else (0, 1)).all():
            return off.astype(np.uint8)
    raise damaged(path, "p: 1 is ON, 0 or -1 OFF, and there is something else")
