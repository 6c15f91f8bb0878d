"""The data sets that a recipe can name, each with its reader and its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snn_deploy.nn.datasets.cifar import cifar10, cifar100
from snn_deploy.nn.datasets.digits import digits
from snn_deploy.nn.datasets.idx import mnist
from snn_deploy.nn.datasets.nmnist import nmnist
from snn_deploy.nn.datasets.options import DataOptions, check_options
from snn_deploy.nn.datasets.rasters import braille, raster
from snn_deploy.nn.datasets.recordings import dvsgesture, events
from snn_deploy.nn.datasets.samples import Dataset
from snn_deploy.nn.datasets.shd import shd


@dataclass(frozen=True, slots=True)
class Reader:
    """How a data set is opened, and the options it has beyond :data:`COMMON`."""

    open: Callable[[DataOptions, int], Dataset]
    options: frozenset[str]


COMMON = frozenset({"name", "validation", "train", "test"})
_FILES = frozenset({"path"})
_TIME = frozenset({"window", "duration", "random_start"})
_LINE = _FILES | _TIME | {"scale", "size"}
_IMAGE = _LINE | {"polarity"}

READERS: dict[str, Reader] = {
    "digits": Reader(digits, frozenset()),
    "mnist": Reader(mnist, _FILES),
    "cifar10": Reader(cifar10, _FILES),
    "cifar100": Reader(cifar100, _FILES),
    "nmnist": Reader(nmnist, _IMAGE),
    "dvsgesture": Reader(dvsgesture, _IMAGE),
    "shd": Reader(shd, _LINE),
    "braille": Reader(braille, _FILES | {"window"}),
    "events": Reader(events, _IMAGE | {"sensor"}),
    "raster": Reader(raster, _FILES),
}


def parse_data(table: Any, where: str) -> DataOptions:
    """Check the ``[data]`` of a recipe, without its ``augment``, which may be there.

    Raises
    ------
    SnnDeployError
        SD104; the message begins with the key, as in ``[data] window: ...``.
    """
    known = {name: reader.options for name, reader in READERS.items()}
    return check_options(table, known, where, COMMON)


def open_dataset(options: DataOptions, timesteps: int) -> Dataset:
    """Open a data set for a network of so many timesteps.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (options that do not fit the data), SD107 (a package is missing),
        SD401, SD402 (damaged or unsafe files).
    """
    return READERS[options.name].open(options, timesteps)
