"""The training-side neuron against plain Python, and batch statistics over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_deploy.nn.layers import BatchNormOverTime
from snn_deploy.nn.models import SpikingNet, spike_function
from snn_deploy.nn.neurons import CLIF, LIF, Neuron, postsynaptic_scale
from snn_deploy.nn.spikes import ASGL, LSG, Dspike, SpikeFunction, SurrogateGradient, Whetstone
from tests.helpers.spiking import BATCHNORM, FLATTEN, architecture, conv, linear
from tests.helpers.spiking import LIF as LIF_LAYER

numbers = st.floats(-3, 3, allow_subnormal=False)


def run(current: list[float], threshold: float, decay: float) -> tuple[list[int], list[float]]:
    """Eq. 1-4 for one neuron: spikes, and membranes before the reset."""
    membrane, fired = 0.0, 0
    spikes, membranes = [], []
    for arriving in current:
        membrane = decay * membrane * (1 - fired) + arriving
        fired = 1 if membrane >= threshold else 0
        spikes.append(fired)
        membranes.append(membrane)
    return spikes, membranes


@given(
    currents=st.integers(1, 8).flatmap(
        lambda steps: st.lists(
            st.lists(numbers, min_size=steps, max_size=steps), min_size=1, max_size=4
        )
    ),
    threshold=st.floats(0.01, 2),
    decay=st.floats(0, 0.999),
)
def test_evaluation_is_the_plain_loop_to_the_bit(
    currents: list[list[float]], threshold: float, decay: float
) -> None:
    neuron = LIF(threshold, decay, ASGL()).double().eval()
    spikes = neuron(torch.tensor(currents, dtype=torch.float64).T)  # [T, B]
    expected = [run(current, threshold, decay)[0] for current in currents]
    assert spikes.T.tolist() == expected


def test_a_spike_resets_the_membrane_to_zero() -> None:
    neuron = LIF(1.0, 0.5, ASGL()).double().eval()
    # 5 fires and is forgotten; 0.9 does not fire; 0.9 / 2 + 0.55 is exactly 1; then 0.99 is alone
    current = torch.tensor([5.0, 0.9, 0.55, 0.99], dtype=torch.float64)
    assert neuron(current[:, None]).flatten().tolist() == [1, 0, 1, 0]


def test_every_run_starts_from_silence() -> None:
    neuron = LIF(1.0, 0.9, ASGL()).eval()
    current = torch.full((3, 1), 0.6)
    first, second = neuron(current), neuron(current)
    assert torch.equal(first, second)
    assert first.flatten().tolist() == [0, 1, 0]


def surrogate_derivative(x: float, width: float) -> float:
    return 1 / width if abs(x) <= width / 2 else 0.0


@pytest.mark.parametrize("currents", [(0.4, 0.3, 0.2), (0.6, 0.3, 0.45), (0.3, 0.9, 0.1)])
def test_gradient_flows_through_the_reset(currents: tuple[float, ...]) -> None:
    """Eq. 6: du[t+1]/du[t] = decay * (1 - s[t] - u[t] * Theta'(u[t] - threshold))."""
    threshold, decay, width = 0.5, 0.8, 1.0
    neuron = LIF(threshold, decay, SurrogateGradient(width)).double().train()
    current = torch.tensor(currents, dtype=torch.float64).reshape(3, 1).requires_grad_()
    last = neuron(current)[-1].sum()
    (found,) = torch.autograd.grad(last, current)

    spikes, membranes = run(list(currents), threshold, decay)
    slope = [surrogate_derivative(u - threshold, width) for u in membranes]
    carried = [decay * (1 - s - u * d) for s, u, d in zip(spikes, membranes, slope, strict=True)]
    expected = [slope[2] * carried[1] * carried[0], slope[2] * carried[1], slope[2]]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_the_reset_of_a_smooth_net_is_smooth() -> None:
    """With probability 0 the membrane keeps 1 - H of itself, and autograd agrees with that."""
    threshold, decay, width = 0.5, 0.8, 2.0

    def second_step(first: float, second: float) -> float:
        smooth = (first - threshold) / width + 0.5
        return (decay * first * (1 - smooth) + second - threshold) / width + 0.5

    neuron = LIF(threshold, decay, ASGL(width, 0.0)).double().train()
    current = torch.tensor([[0.7], [0.1]], dtype=torch.float64, requires_grad=True)
    out = neuron(current)[1, 0]
    assert out.item() == pytest.approx(second_step(0.7, 0.1))
    (found,) = torch.autograd.grad(out, current)
    step = 1e-6
    slope = (second_step(0.7 + step, 0.1) - second_step(0.7 - step, 0.1)) / (2 * step)
    assert found[0].item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(("threshold", "decay"), [(0.0, 0.5), (-1.0, 0.5), (0.5, 1.0), (0.5, -0.1)])
def test_impossible_neurons_are_refused(threshold: float, decay: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        LIF(threshold, decay, ASGL())


def test_batch_statistics_are_taken_over_time_and_batch() -> None:
    net = SpikingNet(
        architecture(
            [conv(4, padding=1), BATCHNORM, LIF_LAYER, FLATTEN, linear(3)],
            (2, 5, 5),
            kind="spikes",
            timesteps=4,
        )
    )
    norm = net.layers[1]
    assert isinstance(norm, BatchNormOverTime)
    seen: list[tuple[Tensor, Tensor]] = []
    norm.register_forward_hook(lambda module, arguments, out: seen.append((arguments[0], out)))
    torch.manual_seed(0)
    net.train()(torch.rand(6, 4, 2, 5, 5).round())
    (current, normalised) = seen[0]
    assert current.shape == (4, 6, 4, 5, 5)  # time first

    plain = nn.BatchNorm2d(4)
    merged = current.reshape(24, 4, 5, 5)
    assert torch.equal(plain(merged), normalised.reshape(24, 4, 5, 5))
    assert torch.equal(plain.running_var, norm.module.running_var)
    by_hand = (merged.double() - merged.double().mean((0, 2, 3), keepdim=True)) / torch.sqrt(
        merged.double().var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    )
    assert torch.allclose(by_hand, normalised.reshape(24, 4, 5, 5).double(), atol=1e-5)


def test_a_constant_input_is_the_same_current_at_every_step() -> None:
    described = architecture(
        [linear(2), LIF_LAYER, linear(2)], (3,), timesteps=4, mean=[1.0], std=[2.0]
    )
    net = SpikingNet(described)
    seen: list[Tensor] = []
    net.layers[0].register_forward_hook(lambda module, arguments, out: seen.append(arguments[0]))
    x = torch.tensor([[0.0, 0.5, 1.0]])
    net.eval()(x)
    # what precedes the first neuron sees it once; the neuron is told the number of steps
    assert seen[0].tolist() == [((x - 1) / 2).tolist()]
    first, neuron, last = net.layers
    repeated = first(((x - 1) / 2).expand(4, 1, 3))
    assert torch.equal(neuron(first(seen[0]), 4), neuron(repeated, 4))
    assert torch.equal(net(x), last(neuron(repeated, 4)).mean(0))


def test_the_readout_is_the_mean_current() -> None:
    net = SpikingNet(
        architecture([linear(4), LIF_LAYER, linear(3)], (2,), kind="spikes", timesteps=5)
    ).eval()
    last: list[Tensor] = []
    net.layers[-1].register_forward_hook(lambda module, arguments, out: last.append(out))
    torch.manual_seed(0)
    out = net(torch.rand(2, 5, 2).round())
    assert torch.allclose(out, sum(last[0].unbind(0)) / 5, atol=1e-6)
    assert out.shape == (2, 3)


def test_the_spike_function_is_the_one_described() -> None:
    options = {"function": "surrogate", "width": 3.0, "learn_width": True}
    described = architecture([linear(2), LIF_LAYER, linear(2)], (2,), spike=options)
    spike = spike_function(described)
    assert isinstance(spike, SurrogateGradient)
    assert spike.width.item() == pytest.approx(3.0)
    assert spike.log_width.requires_grad
    asgl = architecture([linear(2)], (2,), spike={"function": "asgl", "probability": 0.25})
    assert isinstance(spike_function(asgl), ASGL)
    assert spike_function(asgl).probability == 0.25


def reset_by(membrane: float, emitted: float, subtracted: float | None) -> float:
    """Hard reset (None), or soft reset."""
    return membrane * (1 - emitted) if subtracted is None else membrane - subtracted * emitted


@given(
    current=st.lists(numbers, min_size=1, max_size=12),
    threshold=st.floats(0.01, 2),
    decay=st.floats(0, 0.999),
)
def test_a_soft_reset_subtracts_the_threshold(
    current: list[float], threshold: float, decay: float
) -> None:
    neuron = LIF(threshold, decay, ASGL(), reset="subtract").double().eval()
    membrane, expected = 0.0, []
    for arriving in current:
        membrane = decay * membrane + arriving
        fired = 1.0 if membrane >= threshold else 0.0
        membrane = membrane - threshold * fired
        expected.append(fired)
    spikes = neuron(torch.tensor(current, dtype=torch.float64)[:, None])
    assert spikes.flatten().tolist() == expected


def test_a_soft_reset_keeps_what_is_above_the_threshold() -> None:
    current = torch.tensor([2.5, 0.0, 0.0, 0.0], dtype=torch.float64)[:, None]
    for reset, expected in (("zero", [1, 0, 0, 0]), ("subtract", [1, 1, 0, 0])):
        neuron = LIF(1.0, 0.75, ASGL(), reset=reset).double().eval()
        assert neuron(current).flatten().tolist() == expected  # 1.5 * 0.75 fires, 0.125 does not


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_learned_threshold_gets_its_gradient(reset: str) -> None:
    """In an analog net, against finite differences of a plain loop; the soft reset's amount too."""
    decay, width, current = 0.75, 3.0, [0.7, -0.2, 0.9]

    def total(threshold: float) -> float:
        membrane, out = 0.0, 0.0
        for arriving in current:
            u = decay * membrane + arriving
            emitted = clip(u - threshold, width)
            membrane = reset_by(u, emitted, None if reset == "zero" else threshold)
            out += emitted
        return out

    neuron = LIF(
        0.6, decay, ASGL(width, 0.0, learn_width=False), reset=reset, learn_threshold=True
    ).double()
    neuron.log_threshold.data.fill_(math.log(0.6))
    out = neuron.train()(torch.tensor(current, dtype=torch.float64)[:, None]).sum()
    assert out.item() == pytest.approx(total(0.6), rel=1e-6)
    (found,) = torch.autograd.grad(out, neuron.log_threshold)
    slope = (total(0.6 + 1e-6) - total(0.6 - 1e-6)) / 2e-6
    assert found.item() == pytest.approx(slope * 0.6, rel=1e-6)  # d threshold / d its logarithm


def clip(x: float, width: float) -> float:
    return min(1.0, max(0.0, x / width + 0.5))


@pytest.mark.parametrize("shape", [(), (2, 1, 1), (2, 1, 2)], ids=["layer", "channel", "neuron"])
def test_a_learned_decay_gets_the_gradient_of_its_neurons(shape: tuple[int, ...]) -> None:
    threshold, width, steps = 0.5, 4.0, 4
    torch.manual_seed(0)
    current = torch.rand(steps, 3, 2, 1, 2, dtype=torch.float64)
    neuron = LIF(
        threshold, 0.5, ASGL(width, 0.0, learn_width=False), learn_decay=True, shape=shape
    ).double()
    assert neuron.decay.shape == shape
    assert neuron.decay.flatten().tolist() == pytest.approx([0.5] * neuron.decay.numel())
    decays = torch.linspace(0.2, 0.9, max(1, math.prod(shape)), dtype=torch.float64).reshape(shape)
    neuron.decay_logit.data.copy_(torch.log(decays / (1 - decays)))

    def total(index: tuple[int, ...], decay: float) -> float:
        """Of all timesteps of one neuron of one sample."""
        membrane, out = 0.0, 0.0
        for t in range(steps):
            u = decay * membrane + current[(t, *index)].item()
            emitted = clip(u - threshold, width)
            membrane = u * (1 - emitted)
            out += emitted
        return out

    out = neuron.train()(current)
    (found,) = torch.autograd.grad(out.sum(), neuron.decay_logit)
    everywhere = decays.expand(2, 1, 2)
    slopes = torch.zeros(2, 1, 2, dtype=torch.float64)
    for index in itertools.product(range(3), range(2), range(1), range(2)):
        decay = everywhere[index[1:]].item()
        assert out[(slice(None), *index)].sum().item() == pytest.approx(total(index, decay))
        step = 1e-6
        slopes[index[1:]] += (total(index, decay + step) - total(index, decay - step)) / (2 * step)
    expected = (slopes * everywhere * (1 - everywhere)).sum_to_size(shape)
    assert torch.allclose(found, expected, rtol=1e-6)


def eq_28(
    arriving: list[list[float]],
    weights: list[list[float]] | None,
    *,
    threshold: float,
    decay: float,
    current_decay: float,
    width: float | None,
    subtract: bool = False,
) -> list[list[float]]:
    """Discrete Eq. 28, c = beta c + W s_in + V s[t-1], into a LIF; width None: spikes."""
    number = len(arriving[0])
    current, membrane, emitted = [0.0] * number, [0.0] * number, [0.0] * number
    out = []
    for row in arriving:
        before = list(emitted)
        for n in range(number):
            fed = row[n]
            if weights is not None:
                fed += sum(weights[n][k] * before[k] for k in range(number))
            current[n] = current_decay * current[n] + fed  # a spike does not reset it
            u = decay * membrane[n] + current[n]
            x = u - threshold
            emitted[n] = (1.0 if x >= 0 else 0.0) if width is None else clip(x, width)
            membrane[n] = reset_by(u, emitted[n], threshold if subtract else None)
        out.append(list(emitted))
    return out


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_filtered_and_recurrent_layer_is_eq_28(
    training: bool, recurrent: bool, reset: str
) -> None:
    torch.manual_seed(3)
    steps, number = 60, 5
    neuron = LIF(
        0.5, 0.8, ASGL(2.0, 0.0), reset=reset, current_decay=0.6, recurrent=number * recurrent
    ).double()
    neuron.train(training)
    weights = neuron.recurrent.weight.tolist() if recurrent else None
    assert hasattr(neuron, "recurrent") is recurrent
    current = torch.randn(steps, 2, number, dtype=torch.float64) * 0.6
    found = neuron(current)
    for sample in range(2):
        expected = eq_28(
            current[:, sample].tolist(), weights, threshold=0.5, decay=0.8, current_decay=0.6,
            width=2.0 if training else None, subtract=reset == "subtract",
        )  # fmt: skip
        assert found[:, sample].tolist() == pytest.approx(np.array(expected), abs=1e-6)
    if not training:
        assert 0.1 < found.mean().item() < 0.9
        assert torch.equal(found, found.round())


def eq_27(
    arriving: list[float],
    *,
    threshold: float,
    decay: float,
    current_decay: float,
    spike: Callable[[float], float],
    as_printed: bool = False,
) -> list[float]:
    """Eq. 27 with its three states; ``as_printed`` e takes m[t-1] in place of e[t-1]."""
    scale = 1 / max(decay**n - current_decay**n for n in range(200))
    m = p = e = emitted = 0.0
    out = []
    for value in arriving:
        e = decay * (m if as_printed else e) + threshold * emitted
        p = current_decay * p + scale * value
        m = decay * m + scale * value
        emitted = spike(m - p - e - threshold)
        out.append(emitted)
    return out


def step(x: float) -> float:
    return 1.0 if x >= 0 else 0.0


TAUS = [(20, 5), (10, 1), (3, 2), (50, 49)]


@pytest.mark.parametrize("taus", TAUS)
@pytest.mark.parametrize("training", [False, True])
def test_the_three_state_neuron_is_the_mended_eq_27(training: bool, taus: tuple[int, int]) -> None:
    """Over hundreds of steps; in training with smooth outputs, whose resets are smooth too."""
    decay, current_decay = (math.exp(-1 / tau) for tau in taus)
    threshold, width, steps = 0.7, 3.0, 400
    neuron = CLIF(threshold, decay, current_decay, ASGL(width, 0.0)).double().train(training)
    torch.manual_seed(1)
    current = torch.randn(steps, 3, dtype=torch.float64) * 0.3 + 0.1
    found = neuron(current)
    fired = 0.0
    for sample in range(3):
        expected = eq_27(
            current[:, sample].tolist(), threshold=threshold, decay=decay,
            current_decay=current_decay, spike=(lambda x: clip(x, width)) if training else step,
        )  # fmt: skip
        assert found[:, sample].tolist() == pytest.approx(expected, abs=1e-6 * training)
        fired += sum(expected)
    assert 10 < fired < 1100


def test_eq_27_as_printed_never_fires_for_positive_drive() -> None:
    torch.manual_seed(2)
    drive = (torch.rand(500, dtype=torch.float64) * 3).tolist()
    options: dict[str, Any] = {"threshold": 0.5, "decay": 0.9, "current_decay": 0.6, "spike": step}
    assert sum(eq_27(drive, as_printed=True, **options)) == 0
    mended = eq_27(drive, **options)
    assert sum(mended) > 50
    neuron = CLIF(0.5, 0.9, 0.6, ASGL()).double().eval()
    assert neuron(torch.tensor(drive, dtype=torch.float64)[:, None]).flatten().tolist() == mended


@pytest.mark.parametrize("taus", TAUS)
def test_a_single_input_peaks_at_its_weight_one_step_late(taus: tuple[int, int]) -> None:
    """Found by the thresholds that one spike of weight 1 reaches, and when."""
    decay, current_decay = (math.exp(-1 / tau) for tau in taus)
    current = torch.zeros(200, 1, dtype=torch.float64)
    current[0] = 1.0
    below, above = (
        CLIF(threshold, decay, current_decay, ASGL()).double().eval()(current).sum().item()
        for threshold in (1 - 1e-9, 1 + 1e-9)
    )
    assert (below >= 1, above) == (True, 0)
    low = CLIF(1e-3, decay, current_decay, ASGL()).double().eval()(current)
    assert low[:2].flatten().tolist() == [0, 1]
    heights = [decay**n - current_decay**n for n in range(200)]
    assert postsynaptic_scale(decay, current_decay) == pytest.approx(1 / max(heights), rel=1e-12)


def test_the_scale_of_the_facts() -> None:
    """1 / max_n(bm^n - bv^n) is 2.1172 at tau 20 and 5."""
    assert round(postsynaptic_scale(math.exp(-1 / 20), math.exp(-1 / 5)), 4) == 2.1172


SPIKES: dict[str, Callable[[], SpikeFunction]] = {
    "asgl": lambda: ASGL(2.5, 0.6),
    "asgl shared": lambda: ASGL(2.5, 0.6, shared=True),
    "analog": lambda: ASGL(2.5, 0.0, smooth="sigmoid"),
    "surrogate": lambda: SurrogateGradient(1.0, learn_width=True),
    "dspike": lambda: Dspike(2.0),
    "whetstone": lambda: Whetstone(1.5),
}
NEURONS: dict[str, Callable[[SpikeFunction], Neuron]] = {
    "lif": lambda spike: LIF(0.5, 0.7, spike),
    "soft, learned": lambda spike: LIF(
        0.5, 0.7, spike, reset="subtract", learn_decay=True, learn_threshold=True, shape=(6,)
    ),
    "filtered": lambda spike: LIF(0.5, 0.7, spike, current_decay=0.4),
    "recurrent": lambda spike: LIF(0.5, 0.7, spike, current_decay=0.4, recurrent=6),
    "clif": lambda spike: CLIF(0.5, 0.9, 0.6, spike),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("function", "kind"),
    [*(("asgl", kind) for kind in NEURONS), ("asgl shared", "lif"), ("asgl shared", "clif")],
)
def test_step_by_step_is_the_whole_sequence_to_the_bit(
    function: str, kind: str, training: bool
) -> None:
    torch.manual_seed(0)
    neuron = NEURONS[kind](SPIKES[function]()).train(training)
    current = torch.randn(7, 4, 6) + 0.3
    torch.manual_seed(5)
    whole = neuron(current)
    torch.manual_seed(5)
    state, steps = None, []
    for row in current:
        spikes, state = neuron.step(row, state)
        steps.append(spikes)
    assert torch.equal(torch.stack(steps), whole)
    assert whole.dtype == torch.float32
    assert whole.std() > 0
    if training:
        torch.manual_seed(6)
        assert not torch.equal(neuron(current), whole)  # another seed, another mask


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", NEURONS)
def test_a_constant_current_is_its_copies_to_the_bit(kind: str, training: bool) -> None:
    torch.manual_seed(0)
    neuron = NEURONS[kind](SPIKES["asgl"]()).train(training)
    once = torch.randn(1, 4, 6) + 0.3
    torch.manual_seed(5)
    found = neuron(once, 6)
    torch.manual_seed(5)
    assert torch.equal(found, neuron(once.repeat(6, 1, 1)))


@pytest.mark.parametrize("shared", [False, True])
def test_a_mask_is_fresh_for_every_step_unless_shared(shared: bool) -> None:
    neuron = LIF(0.5, 0.0, ASGL(10.0, 0.5, shared=shared)).train()
    out = neuron(torch.ones(1, 1, 2000), 3) == 1
    agreement = (out[0] == out[1]).double().mean().item()
    assert agreement == 1 if shared else 0.45 < agreement < 0.55
    again = neuron(torch.ones(1, 1, 2000), 3) == 1
    assert 0.45 < (out[0] == again[0]).double().mean().item() < 0.55


@pytest.mark.parametrize(
    ("kind", "function"),
    [*(("lif", function) for function in SPIKES), ("clif", "asgl"), ("clif", "dspike")],
)
def test_evaluation_is_heaviside_whatever_the_function(kind: str, function: str) -> None:
    """All spike functions make the same spikes in evaluation, and none a gradient."""
    torch.manual_seed(0)
    current = (torch.randn(8, 3, 6) + 0.3).requires_grad_()
    out = NEURONS[kind](SPIKES[function]()).eval()(current)
    assert torch.equal(out, NEURONS[kind](SurrogateGradient()).eval()(current))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert not out.requires_grad
    trained = NEURONS[kind](SPIKES[function]()).train()(current)
    assert trained.requires_grad
    with torch.no_grad():
        assert not NEURONS[kind](SPIKES[function]()).train()(current).requires_grad


def test_evaluation_of_lsg_is_heaviside() -> None:
    current = (torch.randn(8, 3, 6) + 0.3).requires_grad_()
    out = LIF(0.5, 0.2, LSG(), learn_decay=True).eval()(current)
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert not out.requires_grad


def test_lsg_is_a_rectangle_of_its_width_and_detached() -> None:
    """Gradients, the decay's too, are those of a fixed width 2 theta sqrt(1 + decay^2)."""
    torch.manual_seed(0)
    current = torch.randn(5, 40, dtype=torch.float64) + 0.3
    found = []
    for spike in (LSG(), SurrogateGradient(2 * 0.5 * math.sqrt(1 + 0.2**2))):
        neuron = LIF(0.5, 0.2, spike, learn_decay=True).double().train()
        neuron.decay_logit.data.fill_(math.log(0.2 / 0.8))
        if isinstance(spike, SurrogateGradient):
            spike.log_width.data.fill_(math.log(2 * 0.5 * math.sqrt(1 + 0.2**2)))
        arriving = current.clone().requires_grad_()
        out = neuron(arriving)
        weighted = (out * torch.linspace(0, 1, 40, dtype=torch.float64)).sum()
        found.append((out, *torch.autograd.grad(weighted, [arriving, neuron.decay_logit])))
        assert neuron.spike.width.item() == pytest.approx(1.0198, abs=1e-4)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)
    # and it follows the decay
    neuron = LIF(0.5, 0.2, LSG(), learn_decay=True).train()
    neuron.decay_logit.data.fill_(math.log(0.9 / 0.1))
    neuron(torch.zeros(1, 1))
    assert neuron.spike.width.item() == pytest.approx(math.sqrt(1 + 0.9**2))


@pytest.mark.parametrize("smooth", ["clip", "sigmoid", "dspike"])
def test_certain_spikes_are_a_surrogate_gradient(smooth: str) -> None:
    """ASGL with probability 1: spikes and gradients, by the width too, are the surrogate's."""
    torch.manual_seed(0)
    current = torch.randn(4, 30, dtype=torch.float64) + 0.3
    found = []
    for spike in (
        ASGL(2.0, 1.0, smooth=smooth),
        SurrogateGradient(2.0, learn_width=True, smooth=smooth),
    ):
        neuron = LIF(0.5, 0.7, spike).double().train()
        arriving = current.clone().requires_grad_()
        out = neuron(arriving)
        weights = torch.linspace(-1, 1, 30, dtype=torch.float64)
        gradients = torch.autograd.grad((out * weights).sum(), [arriving, spike.log_width])
        found.append((out, *gradients))
        assert set(out.unique().tolist()) == {0.0, 1.0}
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["lif", "clif", "recurrent"])
def test_half_precision_currents_are_computed_in_single(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    neuron = NEURONS[kind](SurrogateGradient())
    current = (torch.randn(9, 3, 6) + 0.3).to(dtype)
    for training in (False, True):
        neuron.train(training)
        out = neuron(current)
        assert out.dtype == torch.float32
        assert torch.equal(out, neuron(current.float()))
        spikes, state = neuron.step(current[0])
        assert torch.equal(spikes, out[0])
        assert state.state.membrane.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"reset": "none"}, "reset"),
        ({"current_decay": 1.0}, "current_decay"),
        ({"current_decay": -0.1}, "current_decay"),
        ({"learn_decay": True, "decay": 0.0}, "decay of 0"),
        ({"threshold": math.inf}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"decay": math.nan}, "decay"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LIF(**{"threshold": 0.5, "decay": 0.5, "spike": ASGL(), **options})


@pytest.mark.parametrize(
    ("threshold", "decay", "current_decay"),
    [(0.0, 0.9, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0.9), (0.5, 1.0, 0.5), (0.5, 0.9, -0.1)],
)
def test_impossible_three_state_neurons_are_refused(
    threshold: float, decay: float, current_decay: float
) -> None:
    with pytest.raises(ValueError, match="threshold"):
        CLIF(threshold, decay, current_decay, ASGL())


@pytest.mark.parametrize("kind", ["lif", "clif"])
@pytest.mark.parametrize("timesteps", [0, 2, 5])
def test_currents_that_do_not_fit_the_timesteps_are_refused(kind: str, timesteps: int) -> None:
    neuron = NEURONS[kind](ASGL())
    with pytest.raises((ValueError, RuntimeError), match=str(timesteps)):
        neuron(torch.zeros(3, 2, 6), timesteps)


def test_lsg_needs_a_decay_that_is_learned() -> None:
    with pytest.raises(ValueError, match="LSG"):
        CLIF(0.5, 0.9, 0.5, LSG())
