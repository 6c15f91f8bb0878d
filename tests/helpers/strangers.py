"""Networks that other people trained, with data for them: real files, not made by us.

They lie in the folder that the environment variable SNN_DEPLOY_DATA names, with a description of
where each comes from. Every network comes as a ``.net`` file and what it is fed.
"""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.packets import Recording
from tests.helpers.numbers import Array

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Stranger:
    """A netx file, and samples with labels; ``steps`` per sample."""

    path: Path
    recording: Recording
    steps: int

    @property
    def fed(self) -> Array:
        """[N, T, ...] spikes, or [N, ...] biases."""
        (array,) = [*self.recording.spikes.values(), *self.recording.values.values()]
        return array

    @property
    def labels(self) -> Array:
        assert self.recording.labels is not None
        return self.recording.labels


def data(name: str) -> Path:
    """A file of the data folder; the test is skipped where there is none."""
    folder = os.environ.get("SNN_DEPLOY_DATA")
    if not folder:
        pytest.skip("SNN_DEPLOY_DATA does not name a folder with data and models of others")
    path = Path(folder, name)
    assert path.exists(), f"SNN_DEPLOY_DATA has no {name}"
    return path


def mnist(samples: int) -> tuple[Array, Array]:
    """The first test images as pixels [N, 784] from 0 to 255, and their labels."""

    def read(name: str, header: int) -> Array:
        content = gzip.decompress(data(f"mnist/t10k-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(content, np.uint8, offset=header)

    pixels = read("images-idx3", 16).reshape(-1, 784)
    labels = read("labels-idx1", 8)
    return pixels[:samples].astype(np.int64), labels[:samples].astype(np.int64)


def bootstrap(folder: Path, samples: int) -> Stranger:
    """lava-dl's bootstrap example: 784-512-512-10, driven by biases, read out by its membranes.

    It was trained on x in -1..1, which its input layer turns into 76x + 64 (the file holds both
    numbers, and leaves it to the caller to apply them). With x = 2p/255 - 1 that is 152p/255 - 12,
    rounded to the integers that biases are; no pixel lies on a half.
    """
    path = folder / "bootstrap.net"
    path.write_bytes(lzma.decompress(data("models/lavadl_mnist_bootstrap.net.xz").read_bytes()))
    pixels, labels = mnist(samples)
    biases = (2 * 152 * pixels + 255) // (2 * 255) - 12
    return Stranger(path, Recording(values={"": biases}, labels=labels), steps=16)


def rate_coded(folder: Path, samples: int) -> Stranger:
    """lava-dl's netx example for MNIST: 784-128-64-10, pixels coded as rates.

    A pixel fires whenever its sum of brightness exceeds 1, and begins again at 0.
    """
    pixels, labels = mnist(samples)
    steps = 20
    spikes = np.zeros((len(pixels), steps, 784), np.uint8)
    charge = np.zeros(pixels.shape)
    for step in range(steps):
        charge += pixels / 255
        spikes[:, step] = charge > 1
        charge[charge > 1] = 0
    path = data("models/lavadl_mnist_rate.net")
    return Stranger(path, Recording(spikes={"": spikes}, labels=labels), steps)


def oxford_raster(name: str) -> Array:
    """A list of (neuron, polarity, milliseconds) as spikes [2000, 200], to the nearest step."""
    with np.load(data("models/lavadl_oxford_io.npz")) as file:
        events = file[name]
    spikes = np.zeros((2000, 200), np.uint8)
    spikes[np.rint(events[:, 2]).astype(int), events[:, 0].astype(int)] = 1
    return spikes


def oxford(folder: Path, samples: int = 1) -> Stranger:
    """lava-dl's Oxford example: 200-256-200, which turns one noise pattern into a drawing."""
    spikes = oxford_raster("input")[None]
    return Stranger(data("models/lavadl_oxford.net"), Recording(spikes={"": spikes}), steps=2000)


def nmnist(folder: Path, samples: int) -> Stranger:
    """SLAYER's N-MNIST example: 2312-512-10, trained for Loihi on a thousand recordings."""
    path = folder / "nmnist.net"
    script, weights = EXAMPLES / "slayer_to_netx.py", data("models/slayer_loihi_nmnist_mlp_1k.npz")
    subprocess.run([sys.executable, script, weights, path, "fc1", "fc2"], check=True, timeout=60)
    with np.load(data("nmnist_small/test100.npz")) as file:
        held = {name: file[name].astype(np.int64) for name in file.files}
    spikes = np.zeros((samples, 300, 2, 34, 34), np.uint8)
    for sample in range(samples):
        events = slice(held["offsets"][sample], held["offsets"][sample + 1])
        step = np.cumsum(held["dt"][events]) // 1000  # of a millisecond each
        seen = step < 300
        x, y, on = (held[axis][events][seen] for axis in "xyp")
        spikes[sample, step[seen], on, y, x] = 1
    flat = spikes.reshape(samples, 300, -1)
    return Stranger(path, Recording(spikes={"": flat}, labels=held["label"][:samples]), 300)


STRANGERS: dict[str, Callable[[Path, int], Stranger]] = {
    "bootstrap": bootstrap,
    "rate_coded": rate_coded,
    "oxford": oxford,
    "nmnist": nmnist,
}
