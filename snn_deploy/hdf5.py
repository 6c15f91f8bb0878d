"""HDF5 files of strangers, read within bounds of size, memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy import hdf5_child
from snn_deploy.errors import SnnDeployError

Content = NDArray[Any] | str | None

# What one network file may hold, and the processor time that reading it may take.
MAX_BYTES = 4 << 30
MAX_SECONDS = 60


def read_hdf5(path: Path, group: str) -> dict[str, Content]:
    """All datasets below a group of a file, by their path.

    The file is read in a process of its own (:mod:`snn_deploy.hdf5_child`), because the library
    itself does not survive every damaged file. Links, cycles, data kept elsewhere and sizes that
    the file cannot hold are refused.

    Returns
    -------
    dict
        Path, beginning with the group's name, to a number array in native byte order, a text, an
        object array of texts, or None for data of another type and for groups without members.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD401 (not HDF5, or damaged) or SD402 (unsafe).
    """
    where = str(path)
    bounds = (str(MAX_BYTES), str(MAX_SECONDS))
    command = [sys.executable, "-I", hdf5_child.__file__, where, group, *bounds]
    answer, data, start = ask_child(
        command, lambda why: _damaged(where, why), "the HDF5 library ended with"
    )
    if "code" in answer:
        raise SnnDeployError(
            answer["code"], printable(answer["message"]), where=where,
            why=printable(answer["why"]) if "why" in answer else None,
            fix="copy it again, or export it again" if answer["code"] == "SD401" else None,
        )  # fmt: skip
    found: dict[str, Content] = {}
    for entry in answer["found"]:
        if "text" in entry:
            found[entry["name"]] = entry["text"]
            continue
        if "texts" in entry:
            found[entry["name"]] = text_array(entry["texts"], entry["shape"])
            continue
        found[entry["name"]], start = array_of(entry, data, start)
    return found


def ask_child(
    command: Sequence[str], damaged: Callable[[str], SnnDeployError], died: str
) -> tuple[dict[str, Any], bytes, int]:
    """What a reader in a process of its own answers: :func:`snn_deploy.hdf5_child.reply`.

    Returns the line of JSON, all that was written, and where in it the bytes of arrays begin.

    Raises
    ------
    SnnDeployError
        ``damaged`` with the reason, where the process dies (``died`` and its code) or does not end.
    """
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, **single},
            timeout=2 * MAX_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise damaged("reading it does not end") from None
    start = done.stdout.find(b"\n") + 1  # the arrays behind it are not copied
    if done.returncode != 0 or not start:
        raise damaged(f"{died} {done.returncode} on it")
    return json.loads(done.stdout[:start]), done.stdout, start


def array_of(entry: Mapping[str, Any], data: bytes, start: int) -> tuple[NDArray[Any], int]:
    """The array that an answer describes, and where the next one begins."""
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    count = int(np.prod(shape))
    value = np.frombuffer(data, dtype, count, start) if count else np.zeros(0, dtype)
    return value.reshape(shape), start + count * dtype.itemsize


def text_array(texts: list[str], shape: Sequence[int]) -> NDArray[Any]:
    """Texts as an object array."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def printable(text: str) -> str:
    """A text in which names from a file may occur, fit for a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:300])


def _damaged(where: str, why: str) -> SnnDeployError:
    return SnnDeployError(
        "SD401", "not a readable HDF5 file", where=where, why=why, fix="copy it again"
    )
