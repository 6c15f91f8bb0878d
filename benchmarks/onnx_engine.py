"""The exported ONNX file in onnxruntime against the event engine, in one run.

    python -m benchmarks.onnx_engine [--json]

A trained network's way: three convolutions on 32x32 maps with batch normalisation, which is set so
that populations fire at about the given rate, frozen and quantized for the target ``generic``.
Thread CPU time of interleaved rounds, one thread each; the spikes are compared before anything is
timed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from snn_deploy.exporters import exporter

from benchmarks.measuring import interleaved, milliseconds
from snn_deploy import Recording, freeze, quantize, simulate
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet

ROUNDS = 5
SAMPLES = 8
TIMESTEPS = 4


def network(rate: float) -> SpikingNet:
    """A random network whose batch normalisation puts each population at about ``rate``."""
    torch.manual_seed(0)
    layers: list[dict[str, Any]] = []
    for channels in (32, 64, 64):
        layers += [
            {"type": "conv", "channels": channels, "kernel": 3, "padding": 1},
            {"type": "batchnorm"},
            {"type": "lif"},
        ]
    layers += [{"type": "avgpool", "kernel": 4}, {"type": "flatten"}]
    layers += [{"type": "linear", "features": 10}]
    data = {
        "timesteps": TIMESTEPS,
        "input": {"kind": "constant", "shape": [3, 32, 32]},
        "lif": {"threshold": 0.5, "decay": 0.5},
        "layers": layers,
    }
    model = SpikingNet(parse(data, "benchmark"))
    # With unit-variance currents the rate follows from the bias of the batch normalisation.
    bias = {0.02: -1.2, 0.1: -0.55, 0.3: 0.05}[rate]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, bias)
            torch.nn.init.constant_(module.weight, 0.8)
            module.momentum = None
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.rand(32, 3, 32, 32))
    return model.eval()


def measure(rate: float) -> dict[str, float]:
    """Ratio of processor time at one rate."""
    values = np.random.default_rng(0).random((SAMPLES, 3, 32, 32), np.float32)
    recording = Recording(values={"": values})
    graph = quantize(freeze(network(rate)), "generic")
    (spec,) = graph.inputs
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        exporter("onnx").export(graph, Path(folder))
        session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), options)
    names = [output.name for output in session.get_outputs()]
    feeds = {
        spec.name: spec.encode(values).astype(np.int32),
        "/timesteps": np.array([TIMESTEPS], np.int64),
    }
    found = dict(zip(names, session.run(names, feeds), strict=True))
    trace = simulate(graph, recording, trace=True)  # also compiles the kernels
    for name, spikes in trace.spikes.items():
        if (found[f"{name}/spikes"] != spikes).any():
            raise SystemExit("the spikes differ")
    runs: dict[str, Callable[[], object]] = {
        "event": lambda: simulate(graph, recording, engine="event"),
        "onnxruntime": lambda: session.run(names, feeds),
    }
    times = interleaved(runs, ROUNDS)
    slots = SAMPLES * TIMESTEPS * sum(p.size for p in graph.spiking())
    return {
        "rate": sum(int(s.sum()) for s in trace.record.spikes.values()) / slots,
        "event_ms_per_sample": milliseconds(times["event"], SAMPLES),
        "onnxruntime_ms_per_sample": milliseconds(times["onnxruntime"], SAMPLES),
        "onnxruntime_over_event": milliseconds(times["onnxruntime"]) / milliseconds(times["event"]),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(rate) for rate in (0.02, 0.1, 0.3)]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'rate':>6} {'event ms':>9} {'ort ms':>9} {'ort / event':>12}")
    for row in rows:
        ratio = row["onnxruntime_over_event"]
        times = f"{row['event_ms_per_sample']:9.2f} {row['onnxruntime_ms_per_sample']:9.2f}"
        print(f"{row['rate']:6.3f} {times} {ratio:12.2f}")


if __name__ == "__main__":
    main()
