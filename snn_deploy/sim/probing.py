"""Why the sums of two projections differ: both are fed the same probes.

One is changed by an order of inputs or by a factor until it does as the other; what that took is
the cause. Probes are random, many, and without delay, so that a pattern is one of all synapses, and
not of the few that happened to carry a spike when the runs parted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import InputSpec, Projection
from snn_deploy.sim.causes import At, Verdict, number
from snn_deploy.sim.ledger import Side, arriving
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.sim.rounding import Allowance, mantissa_unit, moved_by_rounding, weight_step
from snn_deploy.synapses import Dense, Shape, pooled_shape, with_weights

Array = NDArray[Any]
Floats = NDArray[np.float64]

_PROBES = 64
# Roundings of float64 in sums that are compared after a factor; only tells patterns apart.
_SAME = 1e-9


def cause_of_sums(a: Side, b: Side, allowance: Allowance, at: At) -> Verdict:
    """Why a projection brings other sums to the slot ``at``, where one differs by ``allowance``."""
    for name in {**a.books.sums, **b.books.sums}:
        held = [s.books.sums.get(name) for s in (a, b)]
        values = [0.0 if h is None else float(h[at]) for h in held]
        if abs(values[0] - values[1]) <= float(np.asarray(allowance.sums[name])[at]):
            continue
        if held[0] is None or held[1] is None:
            has, lacks = (a, b) if held[1] is None else (b, a)
            return "weights", (f"{has.label} has a projection {name}, {lacks.label} has none",)
        fact = (
            f"{name} brings {number(values[0])} in {a.label}, {number(values[1])} in {b.label}, "
            "on equal spikes"
        )
        cause, facts = _Probed(a, b, name).verdict()
        return cause, (fact, *facts)
    raise AssertionError("no sum differs")


class _Probed:
    """Two projections of one name under the same random inputs, all at once and without delay."""

    def __init__(self, a: Side, b: Side, name: str) -> None:
        self.a, self.b, self.name = a, b, name
        self.ours = (a.projections[name], b.projections[name])
        self.rng = np.random.default_rng(0)
        source = self.ours[0].source
        shape = a.graph.shape_of(source)
        self.sent: list[Array]
        if a.graph.carries_values(self.ours[0]):
            specs = [s.graph.input(source) for s in (a, b)]
            # a little beyond the range, so that probes of a range of one value differ, too
            low, high = specs[0].low - 1, specs[0].high + 1
            raw = self.rng.uniform(low, high, (_PROBES, 1, *shape))
            self.sent = [spec.encode(raw) for spec in specs]
            self.encodings: list[InputSpec] | None = specs
        else:
            probe = self._spikes((1, *shape))
            self.sent = [probe, probe]
            self.encodings = None
        found = [self._response(s, p, x) for s, p, x in zip((a, b), self.ours, self.sent,
                                                            strict=True)]  # fmt: skip
        self.one, self.other = found
        moved = [self._moved(s, p, x) for s, p, x in zip((a, b), self.ours, self.sent, strict=True)]
        self.moved = moved[0] + moved[1]
        self.exact = bool(np.all(a.unit == b.unit))

    def _spikes(self, shape: Shape) -> Array:
        """Probes of 0 and 1, from nearly silent ones to nearly full ones."""
        density = np.linspace(0.05, 0.95, _PROBES).reshape(-1, *([1] * len(shape)))
        return np.asarray(self.rng.random((_PROBES, *shape)) < density, np.uint8)

    def _probing(self, side: Side) -> Plan:
        none = dict.fromkeys(side.plan.delays, 0)
        return replace(side.plan, samples=_PROBES, steps=1, delays=none)  # type: ignore[arg-type]

    def _response(self, side: Side, projection: Projection, sent: Array) -> Floats:
        """Sums in network units, before any rounding on the host and any register."""
        total = arriving(side.graph, projection, self._probing(side), sent)
        return np.asarray(total * mantissa_unit(side.graph, projection, side.unit), np.float64)

    def _moved(self, side: Side, projection: Projection, sent: Array) -> Floats:
        return moved_by_rounding(side.graph, projection, self._probing(side), sent, side.unit)

    def verdict(self) -> Verdict:
        """The first pattern that explains the difference."""
        encoded = self._of_input()
        if encoded is not None:
            return encoded
        if self._alike(self.one, self.other, self.moved):
            found = self._of_time()
            if found is not None:
                return found
        for test in (self._of_order, self._of_scale, self._of_rounding):
            found = test()
            if found is not None:
                return found
        return "weights", self._counted()

    def _alike(self, one: Floats, other: Floats, near: Floats) -> bool:
        """Whether responses are equal, but for ``near`` where the two are rounded otherwise."""
        near = np.zeros_like(near) if self.exact else near
        return bool((np.abs(one - other) <= near + _SAME * np.abs(one)).all())

    def _of_input(self) -> Verdict | None:
        if self.encodings is None:
            return None
        scales = [spec.scale or 1.0 for spec in self.encodings]
        values = [x * s for x, s in zip(self.sent, scales, strict=True)]
        half = 0.5 * sum(s.scale or 0.0 for s in self.encodings) * (1 + _SAME)
        worst = float(np.abs(values[0] - values[1]).max())
        if worst <= half:
            return None
        return "input", (
            f"the same input reaches the synapses up to {number(worst)} apart: normalisation "
            "or input scale differ",
        )

    def _of_time(self) -> Verdict | None:
        """Equal weights: then it is when spikes arrive, or a register in which they are summed."""
        delays = [s.plan.delays[self.name] for s in (self.a, self.b)]
        if np.any(np.asarray(delays[0]) != np.asarray(delays[1])):
            most = [int(np.max(d)) for d in delays]
            shifts = np.unique(np.asarray(delays[1]) - np.asarray(delays[0]))
            return "delay", (
                f"equal weights, but spikes arrive {_span(shifts)} timesteps later in "
                f"{self.b.label} (longest delays {most[0]} and {most[1]})",
            )
        if self.ours[0].sum_bits != self.ours[1].sum_bits:
            return "overflow", ("equal weights, but a sum wrapped in a register of its own",)
        return None

    def _of_order(self) -> Verdict | None:
        """Whether one side's synapses read the other's inputs in another order."""
        seen = [pooled_shape(s.graph.shape_of(p.source), p.pool)
                for s, p in zip((self.a, self.b), self.ours, strict=True)]  # fmt: skip
        if seen[0] != seen[1]:
            return None
        probe = self._spikes(seen[0])
        one, near = self._behind_pool(0, seen[0], probe)
        for text, changed in _orders(seen[0], probe):
            other, too = self._behind_pool(1, seen[0], changed)
            if self._alike(one, other, near + too):
                return "order", (f"{self.b.label} reads {self.ours[0].source} {text}",)
        weights = [p.synapses.weight for p in self.ours]
        dense = all(isinstance(p.synapses, Dense) for p in self.ours)
        integers = all(np.issubdtype(w.dtype, np.integer) for w in weights)
        if dense and integers and weights[0].shape == weights[1].shape:
            columns = [w[:, np.lexsort(w)] for w in weights]
            if np.array_equal(columns[0], columns[1]):
                return "order", ("both have the same columns of weights, in another order",)
        return None

    def _behind_pool(self, which: int, shape: Shape, values: Array) -> tuple[Floats, Floats]:
        """Sums of values that the synapses see, and how far rounding may have moved them."""
        side, projection = (self.a, self.b)[which], replace(self.ours[which], pool=None)
        total = synaptic_sum(projection, shape, values)
        weight = projection.synapses.weight
        ones = with_weights(projection.synapses, np.ones_like(weight))
        arrived = synaptic_sum(replace(projection, synapses=ones), shape, values)
        return (
            np.asarray(total * mantissa_unit(side.graph, projection, side.unit), np.float64),
            np.asarray(arrived * weight_step(side.graph, projection, side.unit), np.float64),
        )

    def _of_scale(self) -> Verdict | None:
        """Whether all sums differ by one factor; a single weight would always show one."""
        squared = float((self.one * self.one).sum())
        several = min(np.count_nonzero(p.synapses.weight) for p in self.ours) > 1
        if not squared or not several or len(np.unique(self.one[self.one != 0])) < 2:
            return None
        factor = float((self.one * self.other).sum()) / squared
        near = self.moved * max(1.0, abs(factor))
        if not self._alike(factor * self.one, self.other, near):
            return None
        pools = [p.pool for p in self.ours]
        window = next((int(np.prod(p.kernel)) for p in pools if p is not None), None)
        said = f"every sum of {self.name} in {self.b.label} is {number(factor)} times "
        said += f"{self.a.label}'s"
        if window is not None and np.isclose(max(factor, 1 / factor), window, rtol=0.05):
            said += f": the {window} places of a pool's window"
        return "scale", (said,)

    def _of_rounding(self) -> Verdict | None:
        """Whether no weight is more than a step apart."""
        if not (np.abs(self.one - self.other) <= self.moved * (1 + _SAME) / 2).all():
            return None
        return "rounding", self._counted()

    def _counted(self) -> tuple[str, ...]:
        """How many weights differ, and by how many steps, where both have the same ones."""
        if self.ours[0].synapses.weight.shape != self.ours[1].synapses.weight.shape:
            worst = number(np.abs(self.one - self.other).max())
            return (f"sums of the same random inputs are up to {worst} apart",)
        weights, steps = zip(*(self._weights(n) for n in (0, 1)), strict=True)
        apart = np.abs(weights[0] - weights[1])
        step = np.maximum(*steps)
        differ = int((apart > _SAME * np.abs(weights[0])).sum())
        where = [int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape)]
        said = f"{differ} of {apart.size} weights differ, the largest by {number(apart.max())} at "
        said += f"{where}"
        if step.max() > 0:
            most = float((apart / step).max())
            beyond = int((apart > step * (1 + _SAME)).sum())
            said += f"; {beyond} by more than a step of the mantissa, at most by {most:.3g} steps"
        return (said,)

    def _weights(self, which: int) -> tuple[Floats, Floats]:
        """Weights in network units, and what a step of theirs is, broadcastable to them."""
        side, projection = (self.a, self.b)[which], self.ours[which]
        weight, shape = projection.synapses.weight, side.population.shape
        value = 1.0  # of an encoded input
        if side.graph.carries_values(projection):
            value = side.graph.input(projection.source).scale or 1.0

        def per_row(unit: Floats) -> Floats:
            rows = np.broadcast_to(unit, shape).reshape(shape[0], -1)[:, 0] / value
            return rows.reshape(-1, *([1] * (weight.ndim - 1)))

        unit = mantissa_unit(side.graph, projection, side.unit)
        step = weight_step(side.graph, projection, side.unit)
        return weight * per_row(unit), per_row(step)


def _span(values: Array) -> str:
    return (
        f"{values.min()}" if values.min() == values.max() else f"{values.min()} to {values.max()}"
    )


def _orders(shape: Shape, probe: Array) -> Iterator[tuple[str, Array]]:
    """The ways to flatten a map other than C, H, W: written so, or read back so."""
    if len(shape) != 3:
        return
    for axes in list(permutations(range(3)))[1:]:  # the first is C, H, W
        name = ", ".join("CHW"[i] for i in axes)
        there = probe.transpose(0, *(i + 1 for i in axes))
        yield f"flattened in the order {name}", there.reshape(probe.shape)
        back = probe.reshape(len(probe), *(shape[i] for i in axes))
        inverse = np.argsort(axes)
        restored = np.ascontiguousarray(back.transpose(0, *(int(i) + 1 for i in inverse)))
        yield f"where a map flattened as {name} is meant", restored.reshape(probe.shape)
