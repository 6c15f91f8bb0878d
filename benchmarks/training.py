"""One training step (forward and backward) beside SpikingJelly, snnTorch and a plain torch loop.

    PYTHONPATH=. .peers/training/bin/python benchmarks/training.py [--seconds 15] [--json]

The same network, weights, batch and rules for all: LIF with decay 0.5, threshold 0.5, hard reset,
batch normalisation over T*B. Every peer is at its best: stateless layers see all timesteps as one
batch, what precedes the first neuron is computed once where the input is constant, time is unbound
and not indexed, and of several ways to write it (surrogate, recurrent container or own loop; for
all, ours too, channels_last or not) the fastest is taken, found by a trial in this very run and
named in the table.
SpikingJelly 2.0 has no ``backend`` any more; on CPUs its nodes run its torch implementation.
snnTorch does less: it passes no gradient through the reset. Nothing uses torch.compile.

Before anything is timed, our gradients are compared with those of the plain loop, and the peers'
outputs with ours (SpikingJelly's gradients too, where its surrogate is one of ours), except in
channels_last, which sums in another order, and for RLeaky, whose reset is another.

Interleaved rounds in a random order, the optimiser left out. Ratios are medians over rounds of
(theirs / ours) within a round, with quartiles, of wall time; ``cpu`` is that of the process's CPU
time. With two threads they only mean something if two cores are free.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

# Threads that wait let others run: on a machine that does more than this, torch's threads are
# otherwise slower than one by a factor of ten or more, ours and the peers' alike. Read at import.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
logging.getLogger("torch._library.triton").setLevel(logging.ERROR)

import numba  # noqa: E402
import snntorch  # noqa: E402
import spikingjelly.activation_based as jelly  # noqa: E402
import torch  # noqa: E402
from spikingjelly.activation_based import functional, layer, neuron, surrogate  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from snn_deploy.nn import recurrence  # noqa: E402
from snn_deploy.nn.architecture import Architecture, Layer, parse  # noqa: E402
from snn_deploy.nn.models import SpikingNet  # noqa: E402
from snn_deploy.nn.neurons import LIF  # noqa: E402
from snn_deploy.nn.spikes import ASGL, SpikeFunction, SurrogateGradient  # noqa: E402

DECAY = THRESHOLD = 0.5
MOST_ASGL_RATIO = 1.15
TRIALS = 4
LEAST_ROUNDS = 15

Spike = dict[str, Any]
SURROGATE: Spike = {"function": "surrogate"}
ASGL_FRESH: Spike = {"function": "asgl", "probability": 0.8}
ASGL_SHARED: Spike = {**ASGL_FRESH, "shared": True}


@dataclass
class Contender:
    """One way to do the step: ``forward`` maps the input to what the loss sees."""

    who: str
    way: str
    forward: Callable[[Tensor], Tensor]
    x: Tensor
    backward: Callable[[Tensor], None]
    leaves: list[Tensor]
    same_output: bool = True  # to rounding; channels_last sums in another order, which flips spikes
    same_gradient: str = ""  # our smooth step whose gradient it has
    times: list[tuple[float, float]] = field(default_factory=list)

    def step(self) -> Tensor:
        """Forward and backward; gradients are left in the leaves."""
        out = self.forward(self.x)
        self.backward(out)
        return out.detach()

    def clear(self) -> None:
        """Forget gradients."""
        for leaf in self.leaves:
            leaf.grad = None

    def timed(self) -> tuple[float, float]:
        """Wall and process CPU seconds of one step."""
        self.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        self.step()
        return time.perf_counter() - wall, time.process_time() - cpu


# ---- networks ----


def conv(channels: int) -> list[dict[str, Any]]:
    """A convolution with its neurons."""
    return [
        {"type": "conv", "channels": channels, "kernel": 3, "padding": 1},
        {"type": "batchnorm"},
        {"type": "lif"},
    ]


def dense(features: int) -> list[dict[str, Any]]:
    """A linear layer with its neurons."""
    return [
        {"type": "linear", "features": features, "bias": False},
        {"type": "batchnorm"},
        {"type": "lif"},
    ]


POOL = {"type": "avgpool", "kernel": 2}
# Timesteps, input, batch, layers.
NETWORKS: dict[str, tuple[int, dict[str, Any], int, list[dict[str, Any]]]] = {
    "MLP 784-8x128-10": (
        4,
        {"kind": "constant", "shape": [784]},
        128,
        [*(entry for _ in range(8) for entry in dense(128)), {"type": "linear", "features": 10}],
    ),
    "conv 32x2-64x3": (
        4,
        {"kind": "constant", "shape": [3, 32, 32]},
        32,
        [*conv(32), *conv(32), POOL, *conv(64), *conv(64), *conv(64), POOL, {"type": "flatten"},
         {"type": "linear", "features": 10}],
    ),
    "recurrent 700-240-20": (
        100,
        {"kind": "spikes", "shape": [700]},
        64,
        [{"type": "linear", "features": 240, "bias": False}, {"type": "lif", "recurrent": True},
         {"type": "linear", "features": 20}],
    ),
}  # fmt: skip
LAYER = "LIF alone 4x64x32x16x16"


def architecture_of(name: str, spike: Spike) -> Architecture:
    """A network of the table as data."""
    timesteps, given, _, layers = NETWORKS[name]
    data = {
        "timesteps": timesteps,
        "input": given,
        "lif": {"threshold": THRESHOLD, "decay": DECAY},
        "spike": spike,
        "layers": layers,
    }
    return parse(data, "benchmark")


def stateless(entry: Layer) -> nn.Module:
    """The torch module of a layer without neurons."""
    options = entry.options
    if entry.type == "conv":
        return nn.Conv2d(
            entry.source[0], options["channels"], options["kernel"], options["stride"],
            options["padding"], bias=options["bias"],
        )  # fmt: skip
    if entry.type == "batchnorm":
        norm = nn.BatchNorm2d if len(entry.source) == 3 else nn.BatchNorm1d
        return norm(entry.source[0])
    if entry.type == "avgpool":
        return nn.AvgPool2d(options["kernel"])
    if entry.type == "flatten":
        return nn.Flatten()
    return nn.Linear(entry.source[0], options["features"], bias=options["bias"])


class PeerNet(nn.Module):
    """Stateless layers over T*B with neurons between, for the peers.

    Parameters
    ----------
    architecture : of the network.
    neurons : makes a module [T, B, ...] to [T, B, ...].
    over_time : makes a module over sequences of stateless modules.
    prepare : called with the network before each pass.
    """

    def __init__(
        self,
        architecture: Architecture,
        neurons: Callable[[], nn.Module],
        over_time: Callable[..., nn.Module],
        prepare: Callable[[nn.Module], object],
    ) -> None:
        super().__init__()
        groups: list[list[nn.Module]] = [[]]
        for entry in architecture.layers:
            if entry.type == "lif":
                groups.append([])
            else:
                groups[-1].append(stateless(entry))
        self.timesteps = architecture.timesteps
        self.constant = architecture.input_kind == "constant"
        self.stem = nn.Sequential(*groups[0])
        self.rest = nn.Sequential()
        for group in groups[1:]:
            self.rest.append(neurons())
            self.rest.append(over_time(*group))
        self.prepare = prepare

    def forward(self, x: Tensor) -> Tensor:
        """Mean readout; ``x`` is [B, ...] where it is constant, else [T, B, ...]."""
        self.prepare(self)
        if self.constant:
            out = self.stem(x)
            out = out.expand(self.timesteps, *out.shape)
        else:
            out = self.stem(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.rest(out).mean(0)


class OverTime(nn.Sequential):
    """Stateless layers over T*B."""

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, ...] to [T, B, ...]."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


# ---- SpikingJelly ----


def jelly_lif(spike: nn.Module, mode: str = "m") -> nn.Module:
    """Its LIF with our rules."""
    return neuron.LIFNode(
        tau=1 / (1 - DECAY), decay_input=False, v_threshold=THRESHOLD, v_reset=0.0,
        surrogate_function=spike, detach_reset=False, step_mode=mode,
    )  # fmt: skip


# The rectangle, and two for which its nodes have a fused rule; and our smooth step if it is equal.
JELLY_SURROGATES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Rect": (lambda: surrogate.Rect(alpha=1.0), "clip"),
    "PiecewiseQuadratic": (lambda: surrogate.PiecewiseQuadratic(alpha=1.0), "triangular"),
    "ATan": (surrogate.ATan, ""),
}


class JellyLoop(nn.Module):
    """A recurrent layer written by hand around its single-step LIF."""

    def __init__(self, features: int, spike: nn.Module) -> None:
        super().__init__()
        self.recurrent = nn.Linear(features, features, bias=False)
        self.lif = jelly_lif(spike, "s")

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, N] to [T, B, N]."""
        out = []
        for arriving in x.unbind(0):
            out.append(self.lif(arriving + self.recurrent(out[-1]) if out else arriving))
        return torch.stack(out)


