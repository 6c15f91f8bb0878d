"""A file of events of any kind, by the ending of its name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.cameras import read_aedat4, read_raw
from snn_deploy.events.files import Indices
from snn_deploy.events.lists import FIELDS, event_list, unlabelled_list
from snn_deploy.events.nmnist import read_bin
from snn_deploy.events.ragged import read_ragged
from snn_deploy.events.shd import SHD_FIELDS, shd_list
from snn_deploy.events.streams import EventList
from snn_deploy.packets import read_npz

ENDINGS = (".bin", ".npz", ".h5", ".hdf5", ".raw", ".aedat4")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EventFile:
    """What is in a file of events.

    Attributes
    ----------
    path, form : the file, and the name of its format.
    sha256 : of its bytes, in hexadecimal.
    events : of its samples.
    labels : int64 [samples], or None.
    origin : microseconds on the camera's clock at which the time of the events begins.
    """

    path: Path
    form: str
    sha256: str
    events: EventList
    labels: Indices | None = None
    origin: int = 0


def read_events(path: Path) -> EventFile:
    """Read a file of events.

    ``.bin`` holds 40-bit events (N-MNIST), ``.npz`` the arrays that
    :func:`snn_deploy.events.lists.event_list` describes (labels may be missing, and offsets where
    there is one sample), ``.h5`` and ``.hdf5`` the same or the layout of SHD, ``.raw`` Prophesee's
    EVT 2 or 3, ``.aedat4`` AEDAT 4.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD105 (no reader for it), SD107 (a package is missing), SD401 (damaged)
        or SD402 (unsafe).
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise SnnDeployError(
            "SD105",
            f"no reader for files that end in {ending!r}",
            where=str(path),
            fix=f"give a file that ends in {', '.join(ENDINGS)}",
        )
    digest = _digest(path)
    labels: Indices | None = None
    origin = 0
    if ending == ".bin":
        form = "N-MNIST .bin"
        x, y, p, t = read_bin(path, None)
        events = EventList(np.array([0, len(x)]), t, x, y, p)
    elif ending in (".raw", ".aedat4"):
        form = "Prophesee RAW" if ending == ".raw" else "AEDAT 4"
        events, origin = read_raw(path) if ending == ".raw" else read_aedat4(path)
    else:
        found = read_npz(path) if ending == ".npz" else read_ragged(path, (*FIELDS, *SHD_FIELDS))
        if any(name.startswith("spikes/") for name in found):
            form = "HDF5 in the layout of SHD"
            events, labels = shd_list(path, found)
        else:
            form = "event list"
            labelled = {"label", "labels"} & found.keys() and "offsets" in found
            events, labels = (
                event_list(path, found) if labelled else (unlabelled_list(path, found), None)
            )
    return EventFile(
        path=path, form=form, sha256=digest, events=events, labels=labels, origin=origin
    )


def _digest(path: Path) -> str:
    """SHA-256 of a file; SD101 where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise SnnDeployError(
            "SD101", "cannot read", where=str(path), why=error.strerror, fix="check the name"
        ) from None
    return digest.hexdigest()
