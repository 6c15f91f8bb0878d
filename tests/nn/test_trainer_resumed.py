"""Interrupted runs: whatever a recipe says, the end is the same to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from snn_deploy.nn import trainer
from snn_deploy.nn.checkpoint import save
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.recipe import Recipe
from snn_deploy.nn.trainer import TrainingResult, train
from tests.helpers.spiking import BATCHNORM, FLATTEN, LIF, conv, linear
from tests.helpers.training import (
    DIGITS,
    INPUTS,
    interrupt,
    of_rasters,
    partial_of,
    put,
    rasters,
    recipe,
)

BLOCK = {
    "type": "residual",
    "layers": [conv(4, padding=1), BATCHNORM, LIF, conv(4, padding=1), BATCHNORM],
}
STAGED: dict[str, Any] = {
    "stages": [
        {"kind": "ann", "epochs": 2, "learning_rate": 0.05},
        {"timesteps": 3, "epochs": 2},
        {"timesteps": 2, "epochs": 2, "learning_rate": 0.02},
    ]
}
RECURRENT = {"type": "lif", "recurrent": True}
CLIF = {"type": "clif"}
FILTERED = {"decay": 0.9, "current_decay": 0.6}
WHETSTONE = {"function": "whetstone"}
DSPIKE = {"function": "dspike"}
LSG = {"function": "lsg"}
LEARNED = {"learn_decay": "channel", "learn_threshold": True}

# What is trained, and after which epochs it is interrupted.
RUNS: dict[str, tuple[Callable[[], Recipe], tuple[int, ...]]] = {
    "shifts": (lambda: recipe(shift=1), (2,)),
    "adam": (lambda: recipe(optimizer="adam", learning_rate=2e-3), (1, 3)),
    "constant rate": (lambda: recipe(schedule="constant"), (2,)),
    # in the ANN, at both borders of stages, within stages, before the end
    "stages": (lambda: recipe(**STAGED), (1, 2, 3, 4, 5, 6)),
    "stages with shifts and adam": (lambda: recipe(shift=1, optimizer="adam", **STAGED), (2, 3, 4)),
    "stages of lsg": (
        lambda: recipe(spike=LSG, lif={"learn_decay": "layer", "decay": 0.2}, **STAGED),
        (2, 3, 4),
    ),
    "stages of dspike": (lambda: recipe(spike=DSPIKE, search={"weights": 3}, **STAGED), (3, 4)),
    "stages of whetstone": (lambda: recipe(spike=WHETSTONE, **STAGED), (3, 4)),
    "noise schedule": (
        lambda: recipe(noise={"zeta": 0.5, "milestones": [0.25, 0.5]}),
        (1, 2, 3),
    ),
    "one mask for all timesteps": (lambda: recipe(spike={"shared": True}), (2,)),
    "dspike": (lambda: recipe(spike=DSPIKE, search={"weights": 5}), (1, 3)),
    "whetstone": (lambda: recipe(spike=WHETSTONE), (1, 3)),
    "tet": (lambda: recipe(loss="tet"), (2,)),
    "reconstruction": (
        lambda: recipe([FLATTEN, linear(16), LIF, linear(64)], loss="reconstruction"),
        (2,),
    ),
    "bfloat16": (lambda: recipe(precision="bfloat16"), (2,)),
    "channels last": (
        lambda: recipe([conv(4, padding=1), BATCHNORM, LIF, BLOCK, LIF, FLATTEN, linear(10)],
                       channels_last=True),
        (2,),
    ),
    "learned decays and thresholds": (lambda: recipe(lif=LEARNED), (2,)),
    "widths of neurons": (lambda: recipe(spike={"granularity": "neuron"}), (2,)),
    "recurrent": (lambda: of_rasters(RECURRENT, FILTERED), (2,)),
    "clif": (lambda: of_rasters(CLIF, FILTERED), (2,)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, DIGITS)


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """The metrics beside a checkpoint, without what the clock says."""
    text = path.with_name(path.name + ".metrics.jsonl").read_text()
    assert text.endswith("\n")
    epochs = [json.loads(line) for line in text.splitlines()]
    for epoch in epochs:
        assert epoch.pop("seconds") >= 0
    return epochs


def assert_same_end(whole: TrainingResult, parts: TrainingResult, one: Path, other: Path) -> None:
    assert one.read_bytes() == other.read_bytes()
    assert metrics_of(one) == metrics_of(other)
    for name in ("measure", "best_epoch", "validation_accuracy", "test_accuracy"):
        assert getattr(whole, name) == getattr(parts, name)
    assert not partial_of(other).exists()


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_ends_with_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, places = RUNS[name]
    chosen = make()
    if chosen.architecture.input_shape == (INPUTS,):
        put(monkeypatch, rasters())
    whole = train(chosen, tmp_path / "whole.pt")
    assert len(metrics_of(tmp_path / "whole.pt")) == chosen.epochs
    for after in places:
        path = tmp_path / f"{after}.pt"
        interrupt(chosen, path, after)
        assert len(metrics_of(path)) == after
        torch.manual_seed(99)  # whatever happened in between
        parts = train(make(), path)
        assert parts.resumed_at == after
        assert_same_end(whole, parts, tmp_path / "whole.pt", path)


def test_a_run_interrupted_at_every_epoch(tmp_path: Path) -> None:
    chosen = recipe(shift=1, **STAGED)
    whole = train(chosen, tmp_path / "whole.pt")
    path = tmp_path / "parts.pt"
    for after in range(1, chosen.epochs + 1):
        interrupt(chosen, path, after)
    parts = train(chosen, path)
    assert parts.resumed_at == chosen.epochs  # all was done but the writing
    assert_same_end(whole, parts, tmp_path / "whole.pt", path)


@pytest.mark.parametrize("epoch", [1, 2, 3, 5])
def test_a_run_interrupted_within_an_epoch(
    epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch is done again, the first of a stage too; metrics do not hold it twice."""
    chosen = recipe(shift=1, **STAGED)
    whole = train(chosen, tmp_path / "whole.pt")
    path = tmp_path / "parts.pt"
    passes = []
    own = trainer._Run._pass

    def stopped(run: Any) -> Any:
        passes.append(None)
        found = own(run)
        if len(passes) == epoch:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patched:
        patched.setattr(trainer._Run, "_pass", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(chosen, path)
    parts = train(chosen, path)
    assert parts.resumed_at == epoch - 1
    assert_same_end(whole, parts, tmp_path / "whole.pt", path)


def test_a_run_from_an_initial_network(tmp_path: Path) -> None:
    initial = tmp_path / "initial.pt"
    chosen = recipe(initial=str(initial))
    torch.manual_seed(5)
    save(SpikingNet(chosen.architecture), initial)
    whole = train(chosen, tmp_path / "whole.pt")
    interrupt(chosen, tmp_path / "parts.pt", 2)
    parts = train(chosen, tmp_path / "parts.pt")
    assert_same_end(whole, parts, tmp_path / "whole.pt", tmp_path / "parts.pt")


def test_an_initial_network_that_has_changed_is_another_recipe(tmp_path: Path) -> None:
    initial = tmp_path / "initial.pt"
    chosen = recipe(initial=str(initial))
    for seed in (0, 1):
        torch.manual_seed(seed)
        save(SpikingNet(chosen.architecture), initial)
        if seed == 0:
            interrupt(chosen, tmp_path / "net.pt")
    with pytest.raises(Exception, match="another recipe"):
        train(chosen, tmp_path / "net.pt")
