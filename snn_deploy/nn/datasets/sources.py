"""Where the files of a data set are, and what is said when they are not there or damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.files import damaged as damaged
from snn_deploy.events.files import labels_of as labels_of
from snn_deploy.events.files import read_bytes as read_bytes
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import Array, Split
from snn_deploy.packets import read_npz

VARIABLE = "SNN_DEPLOY_DATA"


def locate(options: DataOptions, folders: Sequence[str], origin: str) -> Path:
    """The folder (or single file) of a data set.

    Parameters
    ----------
    folders : names it may have below ``$SNN_DEPLOY_DATA``.
    origin : where the data can be had, for the message.

    Raises
    ------
    SnnDeployError
        SD101.
    """
    if options.path is not None:
        path = Path(options.path)
        if path.exists():
            return path
        raise SnnDeployError(
            "SD101",
            f"[data] path: the data set {options.name} is not there",
            where=str(path),
            fix=f"{origin}; a relative path begins in the current folder, {Path.cwd()}",
        )
    base = os.environ.get(VARIABLE)
    if not base:
        raise SnnDeployError(
            "SD101",
            f"the data set {options.name} is looked for in [data] path or in "
            f"${VARIABLE}/{folders[0]}, and neither is set",
            where=f"data set {options.name}",
            fix=origin,
        )
    for folder in folders:
        if Path(base, folder).exists():
            return Path(base, folder)
    raise missing(options, Path(base, folders[0]), "no such folder", origin)


def missing(options: DataOptions, place: Path, what: str, origin: str) -> SnnDeployError:
    """The error of data that is not where it was looked for."""
    return SnnDeployError(
        "SD101",
        f"the data set {options.name}: {what}",
        where=str(place),
        fix=f"{origin}, and set [data] path, or the environment variable {VARIABLE} to the folder "
        f"that holds {options.name}/",
    )


def arrays(path: Path, *names: str) -> dict[str, Array]:
    """Arrays of an ``.npz`` file, some of which must be there (see :func:`packets.read_npz`)."""
    found = read_npz(path)
    for name in names:
        if name not in found:
            raise damaged(path, f"it has no array {name!r}, only {sorted(found) or 'none'}")
    return found


def first(split: Split, most: int | None, key: str, name: str) -> Split:
    """The first so many samples of a split, or all.

    Raises
    ------
    SnnDeployError
        SD104 if there are not so many.
    """
    count = len(split.labels)
    if most is None or most == count:
        return split
    if most > count:
        raise SnnDeployError(
            "SD104",
            f"[data] {key}: {most} samples are more than the {count} that there are",
            where=f"data set {name}",
            fix=f"at most {count}",
        )
    return split.take(np.arange(most))


def one_of(
    folder: Path, patterns: Sequence[str], absent: Callable[[Path, str], SnnDeployError]
) -> Path:
    """The one file of a folder whose name fits one of the patterns, tried in their order."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise SnnDeployError(
                "SD101",
                f"more than one {pattern}: {', '.join(p.name for p in found[:4])}",
                where=str(folder),
                fix="leave one of them in the folder",
            )
    raise absent(folder, f"no file {' or '.join(patterns)}")
