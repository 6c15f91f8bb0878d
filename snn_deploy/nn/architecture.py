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

The last layer is linear; its current is averaged over time (mean-current readout). Layers turn
spikes into currents (conv, linear, and batchnorm behind them) and currents into spikes (lif, clif);
``{ type = "residual", layers = [...], shortcut = [...] }`` adds the currents of two ways. In place
of ``layers``, ``name = "resnet18"`` takes one of :data:`snn_deploy.nn.zoo.ZOO`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from snn_deploy.nn.reader import MAX_EXTENT, REQUIRED, Reader
from snn_deploy.nn.smooth import SMOOTH_STEPS
from snn_deploy.nn.zoo import ZOO

Data = Mapping[str, Any]

_TABLES: dict[str, dict[str, Any]] = {
    "conv": {"channels": REQUIRED, "kernel": REQUIRED, "stride": 1, "padding": 0, "bias": False},
    "batchnorm": {"kind": "plain", "alpha": 1.0},
    "lif": {"recurrent": False},
    "clif": {},
    "avgpool": {"kernel": REQUIRED},
    "flatten": {},
    "linear": {"features": REQUIRED, "bias": True},
    "residual": {"layers": REQUIRED, "shortcut": []},
}
# What a batch normalisation scales by: 1, or alpha * threshold (tdBN).
BATCHNORM_KINDS = ("plain", "td")

