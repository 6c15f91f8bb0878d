"""N-MNIST: the official folders of 40-bit event files, or lists of events in ``.npz``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.datasets.event_lists import event_list, read_event_file, require_inside
from snn_deploy.nn.datasets.events import Binning, Events, EventSamples, EventSource, binning
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Dataset, Indices, Split
from snn_deploy.nn.datasets.sources import (
    damaged,
    first,
    labels_of,
    locate,
    missing,
    one_of,
    read_bytes,
)

ORIGIN = (
    "download Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and "
    "unpack both into one folder"
)
SENSOR = (34, 34)
RECORD = 5
# A saccade triple takes 0.3 s, some 4000 events; a file of this size is something else.
MAX_BYTES = 1 << 24
# A y that is no row says that 2**13 microseconds are to be added to all times from here on.
OVERFLOW, OVERFLOW_TIME = 240, 1 << 13


def nmnist(options: DataOptions, timesteps: int) -> Dataset:
    """N-MNIST (Orchard et al. 2015): spikes of shape (2, 34, 34), OFF and ON; about 0.3 s.

    Reads the folders ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``, in the order of their
    numbers, which is that of MNIST; a file is read whenever its sample is asked for. Or one
    ``train*.npz`` and one ``test*.npz`` with lists of events
    (:func:`snn_deploy.nn.datasets.event_lists.event_list`).

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (options that do not fit), SD401 (damaged; of a ``.bin`` when it
        is read).
    """
    folder = locate(options, ("nmnist", "nmnist_small"), ORIGIN)
    how = binning(options, timesteps, SENSOR, polarities=2)
    splits = {}
    source: EventSource
    for key in ("train", "test"):
        official = folder / key.capitalize()
        if official.is_dir():
            source, labels = open_folder(official)
        else:
            path = one_of(
                folder,
                (f"{key}*.npz",),
                lambda place, what: missing(
                    options, place, f"no folder Train or Test, and {what}", ORIGIN
                ),
            )
            source, labels = read_event_npz(path, SENSOR, 10)
        splits[key] = _split(source, labels, how, options, key)
    return Dataset(
        train=first(splits["train"], options.train, "train", options.name),
        test=first(splits["test"], options.test, "test", options.name),
        classes=10,
        kind="spikes",
        shape=how.shape,
        low=0.0,
        high=1.0,
    )


def _split(
    source: EventSource, labels: Indices, how: Binning, options: DataOptions, key: str
) -> Split:
    random = options.random_start and key == "train"
    return Split(EventSamples(source, how, np.arange(len(labels)), random), labels)


def read_event_npz(
    path: Path, sensor: tuple[int, int], classes: int
) -> tuple[EventSource, Indices]:
    """A list of events of a known sensor with polarities, and labels below ``classes``."""
    events, labels = event_list(path, read_event_file(path))
    require_inside(path, events, sensor)
    if events.p is None:
        raise damaged(path, "it has no array 'p'")
    return events, labels_of(path, labels, len(labels), classes)


@dataclass(frozen=True, slots=True, eq=False)
class EventFiles:
    """Samples that are a file each (see :class:`snn_deploy.nn.datasets.events.EventSource`)."""

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Indices) -> Events:
        """Events of the files at these places."""
        parts = [read_bin(self.files[index]) for index in indices]
        if not parts:
            none = np.zeros(0, np.int64)
            return Events(none, none, none, none, none)
        x, y, p, t = (np.concatenate([part[axis] for part in parts]) for axis in range(4))
        counts = np.array([len(part[0]) for part in parts], np.int64)
        return Events(counts=counts, t=t, x=x, y=y, p=p)


def open_folder(folder: Path) -> tuple[EventFiles, Indices]:
    """The files of ``Train`` or ``Test`` and their labels, which are the folders they lie in."""
    found = []
    for digit in range(10):
        for path in (folder / str(digit)).glob("*.bin"):
            if not (path.stem.isascii() and path.stem.isdigit()):
                raise damaged(path, "an event file whose name is not a number")
            found.append((int(path.stem), digit, path))
    if not found:
        raise SnnDeployError(
            "SD101", "no files <digit>/<number>.bin", where=str(folder), fix=ORIGIN
        )
    found.sort()
    files = tuple(path for _, _, path in found)
    return EventFiles(files), np.array([digit for _, digit, _ in found], np.int64)


def read_bin(path: Path) -> tuple[Indices, Indices, Indices, Indices]:
    """x, y, p (1 for ON) and t (microseconds) of a file of 40-bit events.

    Each is x, y, and 24 bits big-endian: the polarity, and 23 bits of time.
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
    if x.size and (x.max() >= SENSOR[1] or y.max() >= SENSOR[0]):
        raise damaged(path, f"an event outside {SENSOR[0]}x{SENSOR[1]}")
    return x, y, p, t
