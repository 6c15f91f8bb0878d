"""A spiking ResNet-18 in the event engine, against the same network in torch.

T=4, 3x32x32 constant input, 8-bit weights. torch runs it in float32, its convolutions over all
timesteps at once: in either layout, the batch whole or in parts that the cache holds, neurons
eager or compiled, and of these the fastest. Its int8 convolutions are timed without neurons: they
bring their sums back to 8 bits, so that no spikes could be compared.
"""

from __future__ import annotations

import statistics
import time
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import limit
from benchmarks.in_torch import (
    InPlace,
    Plain,
    TorchNet,
    as_torch,
    calibrate,
    compile_neurons,
    same_spikes,
)
from benchmarks.measuring import Options, Row, Work, fastest, interleaved, milliseconds, ratio
from benchmarks.networks import Network, Ours, accumulates, rates, resnet18

BATCH = 64
PART = 8  # samples that torch runs at a time, where it is given the batch in parts
GOALS = {0.05: (15, 25), 0.1: (13, 18), 0.15: (11, 16), 0.3: (7, 10)}
RATE = 0.15  # of all rows but the first ones


def in_parts(model: TorchNet, data: Tensor, size: int) -> None:
    """Run a batch in parts."""
    for part in data.split(size):
        model(part)


def int8_convolutions(network: Network, samples: int) -> dict[str, Work]:
    """All convolutions of the network over spikes of the right shapes, by torch's engine."""
    works: dict[str, Work] = {}
    shapes = {"in": network.input_shape} | {u.name: u.shape for u in network.units}
    for engine in ("onednn", "x86"):
        if engine not in torch.backends.quantized.supported_engines:
            continue
        torch.backends.quantized.engine = engine
        calls: list[tuple[Any, Any]] = []
        for unit in network.units:
            for feed in unit.feeds:
                if feed.weight is None or feed.weight.ndim != 4:
                    continue
                steps = 1 if feed.source == "in" else network.steps
                spikes = torch.rand(samples * steps, *shapes[feed.source]) < RATE
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # quantized tensors are on their way out
                    given = torch.quantize_per_tensor(spikes.float(), 1.0, 0, torch.quint8)
                    weight = torch.quantize_per_tensor(
                        torch.from_numpy(feed.weight / 2).float(), 1.0, 0, torch.qint8
                    )
                given = given.contiguous(memory_format=torch.channels_last)
                pad, stride = feed.weight.shape[2] // 2, feed.stride
                packed = torch.ops.quantized.conv2d_prepack(
                    weight, None, [stride, stride], [pad, pad], [1, 1], 1
                )
                calls.append((given, packed))
        works[engine] = partial(_convolve, engine, calls)
    return works


def _convolve(engine: str, calls: list[tuple[Any, Any]]) -> None:
    torch.backends.quantized.engine = engine
    for given, packed in calls:
        torch.ops.quantized.conv2d(given, packed, 64.0, 64)


class Bench:
    """The network at one batch size, in the engine and in torch."""

    def __init__(self, samples: int) -> None:
        torch.compiler.reset()
        self.network = resnet18()
        self.samples = samples
        self.data = self.network.draw(samples)
        self.x = as_torch(self.data)
        self.models = {
            name: TorchNet(self.network, InPlace, channels_last=name == "channels_last")
            for name in ("contiguous", "channels_last")
        }
        self.note = ""
        self.work = f"{self.network.name}, T={self.network.steps}, batch {samples}"

    def at(self, rate: float) -> Ours:
        """Our side with all populations at this rate, which torch's get, too; parity is checked."""
        calibrate(self.network, self.network.draw(4, seed=2), rate)
        for model in self.models.values():
            model.take_thresholds()
        ours = Ours(self.network)
        checked = self.data[:PART]
        trace = ours(checked, trace=True)
        for name, model in self.models.items():
            same_spikes(f"{self.work}, {name}", trace, model, as_torch(checked))
        return ours

    def ways(self) -> dict[str, Work]:
        """All ways of torch to run the batch."""
        sizes = sorted({self.samples, min(self.samples, PART)})
        return {
            f"{name}, {size} at a time": partial(in_parts, model, self.x, size)
            for name, model in self.models.items()
            for size in sizes
        }

    def fastest_way(self, options: Options) -> str:
        """The fastest of the ways, after the neurons of the fastest one have been compiled, too."""
        with torch.inference_mode():
            best = fastest(interleaved(self.ways(), 1))
        if options.quick:
            return best
        layout, parts = best.split(", ")
        model = TorchNet(self.network, Plain, channels_last=layout == "channels_last")
        size = int(parts.split()[0])
        self.note = compile_neurons(model, self.x[:size])
        if self.note:
            return best
        self.models[f"compiled {layout}"] = model
        ways = self.ways()
        with torch.inference_mode():
            names = best, f"compiled {layout}, {parts}"
            return fastest(interleaved({name: ways[name] for name in names}, 3))


