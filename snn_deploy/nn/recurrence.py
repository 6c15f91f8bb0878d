"""The recurrence over time that all neurons here share, plain and fused.

Per timestep, for current c, decays alpha (synapse) and gamma (membrane), threshold theta::

    i = alpha * i + c                 # with alpha = 0, i is the current itself
    u = gamma * v + i
    s = spike(u - theta)              # Heaviside in evaluation; in training as the function says
    v = u * (1 - s)                   # hard reset, or
    v = u - amount * s                # reset by subtraction

and, with recurrent weights V, ``c[t] += V s[t-1]``. :func:`plain` writes this in differentiable
torch operations and runs anywhere; :func:`run` does the same in compiled passes where tensors are
on the CPU: all timesteps of a block of neurons while their state is in the cache, the noise made on
the way, and a backward pass derived by hand. Tests hold the two together, gradients included.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.nn import kernels
from snn_deploy.nn.noise import below, keys, noise_mask
from snn_deploy.nn.smooth import SMOOTH_STEPS

# Fewer values than this are not worth waking threads for.
_VALUES_PER_THREAD = 1 << 17

# Between [T, B, C, H, W] and [T, B, H, W, C].
_CHANNELS_LAST, _CHANNELS_FIRST = (0, 1, 3, 4, 2), (0, 1, 4, 2, 3)


class State(NamedTuple):
    """Between two timesteps: membrane after the reset, synaptic current, what was emitted.

    Each [B, ...]. ``current`` only changes with a synaptic filter; ``spikes`` only matters with
    recurrent weights.
    """

    membrane: Tensor
    current: Tensor
    spikes: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Parameters:
    """Parameters of the recurrence; tensors are () or broadcastable to a neuron shape.

    ``amount`` None is the hard reset. ``alpha`` None: no synaptic filter. ``recurrent`` [N, N].
    """

    theta: Tensor
    decay: Tensor
    width: Tensor
    alpha: Tensor | None = None
    amount: Tensor | None = None
    recurrent: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Emission:
    """What is emitted: the spike with ``probability``, else the smooth step ``smooth``.

    ``shared``: one mask for all timesteps. Gradients are always the smooth step's.
    """

    smooth: str
    probability: float
    shared: bool = False


def silence(current: Tensor) -> State:
    """The state before the first timestep, for currents [T, B, ...]."""
    return State(*(current.new_zeros(current.shape[1:]) for _ in range(3)))


def plain(
    c: Tensor,
    steps: int,
    parameters: Parameters,
    emission: Emission,
    seed: int,
    state: State,
    at: int = 0,
) -> tuple[Tensor, State]:
    """The recurrence in torch operations; see the module and :func:`run`."""
    membrane, current, spikes = state
    smooth_step = SMOOTH_STEPS[emission.smooth]
    out = []
    for t in range(steps):
        arriving = c[t if len(c) > 1 else 0]
        if parameters.recurrent is not None:
            with torch.autocast(c.device.type, enabled=False):  # as in the kernels
                arriving = arriving + spikes @ parameters.recurrent.T
        if parameters.alpha is not None:
            current = arriving = parameters.alpha * current + arriving
        u = parameters.decay * membrane + arriving
        x = u - parameters.theta
        smooth = smooth_step(x, parameters.width)
        step = 0 if emission.shared else at + t
        mask = noise_mask(seed, step, x.shape, emission.probability).to(x.device)
        # not smooth + (spike - smooth): that would leave rounding errors in the spikes
        emitted = torch.where(mask, (x >= 0).to(x.dtype), smooth.detach())
        spikes = emitted + (smooth - smooth.detach())
        membrane = _reset(u, spikes, parameters.amount)
        out.append(spikes)
    return torch.stack(out), State(membrane, current, spikes)


def _reset(u: Tensor, spikes: Tensor, amount: Tensor | None) -> Tensor:
    """The membrane after the reset."""
    return u * (1 - spikes) if amount is None else u - amount * spikes


def run(
    c: Tensor,
    steps: int,
    parameters: Parameters,
    emission: Emission,
    seed: int,
    state: State | None = None,
    at: int = 0,
) -> tuple[Tensor, State]:
    """Run the recurrence over ``steps`` timesteps.

    Parameters
    ----------
    c : current [T, B, ...], or [1, B, ...] where it is the same at all timesteps; float32 or 64.
    steps : T.
    parameters, emission : the rules.
    seed : of the noise.
    state : before the first of these timesteps; None: silence.
    at : number of the first of these timesteps, for the noise.

    Returns
    -------
    What is emitted [T, B, ...], and the state after the last timestep; in channels_last where the
    currents are. The noise's index of an element is its place in memory.

    Raises
    ------
    ValueError
        For a number of currents that is neither 1 nor ``steps``, or another dtype.
    """
    if steps < 1 or len(c) not in (1, steps):  # kernels look no further than this
        raise ValueError(f"{len(c)} currents for {steps} timesteps: give one, or one for each")
    if c.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"currents are float32 or float64, not {c.dtype}")
    state = silence(c) if state is None else state
    if c.dim() == 5 and not c.is_contiguous() and c.permute(_CHANNELS_LAST).is_contiguous():
        rows = tuple(axis - 1 for axis in _CHANNELS_LAST[1:])
        spikes, state = run(
            c.permute(_CHANNELS_LAST),
            steps,
            _channels_last(parameters, c.shape[2:]),
            emission,
            seed,
            State(*(x.permute(rows) for x in state)),
            at,
        )
        return spikes.permute(_CHANNELS_FIRST), State(*(x.permute(0, 3, 1, 2) for x in state))
    if c.device.type != "cpu":
        return plain(c, steps, parameters, emission, seed, state, at)
    theta, decay, width, alpha, amount, per_neuron = _aligned(parameters, c.shape[2:], c.dtype)
    rules = _Rules(
        steps=steps,
        emission=emission,
        seed=seed,
        at=at,
        soft=parameters.amount is not None,
        filtered=parameters.alpha is not None,
        per_neuron=per_neuron,
    )
    spikes, membrane, current = _Fused.apply(  # type: ignore[no-untyped-call]
        rules, c, *state, theta, decay, alpha, amount, width, parameters.recurrent
    )
    return spikes, State(membrane, current, spikes[-1])


def _channels_last(parameters: Parameters, shape: torch.Size) -> Parameters:
    """Parameters of neurons [C, H, W] for neurons [H, W, C]."""

    def moved(value: Tensor) -> Tensor:
        return value if value.numel() == 1 else value.expand(shape).permute(1, 2, 0)

    return replace(
        parameters,
        theta=moved(parameters.theta),
        decay=moved(parameters.decay),
        width=moved(parameters.width),
        alpha=None if parameters.alpha is None else moved(parameters.alpha),
        amount=None if parameters.amount is None else moved(parameters.amount),
    )


def _aligned(
    parameters: Parameters, shape: torch.Size, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, bool]:
    """All parameters as (), or all as vectors over the neurons [M]."""
    unused = parameters.theta.new_zeros(())
    given = [
        parameters.theta,
        parameters.decay,
        parameters.width,
        unused if parameters.alpha is None else parameters.alpha,
        unused if parameters.amount is None else parameters.amount,
    ]
    per_neuron = any(value.numel() > 1 for value in given)
    aligned = [
        (value.expand(shape).reshape(-1) if per_neuron else value.reshape(())).to(dtype)
        for value in given
    ]
    theta, decay, width, alpha, amount = aligned
    return theta, decay, width, alpha, amount, per_neuron


@dataclass(frozen=True, slots=True)
class _Rules:
    steps: int
    emission: Emission
    seed: int
    at: int
    soft: bool
    filtered: bool
    per_neuron: bool


class _Fused(torch.autograd.Function):
    """The recurrence in compiled passes, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        rules: _Rules,
        c: Tensor,
        v0: Tensor,
        i0: Tensor,
        s0: Tensor,
        theta: Tensor,
        decay: Tensor,
        alpha: Tensor,
        amount: Tensor,
        width: Tensor,
        recurrent: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape, steps = c.shape[1:], rules.steps
        layout = _layout(rules, shape)
        noisy = rules.emission.probability < 1
        kernel = kernels.forward_kernel(
            _kind(rules) if noisy else 0, noisy, noisy and rules.emission.shared,
            rules.soft, rules.filtered,
        )  # fmt: skip
        u, s = c.new_empty((steps, *shape)), c.new_empty((steps, *shape))
        currents = u.new_empty((steps, *shape) if rules.filtered else 0)
        v, i = (x.clone(memory_format=torch.contiguous_format) for x in (v0, i0))
        first, second = keys(rules.seed)
        values = [_value(p) for p in (theta, decay, alpha, amount, width)]
        tail = (*values, np.uint32(below(rules.emission.probability)), np.uint32(first),
                np.uint32(second))  # fmt: skip
        flat_c = _sequence(c.contiguous(), layout)
        flat_u, flat_s = _sequence(u, layout), _sequence(s, layout)
        flat_currents = _sequence(currents, layout) if rules.filtered else flat_u[:0]
        flat_v, flat_i = _row(v, layout), _row(i, layout)

        if recurrent is None:
            _in_blocks(
                layout,
                u.numel(),
                lambda a, z: kernel(
                    a, z, steps, rules.at, flat_c, flat_v, flat_i, flat_u, flat_s, flat_currents,
                    *tail,
                ),
            )  # fmt: skip
        else:
            before = s0
            for t in range(steps):
                with torch.autocast("cpu", enabled=False):  # kernels take no bfloat16
                    fed = torch.addmm(c[t if len(c) > 1 else 0], before, recurrent.T)
                one = slice(t, t + 1)
                kernel(
                    0, _blocks(layout), 1, rules.at + t, _sequence(fed[None], layout), flat_v,
                    flat_i, flat_u[one], flat_s[one], flat_currents[one], *tail,
                )  # fmt: skip
                before = s[t]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            u, s, currents, v0, i0, s0, theta, decay, alpha, amount, width, recurrent
        )
        ctx.rules, ctx.layout, ctx.constant = rules, layout, len(c) == 1 and steps > 1
        return s, v, i

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        u, s, currents, v0, i0, s0, theta, decay, alpha, amount, width, recurrent = (
            ctx.saved_tensors
        )
        rules, layout, constant = ctx.rules, ctx.layout, ctx.constant
        gs, gv, gi = gradients
        steps, shape = rules.steps, u.shape[1:]
        gs = torch.zeros_like(u) if gs is None else gs.contiguous()
        # the kernels carry these from step to step
        gv, gi = (
            torch.zeros_like(v0, memory_format=torch.contiguous_format)
            if g is None
            else g.clone(memory_format=torch.contiguous_format)
            for g in (gv, gi)
        )
        needs = ctx.needs_input_grad  # in the order of forward's arguments
        by_rest, by_width = any(needs[5:9]), needs[9]
        kernel = kernels.backward_kernel(
            _kind(rules), rules.soft, rules.filtered, constant and recurrent is None,
            by_width, by_rest,
        )  # fmt: skip
        sums = np.zeros((5, theta.numel() if rules.per_neuron else _blocks(layout)))
        gc = u.new_empty((1 if constant and recurrent is None else steps, *shape))
        values = [_value(p) for p in (theta, decay, alpha, amount, width)]
        flat_gs, flat_u, flat_s, flat_gc = (_sequence(x, layout) for x in (gs, u, s, gc))
        flat_currents = _sequence(currents, layout) if rules.filtered else flat_u[:0]
        flat_gv, flat_gi = _row(gv, layout), _row(gi, layout)
        flat_v0, flat_i0 = _row(v0.contiguous(), layout), _row(i0.contiguous(), layout)
        tail = (rules.per_neuron, *values)
        g_recurrent, gs0 = None, None
        if recurrent is None:
            _in_blocks(
                layout,
                u.numel(),
                lambda a, z: kernel(
                    a, z, steps, flat_gs, flat_u, flat_s, flat_v0, flat_i0, flat_currents,
                    flat_gv, flat_gi, flat_gc, sums, *tail,
                ),
            )  # fmt: skip
        else:
            gs = gs.clone()
            flat_gs = _sequence(gs, layout)
            v, i = _states_before(rules, u, s, currents, v0, i0, amount)
            for t in range(steps - 1, -1, -1):
                one = slice(t, t + 1)
                kernel(
                    0, _blocks(layout), 1, flat_gs[one], flat_u[one], flat_s[one],
                    _row(v(t), layout), _row(i(t), layout), flat_currents[one], flat_gv,
                    flat_gi, flat_gc[one], sums, *tail,
                )  # fmt: skip
                if t > 0:
                    gs[t - 1].addmm_(gc[t], recurrent)
            before = torch.cat([s0[None], s[:-1]])
            with torch.autocast("cpu", enabled=False):
                gs0 = gc[0] @ recurrent if needs[4] else None
                g_recurrent = gc.flatten(0, 1).T @ before.flatten(0, 1)
            if constant:
                gc = gc.sum(0, keepdim=True)
        found: list[Tensor | None] = []
        for row, parameter in zip(sums, (theta, decay, alpha, amount, width), strict=True):
            total = torch.from_numpy(row if rules.per_neuron else row.sum(keepdims=True))
            found.append(total.reshape(parameter.shape).to(parameter.dtype))
        return (None, gc, gv, gi, gs0, *found, g_recurrent)


