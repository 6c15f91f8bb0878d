"""The freeze proof: it finds planted faults, tells ties from faults, and its bound is true."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import FreezeProof, freeze, prove_freeze
from snn_deploy.freezing.bounds import membrane_and_bound
from snn_deploy.freezing.lowering import lower
from snn_deploy.freezing.module_run import run_module
from snn_deploy.graph import Graph
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import CLIF, Neuron, neurons
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import with_sample_axis
from snn_deploy.synapses import with_weights
from tests.helpers import spiking
from tests.helpers.refusals import refused
from tests.helpers.spiking import (
    FLATTEN,
    architecture,
    architectures,
    conv,
    every_kind,
    linear,
    random_input,
    residual,
    settled,
)

Array = NDArray[Any]
Fault = Callable[[Graph], Graph]


@pytest.fixture(scope="module")
def net() -> SpikingNet:
    """Every kind of layer; the first one's variances are small beside eps."""
    net = every_kind()
    with torch.no_grad():
        first: Any = net.layers[0]
        first.module.weight.mul_(0.01)
        norm: Any = net.layers[1]
        norm.module.running_var.mul_(1e-4)
        norm.module.running_mean.mul_(0.01)
    return net


@pytest.fixture(scope="module")
def recording(net: SpikingNet) -> Recording:
    return random_input(net.architecture, np.random.default_rng(5), 80)  # more than one batch


def with_population(graph: Graph, name: str, **changes: Any) -> Graph:
    """The graph with other parameters in one population."""
    populations = tuple(
        replace(p, neurons=replace(p.neurons, **changes)) if p.name == name else p
        for p in graph.populations
    )
    return replace(graph, populations=populations)


def with_projection(graph: Graph, target: str, change: Callable[[Array], Array]) -> Graph:
    """The graph with other weights into one population."""
    projections = tuple(
        replace(p, synapses=with_weights(p.synapses, change(p.synapses.weight.copy())))
        if p.target == target
        else p
        for p in graph.projections
    )
    return replace(graph, projections=projections)


def swapped_flatten(weight: Array) -> Array:
    """Columns in the order rows, columns, channels instead of channels, rows, columns."""
    return weight.reshape(len(weight), 8, 2, 2).transpose(0, 2, 3, 1).reshape(len(weight), -1)


def bias_of(graph: Graph, name: str) -> Array:
    return graph.population(name).neurons.bias


FAULTS: dict[str, Fault] = {
    "a bias dropped": lambda g: with_population(g, "conv2", bias=np.zeros((8, 1, 1))),
    "a bias of the first layer dropped": lambda g: with_population(
        g, "conv1", bias=np.zeros((6, 1, 1))
    ),
    "the last bias wrong": lambda g: with_population(g, "output", bias=bias_of(g, "output") + 1e-3),
    "the pool's factor forgotten": lambda g: with_projection(g, "conv3", lambda w: 4 * w),
    "the threshold off": lambda g: with_population(g, "conv2", threshold=np.array(0.501)),
    "the decay off": lambda g: with_population(g, "conv2", decay=np.array(0.499)),
    "no decay": lambda g: with_population(g, "linear1", decay=np.array(0.0)),
    "flattened in another order": lambda g: with_projection(g, "linear1", swapped_flatten),
    "another normalisation": lambda g: replace(
        g, inputs=(replace(g.inputs[0], mean=np.array([0.5, 0.25])),)
    ),
}


def shown(proof: FreezeProof) -> bool:
    """Whether a proof that failed says so wherever it should."""
    assert proof.violations > 0 or proof.readout_violations > 0
    with refused("SD406", "differ"):
        proof.require("here")
    return not proof.holds


def test_the_sound_graph_holds(net: SpikingNet, recording: Recording) -> None:
    proof = prove_freeze(net, recording)
    assert proof.holds
    proof.require("here")
    assert proof.samples == 80
    assert proof.slots == 80 * 3 * (6 * 49 + 8 * 49 + 8 * 4 + 12)
    rates = simulate(freeze(net), recording, engine="reference").record.spikes
    assert all(0.05 < r.mean() / 240 < 0.95 for r in rates.values())  # a net worth comparing


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(net: SpikingNet, recording: Recording, name: str) -> None:
    assert shown(prove_freeze(net, recording, graph=FAULTS[name](freeze(net))))


