"""What a recipe can ask of the training, and that it happens: stages, losses, rates, metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.nn import trainer
from snn_deploy.nn.checkpoint import load, read_data, save
from snn_deploy.nn.datasets import ArraySamples, Dataset, Split
from snn_deploy.nn.losses import tet
from snn_deploy.nn.measures import evaluate, layer_similarities, noisy
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import Neuron, neurons
from snn_deploy.nn.schedules import set_probability
from snn_deploy.nn.spikes import Dspike, Whetstone
from snn_deploy.nn.trainer import Epoch, parameter_groups, train
from snn_deploy.nn.twin import AnalogTwin
from tests.helpers.refusals import refused
from tests.helpers.spiking import BATCHNORM, FLATTEN, LIF, architecture, conv, linear
from tests.helpers.training import (
    DIGITS,
    LAYERS,
    TRAIN,
    held_out,
    interrupt,
    judge_of,
    of_rasters,
    partial_of,
    put,
    rasters,
    recipe,
    same,
    state_of,
    values_of,
)

WIDTH = "layers.2.spike.log_width"
CPU = torch.device("cpu")
FILTERED = {"decay": 0.9, "current_decay": 0.6}


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, DIGITS)


def epochs_of(chosen: Any, path: Path) -> list[Epoch]:
    seen: list[Epoch] = []
    train(chosen, path, progress=seen.append)
    return seen


def run_of(chosen: Any) -> Any:
    """A run that has not begun."""
    return trainer._Run(chosen, DIGITS, CPU)


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_what_progress_says_one_line_per_epoch(tmp_path: Path) -> None:
    path = tmp_path / "net.pt.metrics.jsonl"
    seen: list[Epoch] = []

    def progress(epoch: Epoch) -> None:
        seen.append(epoch)
        assert len(path.read_text().splitlines()) == len(seen)  # at once, not at the end

    result = train(recipe(), tmp_path / "net.pt", progress=progress)
    assert result.metrics == str(path)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [dataclasses.asdict(epoch) for epoch in seen]
    assert [e.epoch for e in seen] == [1, 2, 3, 4]
    assert {(e.epochs, e.stage, e.probability) for e in seen} == {(4, 1, 0.8)}
    assert seen[0].best
    for epoch in seen:
        assert list(epoch.widths) == list(epoch.similarities) == ["layers.2"]
        assert 0 < epoch.similarities["layers.2"] < 1
        assert epoch.seconds > 0


def test_the_width_reported_is_that_of_the_network(tmp_path: Path) -> None:
    def progress(epoch: Epoch) -> None:
        state = read_data(partial_of(tmp_path / "net.pt"))["model"]
        assert epoch.widths["layers.2"] == pytest.approx(state[WIDTH].exp().item())

    seen = epochs_of(recipe(), tmp_path / "net.pt")
    train(recipe(), tmp_path / "net.pt", progress=progress)
    assert seen[-1].widths["layers.2"] != pytest.approx(2.5, abs=1e-3)


@pytest.mark.parametrize("shift", [0, 1])
def test_measuring_does_not_disturb_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    train(recipe(shift=shift), tmp_path / "measured.pt")
    monkeypatch.setattr(trainer._Run, "_noisy_accuracy", lambda run: 0.0)
    monkeypatch.setattr(trainer._Run, "_similarities", lambda run: {})
    monkeypatch.setattr(trainer, "widths", lambda model: {})
    train(recipe(shift=shift), tmp_path / "plain.pt")
    assert (tmp_path / "measured.pt").read_bytes() == (tmp_path / "plain.pt").read_bytes()


def test_a_surrogate_gradient_is_measured_without_noise(tmp_path: Path) -> None:
    for epoch in epochs_of(recipe(spike={"function": "surrogate"}, epochs=2), tmp_path / "net.pt"):
        assert epoch.noisy_accuracy == epoch.validation_accuracy
        assert epoch.similarities == {"layers.2": pytest.approx(1.0)}
        assert epoch.probability == 1.0


def test_the_noisy_accuracy_is_of_the_noisy_network(tmp_path: Path) -> None:
    """With this epoch's probability and weights, and statistics as in evaluation."""
    chosen = recipe(noise={"zeta": 0.25, "milestones": [0.5]}, spike={"probability": 0.2})
    held = Split(ArraySamples(values_of(DIGITS.train)), DIGITS.train.labels).take(held_out())
    differing = []

    def progress(epoch: Epoch) -> None:
        net = SpikingNet(chosen.architecture)
        net.load_state_dict(read_data(partial_of(tmp_path / "net.pt"))["model"])
        assert epoch.probability is not None
        set_probability(net, epoch.probability)
        with torch.random.fork_rng(), noisy(net):
            torch.manual_seed(0)
            found = evaluate(net, held, judge_of(chosen), keep_mode=True)[0]
        assert epoch.noisy_accuracy == found
        differing.append(epoch.noisy_accuracy != epoch.validation_accuracy)
        x = torch.from_numpy(values_of(held)[:64])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            assert layer_similarities(net, x) == epoch.similarities

    train(chosen, tmp_path / "net.pt", progress=progress)
    assert any(differing)


