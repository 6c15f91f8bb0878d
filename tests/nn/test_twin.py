"""The analog twin, and what one network inherits from another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import Neuron, neurons
from snn_deploy.nn.twin import AnalogTwin, inherit
from tests.helpers.refusals import refused
from tests.helpers.spiking import BATCHNORM, FLATTEN, LIF, architecture, avgpool, conv, linear

LAYERS = [conv(3), BATCHNORM, LIF, avgpool(), FLATTEN, linear(4), LIF, linear(2)]
BLOCK = {"type": "residual", "layers": [conv(3, padding=1), LIF, conv(3, padding=1)]}
RESIDUAL = [conv(3), LIF, BLOCK, LIF, FLATTEN, linear(2)]


def test_the_twin_is_a_relu_network_of_one_step() -> None:
    twin = AnalogTwin(architecture(LAYERS, low=-1.0, mean=[0.25], std=[0.5])).eval()
    x = torch.rand(3, 1, 6, 6)
    weight = {k: v.double() for k, v in twin.state_dict().items()}
    value = nn.functional.conv2d((x.double() - 0.25) / 0.5, weight["layers.0.module.weight"])
    value = nn.functional.relu(value / np.sqrt(1 + 1e-5))  # untrained batch statistics
    value = nn.functional.avg_pool2d(value, 2).flatten(1)
    hidden = weight["layers.5.module.weight"], weight["layers.5.module.bias"]
    value = nn.functional.relu(nn.functional.linear(value, *hidden))
    last = weight["layers.7.module.weight"], weight["layers.7.module.bias"]
    wanted = nn.functional.linear(value, *last)
    found = twin.currents(x)
    assert found.shape == (1, 3, 2)
    torch.testing.assert_close(found[0].double(), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(twin(x), found[0])


@pytest.mark.parametrize("layers", [LAYERS, RESIDUAL])
def test_the_twin_holds_no_neurons_and_the_same_synapses(layers: list[dict[str, object]]) -> None:
    about = architecture(layers)
    twin, net = AnalogTwin(about), SpikingNet(about)
    assert neurons(net)
    assert not neurons(twin)
    of_neurons = {
        f"{name}.{own}"
        for name, module in net.named_modules()
        if isinstance(module, Neuron)
        for own in module.state_dict()
    }
    assert net.state_dict().keys() - twin.state_dict().keys() == of_neurons
    assert twin.state_dict().keys() <= net.state_dict().keys()


def test_a_spiking_network_inherits_what_its_twin_has_learned() -> None:
    about = architecture(LAYERS, spike={"function": "asgl", "width": 1.5})
    twin, net = AnalogTwin(about), SpikingNet(about)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.copy_(torch.rand(value.shape) if value.is_floating_point() else 7)
    assert inherit(net, twin, "a test") == len(twin.state_dict())
    found = net.state_dict()
    for name, value in twin.state_dict().items():  # batch statistics, too
        assert torch.equal(found[name], value)
    assert [n.spike.width.item() for n in neurons(net)] == pytest.approx([1.5, 1.5])


def test_a_spiking_network_inherits_widths_and_decays_from_another() -> None:
    about = architecture(LAYERS)
    source, net = SpikingNet(about), SpikingNet(about)
    for neuron in neurons(source):
        neuron.spike.log_width.data.fill_(0.25)
    inherit(net, source, "a test")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in net.state_dict().items())
    # a copy: the source may go on
    source.get_parameter("layers.0.module.weight").data.zero_()
    assert net.get_parameter("layers.0.module.weight").abs().sum() > 0


def test_weights_of_another_shape_are_refused() -> None:
    net = SpikingNet(architecture(LAYERS))
    other = SpikingNet(architecture([*LAYERS[:-1], linear(3)]))
    with refused("SD104", r"layers\.7\.module\.(weight|bias)(.|\n)*here(.|\n)*same architecture"):
        inherit(net, other, "here")


def test_weights_that_are_missing_are_refused() -> None:
    net = SpikingNet(architecture(LAYERS))
    other = nn.Sequential(nn.Linear(2, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with refused("SD104", r"no weights for layers\.0\.module\.weight"):
        inherit(net, other, "here")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_recurrent_weights_need_not_be_there() -> None:
    """They start at random when a network becomes recurrent."""
    recurrent = {"type": "lif", "recurrent": True}
    plain = SpikingNet(architecture([linear(3), LIF, linear(2)], (4,)))
    net = SpikingNet(architecture([linear(3), recurrent, linear(2)], (4,)))
    before = net.get_parameter("layers.1.recurrent.weight").clone()
    inherit(net, plain, "here")
    assert torch.equal(net.get_parameter("layers.1.recurrent.weight"), before)
    inherit(plain, net, "here")
