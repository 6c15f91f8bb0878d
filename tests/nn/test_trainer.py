"""Training: what it writes, exact resumption, and what it refuses before and during the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn import trainer
from snn_deploy.nn.checkpoint import load_checkpoint, read_data, to_bytes
from snn_deploy.nn.datasets import Dataset, Split
from snn_deploy.nn.measures import evaluate
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.spikes import SpikeFunction
from snn_deploy.nn.trainer import Epoch, parameter_groups, train
from snn_deploy.packets import read_recording
from tests.helpers.refusals import refused
from tests.helpers.spiking import FLATTEN, every_kind, linear
from tests.helpers.training import (
    DIGITS,
    TEST,
    TRAIN,
    held_out,
    image_set,
    interrupt,
    judge_of,
    partial_of,
    put,
    recipe,
    same,
    split,
    state_of,
    values_of,
)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The first few hundred digits in place of all."""
    return put(monkeypatch, DIGITS)


def test_it_learns_and_writes_the_network_and_the_test_split(
    tmp_path: Path, few_digits: Dataset
) -> None:
    seen: list[Epoch] = []
    result = train(recipe(epochs=6), tmp_path / "net.pt", progress=seen.append)
    names = ["digits-test.npz", "net.pt", "net.pt.metrics.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert (result.recording, result.checkpoint, result.metrics) == tuple(
        str(tmp_path / name) for name in names
    )
    assert (result.resumed_at, result.measure) == (0, "accuracy")
    assert [e.epoch for e in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].loss < 0.8 * seen[0].loss
    assert result.validation_accuracy > 60

    recording = read_recording(result.recording)
    assert np.array_equal(recording.values[""], values_of(few_digits.test))
    assert recording.labels is not None
    assert np.array_equal(recording.labels, few_digits.test.labels)
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.example is not None
    assert np.array_equal(checkpoint.example.values[""], recording.values[""][: trainer.EXAMPLES])
    assert checkpoint.example.labels is not None
    assert np.array_equal(checkpoint.example.labels, few_digits.test.labels[: trainer.EXAMPLES])
    with torch.inference_mode():
        decided = checkpoint.model(torch.from_numpy(values_of(few_digits.test))).argmax(1).numpy()
    right = 100 * (decided == few_digits.test.labels).mean()
    assert result.test_accuracy == pytest.approx(right)


@pytest.mark.parametrize("misleading", [False, True])
def test_the_epoch_of_lowest_validation_loss_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: Dataset, misleading: bool
) -> None:
    """With wrong labels on the validation split that is the first epoch, not the last."""
    labels = few_digits.train.labels.copy()
    labels[held_out()] = (labels[held_out()] + misleading) % 10
    train_split = Split(few_digits.train.samples, labels)
    put(monkeypatch, image_set(train_split, few_digits.test))
    chosen = recipe()
    states: list[dict[str, torch.Tensor]] = []
    accuracies: list[float] = []
    losses: list[float] = []

    def progress(epoch: Epoch) -> None:
        states.append(read_data(partial_of(tmp_path / "net.pt"))["model"])
        net = SpikingNet(chosen.architecture)
        net.load_state_dict(states[-1])
        accuracy, loss = evaluate(net, train_split.take(held_out()), judge_of(chosen))
        assert epoch.validation_loss == loss
        assert epoch.validation_accuracy == accuracy
        assert epoch.best == (loss < min(losses, default=np.inf))
        accuracies.append(accuracy)
        losses.append(loss)

    result = train(chosen, tmp_path / "net.pt", progress=progress)
    best = int(np.argmin(losses))
    assert best == (0 if misleading else 3)
    assert result.best_epoch == best + 1
    assert result.validation_accuracy == accuracies[best]
    assert same(state_of(tmp_path / "net.pt"), states[best])


@pytest.mark.parametrize(("after", "shift"), [(1, 1), (3, 0), (4, 0)])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, after: int, shift: int) -> None:
    whole = train(recipe(shift=shift), tmp_path / "whole.pt")
    interrupt(recipe(shift=shift), tmp_path / "parts.pt", after)
    torch.manual_seed(99)  # whatever happened in between
    parts = train(recipe(shift=shift), tmp_path / "parts.pt")
    assert parts.resumed_at == after
    assert same(state_of(tmp_path / "whole.pt"), state_of(tmp_path / "parts.pt"))
    assert (tmp_path / "whole.pt").read_bytes() == (tmp_path / "parts.pt").read_bytes()
    for name in ("best_epoch", "validation_accuracy", "test_accuracy"):
        assert getattr(whole, name) == getattr(parts, name)
    assert not partial_of(tmp_path / "parts.pt").exists()