def against_torch(
    bench: Bench, rate: float, best: str, goals: tuple[float, float], options: Options
) -> Row:
    """A row against the float32 network, run in the best way and in the usual one."""
    ours = bench.at(rate)
    ways = bench.ways()
    usual = f"channels_last, {bench.samples} at a time"
    trace = ours(bench.data)
    same_spikes(bench.work, trace, bench.models["channels_last"], bench.x)
    found = rates(ours, trace).values()
    works = {"ours": lambda: ours(bench.data), best: ways[best], usual: ways[usual]}
    with torch.inference_mode():
        times = interleaved(works, options.rounds)
    return Row(
        work=f"{bench.work}, {rate:.0%}",
        against="float32 torch net",
        **ratio(times[best], times["ours"]),
        goal=goals[0],
        stretch=goals[1],
        ours_ms=milliseconds(times["ours"], bench.samples),
        theirs_ms=milliseconds(times[best], bench.samples),
        note="; ".join(
            filter(
                None,
                [best, f"populations fire at {min(found):.1%} to {max(found):.1%}", bench.note],
            )
        ),
        details={usual: ratio(times[usual], times["ours"])["ratio"]},
    )


def against_int8(bench: Bench, options: Options) -> list[Row]:
    """The rows against int8 convolutions and against the limit of the machine, in one run."""
    ours = bench.at(RATE)
    convolutions, additions = int8_convolutions(bench.network, bench.samples), limit.works()
    with torch.inference_mode():
        works = {"ours": lambda: ours(bench.data)} | convolutions | additions
        times = interleaved(works, options.rounds)
    best = fastest({name: times[name] for name in convolutions})
    added = accumulates(ours, ours(bench.data))
    mine = [taken / added for taken in times["ours"]]
    most = {name: [taken / limit.ADDITIONS for taken in times[name]] for name in additions}
    ours_ms = milliseconds(times["ours"], bench.samples)
    return [
        Row(
            work=f"{bench.work}, {RATE:.0%}",
            against="int8 convolutions of torch alone",
            **ratio(times[best], times["ours"]),
            goal=1.5,
            stretch=2,
            ours_ms=ours_ms,
            theirs_ms=milliseconds(times[best], bench.samples),
            note=f"quantized engine {best}; ours with neurons, theirs without",
        ),
        Row(
            work=f"{bench.work}, {RATE:.0%}",
            against="limit of int8-widening additions from L1",
            **ratio(most["L1"], mine),
            goal=0.45,
            stretch=0.6,
            ours_ms=ours_ms,
            note=f"a share; {per_nanosecond(mine)} Gadd/s of "
            + ", ".join(f"{per_nanosecond(taken)} from {name}" for name, taken in most.items()),
            details={"share of L2": ratio(most["L2"], mine)["ratio"]},
        ),
    ]


def per_nanosecond(seconds: list[float]) -> str:
    """Billions per second, of the median time of one."""
    return f"{1e-9 / statistics.median(seconds):.0f}"


def two_threads(bench: Bench, options: Options) -> Row:
    """The row of two threads over one, by the wall clock."""
    work, against = f"{bench.work}, {RATE:.0%}, 2 threads", "itself, 1 thread"
    goals: dict[str, Any] = {"goal": 1.8, "stretch": 1.95}
    one = bench.at(RATE)
    two = Ours(bench.network, threads=2)
    with_two, with_one = two(bench.data), one(bench.data)
    for name, spikes in with_one.record.sample_spikes.items():
        if (with_two.record.sample_spikes[name] != spikes).any():
            raise SystemExit(f"two threads: other spikes in {name}")
    works = {"two": lambda: two(bench.data), "one": lambda: one(bench.data)}
    times = interleaved(works, options.rounds, time.perf_counter)
    return Row(
        work=work,
        against=against,
        **ratio(times["one"], times["two"]),
        **goals,
        ours_ms=milliseconds(times["two"], bench.samples),
        theirs_ms=milliseconds(times["one"], bench.samples),
        note="wall clock",
    )


def rows(options: Options) -> list[Row]:
    """All rows of this network."""
    bench = Bench(BATCH)
    bench.at(RATE)
    best = bench.fastest_way(options)
    found = [against_torch(bench, rate, best, goals, options) for rate, goals in GOALS.items()]
    found += against_int8(bench, options)
    found.append(two_threads(bench, options))
    single = Bench(1)
    single.at(RATE)
    best = single.fastest_way(options)
    found.append(against_torch(single, RATE, best, (8, 12), options))
    return found
