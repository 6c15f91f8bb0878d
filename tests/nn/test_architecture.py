"""Architectures as data: what is read back, and what is refused and how."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import torch
from hypothesis import given

from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.nn import neurons, spikes
from snn_deploy.nn.architecture import Architecture, parse
from snn_deploy.nn.layers import BatchNormOverTime, Residual
from snn_deploy.nn.models import SpikingNet, spike_function
from snn_deploy.nn.zoo import ZOO
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
    assert (found.current_decay, found.reset) == (0.0, "zero")
    assert (found.learn_decay, found.learn_threshold) == ("no", False)
    asgl = {
        "width": 2.5,
        "probability": 0.8,
        "learn_width": True,
        "shared": False,
        "smooth": "clip",
        "granularity": "layer",
    }
    assert found.spike == ("asgl", asgl)
    assert found.layers[1].options == {"recurrent": False}
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


RES: dict[str, Any] = {"type": "residual"}
CLIF: dict[str, Any] = {"type": "clif"}
WAY = [conv(3, 1), BATCHNORM, LIF, conv(3, 1), BATCHNORM]


def residual(layers: Any, *shortcut: Any, **more: Any) -> dict[str, Any]:
    return {**RES, "layers": layers, "shortcut": list(shortcut), **more}


def after_spikes(*layers: Any) -> dict[str, Any]:
    """Layers behind a LIF layer with 3 maps of 8 x 8: the first is layers[2]."""
    return with_layers(conv(3, padding=1), LIF, *layers, LIF, FLATTEN, linear(10))


def with_lif(*layers: Any, shape: tuple[int, ...] = (8,), **lif: Any) -> dict[str, Any]:
    """A model of these layers whose table ``lif`` has these entries."""
    return {**with_layers(*layers, shape=shape), "lif": lif}


def with_spike(function: str, **options: Any) -> dict[str, Any]:
    return changed("spike", {"function": function, **options})


CLIF_LAYERS = [linear(4, bias=False), CLIF, linear(3)]

REFUSED |= {
    "reset": (changed("lif.reset", "none"), "lif.reset"),
    "reset a list": (changed("lif.reset", ["zero"]), "lif.reset"),
    "reset true": (changed("lif.reset", True), "lif.reset"),
    "learn_decay true": (changed("lif.learn_decay", True), "lif.learn_decay"),
    "learn_decay yes": (changed("lif.learn_decay", "yes"), "lif.learn_decay"),
    "learn_decay of 0": (
        {**MODEL, "lif": {"learn_decay": "layer", "decay": 0.0}},
        "[model] lif.decay: a decay of 0 cannot be learned",
    ),
    "learn_threshold 1": (changed("lif.learn_threshold", 1), "lif.learn_threshold"),
    "learn_threshold text": (changed("lif.learn_threshold", "no"), "lif.learn_threshold"),
    "current_decay 1": (changed("lif.current_decay", 1.0), "[model] lif"),
    "current_decay negative": (changed("lif.current_decay", -0.1), "[model] lif"),
    "current_decay text": (changed("lif.current_decay", "0"), "lif.current_decay"),
    "current_decay nan": (changed("lif.current_decay", float("nan")), "lif.current_decay"),
    "decay nan": (changed("lif.decay", float("nan")), "lif.decay"),
    "lif no table": (changed("lif", 0.5), "[model] lif"),
    "smooth": (changed("spike.smooth", "ramp"), "spike.smooth"),
    "smooth a list": (changed("spike.smooth", ["clip"]), "spike.smooth"),
    "granularity": (changed("spike.granularity", "pixel"), "spike.granularity"),
    "granularity no": (changed("spike.granularity", "no"), "spike.granularity"),
    "shared 1": (changed("spike.shared", 1), "spike.shared"),
    "surrogate with shared": (with_spike("surrogate", shared=True), "'shared'"),
    "surrogate smooth": (with_spike("surrogate", smooth="step"), "spike.smooth"),
    "dspike with width": (with_spike("dspike", width=1.0), "'width'"),
    "dspike with granularity": (with_spike("dspike", granularity="layer"), "'granularity'"),
    "dspike temperature 0": (with_spike("dspike", temperature=0), "spike.temperature"),
    "dspike temperature text": (with_spike("dspike", temperature="1"), "spike.temperature"),
    "whetstone with probability": (with_spike("whetstone", probability=0.0), "'probability'"),
    "whetstone width 0": (with_spike("whetstone", width=0), "spike.width"),
    "whetstone with smooth": (with_spike("whetstone", smooth="clip"), "'smooth'"),
    "lsg with a fixed decay": (with_spike("lsg"), "[model] spike: lsg takes its width"),
    "lsg with width": (
        {**MODEL, "spike": {"function": "lsg", "width": 1.0}, "lif": {"learn_decay": "layer"}},
        "'width'",
    ),
    "recurrent 1": (with_layers(linear(4), {**LIF, "recurrent": 1}, shape=(8,)), "recurrent"),
    "recurrent of a map": (with_layers(conv(3), {**LIF, "recurrent": True}), "layers[1].recurrent"),
    "lif unknown option": (with_layers(conv(3), {**LIF, "decay": 0.5}), "'decay'"),
    "clif unknown option": (with_layers(conv(3), {**CLIF, "recurrent": True}), "'recurrent'"),
    "clif with equal decays": (
        with_lif(*CLIF_LAYERS, decay=0.5, current_decay=0.5),
        "layers[1]: clif needs lif.current_decay below lif.decay",
    ),
    "clif with decays crossed": (
        with_lif(*CLIF_LAYERS, decay=0.5, current_decay=0.75),
        "layers[1]: clif needs lif.current_decay below lif.decay",
    ),
    "clif on a constant input": (
        with_lif(*CLIF_LAYERS, current_decay=0.25),
        "layers[1]: clif takes its input one step late",
    ),
    "clif with a learned decay": (
        with_lif(*CLIF_LAYERS, learn_decay="layer"),
        "layers[1]: clif has fixed decays",
    ),
    "clif with a learned threshold": (
        with_lif(*CLIF_LAYERS, learn_threshold=True),
        "layers[1]: clif has fixed decays",
    ),
    "clif after input": (with_layers(CLIF, FLATTEN, linear(10)), "layers[0]: clif must follow"),
    "clif after lif": (with_layers(conv(3), LIF, CLIF), "layers[2]: clif must follow"),
    "batchnorm kind": (with_layers(conv(3), {**BATCHNORM, "kind": "tdBN"}), "layers[1].kind"),
    "batchnorm alpha 0": (with_layers(conv(3), {**BATCHNORM, "alpha": 0}), "layers[1].alpha"),
    "batchnorm alpha text": (with_layers(conv(3), {**BATCHNORM, "alpha": "1"}), "layers[1].alpha"),
    "batchnorm alpha nan": (
        with_layers(conv(3), {**BATCHNORM, "alpha": float("nan")}),
        "layers[1].alpha",
    ),
    "residual without layers": (after_spikes(RES), "layers[2]: `layers` is missing"),
    "residual unknown key": (after_spikes(residual(WAY, skip=1)), "'skip'"),
    "residual layers empty": (after_spikes(residual([])), "layers[2].layers"),
    "residual layers a table": (after_spikes(residual({"type": "lif"})), "layers[2].layers"),
    "residual shortcut a table": (
        after_spikes({**residual(WAY), "shortcut": {"type": "conv"}}),
        "layers[2].shortcut",
    ),
    "residual shortcut a number": (
        after_spikes({**residual(WAY), "shortcut": 3}),
        "layers[2].shortcut",
    ),
    "residual without neurons": (
        after_spikes(residual([conv(3, 1), BATCHNORM])),
        "layers[2].layers: must hold neurons and end in a current",
    ),
    "residual ends in spikes": (
        after_spikes(residual([conv(3, 1), LIF])),
        "layers[2].layers: must hold neurons and end in a current",
    ),
    "residual of input": (
        with_layers(residual([conv(2, 1), LIF, conv(2, 1)]), LIF, FLATTEN, linear(10)),
        "layers[0]: a residual layer must follow a LIF layer",
    ),
    "residual of pooled spikes": (
        after_spikes(avgpool(2), residual(WAY)),
        "layers[3]: a residual layer must follow a LIF layer",
    ),
    "residual of a current": (
        with_layers(conv(3), residual(WAY)),
        "layers[1]: residual must not follow conv",
    ),
    "residual of a residual": (
        after_spikes(residual(WAY), residual(WAY)),
        "layers[3]: residual must not follow residual",
    ),
    "batchnorm of a residual": (
        after_spikes(residual(WAY), BATCHNORM),
        "layers[3]: batchnorm must follow conv or linear",
    ),
    "conv of a residual": (after_spikes(residual(WAY), conv(3)), "layers[3]: conv must not follow"),
    "residual of other channels": (
        after_spikes(residual([conv(4, 1), LIF, conv(4, 1)])),
        "layers[2]: the layers make a shape of (4, 8, 8), the shortcut (3, 8, 8)",
    ),
    "residual shortcut of another shape": (
        after_spikes(residual(WAY, conv(3, 1, stride=2))),
        "layers[2]: the layers make a shape of (3, 8, 8), the shortcut (3, 4, 4)",
    ),
    "residual shortcut with neurons": (
        after_spikes(residual(WAY, conv(3, 1), LIF, conv(3, 1))),
        "layers[2].shortcut: may hold avgpool, conv, linear and batchnorm",
    ),
    "residual shortcut of a pool alone": (
        after_spikes(residual(WAY, avgpool(1))),
        "layers[2].shortcut: may hold avgpool, conv, linear and batchnorm",
    ),
    "residual inside, wrong": (
        after_spikes(residual([conv(3, 1), LIF, conv(3, "1")])),
        "layers[2].layers[2].kernel",
    ),
    "residual shortcut inside, wrong": (
        after_spikes(residual(WAY, conv(3, 0))),
        "layers[2].shortcut[0].kernel",
    ),
    "last layer residual": (
        with_layers(linear(4), LIF, residual([linear(4), LIF, linear(4)]), shape=(8,)),
        "last layer",
    ),
    "neither layers nor name": (without("layers"), "[model] layers: give either"),
    "layers and name": (changed("name", "resnet18"), "[model] layers: give either"),
    "name": ({**without("layers"), "name": "resnet20"}, "[model] name"),
    "name a list": ({**without("layers"), "name": ["resnet18"]}, "[model] name"),
    "classes without name": (changed("classes", 10), "[model] classes: goes with `name`"),
    "norm without name": (changed("norm", "td"), "[model] norm: goes with `name`"),
    "classes 0": ({**without("layers"), "name": "resnet18", "classes": 0}, "[model] classes"),
    "classes text": ({**without("layers"), "name": "resnet18", "classes": "10"}, "[model] classes"),
    "norm": ({**without("layers"), "name": "resnet18", "norm": "layer"}, "[model] norm"),
}


def test_a_residual_layer_holds_its_two_ways() -> None:
    shortcut = [avgpool(2), conv(6, 1), {**BATCHNORM, "kind": "td", "alpha": 0.5}]
    main = [conv(6, 3, stride=2, padding=1), BATCHNORM, LIF, conv(6, 3, padding=1), BATCHNORM]
    found = parse(after_spikes(residual(main, *shortcut)), "here")
    layer = found.layers[2]
    assert (layer.type, layer.source, layer.target) == ("residual", (3, 8, 8), (6, 4, 4))
    assert [one.type for one in layer.layers] == [one["type"] for one in main]
    assert [one.type for one in layer.shortcut] == ["avgpool", "conv", "batchnorm"]
    assert layer.shortcut[2].options == {"kind": "td", "alpha": 0.5}
    assert layer.layers[1].options == {"kind": "plain", "alpha": 1.0}
    assert layer.shortcut[-1].target == layer.layers[-1].target == layer.target
    flat = [one.type for one in found.flat_layers()]
    assert flat == [
        *("conv", "lif", *[one["type"] for one in main], "avgpool", "conv", "batchnorm"),
        *("residual", "lif", "flatten", "linear"),
    ]
    macs = [64 * 3 * 18, 16 * 6 * 27, 16 * 6 * 54, 16 * 6 * 3, 96 * 10]
    assert list(found.macs().values()) == macs
    assert parse(json.loads(json.dumps(found.to_data())), "again") == found

    net = SpikingNet(found)
    built = net.layers[2]
    assert isinstance(built, Residual)
    assert (len(built.layers), len(built.shortcut)) == (5, 3)
    norm = built.shortcut[2]
    assert isinstance(norm, BatchNormOverTime)
    assert norm.scale == pytest.approx(0.5 * found.threshold)
    assert net(torch.rand(2, 2, 8, 8)).shape == (2, 10)


def test_an_empty_shortcut_is_the_identity() -> None:
    found = parse(after_spikes(residual(WAY)), "here")
    assert found.layers[2].shortcut == ()
    without_key = after_spikes({**RES, "layers": WAY})
    assert parse(without_key, "here") == found
    built = SpikingNet(found).layers[2]
    assert isinstance(built, Residual)
    assert len(built.shortcut) == 0


def test_residual_layers_stand_inside_residual_layers() -> None:
    inner = residual([conv(3, 1), LIF, conv(3, 1)])
    found = parse(after_spikes(residual([conv(3, 1), LIF, inner, LIF, conv(3, 1)])), "here")
    assert found.layers[2].layers[2].type == "residual"
    assert parse(found.to_data(), "again") == found
    assert SpikingNet(found)(torch.rand(1, 2, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("learned", ["no", "layer", "channel", "neuron"])
@pytest.mark.parametrize("shape", [(2, 8, 8), (8,)])
def test_options_of_the_neuron_reach_it(learned: str, shape: tuple[int, ...]) -> None:
    is_map = len(shape) == 3
    layers = (
        [conv(4), LIF, FLATTEN, linear(3)] if is_map else [linear(4, bias=False), LIF, linear(3)]
    )
    given = {
        "threshold": 0.75,
        "decay": 0.25,
        "current_decay": 0.125,
        "reset": "subtract",
        "learn_decay": learned,
        "learn_threshold": True,
    }
    found = parse(with_lif(*layers, shape=shape, **given), "here")
    assert parse(found.to_data(), "again") == found
    assert found.to_data()["lif"] == {"emit": "spike", **given}
    neuron = SpikingNet(found).layers[1]
    assert isinstance(neuron, neurons.LIF)
    assert neuron.threshold.item() == pytest.approx(0.75)
    assert neuron.threshold.requires_grad
    assert (neuron.current_decay, neuron.reset) == (0.125, "subtract")
    source = (4, 6, 6) if is_map else (4,)
    shapes = {"no": (), "layer": (), "channel": (4, *([1] * (len(source) - 1))), "neuron": source}
    assert neuron.decay.shape == shapes[learned]
    assert neuron.decay.requires_grad is (learned != "no")
    assert neuron.decay.flatten().tolist() == pytest.approx([0.25] * neuron.decay.numel())


def test_a_recurrent_layer_has_a_full_matrix() -> None:
    found = parse(with_layers(linear(6), {**LIF, "recurrent": True}, linear(3), shape=(8,)), "here")
    neuron = SpikingNet(found).layers[1]
    assert isinstance(neuron, neurons.LIF)
    assert neuron.recurrent.weight.shape == (6, 6)
    assert neuron.recurrent.bias is None


def test_a_three_state_neuron_gets_its_decays() -> None:
    described = with_lif(*CLIF_LAYERS, threshold=0.75, decay=0.9, current_decay=0.5)
    described["input"] = {"kind": "spikes", "shape": [8]}
    found = parse(described, "here")
    neuron = SpikingNet(found).layers[1]
    assert isinstance(neuron, neurons.CLIF)
    assert (neuron.threshold, neuron.decay, neuron.current_decay) == (0.75, 0.9, 0.5)
    assert parse(found.to_data(), "again") == found


SPIKE_OPTIONS: list[tuple[dict[str, Any], type[spikes.SpikeFunction], str, float, float]] = [
    ({"function": "asgl"}, spikes.ASGL, "clip", 2.5, 0.8),
    ({"function": "asgl", "smooth": "tanh", "probability": 0.25}, spikes.ASGL, "tanh", 2.5, 0.25),
    ({"function": "surrogate"}, spikes.SurrogateGradient, "clip", 1.0, 1.0),
    (
        {"function": "surrogate", "smooth": "arctan", "width": 3},
        spikes.SurrogateGradient,
        "arctan",
        3.0,
        1.0,
    ),
    ({"function": "dspike", "temperature": 4.0}, spikes.Dspike, "dspike", 0.25, 1.0),
    ({"function": "whetstone", "width": 2.0}, spikes.Whetstone, "clip", 2.0, 0.0),
    ({"function": "lsg"}, spikes.LSG, "clip", 1.0, 1.0),
]


@pytest.mark.parametrize(("options", "kind", "smooth", "width", "probability"), SPIKE_OPTIONS)
def test_options_of_the_spike_function_reach_it(
    options: dict[str, Any],
    kind: type[spikes.SpikeFunction],
    smooth: str,
    width: float,
    probability: float,
) -> None:
    data = {**MODEL, "spike": options, "lif": {"learn_decay": "layer", "decay": 0.2}}
    found = parse(data, "here")
    assert parse(json.loads(json.dumps(found.to_data())), "again") == found
    spike = spike_function(found)
    assert type(spike) is kind
    assert (spike.smooth, spike.probability) == (smooth, probability)
    assert spike.width.item() == pytest.approx(width)


@pytest.mark.parametrize("function", ["asgl", "surrogate"])
@pytest.mark.parametrize(
    ("granularity", "shape"), [("layer", ()), ("channel", (4, 1, 1)), ("neuron", (4, 6, 6))]
)
def test_a_width_is_one_per_layer_channel_or_neuron(
    function: str, granularity: str, shape: tuple[int, ...]
) -> None:
    found = parse(with_spike(function, granularity=granularity, learn_width=True), "here")
    net = SpikingNet(found)
    (neuron,) = neurons.neurons(net)
    assert neuron.spike.log_width.shape == shape
    net.train()(torch.rand(2, 2, 8, 8)).sum().backward()
    assert neuron.spike.log_width.grad is not None
    assert neuron.spike.log_width.grad.shape == shape


def test_a_shared_mask_is_an_option() -> None:
    for shared in (True, False):
        spike = spike_function(parse(changed("spike.shared", shared), "here"))
        assert spike.train().emission.shared is shared


def test_a_name_stands_for_the_layers_of_a_known_network() -> None:
    data = {**without("layers"), "name": "resnet18", "classes": 7, "norm": "td"}
    data["input"] = {"kind": "constant", "shape": [3, 32, 32]}
    found = parse(data, "here")
    assert found.layers == parse(
        {**data, "name": None, "classes": None, "norm": None,
         "layers": ZOO["resnet18"](classes=7, norm="td")}, "here",
    ).layers  # fmt: skip
    assert found.layers[-1].target == (7,)
    kinds = {one.options["kind"] for one in found.flat_layers() if one.type == "batchnorm"}
    assert kinds == {"td"}
    assert parse(found.to_data(), "again") == found  # which says the layers, not the name
    assert "name" not in found.to_data()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name: str) -> None:
    data, key = REFUSED[name]
    with pytest.raises(SnnDeployError, match=re.escape(key)) as caught:
        parse(data, "my.toml")
    assert caught.value.code == "SD104"
    assert caught.value.exit == Exit.USAGE
    assert "--> my.toml" in str(caught.value)
