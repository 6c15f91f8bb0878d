"""Data sets that are lists of events: DVS128 Gesture, and anyone's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.binning import Binning
from snn_deploy.events.lists import event_list, read_event_file, require_inside
from snn_deploy.events.streams import EventList
from snn_deploy.nn.datasets.events import EventSamples, binning
from snn_deploy.nn.datasets.nmnist import read_event_npz
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Array, Dataset, Indices, Split
from snn_deploy.nn.datasets.sources import damaged, first, locate, missing, one_of

GESTURE_ORIGIN = (
    "convert DVS128 Gesture (https://research.ibm.com/interactive/dvsgesture) to train.npz and "
    "test.npz with arrays t, x, y, p, offsets and labels"
)
GESTURE_SENSOR = (128, 128)
GESTURE_CLASSES = 11
EVENTS_ORIGIN = (
    "write train.npz and test.npz (or .h5) with arrays t, x, y, p, offsets, labels and sensor"
)


def dvsgesture(options: DataOptions, timesteps: int) -> Dataset:
    """DVS128 Gesture (Amir et al. 2017): spikes of shape (2, 128, 128), OFF and ON; 11 classes.

    Reads one ``train*.npz`` and one ``test*.npz`` of events
    (:func:`snn_deploy.events.lists.event_list`). A single ``dvsgesture*.npz`` has no
    split of its own, and none is made up: the recipe says with ``train`` and ``test`` how many
    recordings from its beginning are for training, and how many after them for the test.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (options that do not fit), SD401 (damaged).
    """
    folder = locate(options, ("dvsgesture", "dvsgesture_10"), GESTURE_ORIGIN)
    how = binning(options, timesteps, GESTURE_SENSOR, polarities=2)
    single = [folder] if folder.is_file() else sorted(folder.glob("dvsgesture*.npz"))
    if len(single) == 1:
        train, test = _cut(single[0], options, how)
    else:
        train, test = (_gestures(options, folder, key, how) for key in ("train", "test"))
    return Dataset(
        train=train,
        test=test,
        classes=GESTURE_CLASSES,
        kind="spikes",
        shape=how.shape,
        low=0.0,
        high=1.0,
    )


def _gestures(options: DataOptions, folder: Path, key: str, how: Binning) -> Split:
    path = one_of(
        folder,
        (f"{key}*.npz",),
        lambda place, what: missing(options, place, what, GESTURE_ORIGIN),
    )
    source, labels = read_event_npz(path, GESTURE_SENSOR, GESTURE_CLASSES)
    random = options.random_start and key == "train"
    split = Split(EventSamples(source, how, np.arange(len(labels)), random), labels)
    return first(split, getattr(options, key), key, options.name)


def _cut(path: Path, options: DataOptions, how: Binning) -> tuple[Split, Split]:
    source, labels = read_event_npz(path, GESTURE_SENSOR, GESTURE_CLASSES)
    count = len(labels)
    if options.train is None or options.test is None or options.train + options.test > count:
        raise SnnDeployError(
            "SD104",
            f"[data] train: the {count} recordings of one file have no split of their own",
            where=str(path),
            fix=f"set train and test, {count} in all: the first are trained on, those after them "
            "are the test",
        )
    places = np.arange(options.train + options.test)
    split = Split(EventSamples(source, how, places, options.random_start), labels[places])
    test = split.take(places[options.train :])
    return split.take(places[: options.train]), Split(test.samples.steady(), test.labels)


def events(options: DataOptions, timesteps: int) -> Dataset:
    """Anyone's lists of events: ``train`` and ``test``, each ``.npz``, ``.h5`` or ``.hdf5``.

    Their arrays are described in :func:`snn_deploy.events.lists.event_list`. The size
    of the sensor, [W], [H, W] or [polarities, H, W], is the option ``sensor``, or an array of this
    name in both files. Classes are counted from the labels.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (options that do not fit), SD401 (damaged).
    """
    folder = locate(options, ("events",), EVENTS_ORIGIN)
    held: dict[str, tuple[Path, EventList, Indices]] = {}
    sensors = []
    for key in ("train", "test"):
        path = one_of(
            folder,
            (f"{key}.npz", f"{key}.h5", f"{key}.hdf5"),
            lambda place, what: missing(options, place, what, EVENTS_ORIGIN),
        )
        found = read_event_file(path)
        held[key] = (path, *event_list(path, found))
        sensors.append(_sensor(options, path, found, held[key][1]))
    if sensors[0] != sensors[1]:
        raise damaged(held["test"][0], f"a sensor of {sensors[1]}, that of train is {sensors[0]}")
    polarities, sensor = sensors[0]
    how = binning(options, timesteps, sensor, polarities)
    splits = {}
    for key, (path, source, labels) in held.items():
        require_inside(path, source, sensor)
        _require_seen(path, source, how)
        samples = EventSamples(
            source, how, np.arange(len(labels)), options.random_start and key == "train"
        )
        splits[key] = Split(samples, labels)
    return Dataset(
        train=first(splits["train"], options.train, "train", options.name),
        test=first(splits["test"], options.test, "test", options.name),
        classes=1 + int(max(split.labels.max() for split in splits.values())),
        kind="spikes",
        shape=how.shape,
        low=0.0,
        high=1.0,
    )


def _sensor(
    options: DataOptions, path: Path, found: dict[str, Array], source: EventList
) -> tuple[int, tuple[int, ...]]:
    """Polarities and (W,) or (H, W)."""
    present = 1 if source.p is None else 2
    extents = options.sensor
    if extents is None and "sensor" in found:
        stored = found["sensor"].reshape(-1)
        if stored.dtype.kind not in "iu" or not 1 <= len(stored) <= 3 or (stored < 1).any():
            raise damaged(path, "sensor: [W], [H, W] or [polarities, H, W] is needed")
        extents = tuple(int(extent) for extent in stored)
    if extents is None:
        raise SnnDeployError(
            "SD104",
            "[data] sensor: the file does not say the size of its sensor",
            where=str(path),
            fix="sensor = [height, width]",
        )
    if len(extents) < 3:
        return present, extents
    if extents[0] not in (1, 2) or extents[0] > present:
        raise SnnDeployError(
            "SD104",
            f"[data] sensor: {extents[0]} polarities, the events have {present}",
            where=str(path),
            fix="sensor = [height, width]",
        )
    return extents[0], extents[1:]


def _require_seen(path: Path, source: EventList, how: Binning) -> None:
    """Refuse times in another unit: no event at all in the timesteps."""
    whole = how.whole()
    if whole is None or not len(source.x):
        return
    for start in range(0, len(source), 256):
        read = source.read(np.arange(start, min(start + 256, len(source))))
        if (read.t < whole).any():
            return
    raise SnnDeployError(
        "SD104",
        f"[data] window: no event of any sample lies in the first {whole / 1000} ms",
        where=str(path),
        fix="times count from the beginning of the sample, in microseconds if they are integers, "
        "else in seconds",
    )
