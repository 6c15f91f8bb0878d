"""Named datasets of HDF5 files, lists of differing lengths among them, read within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.hdf5 import MAX_BYTES, MAX_SECONDS
from snn_deploy.nn.datasets.samples import Array

# By path, not by import: it changes sys.path and is only ever run.
CHILD = Path(__file__).with_name("ragged_child.py")


def read_ragged(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """The datasets of these names that a file has; a list of lists as NAME and NAME.offsets.

    As :func:`snn_deploy.hdf5.read_hdf5`, which does not read lists of lists, the file is read in a
    process of its own within bounds of size, memory and time. Nothing is unpickled: HDF5 stores
    such lists as numbers.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD401 (not HDF5, or damaged) or SD402 (unsafe).
    """
    where = str(path)
    command = [sys.executable, "-I", str(CHILD), where, str(MAX_BYTES), str(MAX_SECONDS), *names]
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
        raise _damaged(where, "reading it does not end") from None
    start = done.stdout.find(b"\n") + 1  # the arrays behind it are not copied
    if done.returncode != 0 or not start:
        raise _damaged(where, f"the HDF5 library ended with {done.returncode} on it")
    answer = json.loads(done.stdout[:start])
    if "code" in answer:
        why = answer.get("why")
        raise SnnDeployError(
            answer["code"],
            _printable(answer["message"]),
            where=where,
            why=None if why is None else _printable(why),
            fix="copy it again",
        )
    found: dict[str, Array] = {}
    for entry in answer["found"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        count = int(np.prod(shape))
        value = np.frombuffer(done.stdout, dtype, count, start) if count else np.zeros(0, dtype)
        found[entry["name"]] = value.reshape(shape)
        start += count * dtype.itemsize
    return found


def _printable(text: str) -> str:
    """A text in which names from a file may occur, fit for a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:300])


def _damaged(where: str, why: str) -> SnnDeployError:
    return SnnDeployError(
        "SD401", "not a readable HDF5 file", where=where, why=why, fix="copy it again"
    )
