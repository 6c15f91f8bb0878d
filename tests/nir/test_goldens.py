"""Files that snnTorch, SpikingJelly, Norse, sinabs and rockpool wrote of networks of their own.

Their modules' spikes lie beside them (tests/golden/make_nir_goldens.py): decays and weights are
such that float32 is exact, and membranes meet thresholds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snn_deploy.exporters import ReadOptions
from snn_deploy.exporters.nir import exporter

from snn_deploy import simulate
from snn_deploy.graph import LIF, Graph
from snn_deploy.packets import Recording

FOLDER = Path(__file__).parents[1] / "golden" / "nir"
RECORDINGS = json.loads((FOLDER / "recordings.json").read_text())


def options(said: dict[str, Any]) -> ReadOptions:
    """How a golden file is to be read."""
    return ReadOptions(dialect=said["peer"], dt=said["dt"], reset=said["reset"])


def check(graph: Graph, recorded: dict[str, Any]) -> int:
    """The graph spikes as recorded, at every timestep; number of spikes."""
    recording = Recording(spikes={"": recorded["inputs"]})
    trace = simulate(graph, recording, engine="reference", trace=True)
    names = {name.removesuffix(".spikes") for name in recorded if name.endswith(".spikes")}
    assert names == {p.name for p in graph.populations if isinstance(p.neurons, LIF)}
    for name in names:
        theirs = recorded[f"{name}.spikes"]
        np.testing.assert_array_equal(trace.spikes[name].reshape(theirs.shape), theirs)
    (output,) = graph.outputs
    if not isinstance(graph.population(output).neurons, LIF):
        found = trace.membrane[output].reshape(recorded["output"].shape)
        np.testing.assert_allclose(found, recorded["output"], rtol=1e-6, atol=1e-6)
    return sum(int(recorded[f"{name}.spikes"].sum()) for name in names)


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_their_files_spike_as_their_modules(name: str) -> None:
    said = RECORDINGS[name]
    graph = exporter.open(FOLDER / f"{name}.nir", options(said)).graph
    with np.load(FOLDER / f"{name}.npz") as recorded:
        assert check(graph, dict(recorded)) > 100
