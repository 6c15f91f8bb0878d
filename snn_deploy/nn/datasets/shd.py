"""Spiking Heidelberg Digits, in the HDF5 files in which they are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snn_deploy.events.lists import require_inside
from snn_deploy.events.ragged import read_ragged
from snn_deploy.events.shd import SHD_FIELDS, shd_list
from snn_deploy.events.streams import EventList
from snn_deploy.nn.datasets.events import EventSamples, binning
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Dataset, Indices, Split
from snn_deploy.nn.datasets.sources import first, labels_of, locate, missing

ORIGIN = (
    "download shd_train.h5.gz and shd_test.h5.gz from https://zenkelab.org/datasets and unpack them"
)
CHANNELS = 700
CLASSES = 20
# Nearly all of the spoken digits have ended after a second.
DURATION_MS = 1000.0


def shd(options: DataOptions, timesteps: int) -> Dataset:
    """SHD (Cramer et al. 2022): spikes of shape (700,), 20 classes (0..9 English, then German).

    Reads ``shd_train.h5`` and ``shd_test.h5``: ``spikes/times`` in seconds and ``spikes/units``,
    lists of one length each, and ``labels``. The first second is divided into all timesteps
    unless ``window`` or ``duration`` says otherwise.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (options that do not fit), SD401 (damaged), SD402 (unsafe).
    """
    folder = locate(options, ("shd",), ORIGIN)
    how = binning(options, timesteps, (CHANNELS,), polarities=1, duration=DURATION_MS)
    splits = {}
    for key in ("train", "test"):
        path = folder / f"shd_{key}.h5"
        if not path.is_file():
            packed = path.with_name(f"{path.name}.gz").is_file()
            what = f"no file {path.name}" + (", only packed as .gz" if packed else "")
            raise missing(options, folder, what, ORIGIN)
        source, labels = read_shd(path)
        random = options.random_start and key == "train"
        samples = EventSamples(source, how, np.arange(len(labels)), random)
        splits[key] = Split(samples, labels)
    return Dataset(
        train=first(splits["train"], options.train, "train", options.name),
        test=first(splits["test"], options.test, "test", options.name),
        classes=CLASSES,
        kind="spikes",
        shape=how.shape,
        low=0.0,
        high=1.0,
    )


def read_shd(path: Path) -> tuple[EventList, Indices]:
    """Events and labels of one of the two files."""
    events, labels = shd_list(path, read_ragged(path, SHD_FIELDS))
    require_inside(path, events, (CHANNELS,))
    return events, labels_of(path, labels, len(labels), CLASSES)
