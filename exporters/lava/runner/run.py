"""Entry of the runner: ``LAVA_PYTHON run.py --help``. What it can do is in ``command.py``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path


def main() -> int:
    """Make this folder a package, as which its modules find each other, and carry out the command.

    The folder leaves the search path, so that none of its modules hides one of Lava's.
    """
    folder = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != folder]
    name = "lava_runner"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    status: int = importlib.import_module(f"{name}.command").main()
    return status


if __name__ == "__main__":
    # Lava makes a process of every neuron population and synapse: threads would only be in the way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