def test_an_interrupted_run_remembers_its_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: Dataset
) -> None:
    """Wrong labels on the validation split make an early epoch the best."""
    labels = few_digits.train.labels.copy()
    labels[held_out()] = (labels[held_out()] + 1) % 10
    train_split = Split(few_digits.train.samples, labels)
    put(monkeypatch, image_set(train_split, few_digits.test))
    whole = train(recipe(), tmp_path / "whole.pt")
    interrupt(recipe(), tmp_path / "parts.pt", 3)
    parts = train(recipe(), tmp_path / "parts.pt")
    assert whole.best_epoch == parts.best_epoch < 3  # long before the interruption
    assert whole.validation_accuracy == parts.validation_accuracy
    assert (tmp_path / "whole.pt").read_bytes() == (tmp_path / "parts.pt").read_bytes()


def test_the_seed_decides(tmp_path: Path) -> None:
    states = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        train(recipe(epochs=1, seed=seed), tmp_path / "net.pt")
        states.append(state_of(tmp_path / "net.pt"))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_the_recipe_says_how_many_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    train(
        recipe(threads=2, epochs=1),
        tmp_path / "net.pt",
        progress=lambda epoch: seen.append(torch.get_num_threads()),
    )
    assert seen == [2]
    assert torch.get_num_threads() == before
    interrupt(recipe(threads=2), tmp_path / "net2.pt")
    assert torch.get_num_threads() == before


def test_a_run_of_another_recipe_is_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    left = interrupt(recipe(), path).read_bytes()
    with refused("SD104", "another recipe(.|\n)*delete"):
        train(recipe(seed=5), path)
    assert partial_of(path).read_bytes() == left
    assert not path.exists()


