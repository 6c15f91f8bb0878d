"""The networks of ``networks.py`` in SpikingJelly, snnTorch, Norse and a plain torch loop.

Each library at its best: synapses see all timesteps as one batch, in ``inference_mode``, maps in
either layout, neurons in the way the library offers that turns out fastest, eager and compiled. All
must make exactly our spikes before anything is timed. The libraries live in an environment of their
own (``make .peers/training/.made``), whose packages come after ours on the path.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.in_torch import (
    InPlace,
    Layer,
    MakeLayer,
    Plain,
    TorchNet,
    as_torch,
    calibrate,
    compile_neurons,
    same_spikes,
)
from benchmarks.measuring import (
    NotThereError,
    Options,
    Row,
    fastest,
    interleaved,
    milliseconds,
    ratio,
)
from benchmarks.networks import Network, Ours, five_convolutions, perceptron, rates, recurrent

PACKAGES = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "Norse": "norse"}
# Where `make .peers/training/.made` puts them.
_MADE = Path(__file__).parents[1] / ".peers" / "training"
PLAIN = "plain torch loop"
# Timesteps that a compiled layer of neurons runs at once: more take minutes to compile.
COMPILED_STEPS = 50
Key = tuple[str, str]  # who, and in which way
OURS = ("ours", "")


def packages() -> bool:
    """Put the libraries on the path, and say whether there are any."""
    place = os.environ.get("SNN_DEPLOY_MODULES") or next(
        iter(_MADE.glob("lib/*/site-packages")), ""
    )
    if not Path(place, PACKAGES["Norse"]).is_dir():
        return False
    if str(place) not in sys.path:
        sys.path.append(str(place))
    return True


def imported(name: str) -> Any:
    """A package of theirs, without the warnings about what it uses of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


