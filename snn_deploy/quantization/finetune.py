"""Quantization-aware fine-tuning: a trained network learns to live with its integers.

What is trained is the integer graph itself (:class:`.trainable.TrainableGraph`): its weights,
biases and scales, from where :func:`snn_deploy.quantize` has put them, with the recipe's data,
augmentation and loss, and the spike functions of the trained network. What the host computes is
left as it is: its weights are fine enough. The epoch with the smallest loss of the integers on
held-out data is kept, of those whose ranges are proved; the start is one of them, so that
fine-tuning never makes the held-out loss worse.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph
from snn_deploy.hardware import Target, target
from snn_deploy.nn.datasets import Split, hold_out, open_dataset
from snn_deploy.nn.measures import Judgement
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import neurons
from snn_deploy.nn.recipe import FineTuning, Recipe
from snn_deploy.quantization import quantize
from snn_deploy.quantization.ranges import prove_ranges
from snn_deploy.quantization.scheme import Scheme, weight_grid
from snn_deploy.quantization.trainable import Emission, TrainableGraph

_JUDGED_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Tuned:
    """Losses and scores of the integers on held-out data: at the start, then after each epoch."""

    graph: Graph
    float_graph: Graph
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    best_epoch: int


def finetune(
    model: SpikingNet,
    to: Target | str,
    recipe: Recipe,
    *,
    bits: int | None = None,
    granularity: str = "tensor",
    progress: Callable[[int, int, float, float], None] | None = None,
) -> Tuned:
    """Fine-tune a trained network's integers for a target.

    Parameters
    ----------
    model : the trained network.
    to, bits, granularity : as for :func:`snn_deploy.quantize`.
    recipe : data, augmentation, batch, seed and loss, those it was trained with; ``[finetune]``
        has epochs and rates.
    progress : called with (epoch, epochs, held-out loss, held-out score) after each epoch.

    Returns
    -------
    Tuned
        The integer graph of the best epoch; ``prove_ranges`` holds for it.

    Raises
    ------
    SnnDeployError
        As ``quantize``; SD403 where fine-tuning diverges.
    """
    chip = target(to) if isinstance(to, str) else to
    scheme = Scheme.of(chip, bits=bits, granularity=granularity, clipping="mse")
    graph = freeze(model)
    start = quantize(graph, chip, bits=bits, granularity=granularity, clipping="mse")
    data = open_dataset(recipe.data, recipe.architecture.timesteps)
    train, held_out = hold_out(data.train, recipe.data.validation)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)  # sums depend on it in their last bits
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            net = TrainableGraph(
                graph, start, weight_grid(chip.require_format(), scheme.bits),
                _emissions(model, graph, recipe.finetune.probability),
            )  # fmt: skip
            run = _Run(net, recipe, train, held_out, progress)
            return run.whole()
    finally:
        torch.set_num_threads(threads)


def _emissions(model: SpikingNet, graph: Graph, probability: float | None) -> dict[str, Emission]:
    """What each population emits in training: as the network's own neurons do."""
    found = {}
    for population, neuron in zip(graph.spiking(), neurons(model), strict=True):
        own = copy.deepcopy(neuron.spike).train().emission
        found[population.name] = Emission(
            own.smooth,
            float(neuron.spike.width.detach().mean()),
            own.probability if probability is None else probability,
        )
    return found


@contextmanager
def suppress_unfit() -> Iterator[None]:
    """Pass over an epoch whose ranges cannot be proved."""
    try:
        yield
    except SnnDeployError as error:
        if error.code != "SD203":
            raise


class _Run:
    """One fine-tuning."""

    def __init__(
        self,
        net: TrainableGraph,
        recipe: Recipe,
        train: Split,
        held_out: Split,
        progress: Callable[[int, int, float, float], None] | None,
    ) -> None:
        self.net, self.recipe = net, recipe
        self.tuning: FineTuning = recipe.finetune
        self.train, self.held_out, self.progress = train, held_out, progress
        self.judge = Judgement(recipe.loss, recipe.tet, recipe.architecture)
        steps = self.tuning.epochs * -(-len(train.labels) // recipe.batch)
        net.freeze_host()
        scales = [p for p in [*net.log_scales, *net.log_widths.values()] if p.requires_grad]
        weights = [p for p in [*net.weights, *net.biases] if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            [
                {"params": weights, "lr": self.tuning.learning_rate},
                {"params": scales, "lr": self.tuning.scale_learning_rate},
            ]
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)

    def whole(self) -> Tuned:
        """All epochs; the best one's integers."""
        kept, trained, best = self._sound_graph(), self.net.float_graph(), 0
        judged = [self._judged()]
        for epoch in range(1, self.tuning.epochs + 1):
            self._epoch(epoch)
            judged.append(self._judged())
            if judged[epoch][0] < judged[best][0]:
                with suppress_unfit():
                    kept, best = self._sound_graph(), epoch
                    trained = self.net.float_graph()
            if self.progress is not None:
                self.progress(epoch, self.tuning.epochs, *judged[epoch])
        losses, scores = zip(*judged, strict=True)
        return Tuned(kept, trained, losses, scores, best)

    def _sound_graph(self) -> Graph:
        graph = self.net.integer_graph()
        checks.check_integer(graph)
        prove_ranges(graph)
        return graph

    def _inputs(self, raw: Any) -> torch.Tensor:
        """What reaches the first synapses: [B, ...] integers in float32."""
        (spec,) = self.net.graph.fed
        return torch.from_numpy(np.asarray(spec.encode(raw), np.float32))

    def _epoch(self, number: int) -> None:
        net, recipe = self.net, self.recipe
        net.train()
        order = torch.randperm(len(self.train.labels)).numpy()
        for first in range(0, len(order), recipe.batch):
            chosen = order[first : first + recipe.batch]
            raw = recipe.augment(torch.from_numpy(self.train.samples.batch(chosen)))
            target_ = self.judge.target(raw.float(), torch.from_numpy(self.train.labels[chosen]))
            loss = self.judge.loss(net(self._inputs(raw.numpy())), target_)
            if not torch.isfinite(loss):
                raise SnnDeployError(
                    "SD403", f"the fine-tuning diverged in epoch {number}",
                    fix="lower its learning rate",
                )  # fmt: skip
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()

    @torch.no_grad()
    def _judged(self) -> tuple[float, float]:
        """Loss and score of the integers themselves on the held-out split."""
        exact = copy.deepcopy(self.net).double().eval()
        loss, score, count = 0.0, 0.0, len(self.held_out.labels)
        for first in range(0, count, _JUDGED_AT_ONCE):
            chosen = np.arange(first, min(first + _JUDGED_AT_ONCE, count))
            raw = self.held_out.samples.batch(chosen)
            wanted = self.judge.target(
                torch.from_numpy(raw).float(), torch.from_numpy(self.held_out.labels[chosen])
            )
            currents = exact(self._inputs(raw).double()).float()
            loss += float(self.judge.loss(currents, wanted)) * len(chosen)
            score += self.judge.score(currents.mean(0), wanted) * len(chosen)
        return loss / count, score / count
