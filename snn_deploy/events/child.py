"""Readers that run in a process of their own: libraries that do not survive every damaged file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.files import Array
from snn_deploy.hdf5 import MAX_SECONDS


def ask(child: Path, where: str, arguments: Sequence[str], kind: str) -> dict[str, Array]:
    """The arrays that a reader writes to stdout: one line of JSON, then their bytes.

    Parameters
    ----------
    child : the reader, a script that bounds its own memory and processor time.
    where, kind : the file, and what it should be, for messages.

    Raises
    ------
    SnnDeployError
        What the reader says, or SD401 where it dies or does not end.
    """
    command = [sys.executable, "-I", str(child), *arguments]
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
        raise _damaged(where, kind, "reading it does not end") from None
    start = done.stdout.find(b"\n") + 1  # the arrays behind it are not copied
    if done.returncode != 0 or not start:
        raise _damaged(where, kind, f"its reader ended with {done.returncode} on it")
    answer = json.loads(done.stdout[:start])
    if "code" in answer:
        why = answer.get("why")
        raise SnnDeployError(
            answer["code"],
            _printable(answer["message"]),
            where=where,
            why=None if why is None else _printable(why),
            fix=answer.get("fix", "copy it again"),
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


def _damaged(where: str, kind: str, why: str) -> SnnDeployError:
    return SnnDeployError(
        "SD401", f"not a readable {kind} file", where=where, why=why, fix="copy it again"
    )
