"""The whole way with the installed script: train, export, simulate, price, verify."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy import open_artefact
from snn_deploy.hardware import available
from snn_deploy.reporting import joules, quantity
from tests.cli.workspace import contents, recipe, snn_deploy

STEPS, TEST_SAMPLES, CLASSES = 2, 500, 10


def succeed(command: str, cwd: Path) -> str:
    done = snn_deploy(*command.split(), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_json(command: str, cwd: Path) -> Any:
    return json.loads(succeed(f"{command} --json", cwd))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a network was trained and exported; what was said is in ``*.txt``."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "recipe.toml").write_text(recipe(epochs=3))
    for name, command in (
        ("train", "train recipe.toml -o model.pt"),
        ("export", "export model.pt --target loihi2 -o build"),
    ):
        said = succeed(command, folder)
        (folder / f"{name}.txt").write_text(said)
    return folder


def test_files(folder: Path) -> None:
    assert contents(folder).keys() == {
        "recipe.toml",
        "train.txt",
        "export.txt",
        "model.pt",
        "model.pt.metrics.jsonl",
        "digits-test.npz",
        "build",
        "build/model.net",
        "build/model.nir",
        "build/recorded.npz",
        "build/manifest.json",
    }


def test_train(folder: Path, tmp_path: Path) -> None:
    """The same recipe gives the same checkpoint, and JSON says what the text says."""
    (tmp_path / "recipe.toml").write_text(recipe(epochs=3))
    result = as_json("train recipe.toml -o model.pt --plot plot.svg", tmp_path)
    said = (folder / "train.txt").read_text()
    assert f"test accuracy {result['test_accuracy']:.2f}%" in said
    assert f"epoch {result['best_epoch']} is best" in said
    assert (result["checkpoint"], result["recording"]) == ("model.pt", "digits-test.npz")
    assert result["resumed_at"] == 0
    for name in ("model.pt", "digits-test.npz"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert result["metrics"] == "model.pt.metrics.jsonl"
    metrics = []
    for place in (tmp_path, folder):
        lines = (place / result["metrics"]).read_text().splitlines()
        metrics.append([{**json.loads(line), "seconds": 0} for line in lines])
    assert metrics[0] == metrics[1]
    assert [epoch["epoch"] for epoch in metrics[0]] == [1, 2, 3]
    best = metrics[0][result["best_epoch"] - 1]
    assert best["validation_accuracy"] == result["validation_accuracy"]
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_recording(folder: Path) -> None:
    with np.load(folder / "digits-test.npz") as file:
        assert file.keys() == {"values", "labels"}
        assert file["values"].shape == (TEST_SAMPLES, 1, 8, 8)
        assert file["labels"].shape == (TEST_SAMPLES,)


def test_export(folder: Path) -> None:
    said = (folder / "export.txt").read_text()
    manifest = as_json("export model.pt --target loihi2 -o build", folder)
    assert manifest == json.loads((folder / "build/manifest.json").read_text())
    for population in manifest["populations"]:
        (line,) = (line for line in said.splitlines() if line.split()[:1] == [population["name"]])
        shown = [
            str(population["membrane_bits_needed"]),
            *map(str, population.get("threshold", [])),
        ]
        assert set(shown) <= set(line.split())
    assert f"in {manifest['proof']['freeze']['slots']:,} neuron-timesteps" in said
    assert f"{manifest['recorded']['samples']} recorded samples" in said


def test_sim(folder: Path) -> None:
    command = "sim build --input digits-test.npz"
    said = succeed(f"{command} --trace trace.npz --output predictions.csv", folder)
    result = as_json(command, folder)
    graph = open_artefact(folder / "build").graph
    with np.load(folder / "trace.npz") as trace:
        shapes = {
            name: (TEST_SAMPLES, STEPS, *graph.shape_of(name)) for name in ("conv1", "output")
        }
        arrays = {name: (trace[name].dtype, trace[name].shape) for name in trace.files}
        assert arrays == {
            "conv1.spikes": (np.bool_, shapes["conv1"]),
            "conv1.membrane": (np.int64, shapes["conv1"]),
            "conv1.current": (np.int64, shapes["conv1"]),
            "output.membrane": (np.int64, shapes["output"]),
            "output.current": (np.int64, shapes["output"]),
            "output": (np.int64, (TEST_SAMPLES, CLASSES)),
        }
        spikes = int(trace["conv1.spikes"].sum())
        decisions = trace["output"].argmax(1)
        np.testing.assert_array_equal(trace["output"], trace["output.membrane"].sum(1))
    with (folder / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with np.load(folder / "digits-test.npz") as recording:
        labels = recording["labels"]
    assert [int(row["sample"]) for row in rows] == list(range(TEST_SAMPLES))
    assert [int(row["decision"]) for row in rows] == decisions.tolist() == result["decisions"]
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert result["accuracy"] == 100 * (decisions == labels).mean()
    assert result["populations"][0]["spikes"] == spikes
    assert f"accuracy {result['accuracy']:.2f}%" in said
    for key in ("accumulates", "multiply_accumulates"):
        assert f"{sum(p[key] for p in result['projections']):,} " in said
    assert quantity(spikes / TEST_SAMPLES) in said
    (folder / "trace.npz").unlink()
    (folder / "predictions.csv").unlink()


def test_engines_and_single_file_agree(folder: Path) -> None:
    results = [
        as_json(f"sim {what} --input digits-test.npz --engine {engine}", folder)
        for what, engine in (("build", "event"), ("build/model.nir", "reference"))
    ]
    assert [r.pop("engine") for r in results] == ["event", "reference"]
    assert [r.pop("engine_reason") for r in results] == ["asked for"] * 2
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "options",
    [
        "--profile cmos45",
        "--profile loihi1-davies2018 --host-profile cmos45 --first-layer per-timestep",
        "--profile loihi2",
        "--profile loihi2 --proxy loihi1-davies2018",
    ],
)
def test_energy(options: str, folder: Path) -> None:
    command = f"energy build --input digits-test.npz {options}"
    said, result = succeed(command, folder), as_json(command, folder)
    assert result["profile"] == options.split()[1]
    total = result["total_picojoules"]
    assert f"chip total   {joules(total and total['nominal'])} " in said
    assert (total is None) == (options == "--profile loihi2")
    assert (f"at {result['proxy']}'s figures (proxy)" in said) == ("--proxy" in options)
    priced_by_host = "--host-profile" in options
    if "cmos45" in options.split()[1]:
        assert result["host"] is None
    else:
        assert (result["host"]["picojoules"] is not None) == priced_by_host
    if priced_by_host:
        assert f"host         {joules(result['host']['picojoules']['nominal'])} for " in said
        taps = 3 * 9 * 6 * 6  # one MAC per weight of every window, at every timestep
        assert result["host"]["count"] == STEPS * taps
    for layer in result["layers"]:
        (line,) = (line for line in said.splitlines() if line.split()[:1] == [layer["name"]])
        assert quantity(layer["operations"]["synaptic_operation"]) in line.split()


def test_verify(folder: Path) -> None:
    assert succeed("verify build", folder).splitlines()[-1] == "PASSED"
    command = "verify build --model model.pt --input digits-test.npz --max-accuracy-drop 5"
    said, result = succeed(command, folder), as_json(command, folder)
    parity = result["parity"]
    assert result["failed_gate"] is None
    assert (parity["samples"], parity["engine_differences"]) == (TEST_SAMPLES, 0)
    train = (folder / "train.txt").read_text()
    assert f"test accuracy {parity['trained_accuracy']:.2f}%" in train
    assert f"exported {parity['exported_accuracy']:.2f}%, drop {parity['drop']:.2f} points" in said
    assert f"{result['replay']['spikes']:,} spikes" in said
    failing = snn_deploy(*command.replace(" 5", " -100").split(), "--json", cwd=folder)
    assert failing.returncode == 1
    assert json.loads(failing.stdout)["parity"] == parity
    assert "error[SD301]" in failing.stderr


def test_targets(folder: Path) -> None:
    said = succeed("targets", folder)
    result = {chip["id"]: chip for chip in as_json("targets", folder)}
    assert result.keys() == {chip.id for chip in available()}
    for name, chip in result.items():
        (line,) = (line for line in said.splitlines() if line.split()[:1] == [name])
        assert ("yes" in line.split()) == (chip["number_format"] is not None)
        assert ("unset" in line.split()) == (not chip["energy"])