def test_a_run_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    whole = interrupt(recipe(), path).read_bytes()
    for content in (b"", b"rubbish", whole[: len(whole) // 2]):
        partial_of(path).write_bytes(content)
        with refused("SD401", r"net\.pt\.partial(.|\n)*delete"):
            train(recipe(), path)
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_a_run_with_a_part_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    left = read_data(interrupt(recipe(epochs=2), path, 1))
    for key in ("model", "spiking", "optimizers", "schedule", "random", "best", "recipe", "log"):
        for value in ({}, [], None, torch.zeros(3), torch.zeros(())):
            partial_of(path).write_bytes(to_bytes({**left, key: value}))
            with pytest.raises(SnnDeployError, match="delete"):
                train(recipe(epochs=2), path)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(
    "content", [[1], "text", torch.zeros(3), torch.zeros(()), {}, None], ids=repr
)
def test_a_run_that_is_something_else(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "net.pt"
    partial_of(path).write_bytes(to_bytes(content))
    with refused("SD401", "delete"):
        train(recipe(), path)


def test_a_run_whose_best_weights_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    left = read_data(interrupt(recipe(epochs=2), path, 1))
    left["best"] = {"state": {}, "loss": -1.0, "accuracy": 100.0, "epoch": 1}
    partial_of(path).write_bytes(to_bytes(left))
    with refused("SD401", "delete"):
        train(recipe(epochs=2), path)


def no_training(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("the work has begun")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_Run", no_training)
    with refused("SD102"):
        train(recipe(), tmp_path / "none" / "net.pt")
    with refused("SD102", "folder"):
        train(recipe(), tmp_path)
    (tmp_path / "file").touch()
    with refused("SD102"):
        train(recipe(), tmp_path / "file" / "net.pt")


def test_the_network_does_not_replace_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_Run", no_training)
    with refused("SD102", "digits-test.npz"):
        train(recipe(), tmp_path / "digits-test.npz")


def test_what_does_not_fit_the_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer._Run, "epoch", no_training)
    linear_only = [FLATTEN, linear(10)]
    unfit = {
        "input must be constant": recipe(linear_only, shape=(1, 8, 9)),
        "of shape": recipe(linear_only, kind="spikes"),
        "10 features": recipe([FLATTEN, linear(11)]),
        "declared range": recipe(high=15),
        "validation": recipe(validation=TRAIN - 1),
    }
    for text, chosen in unfit.items():
        with refused("SD104", text):
            train(chosen, tmp_path / "net.pt")


def test_the_test_split_chooses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: Dataset
) -> None:
    train(recipe(), tmp_path / "net.pt")
    before = state_of(tmp_path / "net.pt")
    other = split(16 - values_of(few_digits.test), (few_digits.test.labels + 1) % 10)
    put(monkeypatch, image_set(few_digits.train, other))
    train(recipe(), tmp_path / "net.pt")
    assert same(before, state_of(tmp_path / "net.pt"))


def test_the_validation_split_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: Dataset
) -> None:
    """Its labels decide which epoch is chosen, and nothing else."""
    labels = few_digits.train.labels.copy()
    labels[held_out()] = (labels[held_out()] + 1) % 10
    runs = []
    for train_labels in (few_digits.train.labels, labels):
        put(
            monkeypatch,
            image_set(Split(few_digits.train.samples, train_labels), few_digits.test),
        )
        path = interrupt(recipe(), tmp_path / "net.pt", 4)
        runs.append(read_data(path))
        path.unlink()
    assert same(runs[0]["model"], runs[1]["model"])
    assert runs[0]["best"]["loss"] != runs[1]["best"]["loss"]


def test_judging_is_in_evaluation_and_by_plain_sums(few_digits: Dataset) -> None:
    net = SpikingNet(recipe().architecture).train()
    found = evaluate(net, few_digits.test, judge_of(recipe()))
    assert not net.training
    with torch.inference_mode():
        out = net(torch.from_numpy(values_of(few_digits.test))).double().numpy()
    truth = few_digits.test.labels
    losses = np.log(np.exp(out).sum(1)) - out[np.arange(TEST), truth]
    assert found == pytest.approx((100 * (out.argmax(1) == truth).mean(), losses.mean()), rel=1e-5)


def test_shifts_are_for_training_only(tmp_path: Path) -> None:
    results = {}
    for shift in (0, 1):
        result = train(recipe(shift=shift, epochs=1), tmp_path / f"{shift}.pt")
        results[shift] = state_of(tmp_path / f"{shift}.pt")
        net = load_checkpoint(result.checkpoint).model
        recording = read_recording(result.recording)
        assert recording.labels is not None
        test = split(recording.values[""], recording.labels)
        accuracy, _ = evaluate(net, test, judge_of(recipe()))
        assert accuracy == result.test_accuracy
    assert not same(results[0], results[1])
    with refused("SD104", "shift"):
        train(recipe(shift=1, low=1e-3), tmp_path / "net.pt")


@pytest.mark.parametrize("learned", [True, False])
def test_weights_decay_only_on_synapses_and_widths_stand_apart(learned: bool) -> None:
    net = every_kind()
    for module in net.modules():
        if isinstance(module, SpikeFunction):
            module.log_width.requires_grad_(learned)
    names = {id(p): name for name, p in net.named_parameters()}
    groups, widths = parameter_groups(net)
    found = [{names[id(p)] for p in group["params"]} for group in groups]
    synapses = {
        f"{name}.weight"
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    all_widths = {name for name in names.values() if name.endswith("log_width")}
    assert len(all_widths) == 4
    assert found[0] == synapses
    assert "weight_decay" not in groups[0]  # the optimiser's own
    assert found[1] == set(names.values()) - synapses - all_widths
    assert groups[1]["weight_decay"] == 0
    assert {names[id(p)] for p in widths} == (all_widths if learned else set())


def test_learning_rates_reach_what_they_are_for(tmp_path: Path) -> None:
    """A rate of 0 leaves its parameters alone; widths have no decay and no schedule."""

    def changes(**rates: float) -> set[str]:
        chosen = recipe(epochs=1, **rates)
        torch.manual_seed(chosen.seed)
        before = SpikingNet(chosen.architecture).state_dict()
        train(chosen, tmp_path / "net.pt")
        after = state_of(tmp_path / "net.pt")
        learned = {"layers.0.module.weight", "layers.1.module.weight", "layers.2.spike.log_width"}
        return {name for name in learned if not torch.equal(before[name], after[name])}

    weights = {"layers.0.module.weight", "layers.1.module.weight"}
    assert changes(learning_rate=0.0) == {"layers.2.spike.log_width"}
    assert changes(width_learning_rate=0.0) == weights


def test_a_fixed_width_stays(tmp_path: Path) -> None:
    fixed = {"function": "surrogate", "width": 2.0}
    train(recipe(epochs=1, spike=fixed), tmp_path / "net.pt")
    width = state_of(tmp_path / "net.pt")["layers.2.spike.log_width"]
    assert width.exp().item() == pytest.approx(2.0)


DIVERGING = {
    "in training": recipe(learning_rate=1e3, momentum=1.0, weight_decay=1.0),
    "with its last step": recipe(
        [FLATTEN, linear(10)], std=1e-30, learning_rate=1e3, epochs=1, batch=1000
    ),
}


@pytest.mark.parametrize("when", DIVERGING)
def test_diverging_training_leaves_no_network(tmp_path: Path, when: str) -> None:
    path = tmp_path / "net.pt"
    with refused("SD403", "diverged(.|\n)*learning_rate"):
        train(DIVERGING[when], path)
    assert not path.exists()
    assert not (tmp_path / "digits-test.npz").exists()