class JellySteps(Layer):
    """SpikingJelly's LIF, one timestep at a time."""

    mode = "s"

    def __init__(self, threshold: float, decay: float, recurrent: Tensor | None) -> None:
        super().__init__(threshold, decay, recurrent)
        neuron = imported("spikingjelly.activation_based.neuron")
        options = {"v_threshold": threshold, "v_reset": 0.0, "step_mode": self.mode}
        self.node = (
            neuron.IFNode(**options)
            if decay == 1
            else neuron.LIFNode(tau=1 / (1 - decay), decay_input=False, **options)
        )

    def step(self, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Layer`."""
        self.node.v = membrane
        return self.node(current), self.node.v


class JellySequence(JellySteps):
    """SpikingJelly's LIF over all timesteps."""

    mode = "m"

    def forward(self, current: Tensor, membrane: Tensor, sent: Tensor) -> tuple[Tensor, ...]:
        """As in :class:`Layer`."""
        self.node.v = membrane
        spikes = self.node(current.unflatten(0, (-1, len(membrane))))
        return spikes.flatten(0, 1), self.node.v, spikes[-1]


class TorchLeaky(Layer):
    """snnTorch's Leaky."""

    def __init__(self, threshold: float, decay: float, recurrent: Tensor | None) -> None:
        super().__init__(threshold, decay, recurrent)
        leaky = imported("snntorch").Leaky
        self.leaky = leaky(beta=decay, threshold=threshold, reset_mechanism="zero")

    def step(self, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Layer`; it resets at the beginning of the next timestep."""
        spikes, membrane = self.leaky(current, membrane)
        return spikes, membrane


class NorseNeurons(Layer):
    """Norse's LIF without a synaptic current, or its integrate-and-fire neuron."""

    def __init__(self, threshold: float, decay: float, recurrent: Tensor | None) -> None:
        super().__init__(threshold, decay, recurrent)
        name = "iaf" if decay == 1 else "lif_box"
        module = imported(f"norse.torch.functional.{name}")
        if decay == 1:
            self.run = module.iaf_feed_forward_step
            self.state = module.IAFFeedForwardState
            self.given = module.IAFParameters(v_th=torch.tensor(threshold))
        else:
            self.run = module.lif_box_feed_forward_step
            self.state = module.LIFBoxFeedForwardState
            self.given = module.LIFBoxParameters(
                tau_mem_inv=torch.tensor(1 - decay), v_th=torch.tensor(threshold)
            )

    def step(self, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`Layer`; Norse multiplies what arrives by 1 - decay, too."""
        if self.decay != 1:
            current = current / (1 - self.decay)
        spikes, state = self.run(current, self.state(membrane), self.given, 1.0)
        return spikes, state.v


NEURONS: dict[str, dict[str, MakeLayer]] = {
    "SpikingJelly": {"sequence": JellySequence, "steps": JellySteps},
    "snnTorch": {"Leaky": TorchLeaky},
    "Norse": {"cells": NorseNeurons},
    PLAIN: {"": Plain, "in place": InPlace},
}


def contenders(network: Network, who: str) -> dict[str, TorchNet]:
    """Ways to run a network with one library's neurons, by what sets them apart."""
    found = {}
    for way, neurons in NEURONS[who].items():
        if way == "sequence" and any(unit.recurrent is not None for unit in network.units):
            continue
        for channels_last in (False, True) if len(network.input_shape) == 3 else (False,):
            title = ", ".join(filter(None, (way, "channels_last" if channels_last else "")))
            found[title] = TorchNet(network, neurons, channels_last=channels_last)
    return found


def uncompiled(network: Network, who: str, way: str, samples: int) -> TorchNet:
    """One of the :func:`contenders` as it can be compiled.

    In-place operations only hinder the compiler; it is given the plain statement of them.
    """
    neurons = NEURONS[who].get(way.split(", ")[0], Plain)
    neurons = Plain if neurons is InPlace else neurons
    block = COMPILED_STEPS if samples == 1 else COMPILED_STEPS // 5
    return TorchNet(network, neurons, channels_last="channels_last" in way, block=block)


def measure(
    network: Network, samples: int, rate: float, goals: tuple[float, float], options: Options
) -> list[Row]:
    """A network at one batch size: rows against the fastest library, and against plain torch."""
    torch.compiler.reset()  # or every call would look through what was compiled for other networks
    calibrate(network, network.draw(8, rate, seed=2), rate)
    data = network.draw(samples, rate)
    ours, x = Ours(network), as_torch(data)
    trace = ours(data, trace=True)
    title = f"{network.name}, T={network.steps}, batch {samples}"
    notes = []
    with torch.inference_mode():
        ways = {(who, way): m for who in NEURONS for way, m in contenders(network, who).items()}
        for (who, way), model in ways.items():
            same_spikes(f"{title}: {who} ({way})", trace, model, x)
        times = interleaved({key: partial(model, x) for key, model in ways.items()}, 1)
        eager = [fastest({k: t for k, t in times.items() if k[0] == who}) for who in NEURONS]
        works = {key: partial(ways[key], x) for key in eager}
        if not options.quick:
            library = fastest({key: times[key] for key in eager if key[0] != PLAIN})
            for who, way in (library, eager[-1]):
                model = uncompiled(network, who, way, samples)
                reason = compile_neurons(model, x)
                if reason:
                    notes.append(f"{who} {reason}")
                    continue
                same_spikes(f"{title}: {who} (compiled)", trace, model, x)
                works[who, f"{way}, compiled"] = partial(model, x)
        times = interleaved({OURS: partial(ours, data)} | works, options.rounds)
    fired = sum(rates(ours, trace).values()) / len(network.units)

    def row(against: str, keys: list[Key], goals: tuple[float | None, float | None]) -> Row:
        best = fastest({key: times[key] for key in keys})
        return Row(
            work=title,
            against=against,
            **ratio(times[best], times[OURS]),
            goal=goals[0],
            stretch=goals[1],
            ours_ms=milliseconds(times[OURS], samples),
            theirs_ms=milliseconds(times[best], samples),
            note="; ".join([named(best), f"populations fire at {fired:.1%}", *notes]),
            details={named(k): ratio(times[k], times[OURS])["ratio"] for k in keys if k != best},
        )

    libraries = [key for key in works if key[0] != PLAIN]
    return [
        row("fastest of " + ", ".join(PACKAGES), libraries, goals),
        row("the same, eager", [key for key in libraries if key in eager], (None, None)),
        row(PLAIN, [key for key in works if key[0] == PLAIN], (None, None)),
    ]


def named(key: Key) -> str:
    """A contender in words."""
    return f"{key[0]} ({key[1]})" if key[1] else key[0]


def rows(options: Options) -> list[Row]:
    """All rows against other simulators in torch."""
    if not packages():
        raise NotThereError("SNN_DEPLOY_MODULES names no packages: `make .peers/training/.made`")
    found = []
    for network, samples, rate, goals in (
        (perceptron(), 1, 0.1, (100, 180)),
        (perceptron(), 64, 0.1, (15, 25)),
        (recurrent(), 1, 0.05, (100, 500)),
        (recurrent(), 64, 0.05, (50, 60)),
        (five_convolutions(), 64, 0.15, (9, 13)),
    ):
        found += measure(network, samples, rate, goals, options)
    return found


def versions() -> dict[str, str]:
    """Versions of what is compared."""
    found = {"torch": torch.__version__}
    return found | ({who: version(name) for who, name in PACKAGES.items()} if packages() else {})
