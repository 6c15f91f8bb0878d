"""Single layers of the event engine against torch's float32 convolution, in one run.

    python benchmarks/layers.py [--rates 0.02 0.1 0.3] [--json]

Random 8-bit weights and independent spikes, T=4, one thread. `gather` is the synapses alone:
billion accumulates per second, and how many times as fast as torch's convolution of the same spikes
in its best layout. `layer` is all the engine does, from a recording of 0/1 to spike counts.
The sums are compared with torch's before anything is timed; medians of interleaved rounds of thread
CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.packets import Recording
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.packing import pack
from snn_deploy.sim.panels import Panels
from snn_deploy.sim.plan import plan
from snn_deploy.synapses import Conv2d, Dense

STEPS = 4


@dataclass(frozen=True)
class Layer:
    """A layer and how many samples make one measurement."""

    name: str
    source: tuple[int, ...]
    targets: int
    samples: int
    kernel: int = 3
    stride: int = 1


LAYERS = (
    Layer("64x32x32 -> 64", (64, 32, 32), 64, 4),
    Layer("64x32x32 -> 128 /2", (64, 32, 32), 128, 4, stride=2),
    Layer("128x16x16 -> 128", (128, 16, 16), 128, 8),
    Layer("256x8x8 -> 256", (256, 8, 8), 256, 8),
    Layer("512x4x4 -> 512", (512, 4, 4), 512, 16),
    Layer("512x4x4 -> 512 1x1", (512, 4, 4), 512, 16, kernel=1),
    Layer("dense 4096 -> 4096", (4096,), 4096, 64),
    Layer("dense 784 -> 128", (784,), 128, 64),
)


def graph_of(layer: Layer, rng: np.random.Generator) -> Graph:
    """The layer as a graph of one population, in Loihi's arithmetic, which fires now and then."""
    conv = len(layer.source) == 3
    shape = (layer.targets, layer.source[0], *([layer.kernel] * 2 if conv else []))
    weight = 2 * rng.integers(-128, 128, shape)
    pad, stride = layer.kernel // 2, layer.stride
    synapses = Conv2d(weight, (stride, stride), (pad, pad)) if conv else Dense(weight)
    spread = 148 * np.sqrt(0.1 * weight[0].size)  # of the sum at a rate of 10%
    neurons = LIF(decay=np.array(2048), threshold=np.array(int(spread)), bias=np.array(0))
    return Graph(
        inputs=(InputSpec(name="in", kind="spikes", shape=layer.source),),
        populations=(
            Population(
                name="p", shape=synapses.target_shape(layer.source), neurons=neurons, scale=1.0
            ),
        ),
        projections=(Projection(source="in", target="p", synapses=synapses),),
        outputs=("p",),
        number_format=target("loihi2").require_format(),
    )


def torch_layer(layer: Layer, weight: Any, spikes: Any) -> list[Callable[[], torch.Tensor]]:
    """The same sums in float32, in each layout; [samples * steps, ...]."""
    values = torch.from_numpy(spikes.reshape(-1, *layer.source).astype(np.float32))
    kernel = torch.from_numpy(weight.astype(np.float32))
    if len(layer.source) == 1:
        return [lambda: torch.nn.functional.linear(values, kernel)]

    def convolution(layout: torch.memory_format) -> Callable[[], torch.Tensor]:
        seen, used = values.to(memory_format=layout), kernel.to(memory_format=layout)
        return lambda: torch.nn.functional.conv2d(
            seen, used, stride=layer.stride, padding=layer.kernel // 2
        )

    return [convolution(layout) for layout in (torch.contiguous_format, torch.channels_last)]


def medians(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """Thread CPU time of each, interleaved."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, times, strict=True):
            start = time.thread_time()
            work()
            taken.append(time.thread_time() - start)
    return [statistics.median(taken) for taken in times]


def measure(layer: Layer, rate: float, rounds: int) -> dict[str, Any]:
    """One layer at one rate."""
    rng = np.random.default_rng(0)
    graph = graph_of(layer, rng)
    engine = EventEngine(graph)
    spikes = (rng.random((layer.samples, STEPS, *layer.source)) < rate).astype(np.uint8)
    recording = Recording(spikes={"in": spikes})
    ready = plan(graph, recording, steps=STEPS, timing="zero_delay", trace=False)
    (population,) = graph.populations
    channels = population.shape[0]
    words = pack(spikes)
    sums = np.zeros((layer.samples, STEPS, population.size // channels, channels), np.int32)
    events = np.zeros(layer.samples, np.int64)
    table = engine.synapses["in->p"]
    assert isinstance(table, Panels)
    room = table.room()

    def gather() -> None:
        sums[:] = 0
        events[:] = 0
        table.add_spikes(words, 0, STEPS, 0, sums, events, room)

    peers = torch_layer(layer, graph.projections[0].synapses.weight, spikes)
    gather()
    for peer in peers:
        wanted = peer().reshape(layer.samples * STEPS, channels, -1).transpose(1, 2).numpy()
        if not np.array_equal(sums.reshape(wanted.shape), wanted.astype(np.int64)):
            raise SystemExit(f"{layer.name}: the sums differ")
    fired = engine.run(ready).record.sample_spikes["p"].sum()
    with torch.inference_mode():
        gathered, whole, *dense = medians([gather, lambda: engine.run(ready), *peers], rounds)
    return {
        "layer": layer.name,
        "rate": rate,
        "fired": float(fired / (layer.samples * STEPS * population.size)),
        "gather_gadd_per_s": float(1e-9 * events.sum() / gathered),
        "gather_over_torch": min(dense) / gathered,
        "layer_over_torch": min(dense) / whole,
        "layer_ms_per_sample": 1e3 * whole / layer.samples,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.1, 0.3])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(layer, r, arguments.rounds) for layer in LAYERS for r in arguments.rates]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'layer':20} {'rate':>5} {'fired':>6} {'gather Gadd/s':>14} {'x torch':>8} "
          f"{'layer ms/sample':>16} {'x torch':>8}")  # fmt: skip
    for row in rows:
        print(
            f"{row['layer']:20} {row['rate']:5.0%} {row['fired']:6.1%} "
            f"{row['gather_gadd_per_s']:14.1f} {row['gather_over_torch']:8.1f} "
            f"{row['layer_ms_per_sample']:16.3f} {row['layer_over_torch']:8.1f}"
        )


if __name__ == "__main__":
    main()
