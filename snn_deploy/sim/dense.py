"""The dense engine: whole layers in torch, every synapse multiplied, exactly.

Sums are exact because they are small: each projection runs in float32 while no partial sum can
leave 24 bits, in float64 below 53 bits, and by the reference's integers beyond. Neurons are stepped
in int64, by the rules of :mod:`snn_deploy.numerics` restated for tensors. Feed-forward populations
take all timesteps of a projection at once, loops one after another. Integer graphs only; identical
to :mod:`snn_deploy.sim.reference` in spikes, membranes, currents and counts.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, OverflowRule, firing_level
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import events_of, largest_sum, readout, synaptic_sum
from snn_deploy.sim.timing import Delay
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.synapses import Dense, as_map, pooled_shape, with_weights

Array = NDArray[Any]


class DenseEngine:
    """A graph's weights as tensors on a device, made once, run on any number of batches."""

    def __init__(self, graph: Graph, device: str = "cpu") -> None:
        if graph.number_format is None:
            raise ValueError("the dense engine runs integer graphs only")
        self.graph = graph
        self.format: NumberFormat = graph.number_format
        self.device = torch.device(device)
        self._parts: dict[tuple[str, bytes], list[tuple[int, Projection]]] = {}
        # by the number of a projection's object, which lives as long as the graph or the parts do
        self._weights: dict[tuple[int, torch.dtype], Tensor] = {}

    def run(self, plan: Plan) -> Trace:
        """Run one batch."""
        with torch.inference_mode(), _exact_convolutions(self.device):
            return _Run(self, plan).trace()

    def parameter(self, value: Array, population: Population) -> Tensor:
        """A parameter of a population's neurons, broadcastable to its shape."""
        wide = value.astype(np.int64)
        if wide.ndim == 0:
            return torch.tensor(int(wide), device=self.device)
        spread = np.broadcast_to(wide, population.shape)
        return torch.from_numpy(np.ascontiguousarray(spread)).to(self.device)

    def sums(self, projection: Projection, source: Tensor) -> Tensor:
        """Weights times source without exponent: [M, *source shape] to int64 [M, *target shape]."""
        shape = self.graph.shape_of(projection.source)
        largest = largest_sum(projection, int(source.abs().max()) if source.numel() else 0)
        if largest >= 1 << 53:
            found = synaptic_sum(projection, shape, source.cpu().numpy())
            return torch.from_numpy(found).to(self.device)
        dtype = torch.float32 if largest < 1 << 24 else torch.float64
        weight = self._weight(projection, dtype)
        values = source.reshape(-1, *as_map(shape)).to(dtype)
        if projection.pool is not None:
            kernel, stride = projection.pool.kernel, projection.pool.stride
            values = functional.avg_pool2d(values, kernel, stride, divisor_override=1)
        synapses = projection.synapses
        if isinstance(synapses, Dense):
            total = values.reshape(len(values), -1) @ weight.T
        else:
            total = functional.conv2d(
                values, weight, None, synapses.stride, synapses.padding, synapses.dilation,
                synapses.groups,
            )  # fmt: skip
        made = synapses.target_shape(pooled_shape(shape, projection.pool))
        return total.reshape(-1, *made).to(torch.int64)

    def _weight(self, projection: Projection, dtype: torch.dtype) -> Tensor:
        key = id(projection), dtype
        if key not in self._weights:
            weight = torch.from_numpy(np.ascontiguousarray(projection.synapses.weight))
            self._weights[key] = weight.to(self.device, dtype)
        return self._weights[key]

    def parts(self, projection: Projection, delay: Delay) -> list[tuple[int, Projection]]:
        """The synapses of each delay, and that delay; of one delay for all, the projection."""
        if not isinstance(delay, np.ndarray):
            return [(delay, projection)]
        key = projection.name, delay.tobytes()
        if key not in self._parts:
            self._parts[key] = []
            for value in np.unique(delay):
                weight = np.where(delay == value, projection.synapses.weight, 0)
                part = replace(projection, synapses=with_weights(projection.synapses, weight))
                self._parts[key].append((int(value), part))
        return self._parts[key]


