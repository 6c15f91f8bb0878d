"""Modules made with snnTorch, SpikingJelly and Norse: their graphs spike as they do.

The library itself says what is right: its own module, in float64, beside the frozen graph; and in
float32, through the freeze proof.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snn_deploy.exporters import exporter
from torch import nn

from snn_deploy import SnnDeployError, freeze, open_artefact, quantize, simulate
from snn_deploy.freezing import prove_freeze
from snn_deploy.graph import LIF, InputSpec
from tests.helpers.foreign import (
    Foreign,
    NorseNet,
    SnnTorchNet,
    SpikingJellyNet,
    drawn,
    fed,
    layer,
    neuron,
    norse,
    sj,
    snn,
    snn_utils,
    surrogate,
)

NETS = int(os.environ.get("SNN_DEPLOY_PEER_NETS", "40"))


def own_spikes(net: Foreign, names: set[str]) -> tuple[dict[str, Any], Any]:
    """What neurons emit in float64, [B, T, ...] by their path, and the result of the network."""
    model = copy.deepcopy(net.model).double()
    found: dict[str, list[Any]] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, _: Any, out: Any) -> None:
            spikes = out[0] if isinstance(out, tuple) else out
            sequence = getattr(module, "step_mode", "s") == "m" or hasattr(module, "record_states")
            steps = spikes if sequence else spikes[None]
            found.setdefault(name, []).extend(steps.detach().numpy() != 0)

        return keep

    for name, module in model.named_modules():
        if hasattr(module, "spike_grad"):  # snnTorch's are float32, which double layers refuse
            step = module.spike_grad
            module.spike_grad = lambda x, step=step: step(x).to(x.dtype)
        if name in names:
            module.register_forward_hook(hook(name))
    fed = {**net.recording.values, **net.recording.spikes}[""]
    with torch.no_grad():
        result = model(torch.from_numpy(fed.astype(np.float64)))
    return {name: np.stack(steps, 1) for name, steps in found.items()}, result.numpy()


def check(net: Foreign) -> dict[str, float]:
    """The graph spikes as the module does, in float64 and in float32; shares of spikes."""
    timesteps = None if net.spec.kind == "constant" else net.timesteps
    graph = freeze(net.model, net.spec, timesteps=timesteps)
    trace = simulate(graph, net.recording, engine="reference", trace=True)
    spiking = {p.name for p in graph.populations if isinstance(p.neurons, LIF)}
    spikes, result = own_spikes(net, spiking)
    assert set(spikes) == {name for name in spiking if not name.startswith("maxpool")}
    for name, one in spikes.items():
        np.testing.assert_array_equal(one.reshape(trace.spikes[name].shape), trace.spikes[name])
    proof = prove_freeze(net.model, net.recording, net.spec, timesteps=timesteps)
    assert proof.holds, proof
    assert proof.slots == sum(s.size for name, s in trace.spikes.items())
    np.testing.assert_array_equal(proof.decisions, result.argmax(1))
    return {name: float(one.mean()) for name, one in spikes.items()}


@pytest.mark.parametrize("make", [SnnTorchNet, SpikingJellyNet, NorseNet])
@pytest.mark.parametrize("seed", range(NETS))
def test_random_networks(seed: int, make: Any) -> None:
    check(drawn(seed, make))


def exported(net: Foreign, folder: Path) -> dict[str, str]:
    """Quantize for two targets and write: all engines spike alike, and so does what is read again.

    Returns what became of each target: ``file``, or code and message of what has no place there.
    """
    timesteps = None if net.spec.kind == "constant" else net.timesteps
    graph = freeze(net.model, net.spec, timesteps=timesteps)
    found = {}
    for chip in ("generic", "loihi2"):
        try:
            integer = quantize(graph, chip)
        except SnnDeployError as error:
            found[chip] = f"{error.code} {error.message}"
            continue
        engines: list[tuple[Any, Any]] = [(integer, "reference"), (integer, "event")]
        try:
            exporter("nir").export(integer, folder)
            found[chip] = "file"
            engines.append((open_artefact(folder / "model.nir").graph, "event"))
        except SnnDeployError as error:
            found[chip] = f"{error.code} {error.message}"
        one, *others = (
            simulate(each, net.recording, engine=engine, trace=True) for each, engine in engines
        )
        for other in others:
            for field in ("spikes", "membrane", "output"):
                first, second = getattr(one, field), getattr(other, field)
                for name in first:
                    np.testing.assert_array_equal(first[name], second[name])
    return found


# ---- the tutorials' networks ----


class TutorialMLP(nn.Module):
    """snnTorch's tutorial 5, smaller: a still image at every step, all that happens recorded."""

    def __init__(self, mechanism: str = "subtract") -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 100)
        self.lif1 = snn.Leaky(
            beta=0.95, reset_mechanism="zero" if mechanism == "zero" else "subtract"
        )
        self.fc2 = nn.Linear(100, 10)
        self.lif2 = snn.Leaky(beta=0.95, reset_mechanism=mechanism)

    def forward(self, x: Any) -> Any:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(25):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class Decided(nn.Module):
    """A network that records, and what its users decide by."""

    def __init__(self, net: nn.Module, how: Any) -> None:
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x: Any) -> Any:
        return self.how(self.net(x))


