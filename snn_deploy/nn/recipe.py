"""Training recipes in TOML: ``[data]``, ``[model]`` and ``[training]``, checked before any work.

.. code-block:: toml

    [training]
    epochs = 100
    optimizer = "sgd"                  # or "adam"
    learning_rate = 0.1                # cosine to 0 in every stage
    width_learning_rate = "matched"    # to the number of steps, or a number
    noise = { zeta = 0.9, milestones = [0.3, 0.7, 0.9, 0.95] }
    stages = [                         # Time Inheritance Training
      { kind = "ann", epochs = 100 },
      { timesteps = 6, epochs = 300, learning_rate = 0.01 },
      { timesteps = 2, epochs = 50, learning_rate = 0.004 },
    ]
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.architecture import Architecture, parse
from snn_deploy.nn.augment import Augment, parse_augment
from snn_deploy.nn.datasets import DataOptions, parse_data
from snn_deploy.nn.reader import Reader
from snn_deploy.toml import located, tomllib

MATCHED = "matched"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training with its own timesteps and learning rate, from cosine's start."""

    kind: str
    timesteps: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """How a quantized network is fine-tuned; see :mod:`snn_deploy.quantization.finetune`.

    Attributes
    ----------
    epochs : passes over the training split.
    learning_rate : of Adam on weights and biases, falling to 0 as a cosine.
    scale_learning_rate : of Adam on the logarithms of scales and widths, falling likewise.
    probability : of a spike in training (ASGL's p); None: the network's own.
    """

    epochs: int = 25
    learning_rate: float = 3e-3
    scale_learning_rate: float = 3e-3
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to train, on what, and how.

    Attributes
    ----------
    data : the data set and its options.
    augment : what is done to training samples at random.
    architecture : the network.
    stages : one after the other, each starting from the weights of the one before.
    batch, seed : as usual.
    threads : CPU threads of torch. Sums depend on it in their last bits, so that a result is the
        same on machines with more or fewer cores only if it is fixed.
    optimizer : ``sgd`` or ``adam``, on the weights; decay on the weights of synapses only.
    learning_rate, momentum, weight_decay : of it; ``schedule`` is ``cosine`` to 0, or ``constant``.
    width_learning_rate : Adam on the parameters of neurons and spike functions, without decay or
        schedule; ``matched`` follows from the number of steps.
    loss : ``cross_entropy`` of the mean current, ``tet``, or ``reconstruction`` (the input itself).
    tet : weight and target of its second term.
    noise : zeta and milestones of the probability of a spike.
    sharpen : start and end of Whetstone's sharpening, as fractions of the epochs.
    search : step, epsilon and weights of Dspike's search for a temperature.
    initial : checkpoint to start from, or "".
    device : ``cpu``, ``cuda`` or ``auto``.
    precision : ``float32``, or ``bfloat16`` for synapses (neurons stay in float32).
    channels_last : memory format of maps.
    finetune : of the quantized network; no part of the training.
    """

    data: DataOptions
    augment: Augment
    architecture: Architecture
    stages: tuple[Stage, ...]
    batch: int
    seed: int
    threads: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    width_learning_rate: float | str
    schedule: str
    loss: str
    tet: dict[str, float]
    noise: dict[str, Any]
    sharpen: dict[str, float]
    search: dict[str, Any]
    initial: str
    device: str
    precision: str
    channels_last: bool
    finetune: FineTuning = FineTuning()

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def digest(self) -> str:
        """SHA-256 of everything that decides the result."""
        special = ("data", "augment", "architecture", "stages", "finetune")
        data = {name: getattr(self, name) for name in self.__slots__ if name not in special}
        data["data"] = {k: v for k, v in self.data.to_data().items() if k != "path"}
        data["augment"] = self.augment.to_data()
        data["architecture"] = self.architecture.to_data()
        data["stages"] = [
            [stage.kind, stage.timesteps, stage.epochs, stage.learning_rate]
            for stage in self.stages
        ]
        if self.initial:
            try:
                content = Path(self.initial).read_bytes()
            except OSError as error:
                raise SnnDeployError(
                    "SD101", "cannot read", where=self.initial, why=error.strerror
                ) from None
            data["initial"] = hashlib.sha256(content).hexdigest()
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


# name: (default, smallest, largest)
_COUNTS: dict[str, tuple[int, int, int]] = {
    "batch": (64, 2, 1 << 20),  # batch statistics need two samples
    "seed": (0, 0, (1 << 32) - 1),
    "threads": (1, 1, 1024),
}
_RATES: dict[str, tuple[float, float, float]] = {
    "learning_rate": (0.1, 0.0, 1e3),
    "momentum": (0.9, 0.0, 1.0),
    "weight_decay": (5e-4, 0.0, 1.0),
}
_NAMES: dict[str, tuple[str, ...]] = {  # the first is the default
    "optimizer": ("sgd", "adam"),
    "schedule": ("cosine", "constant"),
    "loss": ("cross_entropy", "tet", "reconstruction"),
    "device": ("cpu", "cuda", "auto"),
    "precision": ("float32", "bfloat16"),
}
_TABLES: dict[str, dict[str, Any]] = {
    "tet": {"weight": 1e-3, "target": 1.0},
    "noise": {"zeta": 1.0, "milestones": []},
    "sharpen": {"start": 0.1, "end": 0.9},
    "search": {"step": 0.2, "epsilon": 0.1, "weights": 256},
}
_OTHERS: dict[str, Any] = {
    "epochs": None,
    "stages": None,
    "width_learning_rate": MATCHED,
    "initial": "",
    "channels_last": False,
}
_STAGE: dict[str, Any] = {"kind": "snn", "timesteps": None, "epochs": None, "learning_rate": None}
_MOST_EPOCHS = 100_000


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    SnnDeployError
        SD101 for a missing file, SD104 naming line, key and mend for a wrong one.
    """
    where = str(path)
    try:
        text = Path(path).read_text("utf-8")
        data = tomllib.loads(text)
        repr(data)  # a message must be able to say every value: no integers of thousands of digits
    except (FileNotFoundError, NotADirectoryError):
        raise SnnDeployError("SD101", "no such file", where=where) from None
    except OSError as error:
        raise SnnDeployError("SD101", "cannot read", where=where, why=error.strerror) from None
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, numbers without end
        raise SnnDeployError("SD104", "not valid TOML", where=where, why=str(error)) from None
    try:
        return parse_recipe(data, where)
    except SnnDeployError as error:
        if error.where == where:
            error.where = located(text, error.message, where)
        raise


