"""What every reader of strangers' files needs: their bytes, their labels, and a word for damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError

Array = NDArray[Any]
Indices = NDArray[np.int64]

# A label is an output neuron; more of them is a mistake.
MAX_CLASSES = 1 << 16


def damaged(path: Path, why: str) -> SnnDeployError:
    """The error of a file that does not hold what it should."""
    return SnnDeployError(
        "SD401", "the data file is damaged", where=str(path), why=why, fix="copy it again"
    )


def read_bytes(path: Path, start: int = 0, length: int = -1) -> bytes:
    """Content of a file that exists; SD101 if it may not be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read(length)
    except OSError as error:
        raise SnnDeployError(
            "SD101", "cannot read", where=str(path), why=error.strerror, fix="check its permissions"
        ) from None


def labels_of(path: Path, values: Array, samples: int, classes: int | None = None) -> Indices:
    """Labels as int64, one for each sample, within their range."""
    if values.ndim != 1 or len(values) != samples or values.dtype.kind not in "iu":
        raise damaged(
            path,
            f"labels of shape {values.shape} and type {values.dtype}: one integer is needed for "
            f"each of {samples} samples",
        )
    labels = values.astype(np.int64)
    if not samples:
        raise damaged(path, "it has no samples")
    most = MAX_CLASSES if classes is None else classes
    if labels.min() < 0 or labels.max() >= most:
        raise damaged(path, f"labels from {labels.min()} to {labels.max()}, not below {most}")
    return labels