@contextmanager
def _exact_convolutions(device: torch.device) -> Iterator[None]:
    """No algorithm that multiplies sums of weights (Winograd's), and no short floats."""
    direct = platform.machine() in ("x86_64", "AMD64")  # what oneDNN is told to use there
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with warnings.catch_warnings():
            # some builds of torch warn here of a setting for GPUs, which is not touched
            warnings.simplefilter("ignore")
            with (
                torch.backends.mkldnn.flags(enabled=direct),
                torch.backends.nnpack.flags(enabled=False),
                torch.backends.cudnn.flags(enabled=device.type == "cpu", allow_tf32=False),
            ):
                yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Run:
    """One batch."""

    def __init__(self, engine: DenseEngine, plan: Plan) -> None:
        self.engine, self.plan, self.graph = engine, plan, engine.graph
        self.device = engine.device
        self.sent: dict[str, Tensor] = {}
        for name, values in plan.inputs.items():
            small = values.dtype == np.uint8
            held = np.ascontiguousarray(values if small else values.astype(np.int64))
            self.sent[name] = torch.from_numpy(held).to(self.device)
        self.membrane: dict[str, Tensor] = {}
        self.current: dict[str, Tensor] = {}
        self.updates: dict[str, Array] = {}
        # synaptic sums by projection, of all timesteps (or windows) that are known
        self.known: dict[str, Tensor] = {}

    def trace(self) -> Trace:
        """Run all populations."""
        for group in self.graph.order:
            self._group(group)
        return self._gathered()

    def _group(self, group: tuple[str, ...]) -> None:
        """Populations that form a loop, or one that forms none, over all timesteps."""
        neurons = {name: _Neurons(self, self.graph.population(name)) for name in group}
        for name in group:
            for projection in self.graph.incoming(name):
                if projection.source not in group:
                    self.known[projection.name] = self._all(projection)
        inner = [
            projection
            for name in group
            for projection in self.graph.incoming(name)
            if projection.source in group
        ]
        for step in range(self.plan.steps):
            for name in group:
                late = [(p, self._one(p, step)) for p in inner if p.target == name]
                neurons[name].step(step, [(p, total) for p, total in late if total is not None])
        for projection in self.graph.projections:
            if projection.target in group:
                self.known.pop(projection.name, None)
        for name in group:
            self.updates[name] = neurons[name].updates.cpu().numpy()

    def _all(self, projection: Projection) -> Tensor:
        """Sums of a source that is known for all timesteps, where they arrive: [B, T, *shape].

        A constant source: [B, windows, *shape].
        """
        source = self.sent[projection.source]
        if self.graph.is_constant(projection):
            return self._folded(projection, source)
        steps, total = self.plan.steps, None
        for delay, part in self.engine.parts(projection, self.plan.delays[projection.name]):
            sums = self._folded(part, source[:, : max(steps - delay, 0)])
            late = functional.pad(sums.flatten(2), (0, 0, min(delay, steps), 0))
            late = late.reshape(len(source), steps, *sums.shape[2:])
            total = late if total is None else total + late
        assert total is not None
        return total

    def _folded(self, projection: Projection, source: Tensor) -> Tensor:
        """Sums over [B, T, ...], samples and timesteps in one batch."""
        shape = self.graph.shape_of(projection.target)
        if not source.numel():
            return torch.zeros((*source.shape[:2], *shape), dtype=torch.int64, device=self.device)
        sums = self.engine.sums(projection, source.flatten(0, 1))
        return sums.reshape(*source.shape[:2], *shape)

    def _one(self, projection: Projection, step: int) -> Tensor | None:
        """Sum that arrives in one step, from a population of the same loop; None if none can."""
        total = None
        for delay, part in self.engine.parts(projection, self.plan.delays[projection.name]):
            if delay <= step:
                sums = self.engine.sums(part, self.sent[projection.source][:, step - delay])
                total = sums if total is None else total + sums
        return total

    def _gathered(self) -> Trace:
        graph, plan = self.graph, self.plan
        sent = {name: tensor.cpu().numpy() for name, tensor in self.sent.items()}
        membrane = {name: tensor.cpu().numpy() for name, tensor in self.membrane.items()}
        spikes = {
            p.name: sent[p.name] if p.max_spikes > 1 else sent[p.name].astype(bool)
            for p in graph.spiking()
        }
        record = Record(
            samples=plan.samples,
            timesteps=plan.steps,
            spikes={n: sent[n].sum(axis=(0, 1), dtype=np.int64) for n in spikes},
            sample_spikes={
                n: sent[n].reshape(plan.samples, -1).sum(axis=1, dtype=np.int64) for n in spikes
            },
            inputs={
                spec.name: (sent[spec.name] != 0).sum(axis=(0, 1), dtype=np.int64)
                for spec in graph.inputs
            },
            events=events_of(graph, plan, sent),
            updates=self.updates,
        )
        return Trace(
            output={n: readout(graph.population(n), spikes, membrane) for n in graph.outputs},
            record=record,
            spikes=spikes if plan.trace else {},
            membrane=membrane if plan.trace else {},
            current={n: t.cpu().numpy() for n, t in self.current.items()} if plan.trace else {},
        )


