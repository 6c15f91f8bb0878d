"""Files of event cameras, through the package faery: Prophesee RAW (EVT 2 and 3) and AEDAT 4."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from snn_deploy.events.child import ask
from snn_deploy.events.files import damaged, read_bytes
from snn_deploy.events.streams import MAX_TIME, EventList
from snn_deploy.hdf5 import MAX_SECONDS

# By path, not by import: it changes sys.path and is only ever run.
CHILD = Path(__file__).with_name("cameras_child.py")
# Some 80 million events.
MAX_BYTES = 1 << 30
# Lines of text, each after a percent sign, precede the events of a RAW file.
HEADER_BYTES = 1 << 14


def read_raw(path: Path) -> tuple[EventList, int]:
    """Events of a Prophesee RAW file; see :func:`_read`.

    The version of its encoding must be in its header: a wrong guess would give events, but not
    those that were recorded.
    """
    header = read_bytes(path, length=HEADER_BYTES)
    if not re.search(rb"(?m)^% (evt |format EVT)\d", header):
        raise damaged(path, "its header does not say the version of EVT")
    return _read(path, "evt")


def read_aedat4(path: Path) -> tuple[EventList, int]:
    """Events of the first event stream of an AEDAT 4 file; see :func:`_read`."""
    return _read(path, "aedat")


def _read(path: Path, kind: str) -> tuple[EventList, int]:
    """The events of one sample, and the time of the first.

    Returns
    -------
    EventList, int
        t counts in microseconds from the first event, whose time by the camera's clock comes
        second.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD107 (faery is not installed), SD401 (damaged), SD402 (too large).
    """
    where = str(path)
    found = ask(CHILD, where, [where, kind, str(MAX_BYTES), str(MAX_SECONDS)], "event")
    t = found["t"]
    origin = int(t.min()) if t.size else 0
    since = t - np.uint64(origin)
    if t.size and int(since.max()) >= MAX_TIME:
        raise damaged(path, f"times from {origin} to {t.max()} microseconds")
    offsets = np.array([0, t.size], np.int64)
    events = EventList(offsets, since.astype(np.int64), found["x"], found["y"], found["p"])
    return events, origin
