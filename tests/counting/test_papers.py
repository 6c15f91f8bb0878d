"""Figures that papers and tools print, from the networks that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.counting import Counts, asgl, count, dspike, syops
from snn_deploy.counting.fans import fan, padded_products
from snn_deploy.counting.roles import is_shortcut
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.hardware import target
from snn_deploy.nn.architecture import Architecture, Layer, parse
from snn_deploy.nn.zoo import ZOO
from snn_deploy.synapses import Conv2d, Dense, Shape
from tests.helpers.architectures import graph_of, graph_of_layers, silent
from tests.helpers.nets import one_layer

# Input shape and kind of each network in its paper.
INPUTS: dict[str, tuple[tuple[int, ...], str]] = dict.fromkeys(ZOO, ((3, 32, 32), "constant"))
INPUTS |= {
    "vggsnn": ((2, 48, 48), "spikes"),
    "shd": ((700,), "spikes"),
    "medlydb": ((384,), "spikes"),
    "gesture": ((2, 32, 32), "spikes"),
    "autoencoder": ((1, 28, 28), "constant"),
}


def architecture(name: str, timesteps: int = 2) -> Architecture:
    shape, kind = INPUTS[name]
    lif = {"decay": 0.9, "current_decay": 0.8} if name == "medlydb" else {}
    data = {
        "timesteps": timesteps,
        "input": {"kind": kind, "shape": list(shape)},
        "lif": lif,
        "name": name,
    }
    return parse(data, "a test")


def counted(graph: Graph, convention: str = "exact", timesteps: int = 2) -> Counts:
    rule = {"exact": asgl(), "padded": replace(asgl(), fanout="padded")}[convention]
    return count(graph, silent(graph, timesteps), rule)


def twin(counts: Counts) -> float:
    return sum(p.twin for p in counts.projections)


def taps(size: int, kernel: int, stride: int, padding: int) -> int:
    """Kernel places that see the map, summed over the outputs of one axis."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    return sum(
        0 <= output * stride - padding + place < size
        for output in range(outputs)
        for place in range(kernel)
    )


def synapses(layers: tuple[Layer, ...]) -> Iterator[int]:
    """Synapses of every layer that has weights, from its description alone."""
    for layer in layers:
        yield from synapses(layer.layers)
        yield from synapses(layer.shortcut)
        options = layer.options
        if layer.type == "linear":
            yield int(np.prod(layer.source)) * layer.target[0]
        elif layer.type == "conv":
            shape = (options["kernel"], options["stride"], options["padding"])
            down, across = (taps(size, *shape) for size in layer.source[1:])
            yield layer.source[0] * layer.target[0] * down * across
        elif layer.type == "lif" and options.get("recurrent"):
            yield layer.target[0] ** 2


@pytest.mark.parametrize("name", ZOO)
def test_every_architecture(name: str) -> None:
    """Exact and padded, against its description; an identity shortcut multiplies nothing."""
    described = architecture(name)
    graph = graph_of(described)
    recurrent = 240 * 240 if name == "shd" else 0
    assert twin(counted(graph)) == sum(synapses(described.layers))
    assert twin(counted(graph, "padded")) == sum(described.macs().values()) + recurrent


