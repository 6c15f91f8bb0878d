"""Event engine against the plain reference and a float32 torch network, in one run.

    python benchmarks/event.py [--json]

The network has the digits example's shape of layers on 32x32 maps with random weights; its float
thresholds are set so that every population fires at about the given rate. Medians of interleaved
rounds of thread CPU time, one thread; the engines' spikes are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from snn_deploy import Recording, freeze, quantize, simulate
from snn_deploy.nn.architecture import parse
from snn_deploy.nn.models import SpikingNet

ROUNDS = 5
SAMPLES = 8


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
        "timesteps": 4,
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


def cpu_seconds(work: Callable[[], object]) -> float:
    """Thread CPU time of one call."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def measure(rate: float) -> dict[str, float]:
    """Ratios of CPU time at one rate."""
    model = network(rate)
    values = np.random.default_rng(0).random((SAMPLES, 3, 32, 32), np.float32)
    recording = Recording(values={"": values})
    graph = quantize(freeze(model), "loihi2")
    images = torch.from_numpy(values)

    def torch_run() -> object:
        with torch.inference_mode():
            return model(images)

    runs: dict[str, Callable[[], object]] = {
        "event": lambda: simulate(graph, recording, engine="event"),
        "reference": lambda: simulate(graph, recording, engine="reference"),
        "torch": torch_run,
    }
    event = simulate(graph, recording, trace=True)  # also compiles the kernels
    reference = simulate(graph, recording, engine="reference", trace=True)
    if any((event.membrane[n] != reference.membrane[n]).any() for n in event.membrane):
        raise SystemExit("the engines differ")
    torch_run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, work in runs.items():
            times[name].append(cpu_seconds(work))
    median = {name: statistics.median(taken) for name, taken in times.items()}
    spikes = sum(int(s.sum()) for s in event.record.spikes.values())
    slots = SAMPLES * 4 * sum(p.size for p in graph.spiking())
    events = sum(int(e.sum()) for e in event.record.events.values())
    return {
        "rate": spikes / slots,
        "event_ms_per_sample": 1e3 * median["event"] / SAMPLES,
        "reference_over_event": median["reference"] / median["event"],
        "torch_over_event": median["torch"] / median["event"],
        "million_events_per_second": 1e-6 * events / median["event"],
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
    print(f"{'rate':>6} {'ms/sample':>10} {'x reference':>12} {'x torch f32':>12} {'Mevent/s':>9}")
    for row in rows:
        print(
            f"{row['rate']:6.1%} {row['event_ms_per_sample']:10.2f} "
            f"{row['reference_over_event']:12.1f} {row['torch_over_event']:12.1f} "
            f"{row['million_events_per_second']:9.0f}"
        )


if __name__ == "__main__":
    main()
