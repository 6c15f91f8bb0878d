"""Read an HDF5 file in a process of its own: ``hdf5_child.py FILE GROUP MAX_BYTES MAX_SECONDS``.

The HDF5 library loops, takes all memory or dies on files that are damaged with intent. Here it may:
:mod:`snn_deploy.hdf5` started this process with limits and waits for it with a clock. Standalone
(numpy and h5py only). Writes to stdout one line of JSON, then the bytes of all arrays.
"""

from __future__ import annotations

import json
import math
import os
import resource
import stat
import sys
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

MAX_OBJECTS = 100_000
# gzip packs a run of zeros about a thousandfold; more is no array but an attack.
MAX_EXPANSION = 2000
# numpy, h5py and what they map, with room for the bookkeeping of a file.
BASE_MEMORY = 1 << 30
# An array as it is read, in native byte order, and once more while it is turned round.
COPIES = 3


class RefusedError(Exception):
    """The file is not read, for this reason: an error code and a message."""


def require_file(path: str) -> int:
    """The size of a file, which is no pipe that would be waited for."""
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise RefusedError("SD101", "not a file")
    with open(path, "rb"):  # says so if it is a folder, or not ours to read
        return int(status.st_size)


def claimed(item: h5py.Dataset) -> int:
    """Bytes that reading a dataset may take, as the file says: all of it, or one of its chunks."""
    extents = [shape for shape in (item.shape, item.chunks) if shape is not None]
    return int(item.dtype.itemsize) * max((math.prod(map(int, e)) for e in extents), default=0)


def walk(
    file: h5py.File, group: str, size: int, limit: int
) -> tuple[dict[str, h5py.Dataset | None], int]:
    """All datasets below a group by path, within bounds, none of them outside the file.

    What holds no data (an empty group, a named type) is None. Also returns the bytes claimed.
    """
    link = file.get(group, getlink=True)
    if link is None:
        raise RefusedError("SD401", f"no group {group!r}")
    if not isinstance(link, h5py.HardLink):
        raise RefusedError("SD402", f"a link out of its place: {group}")
    if not isinstance(file[group], h5py.Group):
        raise RefusedError("SD401", f"{group!r} is not a group")
    found: dict[str, h5py.Dataset | None] = {}
    groups: set[Any] = set()
    waiting = [(group, file[group])]
    count = total = 0
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, h5py.Group) and len(item):
            key = h5py.h5o.get_info(item.id).addr
            if key in groups:
                raise RefusedError("SD402", f"a group in two places: {path}")
            groups.add(key)
            count += len(item)
            if count > MAX_OBJECTS:
                raise RefusedError("SD402", f"more than {MAX_OBJECTS} objects")
            for name in item:
                if not isinstance(item.get(name, getlink=True), h5py.HardLink):
                    raise RefusedError("SD402", f"a link out of its place: {path}/{name}")
                waiting.append((f"{path}/{name}", item[name]))
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise RefusedError("SD402", f"data kept in another file: {path}")
            total += claimed(item)
            if total > min(limit, MAX_EXPANSION * max(size, 1)):
                raise RefusedError("SD402", f"{size} bytes that claim to unpack to {total} or more")
            found[path] = item
        elif path != group:
            found[path] = None
    return found, total


def numbers(item: h5py.Dataset) -> np.ndarray | None:
    """A number array in native byte order, None for what is none."""
    if item.dtype.kind not in "biuf" or item.dtype.itemsize > 8 or item.shape is None:
        return None
    value = np.asarray(item[()])
    return value.astype(value.dtype.newbyteorder("="), copy=False)


def content(item: h5py.Dataset, size: int) -> Any:
    """A number array, a text, a list of the texts of an array, or None for what is neither.

    ``size`` is the file's: it holds no more characters than bytes.
    """
    array = numbers(item)
    if array is not None or item.dtype.kind not in "SO":
        return array
    if item.size == 1:
        value = np.asarray(item[()]).reshape(-1)[0]
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        if isinstance(text, str):
            return text
    elif item.size is not None and item.size <= MAX_OBJECTS:
        texts, length = [], 0
        for value in np.asarray(item[()]).reshape(-1):
            texts.append(value.decode("utf-8") if isinstance(value, bytes) else value)
            if not isinstance(texts[-1], str):
                return None
            length += len(texts[-1])
            if length > size:
                raise RefusedError("SD402", f"texts longer than the file: {item.name}")
        return texts
    return None


def main(path: str, group: str, limit: int, seconds: int) -> None:
    """Read, and write what was found, or the reason why not."""
    most = BASE_MEMORY + COPIES * limit
    resource.setrlimit(resource.RLIMIT_AS, (BASE_MEMORY, most))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def described() -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        entries: list[dict[str, Any]] = []
        arrays: list[np.ndarray] = []
        size = require_file(path)
        with h5py.File(path, "r") as file:
            found, total = walk(file, group, size, limit)
            # A chunk may unpack to more than the file says: what was claimed is all there is.
            resource.setrlimit(resource.RLIMIT_AS, (BASE_MEMORY + COPIES * total, most))
            for name, item in sorted(found.items()):
                value = None if item is None else content(item, size)
                if isinstance(value, np.ndarray):
                    arrays.append(np.ascontiguousarray(value))
                    entries.append(entry_of(name, value))
                elif isinstance(value, list):
                    shape = [] if item is None else list(item.shape)
                    entries.append({"name": name, "texts": value, "shape": shape})
                else:
                    entries.append({"name": name, "text": value})
        return entries, arrays

    reply(described, "HDF5")


def entry_of(name: str, value: np.ndarray) -> dict[str, Any]:
    """How an answer describes an array."""
    return {"name": name, "dtype": value.dtype.str, "shape": list(value.shape)}


def reply(read: Callable[[], tuple[list[dict[str, Any]], list[np.ndarray]]], kind: str) -> None:
    """Read, and write what was found, or the reason why not: a line of JSON, then the arrays.

    ``read`` gives the entries of the answer and the arrays that they describe, in that order; a
    RefusedError of it names a code, a message and sometimes a mend.
    """
    arrays: list[np.ndarray] = []
    try:
        entries, arrays = read()
        answer: dict[str, Any] = {"found": entries}
    except RefusedError as error:
        code, message, *fix = error.args
        answer = {"code": code, "message": message} | ({"fix": fix[0]} if fix else {})
    except (FileNotFoundError, NotADirectoryError):
        answer = {"code": "SD101", "message": "no such file"}
    except (IsADirectoryError, PermissionError) as error:
        answer = {"code": "SD101", "message": "cannot read", "why": error.strerror}
    except Exception as error:  # libraries raise many kinds on a broken file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        answer = {"code": "SD401", "message": f"not a readable {kind} file", "why": why}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for array in arrays:
        sys.stdout.buffer.write(array.data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
