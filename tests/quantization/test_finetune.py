"""Fine-tuning: never worse on held-out data, repeatable, and its result is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.nn.checkpoint import load
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.recipe import FineTuning, Recipe
from snn_deploy.nn.trainer import train
from snn_deploy.packets import Recording
from snn_deploy.quantization import finetune as module
from snn_deploy.quantization import quantize
from snn_deploy.quantization.finetune import Tuned, finetune
from snn_deploy.quantization.scales import float_weights
from snn_deploy.sim import simulate
from tests.helpers.training import DIGITS, put, rasters, recipe

TUNING = FineTuning(epochs=4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[SpikingNet, Recipe]:
    """A small conv net on 300 digits, and its recipe."""
    with pytest.MonkeyPatch.context() as patch:
        put(patch, DIGITS)
        chosen = recipe(shift=1)
        path = tmp_path_factory.mktemp("digits") / "model.pt"
        train(chosen, path)
    return load(path), replace(chosen, finetune=TUNING)


def tuned(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[SpikingNet, Recipe], **options: Any
) -> Tuned:
    put(monkeypatch, DIGITS)
    model, chosen = digits
    return finetune(model, options.pop("to", "generic"), chosen, **options)


def accuracy(graph: Any) -> float:
    values = DIGITS.test.samples.batch(np.arange(len(DIGITS.test.labels)))
    trace = simulate(graph, Recording(values={"": values}), engine="event")
    return float((trace.decisions() == DIGITS.test.labels).mean())


@pytest.mark.parametrize("to", ["generic", "loihi2"])
def test_two_bits_are_learned(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[SpikingNet, Recipe], to: str
) -> None:
    found = tuned(monkeypatch, digits, to=to, bits=2)
    assert len(found.losses) == len(found.scores) == TUNING.epochs + 1
    assert found.best_epoch > 0
    assert found.losses[found.best_epoch] == min(found.losses) < found.losses[0]
    start = quantize(freeze(digits[0]), to, bits=2, clipping="mse")
    # on loihi2 the host has the first of two layers, which keeps its 16 bits
    assert accuracy(found.graph) > accuracy(start) + (0.1 if to == "generic" else 0.0)
    on_chip = [p for p in found.graph.projections if not found.graph.on_host(p)]
    step = found.graph.number_format.weight_step  # type: ignore[union-attr]
    assert all(set(np.unique(p.synapses.weight)) <= {-step, 0, step} for p in on_chip)


def test_it_repeats_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[SpikingNet, Recipe]
) -> None:
    one, other = (tuned(monkeypatch, digits, bits=3, granularity="channel") for _ in range(2))
    assert (one.losses, one.scores, one.best_epoch) == (
        other.losses,
        other.scores,
        other.best_epoch,
    )
    for a, b in zip(one.graph.projections, other.graph.projections, strict=True):
        assert np.array_equal(a.synapses.weight, b.synapses.weight)


def test_the_float_graph_is_what_the_integers_came_from(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[SpikingNet, Recipe]
) -> None:
    found = tuned(monkeypatch, digits, bits=4)
    for exact, integer in zip(found.float_graph.projections, found.graph.projections, strict=True):
        rounded = float_weights(found.graph, integer)
        codes = np.abs(integer.synapses.weight)
        step = np.abs(rounded[codes > 0] / codes[codes > 0]).min()
        error = np.abs(rounded - exact.synapses.weight)
        assert (error[codes < 7] <= step / 2 * (1 + 1e-9)).all()
        assert (codes < 7).mean() > 0.5


def test_an_epoch_that_does_not_fit_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[SpikingNet, Recipe]
) -> None:
    calls = []

    def refuse(graph: Any) -> Any:
        calls.append(graph)
        if len(calls) > 1:
            raise SnnDeployError("SD203", "too wide")
        return {}

    monkeypatch.setattr(module, "prove_ranges", refuse)
    found = tuned(monkeypatch, digits, bits=2)
    assert len(calls) > 1
    assert found.best_epoch == 0
    start = quantize(freeze(digits[0]), "generic", bits=2, clipping="mse")
    for a, b in zip(found.graph.projections, start.projections, strict=True):
        assert (a.synapses.weight != b.synapses.weight).mean() < 0.01


def test_divergence_is_named(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[SpikingNet, Recipe]
) -> None:
    model, chosen = digits
    wild = replace(chosen, finetune=FineTuning(epochs=2, scale_learning_rate=1e3))
    with pytest.raises(SnnDeployError, match="diverged") as caught:
        tuned(monkeypatch, (model, wild), bits=4)
    assert caught.value.code == "SD403"


def test_rasters_are_tuned_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from tests.helpers.training import of_rasters

    put(monkeypatch, rasters())
    chosen = replace(of_rasters({"type": "lif", "recurrent": True}), finetune=TUNING)
    train(chosen, tmp_path / "model.pt")
    found = finetune(load(tmp_path / "model.pt"), "generic", chosen, bits=2)
    assert min(found.losses) <= found.losses[0]
