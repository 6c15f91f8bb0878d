"""Random networks in Lava: spikes, current and membrane of every layer, at every timestep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy import open_artefact, simulate
from snn_deploy.graph import Graph
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, Trace
from tests.helpers.lava import RANDOM_NETS, Lava, read
from tests.helpers.numbers import Array
from tests.peers.random_netx import Builder

ENGINES: tuple[EngineName, ...] = ("reference", "event")


def differences(trace: Trace, names: dict[str, str], recorded: dict[str, Array]) -> dict[str, int]:
    """Differing values by array; ``names``: population in the trace -> population in Lava."""
    found = {}
    for name, theirs in names.items():
        for part, values in (
            ("spikes", trace.spikes),
            ("current", trace.current),
            ("membrane", trace.membrane),
        ):
            expected = recorded[f"{theirs}.{part}"]
            mine = values[name][0] if name in values else np.zeros_like(expected)
            assert mine.shape == expected.shape, f"{name}.{part}"
            found[f"{name}.{part}"] = int((mine != expected).sum())
    return found


def recording(graph: Graph, fed: Array) -> Recording:
    (spec,) = graph.inputs
    return Recording(spikes={"": fed}) if spec.kind == "spikes" else Recording(values={"": fed})


def test_random_files_of_strangers(tmp_path: Path) -> None:
    cases = [Builder(seed).case(tmp_path, f"net{seed}") for seed in range(RANDOM_NETS)]
    lines = Lava.found(tmp_path).batch([case.job(tmp_path) for case in cases])
    values = 0
    for seed, (case, line) in enumerate(zip(cases, lines, strict=True)):
        assert line["ok"], (seed, line["error"])
        recorded = read(case.path.with_suffix(".out.npz"))
        graph = open_artefact(
            case.path, input_bits=case.input_bits, input_shape=case.input_shape
        ).graph
        options: dict[str, Any] = {"steps": case.steps, "timing": "pipelined", "trace": True}
        if case.reset_interval is not None:
            options |= {"reset_interval": case.reset_interval, "reset_offset": case.reset_offset}
        for engine in ENGINES:
            trace = simulate(graph, recording(graph, case.fed), engine=engine, **options)
            found = differences(trace, {p.name: p.name for p in graph.populations}, recorded)
            assert not any(found.values()), (seed, engine, found)
        values += sum(a.size for name, a in recorded.items() if name != "meta")
    print(f"{len(cases)} files, {values} values, 0 differ")
