"""Training recipes in TOML: ``[data]``, ``[model]`` and ``[training]``, checked before any work."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.architecture import Architecture, parse
from snn_deploy.nn.datasets import DATASETS
from snn_deploy.toml import tomllib


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to train, on what, and how.

    Attributes
    ----------
    dataset : name in :data:`snn_deploy.nn.datasets.DATASETS`.
    validation : samples held out of the training split to choose the checkpoint.
    shift : images are shifted by up to so many pixels each way, at random, in training only.
    architecture : the network.
    epochs, batch, seed : as usual.
    threads : CPU threads of torch. Sums depend on it in their last bits, so that a result is the
        same on machines with more or fewer cores only if it is fixed.
    learning_rate, momentum, weight_decay : SGD on the weights, cosine to 0; decay on the weights of
        synapses only.
    width_learning_rate : Adam on the widths of the spike functions, without decay or schedule.
    """

    dataset: str
    validation: int
    shift: int
    architecture: Architecture
    epochs: int
    batch: int
    seed: int
    threads: int
    learning_rate: float
    momentum: float
    weight_decay: float
    width_learning_rate: float

    def digest(self) -> str:
        """SHA-256 of everything that decides the result."""
        data = {name: getattr(self, name) for name in self.__slots__ if name != "architecture"}
        data["architecture"] = self.architecture.to_data()
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


# name: (default or None if required, smallest, largest)
_COUNTS: dict[str, tuple[int | None, int, int]] = {
    "epochs": (None, 1, 100_000),
    "batch": (64, 2, 1 << 20),  # batch statistics need two samples
    "seed": (0, 0, (1 << 32) - 1),
    "threads": (1, 1, 1024),
}
_RATES: dict[str, tuple[float, float, float]] = {
    "learning_rate": (0.1, 0.0, 1e3),
    "momentum": (0.9, 0.0, 1.0),
    "weight_decay": (5e-4, 0.0, 1.0),
    "width_learning_rate": (1e-2, 0.0, 1e3),
}


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    SnnDeployError
        SD101 for a missing file, SD104 naming key and mend for a wrong one.
    """
    where = str(path)
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SnnDeployError("SD101", "no such file", where=where) from None
    except OSError as error:
        raise SnnDeployError("SD101", "cannot read", where=where, why=error.strerror) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnnDeployError("SD104", "not valid TOML", where=where, why=str(error)) from None
    return parse_recipe(data, where)


def parse_recipe(data: dict[str, Any], where: str) -> Recipe:
    """Check the content of a recipe; see :func:`read_recipe`."""
    for key in data:
        if key not in ("data", "model", "training"):
            raise SnnDeployError(
                "SD104", f"unknown table [{key}]", where=where, fix="[data], [model], [training]"
            )
    for key in ("data", "model", "training"):
        if not isinstance(data.get(key), dict):
            raise SnnDeployError("SD104", f"a table [{key}] is needed", where=where)
    source, training = data["data"], data["training"]
    _only(source, {"name", "validation", "shift"}, "[data]", where)
    _only(training, {*_COUNTS, *_RATES}, "[training]", where)
    if not isinstance(source.get("name"), str) or source["name"] not in DATASETS:
        raise SnnDeployError(
            "SD104",
            f"[data] name: unknown data set {source.get('name')!r}",
            where=where,
            fix=f"choose one of: {', '.join(DATASETS)}",
        )
    validation = _count(source, "validation", (200, 1, 1 << 30), "[data]", where)
    counts = {k: _count(training, k, limits, "[training]", where) for k, limits in _COUNTS.items()}
    rates = {}
    for key, (default, low, high) in _RATES.items():
        value = training.get(key, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise SnnDeployError(
                "SD104", f"[training] {key}: {value!r} must lie in [{low}, {high}]", where=where
            )
        rates[key] = float(value)
    return Recipe(
        dataset=source["name"],
        validation=validation,
        shift=_count(source, "shift", (0, 0, 64), "[data]", where),
        architecture=parse(data["model"], where),
        epochs=counts["epochs"],
        batch=counts["batch"],
        seed=counts["seed"],
        threads=counts["threads"],
        learning_rate=rates["learning_rate"],
        momentum=rates["momentum"],
        weight_decay=rates["weight_decay"],
        width_learning_rate=rates["width_learning_rate"],
    )


def _only(data: dict[str, Any], known: set[str], table: str, where: str) -> None:
    for key in data:
        if key not in known:
            raise SnnDeployError(
                "SD104",
                f"{table}: unknown key {key!r}",
                where=where,
                fix=f"known keys: {', '.join(sorted(known))}",
            )


def _count(
    data: dict[str, Any], key: str, limits: tuple[int | None, int, int], table: str, where: str
) -> int:
    default, low, high = limits
    value = data.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise SnnDeployError(
            "SD104", f"{table} {key}: {value!r} must be an integer in [{low}, {high}]", where=where
        )
    return value
