"""Training from a recipe: progress, the best checkpoint on held-out data, exact resumption."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.checkpoint import read_data, save, to_bytes
from snn_deploy.nn.datasets import DATASETS, Dataset
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.recipe import Recipe, read_recipe
from snn_deploy.nn.spikes import SpikeFunction
from snn_deploy.packets import Recording, require_writable, write_atomically, write_npz

# Samples of the test split that a checkpoint carries as its example.
EXAMPLES = 16


@dataclass(frozen=True, slots=True)
class Epoch:
    """Progress after one epoch: accuracies in percent, Heaviside spikes on the validation split."""

    epoch: int
    epochs: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    best: bool


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Where the files are, and how well the chosen checkpoint does.

    The checkpoint is the epoch of lowest cross-entropy on the validation split, with Heaviside
    spikes. ``test_accuracy`` is in percent, on the test split, which chooses nothing.
    """

    checkpoint: str
    recording: str
    best_epoch: int
    validation_accuracy: float
    test_accuracy: float
    resumed_at: int


def train(
    recipe: str | os.PathLike[str] | Recipe,
    output: str | os.PathLike[str],
    *,
    progress: Callable[[Epoch], None] | None = None,
) -> TrainingResult:
    """Train a network and write its checkpoint and the recording of its test split.

    Writes ``output`` and, beside it, ``<data set>-test.npz``. After every epoch the whole state is
    kept in ``<output>.partial``; an interrupted run with the same recipe continues from there and
    ends with the same weights as an uninterrupted one on the same machine.

    Parameters
    ----------
    recipe : path of a TOML file, or a parsed recipe.
    output : path of the checkpoint.
    progress : called after each epoch.

    Raises
    ------
    SnnDeployError
        SD101 or SD104 for the recipe, SD102 for the output, SD403 if the training diverges.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        return _train(recipe, Path(output), progress)
    finally:
        torch.set_num_threads(threads)


def _train(
    recipe: Recipe, output: Path, progress: Callable[[Epoch], None] | None
) -> TrainingResult:
    data = DATASETS[recipe.dataset]()
    _check_fit(recipe, data)
    partial = output.with_name(output.name + ".partial")
    require_writable(output)
    recording = output.with_name(f"{recipe.dataset}-test.npz")
    if output == recording:
        raise SnnDeployError(
            "SD102", f"{recording.name} is the recording's name", where=str(output),
            fix="give the network another name",
        )  # fmt: skip
    run = _Run(recipe, data)
    start = run.resume(partial)
    for epoch in range(start, recipe.epochs):
        report = run.epoch(epoch)
        write_atomically(partial, to_bytes(run.state(epoch + 1)))
        if progress is not None:
            progress(report)
    run.model.load_state_dict(run.best_state)
    test = Recording(values={"": data.test}, labels=data.test_labels)
    write_npz(recording, test.arrays())
    save(run.model, output, example=test.head(EXAMPLES))
    partial.unlink(missing_ok=True)
    return TrainingResult(
        checkpoint=str(output),
        recording=str(recording),
        best_epoch=run.best_epoch,
        validation_accuracy=run.best_accuracy,
        test_accuracy=evaluate(run.model, data.test, data.test_labels)[0],
        resumed_at=start,
    )


def shifted(images: Tensor, most: int) -> Tensor:
    """Each image [B, C, H, W] moved by up to ``most`` pixels each way, zeros moving in."""
    if most == 0:
        return images
    count, channels, height, width = images.shape
    padded = nn.functional.pad(images, (most, most, most, most))
    offset = torch.randint(0, 2 * most + 1, (2, count, 1))
    rows = (offset[0] + torch.arange(height))[:, None, :, None]
    columns = (offset[1] + torch.arange(width))[:, None, None, :]
    sample = torch.arange(count)[:, None, None, None]
    return padded[sample, torch.arange(channels)[None, :, None, None], rows, columns]


def evaluate(model: SpikingNet, values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy in percent and mean cross-entropy, in evaluation (Heaviside) mode."""
    model.eval()
    right, loss = 0, 0.0
    with torch.inference_mode():
        for start in range(0, len(values), 256):
            out = model(torch.from_numpy(values[start : start + 256]))
            truth = torch.from_numpy(labels[start : start + 256])
            right += int((out.argmax(1) == truth).sum())
            loss += float(nn.functional.cross_entropy(out, truth, reduction="sum"))
    return 100.0 * right / len(values), loss / len(values)


def parameter_groups(model: nn.Module) -> tuple[list[dict[str, Any]], list[nn.Parameter]]:
    """Parameters of the weight optimiser (decay on synapses only), and the learned widths."""
    widths = [p for m in model.modules() if isinstance(m, SpikeFunction) for p in m.parameters()]
    special = {id(p) for p in widths}
    synapses = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    decayed = {id(p) for p in synapses}
    others = [p for p in model.parameters() if id(p) not in special | decayed]
    groups: list[dict[str, Any]] = [{"params": synapses}, {"params": others, "weight_decay": 0.0}]
    return groups, [p for p in widths if p.requires_grad]


