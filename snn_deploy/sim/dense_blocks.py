"""Blocks of the dense engine: some samples of one population, or of one loop, step by step.

What arrives from outside the loop is summed for many timesteps at once, what comes from inside it
one timestep at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.sim.dense_neurons import Neurons, wrapped
from snn_deploy.sim.dense_proof import Proof, proved
from snn_deploy.sim.dense_sums import Sums
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.timing import Delay
from snn_deploy.synapses import with_weights


class Synapses:
    """A graph's weights on a device, split by delay where delays differ."""

    def __init__(self, graph: Graph, device: torch.device) -> None:
        self.graph, self.device = graph, device
        self._sums: dict[tuple[str, bytes], list[Sums]] = {}

    def whole(self, projection: Projection) -> Sums:
        """All synapses of a projection."""
        return self.parts(projection, 0)[0][1]

    def parts(self, projection: Projection, delay: Delay) -> list[tuple[int, Sums]]:
        """The synapses of each delay, and that delay."""
        each = np.unique(delay)
        key = projection.name, np.asarray(delay).tobytes() if len(each) > 1 else b""
        if key not in self._sums:
            shape, parts = self.graph.shape_of(projection.source), [projection]
            if len(each) > 1:
                synapses = projection.synapses
                weights = [np.where(delay == value, synapses.weight, 0) for value in each]
                parts = [replace(projection, synapses=with_weights(synapses, w)) for w in weights]
            self._sums[key] = [Sums(part, shape, self.device) for part in parts]
        return [(int(d), sums) for d, sums in zip(each, self._sums[key], strict=True)]


@dataclass(slots=True, eq=False)
class Kept:
    """What outlives a block, per input or population.

    ``sent`` (values, or numbers of spikes), ``membrane`` and ``current`` (of traced runs) are
    [timesteps or windows, samples, height, width, channels]; ``largest`` bounds what is sent.
    ``read``, int64 [samples, height, width, channels], is the readout of a population's membranes;
    ``updates``, int64 [samples], as in a record.
    """

    sent: dict[str, Tensor] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    membrane: dict[str, Tensor] = field(default_factory=dict)
    current: dict[str, Tensor] = field(default_factory=dict)
    read: dict[str, Tensor] = field(default_factory=dict)
    updates: dict[str, Tensor] = field(default_factory=dict)


def proof_of(population: Population, synapses: Synapses, plan: Plan, kept: Kept) -> Proof:
    """In which integers a population may be stepped, by what its sources may send."""
    graph, form = synapses.graph, synapses.graph.number_format
    assert form is not None
    arriving = widest = 0
    drive = int(np.abs(population.neurons.bias.astype(np.int64)).max())
    for projection in graph.incoming(population.name):
        largest = synapses.whole(projection).largest(kept.largest[projection.source])
        if graph.on_host(projection):
            drive += (largest >> -projection.exponent) + 1
            continue
        widest = max(widest, largest)
        if projection.sum_bits is not None:
            largest = min(largest, 1 << (projection.sum_bits - 1))
        arriving += largest << (projection.exponent + form.fraction_bits)
    return proved(
        form,
        population,
        arriving=max(arriving, widest),
        drive=drive << form.bias_shift,
        steps=plan.steps,
    )