# --- schedules ------------------------------------------------------------------------------------


def test_the_noise_follows_its_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[set[float]] = []
    own = trainer._Run._pass

    def spied(run: Any) -> Any:
        used.append({n.spike.train().emission.probability for n in neurons(run.model)})
        return own(run)

    monkeypatch.setattr(trainer._Run, "_pass", spied)
    noise = {"zeta": 0.5, "milestones": [0.2, 0.6]}
    seen = epochs_of(recipe(epochs=5, noise=noise), tmp_path / "net.pt")
    wanted = [0.8, 0.9, 0.9, 0.95, 0.95]
    assert [e.probability for e in seen] == pytest.approx(wanted)
    assert [max(u) for u in used] == [min(u) for u in used] == pytest.approx(wanted)


def cosine(rate: float, epochs: int) -> list[float]:
    return [rate * (1 + math.cos(math.pi * n / epochs)) / 2 for n in range(epochs)]


def test_rates_follow_a_cosine_to_0_in_every_stage(tmp_path: Path) -> None:
    stages = [
        {"kind": "ann", "epochs": 2, "learning_rate": 0.05},
        {"timesteps": 3, "epochs": 3},
        {"epochs": 4, "learning_rate": 0.01},
    ]
    seen = epochs_of(recipe(stages=stages), tmp_path / "net.pt")
    wanted = cosine(0.05, 2) + cosine(0.1, 3) + cosine(0.01, 4)
    assert [e.learning_rate for e in seen] == pytest.approx(wanted)
    assert [e.stage for e in seen] == [1, 1, 2, 2, 2, 3, 3, 3, 3]
    constant = epochs_of(recipe(schedule="constant", epochs=3), tmp_path / "net.pt")
    assert [e.learning_rate for e in constant] == [0.1] * 3


@pytest.mark.parametrize(("rate", "wanted"), [("matched", None), (0.007, 0.007)])
def test_widths_have_adam_of_their_own_rate(rate: Any, wanted: float | None) -> None:
    chosen = recipe(
        stages=[{"epochs": 100}, {"epochs": 200}], weight_decay=0.1, width_learning_rate=rate
    )
    run = run_of(chosen)
    batches = math.ceil((TRAIN - 100) / 50)
    for epochs in (100, 200):  # the steps of the stage, not of all
        weights, own = run.optimizers
        assert isinstance(weights, torch.optim.SGD)
        assert isinstance(own, torch.optim.Adam)
        (group,) = own.param_groups
        assert group["lr"] == pytest.approx(wanted or 10 / (epochs * batches))
        assert group["weight_decay"] == 0
        (width,) = (n.spike.log_width for n in neurons(run.model))
        assert [id(p) for p in group["params"]] == [id(width)]
        run.best_state = run.model.state_dict()
        if epochs == 100:
            run._begin(1)


def test_the_optimizer_of_weights_is_the_one_named() -> None:
    chosen = recipe(optimizer="adam", learning_rate=2e-3, weight_decay=0.1)
    (weights, _) = run_of(chosen).optimizers
    assert isinstance(weights, torch.optim.Adam)
    assert [g["lr"] for g in weights.param_groups] == [2e-3, 2e-3]
    assert [g["weight_decay"] for g in weights.param_groups] == [0.1, 0.0]
    (weights, _) = run_of(recipe(momentum=0.7)).optimizers
    assert {g["momentum"] for g in weights.param_groups} == {0.7}


