"""CIFAR-10 and CIFAR-100, from the official binary files or packed without loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_deploy.nn.datasets.med import read_med
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import ArraySamples, Dataset, Split
from snn_deploy.nn.datasets.sources import (
    arrays,
    damaged,
    first,
    labels_of,
    locate,
    missing,
    read_bytes,
)

Images = NDArray[np.uint8]
PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class _Form:
    """How one of the two sets is stored; the last of its labels is the one that counts."""

    name: str
    classes: int
    labels: int
    binary: dict[str, tuple[str, ...]]
    archive: str
    pickles: tuple[str, ...]

    @property
    def origin(self) -> str:
        return (
            f"download the binary version, {self.archive}-binary.tar.gz, from "
            "https://www.cs.toronto.edu/~kriz/cifar.html and unpack it"
        )


_TEN = _Form(
    name="cifar10",
    classes=10,
    labels=1,
    binary={
        "train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    archive="cifar-10",
    pickles=("data_batch_1", "cifar-10-batches-py"),
)
_HUNDRED = _Form(
    name="cifar100",
    classes=100,
    labels=2,
    binary={"train": ("train.bin",), "test": ("test.bin",)},
    archive="cifar-100",
    pickles=("train", "cifar-100-python"),
)


def cifar10(options: DataOptions, timesteps: int) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): RGB values 0..255, uint8, of shape (3, 32, 32).

    Reads ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``; or
    ``train_1.med.xz`` ..., ``test.med.xz`` (:mod:`snn_deploy.nn.datasets.med`) and ``labels.npz``.
    The version in pickles is not read: unpickling a file runs what is in it.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (more samples asked for than there are), SD401 (damaged).
    """
    return _open(options, _TEN)


def cifar100(options: DataOptions, timesteps: int) -> Dataset:
    """CIFAR-100 (Krizhevsky 2009) with its 100 fine labels; as :func:`cifar10`.

    Reads ``train.bin`` and ``test.bin``; or ``train.med.xz``, ``test.med.xz`` and ``labels.npz``.
    A ``train_subset10k.med.xz`` counts as the training split where there is no other.
    """
    return _open(options, _HUNDRED)


def _open(options: DataOptions, form: _Form) -> Dataset:
    folder = locate(options, (form.name,), form.origin)
    for inner in (f"{form.archive}-batches-bin", f"{form.archive}-binary"):
        if (folder / inner).is_dir():
            folder = folder / inner
    wanted = {"train": options.train, "test": options.test}
    splits = {}
    for key, most in wanted.items():
        if (folder / form.binary[key][0]).is_file():
            found = _binary(options, form, folder, key, most)
        elif (folder / "labels.npz").is_file():
            found = _packed(options, form, folder, key, most)
        else:
            what = f"no file {form.binary[key][0]}"
            if any((folder / name).exists() for name in form.pickles):
                what += "; the pickled version is there, but pickles run code and are never read"
            raise missing(options, folder, what, form.origin)
        splits[key] = first(found, most, key, form.name)
    return Dataset(
        train=splits["train"],
        test=splits["test"],
        classes=form.classes,
        kind="constant",
        shape=(3, 32, 32),
        low=0.0,
        high=255.0,
    )


def _binary(options: DataOptions, form: _Form, folder: Path, key: str, most: int | None) -> Split:
    """Records of one or two labels and the red, green and blue plane."""
    record = form.labels + PIXELS
    images: list[Images] = []
    labels = []
    for name in form.binary[key]:
        if most is not None and sum(map(len, images)) >= most:
            break  # there are enough
        path = folder / name
        if not path.is_file():
            raise missing(options, folder, f"no file {name}", form.origin)
        content = read_bytes(path)
        if not content or len(content) % record:
            raise damaged(path, f"{len(content)} bytes are not records of {record}")
        records = np.frombuffer(content, np.uint8).reshape(-1, record)
        images.append(records[:, form.labels :].reshape(-1, 3, 32, 32))
        labels.append(labels_of(path, records[:, form.labels - 1], len(records), form.classes))
    return Split(ArraySamples(np.concatenate(images)), np.concatenate(labels))


def _packed(options: DataOptions, form: _Form, folder: Path, key: str, most: int | None) -> Split:
    path = folder / "labels.npz"
    held = arrays(path)
    name = key
    if key not in held and f"{key}_subset10k" in held:
        name = f"{key}_subset10k"
    if name not in held:
        raise damaged(path, f"it has no array {key!r}")
    labels = labels_of(path, held[name], held[name].size, form.classes)
    numbered = (folder / f"{name}_1.med.xz").is_file()
    enough = len(labels) if most is None else min(most, len(labels))
    images: list[Images] = []
    count = 0
    while count < enough:  # unpacking takes a second a file
        part = folder / (f"{name}_{len(images) + 1}.med.xz" if numbered else f"{name}.med.xz")
        if not part.is_file():
            raise missing(options, folder, f"no file {part.name}", form.origin)
        images.append(read_med(part, len(labels) - count))
        count += len(images[-1])
        if not numbered:
            break
    if count < enough:
        raise damaged(path, f"{len(labels)} labels of {name}, but {count} images")
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    return Split(ArraySamples(pixels), labels[:count])
