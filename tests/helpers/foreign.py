"""Random networks made with snnTorch, SpikingJelly and Norse, written as their users write them.

A network is drawn from a seed: fully connected or convolutional, with batch normalisation and
pools, its neurons of any kind that a graph has, their options drawn, their states used in any of
the ways that the library offers. It maps [B, T, *shape] (spikes) or [B, *shape] (constant) to
[B, classes].

The libraries live in an environment of their own (``make peers``), whose packages come after ours.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_deploy.graph import InputSpec
from snn_deploy.packets import Recording

Random = np.random.Generator
CLASSES = 5


def imported(name: str) -> Any:
    """A package of that environment; the test is skipped where there is none."""
    place = os.environ.get("SNN_DEPLOY_MODULES")
    if place is None:
        pytest.skip(
            "SNN_DEPLOY_MODULES names no packages: run `make peers`", allow_module_level=True
        )
    if place not in sys.path:
        sys.path.append(place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what they use of torch
        return importlib.import_module(name)


snn = imported("snntorch")
snn_utils = imported("snntorch.utils")
neuron = imported("spikingjelly.activation_based.neuron")
layer = imported("spikingjelly.activation_based.layer")
sj = imported("spikingjelly.activation_based.functional")
surrogate = imported("spikingjelly.activation_based.surrogate")
norse = imported("norse.torch")


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A network, its input, and samples of it."""

    model: nn.Module
    spec: InputSpec
    timesteps: int
    recording: Recording


