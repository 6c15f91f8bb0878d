"""What users build of torch's layers and known neurons, and what the pieces become in a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze, prove_freeze
from snn_deploy.graph import LIF, InputSpec, Integrator
from snn_deploy.synapses import Dense, SumPool
from tests.freezing.modules import (
    EVENTS,
    IMAGE,
    STEPS,
    VECTOR,
    Written,
    clif,
    example,
    frozen,
    in_sequence,
    lif,
    over_time,
    proof_of,
    rates,
    recorded,
    run_in,
)

F = nn.functional


class Body(nn.Module):
    """Convolution, batch normalisation, neurons; then ``middle`` on their spikes; then a readout.

    ``sequence``: everything over [T, B, ...] at once; else a loop over time.
    """

    def __init__(self, middle: nn.Module, features: int, sequence: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif, self.middle, self.sequence = lif(), middle, sequence
        self.out = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.sequence:
            z = self.lif(over_time(nn.Sequential(self.conv, self.norm), in_sequence(x)))
            return self.out(self.middle(z, None)[0].flatten(2)).mean(0)
        state = after = None
        total: Any = 0
        for t in range(x.shape[1]):
            z, state = self.lif.step(self.norm(self.conv(x[:, t])), state)
            y, after = self.middle(z, after)
            total = total + self.out(y.flatten(1))
        return total / x.shape[1]


class Middle(nn.Module):
    """Synapses ``before`` neurons, which may be none; the same for [B, ...] and [T, B, ...]."""

    def __init__(
        self, before: nn.Module, neurons: nn.Module | None = None, skip: Any = None
    ) -> None:
        super().__init__()
        self.before, self.neurons, self.skip = before, neurons, skip

    def forward(self, z: Tensor, state: Any) -> tuple[Tensor, Any]:
        whole = z.ndim == 5
        apply = over_time if whole else (lambda module, x: module(x))
        current = apply(self.before, z)
        if self.skip is not None:
            current = current + apply(self.skip, z)
        if self.neurons is None:
            return current, None
        return (self.neurons(current), None) if whole else self.neurons.step(current, state)


def conv(channels: int = 4, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, channels, kernel, **{"padding": kernel // 2, **options})


def normed(channels: int = 4, kernel: int = 3, **options: Any) -> nn.Module:
    return nn.Sequential(conv(channels, kernel, bias=False, **options), nn.BatchNorm2d(channels))


class Cat(nn.Module):
    """Channels of two ways joined."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x)], dim=1)


def halved() -> nn.Module:
    """Spikes, and beside them the same spikes at half their height."""
    return Cat(nn.Identity(), Times(0.5))