class TutorialConv(nn.Module):
    """snnTorch's tutorial 6: neurons with hidden states in a Sequential, cleared by utils.reset."""

    def __init__(self, pool_first: bool) -> None:
        super().__init__()
        grad = snn.surrogate.fast_sigmoid(slope=25)

        def lif(**options: Any) -> Any:
            return snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True, **options)

        def block(conv: nn.Module) -> list[nn.Module]:
            rest = [nn.MaxPool2d(2), lif()] if pool_first else [lif(), nn.MaxPool2d(2)]
            return [conv, *rest]

        self.net = nn.Sequential(
            *block(nn.Conv2d(1, 6, 5)), *block(nn.Conv2d(6, 8, 3)),
            nn.Flatten(), nn.Linear(8 * 2 * 2, 10), lif(output=True),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        snn_utils.reset(self.net)
        spk_rec = []
        for _ in range(12):
            spk_out, _ = self.net(x)
            spk_rec.append(spk_out)
        return torch.stack(spk_rec).sum(0)


class CSNN(nn.Module):
    """SpikingJelly's CSNN for Fashion-MNIST, smaller; the votes of its DVSGestureNet."""

    def __init__(self, votes: bool, channels: int = 6) -> None:
        super().__init__()
        classes = 20 if votes else 10

        def node() -> Any:
            return neuron.IFNode(surrogate_function=surrogate.ATan())

        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels), node(), layer.MaxPool2d(2, 2),
            layer.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels), node(), layer.MaxPool2d(2, 2),
            layer.Flatten(), layer.Dropout(0.5),
            layer.Linear(channels * 2 * 2, 30, bias=False), node(),
            layer.Linear(30, classes, bias=False), node(),
            *([layer.VotingLayer(2)] if votes else []),
        )  # fmt: skip
        sj.set_step_mode(self, step_mode="m")

    def forward(self, x: Any) -> Any:
        sj.reset_net(self)
        x_seq = x.unsqueeze(0).repeat(8, 1, 1, 1, 1)  # [N, C, H, W] -> [T, N, C, H, W]
        return self.conv_fc(x_seq).mean(0)


class NorseMNIST(nn.Module):
    """Norse's MNIST notebook, smaller, its encoder left outside: the largest voltage decides."""

    def __init__(self) -> None:
        super().__init__()
        p = norse.LIFParameters(alpha=100, v_th=torch.as_tensor(0.5))
        self.l1 = norse.LIFRecurrentCell(64, 40, p=p, dt=0.001)
        self.fc_out = nn.Linear(40, 10, bias=False)
        self.out = norse.LICell(dt=0.001)

    def forward(self, x: Any) -> Any:
        s1 = so = None
        voltages = []
        for ts in range(x.shape[1]):
            z = x[:, ts].reshape(-1, 64)
            z, s1 = self.l1(z, s1)
            vo, so = self.out(self.fc_out(z), so)
            voltages += [vo]
        m, _ = torch.max(torch.stack(voltages), 0)
        return m