def test_dspike_searches_at_the_start_of_every_epoch(tmp_path: Path) -> None:
    chosen = recipe(spike={"function": "dspike"}, search={"weights": 8, "step": 0.25}, epochs=3)
    seen = epochs_of(chosen, tmp_path / "net.pt")
    temperatures = [1.0] + [1 / e.widths["layers.2"] for e in seen]
    steps = np.diff(temperatures)
    assert np.allclose(np.abs(steps) * 4, np.round(np.abs(steps) * 4), atol=1e-4)
    assert steps.any()
    assert np.abs(steps).max() == pytest.approx(0.25, rel=1e-4)
    (spike,) = [m for m in load(tmp_path / "net.pt").modules() if isinstance(m, Dspike)]
    best = next(e for e in reversed(seen) if e.best)
    assert spike.temperature == pytest.approx(1 / best.widths["layers.2"], rel=1e-5)


def test_a_network_without_neurons_trains_with_every_function(tmp_path: Path) -> None:
    for function in ("asgl", "surrogate", "dspike", "whetstone"):
        chosen = recipe([FLATTEN, linear(10)], spike={"function": function}, epochs=1)
        (epoch,) = epochs_of(chosen, tmp_path / f"{function}.pt")
        assert (epoch.widths, epoch.similarities) == ({}, {})


def test_whetstone_sharpens_layer_by_layer(tmp_path: Path) -> None:
    layers = [FLATTEN, linear(8), LIF, linear(8), LIF, linear(10)]
    chosen = recipe(
        layers, spike={"function": "whetstone", "width": 2.0}, epochs=10,
        sharpen={"start": 0.2, "end": 0.8}, optimizer="adam", learning_rate=5e-3,
    )  # fmt: skip
    seen = epochs_of(chosen, tmp_path / "net.pt")
    first = [2, 2, 2, 4 / 3, 2 / 3, 2e-3, 2e-3, 2e-3, 2e-3, 2e-3]
    second = [2, 2, 2, 2, 2, 2, 4 / 3, 2 / 3, 2e-3, 2e-3]
    assert [e.widths["layers.2"] for e in seen] == pytest.approx(first, rel=1e-4)
    assert [e.widths["layers.4"] for e in seen] == pytest.approx(second, rel=1e-4)
    assert {e.probability for e in seen} == {0.0}
    last = load(tmp_path / "net.pt")
    assert sum(isinstance(m, Whetstone) for m in last.modules()) == 2
    assert seen[-1].similarities["layers.2"] > seen[0].similarities["layers.2"]


# --- stages ---------------------------------------------------------------------------------------


def test_timesteps_fall_from_stage_to_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time Inheritance Training; judged with the stage's own timesteps, and kept with the last."""
    used: list[tuple[type, int]] = []
    own = trainer._Run._pass

    def spied(run: Any) -> Any:
        used.append((type(run.model), run.model.timesteps))
        return own(run)

    monkeypatch.setattr(trainer._Run, "_pass", spied)
    stages = [
        {"kind": "ann", "epochs": 1},
        {"timesteps": 5, "epochs": 2},
        {"timesteps": 3, "epochs": 1},
        {"epochs": 1},
    ]
    chosen = recipe(stages=stages)
    seen = epochs_of(chosen, tmp_path / "net.pt")
    steps = [(AnalogTwin, 1), *((SpikingNet, steps) for steps in (5, 5, 3, 2))]
    assert used == steps
    assert [e.probability for e in seen] == [None, 0.8, 0.8, 0.8, 0.8]
    assert (seen[0].widths, seen[0].similarities) == ({}, {})
    assert seen[0].noisy_accuracy == seen[0].validation_accuracy
    found = load(tmp_path / "net.pt")
    assert found.timesteps == found.architecture.timesteps == 2
    # each stage has its own best
    assert all(seen[n].best for n in (0, 1, 3, 4))


