"""From a checkpoint to onnxruntime and back, with the installed script, as docs/onnx.md says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy import save
from snn_deploy.packets import Recording, write_npz
from tests.cli.workspace import snn_deploy
from tests.helpers.deploy import SHAPE, TIMESTEPS, small_net, small_recording

DOCS = Path(__file__).parents[2] / "docs" / "onnx.md"


def recording(kind: str) -> Recording:
    if kind == "constant":
        return small_recording(4)
    spikes = np.random.default_rng(0).random((4, TIMESTEPS, *SHAPE)) < 0.5
    return Recording(spikes={"": spikes.astype(np.uint8)})


@pytest.fixture(scope="module", params=["constant", "spikes"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    example = recording(request.param)
    save(small_net(kind=request.param), folder / "model.pt", example=example)
    write_npz(folder / "input.npz", example.arrays())
    succeed("export model.pt --target generic --format onnx -o build", folder)
    return folder


def succeed(command: str, folder: Path) -> str:
    done = snn_deploy(*command.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_folder(folder: Path) -> None:
    files = {path.name for path in (folder / "build").iterdir()}
    assert files == {"manifest.json", "model.nir", "model.onnx", "recorded.npz", "step.onnx"}
    manifest = json.loads((folder / "build" / "manifest.json").read_text())
    facts = manifest["formats"]["onnx"]
    assert facts["files"] == ["model.onnx", "step.onnx"]
    assert re.fullmatch("[0-9a-f]{64}", facts["network_sha256"])
    assert {"model.onnx", "step.onnx"} < manifest["artefacts"].keys()


def test_the_documented_way_to_run_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets hold their own comparison with what was recorded."""
    monkeypatch.chdir(folder)
    snippets = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(snippets) == 2
    space: dict[str, Any] = {}
    for snippet in snippets:
        exec(snippet, space)
    assert len(space["spikes"]) == 2
    assert all(np.any(spikes) for spikes in space["spikes"].values())


def test_a_single_file_is_simulated(folder: Path) -> None:
    """Either form, and the whole folder: the same record of counts."""
    records = []
    for path in ("build", "build/model.onnx", "build/step.onnx"):
        said = json.loads(succeed(f"sim {path} --input input.npz --json", folder))
        records.append({key: value for key, value in said.items() if key != "path"})
    assert records[0]["populations"]
    assert records[0] == records[1] == records[2]


def test_a_broken_file(folder: Path) -> None:
    content = bytearray((folder / "build" / "model.onnx").read_bytes())
    for name, broken in (
        ("cut", content[:-100]),
        ("changed", content.replace(b"Greater", b"greater")),
    ):
        (folder / f"{name}.onnx").write_bytes(broken)
        done = snn_deploy("sim", f"{name}.onnx", "--input", "input.npz", cwd=folder)
        assert done.returncode == 4
        assert done.stderr.startswith("error[SD40")
        assert "Traceback" not in done.stderr
