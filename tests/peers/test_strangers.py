"""Networks that other people trained, in Lava: every spike, current and membrane is ours.

Samples follow each other in one pipelined run with resets; its windows must be what the zero-delay
graph does with each sample, which is what accuracies are measured with (tests/test_strangers.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy import open_artefact, simulate
from snn_deploy.sim.timing import pipelined
from tests.helpers.lava import Lava, read
from tests.helpers.strangers import STRANGERS

SAMPLES = {"bootstrap": 5, "rate_coded": 5, "oxford": 1, "nmnist": 3}


@pytest.mark.parametrize("name", STRANGERS)
def test_in_lava(name: str, lava: Lava, tmp_path: Path) -> None:
    net = STRANGERS[name](tmp_path, SAMPLES[name])
    graph = open_artefact(net.path).graph
    schedule = pipelined(graph)
    length = len(net.fed) * net.steps + schedule.latency
    job: dict[str, Any] = {
        "net": net.path,
        "input": tmp_path / "in.npz",
        "output": tmp_path / "out.npz",
        "steps": length,
        "reset_interval": net.steps,
        "reset_offset": min(schedule.stages.values()),
    }
    if net.recording.values:
        np.savez(job["input"], bias=net.fed)
        job["window"] = net.steps
    else:
        np.savez(job["input"], spikes=net.fed.reshape(-1, *net.fed.shape[2:]))
    [line] = lava.batch([job])
    assert line["ok"], line["error"]
    recorded = read(job["output"])
    trace = simulate(graph, net.recording, steps=net.steps, trace=True)
    values = 0
    for population, stage in schedule.stages.items():
        for part in ("spikes", "current", "membrane"):
            run = recorded[f"{population}.{part}"][stage : length - schedule.latency + stage]
            windows = run.reshape(-1, net.steps, *run.shape[1:])
            np.testing.assert_array_equal(windows, getattr(trace, part)[population])
            values += windows.size
    print(f"{name}: {values} values, 0 differ")