def tutorials() -> dict[str, tuple[nn.Module, tuple[int, ...], int, bool]]:
    torch.manual_seed(3)
    made: dict[str, tuple[nn.Module, tuple[int, ...], int, bool]] = {
        "snntorch-mlp": (Decided(TutorialMLP(), lambda out: out[0].sum(0)), (64,), 25, True),
        "snntorch-membranes": (
            Decided(TutorialMLP("none"), lambda out: out[1].mean(0)), (64,), 25, True),
        "snntorch-largest": (
            Decided(TutorialMLP("none"), lambda out: out[1].amax(0)), (64,), 25, True),
        "snntorch-zero": (
            Decided(TutorialMLP("zero"), lambda out: out[0].sum(0)), (64,), 25, True),
        "snntorch-conv": (TutorialConv(pool_first=False), (1, 16, 16), 12, True),
        "spikingjelly-csnn": (CSNN(votes=False), (1, 8, 8), 8, True),
        "spikingjelly-votes": (CSNN(votes=True), (1, 8, 8), 8, True),
        "norse-mnist": (NorseMNIST(), (64,), 20, False),
    }  # fmt: skip
    for name, (model, *_) in made.items():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                with torch.no_grad():
                    module.weight.mul_(4.0 if name.startswith("norse") else 2.5)
    return made


@pytest.mark.parametrize("name", tutorials())
def test_tutorials(name: str, tmp_path: Path) -> None:
    model, shape, timesteps, constant = tutorials()[name]
    net = fed(model, shape, timesteps, constant, np.random.default_rng(11))
    assert all(rate > 0.01 for rate in check(net).values())
    expected = {"generic": "file", "loihi2": "file"}
    if name.startswith("snntorch") and not name.endswith("zero"):
        expected["loihi2"] = "SD202 loihi2 resets membranes to zero only"
    assert exported(net, tmp_path) == expected


# ---- what has no equal in the graph is refused, by its path ----


class Stepped(nn.Module):
    """One layer of neurons in a loop over time, and something done with it."""

    def __init__(self, neurons: nn.Module, use: Any, bias: bool = False) -> None:
        super().__init__()
        self.fc, self.other, self.neurons = nn.Linear(6, 5, bias=bias), nn.Linear(5, 5), neurons
        self.use = use

    def forward(self, x: Any) -> Any:
        for module in self.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()
        sj.reset_net(self)
        return self.use(self, x.unbind(1))


def counted(net: Any, steps: Any) -> Any:
    return sum(_first(net.neurons(net.fc(x))) for x in steps)


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


def other_membrane(net: Any, steps: Any) -> Any:
    mem, total = None, 0
    for x in steps:
        spk, mem = net.neurons(net.fc(x), None if mem is None else mem * 0.5)
        total = total + spk
    return total


def first_membrane(net: Any, steps: Any) -> Any:
    mem, total = torch.full((len(steps[0]), 5), 0.1), 0
    for x in steps:
        spk, mem = net.neurons(net.fc(x), mem)
        total = total + spk
    return total


def membranes(net: Any, steps: Any) -> Any:
    return sum(net.neurons(net.fc(x))[-1] for x in steps)


def currents(net: Any, steps: Any) -> Any:
    return sum(net.neurons(net.fc(x))[1] for x in steps)


def attribute(name: str) -> Any:
    def use(net: Any, steps: Any) -> Any:
        total = 0
        for x in steps:
            net.neurons(net.fc(x))
            total = total + getattr(net.neurons, name)
        return total

    return use


def twice(net: Any, steps: Any) -> Any:
    return sum(net.neurons(net.other(net.neurons(net.fc(x)))) for x in steps)


def fed_on(net: Any, steps: Any) -> Any:
    return sum(net.other(_first(net.neurons(net.fc(x)))) for x in steps)


def handed(net: Any, steps: Any) -> Any:
    state, total = None, 0
    for x in steps:
        out, state = net.neurons(net.fc(x), state)
        total = total + out
    return total


def foreign_state(net: Any, steps: Any) -> Any:
    state = type(net.neurons.initial_state(steps[0]))(*[torch.full((len(steps[0]), 5), 0.3)] * 2)
    total = 0
    for x in steps:
        out, state = net.neurons(net.fc(x), state)
        total = total + out
    return total


def sequence(net: Any, steps: Any) -> Any:
    return net.neurons(net.fc(torch.stack(steps))).sum(0)


class MyLeaky(snn.Leaky):  # type: ignore[misc]
    """Neurons of a user's own."""


def changed() -> Any:
    made = snn.Leaky(0.9)
    made.reset_mechanism = "zero"
    return made


def inhibited() -> Any:
    with pytest.warns(UserWarning, match="unstable"):
        return snn.Leaky(0.9, inhibition=True)


def p(**values: float) -> Any:
    return norse.LIFParameters(**{name: torch.tensor(value) for name, value in values.items()})


