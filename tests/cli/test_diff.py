"""``snn-deploy diff``: what it says, its JSON, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snn_deploy.exporters.nir import exporter

from snn_deploy import diff, export, save
from snn_deploy.cli import run
from snn_deploy.packets import write_npz
from tests.cli.test_errors import without
from tests.helpers.deploy import make_files, small_net
from tests.helpers.faults import PLANTS, Planted


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path
    planted: Planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """``model.pt``, ``images.npz``, ``build``, and ``wrong.nir``: build's without its last bias."""
    path = tmp_path_factory.mktemp("diff")
    graph = make_files(path).graph
    export(path / "model.pt", "generic", path / "generic")
    save(small_net(seed=1), path / "other.pt")
    planted = PLANTS["bias dropped"](graph, np.random.default_rng(0))
    assert planted is not None
    exporter.write(planted.graph, path / "wrong.nir")
    (path / "plain.txt").write_text("text\n")
    write_npz(path / "shape.npz", {"values": np.zeros((2, 1, 5, 6))})
    return Folder(path, planted)


@pytest.fixture(autouse=True)
def there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)


def said(command: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """stdout of a run that ends with this code and says nothing on stderr."""
    assert run(["diff", *command.split(), "--input", "images.npz"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def as_json(command: str, code: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(f"{command} --json", code, capsys))
    return found


@pytest.mark.parametrize(
    "command",
    ["build build", "build build/model.nir", "model.pt@loihi2 build", "model.pt model.pt@frozen",
     "model.pt@generic generic"],
)  # fmt: skip
def test_what_is_the_same_is_identical(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(command, 0, capsys)
    assert out.rstrip().splitlines()[-1].startswith("IDENTICAL: 0 of 31,488 slots differ")


@pytest.mark.parametrize("command", ["model.pt build", "model.pt@frozen generic", "generic build"])
def test_rounding_is_called_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = command.split()
    found = diff(a, b, "images.npz")
    assert found.first_state is None
    first = found.first_spike
    assert first is not None
    out = said(command, 1, capsys)
    assert out.startswith(
        f"A  {a}\nB  {b}\n   64 samples, 3 timesteps\n\nfirst spike that differs\n"
    )
    place = f"  {first.population}, timestep {first.timestep}, sample {first.sample}, neuron"
    assert place in out
    for p in found.populations:
        row = next(line.split() for line in out.splitlines() if line.split()[:1] == [p.population])
        if p.slots:
            counts = [f"{n:,}" for n in (p.slots, p.spikes, p.differing)]
            assert row[1:4] == counts
            assert row[6:8] == [f"{p.roots:,}", f"{p.cascaded:,}"]
    changed = len(found.decisions_changed)
    *_, decisions, verdict = out.rstrip().splitlines()
    assert decisions == f"{changed} of 64 decisions differ"
    assert verdict.startswith(f"DIFFER from {first.population}, timestep 0 on, rounding; ")


def test_a_planted_fault_is_shown(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    out = said("build wrong.nir", 1, capsys)
    assert "first state that differs beyond rounding\n" in out
    assert f"  {folder.planted.population}, timestep 0, sample 0, neuron 0" in out
    assert "B has no bias at all" in out
    last = out.rstrip().splitlines()[-1]
    assert last.startswith(f"DIFFER from {folder.planted.population}, timestep 0 on, bias; ")


def test_json_is_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json("build wrong.nir", 1, capsys)
    result = diff("build", "wrong.nir", "images.npz")
    assert result.first_state is not None
    first = found["divergence"]["first_state"]
    assert (first["population"], first["cause"]) == (result.first_state.population, "bias")
    assert first["a"]["membrane"] == result.first_state.a.membrane
    assert first["facts"] == list(result.first_state.facts)
    assert found["divergence"]["populations"][0]["differing"] == result.populations[0].differing
    assert (found["slots"], found["differing"]) == (result.slots, result.differing)
    assert (found["percent"], found["identical"]) == (result.percent, False)
    assert found["passed"] is False


def test_the_gate_counts_slots(capsys: pytest.CaptureFixture[str]) -> None:
    percent = diff("model.pt", "build", "images.npz").percent
    assert 0 < percent < 1
    exactly = as_json(f"model.pt build --max-slots-percent {percent!r}", 0, capsys)
    assert (exactly["passed"], exactly["identical"]) == (True, False)
    assert "PASSED: " in said("model.pt build --max-slots-percent 1", 0, capsys)
    below = said(f"model.pt build --max-slots-percent {percent * 0.999!r}", 1, capsys)
    assert below.rstrip().splitlines()[-1].startswith("FAILED: ")


def test_steps(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json("model.pt@frozen build --steps 1", 1, capsys)
    assert found["divergence"]["timesteps"] == 1
    assert found["slots"] * 3 == 31_488


@pytest.mark.parametrize(
    ("command", "code", "exit_code"),
    [
        ("build none --input images.npz", "SD101", 2),
        ("none.pt build --input images.npz", "SD101", 2),
        ("build build --input none.npz", "SD101", 2),
        ("build build --input shape.npz", "SD103", 2),
        ("build@frozen build --input images.npz", "SD104", 2),
        ("model.pt build --input images.npz --steps 2", "SD104", 2),
        ("build plain.txt --input images.npz", "SD105", 2),
        ("model.pt@spam build --input images.npz", "SD105", 2),
        ("model.pt@cmos45 build --input images.npz", "SD201", 3),
    ],
)
def test_one_message_per_mistake(
    command: str, code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diff", *command.split()]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[6:11] for line in err.splitlines() if line.startswith("error[")] == [code]


@pytest.mark.parametrize(
    "command",
    ["build --input images.npz", "build build", "build build --input images.npz --spam",
     "build build --input images.npz --max-slots-percent 101"],
)  # fmt: skip
def test_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", *command.split()]) == 2
    assert "Error:" in capsys.readouterr().err


def test_integers_need_no_torch(folder: Folder) -> None:
    done = without("torch,sklearn", "diff build wrong.nir --input images.npz", folder.path)
    assert (done.returncode, done.stderr) == (1, "")
    done = without("torch,sklearn", "diff model.pt build --input images.npz", folder.path)
    assert done.returncode == 2
    assert "error[SD107]" in done.stderr
    done = without("torch,sklearn,numba,rich,h5py,nir", "diff --help", folder.path)
    assert (done.returncode, done.stderr) == (0, "")
