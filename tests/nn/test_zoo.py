"""The papers' networks: sizes as printed, and one step of training, saved and loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_deploy.nn.architecture import Architecture, Layer, parse
from snn_deploy.nn.checkpoint import load, save
from snn_deploy.nn.losses import mean_current_cross_entropy
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.zoo import ZOO
from snn_deploy.synapses import Conv2d, fan_out
from tests.helpers.refusals import refused

# Input shape, kind and classes of each network in its paper.
INPUTS: dict[str, tuple[tuple[int, ...], str, int]] = {
    "cifarnet": ((3, 32, 32), "constant", 10),
    "resnet18": ((3, 32, 32), "constant", 10),
    "resnet18-stem3": ((3, 32, 32), "constant", 10),
    "resnet19": ((3, 32, 32), "constant", 10),
    "resnet19-stem64": ((3, 32, 32), "constant", 10),
    "vggsnn": ((2, 48, 48), "spikes", 10),
    "vgg13": ((3, 32, 32), "constant", 10),
    "vgg16": ((3, 32, 32), "constant", 10),
    "vgg19": ((3, 32, 32), "constant", 10),
    "shd": ((700,), "spikes", 20),
    "medlydb": ((384,), "spikes", 10),
    "gesture": ((2, 32, 32), "spikes", 11),
    "autoencoder": ((1, 28, 28), "constant", 784),
}


def described(name: str, timesteps: int = 2, /, **options: Any) -> Architecture:
    shape, kind, _ = INPUTS[name]
    data = {
        "timesteps": timesteps,
        "input": {"kind": kind, "shape": list(shape)},
        "lif": {"decay": 0.9, "current_decay": 0.8} if name == "medlydb" else {},
        "name": name,
        **options,
    }
    return parse(data, "a test")


def synapses(net: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_every_network_is_tested() -> None:
    assert INPUTS.keys() == ZOO.keys()
    for name, (_, _, classes) in INPUTS.items():
        assert described(name).layers[-1].target == (classes,)


# Million multiply-accumulates: all, and of the first layer (ASGL, LSG and Dspike as printed).
MACS = {
    "resnet18": (555.42, 1.769),
    "resnet18-stem3": (187.37, 1.769),
    "resnet19": (2285.37, 3.539),
    "resnet19-stem64": (2216.5, 1.769),
}


@pytest.mark.parametrize("name", MACS)
def test_operations_are_those_printed(name: str) -> None:
    macs = list(described(name).macs().values())
    total, first = MACS[name]
    assert sum(macs) / 1e6 == pytest.approx(total, abs=0.005 if total != 2216.5 else 0.05)
    assert macs[0] / 1e6 == pytest.approx(first, abs=0.0005)


def exact_fan_out(layers: tuple[Layer, ...]) -> int:
    """Synapses that end at a neuron, for one spike of every source: padded taps left out."""
    total = 0
    for layer in layers:
        total += exact_fan_out(layer.layers) + exact_fan_out(layer.shortcut)
        options = layer.options
        if layer.type == "linear":
            total += layer.source[0] * layer.target[0]
        elif layer.type == "conv":
            side = options["kernel"]
            kind = Conv2d(
                np.broadcast_to(np.int8(1), (layer.target[0], layer.source[0], side, side)),
                stride=(options["stride"],) * 2,
                padding=(options["padding"],) * 2,
            )
            total += int(fan_out(kind, None, layer.source).sum())
    return total


@pytest.mark.parametrize(("name", "million"), [("resnet19", 2104.64), ("resnet18", 481.86)])
def test_exact_fan_outs_are_those_of_the_papers(name: str, million: float) -> None:
    assert exact_fan_out(described(name).layers) / 1e6 == pytest.approx(million, abs=0.005)


@pytest.mark.parametrize(
    ("name", "weights"), [("shd", 230_400), ("medlydb", 275_800), ("autoencoder", 221_184)]
)
def test_weights_are_as_many_as_printed(name: str, weights: int) -> None:
    net = SpikingNet(described(name))
    assert sum(m.weight.numel() for m in synapses(net)) == weights
    assert all(m.bias is None for m in synapses(net))


# Channels or features of all weighted layers in order, shortcuts left out.
PLANS = {
    "cifarnet": [128, 256, 512, 1024, 512, 1024, 512, 10],
    "vggsnn": [64, 128, 256, 256, 512, 512, 512, 512, 10],
    "vgg13": [64, 64, 128, 128, 256, 256, 512, 512, 512, 512, 10],
    "vgg16": [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6 + [4096, 4096, 10],
    "vgg19": [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8 + [4096, 4096, 10],
    "shd": [240, 20],
    "medlydb": [700, 10],
    "gesture": [64, 128, 128, 256, 11],
    "autoencoder": [128, 64, 32, 64, 128, 784],
    "resnet18": [64] + [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4 + [10],
    "resnet18-stem3": [64] * 3 + [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4 + [10],
    "resnet19": [128] + [128] * 6 + [256] * 6 + [512] * 4 + [256, 10],
    "resnet19-stem64": [64] + [128] * 6 + [256] * 6 + [512] * 4 + [256, 10],
}


def plan(layers: tuple[Layer, ...]) -> Iterator[int]:
    for layer in layers:
        yield from plan(layer.layers)
        if layer.type in ("conv", "linear"):
            yield layer.target[0]


@pytest.mark.parametrize("name", ZOO)
def test_layers_are_those_of_the_papers(name: str) -> None:
    assert list(plan(described(name).layers)) == PLANS[name]


HEADS = {"vggsnn": 4608, "vgg16": 2048, "vgg19": 2048, "vgg13": 512, "resnet18": 512}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_begins_with_as_many_features(name: str) -> None:
    first = next(layer for layer in described(name).layers if layer.type == "linear")
    assert first.source == (HEADS[name],)


def branches(layers: tuple[Layer, ...]) -> Iterator[tuple[Layer, ...]]:
    """The layers of a network, and of each way of its residual layers."""
    yield layers
    for layer in layers:
        if layer.type == "residual":
            yield from branches(layer.layers)
            yield from branches(layer.shortcut)


@pytest.mark.parametrize("name", [n for n in ZOO if n.startswith("resnet")])
def test_tdbn_halves_the_variance_of_the_two_ways_of_a_block(name: str) -> None:
    """Deng et al.: alpha is 1, but 1/sqrt(2) at the end of a branch and on its shortcut."""
    network, *ways = branches(described(name, norm="td").layers)
    assert ways
    for layers in (network, *ways):
        norms = [layer for layer in layers if layer.type == "batchnorm"]
        for norm in norms:
            last = layers is not network and norm is layers[-1]
            assert norm.options["kind"] == "td"
            assert norm.options["alpha"] == pytest.approx(1 / math.sqrt(2) if last else 1)
    plain = described(name, norm="plain").flat_layers()
    options = [layer.options for layer in plain if layer.type == "batchnorm"]
    assert all(o == {"kind": "plain", "alpha": 1.0} for o in options)


def test_shortcuts_are_identity_unless_the_shape_changes() -> None:
    kinds = {
        "resnet18": ["conv", "batchnorm"],
        "resnet19": ["conv", "batchnorm"],
        "resnet18-stem3": ["avgpool", "conv", "batchnorm"],
    }
    for name, wanted in kinds.items():
        blocks = [layer for layer in described(name).layers if layer.type == "residual"]
        assert len(blocks) == 8
        for block in blocks:
            found = [layer.type for layer in block.shortcut]
            assert found == ([] if block.source == block.target else wanted)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def batch(about: Architecture, timesteps: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if about.input_kind == "constant":
        return torch.rand(2, *about.input_shape, generator=generator)
    return (torch.rand(2, timesteps, *about.input_shape, generator=generator) < 0.3).float()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ZOO)
def test_a_step_of_training_then_saved_and_loaded(name: str, tmp_path: Path) -> None:
    timesteps = 1 if INPUTS[name][1] == "constant" else 2
    about = described(name, timesteps)
    torch.manual_seed(0)
    net = SpikingNet(about)
    x = batch(about, timesteps)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = mean_current_cross_entropy(net.train().currents(x), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    first = synapses(net)[0].weight
    assert math.isfinite(loss.item())
    assert first.grad is not None
    if name != "medlydb":  # a C-LIF's input takes effect one step late
        assert first.grad.abs().sum() > 0
    optimizer.step()
    path = tmp_path / "net.pt"
    save(net, path)
    found = load(path)
    path.unlink()
    assert found.architecture == about
    with torch.inference_mode():
        outputs = net.eval()(x)
        assert torch.equal(found(x), outputs)
    assert outputs.shape == (2, INPUTS[name][2])
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize("name", ZOO)
def test_the_number_of_classes_is_taken(name: str) -> None:
    assert described(name, classes=3).layers[-1].target == (3,)


def test_what_a_name_does_not_go_with_is_refused() -> None:
    with refused("SD104", "name: unknown name 'resnet20'"):
        described("resnet18", name="resnet20")
    with refused("SD104", "name"):
        described("resnet18", name=3)
    with refused("SD104", "classes"):
        described("resnet18", classes=0)
    with refused("SD104", "norm"):
        described("resnet18", norm="bntt")
    with refused("SD104", "either `layers` or the `name`"):
        described("resnet18", layers=[])
    with refused("SD104", "avgpool|makes a shape"):
        described("resnet18", input={"kind": "constant", "shape": [3, 8, 8]})
