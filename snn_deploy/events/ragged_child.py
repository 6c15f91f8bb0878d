"""Read datasets of an HDF5 file in a process of its own, lists of differing lengths among them.

``ragged_child.py FILE MAX_BYTES MAX_SECONDS NAME...``. It is to :mod:`snn_deploy.hdf5_child` what
that is to :mod:`snn_deploy.hdf5`, and answers in the same form. Of the named datasets it reads
those that are there. A list of lists of numbers comes as two arrays: NAME, the numbers one after
the other, and NAME.offsets [lists + 1]. What else is in the file is not touched.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# Started by its path and apart from the user's modules; the package lies two folders up.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from snn_deploy.hdf5_child import (
    BASE_MEMORY,
    COPIES,
    MAX_EXPANSION,
    RefusedError,
    claimed,
    entry_of,
    numbers,
    reply,
    require_file,
)

# Lists that are read at a time.
BLOCK = 256


def find(file: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset by its path, reached through hard links only; None if it is not there."""
    item: Any = file
    path = ""
    for part in name.split("/"):
        path = f"{path}/{part}"
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise RefusedError("SD402", f"a link out of its place: {path}")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external or item.is_virtual:
        raise RefusedError("SD402", f"data kept in another file: {path}")
    return item


def flattened(item: h5py.Dataset, base: np.dtype[Any], most: int) -> tuple[Any, Any]:
    """The numbers of a list of lists, and where each list begins; at most so many bytes."""
    if base.kind not in "biuf" or base.itemsize > 8 or len(item.shape or ()) != 1:
        raise RefusedError("SD401", f"{item.name}: not lists of numbers")
    parts, lengths, total = [np.zeros(0, base)], [0], 0
    for start in range(0, item.shape[0], BLOCK):
        for one in item[start : start + BLOCK]:
            parts.append(np.asarray(one, base))
            lengths.append(len(one))
            total += parts[-1].nbytes
            if total > most:
                raise RefusedError("SD402", f"{item.name}: lists of more than {most} bytes")
    flat = np.concatenate(parts)
    return flat.astype(base.newbyteorder("="), copy=False), np.cumsum(lengths, dtype=np.int64)


def read(path: str, names: list[str], most: int) -> dict[str, Any]:
    """The arrays by name."""
    found: dict[str, Any] = {}
    left = most
    with h5py.File(path, "r") as file:
        for name in names:
            item = find(file, name)
            if item is None:
                continue
            left -= claimed(item)
            if left < 0:
                raise RefusedError("SD402", f"{name}: more than the file can hold")
            base = h5py.check_vlen_dtype(item.dtype)
            if isinstance(base, np.dtype):
                found[name], found[f"{name}.offsets"] = flattened(item, base, left)
                left -= found[name].nbytes
                continue
            value = numbers(item)
            if value is None:
                raise RefusedError("SD401", f"{name}: not numbers")
            found[name] = value
    return found


def main(path: str, limit: int, seconds: int, names: list[str]) -> None:
    """Read, and write what was found, or the reason why not."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def described() -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        most = min(limit, MAX_EXPANSION * max(require_file(path), 1))
        memory = BASE_MEMORY + COPIES * most
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        found = read(path, names, most)
        arrays = [np.ascontiguousarray(value) for value in found.values()]
        return [entry_of(n, a) for n, a in zip(found, arrays, strict=True)], arrays

    reply(described, "HDF5")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