WRONG: dict[str, tuple[Any, Any, str]] = {
    "snn-alpha": (lambda: snn.Alpha(0.9, 0.8), counted, "no such neurons"),
    "snn-subclass": (lambda: MyLeaky(0.9), counted, "no such neurons"),
    "snn-inhibition": (inhibited, counted, "inhibition"),
    "snn-quant": (lambda: snn.Leaky(0.9, state_quant=lambda x: x.round()), counted, "state_quant"),
    "snn-graded": (lambda: snn.Leaky(0.9, graded_spikes_factor=2.0), counted, "graded"),
    "snn-at-once": (lambda: snn.Leaky(0.9, reset_delay=False), counted, "twice its threshold"),
    "snn-no-decay": (lambda: snn.Leaky(0.0), counted, "decay of 0"),
    "snn-swallow": (
        lambda: snn.Synaptic(0.5, 0.9, reset_mechanism="zero"), counted, "next timestep's input"),
    "snn-lapicque": (
        lambda: snn.Lapicque(0.9, reset_mechanism="zero"), counted, "next timestep's input"),
    "snn-overshoot": (lambda: snn.Lapicque(0.3), counted, "outside [0, 1]"),
    "snn-changed": (changed, counted, "changed after it was made"),
    "snn-smooth": (lambda: snn.Leaky(0.9, spike_grad=torch.sigmoid), counted, "not a step"),
    "snn-threshold": (lambda: snn.Leaky(0.9, threshold=-0.5), counted, "not above"),
    "snn-scaled": (lambda: snn.Leaky(0.9), other_membrane, "not its own"),
    "snn-start": (lambda: snn.Leaky(0.9), first_membrane, "nor its state at rest"),
    "snn-membranes": (lambda: snn.Leaky(0.9), membranes, "membranes of neurons that are reset"),
    "snn-attribute": (
        lambda: snn.Leaky(0.9), attribute("mem"), "membranes of neurons that are reset"),
    "snn-currents": (lambda: snn.Synaptic(0.5, 0.9), currents, "synaptic currents"),
    "snn-unreset": (lambda: snn.Leaky(0.9, reset_mechanism="none"), fed_on, "without reset"),
    "snn-unreset-out": (lambda: snn.Leaky(0.9, reset_mechanism="none"), counted, "without reset"),
    "sj-smooth": (
        lambda: neuron.LIFNode(surrogate_function=surrogate.ATan(spiking=False)), counted,
        "not a step"),
    "sj-kind": (lambda: neuron.KLIFNode(), counted, "no such neurons"),
    "sj-stored": (lambda: neuron.LIFNode(store_v_seq=True), counted, "store_v_seq"),
    "sj-start": (lambda: neuron.CUBALIFNode(v_reset=0.2), counted, "where it starts"),
    "sj-decode": (lambda: neuron.NonSpikingLIFNode(decode="max-abs-mem"), sequence, "decodes by"),
    "sj-voltage": (lambda: neuron.LIFNode(), attribute("v"), "membranes of neurons that are reset"),
    "sj-shared": (lambda: neuron.LIFNode(), twice, "8 timesteps, not 4"),
    "sj-mode": (lambda: neuron.LIFNode(step_mode="m"), counted, "rearranged"),
    "sj-infinite": (
        lambda: neuron.LIFNode(v_threshold=float("inf"), v_reset=None), counted, "no number"),
    "norse-kind": (lambda: norse.LIFAdExCell(), handed, "no such neurons"),
    "norse-fast": (lambda: norse.LIFCell(p=p(tau_mem_inv=1200.0)), handed, "outside [0, 1]"),
    "norse-leak": (
        lambda: norse.LICell(p=norse.LIParameters(v_leak=torch.tensor(0.1))), handed, "v_leak"),
    "norse-start": (lambda: norse.LIFCell(), foreign_state, "nor its state at rest"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_refused_by_its_path(name: str) -> None:
    make, use, said = WRONG[name]
    torch.manual_seed(0)
    model = Stepped(make(), use, bias=False).eval()
    spec = InputSpec(name="input", kind="spikes", shape=(6,))
    with pytest.raises(SnnDeployError) as caught:
        freeze(model, spec, timesteps=4)
    assert caught.value.code == "SD205"
    assert said in str(caught.value)
    where = {"sj-shared": None, "snn-unreset": "other"}.get(name, "neurons")
    assert caught.value.where == where
    assert caught.value.fix