@pytest.mark.parametrize("target", ["conv1", "conv2", "conv3", "output"])
def test_one_weight_off_by_one_percent_is_found(net: SpikingNet, target: str) -> None:
    """The weight that carries most current into the channel that is least decided."""
    recording = random_input(net.architecture, np.random.default_rng(6), 320)
    graph = freeze(net)
    (projection,) = graph.incoming(target)
    spikes = simulate(graph, recording, engine="reference").record.spikes
    busy = spikes.get(projection.source, np.ones(graph.shape_of(projection.source)))

    def change(weight: Array) -> Array:
        row = 0
        if target in spikes:
            rate = spikes[target].reshape(len(weight), -1).mean(axis=1) / (320 * 3)
            row = int(np.abs(rate - 0.3).argmin())
        per_channel = busy.reshape(weight.shape[1], -1).mean(axis=1)
        carried = np.abs(weight[row]) * per_channel.reshape(-1, *([1] * (weight.ndim - 2)))
        weight[row][np.unravel_index(carried.argmax(), carried.shape)] *= 1.01
        return weight

    assert shown(prove_freeze(net, recording, graph=with_projection(graph, target, change)))


def test_a_wrong_last_layer_is_a_readout_violation(net: SpikingNet, recording: Recording) -> None:
    """Also where no decision changes, and on every sample without a flip before it."""
    proof = prove_freeze(net, recording, graph=FAULTS["the last bias wrong"](freeze(net)))
    assert (proof.violations, proof.decisions_changed) == (0, 0)
    assert proof.readout_violations >= 75 * 5


def test_a_forgotten_eps_is_found(net: SpikingNet, recording: Recording) -> None:
    forgetful = copy.deepcopy(net)
    norm: Any = forgetful.layers[1]
    norm.module.eps = 0.0
    assert shown(prove_freeze(net, recording, graph=freeze(forgetful)))


def of_spikes(layers: spiking.Layers, timesteps: int = 3) -> SpikingNet:
    """A network of spike inputs with threshold 1/2 and decay 1/2, without biases."""
    return SpikingNet(architecture(layers, (2,), kind="spikes", timesteps=timesteps)).eval()


def put(net: SpikingNet, index: int, weight: list[list[float]]) -> None:
    layer: Any = net.layers[index]
    layer.module.weight.data = torch.tensor(weight)


def at_the_first_step(timesteps: int) -> Recording:
    spikes = np.zeros((2, timesteps, 2), np.uint8)
    spikes[1, 0] = 1  # the first sample is silent
    return Recording(spikes={"": spikes})


SLIGHT = 2.0**-30  # lost beside 1/2 in float32, not in float64


