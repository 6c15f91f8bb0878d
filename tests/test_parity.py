"""Verification: parity is measured, gates hold at their edge, and nothing foreign passes."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snn_deploy.exporters.nir import exporter

from snn_deploy import load, read_recording, save, simulate, verify
from snn_deploy.artefacts import MODEL, open_artefact
from snn_deploy.packets import Recording
from snn_deploy.parity import Parity, compare_engines, simulate_batches
from snn_deploy.sim import Trace
from snn_deploy.synapses import Dense
from tests.helpers.deploy import Files, make_files, small_net
from tests.helpers.refusals import refused
from tests.test_artefacts import seal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def parity(files: Files) -> Parity:
    result = verify(files.build, model=files.model, recording=files.recording)
    assert result.failed_gate is None
    assert result.parity is not None
    return result.parity


def test_parity_is_what_the_networks_do(files: Files, parity: Parity) -> None:
    recording = read_recording(files.recording)
    assert recording.labels is not None
    with torch.inference_mode():
        trained = load(files.model)(torch.from_numpy(recording.values[""])).argmax(1).numpy()
    exported = simulate(files.graph, recording).decisions()
    accuracies = [100 * float((d == recording.labels).mean()) for d in (trained, exported)]
    assert parity.samples == len(recording.labels)
    assert [parity.trained_accuracy, parity.exported_accuracy] == accuracies
    assert parity.drop == accuracies[0] - accuracies[1] != 0
    assert parity.decisions_changed == tuple(np.flatnonzero(trained != exported))
    slots = sum(p.size for p in files.graph.spiking()) * parity.samples * 3
    assert parity.freeze_slots == slots
    assert (parity.freeze_violations, parity.engine_differences) == (0, 0)


@pytest.mark.parametrize(("above", "passes"), [(0.0, True), (0.001, True), (-0.001, False)])
def test_gate_holds_at_its_edge(above: float, passes: bool, files: Files, parity: Parity) -> None:
    assert parity.drop is not None
    gate = parity.drop + above
    result = verify(
        files.build, model=files.model, recording=files.recording, max_accuracy_drop=gate
    )
    assert result.parity == parity
    assert (result.failed_gate is None) == passes
    if not passes:
        assert f"dropped by {parity.drop:.2f} points" in str(result.failed_gate)


def test_gate_forgives_the_rounding_of_percents(files: Files, parity: Parity) -> None:
    """30 of 100 right, then 29: a drop of one point, of which float64 makes a little more."""
    (changed,) = parity.decisions_changed
    values = read_recording(files.recording).values[""][[changed, *[0] * 99]]
    with torch.inference_mode():
        decisions = load(files.model)(torch.from_numpy(values)).argmax(1).numpy()
    labels = np.where(np.arange(100) < 30, decisions, (decisions + 1) % 3)
    recording = Recording(values={"": values}, labels=labels)
    result = verify(files.build, model=files.model, recording=recording, max_accuracy_drop=1)
    assert result.parity is not None
    assert result.parity.drop == 100 * 0.30 - 100 * 0.29 > 1
    assert result.failed_gate is None


@pytest.mark.parametrize(("gate", "passes"), [(-100.0, False), (100.0, True)])
def test_gate_far_off(gate: float, passes: bool, files: Files) -> None:
    recording = read_recording(files.recording).head(4)
    result = verify(files.build, model=files.model, recording=recording, max_accuracy_drop=gate)
    assert (result.failed_gate is None) == passes


def test_gate_that_is_no_number_does_not_pass(files: Files) -> None:
    recording = read_recording(files.recording).head(4)
    with refused("SD104"):
        verify(files.build, model=files.model, recording=recording, max_accuracy_drop=math.nan)


def test_without_labels(files: Files) -> None:
    recording = replace(read_recording(files.recording).head(4), labels=None)
    result = verify(files.build, model=files.model, recording=recording)
    assert result.parity is not None
    accuracies = (result.parity.trained_accuracy, result.parity.exported_accuracy)
    assert (*accuracies, result.parity.drop) == (None, None, None)
    with refused("SD103", "labels"):
        verify(files.build, model=files.model, recording=recording, max_accuracy_drop=1)


def test_another_checkpoint_is_refused(files: Files, tmp_path: Path) -> None:
    save(small_net(seed=1), tmp_path / "other.pt")
    with refused("SD404", f"(?m)--> {tmp_path / 'other.pt'}$"):
        verify(files.build, model=tmp_path / "other.pt", recording=files.recording)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "model.pt"},
        {"recording": "images.npz"},
        {"max_accuracy_drop": 1.0},
        {"max_accuracy_drop": 1.0, "recording": "images.npz"},
    ],
    ids=lambda options: "+".join(options),
)
def test_half_a_comparison_is_refused(options: dict[str, Any], files: Files) -> None:
    with refused("SD104"):
        verify(files.build, **options)


def test_missing_files(files: Files, tmp_path: Path) -> None:
    with refused("SD101", "model.pt"):
        verify(files.build, model=tmp_path / "model.pt", recording=files.recording)
    with refused("SD101", "images.npz"):
        verify(files.build, model=files.model, recording=tmp_path / "images.npz")
    with refused("SD104", "folder"):
        verify(files.build / MODEL)


def test_another_network_in_the_folder_is_found(files: Files, tmp_path: Path) -> None:
    """A forger replaces the network, consistently, and the hash: the recorded spikes differ."""
    build = Path(shutil.copytree(files.build, tmp_path / "build"))
    *others, last = files.graph.projections
    forged = replace(last, synapses=Dense(-(last.synapses.weight // 4) * 2))
    exporter.write(replace(files.graph, projections=(*others, forged)), build / MODEL)
    with refused("SD404"):
        verify(build)
    seal(build)
    with refused("SD407", "output.expected_output"):
        verify(build)


def test_engines_that_differ_are_found(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = read_recording(files.recording).head(2)
    graph = open_artefact(files.build).graph
    assert compare_engines(graph, recording)[0] == 0

    def faulty(*args: Any, engine: str, **options: Any) -> Any:
        for trace in simulate_batches(*args, engine=engine, **options):
            yield change(trace) if engine == "event" else trace

    def change(trace: Trace) -> Trace:
        trace.spikes["conv1"][0, 0, 0, 0, 0] ^= True
        trace.membrane["conv2"][0, 0, 0, 0, 0] += 1
        trace.record.events["conv1->conv2"][0] += 1
        return trace

    monkeypatch.setattr("snn_deploy.parity.simulate_batches", faulty)
    assert compare_engines(graph, recording)[0] == 3
    with refused("SD407", "3 spikes, membranes or counts"):
        verify(files.build, model=files.model, recording=recording)


def test_progress_reaches_the_end(files: Files) -> None:
    said: dict[str, tuple[int, int]] = {}
    recording = read_recording(files.recording).head(3)
    verify(
        files.build,
        model=files.model,
        recording=recording,
        progress=lambda what, done, of: said.update({what: (done, of)}),
    )
    assert set(said.values()) == {(3, 3)}
    assert len(said) == 2