class _Neurons:
    """One population's state, and its step."""

    def __init__(self, run: _Run, population: Population) -> None:
        self.run, self.population, self.format = run, population, run.engine.format
        neurons = population.neurons
        shape = (run.plan.samples, *population.shape)
        self.zero = torch.zeros(shape, dtype=torch.int64, device=run.device)
        self.updates = torch.zeros(run.plan.samples, dtype=torch.int64, device=run.device)
        every = (run.plan.samples, run.plan.steps, *population.shape)
        self.sent = torch.zeros(every, dtype=torch.uint8, device=run.device)
        self.membranes = torch.zeros(every, dtype=torch.int64, device=run.device)
        self.currents = torch.zeros(every, dtype=torch.int64, device=run.device)
        run.sent[population.name] = self.sent
        run.membrane[population.name] = self.membranes
        run.current[population.name] = self.currents

        def parameter(value: Array) -> Tensor:
            return run.engine.parameter(value, population)

        self.bias, self.decay = parameter(neurons.bias), parameter(neurons.decay)
        memory = neurons.current_decay
        self.current_decay = None if memory is None else parameter(memory)
        self.level: Tensor | None = None
        if isinstance(neurons, LIF):
            self.level = parameter(firing_level(self.format, neurons.threshold.astype(np.int64)))

    def step(self, step: int, late: list[tuple[Projection, Tensor]]) -> None:
        """Advance by a timestep; ``late`` are sums from the population's own loop."""
        plan, graph, form = self.run.plan, self.run.graph, self.format
        name = self.population.name
        silent = step == 0 or bool(plan.resets[name][step])
        before = self.zero if silent else self.membranes[:, step - 1]
        arriving, bias = self.zero, self.bias
        window = int(plan.windows[name][step])
        for projection in graph.incoming(name):
            sums = self.run.known.get(projection.name)
            if sums is None:
                continue
            total = sums[:, window if graph.is_constant(projection) else step]
            if graph.on_host(projection):
                bias = bias + _rounded(total, -projection.exponent)
            else:
                arriving = arriving + self._current(projection, total)
        for projection, total in late:
            arriving = arriving + self._current(projection, total)
        if self.current_decay is not None and not silent:
            arriving = arriving + self._decayed(self.currents[:, step - 1], self.current_decay)
        current = self._limited(arriving, form.current_overflow)
        after = self._decayed(before, self.decay) + current + (bias << form.bias_shift)
        after = self._limited(after, form.membrane_overflow)
        changed = after != before
        if self.level is not None:
            after, changed = self._fire(after, before, step)
        self.membranes[:, step] = after
        self.currents[:, step] = current
        self.updates += changed.flatten(1).sum(1)

    def _fire(self, membrane: Tensor, before: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Membranes after the reset, and which neurons changed or fired."""
        neurons, most = self.population.neurons, self.population.max_spikes
        assert isinstance(neurons, LIF)
        assert self.level is not None
        above = membrane - self.level
        subtracts = isinstance(neurons.reset, ResetSubtract)
        amount = int(neurons.reset.amount if subtracts else neurons.reset.value)  # type: ignore[union-attr]
        fired = (above >= 0).to(torch.int64)
        if most > 1:
            fired = (torch.div(above, amount, rounding_mode="floor") + 1).clamp(0, most)
        self.sent[:, step] = fired.to(torch.uint8)
        cleared = torch.where(fired > 0, amount, membrane)
        after = membrane - fired * amount if subtracts else cleared
        return after, (after != before) | (fired > 0)

    def _current(self, projection: Projection, total: Tensor) -> Tensor:
        if projection.sum_bits is not None:
            total = _wrapped(total, projection.sum_bits)
        return total << (projection.exponent + self.format.fraction_bits)

    def _decayed(self, state: Tensor, decay: Tensor) -> Tensor:
        rule, bits = self.format.decay_rule, self.format.decay_bits
        if rule == "multiply_floor":
            return (state * decay) >> bits
        if rule == "shift_subtract":
            left = state - (state >> decay)
            return torch.where(left == state, state - state.sign(), left)
        kept = (state.abs() * decay) >> bits
        return torch.where(state < 0, -kept, kept)

    def _limited(self, value: Tensor, rule: OverflowRule) -> Tensor:
        """The word that adds up, then the register."""
        value, bits = _wrapped(value, self.format.word_bits), self.format.membrane_bits
        if rule == "wrap":
            return _wrapped(value, bits)
        half = 1 << (bits - 1)
        if rule == "saturate":
            return value.clamp(1 - half, half - 1)
        turned = torch.where(value > half, value - 2 * half, value)
        return torch.where(value <= -half, value + 2 * half, turned)


def _wrapped(value: Tensor, bits: int) -> Tensor:
    """The lower bits of a value, as a signed number."""
    return (value << (64 - bits)) >> (64 - bits)


def _rounded(value: Tensor, bits: int) -> Tensor:
    """``value / 2**bits`` to nearest, halves up."""
    return value if bits == 0 else (value + (1 << (bits - 1))) >> bits
