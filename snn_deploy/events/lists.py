"""Lists of events in ``.npz`` and HDF5 files, checked before they are binned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snn_deploy.events.files import Array, Indices, damaged, labels_of
from snn_deploy.events.ragged import read_ragged
from snn_deploy.events.streams import MAX_TIME, EventList
from snn_deploy.packets import read_npz

FIELDS = ("t", "dt", "x", "y", "p", "offsets", "label", "labels", "sensor")


def read_event_file(path: Path) -> dict[str, Array]:
    """The arrays of a file that have a meaning here, from ``.npz`` or HDF5."""
    found = read_npz(path) if path.suffix == ".npz" else read_ragged(path, FIELDS)
    return {name: array for name, array in found.items() if name in FIELDS}


def event_list(path: Path, found: Mapping[str, Array]) -> tuple[EventList, Indices]:
    """Events of labelled samples, where everything fits together.

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
    _require(path, found, "x", "offsets")
    counts = labels_of(path, labels, labels.size)
    return unlabelled_list(path, found, len(counts)), counts


def unlabelled_list(
    path: Path, found: Mapping[str, Array], samples: int | None = None
) -> EventList:
    """Events without labels: of one sample where there are no ``offsets``; see :func:`event_list`.

    Parameters
    ----------
    samples : that there must be; None where the offsets alone say it.

    Raises
    ------
    SnnDeployError
        SD401.
    """
    _require(path, found, "x", "t" if "dt" not in found else "dt")
    stored = found.get("offsets", np.array([0, found["x"].size]))
    offsets = _offsets(path, stored, stored.size - 1 if samples is None else samples)
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
    return EventList(
        offsets=offsets,
        t=times,
        x=_coordinate(path, found["x"], "x"),
        y=_coordinate(path, found["y"], "y") if "y" in found else None,
        p=_polarity(path, found["p"]) if "p" in found else None,
        relative=relative,
    )


def _require(path: Path, found: Mapping[str, Array], *names: str) -> None:
    for name in names:
        if name not in found:
            raise damaged(path, f"it has no array {name!r}")


def require_inside(path: Path, events: EventList, sensor: tuple[int, ...]) -> None:
    """Refuse events outside the sensor, (W,) or (H, W), naming the first: SD401."""
    if (len(sensor) == 2) != (events.y is not None):
        raise damaged(
            path,
            f"a sensor of {list(sensor)}, but events {'without' if events.y is None else 'with'} y",
        )
    outside = first_outside(events, sensor)
    if outside is not None:
        sizes = "x".join(str(extent) for extent in sensor)
        raise damaged(path, f"event {outside.event}: an event at {outside.what}; it is {sizes}")


class Outside(NamedTuple):
    """An event outside its sensor: its place in the list, and what is wrong with it."""

    event: int
    what: str


def first_outside(events: EventList, sensor: tuple[int, ...]) -> Outside | None:
    """The first event whose x, or else whose y, does not lie on the sensor, (W,) or (H, W)."""
    for name, values, extent in (("x", events.x, sensor[-1]), ("y", events.y, sensor[0])):
        if values is not None and values.size and int(values.max()) >= extent:
            first = int(np.argmax(values >= extent))
            return Outside(first, f"{name} = {values[first]}, outside {extent}")
    return None


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