@pytest.mark.parametrize(
    ("name", "exact", "padded"),
    [
        ("resnet19", 2104.64, 2285.37),
        ("resnet18", 481.86, 555.42),
        ("resnet18-stem3", None, 187.37),
        ("resnet19-stem64", None, 2216.5),
        ("shd", 0.2304, 0.2304),
        ("medlydb", 0.2758, 0.2758),
        ("autoencoder", 0.221184, 0.221184),
    ],
)
def test_printed_million_macs(name: str, exact: float | None, padded: float) -> None:
    """As ASGL (SHD 23.04 w, MedlyDB 27.6 w), Dspike (187 M) and tdBN (2285 M) print them."""
    graph = graph_of(architecture(name))
    assert twin(counted(graph, "padded")) / 1e6 == pytest.approx(padded, abs=0.005)
    if exact is not None:
        assert twin(counted(graph)) / 1e6 == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding", "exact", "padded"),
    [
        ((3, 64), 32, 3, 1, 1, 1_696_512, 1_769_472),
        ((64, 128), 32, 3, 2, 1, 18_096_128, 18_874_368),
        ((128, 128), 16, 3, 1, 1, 34_668_544, 37_748_736),
        ((256, 512), 4, 3, 2, 1, 3_276_800, 4_718_592),
        ((3, 64), 224, 7, 2, 3, 116_214_528, 118_013_952),
    ],
)
def test_convolutions(
    channels: tuple[int, int],
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    exact: int,
    padded: int,
) -> None:
    weight = np.broadcast_to(np.int8(1), (channels[1], channels[0], kernel, kernel))
    conv = Conv2d(weight, stride=(stride, stride), padding=(padding, padding))
    shape = (channels[0], size, size)
    assert fan(conv, None, shape).total() == exact
    assert fan(conv, None, shape, "padded").total() == padded_products(conv, shape) == padded


# Million additions and multiplications of Dspike's Table 3, and its energy in uJ (it prints J and
# mJ, off by a factor of a thousand).
TABLE_3 = {
    "ANN ResNet-19": (2285, 2285, 12.6e3, 100),
    "ANN ResNet-18": (187, 187, 1.03e3, 10),
    "ResNet-20, T 5": (142, 8.80, 168, 1),
    "ResNet-19, T 2": (360, 6.8, 355, 1),
    "ResNet-18, T 2": (71.2, 3.52, 80.3, 0.1),
}


@pytest.mark.parametrize("row", TABLE_3)
def test_dspike_table_3_adds_twice(row: str) -> None:
    """Every row is 0.9 pJ per addition and 4.6 pJ per multiplication, of the ANN too."""
    adds, multiplications, printed, last_digit = TABLE_3[row]
    price = target("cmos45").energy
    energy = (
        adds * price["synaptic_operation"].picojoules
        + multiplications * price["multiply_accumulate"].picojoules
    )
    assert energy == pytest.approx(printed, abs=last_digit / 2)


@pytest.mark.parametrize(
    ("name", "million", "microjoules"),
    [("resnet19", 2285, 12_567.5), ("resnet18-stem3", 187, 1028.5)],
)
def test_the_dspike_convention_gives_its_ann_rows(
    name: str, million: int, microjoules: float
) -> None:
    graph = graph_of(architecture(name))
    counts = count(graph, silent(graph, 2), dspike())
    added = sum(t.count for t in counts.terms if t.twin and t.operation == "synaptic_operation")
    assert added == twin(counts)
    assert round(twin(counts) / 1e6) == million
    price = target("cmos45").energy
    each = price["synaptic_operation"].picojoules + price["multiply_accumulate"].picojoules
    assert each == pytest.approx(5.5)
    assert twin(counts) / 1e6 * each == pytest.approx(microjoules, rel=0.002)
    assert any("twice" in remark for remark in counts.remarks)


@pytest.mark.parametrize(
    ("name", "convention", "timesteps", "million"),
    [("resnet18-stem3", "padded", 2, 3.539), ("resnet19", "exact", 2, 6.786),
     ("resnet19", "padded", 2, 7.078)],
)  # fmt: skip
def test_first_layers_of_dspike_table_3(
    name: str, convention: str, timesteps: int, million: float
) -> None:
    """T times the first layer: 6.8 M is the exact one; 3.52 M is twice a rounded 1.76 M."""
    graph = graph_of(architecture(name))
    rule = dspike() if convention == "padded" else replace(dspike(), fanout="exact")
    first = count(graph, silent(graph, timesteps), rule).projections[0]
    assert first.multiply_accumulates / 1e6 == pytest.approx(million, abs=0.0005)


# Giga-operations of syops-counter's README, and its energies in mJ.
README = {
    "spiking_resnet18": (0.10, 0.14, 0.734),
    "sew_resnet18": (0.50, 2.75, 13.10),
    "resnet18": (0.0, 1.82, 8.372),
}