def parse_recipe(data: dict[str, Any], where: str) -> Recipe:
    """Check the content of a recipe; see :func:`read_recipe`."""
    for key in data:
        if key not in ("data", "model", "training", "finetune"):
            raise SnnDeployError(
                "SD104", f"unknown table [{key}]", where=where,
                fix="[data], [model], [training], [finetune]",
            )  # fmt: skip
    for key in ("data", "model", "training"):
        if not isinstance(data.get(key), dict):
            raise SnnDeployError("SD104", f"a table [{key}] is needed", where=where)
    options = parse_data(data["data"], where)
    augment = parse_augment(data["data"].get("augment"), where)
    architecture = parse(data["model"], where)
    reader = Reader(where)
    path = "[training]"
    known = {**_OTHERS, **dict.fromkeys([*_COUNTS, *_RATES, *_NAMES, *_TABLES])}
    training = reader.table(data["training"], path, known)
    given: dict[str, Any] = {}
    for key, (default, low, high) in _COUNTS.items():
        given[key] = default if training[key] is None else training[key]
        reader.integer(given[key], f"{path} {key}", low, high)
    for key, (rate, least, most) in _RATES.items():
        value = rate if training[key] is None else training[key]
        given[key] = reader.within(value, f"{path} {key}", least, most)
    for key, names in _NAMES.items():
        given[key] = names[0] if training[key] is None else training[key]
        reader.choice(given[key], f"{path} {key}", names)
    for key in _TABLES:
        given[key] = _table(reader, key, training[key])
    width_rate = training["width_learning_rate"]
    if width_rate != MATCHED:
        width_rate = reader.within(width_rate, f"{path} width_learning_rate", 0.0, 1e3)
    reader.boolean(training["channels_last"], f"{path} channels_last")
    if not isinstance(training["initial"], str) or "\0" in training["initial"]:
        raise reader.fail(f"{path} initial", "the path of a checkpoint is needed")
    recipe = Recipe(
        data=options,
        augment=augment,
        architecture=architecture,
        stages=_stages(reader, training, architecture, given["learning_rate"]),
        width_learning_rate=width_rate,
        initial=training["initial"],
        channels_last=training["channels_last"],
        finetune=_finetune(reader, data.get("finetune", {}), architecture),
        **given,
    )
    _check_together(reader, data["training"], recipe)
    return recipe


