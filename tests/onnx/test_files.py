"""Files of both forms: lossless, small, the same for the same network."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from snn_deploy.exporters import ReadOptions
from snn_deploy.exporters.nir.metadata import to_data
from snn_deploy.exporters.onnx import exporter, stored
from snn_deploy.exporters.onnx.models import DIGEST, network_digest

from snn_deploy.artefacts import open_artefact
from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, pooled_shape
from tests.helpers.graphs import GENERIC, Case, integer_cases
from tests.helpers.nets import integers, lif, one_layer, spike_input
from tests.helpers.refusals import refused
from tests.onnx.running import assert_sequence, feeds_of, run_sequence, session, without_resets

FILES = ("model.onnx", "step.onnx")


def opened(path: Path) -> Graph:
    return exporter.open(path, ReadOptions()).graph


def assert_same(one: Graph, other: Graph) -> None:
    (text, arrays), (other_text, other_arrays) = to_data(one), to_data(other)
    assert text == other_text
    for mine, theirs in zip(arrays, other_arrays, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=25)
@given(case=integer_cases())
def test_round_trip(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, again = Path(name), Path(name) / "again"
        again.mkdir()
        written = exporter.export(case.graph, folder)
        assert written.files == FILES
        for file in FILES:
            read = opened(folder / file)
            assert_same(read, case.graph)
            exporter.export(read, again)
            assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_same_bytes_from_another_process(tmp_path: Path) -> None:
    graph = one_layer(Dense(integers([[1, -300], [5, 7]])), spike_input(2), lif(4000))
    exporter.export(graph, tmp_path)
    code = (
        "import sys; from pathlib import Path; from snn_deploy.exporters import ReadOptions\n"
        "from snn_deploy.exporters.onnx import exporter\n"
        "graph = exporter.open(Path(sys.argv[1]), ReadOptions()).graph\n"
        "exporter.export(graph, Path(sys.argv[2]))"
    )
    other = tmp_path / "other"
    other.mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "step.onnx"), str(other)]
    subprocess.run(command, check=True)
    for file in FILES:
        assert (other / file).read_bytes() == (tmp_path / file).read_bytes()


def test_the_metadata_name_the_network(tmp_path: Path) -> None:
    graph = one_layer(Dense(integers([[1, 2], [5, 7]])), spike_input(2))
    facts = exporter.export(graph, tmp_path).facts
    for file in FILES:
        found = {p.key: p.value for p in onnx.load(tmp_path / file).metadata_props}
        assert found[DIGEST] == facts["network_sha256"] == network_digest(graph)
        assert found["snn_deploy.form"] == {"model.onnx": "sequence", "step.onnx": "step"}[file]
    assert (facts["opset"], facts["ir_version"]) == (18, 8)
    for other in (
        one_layer(Dense(integers([[1, 2], [5, 8]])), spike_input(2)),
        one_layer(Dense(np.int16([[1, 2], [5, 7]])), spike_input(2)),
        replace(graph, timesteps=3),
    ):
        assert network_digest(other) != network_digest(graph)


VGGSNN = (64, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512, "P")


def vggsnn(seed: int = 0) -> Graph:
    """The populations of the zoo's VGGSNN, with random weights of 8 bits."""
    rng = np.random.default_rng(seed)
    spec = spike_input(2, 48, 48)
    populations: list[Population] = []
    projections: list[Projection] = []
    source, shape = spec.name, spec.shape

    def add(name: str, synapses: Any, target: Shape, pool: SumPool | None) -> None:
        projections.append(Projection(source=source, target=name, synapses=synapses, pool=pool))
        neurons = lif(2048, threshold=3000)
        populations.append(Population(name=name, shape=target, neurons=neurons, scale=1.0))

    pool = None
    for part in (*VGGSNN, "head"):
        if part == "P":
            pool = SumPool((2, 2), (2, 2))
            continue
        seen = pooled_shape(shape, pool)
        if part == "head":
            synapses: Any = Dense(rng.integers(-127, 128, (10, int(np.prod(seen)))))
        else:
            weight = rng.integers(-127, 128, (part, seen[0], 3, 3))
            synapses = Conv2d(weight, padding=(1, 1))
        name = f"p{len(populations)}"
        target = synapses.target_shape(seen)
        add(name, synapses, target, pool)
        source, shape, pool = name, target, None
    return Graph(
        inputs=(spec,), populations=tuple(populations), projections=tuple(projections),
        outputs=(source,), timesteps=2, number_format=GENERIC,
    )  # fmt: skip


