"""Data sets that are arrays already: Braille letters, and anyone's own recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Array, ArraySamples, Dataset, Indices, Split
from snn_deploy.nn.datasets.sources import (
    arrays,
    damaged,
    first,
    labels_of,
    locate,
    missing,
)
from snn_deploy.packets import read_recording

BRAILLE_FILE = "braille7_th1_or.npz"
BRAILLE_ORIGIN = (
    f"take {BRAILLE_FILE} (arrays spikes, label, val_split_index), made of the data of "
    "Müller-Cleve et al. 2022, https://doi.org/10.5281/zenodo.6556299"
)
BRAILLE_CLASSES = 7
BRAILLE_STEP_MS = 5
RASTER_ORIGIN = "write train.npz and test.npz with arrays spikes or values, and labels"


@dataclass(frozen=True, slots=True, eq=False)
class RasterSamples:
    """Spikes of an array whose timesteps are joined in groups: 1 where any of them has a spike.

    Attributes
    ----------
    array : 0/1 [N, stored timesteps, *shape]; uint8 or bool.
    group : stored timesteps to one.
    timesteps : T; what is stored after ``group · T`` timesteps is left out.
    places : samples of the array that these are.
    """

    array: Array
    group: int
    timesteps: int
    places: Indices

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, indices: Indices) -> NDArray[np.uint8]:
        """Spikes uint8 [n, T, *shape]."""
        chosen = self.array[self.places[np.asarray(indices, np.int64)]]
        count, _, *shape = chosen.shape
        kept = chosen[:, : self.group * self.timesteps].astype(np.uint8, copy=False)
        grouped = kept.reshape(count, self.timesteps, self.group, *shape)
        return np.asarray(grouped.max(axis=2))

    def take(self, indices: Indices) -> RasterSamples:
        """See :class:`.samples.Samples`."""
        places = self.places[np.asarray(indices, np.int64)]
        return RasterSamples(self.array, self.group, self.timesteps, places)

    def steady(self) -> RasterSamples:
        """See :class:`.samples.Samples`."""
        return self


def braille(options: DataOptions, timesteps: int) -> Dataset:
    """Seven Braille letters felt by 12 taxels (Müller-Cleve et al. 2022): spikes of shape (12,).

    Reads ``braille7_th1_or.npz``: 256 timesteps of 5 ms each. The first of its validation splits
    is the test; the others of its samples, in their order, are for training. Timesteps are joined
    to ``window`` (a multiple of 5 ms), or so that all of them are used.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (timesteps or window that do not divide), SD401 (damaged).
    """
    path = locate(options, ("braille",), BRAILLE_ORIGIN)
    if path.is_dir():
        if not (path / BRAILLE_FILE).is_file():
            raise missing(options, path, f"no file {BRAILLE_FILE}", BRAILLE_ORIGIN)
        path = path / BRAILLE_FILE
    held = arrays(path, "spikes", "label", "val_split_index")
    spikes, chosen = held["spikes"], held["val_split_index"]
    if spikes.ndim != 3:
        raise damaged(path, f"spikes of shape {spikes.shape}")
    _require_spikes(path, spikes)
    labels = labels_of(path, held["label"], len(spikes), BRAILLE_CLASSES)
    if chosen.ndim != 2 or chosen.dtype.kind not in "iu" or not len(chosen):
        raise damaged(path, "val_split_index: rows of sample numbers are needed")
    places = chosen[0].astype(np.int64)
    if (
        len(np.unique(places)) != len(places)
        or not 0 < len(places) < len(spikes)
        or places.min() < 0
        or places.max() >= len(spikes)
    ):
        raise damaged(path, "val_split_index: not some of the samples, each once")
    others = np.setdiff1d(np.arange(len(spikes)), places)
    stored = spikes.shape[1]
    group = None
    if options.window is not None:
        group, rest = divmod(round(options.window * 1000), BRAILLE_STEP_MS * 1000)
        if rest or group * timesteps > stored:
            raise SnnDeployError(
                "SD104",
                f"[data] window: {timesteps} timesteps of {options.window:g} ms of {stored} of "
                f"{BRAILLE_STEP_MS} ms",
                where=f"data set {options.name}",
                fix=f"a multiple of {BRAILLE_STEP_MS} ms",
            )
    how = (_group(options, stored, timesteps) if group is None else group, timesteps)
    train = Split(RasterSamples(spikes, *how, others), labels[others])
    test = Split(RasterSamples(spikes, *how, places), labels[places])
    shape = spikes.shape[2:]
    return _dataset(options, [train, test], BRAILLE_CLASSES, "spikes", shape, (0.0, 1.0))


def raster(options: DataOptions, timesteps: int) -> Dataset:
    """Anyone's recordings: ``train.npz`` and ``test.npz`` with labels, as ``sim`` reads them.

    ``spikes`` 0/1 [N, stored timesteps, *shape]: as many as there are to be are joined to each
    timestep (any spike makes one). Or ``values`` [N, *shape], constant over time; unsigned bytes
    as they are, other numbers as float32. Classes and range are those of both files.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD103 (not a recording with labels), SD104 (timesteps that do not
        divide), SD401 (damaged), SD403 (values that are not finite).
    """
    folder = locate(options, ("raster",), RASTER_ORIGIN)
    held: list[tuple[str, Array, Indices]] = []
    for key in ("train", "test"):
        path = folder / f"{key}.npz"
        if not path.is_file():
            raise missing(options, folder, f"no file {path.name}", RASTER_ORIGIN)
        held.append(_read(path))
    (kind, train, train_labels), (test_kind, test, test_labels) = held
    first_axis = 2 if kind == "spikes" else 1
    if kind != test_kind or train.shape[first_axis:] != test.shape[first_axis:]:
        raise damaged(
            folder / "test.npz",
            f"{test_kind} of shape {test.shape}, those of train are {kind} of {train.shape}",
        )
    classes = 1 + int(max(train_labels.max(), test_labels.max()))
    shape = train.shape[first_axis:]
    if kind == "values":
        if train.dtype != test.dtype:
            train, test = train.astype(np.float32), test.astype(np.float32)
        splits = [Split(ArraySamples(train), train_labels), Split(ArraySamples(test), test_labels)]
        span = float(min(train.min(), test.min())), float(max(train.max(), test.max()))
        return _dataset(options, splits, classes, "constant", shape, span)
    splits = []
    for spikes, labels in ((train, train_labels), (test, test_labels)):
        group = _group(options, spikes.shape[1], timesteps)
        samples = RasterSamples(spikes, group, timesteps, np.arange(len(spikes)))
        splits.append(Split(samples, labels))
    return _dataset(options, splits, classes, "spikes", shape, (0.0, 1.0))


def _read(path: Path) -> tuple[str, Array, Indices]:
    """Kind, samples and labels of a recording with one input."""
    recording = read_recording(path)
    inputs = [("spikes", v) for v in recording.spikes.values()]
    inputs += [("values", v) for v in recording.values.values()]
    if len(inputs) != 1 or recording.labels is None:
        raise SnnDeployError(
            "SD103",
            "one array of spikes or values, and labels, are needed to train on",
            where=str(path),
            fix="numpy.savez(path, spikes=spikes, labels=labels)",
        )
    kind, array = inputs[0]
    labels = labels_of(path, recording.labels, len(array))
    if array.ndim < (3 if kind == "spikes" else 2) or not array.size:
        raise damaged(path, f"{kind} of shape {array.shape}")
    if kind == "spikes":
        _require_spikes(path, array)
        return kind, array.astype(np.uint8, copy=False), labels
    if array.dtype.kind not in "biuf":
        raise damaged(path, f"values of type {array.dtype}")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # told below
            array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise SnnDeployError(
            "SD403", "values that are not finite", where=str(path), fix="replace or remove them"
        )
    return kind, array, labels


def _require_spikes(path: Path, spikes: Array) -> None:
    if spikes.dtype.kind not in "biuf" or (spikes.size and not np.isin(spikes, (0, 1)).all()):
        raise damaged(path, "spikes that are neither 0 nor 1")


def _group(options: DataOptions, stored: int, timesteps: int) -> int:
    """Stored timesteps that are joined to one."""
    group, rest = divmod(stored, timesteps)
    if rest or not group:
        raise SnnDeployError(
            "SD104",
            f"[model] timesteps: {timesteps} do not divide the {stored} that are stored",
            where=f"data set {options.name}",
            fix=f"a divisor of {stored}",
        )
    return group


def _dataset(
    options: DataOptions,
    splits: Sequence[Split],
    classes: int,
    kind: Literal["constant", "spikes"],
    shape: Sequence[int],
    span: tuple[float, float],
) -> Dataset:
    train, test = splits
    return Dataset(
        train=first(train, options.train, "train", options.name),
        test=first(test, options.test, "test", options.name),
        classes=classes,
        kind=kind,
        shape=tuple(shape),
        low=span[0],
        high=span[1],
    )