def _finetune(reader: Reader, data: Any, architecture: Architecture) -> FineTuning:
    path = "[finetune]"
    given = reader.table(data, path, asdict(FineTuning()))
    reader.integer(given["epochs"], f"{path} epochs", 1, _MOST_EPOCHS)
    for key in ("learning_rate", "scale_learning_rate"):
        given[key] = reader.within(given[key], f"{path} {key}", 0.0, 1e3)
    if given["probability"] is not None:
        if architecture.spike[0] != "asgl":
            raise reader.fail(f"{path} probability", 'goes with spike.function = "asgl"')
        given["probability"] = reader.within(given["probability"], f"{path} probability", 0.0, 1.0)
    return FineTuning(**given)


def _table(reader: Reader, key: str, data: Any) -> dict[str, Any]:
    """One of the small tables in ``[training]``."""
    path = f"[training] {key}"
    table = reader.table({} if data is None else data, path, _TABLES[key])
    for name, value in table.items():
        at = f"{path}.{name}"
        if name == "milestones":
            if not isinstance(value, list):
                raise reader.fail(at, "a list is needed", "fractions of the epochs, rising")
            table[name] = [reader.within(m, at, 0.0, 1.0) for m in value]
            if any(a >= b for a, b in zip(table[name], table[name][1:], strict=False)):
                raise reader.fail(
                    at, f"{table[name]} is out of order", "fractions of the epochs, rising"
                )
        elif name == "weights":
            reader.integer(value, at, 1)
        elif name == "target":
            table[name] = reader.number(value, at)
        elif name in ("step", "epsilon"):
            table[name] = reader.within(value, at, 1e-9, 1e3)
        else:
            table[name] = reader.within(value, at, 0.0, 1.0)
    if key == "sharpen" and table["start"] >= table["end"]:
        raise reader.fail(path, f"start {table['start']} must be before end {table['end']}")
    return table


def _stages(
    reader: Reader, training: dict[str, Any], architecture: Architecture, rate: float
) -> tuple[Stage, ...]:
    path = "[training] stages"
    if (training["epochs"] is None) == (training["stages"] is None):
        raise reader.fail("[training] epochs", "give either `epochs` or `stages`")
    if training["stages"] is None:
        epochs = reader.integer(training["epochs"], "[training] epochs", 1, _MOST_EPOCHS)
        return (Stage("snn", architecture.timesteps, epochs, rate),)
    stages: list[Stage] = []
    for index, entry in enumerate(reader.sequence(training["stages"], path)):
        at = f"{path}[{index}]"
        stage = reader.table(entry, at, _STAGE)
        kind = reader.choice(stage["kind"], f"{at}.kind", ("snn", "ann"))
        epochs = reader.integer(stage["epochs"], f"{at}.epochs", 1, _MOST_EPOCHS)
        own = rate if stage["learning_rate"] is None else stage["learning_rate"]
        own = reader.within(own, f"{at}.learning_rate", 0.0, 1e3)
        steps = architecture.timesteps if stage["timesteps"] is None else stage["timesteps"]
        steps = reader.integer(steps, f"{at}.timesteps", 1)
        if kind == "ann" and stage["timesteps"] is not None:
            raise reader.fail(f"{at}.timesteps", "an ANN has no timesteps", "leave it out")
        steps = 1 if kind == "ann" else steps
        if kind == "ann" and stages:
            raise reader.fail(f"{at}.kind", "only the first stage may be an ANN")
        stages.append(Stage(kind, steps, epochs, own))
    if stages[-1].kind != "snn" or stages[-1].timesteps != architecture.timesteps:
        raise reader.fail(
            path, f"the last stage must train the network's own {architecture.timesteps} timesteps"
        )
    if architecture.input_kind != "constant" and any(
        s.kind == "ann" or s.timesteps != architecture.timesteps for s in stages
    ):
        raise reader.fail(
            path, "spike inputs have their own timesteps: no ANN, and the same in every stage"
        )
    return tuple(stages)


def _check_together(reader: Reader, given: dict[str, Any], recipe: Recipe) -> None:
    """Options that only go with a certain spike function or loss."""
    function = recipe.architecture.spike[0]
    for key, needed in (("noise", "asgl"), ("sharpen", "whetstone"), ("search", "dspike")):
        if key in given and function != needed:
            raise reader.fail(f"[training] {key}", f'goes with spike.function = "{needed}"')
    if "tet" in given and recipe.loss != "tet":
        raise reader.fail("[training] tet", 'goes with loss = "tet"')
