"""The exported ONNX file in onnxruntime against the event engine, in one run.

    python benchmarks/onnx_engine.py [--json]

The network of ``event.py``, for the target ``generic``. Medians of interleaved rounds of processor
time, one thread each; the spikes are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from event import ROUNDS, SAMPLES, cpu_seconds, network
from snn_deploy.exporters import exporter

from snn_deploy import Recording, freeze, quantize, simulate

TIMESTEPS = 4


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
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, work in runs.items():
            times[name].append(cpu_seconds(work))
    median = {name: statistics.median(taken) for name, taken in times.items()}
    slots = SAMPLES * TIMESTEPS * sum(p.size for p in graph.spiking())
    return {
        "rate": sum(int(s.sum()) for s in trace.record.spikes.values()) / slots,
        "event_ms_per_sample": 1e3 * median["event"] / SAMPLES,
        "onnxruntime_ms_per_sample": 1e3 * median["onnxruntime"] / SAMPLES,
        "onnxruntime_over_event": median["onnxruntime"] / median["event"],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
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
