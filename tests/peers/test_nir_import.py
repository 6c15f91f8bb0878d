"""Files that other libraries write of their own modules spike, read here, as those modules do.

``KINDS`` of nir_writers says what is tried; the modules' own float32 runs are what is right. Their
weights and decays are dyadic, so that no rounding hides a wrong rule: not one spike may differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from snn_deploy.exporters import ReadOptions, exporter

from snn_deploy import simulate
from snn_deploy.packets import Recording
from tests.golden.make_nir_goldens import FOLDER, make
from tests.peers.nir_modules import KINDS
from tests.peers.nir_writers import Written, written_by

SEEDS = range(4)
CASES = [(peer, kind) for peer, kinds in KINDS.items() for kind in kinds]

# What a file does not hold cannot be read from it.
MISREAD = {
    ("snntorch", "leaky-subtract-at-once"),  # as if one step late
    ("norse", "box-to-a-value"),
    ("sinabs", "if-with-floor"),
}


def read(path: Path, about: dict[str, Any]) -> Any:
    """The graph, read as its writer means it."""
    options = ReadOptions(dialect=about["dialect"], dt=about["dt"], reset=about["reset"])
    return exporter("nir").open(path, options).graph


def differing(one: Written, folder: Path) -> tuple[int, int]:
    """Spikes that differ, and neuron-timesteps."""
    path = folder / "theirs.nir"
    nir.write(path, one.graph)
    graph = read(path, one.info)
    trace = simulate(graph, Recording(spikes={"": one.inputs}), engine="reference", trace=True)
    assert set(trace.spikes) == set(one.spikes)
    return (
        sum(int((trace.spikes[name] != counts).sum()) for name, counts in one.spikes.items()),
        sum(counts.size for counts in one.spikes.values()),
    )


@pytest.mark.parametrize(("peer", "kind"), CASES)
def test_files_spike_as_the_modules_they_were_written_from(
    peer: str, kind: str, tmp_path: Path
) -> None:
    found = []
    for seed in SEEDS:
        one = written_by(peer, kind, seed)
        assert any(counts.any() for counts in one.spikes.values())
        found.append(differing(one, tmp_path))
    print(f"{peer} {kind}: differing spikes, of neuron-timesteps, by seed: {found}")
    if (peer, kind) in MISREAD:
        assert any(differ for differ, _ in found), "a file that does tell: say so in MISREAD"
    else:
        assert not any(differ for differ, _ in found)


def test_outputs_without_spikes_are_the_membranes_of_the_module(tmp_path: Path) -> None:
    for peer, kind in (("norse", "current"), ("sinabs", "membranes"), ("rockpool", "membranes")):
        one = written_by(peer, kind, 0)
        path = tmp_path / "theirs.nir"
        nir.write(path, one.graph)
        graph = read(path, one.info)
        trace = simulate(graph, Recording(spikes={"": one.inputs}), engine="reference", trace=True)
        (output,) = graph.outputs
        # float32: 48 steps, each rounding sums of 8 weights and a decay
        np.testing.assert_allclose(trace.membrane[output], one.output, rtol=1e-5, atol=1e-5)


def test_the_kept_files_are_what_the_libraries_write(tmp_path: Path) -> None:
    make(tmp_path)
    kept = sorted(path.name for path in FOLDER.iterdir())
    assert kept == sorted(path.name for path in tmp_path.iterdir())
    for name in kept:
        assert (FOLDER / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert json.loads((FOLDER / "recordings.json").read_text(encoding="utf-8"))
