"""Read an event camera's file in a process of its own.

``cameras_child.py FILE KIND MAX_BYTES MAX_SECONDS``. It is to :mod:`snn_deploy.events.cameras` what
:mod:`snn_deploy.hdf5_child` is to :mod:`snn_deploy.hdf5`, and answers in the same form: t, x, y, p.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Started by its path and apart from the user's modules; the package lies two folders up.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from snn_deploy.hdf5_child import BASE_MEMORY, COPIES, RefusedError, entry_of, reply, require_file

# An event as it comes: t uint64, x and y uint16, p one byte.
EVENT_BYTES = 13


def read(path: str, kind: str, limit: int) -> dict[str, np.ndarray]:
    """The events in the order of the file, at most so many bytes of them."""
    try:
        import faery
    except ImportError:
        message = f"reading {kind} files needs the package faery"
        fix = "pip install -c constraints.txt 'snn-deploy[events]'"
        raise RefusedError("SD107", message, fix) from None
    parts: list[np.ndarray] = []
    total = 0
    for part in faery.events_stream_from_file(path, file_type=kind):
        total += EVENT_BYTES * len(part)
        if total > limit:
            raise RefusedError("SD402", f"more than {limit // EVENT_BYTES} events")
        parts.append(part.copy())
    names = {"t": np.uint64, "x": np.uint16, "y": np.uint16, "p": np.uint8}
    return {
        name: np.concatenate([np.zeros(0, dtype), *(part[name].astype(dtype) for part in parts)])
        for name, dtype in names.items()
    }


def main(path: str, kind: str, limit: int, seconds: int) -> None:
    """Read, and write what was found, or the reason why not."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = BASE_MEMORY + COPIES * limit
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    def described() -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        require_file(path)
        try:
            found = read(path, kind, limit)
        except Exception:
            raise
        except BaseException as error:  # a panic of the library is no Exception
            raise RuntimeError(str(error) or type(error).__name__) from None
        return [entry_of(n, a) for n, a in found.items()], list(found.values())

    reply(described, "event")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
