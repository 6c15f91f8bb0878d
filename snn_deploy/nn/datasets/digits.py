"""scikit-learn's bundled handwritten digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import ArraySamples, Dataset, Split
from snn_deploy.nn.datasets.sources import first


def digits(options: DataOptions, timesteps: int) -> Dataset:
    """scikit-learn's bundled 8x8 handwritten digits: 1297 to train, the last 500 to test.

    The set is the test part of UCI's "Optical Recognition of Handwritten Digits", in its order.
    Values are 0..16, float32, of shape (1, 8, 8).

    Raises
    ------
    SnnDeployError
        SD107 without scikit-learn.
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
    train = Split(ArraySamples(images[:-500]), labels[:-500])
    test = Split(ArraySamples(images[-500:]), labels[-500:])
    return Dataset(
        train=first(train, options.train, "train", "digits"),
        test=first(test, options.test, "test", "digits"),
        classes=10,
        kind="constant",
        shape=(1, 8, 8),
        low=0.0,
        high=16.0,
    )