def tied(timesteps: int = 3) -> SpikingNet:
    """Neuron 1 of the first layer ends SLIGHT below its threshold, or on it in float32."""
    plain = {"bias": False}
    net = of_spikes(
        [linear(2, **plain), spiking.LIF, linear(3, **plain), spiking.LIF, linear(2, **plain)],
        timesteps,
    )
    put(net, 0, [[0.25, 0.125], [0.5, -SLIGHT]])
    put(net, 2, [[0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    put(net, 4, [[0.0, 0.0, 0.5], [1.0, 0.0, 0.0]])
    return net


def test_a_tie_is_listed_and_what_follows_from_it_is_downstream() -> None:
    proof = prove_freeze(tied(), at_the_first_step(3))
    assert proof.holds
    assert proof.flips == {"linear1": 1, "linear2": 1}
    assert (proof.ties, proof.downstream) == (1, 1)
    (tie,) = proof.listed
    assert (tie.population, tie.sample, tie.timestep, tie.neuron) == ("linear1", 1, 0, 1)
    assert tie.distance == SLIGHT
    assert SLIGHT <= tie.bound < 1e-5
    assert proof.decisions_changed == 1  # by the tie, which is no violation


def test_a_tie_explains_nothing_beside_it() -> None:
    """A fault in a neuron next to the tie, in the same step, stays a violation."""
    beside = np.array([[0.6, 0.0], [0.0, 0.0]])
    graph = with_projection(freeze(tied()), "linear1", lambda w: w + beside)
    proof = prove_freeze(tied(), at_the_first_step(3), graph=graph)
    assert (proof.ties, proof.violations) == (1, 1)
    assert not proof.holds


def test_a_tie_explains_nothing_before_it_or_in_other_samples() -> None:
    """A synapse that the tie reaches is too weak; it also fails where the tie cannot be blamed."""
    weaker = np.array([[0.0, 0.6], [0.0, 0.0], [0.0, 0.0]])
    graph = with_projection(freeze(tied()), "linear2", lambda w: w - weaker)
    spikes = np.zeros((2, 3, 2), np.uint8)
    spikes[:, 0, 0] = 1  # its source fires, in the module as in the graph
    spikes[0, 2] = 1  # and two steps later, in one sample, there is the tie
    proof = prove_freeze(tied(), Recording(spikes={"": spikes}), graph=graph)
    assert (proof.ties, proof.downstream, proof.violations) == (1, 1, 2)


def test_a_tie_may_show_later() -> None:
    """What a tie adds to a membrane makes it fire one step later: that is the tie's, too."""
    plain = {"bias": False}
    net = of_spikes(
        [linear(3, **plain), spiking.LIF, linear(1, **plain), spiking.LIF, linear(2, **plain)]
    )
    put(net, 0, [[0.5, -SLIGHT], [1.0, 0.0], [0.0, 0.0]])
    put(net, 2, [[0.25, 0.125, 0.0]])
    put(net, 4, [[1.0], [0.0]])
    spikes = np.zeros((1, 3, 2), np.uint8)
    spikes[0, 0] = 1  # the tie, and 1/8 in any case
    spikes[0, 1, 0] = 1  # 3/8 in any case: with half of 1/4 + 1/8 that is above 1/2
    proof = prove_freeze(net, Recording(spikes={"": spikes}))
    assert proof.flips == {"linear1": 1, "linear2": 1}
    assert (proof.ties, proof.downstream, proof.violations) == (1, 1, 0)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_tie_stays_in_its_own_membrane(reset: str) -> None:
    """The module fires and is reset, the graph keeps 1/4: with 0.3 it fires one step later."""
    layers = [linear(1, bias=False), spiking.LIF, linear(2, bias=False)]
    described = architecture(layers, (3,), kind="spikes", lif={"reset": reset})
    net = SpikingNet(described).eval()
    put(net, 0, [[0.5, -SLIGHT, 0.3]])
    spikes = np.zeros((1, 3, 3), np.uint8)
    spikes[0, 0, :2] = 1
    spikes[0, 1, 2] = 1
    proof = prove_freeze(net, Recording(spikes={"": spikes}))
    assert proof.flips == {"linear1": 2}
    assert (proof.ties, proof.downstream, proof.violations) == (1, 1, 0)


def test_exact_ties_agree_and_a_wrong_comparator_shows_as_ties() -> None:
    """Float32 cannot tell ``>`` from ``>=`` beyond ties: every flip must be listed as one."""
    net = of_spikes([linear(2, bias=False), spiking.LIF, linear(2, bias=False)])
    put(net, 0, [[0.25, 0.25], [0.5, 0.0]])
    put(net, 2, [[1.0, 0.0], [0.0, 1.0]])
    recording = at_the_first_step(3)
    sound = prove_freeze(net, recording)
    assert (sound.holds, sum(sound.flips.values()), sound.ties) == (True, 0, 0)
    above = np.array(np.nextafter(0.5, 1))
    strict = prove_freeze(
        net, recording, graph=with_population(freeze(net), "linear1", threshold=above)
    )
    assert strict.holds
    assert strict.ties == sum(strict.flips.values()) == 2
    assert all(tie.distance < 1e-15 for tie in strict.listed)


def test_no_more_than_a_hundred_ties_are_listed() -> None:
    net = of_spikes([linear(60, bias=False), spiking.LIF, linear(2, bias=False)], timesteps=1)
    put(net, 0, [[0.5, -SLIGHT]] * 60)
    proof = prove_freeze(net, Recording(spikes={"": np.ones((3, 1, 2), np.uint8)}))
    assert (proof.ties, len(proof.listed)) == (180, 100)
    assert proof.holds


def test_a_network_without_spiking_layers() -> None:
    net = settled(architecture([FLATTEN, linear(3)], (2, 3, 3)))
    recording = random_input(net.architecture, np.random.default_rng(0), 5)
    proof = prove_freeze(net, recording)
    assert (proof.holds, proof.slots, proof.flips) == (True, 0, {})
    wrong = with_population(freeze(net), "output", bias=np.full(3, 5.0))
    assert not prove_freeze(net, recording, graph=wrong).holds


def test_batches_and_progress_do_not_change_the_proof(
    net: SpikingNet, recording: Recording
) -> None:
    seen: list[tuple[int, int]] = []
    graph = FAULTS["the threshold off"](freeze(net))
    whole = prove_freeze(
        net, recording, graph=graph, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(64, 80), (80, 80)]
    parts = [
        prove_freeze(net, recording.part(start, start + 8), graph=graph)
        for start in range(0, 80, 8)
    ]
    for count in ("samples", "slots", "violations", "ties", "downstream", "readout_violations"):
        assert getattr(whole, count) == sum(getattr(part, count) for part in parts)
    assert np.array_equal(whole.decisions, np.concatenate([part.decisions for part in parts]))
    out = simulate(graph, recording, engine="reference").decisions()
    assert whole.decisions_changed == int((whole.decisions != out).sum())


def test_the_number_of_threads_is_put_back(net: SpikingNet, recording: Recording) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        prove_freeze(net, recording.head(1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_recording_must_fit(net: SpikingNet) -> None:
    with pytest.raises(SnnDeployError):
        prove_freeze(net, Recording(values={"": np.zeros((2, 3))}))


def plain_membranes(module: Neuron, current: Tensor, steps: int) -> Tensor:
    """Membranes before the reset [B, T, ...] of a neuron, step by step in float32."""

    def rounded(value: Tensor | None) -> Tensor:
        return torch.zeros(()) if value is None else value.detach().float()

    given = module.parameters_now()
    current = current.expand(steps, *current.shape[1:])
    if isinstance(module, CLIF):
        current = torch.cat([torch.zeros_like(current[:1]), current[:-1] * module.gain])
    theta, decay, alpha = (rounded(v) for v in (given.theta, given.decay, given.alpha))
    membrane, arriving, fired = (torch.zeros_like(current[0]) for _ in range(3))
    found = []
    for step in current.unbind(0):
        if given.recurrent is not None:
            step = step + fired @ given.recurrent.detach().T
        arriving = alpha * arriving + step
        membrane = decay * membrane + arriving
        found.append(membrane)
        fired = (membrane - theta >= 0).float()
        if given.amount is None:
            membrane = membrane * (1 - fired)
        else:
            membrane = membrane - rounded(given.amount) * fired
    return torch.stack(found, 1)


def rounded_membranes(net: SpikingNet, values: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Membranes before the reset [B, T, ...] as the module's own float32 has them, and spikes."""
    lowered = lower(net)
    membranes: dict[str, Array] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Neuron, arguments: tuple[Tensor, int]) -> None:
            membranes[name] = plain_membranes(module, *arguments).double().numpy()

        return hook

    handles = [
        module.register_forward_pre_hook(keep(population.name))
        for population, module in zip(lowered.graph.spiking(), neurons(net), strict=True)
    ]
    spikes, _ = run_module(net, lowered, values)
    for handle in handles:
        handle.remove()
    return membranes, spikes


def worst_ratios(net: SpikingNet, recording: Recording) -> list[float]:
    """Per population, the largest |u32 - u64| / bound; as long as nothing has flipped."""
    lowered = lower(net)
    graph = lowered.graph
    recording = with_sample_axis(graph, recording)
    (values,) = [*recording.values.values(), *recording.spikes.values()]
    trace = simulate(graph, recording, engine="reference", trace=True)
    membranes, spikes = rounded_membranes(net, values)
    ratios = []
    for population in graph.spiking():
        name = population.name
        if (spikes[name] != trace.spikes[name]).any():
            break
        exact, bound = membrane_and_bound(graph, lowered, population, recording, trace)
        error = np.abs(membranes[name] - exact)
        assert (error <= bound).all()
        ratios.append(float((error / np.maximum(bound, 1e-300)).max()))
    return ratios


@given(described=architectures(), seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_the_bound_is_never_exceeded(described: Architecture, seed: int) -> None:
    net = settled(described, seed)
    worst_ratios(net, random_input(described, np.random.default_rng(seed), 4))


def test_the_bound_is_never_exceeded_by_numbers_that_float32_cannot_hold() -> None:
    """Normalisation, decay and threshold that are rounded before they are used."""
    described = architecture(
        [*spiking.EVERY_KIND],
        (2, 7, 7),
        mean=[0.1, -1.7],
        std=[0.3, 0.7],
        threshold=0.3,
        decay=0.7,
    )
    net = settled(described, 3)
    recording = random_input(described, np.random.default_rng(3), 40)
    ratios = worst_ratios(net, recording)
    assert len(ratios) == 4
    assert prove_freeze(net, recording).holds
    # Not absurdly loose either: errors come within a small factor of the number of terms.
    assert 0.005 < max(ratios) <= 1


def test_the_bound_holds_where_large_numbers_cancel() -> None:
    """In a batch normalisation, and in a current that is only remembered afterwards."""
    layers = [linear(40, bias=True), spiking.BATCHNORM, spiking.LIF, linear(2)]
    net = SpikingNet(architecture(layers, (3,), threshold=1e6)).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        first, norm = (net.layers[i].get_submodule("module") for i in (0, 1))
        first.bias.copy_(torch.from_numpy(rng.uniform(1e4, 2e4, 40)))
        norm.running_mean.copy_(first.bias + torch.from_numpy(rng.uniform(-1, 1, 40)))
    (ratio,) = worst_ratios(net, random_input(net.architecture, rng, 50))
    assert ratio > 0.005

    described = architecture(
        [linear(40, bias=False), spiking.LIF, linear(2)],
        (500,),
        kind="spikes",
        timesteps=3,
        threshold=1e6,
        decay=0.9,
    )
    net = SpikingNet(described).eval()
    with torch.no_grad():
        weight = net.layers[0].get_submodule("module").weight
        weight.copy_(torch.from_numpy(rng.uniform(-1e4, 1e4, (40, 500))))
        weight[:, -1] -= weight.sum(dim=1)
    spikes = np.zeros((1, 3, 500), np.uint8)
    spikes[:, 0] = 1
    assert len(worst_ratios(net, Recording(spikes={"": spikes}))) == 1


def test_the_bound_holds_where_large_numbers_cancel_on_a_shortcut() -> None:
    """And are small on the main way."""
    block = residual([linear(3), spiking.LIF, linear(40)], [linear(40), spiking.BATCHNORM])
    layers = [linear(3), spiking.LIF, block, spiking.LIF, linear(2)]
    net = settled(architecture(layers, (3,), threshold=1e6))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        way = net.layers[2].get_submodule("shortcut")
        first, norm = (way.get_submodule(f"{i}.module") for i in (0, 1))
        first.bias.copy_(torch.from_numpy(rng.uniform(1e4, 2e4, 40)))
        norm.running_mean.copy_(first.bias + torch.from_numpy(rng.uniform(-1, 1, 40)))
    ratios = worst_ratios(net, random_input(net.architecture, rng, 50))
    assert ratios[-1] > 0.005


def remembering(lif: dict[str, Any], decay: float, timesteps: int) -> SpikingNet:
    """40 neurons that never fire and get everything in their first timestep."""
    described = architecture(
        [linear(40, bias=False), spiking.LIF, linear(2)],
        (500,),
        kind="spikes",
        timesteps=timesteps,
        threshold=1e6,
        decay=decay,
        lif=lif,
    )
    return SpikingNet(described).eval()


def all_at_first(timesteps: int) -> Recording:
    spikes = np.zeros((1, timesteps, 500), np.uint8)
    spikes[:, 0] = 1
    return Recording(spikes={"": spikes})


def test_the_bound_holds_where_a_synaptic_current_remembers_what_cancelled() -> None:
    net = remembering({"current_decay": 0.9}, 0.0, 20)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        weight = net.layers[0].get_submodule("module").weight
        weight.copy_(torch.from_numpy(rng.uniform(-1e4, 1e4, (40, 500))))
        weight[:, -1] -= weight.sum(dim=1)
    assert len(worst_ratios(net, all_at_first(20))) == 1


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("learned", ["no", "neuron"])
def test_the_bound_holds_where_only_decays_are_rounded(reset: str, learned: str) -> None:
    """One input of weight 1 and 400 timesteps of decay: its own rounding is soon the least."""
    net = remembering({"reset": reset, "learn_decay": learned}, 0.97, 400)
    with torch.no_grad():
        weight = net.layers[0].get_submodule("module").weight
        weight.zero_()
        weight[:, 0] = 1
        if learned != "no":
            neurons: Any = net.layers[1]
            neurons.decay_logit.copy_(torch.linspace(3.0, 4.0, 40))
    (ratio,) = worst_ratios(net, all_at_first(400))
    assert ratio > 0.02


LONG: dict[str, tuple[spiking.Layers, float, dict[str, Any]]] = {
    "C-LIF": ([linear(20, bias=False), {"type": "clif"}], 0.95, {"current_decay": 0.8}),
    "recurrent": (
        [linear(20, bias=False), {"type": "lif", "recurrent": True}],
        0.9,
        {"current_decay": 0.75, "learn_decay": "neuron"},
    ),
    "subtraction": ([linear(20), spiking.LIF], 0.99, {"reset": "subtract"}),
    "subtraction from far above": (
        [linear(20), spiking.LIF],
        0.99,
        {"reset": "subtract", "threshold": 1e-3, "learn_threshold": True},
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_the_bound_holds_over_hundreds_of_timesteps(name: str) -> None:
    """Where errors stay: in membranes that no reset erases, and in synaptic currents."""
    layers, decay, lif = LONG[name]
    described = architecture(
        [*layers, linear(2)],
        (10,),
        kind="spikes",
        timesteps=400,
        decay=decay,
        lif={"threshold": 0.7, **lif},
    )
    recording = random_input(described, np.random.default_rng(1), 4)
    found = [
        ratio for seed in range(3) for ratio in worst_ratios(settled(described, seed), recording)
    ]
    assert found  # in at least one of them nothing flips
    assert max(found) > 0.005


def test_the_module_runs_on_plain_sums() -> None:
    """A bright pixel must not blur a threshold elsewhere, as fast convolutions make it."""
    described = architecture(
        [conv(2, padding=1), spiking.LIF, FLATTEN, linear(2)],
        (1, 6, 6),
        high=65536.0,
        timesteps=1,
        threshold=1.0,
    )
    net = SpikingNet(described).eval()
    layer: Any = net.layers[0]
    with torch.no_grad():
        layer.module.weight.copy_(torch.linspace(0.1, 0.9, 18).reshape(2, 1, 3, 3))
        layer.module.weight[:, 0, 1, 1] = 1.0
    values = np.zeros((64, 1, 6, 6), np.float32)
    around = np.delete(np.arange(-32, 33), 32)
    values[:, 0, 1, 1] = 1.0 + around * 1e-5  # far from the threshold, for a sum of nine products
    values[:, 0, 4, 4] = 65536.0
    proof = prove_freeze(net, Recording(values={"": values}))
    assert proof.holds
    assert proof.flips == {"conv1": 0}


class FailsInSingle(torch.nn.Linear):
    """A layer that can be followed, but not run."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.float32:
            raise RuntimeError("no")
        return super().forward(x)


def test_calls_go_their_own_way_again_when_the_module_fails(recording: Recording) -> None:
    net = every_kind()
    last: Any = net.layers[-1]
    last.module = FailsInSingle(last.module.in_features, last.module.out_features)
    net.train()
    freeze(net)
    with pytest.raises(RuntimeError, match="no"):
        prove_freeze(net, recording)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert not any("forward" in vars(module) for module in net.modules())
