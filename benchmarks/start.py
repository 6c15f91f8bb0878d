"""A whole process, from nothing to the first result, beside one that only imports torch.

A small network (784-128-10, 32 timesteps) is opened from an exported folder and run on one sample,
with kernels that were compiled before. CPU time of the process, user and system, is what is
compared; wall time is in the details.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from snn_deploy.exporters import exporter

from benchmarks.in_torch import calibrate
from benchmarks.measuring import Options, Row, milliseconds, ratio
from benchmarks.networks import Network, perceptron

STEPS = 32
OURS = """
import sys
import numpy
from snn_deploy import Recording, open_artefact, simulate
with numpy.load(sys.argv[2]) as file:
    recording = Recording(spikes={"": file["spikes"]})
print(int(simulate(open_artefact(sys.argv[1]).graph, recording).output["out"].sum()))
"""
TORCH = "import torch"


def prepared(folder: Path) -> tuple[list[str], int]:
    """The files of a network and one sample, and the spikes that it must count."""
    network: Network = replace(perceptron(), steps=STEPS, leak=True)
    calibrate(network, network.draw(8, 0.1, seed=2), 0.1)
    graph = network.graph()
    exporter("nir").export(graph, folder)
    path, spikes = folder / "model.nir", folder / "sample.npz"
    data = network.draw(1, 0.1)
    np.savez(spikes, spikes=data)
    from snn_deploy import Recording, simulate

    wanted = simulate(graph, Recording(spikes={"in": data}), engine="reference")
    return [str(path), str(spikes)], int(wanted.output["out"].sum())


def process(arguments: list[str]) -> tuple[float, float, str]:
    """CPU and wall seconds of one Python process, and what it said."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", *arguments], check=True, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return cpu, wall, done.stdout


def rows(options: Options) -> list[Row]:
    """The row of a whole process."""
    with tempfile.TemporaryDirectory() as name:
        files, wanted = prepared(Path(name))
        commands = {"ours": [OURS, *files], "torch": [TORCH]}
        for _ in range(2):  # the first one compiles, if nothing did before
            said = process(commands["ours"])[2]
        if int(said) != wanted:
            raise SystemExit("a fresh process counts other spikes")
        process(commands["torch"])
        cpu: dict[str, list[float]] = {"ours": [], "torch": []}
        wall: dict[str, list[float]] = {"ours": [], "torch": []}
        for _ in range(options.rounds):
            for who, arguments in commands.items():
                taken = process(arguments)
                cpu[who].append(taken[0])
                wall[who].append(taken[1])
    return [
        Row(
            work=f"whole process, 784-128-10, T={STEPS}, import to first result",
            against="`import torch` alone",
            **ratio(cpu["ours"], cpu["torch"]),
            goal=1.0,
            stretch=0.4,
            at_most=True,
            ours_ms=milliseconds(cpu["ours"]),
            theirs_ms=milliseconds(cpu["torch"]),
            note="CPU time of the process, ours over theirs",
            details={
                "best over best": min(cpu["ours"]) / min(cpu["torch"]),
                "wall, median over median": statistics.median(wall["ours"])
                / statistics.median(wall["torch"]),
                "wall, best over best": min(wall["ours"]) / min(wall["torch"]),
            },
        )
    ]
