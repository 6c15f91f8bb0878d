"""A small network that nobody trained, and the files that its user would have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from snn_deploy import export, save
from snn_deploy.graph import Graph
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording, write_npz

CLASSES = 3
SHAPE = (1, 6, 6)
TIMESTEPS = 3


def small_net(seed: int = 0, kind: str = "constant") -> SpikingNet:
    """Conv, pool, conv, linear; busy enough that every population spikes."""
    high = 16 if kind == "constant" else 1
    data = {
        "timesteps": TIMESTEPS,
        "input": {"kind": kind, "shape": list(SHAPE), "low": 0, "high": high, "std": [float(high)]},
        "lif": {"threshold": 0.5, "decay": 0.5},
        "layers": [
            {"type": "conv", "channels": 4, "kernel": 3, "padding": 1},
            {"type": "batchnorm"},
            {"type": "lif"},
            {"type": "avgpool", "kernel": 2},
            {"type": "conv", "channels": 5, "kernel": 2},
            {"type": "lif"},
            {"type": "flatten"},
            {"type": "linear", "features": CLASSES},
        ],
    }
    torch.manual_seed(seed)
    net = SpikingNet(parse(data, "test"))
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("weight") and value.ndim > 1:
                value.mul_(3)
    return net.eval()


def small_recording(samples: int = 8, *, labels: bool = True) -> Recording:
    """Images for :func:`small_net`."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 16, (samples, *SHAPE)).astype(np.float32)
    made = rng.integers(0, CLASSES, samples)
    return Recording(values={"": values}, labels=made if labels else None)


@dataclass(frozen=True, slots=True)
class Files:
    """What a user has: a checkpoint, a labelled recording, an exported folder."""

    model: Path
    recording: Path
    build: Path
    graph: Graph


def make_files(folder: Path, target: str = "loihi2") -> Files:
    """Write them into a folder, as ``model.pt``, ``images.npz`` and ``build``."""
    recording = small_recording(64)
    model, images, build = folder / "model.pt", folder / "images.npz", folder / "build"
    save(small_net(), model, example=recording.head(4))
    write_npz(images, recording.arrays())
    return Files(model, images, build, export(model, target, build).graph)
