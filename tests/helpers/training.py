"""Small data sets in place of the digits, recipes for them, and interrupted runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from snn_deploy.nn.checkpoint import load_checkpoint
from snn_deploy.nn.datasets import (
    READERS,
    ArraySamples,
    DataOptions,
    Dataset,
    Reader,
    Split,
    open_dataset,
)
from snn_deploy.nn.measures import Judgement
from snn_deploy.nn.recipe import Recipe, parse_recipe
from snn_deploy.nn.trainer import Epoch, train
from tests.helpers.spiking import BATCHNORM, FLATTEN, LIF, avgpool, conv, linear

Array = NDArray[Any]

LAYERS = [conv(4, padding=1), BATCHNORM, LIF, avgpool(), FLATTEN, linear(10)]
TRAIN, TEST = 300, 50


def split(values: Array, labels: Array) -> Split:
    return Split(ArraySamples(values), labels)


def values_of(data: Split) -> Array:
    return data.samples.batch(np.arange(len(data.labels)))


def put(monkeypatch: pytest.MonkeyPatch, data: Dataset) -> Dataset:
    """Let ``digits`` be this data set."""
    monkeypatch.setitem(READERS, "digits", Reader(lambda options, timesteps: data, frozenset()))
    return data


def image_set(train: Split, test: Split) -> Dataset:
    return Dataset(
        train=train, test=test, classes=10, kind="constant", shape=(1, 8, 8), low=0.0, high=16.0
    )


DIGITS = open_dataset(DataOptions(name="digits", train=TRAIN, test=TEST), 2)


def held_out() -> Array:
    """The samples of the training split that choose the checkpoint."""
    return torch.randperm(TRAIN, generator=torch.Generator().manual_seed(0)).numpy()[:100]


INPUTS, CLASSES, STEPS = 12, 3, 6


def rasters() -> Dataset:
    """Three classes of spike trains, each with four inputs that spike more often."""
    rng = np.random.default_rng(0)

    def some(count: int) -> Split:
        labels = rng.integers(0, CLASSES, count)
        rate = np.where(np.arange(INPUTS) // 4 == labels[:, None], 0.8, 0.1)
        spikes = rng.random((count, STEPS, INPUTS)) < rate[:, None]
        return split(spikes.astype(np.uint8), labels)

    return Dataset(
        train=some(200), test=some(50), classes=CLASSES, kind="spikes", shape=(INPUTS,),
        low=0.0, high=1.0,
    )  # fmt: skip


def recipe(
    layers: list[dict[str, Any]] | None = None,
    *,
    spike: dict[str, Any] | None = None,
    lif: dict[str, Any] | None = None,
    shape: tuple[int, ...] = (1, 8, 8),
    low: float = 0,
    high: float = 16,
    kind: str = "constant",
    timesteps: int = 2,
    validation: int = 100,
    std: float = 16,
    shift: int = 0,
    **training: Any,
) -> Recipe:
    model = {
        "timesteps": timesteps,
        "input": {"kind": kind, "shape": list(shape), "low": low, "high": high, "std": [std]},
        "layers": layers or LAYERS,
        "lif": lif or {},
        "spike": spike or {},
    }
    augment = [{"type": "shift", "pixels": shift}] if shift else []
    rest = {} if "stages" in training else {"epochs": 4}
    return parse_recipe(
        {
            "data": {"name": "digits", "validation": validation, "augment": augment},
            "model": model,
            "training": {**rest, "batch": 50, **training},
        },
        "a test",
    )


def of_rasters(
    neuron: dict[str, Any], lif: dict[str, Any] | None = None, **training: Any
) -> Recipe:
    bias = not lif  # a filtered neuron takes no constant current
    return recipe(
        [linear(16, bias=bias), neuron, linear(CLASSES)],
        kind="spikes",
        shape=(INPUTS,),
        timesteps=STEPS,
        high=1,
        std=1,
        validation=50,
        lif=lif,
        **training,
    )


def judge_of(chosen: Recipe) -> Judgement:
    return Judgement(chosen.loss, chosen.tet, chosen.architecture)


def stop_after(epochs: int) -> Callable[[Epoch], None]:
    def progress(epoch: Epoch) -> None:
        if epoch.epoch == epochs:
            raise KeyboardInterrupt

    return progress


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def interrupt(chosen: Recipe, path: Path, after: int = 2) -> Path:
    """Train, interrupted; returns the file that is left."""
    with pytest.raises(KeyboardInterrupt):
        train(chosen, path, progress=stop_after(after))
    assert not path.exists()
    return partial_of(path)


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
