"""Freezing: the float graph spikes as the module does, and each fold by hand."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy import checks
from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.freezing import freeze, prove_freeze
from snn_deploy.graph import LIF, Graph, Integrator, ResetSubtract, ResetTo
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import neurons
from snn_deploy.packets import Recording
from snn_deploy.sim import Trace, simulate
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers import spiking
from tests.helpers.spiking import (
    BATCHNORM,
    FLATTEN,
    architecture,
    architectures,
    as_tensor,
    avgpool,
    conv,
    every_kind,
    linear,
    random_input,
    settled,
)

Array = NDArray[Any]

NEAR = 1e-9  # far above the rounding of float64, far below any difference that means something


def run_module(net: SpikingNet, recording: Recording) -> tuple[dict[str, Array], Array]:
    """Spikes [B, T, ...] of every spiking layer, by population, and the readout; in float64."""
    double = copy.deepcopy(net).double().eval()
    spikes: dict[str, Array] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, out: Tensor) -> None:
            spikes[name] = out.transpose(0, 1).numpy() != 0

        return hook

    for population, module in zip(freeze(net).spiking(), neurons(double), strict=True):
        module.register_forward_hook(keep(population.name))
    with torch.inference_mode():
        readout = double(as_tensor(net.architecture, recording).double()).numpy()
    return spikes, readout


def run_graph(graph: Graph, recording: Recording) -> Trace:
    return simulate(graph, recording, engine="reference", trace=True)


@given(described=architectures(), seed=st.integers(0, 2**16))
def test_the_graph_spikes_as_the_module_does(described: Architecture, seed: int) -> None:
    net = settled(described, seed)
    recording = random_input(described, np.random.default_rng(seed), 4)
    graph = freeze(net)
    trace = run_graph(graph, recording)
    spikes, readout = run_module(net, recording)

    assert spikes.keys() == trace.spikes.keys()
    flipped = [name for name in spikes if (spikes[name] != trace.spikes[name]).any()]
    if flipped:  # nothing but a tie may begin it
        name = flipped[0]
        neurons = graph.population(name).neurons
        assert isinstance(neurons, LIF)
        after = trace.membrane[name]
        before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
        membrane = before * neurons.decay + trace.current[name] + neurons.bias
        distance = np.abs(membrane - neurons.threshold)[spikes[name] != trace.spikes[name]]
        assert distance.min() < NEAR
    else:
        assert np.allclose(trace.output["output"], readout, rtol=NEAR, atol=NEAR)

    proof = prove_freeze(net, recording)
    assert proof.holds
    assert (proof.violations, proof.readout_violations) == (0, 0)
    assert proof.samples == 4
    assert proof.slots == sum(s.size for s in spikes.values())
    assert sum(proof.flips.values()) == proof.ties + proof.downstream


@given(described=architectures())
def test_nothing_of_training_is_left(described: Architecture) -> None:
    graph = freeze(settled(described))
    checks.check_float(graph)
    count = sum(layer.type in ("lif", "clif") for layer in described.flat_layers())
    assert [type(p.neurons) for p in graph.populations] == [LIF] * count + [Integrator]
    ways = sum(layer.type == "residual" for layer in described.flat_layers())
    ways += sum(layer.options.get("recurrent", False) for layer in described.flat_layers())
    of_biases = {spec.name for spec in graph.inputs if spec.always_fires}
    rest = [p for p in graph.projections if p.source not in of_biases]
    assert len(rest) == count + ways + 1  # every other layer is folded into these
    assert graph.timesteps == described.timesteps
    kinds = (layer.type for layer in described.flat_layers() if layer.type in ("lif", "clif"))
    for population in graph.spiking():
        assert isinstance(population.neurons, LIF)
        kind = next(kinds)
        soft = kind == "clif" or described.reset == "subtract"
        assert isinstance(population.neurons.reset, ResetSubtract if soft else ResetTo)
        if isinstance(population.neurons.reset, ResetSubtract):
            amount = population.neurons.threshold / (described.decay if kind == "clif" else 1)
            assert population.neurons.reset.amount == pytest.approx(amount, rel=1e-15)
        assert (population.neurons.current_decay or 0) == described.current_decay
        if not described.learn_threshold:
            assert population.neurons.threshold == described.threshold
        if described.learn_decay == "no":
            assert population.neurons.decay == described.decay
        if isinstance(population.neurons.reset, ResetTo):
            assert population.neurons.reset.value == 0


def test_populations_are_named_after_their_layers() -> None:
    graph = freeze(every_kind())
    names = [p.name for p in graph.populations]
    assert names == ["conv1", "conv2", "conv3", "linear1", "output"]
    assert graph.outputs == ("output",)
    assert graph.input("input").mean.tolist() == [0.25, 0.5]
    assert graph.input("input").std.tolist() == [0.5, 0.25]
    output = graph.population("output").neurons
    assert isinstance(output, Integrator)
    assert (output.decay, output.readout) == (0, "mean")


def test_freezing_leaves_the_module_alone() -> None:
    net = every_kind().train()
    before = copy.deepcopy(net.state_dict())
    freeze(net)
    prove_freeze(net, random_input(net.architecture, np.random.default_rng(0), 2))
    assert net.training
    assert all(m.training for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_the_same_module_gives_the_same_graph() -> None:
    one, other = freeze(every_kind()), freeze(every_kind())
    for mine, theirs in zip(one.projections, other.projections, strict=True):
        assert np.array_equal(mine.synapses.weight, theirs.synapses.weight)


def set_parameters(module: nn.Module, **values: list[Any]) -> None:
    for name, value in values.items():
        tensor = getattr(module, name)
        tensor.data = torch.tensor(value, dtype=tensor.dtype).reshape(tensor.shape)


def inner(net: SpikingNet, index: int) -> Any:
    """The module behind a layer."""
    layer: Any = net.layers[index]
    return layer.module


def test_batch_normalisation_by_hand() -> None:
    """w' = gamma / sqrt(var + eps) * w and b' = beta + gamma / sqrt(var + eps) * (b - mean)."""
    net = SpikingNet(
        architecture([conv(2, 1, bias=True), BATCHNORM, spiking.LIF, FLATTEN, linear(2)], (1, 2, 2))
    )
    set_parameters(inner(net, 0), weight=[3.0, -2.0], bias=[0.5, 0.25])
    norm = inner(net, 1)
    norm.eps = 0.25
    set_parameters(
        norm, weight=[2.0, -1.0], bias=[0.125, 1.0], running_mean=[1.0, -3.0], running_var=[2, 0]
    )
    graph = freeze(net)
    (projection,) = graph.incoming("conv1")
    # sqrt(2 + 1/4) = 3/2 and sqrt(0 + 1/4) = 1/2: factors 4/3 and -2
    assert projection.synapses.weight.ravel().tolist() == pytest.approx([4.0, 4.0])
    bias = graph.population("conv1").neurons.bias
    assert bias.shape == (2, 1, 1)
    assert bias.ravel().tolist() == pytest.approx([0.125 - 4 / 3 * 0.5, 1 - 2 * 3.25])


def test_batch_normalisation_without_scale_and_shift() -> None:
    net = SpikingNet(architecture([linear(2), BATCHNORM, spiking.LIF, linear(2)], (2,)))
    set_parameters(inner(net, 0), weight=[1.0, 2.0, 3.0, 4.0], bias=[0.0, 1.0])
    norm = nn.BatchNorm1d(2, eps=0.0, affine=False)
    set_parameters(norm, running_mean=[1.0, 2.0], running_var=[4.0, 0.25])
    net.layers[1].module = norm
    graph = freeze(net)
    assert graph.incoming("linear1")[0].synapses.weight.tolist() == [[0.5, 1.0], [6.0, 8.0]]
    assert graph.population("linear1").neurons.bias.tolist() == [-0.5, -2.0]


def test_average_pooling_becomes_a_sum_and_smaller_weights() -> None:
    second = [conv(1, 1, bias=True), spiking.LIF, FLATTEN, linear(1, bias=False)]
    net = SpikingNet(architecture([conv(1, 1), spiking.LIF, avgpool(2), *second], (1, 5, 5)))
    set_parameters(inner(net, 3), weight=[8.0], bias=[0.5])
    graph = freeze(net)
    (projection,) = graph.incoming("conv2")
    assert projection.pool == SumPool((2, 2), (2, 2))
    assert projection.synapses.weight.item() == 2.0  # 8 / 2^2
    assert graph.population("conv2").neurons.bias.item() == 0.5
    assert graph.population("conv2").shape == (1, 2, 2)
    assert graph.incoming("output")[0].pool is None  # the factor is spent once


def test_flattening_keeps_channels_before_rows() -> None:
    net = SpikingNet(
        architecture(
            [conv(2, 1, bias=True), spiking.LIF, avgpool(2), FLATTEN, linear(1)],
            (1, 4, 6),
            timesteps=1,
        )
    )
    set_parameters(inner(net, 0), weight=[1.0, 1.0], bias=[-9.0, 0.0])  # channel 1 alone fires
    weights = np.arange(12.0)
    set_parameters(inner(net, 4), weight=weights.tolist(), bias=[0.0])
    graph = freeze(net)
    (projection,) = graph.incoming("output")
    assert isinstance(projection.synapses, Dense)
    assert projection.synapses.weight.tolist() == [(weights / 4).tolist()]
    values = np.zeros((1, 1, 4, 6), np.float32)
    values[0, 0, 2, 5] = 1  # pooled: channel 1, row 1, column 2, which is index 6 + 3 + 2
    trace = run_graph(graph, Recording(values={"": values}))
    assert trace.output["output"].item() == 11 / 4


def test_convolutions_keep_their_geometry() -> None:
    net = settled(
        architecture([conv(3, 2, stride=2, padding=1), spiking.LIF, FLATTEN, linear(2)], (2, 5, 7))
    )
    synapses = freeze(net).incoming("conv1")[0].synapses
    assert isinstance(synapses, Conv2d)
    assert (synapses.stride, synapses.padding, synapses.groups) == ((2, 2), (1, 1), 1)
    assert np.array_equal(synapses.weight, inner(net, 0).weight.detach().double().numpy())
    assert synapses.weight.dtype == np.float64


def test_a_threshold_that_is_met_exactly_fires() -> None:
    """Dyadic numbers: no rounding anywhere, and every neuron ends exactly on its threshold."""
    net = SpikingNet(architecture([linear(3), spiking.LIF, linear(2)], (2,), kind="spikes"))
    set_parameters(inner(net, 0), weight=[0.25, 0.25, 0.5, -1.0, 0.5, 0.5], bias=[0.0, 0.0, -0.5])
    recording = Recording(spikes={"": np.ones((1, 3, 2), np.uint8)})
    recording.spikes[""][0, 1] = 0
    trace = run_graph(freeze(net), recording)
    spikes, _ = run_module(net, recording)
    assert trace.spikes["linear1"][0].tolist() == [
        [True, False, True],
        [False, False, False],
        [True, False, False],
    ]
    assert np.array_equal(trace.spikes["linear1"], spikes["linear1"])
    assert sum(prove_freeze(net, recording).flips.values()) == 0


class Foreign(nn.Module):
    """A module that no architecture describes."""


def replaced(index: int, make: Callable[[nn.Module], nn.Module]) -> SpikingNet:
    """A network whose module behind one layer is another."""
    net = every_kind()
    layer: Any = net.layers[index]
    layer.module = make(layer.module)
    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "no spiking network": (lambda: nn.Linear(2, 2), "SD205", "Linear"),
    "foreign layer": (lambda: replaced(3, lambda m: Foreign()), "SD205", "Foreign"),
    "dropout": (lambda: replaced(1, lambda m: nn.Dropout()), "SD205", "Dropout"),
    "pool with padding": (
        lambda: replaced(5, lambda m: nn.AvgPool2d(2, padding=1)),
        "SD205",
        "padding",
    ),
    "pool rounded up": (
        lambda: replaced(5, lambda m: nn.AvgPool2d(2, ceil_mode=True)),
        "SD205",
        "ceil_mode",
    ),
    "pool with a divisor": (
        lambda: replaced(5, lambda m: nn.AvgPool2d(2, divisor_override=3)),
        "SD205",
        "divisor",
    ),
    "batch statistics": (
        lambda: replaced(1, lambda m: nn.BatchNorm2d(6, track_running_stats=False)),
        "SD205",
        "running statistics",
    ),
    "reflected border": (
        lambda: replaced(0, lambda m: nn.Conv2d(2, 6, 3, padding=1, padding_mode="reflect")),
        "SD205",
        "padding",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_frozen_is_named(name: str) -> None:
    make, code, text = REFUSED[name]
    with pytest.raises(SnnDeployError, match=text) as caught:
        freeze(make())
    assert caught.value.code == code
    assert caught.value.exit == Exit.UNSUPPORTED
    if name != "no spiking network":
        assert re.fullmatch(r"layers\.\d(\.module)?", str(caught.value.where))


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("layers.0.module.weight", "input->conv1"),
        ("layers.1.module.running_mean", "conv1"),
        ("layers.1.module.weight", "input->conv1"),
        ("layers.6.module.weight", "conv2->conv3"),
        ("layers.13.module.bias", "output"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(place: str, where: str, value: float) -> None:
    net = every_kind()
    with torch.no_grad():
        net.state_dict()[place].view(-1)[0] = value
    with pytest.raises(SnnDeployError) as caught:
        freeze(net)
    assert (caught.value.code, caught.value.where) == ("SD403", where)
    assert caught.value.exit == Exit.INTEGRITY
