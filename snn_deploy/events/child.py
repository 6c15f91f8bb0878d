"""Readers that run in a process of their own: libraries that do not survive every damaged file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.files import Array
from snn_deploy.hdf5 import array_of, ask_child, printable


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
    answer, data, start = ask_child(
        command, lambda why: _damaged(where, kind, why), "its reader ended with"
    )
    if "code" in answer:
        why = answer.get("why")
        raise SnnDeployError(
            answer["code"],
            printable(answer["message"]),
            where=where,
            why=None if why is None else printable(why),
            fix=answer.get("fix", "copy it again"),
        )
    found: dict[str, Array] = {}
    for entry in answer["found"]:
        found[entry["name"]], start = array_of(entry, data, start)
    return found


def _damaged(where: str, kind: str, why: str) -> SnnDeployError:
    return SnnDeployError(
        "SD401", f"not a readable {kind} file", where=where, why=why, fix="copy it again"
    )
