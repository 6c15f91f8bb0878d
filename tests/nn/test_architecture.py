"""Architectures as data: what is read back, and what is refused and how."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given

from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.nn.architecture import Architecture, parse
from tests.helpers.spiking import (
    BATCHNORM,
    EVERY_KIND,
    FLATTEN,
    LIF,
    architecture,
    architectures,
    avgpool,
    conv,
    linear,
)

MODEL: dict[str, Any] = {
    "timesteps": 4,
    "input": {"kind": "constant", "shape": [2, 8, 8]},
    "layers": [conv(4), LIF, avgpool(2), FLATTEN, linear(10)],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The model with one entry, at a dotted path, changed or added."""
    data = copy.deepcopy(MODEL)
    *tables, key = path.split(".")
    table = data
    for name in tables:
        table = table.setdefault(name, {})
    table[key] = value
    return data


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in MODEL.items() if k != key}


def with_layers(*layers: Any, shape: tuple[int, ...] = (2, 8, 8)) -> dict[str, Any]:
    data = changed("input.shape", list(shape))
    data["layers"] = list(layers)
    return data


@given(described=architectures())
def test_data_is_read_back_to_an_equal_architecture(described: Architecture) -> None:
    data = described.to_data()
    assert parse(data, "again") == described
    assert parse(json.loads(json.dumps(data)), "from JSON") == described


def test_defaults_and_shapes_are_filled_in() -> None:
    found = parse(MODEL, "here")
    assert (found.threshold, found.decay) == (0.5, 0.5)
    assert (found.low, found.high, found.mean, found.std) == (0.0, 1.0, (0.0,), (1.0,))
    assert found.spike == ("asgl", {"width": 2.5, "probability": 0.8, "learn_width": True})
    first = {"channels": 4, "kernel": 3, "stride": 1, "padding": 0, "bias": False}
    assert found.layers[0].options == first
    assert found.layers[-1].options == {"features": 10, "bias": True}
    shapes = [(2, 8, 8), (4, 6, 6), (4, 6, 6), (4, 3, 3), (36,), (10,)]
    assert [layer.source for layer in found.layers] == shapes[:-1]
    assert [layer.target for layer in found.layers] == shapes[1:]


def test_a_convolution_and_a_pool_drop_what_does_not_fit() -> None:
    found = architecture(
        [conv(1, 3, stride=2, padding=1), LIF, avgpool(2), FLATTEN, linear(1)], (1, 9, 12)
    )
    assert [layer.target for layer in found.layers[:3]] == [(1, 5, 6), (1, 5, 6), (1, 2, 3)]


def test_every_kind_of_layer_is_accepted() -> None:
    assert len(architecture(EVERY_KIND, (2, 7, 7)).layers) == len(EVERY_KIND)