def test_the_best_of_the_last_stage_is_kept_however_good_the_ones_before(tmp_path: Path) -> None:
    stages = [{"epochs": 4}, {"epochs": 1, "learning_rate": 10.0}]
    chosen = recipe(stages=stages)
    seen: list[Epoch] = []
    result = train(chosen, tmp_path / "net.pt", progress=seen.append)
    assert min(e.validation_loss for e in seen[:4]) < seen[4].validation_loss
    assert (result.best_epoch, result.validation_accuracy) == (5, seen[4].validation_accuracy)


FROZEN = {"learning_rate": 0.0}


@pytest.mark.parametrize("kind", ["ann", "snn"])
def test_a_stage_begins_with_the_best_weights_of_the_one_before(tmp_path: Path, kind: str) -> None:
    """A stage that learns nothing keeps them; only batch statistics move."""
    stages = [{"kind": kind, "epochs": 3}, {"epochs": 2, **FROZEN}]
    chosen = recipe(stages=stages, width_learning_rate=0.0 if kind == "ann" else "matched")
    states = {}

    def progress(epoch: Epoch) -> None:
        states[epoch.epoch] = read_data(partial_of(tmp_path / "net.pt"))

    train(chosen, tmp_path / "net.pt", progress=progress)
    best = states[3]["best"]
    assert best["epoch"] in (1, 2, 3)
    found = state_of(tmp_path / "net.pt")
    weights = [k for k in found if k.endswith(("weight", "bias"))]
    assert len(weights) == 5
    for name in weights:
        assert torch.equal(found[name], best["state"][name]), name
    if kind == "ann":
        assert WIDTH not in best["state"]
        assert found[WIDTH].exp().item() == pytest.approx(2.5)
    else:
        assert not torch.equal(found[WIDTH], best["state"][WIDTH])  # its rate is not 0
    assert states[4]["spiking"].keys() == found.keys()


def test_a_stage_has_new_optimizers(tmp_path: Path) -> None:
    stages = [{"epochs": 2}, {"epochs": 1, **FROZEN}]
    steps = {}

    def progress(epoch: Epoch) -> None:
        adam = read_data(partial_of(tmp_path / "net.pt"))["optimizers"][1]
        steps[epoch.epoch] = {int(s["step"]) for s in adam["state"].values()}

    train(recipe(stages=stages), tmp_path / "net.pt", progress=progress)
    assert steps == {1: {4}, 2: {8}, 3: {4}}


def test_an_ann_learns_and_gives_the_spiking_network_a_start(tmp_path: Path) -> None:
    stages = [{"kind": "ann", "epochs": 6}, {"epochs": 1, "learning_rate": 0.02}]
    seen = epochs_of(recipe(stages=stages), tmp_path / "net.pt")
    assert seen[5].validation_accuracy > 80
    alone = epochs_of(recipe(epochs=1, learning_rate=0.02), tmp_path / "alone.pt")
    assert seen[6].loss < alone[0].loss


# --- the network to start from --------------------------------------------------------------------


def test_training_starts_from_an_initial_network(tmp_path: Path) -> None:
    first = train(recipe(epochs=3), tmp_path / "first.pt")
    more = recipe(
        epochs=1, timesteps=4, initial=first.checkpoint, width_learning_rate=0.0, **FROZEN
    )
    train(more, tmp_path / "more.pt")
    one, other = state_of(tmp_path / "first.pt"), state_of(tmp_path / "more.pt")
    for name in one:
        moves = "running" in name or "num_batches" in name
        assert torch.equal(one[name], other[name]) != moves, name


def test_an_ann_stage_starts_from_the_initial_network_too(tmp_path: Path) -> None:
    first = train(recipe(epochs=2), tmp_path / "first.pt")
    chosen = recipe(stages=[{"kind": "ann", "epochs": 1}, {"epochs": 1}], initial=first.checkpoint)
    run = run_of(chosen)
    assert isinstance(run.model, AnalogTwin)
    weights = state_of(tmp_path / "first.pt")
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())