def jelly_neurons(recurrent: int, spike: Callable[[], nn.Module]) -> dict[str, Any]:
    """Ways to write a layer of neurons in SpikingJelly."""
    if not recurrent:
        return {"": lambda: jelly_lif(spike())}
    return {
        "container": lambda: layer.LinearRecurrentContainer(
            jelly_lif(spike(), "s"), recurrent, recurrent, bias=False, step_mode="m"
        ),
        "loop": lambda: JellyLoop(recurrent, spike()),
    }


# ---- snnTorch ----


class TorchLoop(nn.Module):
    """snnTorch's Leaky step by step, with recurrent weights beside it if asked for."""

    def __init__(self, spike: Any, recurrent: int = 0) -> None:
        super().__init__()
        self.recurrent = nn.Linear(recurrent, recurrent, bias=False) if recurrent else None
        self.lif = snntorch.Leaky(
            beta=DECAY, threshold=THRESHOLD, spike_grad=spike, reset_mechanism="zero"
        )

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, ...] to [T, B, ...]."""
        out: list[Tensor] = []
        membrane = torch.zeros_like(x[0])
        for arriving in x.unbind(0):
            if self.recurrent is not None and out:
                arriving = arriving + self.recurrent(out[-1])
            spikes, membrane = self.lif(arriving, membrane)
            out.append(spikes)
        return torch.stack(out)


class TorchRLeaky(nn.Module):
    """snnTorch's RLeaky step by step; its reset to zero also loses the current of that step."""

    def __init__(self, spike: Any, recurrent: int) -> None:
        super().__init__()
        self.lif = snntorch.RLeaky(
            beta=DECAY, linear_features=recurrent, threshold=THRESHOLD, spike_grad=spike,
            reset_mechanism="zero",
        )  # fmt: skip
        self.lif.recurrent = nn.Linear(recurrent, recurrent, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, N] to [T, B, N]."""
        out = []
        spikes, membrane = torch.zeros_like(x[0]), torch.zeros_like(x[0])
        for arriving in x.unbind(0):
            spikes, membrane = self.lif(arriving, spikes, membrane)
            out.append(spikes)
        return torch.stack(out)


def rectangle(x: Tensor, gradient: Tensor, spikes: Tensor) -> Tensor:
    """The rectangular surrogate for snnTorch's custom_surrogate."""
    return gradient * (x.abs() <= 0.5)


