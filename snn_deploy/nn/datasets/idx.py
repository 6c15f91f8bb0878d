"""MNIST, and what else comes as four idx files: Fashion-MNIST, Kuzushiji-MNIST, ..."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.samples import ArraySamples, Dataset, Split
from snn_deploy.nn.datasets.sources import damaged, first, labels_of, locate, missing

ORIGIN = (
    "download the four files *-ubyte.gz of MNIST (https://yann.lecun.com/exdb/mnist), or of a "
    "data set of the same form"
)
# deflate packs a run of zeros 1032-fold at most; a header that claims more is not believed.
MAX_EXPANSION = 1100


def mnist(options: DataOptions, timesteps: int) -> Dataset:
    """MNIST (LeCun et al. 1998): values 0..255, uint8, of shape (1, 28, 28).

    Reads ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz``. Shape and number of classes are
    those of the files.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD104 (more samples asked for than there are), SD401 (damaged).
    """
    folder = locate(options, ("mnist",), ORIGIN)
    splits = {}
    for key, name in (("train", "train"), ("test", "t10k")):
        images_file = _file(options, folder, f"{name}-images-idx3-ubyte")
        labels_file = _file(options, folder, f"{name}-labels-idx1-ubyte")
        images = read_idx(images_file, 3)[:, None]
        labels = labels_of(labels_file, read_idx(labels_file, 1), len(images))
        splits[key] = Split(ArraySamples(images), labels)
        shape = images.shape[1:]
        if key == "test" and shape != cast(ArraySamples, splits["train"].samples).array.shape[1:]:
            raise damaged(images_file, "its images have another size than those to train on")
    classes = 1 + int(max(split.labels.max() for split in splits.values()))
    return Dataset(
        train=first(splits["train"], options.train, "train", options.name),
        test=first(splits["test"], options.test, "test", options.name),
        classes=classes,
        kind="constant",
        shape=shape,
        low=0.0,
        high=255.0,
    )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An array of bytes in idx form, gzipped or not.

    The header is big-endian: two zero bytes, the type (8: unsigned byte), the number of
    dimensions, and their extents as 32-bit integers.

    Raises
    ------
    SnnDeployError
        SD401 unless header and length are exactly what they must be.
    """
    try:
        with path.open("rb") as raw:
            packed = path.suffix == ".gz"
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if packed else raw)
            start = stream.read(4)
            if start != bytes((0, 0, 8, dimensions)):
                raise damaged(path, f"not an idx file of bytes in {dimensions} dimensions")
            header = stream.read(4 * dimensions)
            if len(header) != 4 * dimensions:
                raise damaged(path, "it ends in its header")
            shape = tuple(int(extent) for extent in np.frombuffer(header, ">u4"))
            size = math.prod(shape)
            if size > path.stat().st_size * (MAX_EXPANSION if packed else 1):
                raise damaged(path, f"its header claims {size} bytes, which it cannot hold")
            content = stream.read(size + 1)
    except SnnDeployError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, str(error)) from None
    except OSError as error:
        raise SnnDeployError(
            "SD101", "cannot read", where=str(path), why=error.strerror, fix="check its permissions"
        ) from None
    if len(content) != size:
        raise damaged(path, f"its header claims {size} bytes, it holds {len(content)} or more")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _file(options: DataOptions, folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise missing(options, folder, f"no file {name} or {name}.gz", ORIGIN)
