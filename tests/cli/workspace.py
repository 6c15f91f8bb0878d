"""A folder of good and broken files, and ways to run the command line in it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_deploy import save
from snn_deploy.artefacts import MODEL
from tests.helpers.deploy import CLASSES, SHAPE, make_files, small_net, small_recording

SCRIPT = Path(sys.executable).with_name("snn-deploy")

# Trains in seconds.
RECIPE = """
[data]
name = "digits"

[model]
timesteps = 2
input = {{ kind = "constant", shape = [1, 8, 8], low = 0, high = 16, std = [16.0] }}
layers = [
  {{ type = "conv", channels = 3, kernel = 3 }},
  {{ type = "batchnorm" }},
  {{ type = "lif" }},
  {{ type = "avgpool", kernel = 2 }},
  {{ type = "flatten" }},
  {{ type = "linear", features = {features} }},
]

[training]
epochs = {epochs}
"""


def recipe(epochs: int = 2, features: int = 10) -> str:
    return RECIPE.format(epochs=epochs, features=features)


def snn_deploy(
    *arguments: str | Path, cwd: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the installed script."""
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


class Code:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def make_workspace(folder: Path) -> None:
    """``model.pt``, ``images.npz`` and ``build`` are good; other names say what is wrong."""
    files = make_files(folder)
    _checkpoints(folder)
    _recordings(folder)
    (folder / "file.txt").write_text("text\n")
    (folder / "cut.nir").write_bytes((files.build / MODEL).read_bytes()[:5000])
    (folder / "spoilt").mkdir()
    for path in files.build.iterdir():
        (folder / "spoilt" / path.name).write_bytes(path.read_bytes())
    with (folder / "spoilt" / MODEL).open("ab") as stream:
        stream.write(b"\0")
    (folder / "empty").mkdir()
    (folder / "recipe.toml").write_text(recipe())
    (folder / "broken.toml").write_text("[data")
    (folder / "spam.toml").write_text(recipe().replace("digits", "spam"))
    (folder / "features.toml").write_text(recipe(features=7))
    (folder / "milestones.toml").write_text(recipe() + "noise = { milestones = 3 }\n")
    staged = "stages = [\n  { epochs = 1 },\n  { epoch = 1 },\n]"
    (folder / "stages.toml").write_text(recipe().replace("epochs = 2", staged))
    (folder / "mnist.toml").write_text(recipe().replace('"digits"', '"mnist"\npath = "none"'))
    (folder / "initial.toml").write_text(recipe() + 'initial = "none.pt"\n')
    (folder / "other.toml").write_text(recipe() + 'initial = "other.pt"\n')
    (folder / "stale.pt.partial").write_bytes(b"text")
    (folder / "stale.csv.partial").write_bytes(b"text")
    (folder / "blocked.pt.metrics.jsonl").mkdir()


def _checkpoints(folder: Path) -> None:
    whole = (folder / "model.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pt").write_text("text\n")
    torch.save({"format": "snn-deploy checkpoint 1", "state": Code()}, folder / "code.pt")
    (folder / "pickle.pt").write_bytes(pickle.dumps(Code()))
    torch.save(small_net().state_dict(), folder / "state.pt")
    save(small_net(seed=1), folder / "other.pt")
    for name, value in (("nan", float("nan")), ("huge", 1e9)):
        net = small_net()
        with torch.no_grad():
            net.get_parameter("layers.1.module.bias")[0] = value
        save(net, folder / f"{name}.pt")


def _recordings(folder: Path) -> None:
    good = small_recording()
    values = good.values[""]
    for name, arrays in {
        "plain": {"values": values},
        "nan": {"values": np.where(values > 8, np.nan, values)},
        "large": {"values": values * 2},
        "shape": {"values": values[..., :5]},
        "spikes": {"spikes": np.zeros((2, 3, *SHAPE), np.uint8)},
        "labels": {"values": values, "labels": np.zeros(CLASSES)},
        "nothing": {"spam": values},
        "packed": {"spikes.packed": np.zeros((2, 3, 4), np.uint8)},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "code.npz", values=np.array([Code()], object))
    whole = (folder / "images.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.npz").write_text("text\n")
