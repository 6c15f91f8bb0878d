"""Training recipes: what a file says, and what is refused and how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.nn.datasets import digits
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.recipe import parse_recipe, read_recipe
from tests.helpers.refusals import refused

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.toml"

DATA = '[data]\nname = "digits"\n'
MODEL = """[model]
timesteps = 2
input = { kind = "constant", shape = [1, 8, 8], high = 16 }
layers = [{ type = "flatten" }, { type = "linear", features = 10 }]
"""
TRAINING = "[training]\nepochs = 3\n"


def write(folder: Path, *tables: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text("\n".join(tables))
    return path


def test_the_example_is_a_recipe() -> None:
    recipe = read_recipe(EXAMPLE)
    assert (recipe.dataset, recipe.validation, recipe.epochs) == ("digits", 200, 25)
    assert recipe.architecture.timesteps == 4
    assert recipe.architecture.std == (16.0,)
    assert recipe.architecture.spike[0] == "asgl"
    assert recipe.architecture.layers[-1].target == (10,)
    SpikingNet(recipe.architecture)


def test_defaults_are_those_documented(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, DATA, MODEL, TRAINING))
    assert (recipe.validation, recipe.shift, recipe.batch, recipe.seed) == (200, 0, 64, 0)
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 5e-4)
    assert (recipe.width_learning_rate, recipe.threads) == (1e-2, 1)


def test_the_digest_changes_with_everything_that_decides_the_result(tmp_path: Path) -> None:
    base = write(tmp_path, DATA, MODEL, TRAINING).read_text()
    variants = [
        base,
        base.replace("epochs = 3", "epochs = 4"),
        base + "batch = 32\n",
        base + "seed = 1\n",
        base + "threads = 2\n",
        base + "learning_rate = 0.2\n",
        base + "momentum = 0.8\n",
        base + "weight_decay = 0.0\n",
        base + "width_learning_rate = 0.0\n",
        base.replace('"digits"', '"digits"\nvalidation = 100'),
        base.replace('"digits"', '"digits"\nshift = 1'),
        base.replace("timesteps = 2", "timesteps = 3"),
        base.replace("high = 16", "high = 17"),
        base.replace("[model]", "[model]\nspike = { width = 1.0 }"),
    ]
    digests = set()
    for text in variants:
        digests.add(read_recipe(write(tmp_path, text)).digest())
    assert len(digests) == len(variants)
    same = read_recipe(write(tmp_path, base + "batch = 64 # the default\n")).digest()
    assert same in digests


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown table": ((DATA, MODEL, TRAINING, "[extra]"), "[extra]"),
    "no data": ((MODEL, TRAINING), "[data]"),
    "no model": ((DATA, TRAINING), "[model]"),
    "no training": ((DATA, MODEL), "[training]"),
    "data no table": (("data = 3", MODEL, TRAINING), "[data]"),
    "no data set": (("[data]", MODEL, TRAINING), "[data] name"),
    "unknown data set": (('[data]\nname = "cifar"', MODEL, TRAINING), "cifar"),
    "data set a list": (("[data]\nname = []", MODEL, TRAINING), "[data] name"),
    "data unknown key": ((DATA + "path = 'x'", MODEL, TRAINING), "'path'"),
    "validation 0": ((DATA + "validation = 0", MODEL, TRAINING), "validation"),
    "shift negative": ((DATA + "shift = -1", MODEL, TRAINING), "shift"),
    "no epochs": ((DATA, MODEL, "[training]"), "epochs"),
    "epochs 0": ((DATA, MODEL, "[training]\nepochs = 0"), "epochs"),
    "epochs 1.5": ((DATA, MODEL, "[training]\nepochs = 1.5"), "epochs"),
    "batch 0": ((DATA, MODEL, TRAINING + "batch = 0"), "batch"),
    "batch 1 has no statistics": ((DATA, MODEL, TRAINING + "batch = 1"), "batch"),
    "threads 0": ((DATA, MODEL, TRAINING + "threads = 0"), "threads"),
    "seed negative": ((DATA, MODEL, TRAINING + "seed = -1"), "seed"),
    "training unknown key": ((DATA, MODEL, TRAINING + "optimiser = 'adam'"), "'optimiser'"),
    "learning rate negative": ((DATA, MODEL, TRAINING + "learning_rate = -0.1"), "learning_rate"),
    "learning rate text": ((DATA, MODEL, TRAINING + "learning_rate = '0.1'"), "learning_rate"),
    "learning rate nan": ((DATA, MODEL, TRAINING + "learning_rate = nan"), "learning_rate"),
    "momentum 2": ((DATA, MODEL, TRAINING + "momentum = 2"), "momentum"),
    "weight decay true": ((DATA, MODEL, TRAINING + "weight_decay = true"), "weight_decay"),
    "width rate infinite": ((DATA, MODEL, TRAINING + "width_learning_rate = inf"), "width_learn"),
    "model wrong": ((DATA, MODEL.replace("2\n", "0\n", 1), TRAINING), "timesteps"),
    "no TOML": ((DATA, "layers = ["), "TOML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_with_its_file(name: str, tmp_path: Path) -> None:
    tables, key = REFUSED[name]
    path = write(tmp_path, *tables)
    with pytest.raises(SnnDeployError, match=re.escape(key)) as caught:
        read_recipe(path)
    assert caught.value.code == "SD104"
    assert caught.value.exit == Exit.USAGE
    assert f"--> {path}" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with refused("SD101", "no such file"):
        read_recipe(tmp_path / "none.toml")
    with refused("SD101", "cannot read"):
        read_recipe(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with refused("SD104", "TOML"):
        read_recipe(tmp_path / "bytes.toml")


def test_a_file_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("[data]\nname = " + "[" * 5000)
    with refused("SD104", "TOML"):
        read_recipe(tmp_path / "deep.toml")


@pytest.mark.parametrize("data", [{}, {"data": [], "model": {}, "training": {}}])
def test_data_that_is_no_recipe(data: dict[str, Any]) -> None:
    with refused("SD104", r"\[data\]"):
        parse_recipe(data, "here")


def test_the_digits_are_split_as_documented() -> None:
    data = digits()
    assert (data.train.shape, data.test.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert (len(data.train_labels), len(data.test_labels), data.classes) == (1297, 500, 10)
    assert (data.train.min(), data.train.max()) == (0, 16)
    assert (data.train.dtype, data.train_labels.dtype) == ("float32", "int64")
