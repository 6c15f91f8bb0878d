"""Spiking Heidelberg Digits, in the HDF5 files in which they are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snn_deploy.nn.datasets.event_lists import event_list, require_inside
from snn_deploy.nn.datasets.events import EventList, EventSamples, binning
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.ragged import read_ragged
from snn_deploy.nn.datasets.samples import Dataset, Indices, Split
from snn_deploy.nn.datasets.sources import damaged, first, labels_of, locate, missing

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
    found = read_ragged(path, ("labels", "spikes/times", "spikes/units"))
    for name in ("labels", "spikes/times.offsets", "spikes/units.offsets"):
        if name not in found:
            raise damaged(
                path, f"it has no {name.replace('.offsets', ', one list for each sample')}"
            )
    offsets = found["spikes/times.offsets"]
    if not np.array_equal(offsets, found["spikes/units.offsets"]):
        raise damaged(path, "spikes/times and spikes/units are not of one length each")
    held = {
        "t": found["spikes/times"],
        "x": found["spikes/units"],
        "offsets": offsets,
        "labels": found["labels"],
    }
    events, labels = event_list(path, held)
    if events.t.dtype.kind != "f":
        raise damaged(path, f"spikes/times of type {events.t.dtype}, not seconds")
    require_inside(path, events, (CHANNELS,))
    return events, labels_of(path, labels, len(labels), CLASSES)