def _states_before(
    rules: _Rules, u: Tensor, s: Tensor, currents: Tensor, v0: Tensor, i0: Tensor, amount: Tensor
) -> tuple[Callable[[int], Tensor], Callable[[int], Tensor]]:
    """The state before timestep t, from what was kept of the forward pass."""

    def membrane(t: int) -> Tensor:
        if t == 0:
            return v0.contiguous()
        if rules.soft:
            return u[t - 1] - amount * s[t - 1]
        return u[t - 1] * (1 - s[t - 1])

    def current(t: int) -> Tensor:
        return currents[t - 1] if rules.filtered and t > 0 else i0.contiguous()

    return membrane, current


def _kind(rules: _Rules) -> int:
    return list(SMOOTH_STEPS).index(rules.emission.smooth)


def _layout(rules: _Rules, shape: torch.Size) -> tuple[int, int]:
    """Samples and neurons as the kernels see them; without vectors of parameters all are one."""
    return (shape[0], shape[1:].numel()) if rules.per_neuron else (1, shape.numel())


def _sequence(tensor: Tensor, layout: tuple[int, int]) -> NDArray[Any]:
    """A contiguous tensor [T, B, ...] as an array [T, *layout] over the same memory."""
    return tensor.detach().numpy().reshape(len(tensor), *layout)


def _row(tensor: Tensor, layout: tuple[int, int]) -> NDArray[Any]:
    """A contiguous tensor [B, ...] as an array of the layout over the same memory."""
    return tensor.detach().numpy().reshape(layout)


def _value(parameter: Tensor) -> Any:
    """A scalar of the parameter's type, or an array."""
    array = parameter.detach().contiguous().numpy()
    return array if array.ndim else array[()]


def _blocks(layout: tuple[int, int]) -> int:
    return -(-layout[1] // kernels.BLOCK)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _in_blocks(layout: tuple[int, int], values: int, work: Callable[[int, int], None]) -> None:
    """Run ``work(first, last)`` over all blocks, on as many threads as torch uses.

    Every block is computed alike whoever computes it: results do not depend on the threads.
    """
    blocks = _blocks(layout)
    threads = min(torch.get_num_threads(), blocks, 1 + values // _VALUES_PER_THREAD)
    if threads <= 1:
        work(0, blocks)
        return
    edges = [blocks * k // threads for k in range(threads + 1)]
    futures = [_pool(threads - 1).submit(work, edges[k], edges[k + 1]) for k in range(1, threads)]
    work(0, edges[1])
    for future in futures:
        future.result()