def test_an_initial_network_that_does_not_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*arguments: Any) -> Any:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(trainer._Run, "_pass", no_training)
    (tmp_path / "text.pt").write_text("text")
    other = SpikingNet(recipe([FLATTEN, linear(3), LIF, linear(10)]).architecture)
    save(other, tmp_path / "other.pt")
    wider = SpikingNet(recipe([conv(5, padding=1), *LAYERS[1:]]).architecture)
    save(wider, tmp_path / "wider.pt")
    before = sorted(tmp_path.iterdir())
    for name, code, exit_code in (
        ("none.pt", "SD101", Exit.USAGE),
        (".", "SD101", Exit.USAGE),
        ("text.pt", "SD401", Exit.INTEGRITY),
        ("other.pt", "SD104", Exit.USAGE),
        ("wider.pt", "SD104", Exit.USAGE),
    ):
        with pytest.raises(SnnDeployError) as caught:
            train(recipe(initial=str(tmp_path / name)), tmp_path / "net.pt")
        assert (caught.value.code, caught.value.exit) == (code, exit_code), name
        assert caught.value.where == str(tmp_path / name)
        assert sorted(tmp_path.iterdir()) == before


# --- losses ---------------------------------------------------------------------------------------


def test_tet_is_what_is_minimised_and_judged(tmp_path: Path) -> None:
    chosen = recipe(loss="tet", tet={"weight": 0.1, "target": 0.5}, epochs=3)
    seen = epochs_of(chosen, tmp_path / "net.pt")
    assert seen[-1].loss < seen[0].loss
    best = next(e for e in reversed(seen) if e.best)
    x = torch.from_numpy(values_of(DIGITS.train)[held_out()])
    labels = torch.from_numpy(DIGITS.train.labels[held_out()])
    with torch.inference_mode():
        loss = tet(load(tmp_path / "net.pt").currents(x), labels, 0.1, 0.5).item()
    assert best.validation_loss == pytest.approx(loss, rel=1e-5)
    train(recipe(epochs=3), tmp_path / "other.pt")
    assert not same(state_of(tmp_path / "net.pt"), state_of(tmp_path / "other.pt"))


def test_an_autoencoder_learns_to_reconstruct(tmp_path: Path) -> None:
    layers = [FLATTEN, linear(32), LIF, linear(64)]
    chosen = recipe(layers, loss="reconstruction", epochs=10, optimizer="adam", learning_rate=5e-3)
    seen: list[Epoch] = []
    result = train(chosen, tmp_path / "net.pt", progress=seen.append)
    assert result.measure == "psnr"
    assert seen[-1].validation_accuracy > seen[0].validation_accuracy + 1
    assert seen[-1].train_accuracy > seen[0].train_accuracy + 1
    x = values_of(DIGITS.test)
    with torch.inference_mode():
        out = load(result.checkpoint)(torch.from_numpy(x)).double().numpy()
    errors = ((out - x.reshape(len(x), -1) / 16) ** 2).mean(1)
    assert result.test_accuracy == pytest.approx((-10 * np.log10(errors)).mean(), rel=1e-4)
    assert result.test_accuracy > 10


# --- neurons --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granularity", "shape"), [("layer", ()), ("channel", (4, 1, 1)), ("neuron", (4, 8, 8))]
)
def test_widths_are_learned_per_layer_channel_or_neuron(
    tmp_path: Path, granularity: str, shape: tuple[int, ...]
) -> None:
    spike = {"granularity": granularity}
    seen = epochs_of(recipe(spike=spike, epochs=2), tmp_path / "net.pt")
    width = state_of(tmp_path / "net.pt")[WIDTH].exp()
    assert width.shape == shape
    assert (width != torch.tensor(2.5)).float().mean() > 0.9
    if shape:
        assert width.std() > 1e-4  # each its own
    best = next(e for e in reversed(seen) if e.best)
    assert best.widths["layers.2"] == pytest.approx(width.mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("learned", "shape"), [("layer", ()), ("channel", (4, 1, 1)), ("neuron", (4, 8, 8))]
)
def test_learned_decays_and_thresholds_move(
    tmp_path: Path, learned: str, shape: tuple[int, ...]
) -> None:
    lif = {"learn_decay": learned, "learn_threshold": True, "decay": 0.5, "threshold": 0.5}
    train(recipe(lif=lif, timesteps=4, epochs=2), tmp_path / "net.pt")
    (neuron,) = neurons(load(tmp_path / "net.pt"))
    decay, threshold = neuron.decay, neuron.threshold
    assert decay.shape == shape
    assert threshold.shape == ()
    assert (decay != 0.5).float().mean() > 0.9
    assert threshold.item() != pytest.approx(0.5, abs=1e-3)
    assert 0 < decay.min() <= decay.max() < 1
    run = run_of(recipe(lif=lif))
    names = {id(p): n for n, p in run.model.named_parameters()}
    groups, own = parameter_groups(run.model)
    assert {names[id(p)].rsplit(".", 1)[1] for p in own} == {
        "log_width", "decay_logit", "log_threshold",
    }  # fmt: skip
    found = [id(p) for group in groups for p in group["params"]] + [id(p) for p in own]
    assert sorted(found) == sorted(names)  # every parameter once