class Times(nn.Module):
    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def seq(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


MIDDLES: dict[str, Callable[[], tuple[Middle, int]]] = {
    "nothing": lambda: (Middle(nn.Identity()), 144),
    "pool before a dense readout": lambda: (Middle(nn.AvgPool2d(2)), 36),
    "pool that leaves a rest": lambda: (Middle(seq(nn.AvgPool2d(4))), 4),
    "overlapping pool": lambda: (Middle(seq(nn.AvgPool2d(3, 1))), 64),
    "two pools": lambda: (Middle(seq(nn.AvgPool2d(2), nn.AvgPool2d(3))), 4),
    "global pool": lambda: (Middle(nn.AdaptiveAvgPool2d(1)), 4),
    "adaptive pool": lambda: (Middle(nn.AdaptiveAvgPool2d((3, 2))), 24),
    "pool before a convolution": lambda: (
        Middle(seq(nn.AvgPool2d(2), normed()), lif()), 36),
    "pool of currents": lambda: (Middle(seq(normed(), nn.AvgPool2d(2)), lif()), 36),
    "strided kernels, dilation": lambda: (
        Middle(conv(5, 3, stride=2, padding=2, dilation=2), lif()), 45),
    "groups": lambda: (Middle(conv(4, 3, groups=2), lif()), 144),
    "depthwise and a factor": lambda: (Middle(seq(Times(0.75), conv(4, 3, groups=4)), lif()), 144),
    "amplitudes": lambda: (Middle(seq(Times(0.5), conv()), lif(0.4)), 144),
    "amplitudes of channels": lambda: (
        Middle(seq(Times(torch.tensor([0.5, 1.0, 2.0, 0.25]).reshape(-1, 1, 1)), nn.AvgPool2d(2))),
        36),
    "identity shortcut": lambda: (Middle(normed(), lif(), nn.Identity()), 144),
    "pooled shortcut": lambda: (
        Middle(normed(5, 3, stride=2), lif(), seq(nn.AvgPool2d(2), normed(5, 1))), 45),
    "strided shortcut": lambda: (
        Middle(normed(5, 3, stride=2), lif(), normed(5, 1, stride=2)), 45),
    "largest of spikes": lambda: (Middle(seq(nn.MaxPool2d(2), conv()), lif()), 36),
    "largest, overlapping and padded": lambda: (
        Middle(seq(nn.MaxPool2d(3, 2, padding=1), conv()), lif()), 36),
    "largest of amplitudes": lambda: (Middle(seq(Times(2.0), nn.MaxPool2d(2)), None), 36),
    "joined channels": lambda: (
        Middle(seq(Cat(nn.Identity(), Times(0.5)), nn.Conv2d(8, 3, 3)), lif()), 48),
    "joined channels, pooled": lambda: (
        Middle(
            seq(halved(), nn.AvgPool2d(2), nn.Conv2d(8, 3, 1), nn.BatchNorm2d(3)),
            lif(0.2),
        ),
        27),
    "joined channels, largest": lambda: (
        Middle(
            seq(halved(), nn.MaxPool2d(2), nn.Conv2d(8, 3, 1), nn.BatchNorm2d(3)),
            lif(0.2),
        ),
        27),
    "batch normalisation of joined spikes": lambda: (
        Middle(seq(Cat(nn.Identity(), nn.Identity()), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)),
               lif()), 108),
    "dropout": lambda: (Middle(seq(nn.Dropout2d(0.5), conv(), nn.Dropout(0.3)), lif()), 144),
    "a C-LIF": lambda: (Middle(conv(bias=False), clif()), 144),
    "a filtered LIF": lambda: (Middle(conv(bias=False), lif(current_decay=0.6)), 144),
    "subtraction": lambda: (Middle(normed(), lif(reset="subtract")), 144),
    "learned decays": lambda: (
        Middle(normed(), lif(learn_decay=True, learn_threshold=True, shape=(4, 1, 1))), 144),
    "threshold emitted": lambda: (Middle(normed(), lif(0.3, emit="threshold")), 144),
}  # fmt: skip


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("name", MIDDLES)
def test_it_spikes_as_the_module(name: str, sequence: bool) -> None:
    middle, features = MIDDLES[name]()
    model = run_in(Body(middle, features, sequence), EVENTS)
    proof = proof_of(model, EVENTS)
    assert proof.holds
    assert proof.decisions_changed == 0
    graph = frozen(model, EVENTS)
    values = example(EVENTS, 12, STEPS, np.random.default_rng(7))
    assert min(rates(graph, recorded(EVENTS, values)).values()) > 0.01


def test_both_styles_make_the_same_graph() -> None:
    for name in ("pooled shortcut", "largest of spikes", "a C-LIF"):
        models = [Body(*MIDDLES[name](), sequence) for sequence in (True, False)]
        run_in(models[0], EVENTS)
        models[1].load_state_dict(models[0].state_dict())
        one, other = (frozen(model.eval(), EVENTS) for model in models)
        assert not any("relay" in p.name for p in one.populations)
        assert [p.name for p in one.projections] == [p.name for p in other.projections]
        for mine, theirs in zip(one.projections, other.projections, strict=True):
            assert (mine.pool, mine.delay) == (theirs.pool, theirs.delay)
            assert np.allclose(mine.synapses.weight, theirs.synapses.weight, rtol=1e-12, atol=0)


# ---- readouts ----

Read = Callable[[Any, Tensor], Tensor]

READOUTS: dict[str, tuple[Read, type, Any]] = {
    "mean current": (lambda s, z: s.out(z).mean(0), Integrator, "mean"),
    "summed current": (lambda s, z: s.out(z).sum(0), Integrator, "sum"),
    "last current": (lambda s, z: s.out(z)[-1], Integrator, "last"),
    "synapses on mean spikes": (lambda s, z: s.out(z.mean(0)), Integrator, "sum"),
    "synapses on spike counts": (lambda s, z: s.out(z.sum(0)), Integrator, "sum"),
    "spike counts": (lambda s, z: s.last(s.out(z)).sum(0), LIF, None),
    "firing rates": (lambda s, z: s.last(s.out(z)).mean(0), LIF, None),
    "spikes voting in groups": (
        lambda s, z: F.avg_pool1d(z.sum(0)[:, None], 4)[:, 0], Integrator, "sum"),
    "mean votes": (lambda s, z: F.avg_pool1d(z, 4).mean(0), Integrator, "mean"),
    "votes by sums over an axis": (lambda s, z: z.unflatten(2, (3, 4)).sum(3).mean(0),
                                   Integrator, "mean"),
    "currents voting in groups": (
        lambda s, z: F.avg_pool1d(s.wide(z).mean(0)[:, None], 4).squeeze(1), Integrator, "mean"),
    "more readout than one": (lambda s, z: (s.out(z) + s.other(z)).mean(0), Integrator, "mean"),
    "counts with a bias": (lambda s, z: s.last(s.out(z)).sum(0) + torch.tensor([0.0, 1.0, 2.0]),
                           Integrator, "sum"),
}  # fmt: skip