class Block:
    """Some samples of the populations of ``group``."""

    def __init__(
        self,
        group: tuple[str, ...],
        proofs: dict[str, Proof],
        synapses: Synapses,
        plan: Plan,
        kept: Kept,
        samples: slice,
    ) -> None:
        self.group, self.synapses, self.plan, self.kept = group, synapses, plan, kept
        self.graph, self.samples = synapses.graph, samples
        form = self.graph.number_format
        assert form is not None
        self.format = form
        self.neurons: dict[str, Neurons] = {}
        # what every window of constant inputs adds to bias or current, in membrane units
        self.host: dict[str, Tensor] = {}
        self.constant: dict[str, Tensor] = {}
        count = len(range(plan.samples)[samples])
        for name in group:
            self.neurons[name] = Neurons(
                form, self.graph.population(name), proofs[name], count, synapses.device
            )
            for projection in self.graph.incoming(name):
                if self.graph.is_constant(projection):
                    self._constant(projection)

    def _constant(self, projection: Projection) -> None:
        name = projection.target
        windows = len(self.kept.sent[projection.source])
        total = self._sums(self.synapses.whole(projection), projection, 0, windows)
        if self.graph.on_host(projection):
            host = _rounded(total.to(torch.int64), -projection.exponent) << self.format.bias_shift
            host = host.to(self.neurons[name].dtype)
            self.host[name] = self.host[name] + host if name in self.host else host
        else:
            current = self._current(projection, total.to(self.neurons[name].dtype))
            self.constant[name] = (
                self.constant[name] + current if name in self.constant else current
            )

    def advance(self, start: int, stop: int) -> None:
        """Timesteps ``start`` to ``stop``."""
        changing = {
            name: [p for p in self.graph.incoming(name) if not self.graph.is_constant(p)]
            for name in self.group
        }
        outer = {
            name: self._arriving((p for p in found if p.source not in self.group), start, stop)
            for name, found in changing.items()
        }
        for name, constant in self.constant.items():
            each = constant[torch.from_numpy(self.plan.windows[name][start:stop])]
            known = outer[name]
            outer[name] = each if known is None else known.add_(each)
        for step in range(start, stop):
            for name in self.group:
                known = outer[name]
                arriving = None if known is None else known[step - start]
                inner = (p for p in changing[name] if p.source in self.group)
                late = self._arriving(inner, step, step + 1)
                if late is not None:
                    arriving = late[0] if arriving is None else arriving.add_(late[0])
                self._step(name, step, arriving)

    def _step(self, name: str, step: int, arriving: Tensor | None) -> None:
        """One timestep of one population, and what is kept of it."""
        neurons, kept, samples = self.neurons[name], self.kept, self.samples
        if self.plan.resets[name][step]:
            neurons.silence()
        host = self.host.get(name)
        if host is not None:
            host = host[int(self.plan.windows[name][step])]
        neurons.step(arriving, host, kept.sent[name][step, samples])
        kept.updates[name][samples] += neurons.changed
        if self.plan.trace:
            kept.membrane[name][step, samples] = neurons.membrane
            kept.current[name][step, samples] = neurons.current
        if name in kept.read:
            read, kind = kept.read[name][samples], self.graph.population(name).neurons.readout
            if step == 0 or kind == "last":
                read.copy_(neurons.membrane)
            elif kind == "max":
                torch.maximum(read, neurons.membrane, out=read)
            else:
                read.add_(neurons.membrane)

    def _arriving(self, projections: Iterable[Projection], start: int, stop: int) -> Tensor | None:
        """Currents of these timesteps, in membrane units; None where there are none."""
        total = None
        for projection in projections:
            sums = self._delayed(projection, start, stop)
            if sums is not None:
                current = self._current(projection, sums)
                total = current if total is None else total.add_(current)
        return total

    def _delayed(self, projection: Projection, start: int, stop: int) -> Tensor | None:
        """Synaptic sums that arrive in these timesteps, in the type of the target's neurons."""
        dtype, total = self.neurons[projection.target].dtype, None
        for delay, part in self.synapses.parts(projection, self.plan.delays[projection.name]):
            first, last = max(start - delay, 0), stop - delay
            if first >= last:
                continue
            sums = self._sums(part, projection, first, last).to(dtype)
            if total is None and last - first == stop - start:
                total = sums
                continue
            if total is None:
                total = torch.zeros(
                    (stop - start, *sums.shape[1:]), dtype=dtype, device=sums.device
                )
            total[first - last :] += sums
        return total

    def _sums(self, part: Sums, projection: Projection, first: int, last: int) -> Tensor:
        """Of what the source sends in these timesteps, or windows."""
        sent = self.kept.sent[projection.source][first:last, self.samples]
        sums = part(sent.flatten(0, 1), self.kept.largest[projection.source])
        return sums.reshape(*sent.shape[:2], *sums.shape[1:])

    def _current(self, projection: Projection, sums: Tensor) -> Tensor:
        """In membrane units (in place); wrapped in the projection's own register before."""
        if projection.sum_bits is not None:
            sums = wrapped(sums, projection.sum_bits)
        return sums.bitwise_left_shift_(projection.exponent + self.format.fraction_bits)


def _rounded(value: Tensor, bits: int) -> Tensor:
    """``value / 2**bits`` to nearest, halves up."""
    return value if bits == 0 else (value + (1 << (bits - 1))) >> bits
