"""Architectures as data: what a recipe and a checkpoint say about a network, checked and typed.

.. code-block:: toml

    [model]
    timesteps = 4
    input = { kind = "constant", shape = [1, 8, 8], low = 0, high = 16, mean = [0.0], std = [16.0] }
    lif = { threshold = 0.5, decay = 0.5 }
    spike = { function = "asgl", width = 2.5, probability = 0.8 }
    layers = [
      { type = "conv", channels = 32, kernel = 3, padding = 1 },
      { type = "batchnorm" },
      { type = "lif" },
      { type = "avgpool", kernel = 2 },
      { type = "flatten" },
      { type = "linear", features = 10 },
    ]

The last layer is linear; its current is averaged over time (mean-current readout).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snn_deploy.errors import SnnDeployError

Data = Mapping[str, Any]

# More than this is no network but a broken file, or an attack on memory.
MAX_EXTENT = 1 << 20

_REQUIRED = object()

_TABLES: dict[str, dict[str, Any]] = {
    "conv": {"channels": _REQUIRED, "kernel": _REQUIRED, "stride": 1, "padding": 0, "bias": False},
    "batchnorm": {},
    "lif": {},
    "avgpool": {"kernel": _REQUIRED},
    "flatten": {},
    "linear": {"features": _REQUIRED, "bias": True},
}
_SPIKES: dict[str, dict[str, Any]] = {
    "asgl": {"width": 2.5, "probability": 0.8, "learn_width": True},
    "surrogate": {"width": 1.0, "learn_width": False},
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its type, its options after defaults, and the shapes it joins."""

    type: str
    options: dict[str, Any]
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as data, after defaults.

    Attributes
    ----------
    timesteps : T.
    input_kind : ``constant`` (a still image as current) or ``spikes``.
    input_shape, low, high, mean, std : as :class:`snn_deploy.graph.InputSpec`.
    threshold, decay : of every LIF layer.
    spike : name of the spike function and its options.
    layers : in order.
    """

    timesteps: int
    input_kind: str
    input_shape: tuple[int, ...]
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threshold: float
    decay: float
    spike: tuple[str, dict[str, Any]]
    layers: tuple[Layer, ...]

    def to_data(self) -> dict[str, Any]:
        """The plain data that :func:`parse` reads back to an equal architecture."""
        return {
            "timesteps": self.timesteps,
            "input": {
                "kind": self.input_kind,
                "shape": list(self.input_shape),
                "low": self.low,
                "high": self.high,
                "mean": list(self.mean),
                "std": list(self.std),
            },
            "lif": {"threshold": self.threshold, "decay": self.decay},
            "spike": {"function": self.spike[0], **self.spike[1]},
            "layers": [{"type": layer.type, **layer.options} for layer in self.layers],
        }


class _Reader:
    """Reads options with defaults, and says where a wrong one stands."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, path: str, message: str, fix: str | None = None) -> SnnDeployError:
        return SnnDeployError("SD104", f"{path}: {message}", where=self.where, fix=fix)

    def table(self, data: Any, path: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise self.fail(path, "a table is needed")
        for key in data:
            if key not in defaults:
                known = ", ".join(sorted(defaults)) or "none"
                raise self.fail(path, f"unknown key {key!r}", f"known keys: {known}")
        for key, default in defaults.items():
            if default is _REQUIRED and key not in data:
                raise self.fail(path, f"`{key}` is missing")
        return {key: data.get(key, default) for key, default in defaults.items()}

    def integer(self, value: Any, path: str, least: int) -> int:
        if type(value) is not int or not least <= value <= MAX_EXTENT:
            raise self.fail(path, f"{value!r} must be an integer from {least} to {MAX_EXTENT}")
        return value

    def number(self, value: Any, path: str) -> float:
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fail(path, f"{str(value)[:40]!r} must be a finite number")
        return number

    def boolean(self, value: Any, path: str) -> bool:
        if type(value) is not bool:
            raise self.fail(path, f"{value!r} must be true or false")
        return value

    def sequence(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list | tuple) or not value:
            raise self.fail(path, "a list is needed")
        return list(value)


def parse(data: Any, where: str) -> Architecture:
    """Read an architecture.

    Raises
    ------
    SnnDeployError
        SD104 naming file, key and mend.
    """
    reader = _Reader(where)
    model = reader.table(
        data,
        "[model]",
        {"timesteps": _REQUIRED, "input": _REQUIRED, "layers": _REQUIRED, "lif": {}, "spike": {}},
    )
    timesteps = reader.integer(model["timesteps"], "[model] timesteps", 1)
    given = reader.table(
        model["input"],
        "[model] input",
        {"kind": _REQUIRED, "shape": _REQUIRED, "low": 0.0, "high": 1.0, "mean": [0.0],
         "std": [1.0]},
    )  # fmt: skip
    shape = tuple(
        reader.integer(extent, "[model] input.shape", 1)
        for extent in reader.sequence(given["shape"], "[model] input.shape")
    )
    if len(shape) not in (1, 3) or math.prod(shape) > MAX_EXTENT:
        raise reader.fail("[model] input.shape", "must be [C, H, W] or [N]")
    if given["kind"] not in ("constant", "spikes"):
        raise reader.fail("[model] input.kind", f'{given["kind"]!r} must be "constant" or "spikes"')
    low, high = (reader.number(given[key], f"[model] input.{key}") for key in ("low", "high"))
    if low > high:
        raise reader.fail("[model] input", f"low {low} is above high {high}")
    mean, std = (
        tuple(
            reader.number(v, f"[model] input.{key}")
            for v in reader.sequence(given[key], f"[model] input.{key}")
        )
        for key in ("mean", "std")
    )
    if min(std) <= 0 or not {len(mean), len(std)} <= {1, shape[0]}:
        raise reader.fail(
            "[model] input", "mean and std are one number or one per channel, and std is above 0"
        )
    lif = reader.table(model["lif"], "[model] lif", {"threshold": 0.5, "decay": 0.5})
    threshold = reader.number(lif["threshold"], "[model] lif.threshold")
    decay = reader.number(lif["decay"], "[model] lif.decay")
    if threshold <= 0 or not 0 <= decay < 1:
        raise reader.fail("[model] lif", "threshold must be above 0 and decay in [0, 1)")
    return Architecture(
        timesteps=timesteps,
        input_kind=given["kind"],
        input_shape=shape,
        low=low,
        high=high,
        mean=mean,
        std=std,
        threshold=threshold,
        decay=decay,
        spike=_spike(reader, model["spike"]),
        layers=_layers(reader, reader.sequence(model["layers"], "[model] layers"), shape),
    )


def _spike(reader: _Reader, data: Any) -> tuple[str, dict[str, Any]]:
    path = "[model] spike"
    if not isinstance(data, Mapping):
        raise reader.fail(path, "a table is needed")
    function = data.get("function", "asgl")
    if not isinstance(function, str) or function not in _SPIKES:
        raise reader.fail(
            path, f"unknown function {function!r}", f"choose one of: {', '.join(_SPIKES)}"
        )
    options = reader.table(
        {k: v for k, v in data.items() if k != "function"}, path, _SPIKES[function]
    )
    options["width"] = reader.number(options["width"], f"{path}.width")
    if options["width"] <= 0:
        raise reader.fail(f"{path}.width", f"must be above 0, not {options['width']}")
    options["learn_width"] = reader.boolean(options["learn_width"], f"{path}.learn_width")
    if "probability" in options:
        options["probability"] = reader.number(options["probability"], f"{path}.probability")
        if not 0 <= options["probability"] <= 1:
            raise reader.fail(f"{path}.probability", "must lie in [0, 1]")
    return function, options


def _layers(reader: _Reader, data: list[Any], shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """Check every layer against the one before it, and infer shapes."""
    layers: list[Layer] = []
    for index, entry in enumerate(data):
        path = f"[model] layers[{index}]"
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str) or kind not in _TABLES:
            raise reader.fail(
                path, "a table with a known `type` is needed", f"types: {', '.join(_TABLES)}"
            )
        options = reader.table({k: v for k, v in entry.items() if k != "type"}, path, _TABLES[kind])
        for key in options:
            if key == "bias":
                reader.boolean(options[key], f"{path}.{key}")
            else:
                reader.integer(options[key], f"{path}.{key}", 0 if key == "padding" else 1)
        before = layers[-1].type if layers else "input"
        _check_order(reader, path, kind, before, shape)
        target = _target(kind, options, shape)
        if min(target) < 1 or math.prod(target) > 64 * MAX_EXTENT:
            raise reader.fail(path, f"makes a shape of {target} out of {shape}")
        layers.append(Layer(kind, options, shape, target))
        shape = target
    if layers[-1].type != "linear":
        raise reader.fail("[model] layers", "the last layer must be linear: it is the readout")
    return tuple(layers)


def _check_order(
    reader: _Reader, path: str, kind: str, before: str, shape: tuple[int, ...]
) -> None:
    """What may follow what: spikes go into synapses, currents into neurons."""
    currents = ("conv", "linear", "batchnorm")
    if kind == "lif" and before not in currents:
        raise reader.fail(path, "a LIF layer must follow conv, linear or batchnorm")
    if kind == "batchnorm" and before not in ("conv", "linear"):
        raise reader.fail(path, "batchnorm must follow conv or linear")
    if kind in ("conv", "linear", "avgpool", "flatten") and before in currents:
        raise reader.fail(path, f"{kind} must not follow {before}: put a LIF layer between")
    if kind in ("conv", "linear") and len(shape) != (3 if kind == "conv" else 1):
        raise reader.fail(
            path, f"{kind} does not take a shape of {shape}", "flatten before linear, not conv"
        )
    if kind in ("avgpool", "flatten"):
        if len(shape) != 3:
            raise reader.fail(path, f"{kind} needs a map, not a shape of {shape}")
        if kind == "avgpool" and before in ("input", "avgpool"):
            raise reader.fail(path, "avgpool must follow a LIF layer")


def _target(kind: str, options: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    if kind == "conv":
        out = (
            (n + 2 * options["padding"] - options["kernel"]) // options["stride"] + 1
            for n in shape[1:]
        )
        return (options["channels"], *out)
    if kind == "avgpool":
        return (shape[0], *(n // options["kernel"] for n in shape[1:]))
    if kind == "flatten":
        return (math.prod(shape),)
    if kind == "linear":
        return (options["features"],)
    return shape
