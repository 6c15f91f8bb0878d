"""Named datasets of HDF5 files, lists of differing lengths among them, read within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snn_deploy.events.child import ask
from snn_deploy.events.files import Array
from snn_deploy.hdf5 import MAX_BYTES, MAX_SECONDS

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
    return ask(CHILD, where, [where, str(MAX_BYTES), str(MAX_SECONDS), *names], "HDF5")
