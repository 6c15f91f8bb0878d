"""Training from a recipe: progress, the best checkpoint on held-out data, exact resumption."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn import schedules
from snn_deploy.nn.checkpoint import load, read_data, save, to_bytes
from snn_deploy.nn.datasets import Dataset, Split, hold_out, open_dataset
from snn_deploy.nn.measures import Judgement, evaluate, layer_similarities, noisy, widths
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import Neuron, neurons
from snn_deploy.nn.recipe import MATCHED, Recipe, read_recipe
from snn_deploy.nn.twin import AnalogTwin, inherit
from snn_deploy.packets import Recording, require_writable, write_atomically, write_npz

# Samples of the test split that a checkpoint carries as its example.
EXAMPLES = 16
# Validation samples on which noisy and embedded network are compared layer by layer.
_COMPARED = 64


@dataclass(frozen=True, slots=True)
class Epoch:
    """Progress after one epoch; scores as in :class:`snn_deploy.nn.measures.Judgement`.

    Attributes
    ----------
    epoch, epochs, stage : counted from 1, over all stages.
    loss, train_accuracy : over the epoch's own batches, noisy.
    validation_accuracy, validation_loss : of the embedded network (Heaviside spikes).
    noisy_accuracy : on the same split, of the noisy network, batch statistics as in evaluation.
    best : whether this is the best checkpoint of its stage so far.
    probability : of a spike, in this epoch; None for an ANN.
    learning_rate : of the weights, in this epoch.
    widths : mean width of each spiking layer.
    similarities : cosine similarity between noisy and embedded activations, per spiking layer.
    seconds : wall time of the epoch.
    """

    epoch: int
    epochs: int
    stage: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_loss: float
    noisy_accuracy: float
    best: bool
    probability: float | None
    learning_rate: float
    widths: dict[str, float]
    similarities: dict[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Where the files are, and how well the chosen checkpoint does.

    The checkpoint is the epoch of lowest loss on the validation split, with Heaviside spikes, in
    the last stage. ``test_accuracy`` is on the test split, which chooses nothing. ``measure`` says
    what accuracies are: ``accuracy`` in percent, or ``psnr`` in dB for reconstruction.
    """

    checkpoint: str
    recording: str
    metrics: str
    measure: str
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
    """Train a network and write its checkpoint, the recording of its test split, and metrics.

    Writes ``output`` and, beside it, ``<data set>-test.npz`` and ``<output>.metrics.jsonl``, one
    :class:`Epoch` per line. After every epoch the whole state is kept in ``<output>.partial``; an
    interrupted run with the same recipe continues from there and ends with the same weights as an
    uninterrupted one on the same machine.

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
    require_writable(output)
    device = _device(recipe)
    data = open_dataset(recipe.data, recipe.architecture.timesteps)
    _check_fit(recipe, data)
    partial = output.with_name(output.name + ".partial")
    metrics = output.with_name(output.name + ".metrics.jsonl")
    recording = output.with_name(f"{recipe.data.name}-test.npz")
    for path in (recording, metrics, partial):
        require_writable(path)
    if output == recording:
        raise SnnDeployError(
            "SD102", f"{recording.name} is the recording's name", where=str(output),
            fix="give the network another name",
        )  # fmt: skip
    run = _Run(recipe, data, device)
    start = run.resume(partial)
    for epoch in range(start, recipe.epochs):
        report = run.epoch(epoch)
        write_atomically(partial, to_bytes(run.state(epoch + 1)))
        write_atomically(metrics, run.log.encode())
        if progress is not None:
            progress(report)
    run.model.load_state_dict(run.best_state)
    test = _recording(data)
    write_npz(recording, test.arrays())
    write_atomically(metrics, run.log.encode())
    assert isinstance(run.model, SpikingNet)
    model = run.model.cpu()
    save(model, output, example=test.head(EXAMPLES))
    partial.unlink(missing_ok=True)
    return TrainingResult(
        checkpoint=str(output),
        recording=str(recording),
        metrics=str(metrics),
        measure=run.judge.measure,
        best_epoch=run.best_epoch,
        validation_accuracy=run.best_accuracy,
        test_accuracy=evaluate(load(output), data.test, run.judge)[0],  # of what was written
        resumed_at=start,
    )


def _recording(data: Dataset) -> Recording:
    """The whole test split as a recording."""
    samples = data.test.samples.batch(np.arange(len(data.test.samples)))
    kind = {"spikes": {"": samples}} if data.kind == "spikes" else {"values": {"": samples}}
    return Recording(labels=data.test.labels, **kind)


def parameter_groups(model: nn.Module) -> tuple[list[dict[str, Any]], list[nn.Parameter]]:
    """Parameters of the weight optimiser (decay on synapses only), and those of the neurons.

    The second group holds learned widths, decays and thresholds; recurrent weights are synapses.
    """
    own = [
        parameter
        for module in model.modules()
        if isinstance(module, Neuron)
        for name, parameter in module.named_parameters()
        if not name.startswith("recurrent.")
    ]
    special = {id(p) for p in own}
    synapses = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    decayed = {id(p) for p in synapses}
    others = [p for p in model.parameters() if id(p) not in special | decayed]
    groups: list[dict[str, Any]] = [{"params": synapses}, {"params": others, "weight_decay": 0.0}]
    return groups, [p for p in own if p.requires_grad]


class _Run:
    """One training run: model, optimisers, random state and the best weights so far."""

    def __init__(self, recipe: Recipe, data: Dataset, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        torch.manual_seed(recipe.seed)
        self.judge = Judgement(recipe.loss, recipe.tet, recipe.architecture)
        self.train, self.validation = hold_out(data.train, recipe.data.validation)
        self.spiking = self._placed(SpikingNet(recipe.architecture))
        if recipe.initial:
            inherit(self.spiking, load(recipe.initial), recipe.initial)
        self.log = ""
        self.stage_number = -1
        self._begin(0)

    def _placed(self, model: SpikingNet) -> SpikingNet:
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]

    def _begin(self, number: int) -> None:
        """Start a stage: its network, from the weights so far, and new optimisers."""
        recipe, stage = self.recipe, self.recipe.stages[number]
        if stage.kind == "ann":
            self.model = self._placed(AnalogTwin(recipe.architecture))
            inherit(self.model, self.spiking, "the network")
        elif number > 0:
            source = AnalogTwin if recipe.stages[number - 1].kind == "ann" else SpikingNet
            best = source(recipe.architecture)
            best.load_state_dict(self.best_state)
            inherit(self.spiking, best, "the stage before")
        if stage.kind == "snn":
            self.model = self.spiking
            self.model.timesteps = stage.timesteps
        self.stage, self.stage_number = stage, number
        weights, own = parameter_groups(self.model)
        if recipe.optimizer == "sgd":
            first: torch.optim.Optimizer = torch.optim.SGD(
                weights,
                lr=stage.learning_rate,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
            )
        else:
            first = torch.optim.Adam(
                weights, lr=stage.learning_rate, weight_decay=recipe.weight_decay
            )
        self.optimizers = [first]
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(first, T_max=stage.epochs)
        if own:
            rate = recipe.width_learning_rate
            if rate == MATCHED:
                batches = -(-len(self.train.labels) // recipe.batch)
                rate = schedules.matched_width_rate(stage.epochs * batches)
            self.optimizers.append(torch.optim.Adam(own, lr=float(rate)))
        self.best_state: dict[str, Tensor] = {}
        self.best_loss = float("inf")
        self.best_accuracy = 0.0
        self.best_epoch = 0

    def _place(self, epoch: int) -> tuple[int, int]:
        """Stage of an epoch, and how many epochs of that stage come before it."""
        number = 0
        while epoch >= self.recipe.stages[number].epochs:
            epoch -= self.recipe.stages[number].epochs
            number += 1
        return number, epoch

    def _prepare(self, within: int) -> float | None:
        """Set what the schedules say for this epoch; returns the probability of a spike."""
        recipe, stage = self.recipe, self.stage
        function, options = recipe.architecture.spike
        if stage.kind == "ann":
            return None
        if function == "asgl":
            probability = schedules.probability_at(
                options["probability"],
                recipe.noise["zeta"],
                recipe.noise["milestones"],
                within,
                stage.epochs,
            )
            schedules.set_probability(self.model, probability)
            return probability
        if function == "whetstone":
            schedules.sharpen(
                self.model, recipe.sharpen["start"], recipe.sharpen["end"], within / stage.epochs
            )
            return 0.0
        if function == "dspike" and neurons(self.model):
            first = np.arange(min(recipe.batch, len(self.train.labels)))
            x, target = self._batch(self.train, first)
            schedules.dspike_temperature(self.model, x, target, self.judge.loss, **recipe.search)
        return 1.0

    def _batch(self, split: Split, indices: Any) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(split.samples.batch(indices))
        labels = torch.from_numpy(split.labels[indices])
        x = x.to(self.device).float()
        return x, self.judge.target(x, labels.to(self.device))

    def epoch(self, epoch: int) -> Epoch:
        """Train once over the data and judge the result on the validation split."""
        began = time.monotonic()
        number, within = self._place(epoch)
        if number != self.stage_number:
            self._begin(number)
        probability = self._prepare(within)
        rate = self.optimizers[0].param_groups[0]["lr"]
        total, score, seen = self._pass()
        if self.recipe.schedule == "cosine":
            self.schedule.step()
        judged, validation_loss = evaluate(self.model, self.validation, self.judge)
        # weights too: where batch statistics are infinite, nothing but zeros comes out of them
        state = self.model.state_dict().values()
        if not (np.isfinite([total, validation_loss]).all() and all(map(_finite, state))):
            raise SnnDeployError(
                "SD403",
                f"the training diverged in epoch {epoch + 1}",
                fix="lower [training] learning_rate",
            )
        # the loss still tells networks apart when a small validation split is decided without fault
        best = validation_loss < self.best_loss
        if best:
            self.best_loss, self.best_accuracy, self.best_epoch = validation_loss, judged, epoch + 1
            self.best_state = {k: v.cpu().clone() for k, v in self.model.state_dict().items()}
        report = Epoch(
            epoch=epoch + 1,
            epochs=self.recipe.epochs,
            stage=number + 1,
            loss=total / seen,
            train_accuracy=score / seen,
            validation_accuracy=judged,
            validation_loss=validation_loss,
            noisy_accuracy=self._noisy_accuracy(),
            best=best,
            probability=probability,
            learning_rate=rate,
            widths=widths(self.model),
            similarities=self._similarities(),
            seconds=time.monotonic() - began,
        )
        self.log += json.dumps(asdict(report)) + "\n"
        return report

    def _pass(self) -> tuple[float, float, int]:
        """One pass over the training split: summed loss, summed score, samples."""
        recipe = self.recipe
        self.model.train()
        total, score, seen = 0.0, 0.0, 0
        order = torch.randperm(len(self.train.labels)).numpy()
        for start in range(0, len(order), recipe.batch):
            chosen = order[start : start + recipe.batch]
            if len(chosen) < 2:  # batch statistics need two samples
                continue
            raw = recipe.augment(torch.from_numpy(self.train.samples.batch(chosen)))
            x = raw.to(self.device).float()
            target = self.judge.target(x, torch.from_numpy(self.train.labels[chosen]).to(x.device))
            half = recipe.precision == "bfloat16"
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
                currents = self.model.currents(x)
            currents = currents.float()
            loss = self.judge.loss(currents, target)
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in self.optimizers:
                optimizer.step()
            total += loss.item() * len(chosen)
            score += self.judge.score(currents.detach().mean(0), target) * len(chosen)
            seen += len(chosen)
        return total, score, seen

    def _noisy_accuracy(self) -> float:
        with torch.random.fork_rng(devices=[]), noisy(self.model):
            torch.manual_seed(0)
            return evaluate(self.model, self.validation, self.judge, keep_mode=True)[0]

    def _similarities(self) -> dict[str, float]:
        count = min(_COMPARED, len(self.validation.labels))
        x, _ = self._batch(self.validation, np.arange(count))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return layer_similarities(self.model, x)

    def state(self, epochs_done: int) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "recipe": self.recipe.digest(),
            "epochs_done": epochs_done,
            "stage": self.stage_number,
            "model": self.model.state_dict(),
            "spiking": self.spiking.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "schedule": json.dumps(self.schedule.state_dict()),
            "random": torch.get_rng_state(),
            "log": self.log,
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
            self._resume(state)
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

    def _resume(self, state: dict[str, Any]) -> None:
        best = state["best"]
        if state["stage"] > 0:
            # what the stage began with is replaced by what it had come to, below
            self.best_state = {k: v.cpu() for k, v in self._stage_model(state["stage"] - 1).items()}
            self._begin(int(state["stage"]))
        self.spiking.load_state_dict(state["spiking"])
        self.model.load_state_dict(best["state"])  # they must fit, too
        self.best_state = best["state"]
        self.best_loss, self.best_accuracy = float(best["loss"]), float(best["accuracy"])
        self.best_epoch = int(best["epoch"])
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.schedule.load_state_dict(json.loads(state["schedule"]))
        if not isinstance(state["log"], str):
            raise TypeError("its metrics are no text")
        self.log = state["log"]
        torch.set_rng_state(state["random"])

    def _stage_model(self, number: int) -> dict[str, Tensor]:
        kind = AnalogTwin if self.recipe.stages[number].kind == "ann" else SpikingNet
        return dict(kind(self.recipe.architecture).state_dict())


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _device(recipe: Recipe) -> torch.device:
    there = torch.cuda.is_available()
    if recipe.device == "cuda" and not there:
        raise SnnDeployError(
            "SD104", "[training] device: there is no CUDA device", fix='write device = "auto"'
        )
    return torch.device("cuda" if there and recipe.device != "cpu" else "cpu")


def _check_fit(recipe: Recipe, data: Dataset) -> None:
    architecture = recipe.architecture
    where = f"data set {recipe.data.name}"
    if architecture.input_shape != data.shape or architecture.input_kind != data.kind:
        raise SnnDeployError(
            "SD104", f"[model] input must be {data.kind}, of shape {list(data.shape)}", where=where
        )
    outputs = int(np.prod(data.shape)) if recipe.loss == "reconstruction" else data.classes
    if architecture.layers[-1].target != (outputs,):
        raise SnnDeployError("SD104", f"the last layer must have {outputs} features", where=where)
    if recipe.loss == "reconstruction" and data.kind != "constant":
        raise SnnDeployError("SD104", "[training] loss: only values are reconstructed", where=where)
    recipe.augment.require(data.kind, data.shape, architecture.low, architecture.high)
    if data.low < architecture.low or data.high > architecture.high:
        raise SnnDeployError(
            "SD104",
            f"[model] input: the data spans [{data.low:g}, {data.high:g}], the declared range is "
            f"[{architecture.low:g}, {architecture.high:g}]",
            where=where,
        )
