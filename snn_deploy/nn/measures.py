"""What is measured of a network: accuracy, loss, widths, and how far noise leads from spikes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.nn import losses
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.datasets import Split
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import Neuron
from snn_deploy.nn.spikes import SpikeFunction

_BATCH = 256


class Judgement:
    """What a network is trained for, and scored by.

    Attributes
    ----------
    measure : ``accuracy`` (percent) or ``psnr`` (dB, of values scaled to [0, 1]).
    loss : of readout currents [T, B, outputs] and targets.
    """

    def __init__(self, loss: str, tet: dict[str, float], architecture: Architecture) -> None:
        self.low, self.high = architecture.low, architecture.high
        self.measure = "psnr" if loss == "reconstruction" else "accuracy"
        functions: dict[str, losses.Loss] = {
            "cross_entropy": losses.mean_current_cross_entropy,
            "tet": partial(losses.tet, weight=tet["weight"], target=tet["target"]),
            "reconstruction": losses.mean_current_error,
        }
        self.loss = functions[loss]

    def target(self, x: Tensor, labels: Tensor) -> Tensor:
        """What should come out: the labels, or the input scaled to [0, 1]."""
        if self.measure == "accuracy":
            return labels
        return (x.flatten(1) - self.low) / (self.high - self.low)

    def score(self, readout: Tensor, target: Tensor) -> float:
        """Mean score of a batch of readouts [B, outputs]."""
        if self.measure == "accuracy":
            return 100.0 * float((readout.argmax(1) == target).sum()) / len(target)
        error = ((readout - target) ** 2).mean(1).clamp_min(1e-12)
        return float((-10 * torch.log10(error)).mean())


def evaluate(
    model: SpikingNet, split: Split, judge: Judgement, *, keep_mode: bool = False
) -> tuple[float, float]:
    """Mean score and mean loss over a split, in evaluation (Heaviside) mode."""
    if not keep_mode:
        model.eval()
    device = model.mean.device
    score, loss, count = 0.0, 0.0, len(split.labels)
    with torch.inference_mode():
        for start in range(0, count, _BATCH):
            indices = np.arange(start, min(start + _BATCH, count))
            x = torch.from_numpy(split.samples.batch(indices)).to(device).float()
            target = judge.target(x, torch.from_numpy(split.labels[indices]).to(device))
            currents = model.currents(x)
            score += judge.score(currents.mean(0), target) * len(indices)
            loss += float(judge.loss(currents, target)) * len(indices)
    return score / count, loss / count


@contextmanager
def noisy(model: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation but for its spike functions, which emit as in training.

    Batch normalisation uses its running statistics. Afterwards everything is in evaluation.
    """
    model.eval()
    functions = [m for m in model.modules() if isinstance(m, SpikeFunction)]
    for function in functions:
        function.train()
    try:
        yield
    finally:
        model.eval()


def spiking_layers(model: nn.Module) -> dict[str, Neuron]:
    """The neurons of a network by their place in it."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Neuron)}


def widths(model: nn.Module) -> dict[str, float]:
    """Mean width of every spiking layer."""
    return {name: n.spike.width.detach().mean().item() for name, n in spiking_layers(model).items()}


def layer_similarities(model: SpikingNet, x: Tensor) -> dict[str, float]:
    """Cosine similarity of noisy and embedded network's activations, per layer (ASGL, Fig. 3).

    Each network runs on its own; activations are all outputs of a layer over time, compared sample
    by sample and averaged. A silent layer has similarity 1 with a silent one, else 0.
    """
    layers = spiking_layers(model)
    runs: list[dict[str, Tensor]] = []
    with torch.inference_mode():
        model.eval()
        runs.append(_activations(model, layers, x))
        with noisy(model):
            runs.append(_activations(model, layers, x))
    found = {}
    for name in layers:
        one, other = (run[name].transpose(0, 1).flatten(1).double() for run in runs)
        norms = one.norm(dim=1) * other.norm(dim=1)
        cosine = (one * other).sum(1) / norms.clamp_min(1e-300)
        both_silent = (one.norm(dim=1) == 0) & (other.norm(dim=1) == 0)
        found[name] = float(torch.where(both_silent, 1.0, cosine).mean())
    return found


def _activations(model: SpikingNet, layers: dict[str, Neuron], x: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        return lambda module, arguments, out: kept.__setitem__(name, out)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return kept