GRANULARITIES = ("layer", "channel", "neuron")
_SHAPED: dict[str, Any] = {"smooth": "clip", "granularity": "layer"}
SPIKES: dict[str, dict[str, Any]] = {
    "asgl": {"width": 2.5, "probability": 0.8, "learn_width": True, "shared": False, **_SHAPED},
    "surrogate": {"width": 1.0, "learn_width": False, **_SHAPED},
    "lsg": {},
    "dspike": {"temperature": 1.0},
    "whetstone": {"width": 1.0},
}
_LIF: dict[str, Any] = {
    "threshold": 0.5,
    "decay": 0.5,
    "current_decay": 0.0,
    "reset": "zero",
    "learn_decay": "no",
    "learn_threshold": False,
    "emit": "spike",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its type, its options after defaults, and the shapes it joins.

    A residual layer has its two ways: ``layers``, which hold neurons and end in a current, and the
    ``shortcut``, empty for identity.
    """

    type: str
    options: dict[str, Any]
    source: tuple[int, ...]
    target: tuple[int, ...]
    layers: tuple[Layer, ...] = ()
    shortcut: tuple[Layer, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """The plain data of a recipe."""
        data = {"type": self.type, **self.options}
        if self.type == "residual":
            data["layers"] = [layer.to_data() for layer in self.layers]
            data["shortcut"] = [layer.to_data() for layer in self.shortcut]
        return data


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as data, after defaults.

    Attributes
    ----------
    timesteps : T.
    input_kind : ``constant`` (a still image as current) or ``spikes``.
    input_shape, low, high, mean, std : as :class:`snn_deploy.graph.InputSpec`.
    threshold, decay, current_decay, reset, learn_decay, learn_threshold, emit : of every neuron;
        see :class:`snn_deploy.nn.neurons.LIF`. ``learn_decay`` is ``no`` or a granularity.
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
    current_decay: float
    reset: str
    learn_decay: str
    learn_threshold: bool
    emit: str
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
            "lif": {key: getattr(self, key) for key in _LIF},
            "spike": {"function": self.spike[0], **self.spike[1]},
            "layers": [layer.to_data() for layer in self.layers],
        }

    def flat_layers(self) -> Iterator[Layer]:
        """All layers, those inside residual ones too; a residual one comes after its own."""
        return _flat(self.layers)

    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of one timestep of the ANN twin, per synaptic layer, in order.

        Padded taps are counted, as the papers do (:mod:`snn_deploy.counting` has exact fan-outs).
        """
        found = {}
        for number, layer in enumerate(self.flat_layers()):
            options = layer.options
            if layer.type == "conv":
                taps = layer.source[0] * options["kernel"] ** 2
            elif layer.type == "linear":
                taps = layer.source[0]
            else:
                continue
            found[f"{number}:{layer.type}"] = math.prod(layer.target) * taps
        return found


def _flat(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    for layer in layers:
        yield from _flat(layer.layers)
        yield from _flat(layer.shortcut)
        yield layer


def parse(data: Any, where: str) -> Architecture:
    """Read an architecture.

    Raises
    ------
    SnnDeployError
        SD104 naming file, key and mend.
    """
    reader = Reader(where)
    model = reader.table(
        data,
        "[model]",
        {"timesteps": REQUIRED, "input": REQUIRED, "layers": None, "lif": {}, "spike": {},
         "name": None, "classes": None, "norm": None},
    )  # fmt: skip
    timesteps = reader.integer(model["timesteps"], "[model] timesteps", 1)
    given = _input(reader, model["input"])
    lif = _lif(reader, model["lif"])
    return Architecture(
        timesteps=timesteps,
        **given,
        **lif,
        spike=_spike(reader, model["spike"], lif),
        layers=_network(
            reader, _named(reader, model), given["input_shape"], given["input_kind"], lif
        ),
    )


def _input(reader: Reader, data: Any) -> dict[str, Any]:
    given = reader.table(
        data,
        "[model] input",
        {"kind": REQUIRED, "shape": REQUIRED, "low": 0.0, "high": 1.0, "mean": [0.0],
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
    return {
        "input_kind": given["kind"],
        "input_shape": shape,
        "low": low,
        "high": high,
        "mean": mean,
        "std": std,
    }


def _lif(reader: Reader, data: Any) -> dict[str, Any]:
    lif = reader.table(data, "[model] lif", _LIF)
    for key in ("threshold", "decay", "current_decay"):
        lif[key] = reader.number(lif[key], f"[model] lif.{key}")
    if lif["threshold"] <= 0 or not (0 <= lif["decay"] < 1 and 0 <= lif["current_decay"] < 1):
        raise reader.fail("[model] lif", "threshold must be above 0 and decay in [0, 1)")
    reader.choice(lif["reset"], "[model] lif.reset", ("zero", "subtract"))
    reader.choice(lif["learn_decay"], "[model] lif.learn_decay", ("no", *GRANULARITIES))
    reader.boolean(lif["learn_threshold"], "[model] lif.learn_threshold")
    reader.choice(lif["emit"], "[model] lif.emit", ("spike", "threshold"))
    if lif["learn_decay"] != "no" and lif["decay"] == 0:
        raise reader.fail("[model] lif.decay", "a decay of 0 cannot be learned", "start above 0")
    return lif


def _spike(reader: Reader, data: Any, lif: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    path = "[model] spike"
    if not isinstance(data, Mapping):
        raise reader.fail(path, "a table is needed")
    function = data.get("function", "asgl")
    reader.choice(function, f"{path}.function", tuple(SPIKES))
    options = reader.table(
        {k: v for k, v in data.items() if k != "function"}, path, SPIKES[function]
    )
    for key in ("width", "temperature"):
        if key in options:
            options[key] = reader.number(options[key], f"{path}.{key}")
            if options[key] <= 0:
                raise reader.fail(f"{path}.{key}", f"must be above 0, not {options[key]}")
    for key in ("learn_width", "shared"):
        if key in options:
            reader.boolean(options[key], f"{path}.{key}")
    if "probability" in options:
        options["probability"] = reader.number(options["probability"], f"{path}.probability")
        if not 0 <= options["probability"] <= 1:
            raise reader.fail(f"{path}.probability", "must lie in [0, 1]")
    if "smooth" in options:
        reader.choice(options["smooth"], f"{path}.smooth", tuple(SMOOTH_STEPS))
        reader.choice(options["granularity"], f"{path}.granularity", GRANULARITIES)
    if function == "lsg" and lif["learn_decay"] == "no":
        raise reader.fail(
            path, "lsg takes its width from a learned decay",
            'write lif = { learn_decay = "layer", decay = 0.2, ... }',
        )  # fmt: skip
    return function, options


def _named(reader: Reader, model: dict[str, Any]) -> Any:
    """The layers that a model gives, or those of the named one."""
    path = "[model]"
    if (model["layers"] is None) == (model["name"] is None):
        raise reader.fail(f"{path} layers", "give either `layers` or the `name` of a known network")
    if model["layers"] is not None:
        for key in ("classes", "norm"):
            if model[key] is not None:
                raise reader.fail(f"{path} {key}", "goes with `name`, not with `layers`")
        return model["layers"]
    reader.choice(model["name"], f"{path} name", tuple(ZOO))
    options: dict[str, Any] = {}
    if model["classes"] is not None:
        options["classes"] = reader.integer(model["classes"], f"{path} classes", 1)
    if model["norm"] is not None:
        options["norm"] = reader.choice(model["norm"], f"{path} norm", BATCHNORM_KINDS)
    return ZOO[model["name"]](**options)


def _network(
    reader: Reader, data: Any, shape: tuple[int, ...], kind: str, lif: dict[str, Any]
) -> tuple[Layer, ...]:
    path = "[model] layers"
    layers, _ = _layers(reader, reader.sequence(data, path), shape, path, "input", lif)
    first = next((n for n, layer in enumerate(layers) if layer.type in ("lif", "clif")), None)
    if kind == "constant" and first is not None and layers[first].type == "clif":
        raise reader.fail(
            f"{path}[{first}]",
            "clif takes its input one step late, which a constant input cannot be",
            "put a LIF layer before it, or let the input be spikes",
        )
    if layers[-1].type != "linear":
        raise reader.fail(path, "the last layer must be linear: it is the readout")
    return layers


# What flows between layers.
_SPIKES_FLOW = ("input", "spikes", "pooled", "flat")


def _layers(
    reader: Reader,
    data: list[Any],
    shape: tuple[int, ...],
    path: str,
    flow: str,
    lif: dict[str, Any],
) -> tuple[tuple[Layer, ...], str]:
    """Check every layer against the one before it, and infer shapes.

    ``flow`` is what comes in: input, spikes, pooled or flat (spikes), current (of synapses) or
    normalised (a current that takes no batch normalisation any more).
    """
    layers: list[Layer] = []
    for index, entry in enumerate(data):
        at = f"{path}[{index}]"
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str) or kind not in _TABLES:
            raise reader.fail(
                at, "a table with a known `type` is needed", f"types: {', '.join(_TABLES)}"
            )
        options = reader.table({k: v for k, v in entry.items() if k != "type"}, at, _TABLES[kind])
        before = layers[-1].type if layers else "what comes in"
        _check_order(reader, at, kind, before, flow, shape)
        if kind == "residual":
            layer = _residual(reader, options, shape, at, flow, lif)
        else:
            _check_options(reader, at, options)
            target = _target(kind, options, shape)
            if min(target) < 1 or math.prod(target) > 64 * MAX_EXTENT:
                raise reader.fail(at, f"makes a shape of {target} out of {shape}")
            layer = Layer(kind, options, shape, target)
        _check_neuron(reader, at, layer, layers, lif)
        layers.append(layer)
        shape, flow = layer.target, _FLOWS[kind]
    return tuple(layers), flow


# What a layer hands on.
_FLOWS = {
    "conv": "current",
    "linear": "current",
    "batchnorm": "normalised",
    "residual": "normalised",
    "lif": "spikes",
    "clif": "spikes",
    "avgpool": "pooled",
    "flatten": "flat",
}


def _residual(
    reader: Reader,
    options: dict[str, Any],
    shape: tuple[int, ...],
    path: str,
    flow: str,
    lif: dict[str, Any],
) -> Layer:
    """Two ways from the same spikes, whose currents are added."""
    main = reader.sequence(options["layers"], f"{path}.layers")
    layers, ends = _layers(reader, main, shape, f"{path}.layers", flow, lif)
    if ends not in ("current", "normalised") or not any(
        layer.type in ("lif", "clif") for layer in layers
    ):
        raise reader.fail(f"{path}.layers", "must hold neurons and end in a current")
    shortcut: tuple[Layer, ...] = ()
    target = shape
    if options["shortcut"]:
        way = reader.sequence(options["shortcut"], f"{path}.shortcut")
        shortcut, ends = _layers(reader, way, shape, f"{path}.shortcut", flow, lif)
        target = shortcut[-1].target
        if ends not in ("current", "normalised") or any(
            layer.type not in ("avgpool", "conv", "linear", "batchnorm") for layer in shortcut
        ):
            raise reader.fail(
                f"{path}.shortcut",
                "may hold avgpool, conv, linear and batchnorm, ending in a current",
            )
    if layers[-1].target != target:
        raise reader.fail(
            path, f"the layers make a shape of {layers[-1].target}, the shortcut {target}"
        )
    return Layer("residual", {}, shape, target, layers, shortcut)


def _check_options(reader: Reader, path: str, options: dict[str, Any]) -> None:
    for key, value in options.items():
        if key in ("bias", "recurrent"):
            reader.boolean(value, f"{path}.{key}")
        elif key == "kind":
            reader.choice(value, f"{path}.kind", BATCHNORM_KINDS)
        elif key == "alpha":
            options[key] = reader.number(value, f"{path}.alpha")
            if options[key] <= 0:
                raise reader.fail(f"{path}.alpha", f"must be above 0, not {value}")
        else:
            reader.integer(value, f"{path}.{key}", 0 if key == "padding" else 1)


def _check_order(
    reader: Reader, path: str, kind: str, before: str, flow: str, shape: tuple[int, ...]
) -> None:
    """What may follow what: spikes go into synapses, currents into neurons."""
    spikes = flow in _SPIKES_FLOW
    if kind in ("lif", "clif") and spikes:
        raise reader.fail(path, f"{kind} must follow conv, linear, batchnorm or residual")
    if kind == "batchnorm" and flow != "current":
        raise reader.fail(path, "batchnorm must follow conv or linear")
    if kind in ("conv", "linear", "avgpool", "flatten", "residual") and not spikes:
        raise reader.fail(path, f"{kind} must not follow {before}: put a LIF layer between")
    if kind in ("conv", "linear") and len(shape) != (3 if kind == "conv" else 1):
        raise reader.fail(
            path, f"{kind} does not take a shape of {shape}", "flatten before linear, not conv"
        )
    if kind in ("avgpool", "flatten"):
        if len(shape) != 3:
            raise reader.fail(path, f"{kind} needs a map, not a shape of {shape}")
        if kind == "avgpool" and flow in ("input", "pooled"):
            raise reader.fail(path, "avgpool must follow a LIF layer")
    if kind == "residual" and flow != "spikes":
        raise reader.fail(path, "a residual layer must follow a LIF layer")


def _check_neuron(
    reader: Reader, path: str, layer: Layer, layers: list[Layer], lif: dict[str, Any]
) -> None:
    """What a neuron asks of its own options and of the current that it gets."""
    if layer.type == "lif" and layer.options["recurrent"] and len(layer.source) != 1:
        raise reader.fail(f"{path}.recurrent", f"needs a vector, not a map of {layer.source}")
    if layer.type == "clif" and not lif["current_decay"] < lif["decay"]:
        raise reader.fail(
            path, "clif needs lif.current_decay below lif.decay", "they are exp(-1/tau)"
        )
    if layer.type == "clif" and (lif["learn_decay"] != "no" or lif["learn_threshold"]):
        raise reader.fail(path, "clif has fixed decays and a fixed threshold")
    if layer.type == "clif" and lif["emit"] != "spike":
        raise reader.fail(path, "clif emits spikes", 'write lif = { emit = "spike", ... }')


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
