"""Read an event camera's file in a process of its own.

``cameras_child.py FILE KIND MAX_BYTES MAX_SECONDS``. It is to :mod:`snn_deploy.events.cameras` what
:mod:`snn_deploy.hdf5_child` is to :mod:`snn_deploy.hdf5`, and answers in the same form: t, x, y, p.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Started by its path and apart from the user's modules; the package lies two folders up.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from snn_deploy.hdf5_child import BASE_MEMORY, COPIES, RefusedError, require_file

# An event as it comes: t uint64, x and y uint16, p one byte.
EVENT_BYTES = 13


def read(path: str, kind: str, limit: int) -> dict[str, np.ndarray]:
    """The events in the order of the file, at most so many bytes of them."""
    try:
        import faery
    except ImportError:
        raise RefusedError("SD107", f"reading {kind} files needs the package faery") from None
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
    found: dict[str, np.ndarray] = {}
    try:
        require_file(path)
        found = read(path, kind, limit)
        answer: dict[str, Any] = {
            "found": [
                {"name": name, "dtype": value.dtype.str, "shape": list(value.shape)}
                for name, value in found.items()
            ]
        }
    except RefusedError as error:
        code, message = error.args
        answer = {"code": code, "message": message}
        if code == "SD107":
            answer["fix"] = "pip install -c constraints.txt 'snn-deploy[events]'"
    except (FileNotFoundError, NotADirectoryError):
        answer = {"code": "SD101", "message": "no such file"}
    except (IsADirectoryError, PermissionError) as error:
        answer = {"code": "SD101", "message": "cannot read", "why": error.strerror}
    except BaseException as error:  # a panic of the library is no Exception
        why = (str(error).splitlines() or [type(error).__name__])[0]
        answer = {"code": "SD401", "message": "not a readable event file", "why": why}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for array in found.values():
        sys.stdout.buffer.write(array.data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