def test_recurrent_weights_are_synapses() -> None:
    """With weight decay, and with the weights' rate."""
    recurrent = {"type": "lif", "recurrent": True}
    net = SpikingNet(architecture([linear(3), recurrent, linear(2)], (4,)))
    groups, own = parameter_groups(net)
    names = {id(p): n for n, p in net.named_parameters()}
    assert {names[id(p)] for p in groups[0]["params"]} == {
        "layers.0.module.weight", "layers.1.recurrent.weight", "layers.2.module.weight",
    }  # fmt: skip
    assert [names[id(p)] for p in own] == ["layers.1.spike.log_width"]


NEURONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lif": ({"type": "lif"}, {}),
    "filtered": ({"type": "lif"}, FILTERED),
    "recurrent": ({"type": "lif", "recurrent": True}, {}),
    "recurrent, filtered": ({"type": "lif", "recurrent": True}, FILTERED),
    "clif": ({"type": "clif"}, FILTERED),
}


@pytest.fixture
def spikes(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    return put(monkeypatch, rasters())


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_spike_trains_are_learned(
    tmp_path: Path, spikes: Dataset, name: str, precision: str
) -> None:
    neuron, lif = NEURONS[name]
    chosen = of_rasters(
        neuron, lif, epochs=6, optimizer="adam", learning_rate=2e-2, batch=20, precision=precision
    )
    result = train(chosen, tmp_path / "net.pt")
    assert result.test_accuracy > 90
    with np.load(result.recording) as recording:
        assert np.array_equal(recording["spikes"], values_of(spikes.test))
        assert recording["spikes"].dtype == np.uint8
    if neuron.get("recurrent"):
        before = run_of_rasters(chosen, spikes).model.get_parameter("layers.1.recurrent.weight")
        assert not torch.equal(before, state_of(tmp_path / "net.pt")["layers.1.recurrent.weight"])


def run_of_rasters(chosen: Any, data: Dataset) -> Any:
    return trainer._Run(chosen, data, CPU)


# --- precision and memory -------------------------------------------------------------------------


def test_half_precision_on_the_cpu_learns_and_keeps_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_types: set[torch.dtype] = set()
    own = nn.functional.conv2d

    def spied(*arguments: Any, **options: Any) -> Any:
        found = own(*arguments, **options)
        seen_types.add(found.dtype)
        return found

    net: list[Neuron] = []
    forward = Neuron.forward

    def membrane(neuron: Neuron, current: torch.Tensor, timesteps: int | None = None) -> Any:
        net.append(neuron)
        seen_types.add(current.dtype)
        out = forward(neuron, current, timesteps)
        assert out.dtype == torch.float32  # neurons are never in half precision
        return out

    monkeypatch.setattr(Neuron, "forward", membrane)
    result = train(recipe(precision="bfloat16", epochs=6), tmp_path / "half.pt")
    assert torch.bfloat16 in seen_types
    assert result.validation_accuracy > 60
    state = state_of(tmp_path / "half.pt")
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    assert all(torch.isfinite(v).all() for v in state.values())
    train(recipe(epochs=6), tmp_path / "whole.pt")
    assert not same(state, state_of(tmp_path / "whole.pt"))


def test_channels_last_is_the_same_within_rounding(tmp_path: Path) -> None:
    layers = [
        conv(8, padding=1),
        BATCHNORM,
        LIF,
        conv(8, padding=1),
        BATCHNORM,
        LIF,
        FLATTEN,
        linear(10),
    ]
    seen = {}
    for last in (False, True):
        # a smooth network: a rounding error does not grow into a spike
        spike = {"function": "asgl", "smooth": "sigmoid", "probability": 0.0, "width": 0.5}
        chosen = recipe(layers, channels_last=last, spike=spike, epochs=2, learning_rate=0.02)
        run = run_of(chosen)
        weight = run.model.get_parameter("layers.3.module.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) == last
        seen[last] = epochs_of(chosen, tmp_path / f"{last}.pt")
    for one, other in zip(seen[False], seen[True], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert one.noisy_accuracy == pytest.approx(other.noisy_accuracy, abs=1)
        assert one.validation_accuracy == pytest.approx(other.validation_accuracy, abs=2)
    weights = [
        state_of(tmp_path / f"{last}.pt")["layers.3.module.weight"] for last in (False, True)
    ]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-3)
    assert weights[1].is_contiguous()


def test_the_test_accuracy_is_that_of_the_file(tmp_path: Path) -> None:
    for chosen in (recipe(channels_last=True), recipe(precision="bfloat16")):
        result = train(chosen, tmp_path / "net.pt")
        found = evaluate(load(result.checkpoint), DIGITS.test, judge_of(chosen))
        assert found[0] == result.test_accuracy


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with refused("SD104", r"device(.|\n)*fix"):
        train(recipe(device="cuda"), tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []
    train(recipe(device="auto", epochs=1), tmp_path / "net.pt")


# --- what does not go together --------------------------------------------------------------------


def test_what_does_not_fit_spikes_is_refused(tmp_path: Path, spikes: Dataset) -> None:
    chosen = recipe(
        [linear(INPUTS_OF_RASTERS)], kind="spikes", shape=(INPUTS_OF_RASTERS,), timesteps=6, high=1,
        std=1, loss="reconstruction",
    )  # fmt: skip
    with refused("SD104", "only values are reconstructed"):
        train(chosen, tmp_path / "net.pt")
    shifted = recipe(
        [linear(3)], kind="spikes", shape=(INPUTS_OF_RASTERS,), timesteps=6, high=1, std=1, shift=1
    )
    with refused("SD104", r"augment\[0\]"):
        train(shifted, tmp_path / "net.pt")


INPUTS_OF_RASTERS = 12


def test_a_reconstruction_needs_as_many_outputs_as_values(tmp_path: Path) -> None:
    with refused("SD104", "64 features"):
        train(recipe(loss="reconstruction"), tmp_path / "net.pt")


def others_of(path: Path) -> Iterator[Path]:
    yield path.with_name(path.name + ".metrics.jsonl")
    yield path.with_name(path.name + ".partial")
    yield path.with_name("digits-test.npz")


def test_what_stands_in_the_way_of_other_files_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*arguments: Any) -> Any:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(trainer, "_Run", no_training)
    path = tmp_path / "net.pt"
    for other in others_of(path):
        other.mkdir()
        with refused("SD102", other.name):
            train(recipe(), path)
        other.rmdir()
    for name in (".", "/", ""):
        with refused("SD102"):
            train(recipe(), name)


def test_a_run_that_diverged_leaves_what_came_before(tmp_path: Path) -> None:
    """The interrupted run of the epochs before stays, with their metrics."""
    stages = [{"epochs": 2}, {"epochs": 2, "learning_rate": 1e3}]
    chosen = recipe(stages=stages, momentum=1.0, weight_decay=1.0)
    with refused("SD403", "epoch [34](.|\n)*learning_rate"):
        train(chosen, tmp_path / "net.pt")
    assert not (tmp_path / "net.pt").exists()
    left = read_data(partial_of(tmp_path / "net.pt"))
    assert left["epochs_done"] in (2, 3)
    assert len(left["log"].splitlines()) == left["epochs_done"]


def test_an_interrupted_run_leaves_its_metrics(tmp_path: Path) -> None:
    interrupt(recipe(), tmp_path / "net.pt", 2)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["net.pt.metrics.jsonl", "net.pt.partial"]