class _Run:
    """One training run: model, optimisers, random state and the best weights so far."""

    def __init__(self, recipe: Recipe, data: Dataset) -> None:
        self.recipe = recipe
        self.data = data
        torch.manual_seed(recipe.seed)
        self.model = SpikingNet(recipe.architecture)
        weights, widths = parameter_groups(self.model)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.SGD(
                weights,
                lr=recipe.learning_rate,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
            )
        ]
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizers[0], T_max=recipe.epochs
        )
        if widths:
            self.optimizers.append(torch.optim.Adam(widths, lr=recipe.width_learning_rate))
        self.best_state: dict[str, Tensor] = {}
        self.best_loss = float("inf")
        self.best_accuracy = 0.0
        self.best_epoch = 0
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0)).numpy()
        held, kept = order[: recipe.validation], order[recipe.validation :]
        self.validation = data.train[held], data.train_labels[held]
        self.x = torch.from_numpy(data.train[kept])
        self.y = torch.from_numpy(data.train_labels[kept])

    def epoch(self, epoch: int) -> Epoch:
        """Train once over the data and judge the result on the validation split."""
        self.model.train()
        total, right = 0.0, 0
        order = torch.randperm(len(self.x))
        for start in range(0, len(order), self.recipe.batch):
            chosen = order[start : start + self.recipe.batch]
            if len(chosen) < 2:  # batch statistics need two samples
                continue
            out = self.model(shifted(self.x[chosen], self.recipe.shift))
            loss = nn.functional.cross_entropy(out, self.y[chosen])
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in self.optimizers:
                optimizer.step()
            total += loss.item() * len(chosen)
            right += int((out.argmax(1) == self.y[chosen]).sum())
        self.schedule.step()
        judged, validation_loss = evaluate(self.model, *self.validation)
        if not np.isfinite([total, validation_loss]).all():
            raise SnnDeployError(
                "SD403",
                f"the training diverged in epoch {epoch + 1}",
                fix="lower [training] learning_rate",
            )
        # the loss still tells networks apart when a small validation split is decided without fault
        best = validation_loss < self.best_loss
        if best:
            self.best_loss, self.best_accuracy, self.best_epoch = validation_loss, judged, epoch + 1
            self.best_state = {k: v.clone() for k, v in self.model.state_dict().items()}
        seen = len(self.x)
        return Epoch(epoch + 1, self.recipe.epochs, total / seen, 100 * right / seen, judged, best)

    def state(self, epochs_done: int) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "recipe": self.recipe.digest(),
            "epochs_done": epochs_done,
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "schedule": json.dumps(self.schedule.state_dict()),
            "random": torch.get_rng_state(),
            "best": {
                "state": self.best_state,
                "loss": self.best_loss,
                "accuracy": self.best_accuracy,
                "epoch": self.best_epoch,
            },
        }

    def resume(self, partial: Path) -> int:
        """Continue from an interrupted run of the same recipe; returns the epochs already done."""
        if not partial.is_file():
            return 0
        try:
            state = read_data(partial)
            if state["recipe"] != self.recipe.digest():
                raise SnnDeployError(
                    "SD104",
                    "an interrupted run of another recipe is in the way",
                    where=str(partial),
                    fix="finish it with its own recipe, or delete the file",
                )
            best = state["best"]
            self.model.load_state_dict(best["state"])  # they must fit, too
            self.best_state = best["state"]
            self.best_loss, self.best_accuracy = float(best["loss"]), float(best["accuracy"])
            self.best_epoch = int(best["epoch"])
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.schedule.load_state_dict(json.loads(state["schedule"]))
            torch.set_rng_state(state["random"])
            return int(state["epochs_done"])
        except Exception as error:  # torch raises many kinds on a state that does not fit
            if isinstance(error, SnnDeployError) and error.code == "SD104":
                raise
            raise SnnDeployError(
                "SD401",
                "the interrupted run cannot be read",
                where=str(partial),
                why=str(error).splitlines()[0] if str(error) else type(error).__name__,
                fix="delete the file and train from the start",
            ) from None


def _check_fit(recipe: Recipe, data: Dataset) -> None:
    architecture = recipe.architecture
    where = f"data set {recipe.dataset}"
    if architecture.input_shape != data.train.shape[1:] or architecture.input_kind != "constant":
        raise SnnDeployError(
            "SD104",
            f"[model] input must be constant, of shape {list(data.train.shape[1:])}",
            where=where,
        )
    if architecture.layers[-1].target != (data.classes,):
        raise SnnDeployError(
            "SD104", f"the last layer must have {data.classes} features", where=where
        )
    if recipe.shift and (len(data.train.shape) != 4 or architecture.low > 0):
        raise SnnDeployError(
            "SD104",
            "[data] shift moves zeros into images: it needs [C, H, W] and low <= 0",
            where=where,
        )
    both = np.concatenate([data.train, data.test])
    if both.min() < architecture.low or both.max() > architecture.high:
        raise SnnDeployError(
            "SD104",
            f"[model] input: the data spans [{both.min()}, {both.max()}], the declared range is "
            f"[{architecture.low}, {architecture.high}]",
            where=where,
        )
    if recipe.validation >= len(data.train) - 1:
        raise SnnDeployError(
            "SD104", f"[data] validation leaves nothing of {len(data.train)} to train", where=where
        )