REFUSED: dict[str, tuple[Any, str]] = {
    "not a table": ([], "[model]"),
    "unknown key": (changed("depth", 3), "'depth'"),
    "no timesteps": (without("timesteps"), "timesteps"),
    "timesteps 0": (changed("timesteps", 0), "timesteps"),
    "timesteps true": (changed("timesteps", True), "timesteps"),
    "timesteps 2.0": (changed("timesteps", 2.0), "timesteps"),
    "timesteps endless": (changed("timesteps", 10**9), "timesteps"),
    "no input": (without("input"), "input"),
    "input unknown key": (changed("input.size", 3), "'size'"),
    "input no table": (changed("input", 3), "input"),
    "input kind": (changed("input.kind", "graded"), "input.kind"),
    "input kind a list": (changed("input.kind", ["constant"]), "input.kind"),
    "input shape 2": (changed("input.shape", [8, 8]), "input.shape"),
    "input shape 0": (changed("input.shape", [1, 0, 8]), "input.shape"),
    "input shape text": (changed("input.shape", "8"), "input.shape"),
    "input shape empty": (changed("input.shape", []), "input.shape"),
    "input shape huge": (changed("input.shape", [2**20, 2**20, 1]), "input.shape"),
    "low above high": (changed("input.low", 2.0), "low"),
    "low nan": (changed("input.low", float("nan")), "input.low"),
    "high text": (changed("input.high", "1"), "input.high"),
    "std 0": (changed("input.std", [0.0]), "std"),
    "std negative": (changed("input.std", [-1.0]), "std"),
    "mean wrong length": (changed("input.mean", [0.0, 0.0, 0.0]), "mean"),
    "mean no list": (changed("input.mean", 0.5), "input.mean"),
    "threshold 0": (changed("lif.threshold", 0), "threshold"),
    "threshold beyond float": (changed("lif.threshold", 10**400), "threshold"),
    "decay 1": (changed("lif.decay", 1.0), "decay"),
    "decay negative": (changed("lif.decay", -0.5), "decay"),
    "lif unknown key": (changed("lif.tau", 2.0), "'tau'"),
    "spike no table": (changed("spike", "asgl"), "spike"),
    "spike function": (changed("spike.function", "sigmoid"), "sigmoid"),
    "spike function a list": (changed("spike.function", ["asgl"]), "spike"),
    "width negative": (changed("spike.width", -1.0), "spike.width"),
    "width 0": (changed("spike.width", 0), "spike.width"),
    "width infinite": (changed("spike.width", float("inf")), "spike.width"),
    "probability 2": (changed("spike.probability", 2), "spike.probability"),
    "probability negative": (changed("spike.probability", -0.5), "spike.probability"),
    "learn_width 1": (changed("spike.learn_width", 1), "spike.learn_width"),
    "surrogate with probability": (
        changed("spike", {"function": "surrogate", "probability": 0.5}),
        "'probability'",
    ),
    "no layers": (changed("layers", []), "layers"),
    "layers no list": (changed("layers", {"type": "lif"}), "layers"),
    "layer no table": (with_layers("conv"), "layers[0]"),
    "layer without type": (with_layers({"channels": 3}), "layers[0]"),
    "layer type": (with_layers({"type": "maxpool"}), "layers[0]"),
    "layer type a list": (with_layers({"type": ["conv"]}), "layers[0]"),
    "layer unknown key": (with_layers(conv(3, groups=2)), "'groups'"),
    "conv without channels": (with_layers({"type": "conv", "kernel": 3}), "channels"),
    "conv channels 0": (with_layers(conv(0)), "layers[0].channels"),
    "conv kernel text": (with_layers(conv(3, "3")), "layers[0].kernel"),
    "conv kernel beyond the map": (with_layers(conv(3, 9)), "layers[0]"),
    "conv stride 0": (with_layers(conv(3, stride=0)), "layers[0].stride"),
    "conv padding negative": (with_layers(conv(3, padding=-1)), "layers[0].padding"),
    "conv bias 1": (with_layers(conv(3, bias=1)), "layers[0].bias"),
    "conv huge": (with_layers(conv(2**20, 1, padding=200)), "layers[0]"),
    "conv of a vector": (with_layers(conv(3), shape=(8,)), "layers[0]"),
    "linear of a map": (with_layers(linear(10)), "layers[0]"),
    "lif after input": (with_layers(LIF, FLATTEN, linear(10)), "layers[0]"),
    "lif after lif": (with_layers(conv(3), LIF, LIF), "layers[2]"),
    "conv after conv": (with_layers(conv(3), conv(3)), "layers[1]"),
    "pool of input": (with_layers(avgpool(), FLATTEN, linear(10)), "layers[0]"),
    "pool of pool": (with_layers(conv(3), LIF, avgpool(), avgpool()), "layers[3]"),
    "pool of currents": (with_layers(conv(3), avgpool()), "layers[1]"),
    "pool beyond the map": (with_layers(conv(3), LIF, avgpool(7)), "layers[2]"),
    "flatten of currents": (with_layers(conv(3), FLATTEN), "layers[1]"),
    "flatten of a vector": (with_layers(FLATTEN, linear(3), shape=(8,)), "layers[0]"),
    "batchnorm of input": (with_layers(BATCHNORM), "layers[0]"),
    "batchnorm of spikes": (with_layers(conv(3), LIF, BATCHNORM), "layers[2]"),
    "batchnorm of batchnorm": (with_layers(conv(3), BATCHNORM, BATCHNORM), "layers[2]"),
    "last layer spikes": (with_layers(FLATTEN, linear(10), LIF), "last layer"),
    "last layer normalised": (with_layers(FLATTEN, linear(10), BATCHNORM), "last layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name: str) -> None:
    data, key = REFUSED[name]
    with pytest.raises(SnnDeployError, match=re.escape(key)) as caught:
        parse(data, "my.toml")
    assert caught.value.code == "SD104"
    assert caught.value.exit == Exit.USAGE
    assert "--> my.toml" in str(caught.value)