def drawn(seed: int, make: Callable[[Random, tuple[int, ...], bool], nn.Module]) -> Foreign:
    """A network of a library."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    constant = random.random() < 0.4
    shape = (2, 6, 6) if random.random() < 0.4 else (int(random.integers(4, 12)),)
    timesteps = int(random.integers(5, 21))
    model: Any = make(random, shape, constant)
    model.timesteps = timesteps
    return fed(model, shape, timesteps, constant, random)


def fed(
    model: nn.Module, shape: tuple[int, ...], timesteps: int, constant: bool, random: Random
) -> Foreign:
    """A network with six random samples, its batch normalisation settled."""
    if constant:
        recording = Recording(values={"": random.random((6, *shape), np.float32)})
        x = torch.from_numpy(recording.values[""])
    else:
        spikes = (random.random((6, timesteps, *shape)) < 0.35).astype(np.uint8)
        recording = Recording(spikes={"": spikes})
        x = torch.from_numpy(spikes.astype(np.float32))
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(x)
    spec = InputSpec(name="input", kind="constant" if constant else "spikes", shape=shape)
    return Foreign(model.eval(), spec, timesteps, recording)


# ---- layers between neurons ----


def synapses(
    random: Random, shape: tuple[int, ...], bias: bool, strength: float
) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Layers before neurons, and the shape that they make."""
    normal = bias and random.random() < 0.4
    if len(shape) == 1:
        size = int(random.integers(5, 14))
        line = _strong(nn.Linear(shape[0], size, bias=bias), strength)
        return [line, nn.BatchNorm1d(size)] if normal else [line], (size,)
    pool = [nn.MaxPool2d(2)] if shape[1] >= 4 and random.random() < 0.4 else []
    seen = (shape[0], shape[1] // 2, shape[2] // 2) if pool else shape
    if random.random() < 0.5:
        channels = int(random.integers(2, 5))
        conv = _strong(nn.Conv2d(seen[0], channels, 3, padding=1, bias=bias), strength)
        layers: list[nn.Module] = [*pool, conv]
        if normal:
            layers.append(nn.BatchNorm2d(channels))
        if seen[1] >= 4 and random.random() < 0.3:
            return [*layers, nn.AvgPool2d(2)], (channels, seen[1] // 2, seen[2] // 2)
        return layers, (channels, *seen[1:])
    size = int(random.integers(5, 12))
    line = _strong(nn.Linear(int(np.prod(seen)), size, bias=bias), strength)
    return [*pool, nn.Flatten(), line], (size,)


def last_synapses(shape: tuple[int, ...], bias: bool, strength: float) -> list[nn.Module]:
    """Layers before the last neurons."""
    line = _strong(nn.Linear(int(np.prod(shape)), CLASSES, bias=bias), strength)
    return [line] if len(shape) == 1 else [nn.Flatten(), line]


def _strong(made: Any, factor: float) -> nn.Module:
    """Larger weights, so that neurons fire."""
    with torch.no_grad():
        made.weight.mul_(factor)
    return made  # type: ignore[no-any-return]


def no_pool_of_values(layers: list[nn.Module], constant: bool) -> list[nn.Module]:
    """Without the maximum over an input of values, which is no spike; see its refusal."""
    return [nn.AvgPool2d(2) if constant and isinstance(one, nn.MaxPool2d) else one
            for one in layers]  # fmt: skip


def read(values: Sequence[Tensor], how: str) -> Tensor:
    """A result over time."""
    if how == "last":
        return values[-1]
    stacked = torch.stack(list(values))
    return stacked.mean(0) if how == "mean" else stacked.sum(0)


# ---- snnTorch ----


class SnnTorchNet(nn.Module):
    """A loop over time; states explicit, hidden in the module, or left to it."""

    timesteps = 1

    def __init__(self, random: Random, shape: tuple[int, ...], constant: bool) -> None:
        super().__init__()
        self.constant = constant
        blocks, self.styles, neurons = [], [], []
        depth = int(random.integers(1, 4))
        for k in range(depth + 1):
            last = k == depth
            kind = str(random.choice(["Leaky", "Leaky", "Lapicque", "Synaptic", "RLeaky",
                                      "RSynaptic"]))  # fmt: skip
            if last and kind.startswith("R"):
                kind = "Leaky"
            bias = random.random() < 0.7
            if last:
                layers, made = last_synapses(shape, bias, 3.0), (CLASSES,)
            else:
                layers, made = synapses(random, shape, bias, 3.0)
            blocks.append(
                nn.Sequential(*(no_pool_of_values(layers, constant) if not k else layers))
            )
            style = str(random.choice(["explicit", "hidden", "kept", "output"]))
            self.styles.append(style)
            neurons.append(snn_neuron(random, kind, made, style, last))
            shape = made
        self.blocks, self.neurons = nn.ModuleList(blocks), nn.ModuleList(neurons)
        membranes = neurons[-1].reset_mechanism == "none"
        if membranes and self.styles[-1] == "hidden":
            neurons[-1].output = True
        self.membranes = membranes
        self.how = str(random.choice(["sum", "mean", "last"] if membranes else ["sum", "mean"]))

    def forward(self, x: Tensor) -> Tensor:
        states = [_tuple(one.reset_mem()) for one in self.neurons]
        found = []
        for t in range(self.timesteps):
            z = x if self.constant else x[:, t]
            for k, (block, lif) in enumerate(zip(self.blocks, self.neurons, strict=True)):
                out = lif(block(z), *(states[k] if self.styles[k] == "explicit" else ()))
                if self.styles[k] == "explicit":
                    states[k] = out if type(lif).__name__.startswith("R") else out[1:]
                z = out[0] if isinstance(out, tuple) else out
            found.append(out[-1] if self.membranes else z)
        return read(found, self.how)


def _tuple(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def snn_neuron(random: Random, kind: str, shape: tuple[int, ...], style: str, last: bool) -> Any:
    """A neuron with drawn options."""
    options: dict[str, Any] = {
        "threshold": float(random.uniform(0.4, 1.2)),
        "init_hidden": style in ("hidden", "output"),
        "output": style == "output",
        "learn_threshold": bool(random.random() < 0.3),
        "spike_grad": [None, snn.surrogate.fast_sigmoid(), snn.surrogate.SSO()][
            int(random.integers(3))
        ],
    }
    per_neuron = (shape[0], *([1] * (len(shape) - 1)))
    beta: Any = float(random.uniform(0.3, 0.99))
    if kind != "Lapicque" and random.random() < 0.4:
        beta = torch.from_numpy(random.uniform(0.3, 0.99, per_neuron).astype(np.float32))
    if random.random() < 0.3:
        options["threshold"] = torch.from_numpy(
            random.uniform(0.4, 1.2, per_neuron).astype(np.float32))  # fmt: skip
    reset = "zero" if random.random() < 0.4 else "subtract"
    if last and random.random() < 0.5:
        reset = "none"
    if kind == "Lapicque":
        options.pop("learn_threshold")
        if reset == "zero":
            reset = "subtract"
        if random.random() < 0.5:
            given = {"R": float(random.uniform(0.5, 2)), "C": float(random.uniform(2, 4))}
            return snn.Lapicque(**given, reset_mechanism=reset, **options)
        # below 1/e its Euler step overshoots: the decay would be negative
        return snn.Lapicque(beta=max(beta, 0.4), reset_mechanism=reset, **options)
    options["learn_beta"] = bool(random.random() < 0.3)
    if kind == "RSynaptic" and reset == "zero":
        reset = "subtract"
    if reset == "zero":
        options["reset_delay"] = bool(random.random() < 0.5) if kind == "Leaky" else False
    options["reset_mechanism"] = reset
    alpha = float(random.uniform(0.1, 0.9))
    if kind.startswith("R"):
        options |= _recurrence(random, shape)
    return getattr(snn, kind)(*([alpha, beta] if "Syn" in kind else [beta]), **options)


def _recurrence(random: Random, shape: tuple[int, ...]) -> dict[str, Any]:
    if random.random() < 0.4:
        each: Any = float(random.normal())
        if random.random() < 0.5:
            size = (shape[0], *([1] * (len(shape) - 1)))
            each = torch.from_numpy(random.normal(size=size).astype(np.float32))
        return {"all_to_all": False, "V": each}
    if len(shape) == 1:
        return {"all_to_all": True, "linear_features": shape[0]}
    return {"all_to_all": True, "conv2d_channels": shape[0], "kernel_size": 3}


# ---- SpikingJelly ----


class SpikingJellyNet(nn.Module):
    """Step by step, or whole sequences through layers in multi-step mode."""

    timesteps = 1

    def __init__(self, random: Random, shape: tuple[int, ...], constant: bool) -> None:
        super().__init__()
        self.constant, self.multi = constant, bool(random.random() < 0.5)
        self.layers = nn.ModuleList()
        depth = int(random.integers(1, 4))
        for k in range(depth + 1):
            kind = str(random.choice(["IFNode", "LIFNode", "LIFNode", "ParametricLIFNode",
                                      "CUBALIFNode", "SimpleLIFNode", "SimpleIFNode"]))  # fmt: skip
            bias = random.random() < 0.7
            if k == depth:
                layers, made = last_synapses(shape, bias, 3.0), (CLASSES,)
            else:
                layers, made = synapses(random, shape, bias, 3.0)
            layers = no_pool_of_values(layers, constant) if not k else layers
            self.layers.append(nn.Sequential(*layers))
            if k < depth:
                self.layers.append(sj_neuron(random, kind))
            shape = made
        self.ending = str(random.choice(["spikes", "silent", "infinite"]))
        self.how = str(random.choice(["sum", "mean"]))
        if self.ending == "spikes":
            self.layers.append(sj_neuron(random, kind))
        elif self.ending == "silent":
            decode = [None, "mean-mem", "last_mem"][int(random.integers(3))]
            tau = float(random.uniform(1.2, 4))
            self.layers.append(
                neuron.NonSpikingLIFNode(tau, decode=decode)
                if random.random() < 0.5 else neuron.NonSpikingIFNode(decode=decode))  # fmt: skip
            self.multi = True
        else:
            self.layers.append(neuron.LIFNode(v_threshold=float("inf")))
        if self.multi:
            sj.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        sj.reset_net(self)
        if self.multi:
            z: Any = x.unsqueeze(0).repeat(self.timesteps, *[1] * x.ndim) if self.constant else \
                x.transpose(0, 1)  # fmt: skip
            for one in self.layers:
                z = sj.seq_to_ann_forward(z, one) if isinstance(one, nn.Sequential) else one(z)
            found: Sequence[Tensor] = z
            if self.ending == "silent" and self.layers[-1].decode is not None:
                return z  # type: ignore[no-any-return]
        else:
            found = []
            for t in range(self.timesteps):
                z = x if self.constant else x[:, t]
                for one in self.layers:
                    z = one(z)
                found.append(z)
        if self.ending == "infinite":
            return self.layers[-1].v  # type: ignore[return-value]
        return read(list(found), self.how)


def sj_neuron(random: Random, kind: str) -> Any:
    """A neuron with drawn options."""
    v_reset = [0.0, None, -0.3, 0.2][int(random.integers(4))]
    if kind in ("CUBALIFNode", "SimpleLIFNode", "SimpleIFNode"):
        v_reset = v_reset if v_reset == 0.0 or kind != "SimpleLIFNode" else 0.0
        v_reset = v_reset if v_reset in (0.0, None) else 0.0
    theta = float(random.uniform(0.4, 1.2))
    options: dict[str, Any] = {"v_threshold": theta, "v_reset": v_reset}
    if random.random() < 0.5:
        options["surrogate_function"] = surrogate.ATan()
    tau = float(random.uniform(1.1, 5))
    if kind == "CUBALIFNode":
        return neuron.CUBALIFNode(float(random.uniform(0.1, 0.9)), float(random.uniform(0.3, 1)),
                                  **options)  # fmt: skip
    if kind in ("LIFNode", "SimpleLIFNode"):
        return getattr(neuron, kind)(tau, bool(random.random() < 0.5), **options)
    if kind == "ParametricLIFNode":
        return neuron.ParametricLIFNode(tau, bool(random.random() < 0.5), **options)
    return getattr(neuron, kind)(**options)


# ---- Norse ----


class NorseNet(nn.Module):
    """Cells in a loop over time, or sequences and lifted layers in a ``SequentialState``."""

    timesteps = 1

    def __init__(self, random: Random, shape: tuple[int, ...], constant: bool) -> None:
        super().__init__()
        self.constant, self.whole = constant, bool(random.random() < 0.5)
        layers: list[nn.Module] = []
        depth = int(random.integers(1, 4))
        for k in range(depth):
            kind = str(random.choice(["LIF", "LIFRecurrent", "IAF"] if self.whole else
                                     ["LIF", "LIFRecurrent", "IAF", "LIFBox"]))  # fmt: skip
            if kind == "LIFRecurrent":
                if len(shape) > 1:
                    layers.append(nn.Flatten(2 if self.whole else 1))
                size = int(random.integers(5, 12))
                layers.append(norse_neuron(random, kind, self.whole, int(np.prod(shape)), size))
                shape = (size,)
                continue
            bias = random.random() < 0.7
            found, shape = synapses(random, shape, bias, 2.0 if kind == "IAF" else 6.0)
            layers += self._lifted(no_pool_of_values(found, constant) if not k else found)
            layers.append(norse_neuron(random, kind, self.whole))
        self.ending = str(random.choice(["spikes", "membranes", "weighed"]))
        if self.ending == "weighed" and not self.whole:
            layers.append(nn.Flatten())
            layers.append(norse.LILinearCell(int(np.prod(shape)), CLASSES, p=_leaks(random)))
        else:
            layers += self._lifted(last_synapses(shape, False, 6.0))
            if self.ending == "spikes":
                layers.append(norse_neuron(random, "LIF", self.whole))
            else:
                layers.append((norse.LI if self.whole else norse.LICell)(p=_leaks(random)))
        self.layers = norse.SequentialState(*layers)
        self.how = str(random.choice(["sum", "mean"] if self.ending == "spikes" else
                                     ["sum", "mean", "last"]))  # fmt: skip

    def _lifted(self, layers: list[nn.Module]) -> list[nn.Module]:
        return [norse.Lift(one) for one in layers] if self.whole else layers

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            steps = x.unsqueeze(0).repeat(self.timesteps, *[1] * x.ndim) if self.constant else \
                x.transpose(0, 1)  # fmt: skip
            found, _ = self.layers(steps)
            return read(list(found), self.how)
        state, found = None, []
        for t in range(self.timesteps):
            z, state = self.layers(x if self.constant else x[:, t], state)
            found.append(z)
        return read(found, self.how)


def _leaks(random: Random) -> Any:
    return norse.LIParameters(
        tau_syn_inv=torch.tensor(random.uniform(50, 900)),
        tau_mem_inv=torch.tensor(random.uniform(50, 900)),
    )


def norse_neuron(random: Random, kind: str, whole: bool, *sizes: int) -> Any:
    """A neuron with drawn parameters."""
    leak = float(random.choice([0.0, 0.2, -0.3]))
    theta = leak + random.uniform(0.3, 1.0)
    reset = float(random.choice([leak, leak - 0.2]))
    values = {"v_th": theta, "v_reset": reset}
    if kind != "IAF":
        values |= {"v_leak": leak, "tau_mem_inv": random.uniform(80, 900)}
    if kind in ("LIF", "LIFRecurrent"):
        values["tau_syn_inv"] = random.uniform(50, 900)
    tensors: dict[str, Any] = {name: torch.tensor(value) for name, value in values.items()}
    name = kind if whole else f"{kind}Cell"
    if kind == "IAF":
        return getattr(norse, name)(p=norse.IAFParameters(**tensors))
    if kind == "LIFBox":
        if random.random() < 0.3:
            from norse.torch.functional.reset import reset_subtract

            tensors["reset_method"] = reset_subtract
            tensors["v_th"] = torch.tensor(max(theta, 0.2))
        return norse.LIFBoxCell(p=norse.LIFBoxParameters(**tensors))
    return getattr(norse, name)(*sizes, p=norse.LIFParameters(**tensors))
