"""Data sets by name, as a fixed train and test split of raw values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Raw values [N, *shape] float32 and labels [N] int64, split once and for all."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    classes: int


def digits() -> Dataset:
    """scikit-learn's bundled 8x8 handwritten digits: 1297 to train, the last 500 to test.

    The set is the test part of UCI's "Optical Recognition of Handwritten Digits", in its order.
    Values are 0..16, shape [N, 1, 8, 8].
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SnnDeployError(
            "SD107",
            "the digits need scikit-learn",
            fix="pip install -c constraints.txt 'snn-deploy[train]'",
        ) from None
    bunch: Any = load_digits()
    images = bunch.images.astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    return Dataset(images[:-500], labels[:-500], images[-500:], labels[-500:], classes=10)


DATASETS = {"digits": digits}
