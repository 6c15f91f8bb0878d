"""Training recipes: what a file says, and what is refused, on which line, and how."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.nn.augment import Augment
from snn_deploy.nn.checkpoint import save
from snn_deploy.nn.datasets import DataOptions, open_dataset
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.recipe import MATCHED, FineTuning, Stage, parse_recipe, read_recipe
from snn_deploy.nn.trainer import train
from tests.helpers.refusals import refused

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "digits.toml"

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


def spiking(function: str, more: str = "") -> str:
    return MODEL + f'spike = {{ function = "{function}" }}\n{more}'


def staged(stages: str, more: str = "") -> str:
    return f"[training]\n{more}stages = [\n{stages}\n]\n"


def test_the_example_is_a_recipe() -> None:
    recipe = read_recipe(EXAMPLE)
    assert (recipe.data.name, recipe.data.validation, recipe.epochs) == ("digits", 200, 25)
    assert recipe.architecture.timesteps == 4
    assert recipe.architecture.std == (16.0,)
    assert recipe.architecture.spike[0] == "asgl"
    assert recipe.architecture.layers[-1].target == (10,)
    SpikingNet(recipe.architecture)


def test_fine_tuning_is_no_part_of_the_training(tmp_path: Path) -> None:
    plain = read_recipe(write(tmp_path, DATA, MODEL, TRAINING))
    tuned = read_recipe(write(tmp_path, DATA, MODEL, TRAINING, "[finetune]\nepochs = 7"))
    assert plain.finetune == FineTuning()
    assert tuned.finetune == FineTuning(epochs=7)
    assert plain.digest() == tuned.digest()


RECIPES = sorted((EXAMPLES / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_among_the_examples_is_one(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.epochs >= 1
    with torch.device("meta"):
        SpikingNet(recipe.architecture)


def test_there_are_recipes_among_the_examples() -> None:
    assert len(RECIPES) >= 10


def test_defaults_are_those_documented(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, DATA, MODEL, TRAINING))
    assert recipe.data == DataOptions(name="digits", validation=200)
    assert recipe.augment == Augment()
    assert (recipe.batch, recipe.seed, recipe.threads) == (64, 0, 1)
    assert (recipe.optimizer, recipe.schedule, recipe.loss) == ("sgd", "cosine", "cross_entropy")
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 5e-4)
    assert recipe.width_learning_rate == MATCHED
    assert recipe.stages == (Stage("snn", 2, 3, 0.1),)
    assert recipe.tet == {"weight": 1e-3, "target": 1.0}
    assert recipe.noise == {"zeta": 1.0, "milestones": []}
    assert recipe.sharpen == {"start": 0.1, "end": 0.9}
    assert recipe.search == {"step": 0.2, "epsilon": 0.1, "weights": 256}
    assert (recipe.device, recipe.precision) == ("cpu", "float32")
    assert (recipe.channels_last, recipe.initial) == (False, "")


def test_stages_take_what_they_do_not_say_from_the_recipe(tmp_path: Path) -> None:
    stages = """
      { kind = "ann", epochs = 5, learning_rate = 0.3 },
      { timesteps = 6, epochs = 4 },
      { epochs = 3, learning_rate = 0.004 },"""
    recipe = read_recipe(write(tmp_path, DATA, MODEL, staged(stages, "learning_rate = 0.02\n")))
    assert recipe.stages == (
        Stage("ann", 1, 5, 0.3),
        Stage("snn", 6, 4, 0.02),
        Stage("snn", 2, 3, 0.004),
    )
    assert recipe.epochs == 12


def test_the_digest_changes_with_everything_that_decides_the_result(tmp_path: Path) -> None:
    base = write(tmp_path, DATA, MODEL, TRAINING).read_text()
    named = base.replace("layers = [{", 'name = "gesture"\n# [{')
    staging = base.replace("epochs = 3", "stages = [{ epochs = 3 }, { epochs = 3 }]")
    whetstone = base.replace("[model]", '[model]\nspike = { function = "whetstone" }')
    dspike = base.replace("[model]", '[model]\nspike = { function = "dspike" }')
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
        base + 'optimizer = "adam"\n',
        base + 'schedule = "constant"\n',
        base + 'loss = "tet"\n',
        base + 'loss = "tet"\ntet = { weight = 0.5 }\n',
        base + 'loss = "tet"\ntet = { target = 0.5 }\n',
        base + 'loss = "reconstruction"\n',
        base + "noise = { zeta = 0.9 }\n",
        base + "noise = { zeta = 0.9, milestones = [0.5] }\n",
        base + 'device = "auto"\n',
        base + 'precision = "bfloat16"\n',
        base + "channels_last = true\n",
        base.replace('"digits"', '"digits"\nvalidation = 100'),
        base.replace('"digits"', '"digits"\ntrain = 100'),
        base.replace('"digits"', '"digits"\ntest = 100'),
        base.replace('"digits"', '"digits"\naugment = [{ type = "shift", pixels = 1 }]'),
        base.replace('"digits"', '"digits"\naugment = [{ type = "shift", pixels = 2 }]'),
        base.replace('"digits"', '"digits"\naugment = [{ type = "flip" }]'),
        base.replace("timesteps = 2", "timesteps = 3"),
        base.replace("high = 16", "high = 17"),
        base.replace("[model]", "[model]\nspike = { width = 1.0 }"),
        named.replace("[1, 8, 8]", "[2, 32, 32]"),
        named.replace("[1, 8, 8]", "[2, 32, 32]").replace("high", "low = -1, high"),
        staging,
        staging.replace("{ epochs = 3 }, ", "{ epochs = 3, learning_rate = 0.2 }, "),
        staging.replace("{ epochs = 3 }, ", "{ epochs = 3, timesteps = 4 }, "),
        staging.replace("{ epochs = 3 }, ", '{ epochs = 3, kind = "ann" }, '),
        staging.replace("{ epochs = 3 }, ", "{ epochs = 2 }, "),
        whetstone,
        whetstone + "sharpen = { start = 0.2 }\n",
        whetstone + "sharpen = { end = 0.8 }\n",
        dspike,
        dspike + "search = { step = 0.1 }\n",
        dspike + "search = { epsilon = 0.2 }\n",
        dspike + "search = { weights = 10 }\n",
    ]
    digests = set()
    for text in variants:
        digests.add(read_recipe(write(tmp_path, text)).digest())
    assert len(digests) == len(variants)
    same = read_recipe(write(tmp_path, base + "batch = 64 # the default\n")).digest()
    assert same in digests
    # the values of two variants are swapped nowhere: every field decides
    recipe = read_recipe(write(tmp_path, base))
    for field in ("epochs", "digest"):
        assert field not in {f.name for f in dataclasses.fields(recipe)}


def test_the_digest_takes_the_content_of_the_initial_network_not_its_name(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a.pt", 0), ("b.pt", 0), ("a.pt", 1)):
        path = tmp_path / name
        recipe = read_recipe(write(tmp_path, DATA, MODEL, TRAINING + f'initial = "{path}"\n'))
        torch.manual_seed(seed)
        save(SpikingNet(recipe.architecture), path)
        digests.append(recipe.digest())
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "a.pt").unlink()
    with refused("SD101", r"a\.pt"):
        recipe.digest()


def test_where_the_data_lies_does_not_change_the_digest(tmp_path: Path) -> None:
    digests = set()
    for folder in ("one", "two"):
        data = f'[data]\nname = "mnist"\npath = "{folder}"\n'
        digests.add(read_recipe(write(tmp_path, data, MODEL, TRAINING)).digest())
    assert len(digests) == 1


# What is wrong: the tables, what the message names, and the beginning of the line that it names.
REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "unknown table": ((DATA, MODEL, TRAINING, "[extra]"), "[extra]", "[extra]"),
    "no data": ((MODEL, TRAINING), "[data]", ""),
    "no model": ((DATA, TRAINING), "[model]", ""),
    "finetune unknown key": (
        (DATA, MODEL, TRAINING, "[finetune]\nbits = 2"), "unknown key 'bits'", "bits",
    ),
    "finetune epochs 0": (
        (DATA, MODEL, TRAINING, "[finetune]\nepochs = 0"), "[finetune] epochs", "epochs = 0",
    ),
    "finetune rate negative": (
        (DATA, MODEL, TRAINING, "[finetune]\nlearning_rate = -1"), "learning_rate", "learning_rate",
    ),
    "finetune probability 2": (
        (DATA, MODEL, TRAINING, "[finetune]\nprobability = 2"), "probability", "probability",
    ),
    "finetune probability of a surrogate": (
        (DATA, spiking("surrogate"), TRAINING, "[finetune]\nprobability = 0.5"),
        "goes with spike.function", "probability",
    ),
    "no training": ((DATA, MODEL), "[training]", ""),
    "data no table": (("data = 3", MODEL, TRAINING), "[data]", ""),
    "no data set": (("[data]", MODEL, TRAINING), "[data] name", "[data]"),
    "unknown data set": (('[data]\nname = "cifar"', MODEL, TRAINING), "cifar", "name"),
    "data set a list": (("[data]\nname = []", MODEL, TRAINING), "[data] name", "name"),
    "data unknown key": ((DATA + "spam = 'x'", MODEL, TRAINING), "spam", "spam"),
    "data option of others": ((DATA + "path = 'x'", MODEL, TRAINING), "path", "path"),
    "validation 0": ((DATA + "validation = 0", MODEL, TRAINING), "validation", "validation"),
    "shift": ((DATA + "shift = 1", MODEL, TRAINING), "augment", "shift"),
    "shift negative": (
        (DATA + 'augment = [\n  { type = "flip" },\n  { type = "shift", pixels = -1 },\n]', MODEL,
         TRAINING),
        "augment[1].pixels",
        '  { type = "shift"',
    ),
    "augment unknown": (
        (DATA + 'augment = [{ type = "spin" }]', MODEL, TRAINING), "spin", "augment"
    ),
    "augment a number": ((DATA + "augment = 3", MODEL, TRAINING), "[data] augment", "augment"),
    "model unknown key": ((DATA, MODEL + "layer = []", TRAINING), "'layer'", "layer ="),
    "layer unknown key": (
        (DATA, MODEL.replace("features = 10", "features = 10, width = 3"), TRAINING),
        "layers[1]: unknown key 'width'",
        "layers",
    ),
    "width negative": (
        (DATA, MODEL + "spike = { width = -1.0 }", TRAINING), "spike.width", "spike"
    ),
    "width 0": ((DATA, MODEL + "[model.spike]\nwidth = 0", TRAINING), "spike.width", "width"),
    "spike function unknown": ((DATA, spiking("spam"), TRAINING), "'spam'", "spike"),
    "network unknown": (
        (DATA, MODEL.replace("layers", '# layers') + 'name = "resnet20"', TRAINING),
        "'resnet20'",
        "name = \"r",
    ),
    "network and layers": (
        (DATA, MODEL + 'name = "resnet18"', TRAINING), "give either `layers` or", "layers"
    ),
    "norm without a name": ((DATA, MODEL + 'norm = "td"', TRAINING), "[model] norm", "norm"),
    "no epochs": ((DATA, MODEL, "[training]"), "epochs", "[training]"),
    "epochs 0": ((DATA, MODEL, "[training]\nepochs = 0"), "epochs", "epochs"),
    "epochs 1.5": ((DATA, MODEL, "[training]\nepochs = 1.5"), "epochs", "epochs"),
    "batch 0": ((DATA, MODEL, TRAINING + "batch = 0"), "batch", "batch"),
    "batch 1 has no statistics": ((DATA, MODEL, TRAINING + "batch = 1"), "batch", "batch"),
    "threads 0": ((DATA, MODEL, TRAINING + "threads = 0"), "threads", "threads"),
    "seed negative": ((DATA, MODEL, TRAINING + "seed = -1"), "seed", "seed"),
    "training unknown key": (
        (DATA, MODEL, TRAINING + "optimiser = 'adam'"), "'optimiser'", "optimiser"
    ),
    "learning rate negative": (
        (DATA, MODEL, TRAINING + "learning_rate = -0.1"), "learning_rate", "learning_rate"
    ),
    "learning rate text": (
        (DATA, MODEL, TRAINING + "learning_rate = '0.1'"), "learning_rate", "learning_rate"
    ),
    "learning rate nan": (
        (DATA, MODEL, TRAINING + "learning_rate = nan"), "learning_rate", "learning_rate"
    ),
    "momentum 2": ((DATA, MODEL, TRAINING + "momentum = 2"), "momentum", "momentum"),
    "weight decay true": (
        (DATA, MODEL, TRAINING + "weight_decay = true"), "weight_decay", "weight_decay"
    ),
    "width rate infinite": (
        (DATA, MODEL, TRAINING + "width_learning_rate = inf"), "width_learning", "width_learning"
    ),
    "width rate unknown": (
        (DATA, MODEL, TRAINING + 'width_learning_rate = "fast"'), "width_learning", "width_learning"
    ),
    "width rate a list": (
        (DATA, MODEL, TRAINING + "width_learning_rate = []"), "width_learning", "width_learning"
    ),
    "optimizer unknown": ((DATA, MODEL, TRAINING + "optimizer = 'lion'"), "'lion'", "optimizer"),
    "optimizer a number": ((DATA, MODEL, TRAINING + "optimizer = 3"), "optimizer", "optimizer"),
    "schedule unknown": ((DATA, MODEL, TRAINING + "schedule = 'step'"), "'step'", "schedule"),
    "loss unknown": ((DATA, MODEL, TRAINING + "loss = 'mse'"), "'mse'", "loss"),
    "device unknown": ((DATA, MODEL, TRAINING + "device = 'tpu'"), "'tpu'", "device"),
    "precision unknown": ((DATA, MODEL, TRAINING + "precision = 'half'"), "'half'", "precision"),
    "channels last 1": ((DATA, MODEL, TRAINING + "channels_last = 1"), "channels_l", "channels_l"),
    "initial a number": ((DATA, MODEL, TRAINING + "initial = 3"), "initial", "initial"),
    "initial no path": ((DATA, MODEL, TRAINING + 'initial = "a\\u0000b"'), "initial", "initial"),
    "noise a list": ((DATA, MODEL, TRAINING + "noise = []"), "noise", "noise"),
    "noise unknown key": ((DATA, MODEL, TRAINING + "noise = { p = 1 }"), "'p'", "noise"),
    "zeta 2": ((DATA, MODEL, TRAINING + "noise = { zeta = 2 }"), "noise.zeta", "noise"),
    "milestones a number": (
        (DATA, MODEL, TRAINING + "noise = { milestones = 3 }"), "noise.milestones", "noise"
    ),
    "milestones 0": (
        (DATA, MODEL, TRAINING + "noise = { milestones = 0 }"), "noise.milestones", "noise"
    ),
    "milestones a word": (
        (DATA, MODEL, TRAINING + 'noise = { milestones = "a" }'), "noise.milestones", "noise"
    ),
    "milestones words": (
        (DATA, MODEL, TRAINING + 'noise = { milestones = ["a"] }'), "noise.milestones", "noise"
    ),
    "milestones in epochs": (
        (DATA, MODEL, TRAINING + "noise = { milestones = [30] }"), "noise.milestones", "noise"
    ),
    "milestones out of order": (
        (DATA, MODEL, TRAINING + "noise = { milestones = [0.7, 0.3] }"), "out of order", "noise"
    ),
    "milestones twice": (
        (DATA, MODEL, TRAINING + "[training.noise]\nmilestones = [0.3, 0.3]"),
        "out of order",
        "milestones",
    ),
    "noise with a surrogate": (
        (DATA, spiking("surrogate"), TRAINING + "noise = {}"), 'spike.function = "asgl"', "noise"
    ),
    "sharpen with asgl": (
        (DATA, MODEL, TRAINING + "sharpen = {}"), 'spike.function = "whetstone"', "sharpen"
    ),
    "sharpen backwards": (
        (DATA, spiking("whetstone"), TRAINING + "sharpen = { start = 0.5, end = 0.5 }"),
        "before end",
        "sharpen",
    ),
    "search with asgl": (
        (DATA, MODEL, TRAINING + "search = {}"), 'spike.function = "dspike"', "search"
    ),
    "search of no weight": (
        (DATA, spiking("dspike"), TRAINING + "search = { weights = 0 }"), "search.weights", "search"
    ),
    "search without a step": (
        (DATA, spiking("dspike"), TRAINING + "search = { step = 0 }"), "search.step", "search"
    ),
    "search without epsilon": (
        (DATA, spiking("dspike"), TRAINING + "search = { epsilon = -1 }"), "search.eps", "search"
    ),
    "tet a list": ((DATA, MODEL, TRAINING + "loss = 'tet'\ntet = []"), "tet", "tet"),
    "tet without its loss": ((DATA, MODEL, TRAINING + "tet = {}"), 'loss = "tet"', "tet"),
    "tet weight 2": (
        (DATA, MODEL, TRAINING + "loss = 'tet'\ntet = { weight = 2 }"), "tet.weight", "tet"
    ),
    "tet target nan": (
        (DATA, MODEL, TRAINING + "loss = 'tet'\ntet = { target = nan }"), "tet.target", "tet"
    ),
    "epochs and stages": (
        (DATA, MODEL, TRAINING + "stages = [{ epochs = 3 }]"), "either `epochs` or", "epochs"
    ),
    "stages none": ((DATA, MODEL, "[training]\nstages = []"), "stages", "stages"),
    "stages a number": ((DATA, MODEL, "[training]\nstages = 3"), "stages", "stages"),
    "stage a number": ((DATA, MODEL, "[training]\nstages = [3]"), "stages[0]", "stages"),
    "stage unknown key": (
        (DATA, MODEL, staged("  { epochs = 1 },\n  { epoch = 3 },")),
        "stages[1]: unknown key 'epoch'",
        "  { epoch = 3",
    ),
    "stage without epochs": (
        (DATA, MODEL, staged('  { kind = "ann" },\n  { epochs = 3 },')),
        "stages[0].epochs",
        "  { kind",
    ),
    "stage kind unknown": (
        (DATA, MODEL, staged('  { epochs = 3 },\n  { kind = "cnn", epochs = 3 },')),
        "stages[1].kind",
        '  { kind = "cnn"',
    ),
    "stage ann later": (
        (DATA, MODEL, staged('  { epochs = 3 },\n  { kind = "ann", epochs = 1 },')),
        "stages[1].kind",
        '  { kind = "ann"',
    ),
    "stage ann with timesteps": (
        (DATA, MODEL, staged('  { kind = "ann", epochs = 1, timesteps = 4 },\n  { epochs = 3 },')),
        "stages[0].timesteps",
        '  { kind = "ann"',
    ),
    "stage rate negative": (
        (DATA, MODEL, staged("  { epochs = 3, learning_rate = -1 },")),
        "stages[0].learning_rate",
        "  { epochs = 3, l",
    ),
    "stage timesteps 0": (
        (DATA, MODEL, staged("  { epochs = 3, timesteps = 0 },\n  { epochs = 3 },")),
        "stages[0].timesteps",
        "  { epochs = 3, t",
    ),
    "last stage an ann": (
        (DATA, MODEL, staged('  { kind = "ann", epochs = 3 },')), "own 2 timesteps", "stages"
    ),
    "last stage with other timesteps": (
        (DATA, MODEL, staged("  { epochs = 3 },\n  { timesteps = 4, epochs = 3 },")),
        "own 2 timesteps",
        "stages",
    ),
    "stages of spikes": (
        (DATA, MODEL.replace("constant", "spikes"),
         staged("  { timesteps = 4, epochs = 3 },\n  { epochs = 3 },")),
        "spike inputs",
        "stages",
    ),
    "stages of spikes with an ann": (
        (DATA, MODEL.replace("constant", "spikes"),
         staged('  { kind = "ann", epochs = 3 },\n  { epochs = 3 },')),
        "spike inputs",
        "stages",
    ),
    "model wrong": ((DATA, MODEL.replace("2\n", "0\n", 1), TRAINING), "timesteps", "timesteps"),
    "no TOML": ((DATA, "layers = ["), "TOML", ""),
    "a number without end": ((DATA, MODEL, TRAINING + "batch = " + "9" * 5000), "TOML", ""),
    "a hexadecimal number without end": (
        (DATA, MODEL, TRAINING + "batch = 0x1" + "0" * 5000),
        "TOML",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    tables, key, begins = REFUSED[name]
    path = write(tmp_path, *tables)
    with pytest.raises(SnnDeployError, match=re.escape(key)) as caught:
        read_recipe(path)
    assert caught.value.code == "SD104"
    assert caught.value.exit == Exit.USAGE
    place = str(path)
    if begins:
        lines = path.read_text().splitlines()
        numbers = [n for n, line in enumerate(lines, 1) if line.startswith(begins)]
        assert len(numbers) == 1, lines
        place += f":{numbers[0]}"
    assert caught.value.where == place
    assert "\n" not in caught.value.message


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


RUBBISH: tuple[Any, ...] = (
    None, True, -1, 0, 3, 1.5, float("nan"), float("inf"), 10**400, "", "a", "\0", [], [[]], [{}],
    ["a"], [3], {}, {"a": 1}, {1: 2},
)  # fmt: skip


@pytest.mark.parametrize("rubbish", RUBBISH, ids=lambda value: repr(value)[:20])
def test_nothing_in_a_recipe_ends_in_a_traceback(rubbish: Any) -> None:
    """Rubbish in the place of everything that can be said is refused, or is right."""
    training = (
        *("epochs", "batch", "seed", "threads", "learning_rate", "momentum", "weight_decay"),
        *("width_learning_rate", "optimizer", "schedule", "loss", "device", "precision", "tet"),
        *("noise", "sharpen", "search", "stages", "initial", "channels_last"),
    )
    within = {
        "tet": ("weight", "target"),
        "noise": ("zeta", "milestones"),
        "sharpen": ("start", "end"),
        "search": ("step", "epsilon", "weights"),
    }
    stage = ("kind", "timesteps", "epochs", "learning_rate")
    changes: list[dict[str, Any]] = [{key: rubbish} for key in training]
    changes += [{key: {name: rubbish}} for key, names in within.items() for name in names]
    changes += [{"epochs": None, "stages": [{"epochs": 1, name: rubbish}]} for name in stage]
    changes.append({"epochs": None, "stages": rubbish})
    for change in changes:
        table = {k: v for k, v in {"epochs": 1, **change}.items() if v is not None}
        model = {
            "timesteps": 1,
            "input": {"kind": "constant", "shape": [1, 8, 8], "high": 16},
            "layers": [{"type": "flatten"}, {"type": "linear", "features": 10}],
        }
        try:
            parse_recipe({"data": {"name": "digits"}, "model": model, "training": table}, "here")
        except SnnDeployError as error:
            assert error.code == "SD104"  # noqa: PT017
            assert "[training]" in error.message  # noqa: PT017


def test_a_data_set_that_is_not_there_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNN_DEPLOY_DATA", raising=False)
    recipe = read_recipe(write(tmp_path, DATA.replace("digits", "mnist"), MODEL, TRAINING))
    with pytest.raises(SnnDeployError, match="SNN_DEPLOY_DATA") as caught:
        train(recipe, tmp_path / "net.pt")
    assert (caught.value.code, caught.value.exit) == ("SD101", Exit.USAGE)
    assert caught.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.toml"]


def test_the_digits_are_split_as_documented() -> None:
    data = open_dataset(DataOptions(name="digits"), 4)
    train_values = data.train.samples.batch(np.arange(1297))
    test_values = data.test.samples.batch(np.arange(500))
    assert (len(data.train.samples), len(data.test.samples)) == (1297, 500)
    assert (train_values.shape, test_values.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert (len(data.train.labels), len(data.test.labels), data.classes) == (1297, 500, 10)
    assert (train_values.min(), train_values.max()) == (0, 16)
    assert (train_values.dtype, data.train.labels.dtype) == ("float32", "int64")