def test_a_large_network_is_hardly_larger_than_its_weights(tmp_path: Path) -> None:
    graph = vggsnn()
    weights = sum(p.synapses.weight.size for p in graph.projections)
    assert weights > 9_000_000
    exporter.export(graph, tmp_path)
    for file in FILES:
        assert (tmp_path / file).stat().st_size < 1.01 * weights
        assert_same(opened(tmp_path / file), graph)


@settings(max_examples=10)
@given(case=integer_cases())
def test_what_is_on_the_disk_runs(case: Case) -> None:
    case = without_resets(case)
    with tempfile.TemporaryDirectory() as name:
        exporter.export(case.graph, Path(name))
        runner = session(str(Path(name) / "model.onnx"))
    found = run_sequence(case.graph, runner, feeds_of(case), case.steps)
    assert_sequence(found, case.run("event"))


def test_any_verb_opens_either_form(tmp_path: Path) -> None:
    graph = one_layer(Dense(integers([[1, 2], [5, 7]])), spike_input(2))
    exporter.export(graph, tmp_path)
    for file in FILES:
        assert_same(open_artefact(tmp_path / file).graph, graph)
    with refused("SD104"):
        exporter.open(tmp_path / "model.onnx", ReadOptions(input_shape=(2,)))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = one_layer(Dense(integers([[1]])), spike_input(1))
    exporter.export(graph, tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "empty").mkdir()
    with refused("SD107", r"snn-deploy\[onnx\]"):
        exporter.export(graph, tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())
    with refused("SD107", r"snn-deploy\[onnx\]"):
        opened(tmp_path / "model.onnx")


def test_other_formats_do_without_the_package() -> None:
    code = (
        "import sys; from pathlib import Path; from snn_deploy.exporters import exporter_of\n"
        "for suffix in ('nir', 'net', 'onnx'): exporter_of(Path(f'x.{suffix}'))\n"
        "assert 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_too_large_to_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = one_layer(Conv2d(np.ones((1, 1, 1, 1), np.int8)), spike_input(1, 4096, 4096))
    with refused("SD204", "33554432 neurons"):
        exporter.export(graph, tmp_path)
    graph = one_layer(Dense(np.ones((2, 600), np.int8)), spike_input(600))
    monkeypatch.setattr(stored, "MAX_BYTES", 1 << 10)
    with refused("SD204", "weights and parameters"):
        exporter.export(graph, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_array_that_no_operator_uses_is_described(tmp_path: Path) -> None:
    """Decays of zero; a delay of what does not travel; a scale per channel."""
    neurons = lif(decay=np.zeros(3, int), threshold=[1, 2, 3])
    graph = one_layer(Dense(integers([[1], [2], [3]])), spike_input(1), neurons)
    scaled = replace(graph.populations[0], scale=np.array([0.1, 1 / 3, 1e-300]))
    graph = replace(graph, populations=(scaled,))
    exporter.export(graph, tmp_path)
    made = onnx.load(tmp_path / "model.onnx")
    held = {p.key: p.value for p in made.metadata_props}["snn_deploy.arrays"]
    assert sum("values" in entry for entry in json.loads(held)) == 3  # scale, decay and bias
    assert_same(opened(tmp_path / "model.onnx"), graph)
