"""Exported folders: the same bytes everywhere, whole or absent, and checked when opened."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snn_deploy.exporters.lava import NET
from snn_deploy.exporters.nir import NirExporter
from snn_deploy.exporters.nir.metadata import to_data

from snn_deploy import artefacts, export, load, open_artefact, quantize, save, verify
from snn_deploy.artefacts import MANIFEST, MODEL, RECORDED, replay_recorded, sha256_of
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import read_npz, write_npz
from snn_deploy.sim import EngineName, Trace, simulate
from tests.helpers.deploy import Files, make_files, small_net
from tests.helpers.refusals import refused

NAMES = {MODEL, RECORDED, MANIFEST}
LOIHI2 = {*NAMES, NET}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def build(files: Files, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(files.build, tmp_path / "build"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def read_manifest(build: Path) -> Any:
    return json.loads((build / MANIFEST).read_text())


def write_manifest(build: Path, manifest: Any) -> None:
    (build / MANIFEST).write_text(json.dumps(manifest))


def seal(build: Path) -> None:
    """Let the manifest agree with the files, as a forger would."""
    manifest = read_manifest(build)
    for name in (MODEL, RECORDED):
        manifest["artefacts"][name]["sha256"] = sha256_of(build / name)
    write_manifest(build, manifest)


# --- written --------------------------------------------------------------------------------------


def test_same_bytes_in_any_folder(files: Files, tmp_path: Path) -> None:
    model = tmp_path / "other.pt"
    shutil.copy(files.model, model)
    result = export(model, "loihi2", tmp_path / "elsewhere")
    assert contents(result.folder) == contents(files.build)
    assert set(result.files) == LOIHI2 == contents(files.build).keys()


def test_manifest_knows_no_place_and_no_time(files: Files) -> None:
    text = (files.build / MANIFEST).read_text()
    text = re.sub(r'"sha256": "[0-9a-f]{64}"', "", text)
    assert "/" not in text
    assert not re.search(r"(?<![\w.])202\d(?!\w)", text)
    for place in (str(files.build.parent), files.build.name, files.model.name, platform.node()):
        assert place not in text


def test_manifest_says_what_was_done(files: Files) -> None:
    manifest = read_manifest(files.build)
    assert manifest["target"] == "loihi2"
    assert manifest["model"] == {"sha256": sha256_of(files.model)}
    assert manifest["artefacts"] == {
        name: {"sha256": sha256_of(files.build / name)} for name in (MODEL, RECORDED, NET)
    }
    assert manifest["recorded"] == {"samples": 4, "source": "the checkpoint's example"}
    assert manifest["proof"]["freeze"]["violations"] == 0
    assert {"snn-deploy", "numpy", "nir", "torch"} <= manifest["versions"].keys()


def test_files_hold_the_quantized_network(files: Files) -> None:
    expected = to_data(quantize(freeze(load(files.model)), "loihi2"))
    for path in (files.build, files.build / MODEL):
        opened = open_artefact(path)
        text, arrays = to_data(opened.graph)
        assert text == expected[0]
        assert all(map(np.array_equal, arrays, expected[1]))
        assert (opened.manifest is None) == path.is_file()


@pytest.mark.parametrize("kind", ["constant", "spikes"])
def test_without_example_the_input_is_made_up(kind: str, tmp_path: Path) -> None:
    save(small_net(kind=kind), tmp_path / "model.pt")
    result = export(tmp_path / "model.pt", "generic", tmp_path / "build")
    assert result.manifest["recorded"]["source"] == "synthetic, seed 0"
    export(tmp_path / "model.pt", "generic", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "build")
    replay = replay_recorded(open_artefact(tmp_path / "build"))
    assert replay.samples == result.manifest["recorded"]["samples"]
    assert replay.spikes > 0


def test_image_of_one_channel_into_linear(tmp_path: Path) -> None:
    layers = [{"type": "flatten"}, {"type": "linear", "features": 3}]
    data = small_net().architecture.to_data() | {"layers": layers}
    save(SpikingNet(parse(data, "test")), tmp_path / "model.pt")
    export(tmp_path / "model.pt", "generic", tmp_path / "build")


def test_earlier_export_is_replaced(files: Files, build: Path) -> None:
    (build / "notes.txt").write_text("mine")
    export(files.model, "generic", build)
    assert contents(build).keys() == {*NAMES, "notes.txt"}
    assert (build / "notes.txt").read_text() == "mine"
    assert read_manifest(build)["target"] == "generic"
    open_artefact(build)
    export(files.model, "loihi2", build)
    assert {k: v for k, v in contents(build).items() if k in LOIHI2} == contents(files.build)
    assert [path.name for path in build.parent.iterdir()] == ["build"]


# --- not written ----------------------------------------------------------------------------------


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def unfaithful(self: NirExporter, graph: Graph, path: Path, *dialect: Any) -> None:
    """An exporter that says something else than it was told."""
    weight = graph.projections[-1].synapses.weight
    weight[...] = -weight
    faithful(self, graph, path, *dialect)
    weight[...] = -weight


faithful = NirExporter.write

FAILURES: dict[str, tuple[object, str, object, str | None]] = {
    "exporter's disk is full": (NirExporter, "write", no_room, "SD102"),
    "exporter is unfaithful": (NirExporter, "write", unfaithful, "SD407"),
    "recording's disk is full": (artefacts, "write_npz", no_room, "SD102"),
    "manifest's disk is full": (artefacts, "write_atomically", no_room, "SD102"),
    "fresh process cannot start": (artefacts, "_verify_in_fresh_process", no_room, "SD102"),
    "interrupted": (artefacts, "_verify_in_fresh_process", interrupted, None),
}


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "earlier export"])
def test_failure_leaves_nothing_behind(
    what: str, earlier: bool, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        shutil.copytree(files.build, tmp_path / "build")
    before = contents(tmp_path)
    place, name, stand_in, code = FAILURES[what]
    monkeypatch.setattr(place, name, stand_in)
    with pytest.raises(SnnDeployError if code else KeyboardInterrupt) as caught:
        export(files.model, "generic", tmp_path / "build")
    if isinstance(caught.value, SnnDeployError):
        assert caught.value.code == code
    assert contents(tmp_path) == before


def test_half_replaced_export_is_none(files: Files, build: Path) -> None:
    """The manifest goes first and comes last."""
    (build / RECORDED).unlink()
    (build / RECORDED).mkdir()
    with refused("SD102"):
        export(files.model, "generic", build)
    with refused("SD404", "no manifest"):
        open_artefact(build)
    assert [path.name for path in build.parent.iterdir()] == ["build"]


def test_output_may_be_a_disk_of_its_own(
    files: Files, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be moved into a mounted folder from outside."""
    move = os.replace

    def replace(source: str | Path, target: str | Path) -> None:
        if (build in Path(source).parents) != (build in Path(target).parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    export(files.model, "loihi2", build)


@pytest.mark.parametrize("output", ["file", "file/build", "missing/build", "/proc/nothing/build"])
def test_output_that_cannot_be_written(output: str, files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with refused("SD102", "(?m)--> .*(file|build)$"):
        export(files.model, "loihi2", tmp_path / output)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(("name", "code"), [("cmos45", "SD201"), ("spam", "SD105")])
def test_target_that_cannot_be_exported_to(
    name: str, code: str, files: Files, tmp_path: Path
) -> None:
    steps: list[str] = []
    with refused(code):
        export(files.model, name, tmp_path / "build", progress=steps.append)
    assert not steps
    assert not contents(tmp_path)


# --- opened ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MODEL, RECORDED])
def test_changed_file_is_not_the_one_exported(name: str, build: Path) -> None:
    content = bytearray((build / name).read_bytes())
    content[-1] ^= 1
    (build / name).write_bytes(content)
    for check in (open_artefact, verify):
        with refused("SD404", f"(?m)--> {build / name}$"):
            check(build)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_missing_file(name: str, build: Path) -> None:
    (build / name).unlink()
    with refused("SD404", f"--> {build}"):
        open_artefact(build)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 1}',
        '{"schema": 2, "artefacts": {"model.nir": {}, "recorded.npz": {}}}',
        '{"schema": 1, "artefacts": {"model.nir": {}, "recorded.npz": {}}}',
        '{"schema": 1, "artefacts": {"../model.nir": {"sha256": ""}}}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_manifest_that_is_none(text: str, build: Path) -> None:
    (build / MANIFEST).write_text(text)
    with refused("SD401", "manifest"):
        open_artefact(build)


def test_manifest_of_bytes(build: Path) -> None:
    (build / MANIFEST).write_bytes(b"\xff\xfe")
    with refused("SD401", "manifest"):
        open_artefact(build)


@pytest.mark.parametrize("model", [5, {}, {"sha256": 5}])
def test_manifest_whose_model_is_none(model: object, build: Path) -> None:
    write_manifest(build, read_manifest(build) | {"model": model})
    with refused("SD401", "manifest"):
        open_artefact(build)


def test_what_is_no_export(tmp_path: Path) -> None:
    with refused("SD101"):
        open_artefact(tmp_path / "nothing")
    with refused("SD404", "no manifest"):
        open_artefact(tmp_path)
    (tmp_path / "model.txt").write_text("")
    with refused("SD105", r"\.nir"):
        open_artefact(tmp_path / "model.txt")


# --- replayed -------------------------------------------------------------------------------------


def rewrite(build: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    arrays = read_npz(build / RECORDED)
    edit(arrays)
    write_npz(build / RECORDED, arrays)
    seal(build)


def test_replay(files: Files) -> None:
    replay = replay_recorded(open_artefact(files.build))
    arrays = read_npz(files.build / RECORDED)
    spikes = sum(int(v.sum()) for k, v in arrays.items() if k.endswith("expected_spikes"))
    assert (replay.samples, replay.spikes, replay.engines) == (4, spikes, ("reference", "event"))


def test_forged_spikes_are_found(build: Path) -> None:
    rewrite(build, lambda arrays: arrays["conv2.expected_spikes"].__ixor__(True))
    with refused("SD407", "conv2.expected_spikes differ in engine reference"):
        verify(build)


def test_forged_readout_is_found(build: Path) -> None:
    rewrite(build, lambda arrays: arrays["output.expected_output"].__iadd__(1))
    with refused("SD407", "12 values of output.expected_output differ"):
        verify(build)


@pytest.mark.parametrize("wrong", ["reference", "event"])
def test_every_engine_is_asked(wrong: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*arguments: Any, engine: EngineName, **options: Any) -> Trace:
        trace = simulate(*arguments, engine=engine, **options)
        trace.spikes["conv2"][0] ^= engine == wrong
        return trace

    monkeypatch.setattr(artefacts, "simulate", faulty)
    with refused("SD407", f"60 values of conv2.expected_spikes differ in engine {wrong}"):
        replay_recorded(open_artefact(files.build))


@pytest.mark.parametrize("name", ["conv1.expected_spikes", "output.expected_output"])
def test_incomplete_recording(name: str, build: Path) -> None:
    rewrite(build, lambda arrays: arrays.pop(name))
    with refused("SD401", f"{name} is missing"):
        verify(build)


@pytest.mark.parametrize("edit", ["pop", "double"])
def test_recorded_input_that_does_not_fit(edit: str, build: Path) -> None:
    def spoil(arrays: dict[str, Any]) -> None:
        values = arrays.pop("values")
        if edit == "double":
            arrays["values"] = values[:, :, :3]

    rewrite(build, spoil)
    with refused("SD401", "recorded input does not fit"):
        verify(build)


def test_truncated_recording(build: Path) -> None:
    content = (build / RECORDED).read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (build / RECORDED).write_bytes(content[:length])
        seal(build)
        with refused("SD401", f"(?m)--> {build / RECORDED}$"):
            verify(build)