TORCH_SURROGATES: dict[str, tuple[Callable[[], Any], str]] = {
    "rectangle": (lambda: snntorch.surrogate.custom_surrogate(rectangle), ""),
    "straight-through": (snntorch.surrogate.straight_through_estimator, ""),
    "fast sigmoid": (snntorch.surrogate.fast_sigmoid, ""),
}


def torch_neurons(recurrent: int, spike: Callable[[], Any]) -> dict[str, Any]:
    """Ways to write a layer of neurons in snnTorch."""
    if not recurrent:
        return {"": lambda: TorchLoop(spike())}
    return {
        "Leaky, loop": lambda: TorchLoop(spike(), recurrent),
        "RLeaky": lambda: TorchRLeaky(spike(), recurrent),
    }


# ---- contenders ----


@contextmanager
def plainly() -> Iterator[None]:
    """Our neurons run the plain recurrence."""
    fused, recurrence.run = recurrence.run, recurrence.plain  # type: ignore[assignment]
    try:
        yield
    finally:
        recurrence.run = fused


def plain_forward(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The forward pass with the plain recurrence; the backward pass is then autograd's."""

    def run(x: Tensor) -> Tensor:
        with plainly():
            return forward(x)

    return run


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of layers in order; a container's [I, R] gets our R."""
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    ours = [m for m in source.modules() if isinstance(m, kinds)]
    theirs = [m for m in target.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            if a.weight.shape == b.weight.shape:
                b.load_state_dict(a.state_dict())
            else:
                b.weight.copy_(torch.cat([torch.eye(len(a.weight)), a.weight], 1))


def peer_net(peer: str, architecture: Architecture, neurons: Callable[[], nn.Module]) -> PeerNet:
    """A peer's network."""
    if peer == "SpikingJelly":
        return PeerNet(architecture, neurons, layer.SeqToANNContainer, functional.reset_net)
    return PeerNet(architecture, neurons, OverTime, lambda net: None)


def of_network(name: str) -> list[Contender]:
    """All ways to do a training step of a network."""
    _, given, batch, _ = NETWORKS[name]
    torch.manual_seed(1)
    x = torch.rand(batch, *given["shape"])
    if given["kind"] == "spikes":
        x = (torch.rand(batch, NETWORKS[name][0], *given["shape"]) < 0.05).float()
    labels = torch.randint(10, (batch,))

    def backward(out: Tensor) -> None:
        nn.functional.cross_entropy(out, labels).backward()

    found: list[Contender] = []

    def add(who: str, way: str, model: nn.Module, given: Tensor, **options: Any) -> None:
        forward = plain_forward(model) if who == "plain loop" else model
        leaves = list(model.parameters())
        found.append(Contender(who, way, forward, given, backward, leaves, **options))

    formats = (False, True) if len(given["shape"]) == 3 else (False,)
    nets: list[SpikingNet] = []
    for who, spike in OURS.items():
        for last in formats:
            torch.manual_seed(0)
            nets.append(SpikingNet(architecture_of(name, spike)).train())
            image = x
            if last:
                nets[-1].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                image = x.contiguous(memory_format=torch.channels_last)
            way = "channels_last" if last else ""
            add(who, way, nets[-1], image, same_output=not last)
    first = nets[0]
    architecture = first.architecture
    recurrent = next((e.source[0] for e in architecture.layers if e.options.get("recurrent")), 0)
    x = x if given["kind"] == "constant" else x.transpose(0, 1).contiguous()
    for last in formats:
        image = x.contiguous(memory_format=torch.channels_last) if last else x
        suffix = ", channels_last" if last else ""
        for peer, surrogates, ways in (
            ("SpikingJelly", JELLY_SURROGATES, jelly_neurons),
            ("snnTorch", TORCH_SURROGATES, torch_neurons),
        ):
            for spike_name, (make, smooth) in surrogates.items():
                for way, neurons in ways(recurrent, make).items():
                    model = peer_net(peer, architecture, neurons)
                    copy_weights(first, model)
                    if last:
                        model = model.to(memory_format=torch.channels_last)
                    title = ", ".join(part for part in (spike_name, way) if part) + suffix
                    add(
                        peer, title, model.train(), image, same_output=way != "RLeaky" and not last,
                        same_gradient="" if way == "container" else smooth,
                    )  # fmt: skip
    return found


def of_layer() -> list[Contender]:
    """All ways to run one layer of neurons, gradient by its current."""
    torch.manual_seed(1)
    current = torch.randn(4, 64, 32, 16, 16, requires_grad=True)
    gradient = torch.randn(4, 64, 32, 16, 16)
    found: list[Contender] = []

    def add(who: str, way: str, forward: Any, leaves: list[Tensor], **options: Any) -> None:
        found.append(
            Contender(who, way, forward, current, lambda out: out.backward(gradient),
                      [current, *leaves], **options)
        )  # fmt: skip

    def ours(spike: Spike) -> LIF:
        options = {key: value for key, value in spike.items() if key != "function"}
        function = ASGL if spike["function"] == "asgl" else SurrogateGradient
        return LIF(THRESHOLD, DECAY, function(**options)).train()

    for who, spike in OURS.items():
        module = ours(spike)
        forward = plain_forward(module) if who == "plain loop" else module
        add(who, "", forward, list(module.parameters()))
    for way, (make, smooth) in JELLY_SURROGATES.items():
        node = jelly_lif(make())

        def run(x: Tensor, node: nn.Module = node) -> Tensor:
            functional.reset_net(node)
            return node(x)

        add("SpikingJelly", way, run, [], same_gradient=smooth)
    for way, (spike_grad, _) in TORCH_SURROGATES.items():
        add("snnTorch", way, TorchLoop(spike_grad()), [])
    return found


OURS: dict[str, Spike] = {
    "ours": SURROGATE,
    "plain loop": SURROGATE,
    "ours, ASGL": ASGL_FRESH,
    "ours, ASGL shared": ASGL_SHARED,
}


# ---- checks ----

Results = tuple[Tensor, list[Tensor]]


def results(contender: Contender) -> Results:
    """Output and gradients of one step, noise from the same seed."""
    torch.manual_seed(2)
    contender.clear()
    out = contender.step()
    return out, [leaf.grad.clone() for leaf in contender.leaves if leaf.grad is not None]


ROUNDING = 1e-4
# SpikingJelly's rectangle ends a rounding beside ours: single elements at its edges may differ.
EDGES = 1e-2


def far(a: Tensor, b: Tensor, share: float) -> bool:
    """Whether two tensors differ by more than this share of the largest value."""
    return float((a - b).abs().max()) > share * float(b.abs().max()) + 1e-7


def check(name: str, found: list[Contender]) -> None:
    """Stop if a contender does not compute what it is said to compute."""
    by_who = {contender.who: contender for contender in found if contender.same_output}
    for who in OURS:
        if who == "plain loop":
            continue
        ours = by_who[who]
        plain = replace(ours, forward=plain_forward(ours.forward), times=[])
        compare(f"{name}: {who} against the plain loop", results(ours), results(plain))
    expected, _ = results(by_who["ours"])
    for contender in found:
        if contender.who in OURS or not contender.same_output:
            continue
        title = f"{name}: {contender.who} ({contender.way})"
        out, gradients = results(contender)
        compare(f"{title} against ours", (out, []), (expected, []))
        if contender.same_gradient:
            with surrogate_of(by_who["ours"].forward, contender.same_gradient):
                share = EDGES if contender.same_gradient == "clip" else ROUNDING
                compare(f"{title} against ours", (out, gradients), results(by_who["ours"]), share)


def compare(title: str, a: Results, b: Results, share: float = ROUNDING) -> None:
    """Stop where outputs or gradients differ; gradients may be sorted differently by shape."""
    if far(a[0], b[0], ROUNDING):
        raise SystemExit(f"{title}: other outputs")
    # a sort keeps the network's order of equal shapes
    ours, theirs = (sorted(g, key=lambda x: tuple(x.shape)) for g in (a[1], b[1]))
    if any(far(x, y, share) for x, y in zip(ours, theirs, strict=True)):
        raise SystemExit(f"{title}: other gradients")


@contextmanager
def surrogate_of(forward: Any, smooth: str) -> Iterator[None]:
    """Our neurons take the slope of another smooth step."""
    functions = [m for m in forward.modules() if isinstance(m, SpikeFunction)]
    before = [function.smooth for function in functions]
    for function in functions:
        function.smooth = smooth
    try:
        yield
    finally:
        for function, smooth_before in zip(functions, before, strict=True):
            function.smooth = smooth_before


# ---- measuring ----


def rounds(contenders: list[Contender], seconds: float, least: int) -> None:
    """Time all of them in interleaved rounds."""
    for contender in contenders:
        contender.times.clear()
        contender.timed()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(contenders[0].times) < least:
        for contender in random.sample(contenders, len(contenders)):
            contender.times.append(contender.timed())


def fastest(found: list[Contender]) -> list[Contender]:
    """Of every side its fastest way."""
    rounds(found, 0, TRIALS)
    best: dict[str, Contender] = {}
    for contender in found:
        known = best.get(contender.who)
        if known is None or cost(contender) < cost(known):
            best[contender.who] = contender
    return list(best.values())


def cost(contender: Contender) -> float:
    """Median wall time."""
    return statistics.median(wall for wall, _ in contender.times)


def rows_of(name: str, threads: int, timed: list[Contender]) -> list[dict[str, Any]]:
    """The table's rows."""
    ours = next(c for c in timed if c.who == "ours")
    rows = []
    for contender in timed:
        wall, cpu = (
            [a[k] / b[k] for a, b in zip(contender.times, ours.times, strict=True)] for k in (0, 1)
        )
        low, middle, high = statistics.quantiles(wall, n=4)
        rows.append(
            {
                "case": name,
                "threads": threads,
                "who": contender.who,
                "way": contender.way,
                "wall_ms": 1e3 * cost(contender),
                "cpu_ms": 1e3 * statistics.median(c for _, c in contender.times),
                "ratio": middle,
                "quartiles": [low, high],
                "cpu_ratio": statistics.median(cpu),
                "rounds": len(wall),
            }
        )
    return rows


def show(row: dict[str, Any]) -> str:
    """A row as text."""
    low, high = row["quartiles"]
    spread = "" if row["who"] == "ours" else f"[{low:.2f}, {high:.2f}]"
    ratio, cpu = ("", "") if row["who"] == "ours" else (row["ratio"], row["cpu_ratio"])
    ratio, cpu = (f"{r:.2f}" if r != "" else "" for r in (ratio, cpu))
    return (
        f"  {row['who']:18} {row['wall_ms']:8.2f} {row['cpu_ms']:8.2f} {ratio:>7} {spread:>14} "
        f"{cpu:>6}  {row['way']}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15, help="per network and threads")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--case", nargs="+", help="only those whose name has this in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    random.seed(0)
    everything: list[dict[str, Any]] = []
    if not arguments.json:
        print(
            f"torch {torch.__version__}, spikingjelly {version(jelly)}, "
            f"snntorch {snntorch.__version__}, numba {numba.__version__}"
        )
    for name in (LAYER, *NETWORKS):
        if arguments.case and not any(part in name for part in arguments.case):
            continue
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            found = of_layer() if name == LAYER else of_network(name)
            check(name, found)
            timed = fastest(found)
            rounds(timed, arguments.seconds, LEAST_ROUNDS)
            rows = rows_of(name, threads, timed)
            everything += rows
            if arguments.json:
                continue
            print(
                f"\n{name}, {threads} thread{'s' if threads > 1 else ''}, "
                f"{rows[0]['rounds']} rounds\n"
                f"  {'':18} {'wall ms':>8} {'cpu ms':>8} {'/ ours':>7} {'quartiles':>14} {'cpu':>6}"
            )
            print("\n".join(show(row) for row in rows), flush=True)
    if arguments.json:
        print(json.dumps(everything, indent=2))
        return
    print(f"\nASGL over the plain surrogate gradient, ours (at most {MOST_ASGL_RATIO}):")
    for row in everything:
        if "ASGL" in row["who"]:
            said = "" if row["ratio"] <= MOST_ASGL_RATIO else "  ABOVE"
            print(
                f"  {row['case']:26} {row['threads']} threads  {row['who']:18} "
                f"{row['ratio']:.2f}{said}"
            )


def version(module: Any) -> str:
    """The installed version of SpikingJelly, which has no attribute for it."""
    from importlib.metadata import version as installed

    return installed(module.__name__.split(".")[0])


if __name__ == "__main__":
    main()