@pytest.mark.parametrize("name", README)
def test_syops_readme(name: str) -> None:
    accumulates, products, millijoules = README[name]
    price = target("cmos45").energy
    energy = (
        accumulates * price["synaptic_operation"].picojoules
        + products * price["multiply_accumulate"].picojoules
    )
    assert energy == pytest.approx(millijoules, abs=1e-9)


def test_syops_counts_resnet18_as_its_readme_does() -> None:
    """ImageNet's ResNet-18: all that the convention counts, and 2 per value that is normalised."""

    def conv(source: Shape, channels: int, kernel: int, stride: int) -> Layer:
        side = source[1] // stride
        options = {"kernel": kernel, "stride": stride, "padding": kernel // 2}
        return Layer("conv", options, source, (channels, side, side))

    def lif(shape: Shape) -> Layer:
        return Layer("lif", {}, shape, shape)

    def multiplied(counts: Counts) -> float:
        return sum(t.count for t in counts.terms if t.twin)

    stem = conv((3, 224, 224), 64, 7, 2)
    # averages of 2x2 make as many values as its maxima of 3x3; what reads them is the stages
    layers = [stem, lif(stem.target), Layer("avgpool", {"kernel": 2}, stem.target, (64, 56, 56))]
    layers.append(Layer("linear", {"bias": False}, (64, 56, 56), (1,)))
    spec = InputSpec(name="in", kind="constant", shape=(3, 224, 224))
    graph = graph_of_layers(spec, layers, 1)
    beginning = count(graph, silent(graph), syops())
    shape: Shape = (64, 56, 56)
    layers = []
    for channels, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            one = conv(shape, channels, 3, stride)
            way = (one, lif(one.target), conv(one.target, channels, 3, 1))
            shortcut = (conv(shape, channels, 1, 2),) if stride == 2 else ()
            layers.append(Layer("residual", {}, shape, one.target, way, shortcut))
            layers.append(lif(one.target))
            shape = one.target
    layers.append(Layer("avgpool", {"kernel": 7}, (512, 7, 7), (512, 1, 1)))
    layers.append(Layer("linear", {"bias": True}, (512,), (1000,)))
    graph = graph_of_layers(InputSpec(name="in", kind="spikes", shape=(64, 56, 56)), layers, 1)
    stages = count(graph, silent(graph), syops())
    normalised = 64 * 112 * 112 + sum(
        graph.population(p.target).size
        for p in graph.projections
        if not is_shortcut(graph, p) and p.target != graph.outputs[0]
    )
    products = beginning.projections[0].twin + multiplied(beginning)
    products += twin(stages) + multiplied(stages) + 2 * normalised
    assert normalised == 2_483_712
    assert products == 1_822_177_768
    assert round(products / 1e9, 2) == README["resnet18"][1]


@pytest.mark.parametrize(
    ("features", "connections", "neurons"), [((784, 128), 100_352, 128), ((10, 5), 50, 5)]
)
def test_keras_spiking_documentation(
    features: tuple[int, int], connections: int, neurons: int
) -> None:
    """The connections and neurons of ``ModelEnergy``'s docstring, and its 864 uJ on a CPU."""
    sources, targets = features
    weight = np.broadcast_to(np.int8(1), (targets, sources))
    graph = one_layer(Dense(weight), InputSpec(name="in", kind="graded", shape=(sources,)),
                      number_format=None)  # fmt: skip
    counts = count(graph, silent(graph), asgl())
    (population,) = counts.populations
    updates = population.active_updates + population.inactive_updates
    assert (twin(counts), updates) == (connections, neurons)
    if sources == 784:
        price = target("cpu-i7-4960x").energy["multiply_accumulate"].picojoules
        assert (twin(counts) + updates) * price * 1e-12 == pytest.approx(8.64e-4, rel=1e-3)


def test_keras_spiking_convolutions_are_padded() -> None:
    """``connections`` = output size x kernel x channels, the padding's too."""
    conv = Conv2d(np.broadcast_to(np.int8(1), (4, 2, 3, 3)), padding=(1, 1))
    assert padded_products(conv, (2, 5, 5)) == 4 * 5 * 5 * 3 * 3 * 2
