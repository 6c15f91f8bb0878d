"""``export --dialect``: what the manifest and the command say of who runs the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snn_deploy.exporters import Polyglot
from snn_deploy.exporters.lava import exporter as lava
from snn_deploy.exporters.nir import exporter

from snn_deploy import export, open_artefact, quantize, save, verify
from snn_deploy.freezing import freeze
from tests.cli.workspace import snn_deploy
from tests.helpers.deploy import small_net
from tests.helpers.refusals import refused
from tests.test_exporters_nir import same


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialects")
    save(small_net(), folder / "model.pt")
    export(folder / "model.pt", "generic", folder / "ours", formats=[])
    return folder


def test_the_manifest_names_dialect_and_readers(folder: Path) -> None:
    manifest = open_artefact(folder / "ours").manifest
    assert manifest is not None
    said = manifest["formats"]["nir"]
    assert manifest["configuration"]["dialect"] == said["dialect"] == "portable"
    assert said["dt"] == 1e-4
    assert said["integer_exact"]  # two decays by half, of membranes with 6 fractional bits
    verdicts = {name: peer["verdict"] for name, peer in said["peers"].items()}
    assert verdicts == {
        "snntorch": "exact",
        "norse": "exact",
        "spikingjelly": "exact",
        "sinabs": "misread",
        "rockpool": "refused",
        "spyx": "misread",
    }
    assert said["peers"]["sinabs"]["why"]


def test_the_command_takes_a_dialect(folder: Path) -> None:
    command = "export model.pt --target generic --format nir --dialect sinabs -o theirs"
    done = snn_deploy(*command.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "NIR, dialect sinabs, dt 1. misread: snntorch, norse" in done.stdout
    assert "exact after steps: sinabs" in done.stdout
    manifest = json.loads((folder / "theirs" / "manifest.json").read_text())
    assert manifest["configuration"]["dialect"] == "sinabs"
    assert same(open_artefact(folder / "theirs").graph, open_artefact(folder / "ours").graph)
    assert verify(folder / "theirs").failed_gate is None


def test_the_command_says_where_the_integers_round(folder: Path) -> None:
    done = snn_deploy(*["export", "model.pt", "--target", "loihi2", "-o", "loihi"], cwd=folder)
    assert (
        "dt 0.0001, the integers round more. exact: snntorch, norse, spikingjelly;" in done.stdout
    )
    said = json.loads((folder / "loihi" / "manifest.json").read_text())["formats"]["nir"]
    assert said["integer_rounding"][0] == "the host rounds the sum of input->conv1 to a bias"


def test_unknown_dialects_are_refused_before_anything_is_done(folder: Path) -> None:
    with refused("SD105", "no dialect 'spam'"):
        export(folder / "model.pt", "generic", folder / "none", dialect="spam")
    assert not (folder / "none").exists()
    done = snn_deploy("export", "model.pt", "--target", "generic", "--dialect", "spam",
                      "-o", "none", cwd=folder)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")


def test_only_what_is_read_in_several_ways_has_dialects() -> None:
    assert isinstance(exporter, Polyglot)
    assert not isinstance(lava, Polyglot)


def test_a_float_network_can_be_written(tmp_path: Path) -> None:
    graph = freeze(small_net())
    exporter.write(graph, tmp_path / "float.nir")
    assert same(exporter.read(tmp_path / "float.nir"), graph)
    exporter.write(quantize(graph, "generic"), tmp_path / "integer.nir")
    assert (tmp_path / "float.nir").read_bytes() != (tmp_path / "integer.nir").read_bytes()