@pytest.mark.parametrize("name", READOUTS)
def test_every_readout_is_what_the_module_returns(name: str) -> None:
    read, kind, how = READOUTS[name]

    def run(self: Any, x: Tensor) -> Tensor:
        return read(self, self.lif(self.fc(in_sequence(x))))

    model = run_in(
        Written(
            run, fc=nn.Linear(6, 12), lif=lif(), out=nn.Linear(12, 3), last=lif(),
            other=nn.Linear(12, 3), wide=nn.Linear(12, 12),
        ),
        VECTOR,
    )  # fmt: skip
    graph = frozen(model, VECTOR)
    neurons = graph.population(graph.outputs[0]).neurons
    assert isinstance(neurons, kind)
    assert neurons.readout == how
    proof = proof_of(model, VECTOR, samples=40)
    assert proof.holds
    assert proof.decisions_changed == 0


# ---- inputs ----


def still(self: Any, x: Tensor) -> Tensor:
    """A still image, fed at every timestep of a loop."""
    state: Any = None
    total: Any = 0
    for _ in range(STEPS):
        z, state = self.lif.step(self.norm(self.conv((x - self.mean) / self.std)), state)
        total = total + z.flatten(1)
    return self.out(total) / STEPS


def still_net(padding: int = 0, mean: Any = 0.25, bias: bool = True) -> nn.Module:
    model = Written(still, conv=nn.Conv2d(2, 3, 3, padding=padding, bias=bias),
                    norm=nn.BatchNorm2d(3), lif=lif(),
                    out=nn.Linear(3 * (4 + 2 * padding) ** 2, 3))  # fmt: skip
    model.register_buffer("mean", torch.as_tensor(mean))
    model.register_buffer("std", torch.tensor([0.5, 0.25]).reshape(-1, 1, 1))
    return run_in(model, IMAGE)


def test_the_host_normalises_the_input() -> None:
    model = still_net(padding=1)
    (spec,) = frozen(model, IMAGE).inputs
    assert spec.mean.tolist() == [0.25]
    assert spec.std.tolist() == [0.5, 0.25]
    assert frozen(model, IMAGE).timesteps == STEPS
    assert proof_of(model, IMAGE).holds


@pytest.mark.parametrize(("padding", "mean"), [(0, 0.25), (1, 0.0)])
def test_normalisation_is_folded_where_that_is_exact(padding: int, mean: float) -> None:
    """w' = w / std, b' = b - sum w' mean: without zero padding, or with a mean of 0."""
    model = still_net(padding, mean)
    plain, folded = (freeze(model, IMAGE, fold_normalisation=fold) for fold in (False, True))
    (spec,) = folded.inputs
    assert (spec.mean.tolist(), spec.std.tolist()) == ([0.0], [1.0])
    weight = plain.incoming("lif")[0].synapses.weight
    by_std = weight / np.array([0.5, 0.25]).reshape(1, 2, 1, 1)
    assert np.allclose(folded.incoming("lif")[0].synapses.weight, by_std, rtol=1e-12)
    shift = by_std.sum((1, 2, 3)) * mean
    before = plain.population("lif").neurons.bias.ravel()
    assert np.allclose(folded.population("lif").neurons.bias.ravel(), before - shift, rtol=1e-12)
    values = example(IMAGE, 20, STEPS, np.random.default_rng(3))
    proof = prove_freeze(model, recorded(IMAGE, values), IMAGE, fold_normalisation=True)
    assert proof.holds


def test_normalisation_is_not_folded_at_padded_borders() -> None:
    with pytest.raises(SnnDeployError, match="zero padding") as caught:
        freeze(still_net(padding=1), IMAGE, fold_normalisation=True)
    assert caught.value.code == "SD205"
    assert caught.value.where == "input->lif"
    assert "padding=0" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (lambda s, x: s.fc(s.lif.step(s.conv(x - s.image))[0].flatten(1)), "mean or std per place"),
        (
            lambda s, x: s.fc(s.lif.step(s.conv(x / 0.5) + s.other(x - 0.25))[0].flatten(1)),
            "another normalisation",
        ),
        (
            lambda s, x: s.fc(s.lif.step(s.conv(x) + F.avg_pool2d(x, 3, 1))[0].flatten(1)),
            "",
        ),
        (lambda s, x: s.fc(s.lif.step(s.conv(1 - x))[0].flatten(1)), "subtracts the input"),
        (lambda s, x: s.fc(s.lif.step(s.conv(x * -1))[0].flatten(1)), "not above 0"),
    ],
)
def test_one_normalisation_per_channel(run: Any, text: str) -> None:
    """What the host can do to the input, and what it cannot."""
    model = Written(run, conv=nn.Conv2d(2, 2, 3), other=nn.Conv2d(2, 2, 3), lif=lif(),
                    fc=nn.Linear(32, 3))  # fmt: skip
    model.register_buffer("image", torch.linspace(0, 1, 72).reshape(2, 6, 6))
    model.eval()
    if not text:
        assert proof_of(model, IMAGE).holds
        return
    with pytest.raises(SnnDeployError, match=text) as caught:
        frozen(model, IMAGE)
    assert caught.value.code == "SD205"
    assert caught.value.fix


