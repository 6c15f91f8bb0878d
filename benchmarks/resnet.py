"""A spiking ResNet-18 through the event engine, against the same network in torch's float32.

    python benchmarks/resnet.py [--rates 0.05 0.1 0.2] [--samples 16] [--json]

Random 8-bit weights, 3x32x32 constant input, T=4, Loihi's arithmetic; thresholds are set layer by
layer so that every population fires at about the given rate. torch runs its convolutions over all
timesteps at once, in float32 and in the better of its two memory layouts. One thread; all spikes
are compared before anything is timed; medians of interleaved rounds of thread CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection
from snn_deploy.hardware import target
from snn_deploy.packets import Recording
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.plan import plan
from snn_deploy.synapses import Conv2d, Dense, one_to_one

STEPS = 4
FORMAT = target("loihi2").require_format()


@dataclass(frozen=True)
class Unit:
    """A population and what feeds it: (source, kernel, stride, identity)."""

    name: str
    channels: int
    side: int
    feeds: tuple[tuple[str, int, int, bool], ...]


def units(width: int) -> list[Unit]:
    """The stem and four stages of two blocks of two convolutions."""
    found = [Unit("stem", width, 32, (("in", 3, 1, False),))]
    last, side = "stem", 32
    for stage in range(4):
        channels, stride = width << stage, 1 if stage == 0 else 2
        for block in range(2):
            step = stride if block == 0 else 1
            side //= step
            name = f"s{stage}b{block}"
            found.append(Unit(f"{name}a", channels, side, ((last, 3, step, False),)))
            short = (last, 1, step, step == 1)
            found.append(Unit(f"{name}b", channels, side, ((f"{name}a", 3, 1, False), short)))
            last = f"{name}b"
    return found


class Network:
    """The network as an integer graph and as torch tensors."""

    def __init__(self, rate: float, width: int, calibration: torch.Tensor) -> None:
        self.rng = np.random.default_rng(0)
        self.units = units(width)
        self.weights: dict[tuple[str, str], torch.Tensor] = {}
        self.thresholds: dict[str, int] = {}
        sizes = {"in": 3} | {u.name: u.channels for u in self.units}
        for unit in self.units:
            for source, kernel, _, identity in unit.feeds:
                shape = (unit.channels, sizes[source], kernel, kernel)
                weight = 2 * self.rng.integers(-128, 128, shape)
                if identity:
                    weight = 200 * np.eye(unit.channels, dtype=np.int64)[:, :, None, None]
                self.weights[unit.name, source] = torch.from_numpy(weight.astype(np.float32))
        self.weights["out", self.units[-1].name] = torch.from_numpy(
            2.0 * self.rng.integers(-128, 128, (10, sizes[self.units[-1].name] * 16))
        ).float()
        with torch.inference_mode():
            self.run(calibration, torch.contiguous_format, exact=True, rate=rate)

    def run(
        self, images: Any, layout: torch.memory_format, *, exact: bool, rate: float | None = None
    ) -> dict[str, torch.Tensor]:
        """Spikes [steps * samples, ...] of every population; with a rate, thresholds are set.

        ``exact`` cuts decayed membranes to integers, as the graph does.
        """
        sent = {"in": images.to(memory_format=layout)}
        for unit in self.units:
            current: Any = 0
            for source, kernel, stride, identity in unit.feeds:
                if identity:
                    current = current + 200.0 * sent[source]
                    continue
                weight = self.weights[unit.name, source].to(memory_format=layout)
                current = current + functional.conv2d(
                    sent[source], weight, stride=stride, padding=kernel // 2
                )
            if rate is not None:
                self.thresholds[unit.name] = self._threshold(current, unit.name, rate)
            sent[unit.name] = self._fire(current, self.thresholds[unit.name], exact)
        last = sent[self.units[-1].name]
        linear = functional.linear(last.flatten(1), self.weights["out", self.units[-1].name])
        if rate is not None:
            self.thresholds["out"] = self._threshold(linear, "out", rate)
        sent["out"] = self._fire(linear, self.thresholds["out"], exact)
        return sent

    def _fire(self, current: torch.Tensor, threshold: int, exact: bool) -> torch.Tensor:
        samples = len(current) if current.shape[0] == self.samples else len(current) // STEPS
        constant = len(current) == samples
        spikes, membrane = [], torch.zeros_like(current[:samples])
        for step in range(STEPS):
            membrane = membrane * 0.5
            if exact:  # membranes count in 1/64 of a weight unit
                membrane = torch.trunc(membrane * 64) / 64
            membrane += current if constant else current[step * samples : (step + 1) * samples]
            fired = membrane > threshold
            spikes.append(fired.to(torch.float32))
            membrane.masked_fill_(fired, 0.0)
        return torch.cat(spikes)

    samples = 0

    def _threshold(self, current: torch.Tensor, name: str, rate: float) -> int:
        low, high = 1, 1 << 16
        while high - low > 1:
            middle = (low + high) // 2
            fired = self._fire(current, middle, True).mean()
            low, high = (middle, high) if fired > rate else (low, middle)
        return low

    def graph(self) -> Graph:
        """The same as an integer graph."""
        populations, projections = [], []
        for unit in self.units:
            shape = (unit.channels, unit.side, unit.side)
            for source, kernel, stride, identity in unit.feeds:
                weight = self.weights[unit.name, source].numpy().astype(np.int64)
                synapses = (
                    one_to_one(shape, 200)
                    if identity
                    else Conv2d(weight, (stride, stride), (kernel // 2, kernel // 2))
                )
                projections.append(Projection(source=source, target=unit.name, synapses=synapses))
            populations.append(self._population(unit.name, shape))
        last = self.units[-1].name
        weight = self.weights["out", last].numpy().astype(np.int64)
        projections.append(Projection(source=last, target="out", synapses=Dense(weight)))
        populations.append(self._population("out", (10,)))
        spec = InputSpec(name="in", kind="constant", shape=(3, 32, 32), high=255.0, scale=1.0)
        return Graph(
            inputs=(spec,),
            populations=tuple(populations),
            projections=tuple(projections),
            outputs=("out",),
            timesteps=STEPS,
            number_format=replace(FORMAT, bias_bits=32),
        )

    def _population(self, name: str, shape: tuple[int, ...]) -> Population:
        neurons = LIF(
            decay=np.array(2048), threshold=np.array(self.thresholds[name]), bias=np.array(0)
        )
        return Population(name=name, shape=shape, neurons=neurons, scale=1.0)


def measure(rate: float, samples: int, width: int, rounds: int) -> dict[str, Any]:
    """The network at one rate."""
    torch.manual_seed(0)
    images = torch.randint(0, 32, (samples, 3, 32, 32)).float()
    Network.samples = samples
    network = Network(rate, width, images)
    graph = network.graph()
    began = time.thread_time()
    engine = EventEngine(graph)
    built = time.thread_time() - began
    recording = Recording(values={"in": images.numpy()})

    def event(trace: bool = False) -> Any:
        ready = plan(graph, recording, steps=STEPS, timing="zero_delay", trace=trace)
        return engine.run(ready)

    tracemalloc.start()
    quiet = event()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with torch.inference_mode():
        wanted = network.run(images, torch.channels_last, exact=True)
        traced = event(trace=True)
        for name, spikes in traced.spikes.items():
            mine = np.swapaxes(spikes, 0, 1).reshape(-1, *spikes.shape[2:])
            if not np.array_equal(mine, wanted[name].numpy().astype(bool)):
                raise SystemExit(f"{name}: the spikes differ")
        layouts = (torch.contiguous_format, torch.channels_last)
        works = [event] + [lambda k=k: network.run(images, k, exact=False) for k in layouts]
        times: list[list[float]] = [[] for _ in works]
        for _ in range(rounds):
            for work, taken in zip(works, times, strict=True):
                start = time.thread_time()
                work()
                taken.append(time.thread_time() - start)
    mine, *theirs = (statistics.median(taken) for taken in times)
    accumulates = sum(
        int(quiet.record.events[p.name].sum())
        for p in graph.projections
        if not graph.carries_values(p)
    )
    spikes = sum(int(s.sum()) for s in quiet.record.sample_spikes.values())
    return {
        "rate": spikes / (samples * STEPS * sum(p.size for p in graph.populations)),
        "million_accumulates_per_sample": 1e-6 * accumulates / samples,
        "event_ms_per_sample": 1e3 * mine / samples,
        "torch_ms_per_sample": 1e3 * min(theirs) / samples,
        "torch_over_event": min(theirs) / mine,
        "gadd_per_s": 1e-9 * accumulates / mine,
        "built_s": built,
        "peak_mb": 1e-6 * peak,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(rate, arguments.samples, arguments.width, arguments.rounds)
        for rate in arguments.rates
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'rate':>6} {'M add/sample':>12} {'ms/sample':>10} {'torch':>8} {'x torch':>8} "
          f"{'Gadd/s':>7} {'peak MB':>8}")  # fmt: skip
    for row in rows:
        print(
            f"{row['rate']:6.1%} {row['million_accumulates_per_sample']:12.1f} "
            f"{row['event_ms_per_sample']:10.2f} {row['torch_ms_per_sample']:8.2f} "
            f"{row['torch_over_event']:8.1f} {row['gadd_per_s']:7.1f} "
            f"{row['peak_mb']:8.0f}"
        )


if __name__ == "__main__":
    main()
