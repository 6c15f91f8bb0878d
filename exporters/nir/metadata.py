"""The integer graph as plain data: one JSON text and a list of arrays, lossless both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Neurons,
    Population,
    Projection,
    Reset,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.numerics import NumberFormat
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses

VERSION = 2

Array = NDArray[Any]


def to_data(graph: Graph) -> tuple[str, list[Array]]:
    """The graph as JSON text, and the arrays that it refers to by number."""
    arrays: list[Array] = []

    def put(value: Array) -> dict[str, Any]:
        arrays.append(np.ascontiguousarray(value).reshape(-1))
        return {"array": len(arrays) - 1, "shape": list(value.shape)}

    data = {
        "version": VERSION,
        "timesteps": graph.timesteps,
        "number_format": None if graph.number_format is None else asdict(graph.number_format),
        "inputs": [
            {
                "name": spec.name,
                "kind": spec.kind,
                "shape": list(spec.shape),
                "low": spec.low,
                "high": spec.high,
                "mean": spec.mean.tolist(),
                "std": spec.std.tolist(),
                "scale": spec.scale,
            }
            for spec in graph.inputs
        ],
        "populations": [
            {
                "name": p.name,
                "shape": list(p.shape),
                "scale": put(p.scale) if isinstance(p.scale, np.ndarray) else p.scale,
                "max_spikes": p.max_spikes,
                "neurons": _neurons_to_data(p.neurons, put),
            }
            for p in graph.populations
        ],
        "projections": [
            {
                "source": p.source,
                "target": p.target,
                "delay": put(p.delay) if isinstance(p.delay, np.ndarray) else p.delay,
                "exponent": p.exponent,
                "sum_bits": p.sum_bits,
                "pool": None if p.pool is None else [list(p.pool.kernel), list(p.pool.stride)],
                "synapses": _synapses_to_data(p.synapses, put),
            }
            for p in graph.projections
        ],
        "outputs": list(graph.outputs),
    }
    return json.dumps(data, sort_keys=True, allow_nan=False), arrays


def _neurons_to_data(neurons: Neurons, put: Callable[[Array], Any]) -> dict[str, Any]:
    memory = neurons.current_decay
    data: dict[str, Any] = {
        "decay": put(neurons.decay),
        "current_decay": None if memory is None else put(memory),
        "bias": put(neurons.bias),
    }
    if isinstance(neurons, Integrator):
        return {"model": "integrator", "readout": neurons.readout, **data}
    reset = neurons.reset
    rule = {"subtract": reset.amount} if isinstance(reset, ResetSubtract) else {"to": reset.value}
    data |= {"threshold": put(neurons.threshold), "reset": rule, "readout": neurons.readout}
    return {"model": "lif", **data}


def _synapses_to_data(synapses: Synapses, put: Callable[[Array], Any]) -> dict[str, Any]:
    if isinstance(synapses, Dense):
        return {"kind": "dense", "weight": put(synapses.weight)}
    return {
        "kind": "conv2d",
        "weight": put(synapses.weight),
        "stride": list(synapses.stride),
        "padding": list(synapses.padding),
        "dilation": list(synapses.dilation),
        "groups": synapses.groups,
    }


def from_data(text: str, arrays: list[Array]) -> Graph:
    """The graph that :func:`to_data` described.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError
        If the data is not such a description.
    SnnDeployError
        SD408 if it describes no well-formed graph.
    """
    data = json.loads(text)
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']} of the description is not known")

    def get(reference: dict[str, Any]) -> Array:
        number = reference["array"]
        if type(number) is not int or number < 0:
            raise ValueError("a reference to no array")
        return arrays[number].reshape(_shape(reference["shape"]))

    number_format = data["number_format"]
    return Graph(
        inputs=tuple(
            InputSpec(
                name=_text(spec["name"]),
                kind=_one_of(spec["kind"], ("spikes", "constant", "graded")),
                shape=_shape(spec["shape"]),
                low=float(spec["low"]),
                high=float(spec["high"]),
                mean=np.array(spec["mean"], np.float64),
                std=np.array(spec["std"], np.float64),
                scale=None if spec["scale"] is None else float(spec["scale"]),
            )
            for spec in data["inputs"]
        ),
        populations=tuple(
            Population(
                name=_text(p["name"]),
                shape=_shape(p["shape"]),
                scale=_scale(p["scale"], get),
                max_spikes=_integer(p["max_spikes"]),
                neurons=_neurons(p["neurons"], get),
            )
            for p in data["populations"]
        ),
        projections=tuple(
            Projection(
                source=_text(p["source"]),
                target=_text(p["target"]),
                delay=get(p["delay"]) if isinstance(p["delay"], dict) else _integer(p["delay"]),
                exponent=_integer(p["exponent"]),
                sum_bits=None if p["sum_bits"] is None else _integer(p["sum_bits"]),
                pool=None
                if p["pool"] is None
                else SumPool(_pair(p["pool"][0]), _pair(p["pool"][1])),
                synapses=_synapses(p["synapses"], get),
            )
            for p in data["projections"]
        ),
        outputs=tuple(_text(name) for name in data["outputs"]),
        timesteps=None if data["timesteps"] is None else _integer(data["timesteps"]),
        number_format=None if number_format is None else _number_format(number_format),
    )


def _number_format(data: dict[str, Any]) -> NumberFormat:
    if set(data) != {f.name for f in fields(NumberFormat)}:
        raise ValueError("a number format with missing or unknown keys")
    return NumberFormat(**data)


def _neurons(data: dict[str, Any], get: Callable[[Any], Array]) -> Neurons:
    decay, bias = get(data["decay"]), get(data["bias"])
    memory = None if data["current_decay"] is None else get(data["current_decay"])
    if data["model"] == "integrator":
        readout = _one_of(data["readout"], ("sum", "mean", "last", "max"))
        return Integrator(decay=decay, bias=bias, readout=readout, current_decay=memory)
    if data["model"] != "lif":
        raise ValueError(f"unknown neurons {data['model']!r}")
    ((rule, amount),) = data["reset"].items()
    reset: Reset
    if rule == "subtract":
        reset = ResetSubtract(amount)
    elif rule == "to":
        reset = ResetTo(amount)
    else:
        raise ValueError(f"unknown reset {rule!r}")
    return LIF(
        decay=decay,
        threshold=get(data["threshold"]),
        bias=bias,
        reset=reset,
        current_decay=memory,
        readout=_one_of(data["readout"], (None, "sum", "mean", "last", "max")),
    )


def _scale(value: Any, get: Callable[[Any], Array]) -> float | Array | None:
    """None, one number, or an array of one per channel."""
    if isinstance(value, dict):
        return get(value)
    return None if value is None else float(value)


def _synapses(data: dict[str, Any], get: Callable[[Any], Array]) -> Synapses:
    weight = get(data["weight"])
    if data["kind"] == "dense":
        return Dense(weight)
    if data["kind"] != "conv2d":
        raise ValueError(f"unknown synapses {data['kind']!r}")
    return Conv2d(
        weight,
        stride=_pair(data["stride"]),
        padding=_pair(data["padding"]),
        dilation=_pair(data["dilation"]),
        groups=_integer(data["groups"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value


def _one_of(value: Any, allowed: tuple[str | None, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {allowed}")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("an integer is needed")
    return value


def _shape(value: Any) -> Shape:
    return tuple(_integer(extent) for extent in value)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return _integer(first), _integer(second)
