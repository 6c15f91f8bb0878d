"""Modules as users write them: small building blocks that tests put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy.freezing import freeze
from snn_deploy.freezing.proof import FreezeProof, prove_freeze
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.nn.neurons import CLIF, LIF
from snn_deploy.nn.spikes import SurrogateGradient
from snn_deploy.packets import Recording

Array = NDArray[Any]
STEPS = 4
IMAGE = InputSpec(name="input", kind="constant", shape=(2, 6, 6))
EVENTS = InputSpec(name="input", kind="spikes", shape=(2, 6, 6))
VECTOR = InputSpec(name="input", kind="spikes", shape=(6,))


def lif(threshold: float = 0.5, decay: float = 0.5, **options: Any) -> LIF:
    return LIF(threshold, decay, SurrogateGradient(), **options)


def clif() -> CLIF:
    return CLIF(0.5, 0.9, 0.6, SurrogateGradient())


class Written(nn.Module):
    """Named submodules, and a forward that a test writes: ``run(self, x)``."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def in_sequence(x: Tensor) -> Tensor:
    """[B, T, ...] to [T, B, ...]."""
    return x.transpose(0, 1)


def over_time(module: nn.Module, x: Tensor) -> Tensor:
    """A module without memory at every timestep of [T, B, ...]."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@torch.no_grad()
def run_in(model: nn.Module, spec: InputSpec, steps: int = STEPS, seed: int = 0) -> nn.Module:
    """Random weights of some size, and batch statistics of a few passes in training."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.weight.normal_(0, 1.5 / module.weight[0].numel() ** 0.5)
            if module.bias is not None:
                module.bias.normal_(0, 0.2)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.uniform_(0.2, 0.7)
            module.bias.uniform_(-0.2, 0.3)
    model.train()
    rng = np.random.default_rng(seed)
    for _ in range(4):
        model(torch.from_numpy(example(spec, 8, steps, rng).astype(np.float32)))
    return model.eval()


def example(spec: InputSpec, samples: int, steps: int, rng: np.random.Generator) -> Array:
    """What a module is fed."""
    if spec.kind == "spikes":
        return (rng.random((samples, steps, *spec.shape)) < 0.3).astype(np.uint8)
    lead = (samples,) if spec.kind == "constant" else (samples, steps)
    return rng.uniform(spec.low, spec.high, (*lead, *spec.shape)).astype(np.float32)


def recorded(spec: InputSpec, values: Array) -> Recording:
    return Recording(**{"spikes" if spec.kind == "spikes" else "values": {"": values}})


def frozen(model: nn.Module, spec: InputSpec, steps: int = STEPS) -> Graph:
    return freeze(model, spec, timesteps=None if spec.kind == "constant" else steps)


def proof_of(
    model: nn.Module, spec: InputSpec, steps: int = STEPS, seed: int = 7, samples: int = 12
) -> FreezeProof:
    """The freeze proof on random inputs."""
    values = example(spec, samples, steps, np.random.default_rng(seed))
    given = None if spec.kind == "constant" else steps
    return prove_freeze(model, recorded(spec, values), spec, timesteps=given)


def rates(graph: Graph, recording: Recording) -> dict[str, float]:
    from snn_deploy.sim import simulate

    trace = simulate(graph, recording, engine="reference", trace=True)
    return {name: float(spikes.mean()) for name, spikes in trace.spikes.items()}
