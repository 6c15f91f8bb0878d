"""N-MNIST: the official folders of 40-bit event files, or lists of events in ``.npz``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.binning import Binning
from snn_deploy.events.lists import event_list, read_event_file, require_inside
from snn_deploy.events.nmnist import SENSOR, read_bin
from snn_deploy.events.streams import Events, EventSource
from snn_deploy.nn.datasets.events import EventSamples, binning
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Dataset, Indices, Split
from snn_deploy.nn.datasets.sources import (
    damaged,
    first,
    labels_of,
    locate,
    missing,
    one_of,
)

ORIGIN = (
    "download Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and "
    "unpack both into one folder"
)


def nmnist(options: DataOptions, timesteps: int) -> Dataset:
    """N-MNIST (Orchard et al. 2015): spikes of shape (2, 34, 34), OFF and ON; about 0.3 s.

    Reads the folders ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``, in the order of their
    numbers, which is that of MNIST; a file is read whenever its sample is asked for. Or one
    ``train*.npz`` and one ``test*.npz`` with lists of events
    (:func:`snn_deploy.events.lists.event_list`).

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
    """Samples that are a file each (see :class:`snn_deploy.events.streams.EventSource`)."""

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
