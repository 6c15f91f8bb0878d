"""N-MNIST ``.bin``: a recording of 40-bit events, also of N-Caltech101."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snn_deploy.events.files import Indices, damaged, read_bytes
from snn_deploy.events.lists import require_inside
from snn_deploy.events.streams import EventList

SENSOR = (34, 34)
RECORD = 5
# A saccade triple takes 0.3 s, some 4000 events; a file of this size is something else.
MAX_BYTES = 1 << 24
# A y that is no row says that 2**13 microseconds are to be added to all times from here on.
OVERFLOW, OVERFLOW_TIME = 240, 1 << 13


def read_bin(
    path: Path, sensor: tuple[int, int] | None = SENSOR
) -> tuple[Indices, Indices, Indices, Indices]:
    """x, y, p (1 for ON) and t (microseconds) of a file of 40-bit events, int64.

    Each is x, y, and 24 bits big-endian: the polarity, and 23 bits of time (Orchard et al. 2015).

    Parameters
    ----------
    sensor : (H, W) that all events must lie on; None: they are not compared.

    Raises
    ------
    SnnDeployError
        SD101 (cannot be read), SD401 (no whole records, too long, or events outside the sensor).
    """
    content = read_bytes(path, length=MAX_BYTES + 1)
    if len(content) > MAX_BYTES or len(content) % RECORD:
        raise damaged(path, f"{len(content)} bytes or more are not records of {RECORD}")
    x, y, high, middle, low = (
        np.frombuffer(content, np.uint8).reshape(-1, RECORD).T.astype(np.int64)
    )
    overflow = y == OVERFLOW
    t = ((high & 127) << 16 | middle << 8 | low) + OVERFLOW_TIME * np.cumsum(overflow)
    real = ~overflow
    x, y, p, t = x[real], y[real], high[real] >> 7, t[real]
    if sensor is not None:
        require_inside(path, EventList(np.array([0, len(x)]), t, x, y, p), sensor)
    return x, y, p, t
