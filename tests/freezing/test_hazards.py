"""Modules that invite a wrong graph: each is frozen right, or refused with path and mend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snn_deploy.errors import Exit, SnnDeployError
from tests.freezing.modules import (
    STEPS,
    VECTOR,
    Written,
    frozen,
    in_sequence,
    lif,
    proof_of,
    run_in,
)

Run = Callable[[Any, Tensor], Tensor]


def parts() -> dict[str, nn.Module]:
    return {
        "fc1": nn.Linear(6, 8), "l1": lif(), "fc2": nn.Linear(8, 8), "l2": lif(),
        "out": nn.Linear(8, 3),
    }  # fmt: skip


def two_layers(between: Callable[[Any, Tensor, Tensor], Tensor]) -> Run:
    """A loop over time; ``between`` makes the current of the second layer of spikes and current."""

    def run(self: Any, x: Tensor) -> Tensor:
        a = b = None
        total: Any = 0
        for t in range(x.shape[1]):
            current = self.fc1(x[:, t])
            z, a = self.l1.step(current, a)
            y, b = self.l2.step(between(self, z, current), b)
            total = total + self.out(y)
        return total

    return run


# ---- right ----


def aliased_sum(self: Any, x: Tensor) -> Tensor:
    """``x += y`` through another name of the same tensor."""
    a = b = None
    total = torch.zeros(len(x), 3)
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        current = self.fc2(z)
        same = current
        current += z
        y, b = self.l2.step(same, b)
        total += self.out(y)
    return total


def written_in_pieces(self: Any, x: Tensor) -> Tensor:
    """A tensor of zeros that is filled timestep by timestep."""
    spikes = torch.zeros(len(x), x.shape[1], 8)
    a = None
    for t in range(x.shape[1]):
        spikes[:, t], a = self.l1.step(self.fc1(x[:, t]), a)
    return self.out(self.l2(self.fc2(in_sequence(spikes)))).sum(0)


def one_late(self: Any, x: Tensor) -> Tensor:
    """The second layer sees spikes of the timestep before, at first zeros."""
    a = b = None
    before, total = torch.zeros(len(x), 8), 0
    for t in range(x.shape[1]):
        y, b = self.l2.step(self.fc2(before), b)
        before, a = self.l1.step(self.fc1(x[:, t]), a)
        total = total + self.out(y)
    return total


def shared_layers(self: Any, x: Tensor) -> Tensor:
    """The same weights and the same neurons at two places, with states of their own."""
    a = b = None
    total = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        y, b = self.l1.step(self.fc2(z) + self.fc2(z) * 0.5, b)
        total = total + self.out(y)
    return total


def computed_weights(self: Any, x: Tensor) -> Tensor:
    """Weights made anew at every timestep, of equal values."""

    def between(self: Any, z: Tensor, current: Tensor) -> Tensor:
        return nn.functional.linear(z, self.fc2.weight * 0.5, self.fc2.bias)

    return two_layers(between)(self, x)


def unrolled(self: Any, x: Tensor) -> Tensor:
    """Spikes kept in a list and read again after the loop."""
    a = None
    kept = []
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        kept.append(z)
    return self.out(self.l2(self.fc2(torch.stack(kept)))).mean(0)


def in_inference_mode(self: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return two_layers(lambda self, z, c: self.fc2(z) + z)(self, x)


def permuted(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z.flip(1)[:, [1, 0, *range(2, 8)]])


def halved(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return nn.functional.linear(z[:, :4], self.fc2.weight[:, :4])


def sees_two_timesteps(self: Any, x: Tensor) -> Tensor:
    """The second layer sees the present spikes and those of the timestep before."""
    a = b = None
    before: Any = torch.zeros(len(x), 8)
    total: Any = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        y, b = self.l2.step(self.fc2(z) - nn.functional.linear(before, self.fc2.weight * 0.5), b)
        before = z
        total = total + self.out(y)
    return total


RIGHT: dict[str, Run] = {
    "a sum through an alias": aliased_sum,
    "filled timestep by timestep": written_in_pieces,
    "one timestep late": one_late,
    "inference mode inside": in_inference_mode,
    "two timesteps at once": sees_two_timesteps,
    "shared layers and neurons": shared_layers,
    "weights computed in forward": computed_weights,
    "spikes read after the loop": unrolled,
    "a scaled skip": two_layers(lambda self, z, current: self.fc2(z) - z * 0.25),
    "spikes of two layers summed (SEW)": two_layers(lambda self, z, c: self.fc2(z + z)),
    "a cast that changes nothing": two_layers(lambda self, z, c: self.fc2(z.to(torch.float32))),
    "a detached copy": two_layers(lambda self, z, c: self.fc2(z.detach().clone())),
    "a permutation of neurons": two_layers(permuted),
    "half of the neurons": two_layers(halved),
    "a matrix product": two_layers(lambda self, z, c: z @ self.fc2.weight.T + self.fc2.bias),
    "addmm": two_layers(lambda self, z, c: torch.addmm(self.fc2.bias, z, self.fc2.weight.T)),
    "a clone written in place": two_layers(lambda self, z, c: self.fc2(z.clone().mul_(0.5))),
    "a difference with alpha": two_layers(lambda self, z, c: torch.sub(self.fc2(z), z, alpha=0.25)),
    "a reversed difference with alpha": two_layers(
        lambda self, z, c: torch.rsub(z, self.fc2(z), alpha=0.25)
    ),
    "a reversed difference": two_layers(lambda self, z, c: 0.25 - self.fc2(z)),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_it_is_frozen_right(name: str) -> None:
    model = run_in(Written(RIGHT[name], **parts()), VECTOR)
    proof = proof_of(model, VECTOR)
    assert proof.holds
    assert frozen(model, VECTOR).timesteps == STEPS


# ---- refused ----


def view_written(self: Any, z: Tensor, current: Tensor) -> Tensor:
    fed = self.fc2(z)
    rows = fed.view(-1, 2, 4)
    rows *= 0.5
    return fed  # halved as well


def base_written(self: Any, z: Tensor, current: Tensor) -> Tensor:
    fed = self.fc2(z)
    rows = fed.view(-1, 2, 4)
    fed += 0.25
    return rows.flatten(1)


def plain_base_written(self: Any, z: Tensor, current: Tensor) -> Tensor:
    zeros = torch.zeros(len(z), 16)
    half = zeros[:, :8]
    half += self.fc2(z)
    return zeros[:, :8]


def weights_change(self: Any, z: Tensor, current: Tensor) -> Tensor:
    fed = self.fc2(z)
    self.fc2.weight.data.mul_(0.9)
    return fed


def weights_scaled_by_time(self: Any, x: Tensor) -> Tensor:
    a = b = None
    total = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        y, b = self.l2.step(nn.functional.linear(z, self.fc2.weight * (1 + t)), b)
        total = total + self.out(y)
    return total


def threshold_moves(self: Any, z: Tensor, current: Tensor) -> Tensor:
    self.l1.fixed_threshold *= 1.5
    return self.fc2(z)


def state_edited(self: Any, x: Tensor) -> Tensor:
    a = b = None
    total = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        y, b = self.l2.step(self.fc2(z), b)
        b = b._replace(state=b.state._replace(membrane=b.state.membrane * 0.5))
        total = total + self.out(y)
    return total


def states_swapped(self: Any, x: Tensor) -> Tensor:
    a = b = None
    total = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        y, b = self.l2.step(self.fc2(z), b)
        a, b = b, a
        total = total + self.out(y)
    return total


def state_rewound(self: Any, x: Tensor) -> Tensor:
    a = None
    total = 0
    for t in range(x.shape[1]):
        z, after = self.l1.step(self.fc1(x[:, t]), a)
        a = after if t != 1 else a
        total = total + self.out(self.l2.step(self.fc2(z))[0])
    return total


def state_written(self: Any, x: Tensor) -> Tensor:
    a = None
    total = 0
    for t in range(x.shape[1]):
        z, a = self.rec.step(self.fc1(x[:, t]), a)
        z *= 2  # the neurons' own memory: what they send to themselves
        total = total + self.out(z)
    return total


def counts_samples(self: Any, x: Tensor) -> Tensor:
    z = self.l1(self.fc1(in_sequence(x)))
    return self.out(z).sum(0) / len(x)


def keeps_state(self: Any, x: Tensor) -> Tensor:
    z = self.l1(self.fc1(in_sequence(x)))
    out = self.out(z).sum(0) + getattr(self, "before", 0.0)
    self.before = 0.5 if not isinstance(getattr(self, "before", None), float) else self.before + 1
    return out


def keeps_spikes(self: Any, x: Tensor) -> Tensor:
    a = None
    total = 0
    before = getattr(self, "before", torch.zeros(len(x), 8))
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]) + before, a)
        before = z
        total = total + self.out(z)
    self.before = before
    return total


def writes_buffer(self: Any, x: Tensor) -> Tensor:
    self.total.zero_()
    self.total.add_(x.shape[1])
    return self.out(self.l1(self.fc1(in_sequence(x)))).sum(0) / self.total


def buffer_takes_spikes(self: Any, x: Tensor) -> Tensor:
    z = self.l1(self.fc1(in_sequence(x)))
    self.total.copy_(z.sum(0)[0, 0])
    return self.out(z).sum(0) + self.total


def time_dependent(self: Any, x: Tensor) -> Tensor:
    a = None
    total = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]) * (1.0 + t), a)
        total = total + self.out(z)
    return total


def every_other(self: Any, x: Tensor) -> Tensor:
    a = b = None
    total: Any = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.fc1(x[:, t]), a)
        if t % 2:
            y, b = self.l2.step(self.fc2(z), b)
            total = total + self.out(y)
    return total


def bn_per_step(self: Any, x: Tensor) -> Tensor:
    a = None
    total: Any = 0
    for t in range(x.shape[1]):
        z, a = self.l1.step(self.norms[t](self.fc1(x[:, t])), a)
        total = total + self.out(z)
    return total


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x >= 0.5).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def hand_written(self: Any, x: Tensor) -> Tensor:
    u: Any = 0.0
    total: Any = 0
    for t in range(x.shape[1]):
        u = 0.5 * u + self.fc1(x[:, t])
        z = Step.apply(u)
        u = u * (1 - z)
        total = total + self.out(z)
    return total


def looks(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z) if z[0, 0] > 1 else current


def inverted(self: Any, x: Tensor) -> Tensor:
    return -self.l1(self.fc1(in_sequence(x))).sum(0)


def weighed_in_time(self: Any, x: Tensor) -> Tensor:
    out = self.out(self.l1(self.fc1(in_sequence(x))))
    return out[0] + 2 * out[1:].sum(0)


def backwards(self: Any, x: Tensor) -> Tensor:
    z = self.l1(self.fc1(in_sequence(x)))
    return self.out(self.l2(self.fc2(z.flip(0)))).sum(0)


def noise(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z) + 0.01 * torch.randn(8)


def noise_like(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z) + 0.01 * torch.rand_like(z)


def numpy_noise(self: Any, z: Tensor, current: Tensor) -> Tensor:
    import random

    return self.fc2(z) * (1 + random.random())


def between_samples(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z.roll(1, 0))


def batch_mean(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z - z.mean(0))


def batch_reshaped(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z.reshape(8, -1).T)


def integers(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(current.to(torch.int32).to(torch.float32))


def joined_ones(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(torch.cat([z[:, :4], torch.ones(len(z), 4, dtype=torch.int64)], 1))


def smooth(act: Callable[[Tensor], Tensor]) -> Run:
    return two_layers(lambda self, z, current: act(self.fc2(z)))


def bfloat(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z).to(torch.bfloat16).float()


def autocast(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.out(self.l1(self.fc1(in_sequence(x)).float())).float().sum(0)


def scripted(self: Any, z: Tensor, current: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return self.fc2(z) + torch.jit.script(_half)(current)


def numpy_side(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(torch.from_numpy(z.numpy() * 2))


def out_given(self: Any, z: Tensor, current: Tensor) -> Tensor:
    made = torch.empty_like(current)
    torch.add(current, z, out=made)
    return made


def gate(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z) * z


def currents_joined(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return torch.cat([self.fc2(z)[:, :4], current[:, 4:]], 1)


def reads_bits(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(z.view(torch.int64).view(torch.float64))


def drops(self: Any, z: Tensor, current: Tensor) -> Tensor:
    return self.fc2(nn.functional.dropout(z, 0.5))


REFUSED: dict[str, tuple[Run, str]] = {
    "a view is written": (two_layers(view_written), "shares its memory"),
    "what views see is written": (two_layers(base_written), "shares its memory"),
    "a view of zeros is written": (two_layers(plain_base_written), "shares its memory"),
    "weights change in forward": (two_layers(weights_change), "own parameters"),
    "weights depend on the timestep": (weights_scaled_by_time, "otherwise at timestep"),
    "a threshold moves": (two_layers(threshold_moves), "change over time"),
    "a state is edited": (state_edited, "neither its own"),
    "states are swapped": (states_swapped, "state of other neurons"),
    "a state is used twice": (state_rewound, "used twice"),
    "spikes that neurons keep are written": (state_written, "writes in place into spikes"),
    "divided by the number of samples": (counts_samples, "does not do what"),
    "a number that outlasts a call": (keeps_state, "again with the same input"),
    "spikes that outlast a call": (keeps_spikes, "second batch"),
    "a buffer is written": (writes_buffer, "own parameters or buffers"),
    "a buffer takes spikes": (buffer_takes_spikes, "own parameters or buffers"),
    "a factor that grows with time": (time_dependent, "otherwise at timestep"),
    "neurons that rest every other step": (every_other, "run for 2 timesteps"),
    "one batch normalisation per timestep": (bn_per_step, "otherwise at timestep"),
    "neurons written by hand": (hand_written, "compares currents"),
    "control flow by data": (two_layers(looks), "depends on its data|compares"),
    "the least active neuron wins": (inverted, "fire least"),
    "timesteps weighed differently": (weighed_in_time, "weighs timesteps differently"),
    "time runs backwards": (backwards, "otherwise at timestep"),
    "noise": (two_layers(noise), "random numbers"),
    "noise of the same shape": (two_layers(noise_like), "random numbers"),
    "noise from elsewhere": (two_layers(numpy_noise), "otherwise at timestep"),
    "samples mixed": (two_layers(between_samples), "samples of a batch"),
    "a mean over samples": (two_layers(batch_mean), "samples of a batch"),
    "samples folded into features": (two_layers(batch_reshaped), "fails on|samples of a batch"),
    "rounded to integers": (two_layers(integers), "another type"),
    "joined with ones": (two_layers(joined_ones), "constant that is not zero"),
    "relu": (smooth(torch.relu), "smooth function"),
    "sigmoid": (smooth(torch.sigmoid), "smooth function"),
    "clamp": (smooth(lambda x: x.clamp(0, 1)), "smooth function"),
    "layer norm": (smooth(lambda x: nn.functional.layer_norm(x, (8,))), "normalises by its own"),
    "sixteen bits": (two_layers(bfloat), "another type"),
    "autocast": (autocast, "does not do what"),
    "code that torch does not see": (two_layers(scripted), "differs between samples|does not do"),
    "by way of numpy": (two_layers(numpy_side), "depends on its data"),
    "written with out=": (two_layers(out_given), "out="),
    "spikes gate currents": (two_layers(gate), "multiplies spikes or currents"),
    "currents of two layers joined": (two_layers(currents_joined), "rearranged, or joined"),
    "bits read as another type": (two_layers(reads_bits), "bits of numbers"),
    "dropout in evaluation": (two_layers(drops), "random numbers"),
    "einsum": (two_layers(lambda s, z, c: torch.einsum("bi,oi->bo", z, s.fc2.weight)), "einsum"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    run, text = REFUSED[name]
    model = Written(
        run, **parts(), rec=lif(recurrent=8),
        norms=nn.ModuleList(nn.BatchNorm1d(8) for _ in range(STEPS)),
    )  # fmt: skip
    model.register_buffer("total", torch.zeros(()))
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.6)
    if name == "one batch normalisation per timestep":
        run_in(model, VECTOR)
    with pytest.raises(SnnDeployError, match=text) as caught:
        frozen(model.eval(), VECTOR)
    error = caught.value
    assert error.code in ("SD205", "SD406")
    assert error.exit in (Exit.UNSUPPORTED, Exit.INTEGRITY)
    assert error.fix


def _half(x: Tensor) -> Tensor:
    return x * 0.5


def test_a_relay_repeats_spikes_that_are_read_in_two_ways() -> None:
    model = run_in(Written(sees_two_timesteps, **parts()), VECTOR)
    graph = frozen(model, VECTOR)
    ways = {p.name: p.delay for p in graph.projections if p.source in ("l1", "l1_relay")}
    assert ways == {"l1->l2": 0, "l1->l1_relay": 0, "l1_relay->l2": 1}