LINE = InputSpec(name="input", kind="spikes", shape=(3, 12))


def of_lines(self: Any, x: Tensor) -> Tensor:
    z = self.lif(over_time(self.conv, in_sequence(x)))
    y = self.second(over_time(self.after, over_time(nn.MaxPool1d(2), z)))
    return self.out(over_time(nn.AvgPool1d(2), y).flatten(2)).mean(0)


def test_lines_are_maps_of_one_row() -> None:
    model = run_in(
        Written(of_lines, conv=nn.Conv1d(3, 4, 3, padding=1), lif=lif(),
                after=nn.Conv1d(4, 4, 3, stride=1, padding=2, dilation=2), second=lif(),
                out=nn.Linear(12, 3)),
        LINE,
    )  # fmt: skip
    graph = frozen(model, LINE)
    assert graph.inputs[0].shape == (3, 1, 12)
    assert graph.population("lif").shape == (4, 1, 12)
    assert graph.incoming("output")[0].pool == SumPool((1, 2), (1, 2))
    assert proof_of(model, LINE).holds


GRADED = InputSpec(name="input", kind="graded", shape=(6,), low=-1.0, high=1.0)


def test_values_may_change_over_time() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.out(self.lif(self.fc((in_sequence(x) - 0.5) / 2))).sum(0)

    model = run_in(Written(run, fc=nn.Linear(6, 8), lif=lif(), out=nn.Linear(8, 3)), GRADED)
    assert proof_of(model, GRADED).holds


def test_time_may_come_first() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.out(self.lif(self.fc(x))).sum(0)

    model = Written(run, fc=nn.Linear(6, 8), lif=lif(), out=nn.Linear(8, 3)).eval()
    values = example(VECTOR, 9, 5, np.random.default_rng(0))
    options: Any = {"timesteps": 5, "time_first": True}
    assert freeze(model, VECTOR, **options).timesteps == 5
    assert prove_freeze(model, recorded(VECTOR, values), VECTOR, **options).holds


def test_spikes_are_pooled_before_the_first_synapses() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        z = over_time(nn.MaxPool2d(2), in_sequence(x))
        return self.out(self.lif(over_time(self.conv, z)).flatten(2)).sum(0)

    model = run_in(Written(run, conv=nn.Conv2d(2, 3, 2), lif=lif(), out=nn.Linear(12, 3)), EVENTS)
    assert [p.source for p in frozen(model, EVENTS).projections] == ["input", "maxpool1", "lif"]
    assert proof_of(model, EVENTS).holds


# ---- recurrence ----


def recurrent(self: Any, x: Tensor) -> Tensor:
    """Two layers, each fed by both of the timestep before."""
    a: Any = None
    b: Any = None
    one, two = torch.zeros(len(x), 8), torch.zeros(len(x), 8)
    total: Any = 0
    for t in range(x.shape[1]):
        first = self.fc1(x[:, t]) + self.rec1(one) + self.back(two)
        second = self.rec2(two)
        one, a = self.l1.step(first, a)
        two, b = self.l2.step(second + self.fc2(one), b)
        total = total + two
    return self.out(total) / x.shape[1]


def test_recurrence_written_as_a_loop() -> None:
    names = {n: nn.Linear(8, 8, bias=n != "back") for n in ("rec1", "rec2", "fc2", "back")}
    model = run_in(
        Written(recurrent, fc1=nn.Linear(6, 8), l1=lif(), l2=lif(), out=nn.Linear(8, 3), **names),
        VECTOR,
        6,
    )
    graph = frozen(model, VECTOR, 6)
    delays = {p.name: p.delay for p in graph.projections}
    assert delays == {
        "input->l1": 0, "l1->l1": 1, "l2->l1": 1, "l2->l2": 1, "l1->l2": 0, "l2->output": 0,
    }  # fmt: skip
    assert all(isinstance(p.synapses, Dense) for p in graph.projections)
    assert proof_of(model, VECTOR, 6).holds
