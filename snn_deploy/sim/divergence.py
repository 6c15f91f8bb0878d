"""Where two runs of one network part, slot by slot: the comparison of two traces.

A *slot* is a neuron at a timestep. Slots have a causal order: an earlier timestep first, within a
timestep the populations in the order of the graph. A spike that differs is a *root* if everything
that could have led to it was equal: all spikes that reached its neuron until then, and the neuron's
own. All others are *cascaded*. States (sums, currents, membranes) are compared where that history
is equal: exactly where both sides count in the same integers or in doubles, else beyond what the
rounding of the one to the other explains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph
from snn_deploy.sim.causes import At, Verdict
from snn_deploy.sim.diagnosis import cause_of_spike, cause_of_state
from snn_deploy.sim.findings import Difference, PopulationDivergence, Reading, joined
from snn_deploy.sim.ledger import Side, membrane_unit, open_books
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.sim.rounding import Allowance, allowed, nothing
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import with_weights

Array = NDArray[Any]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Run:
    """One side's traced batch; ``bound``: per population, what float32 may be off, or None."""

    graph: Graph
    plan: Plan
    trace: Trace
    bound: dict[str, Array] | None = None


def reached(run: Run, name: str, flips: dict[str, Mask]) -> Mask:
    """Slots of a population that earlier or presynaptic flips may have changed.

    A flip reaches the neurons it projects to in the timestep in which it arrives, and stays in
    their currents and membranes. A neuron's own flip stays in its membrane, through either reset.

    Parameters
    ----------
    run : whose synapses and delays are meant.
    name : the population.
    flips : per spiking population, the slots whose spikes differ, [samples, steps, *shape].

    Returns
    -------
    bool, [samples, steps, *shape of the population].
    """
    graph, steps = run.graph, run.plan.steps
    found = np.zeros((run.plan.samples, steps, *graph.shape_of(name)), bool)
    for projection in graph.incoming(name):
        if graph.is_input(projection.source) or not flips[projection.source].any():
            continue
        there, weight = graph.shape_of(projection.source), projection.synapses.weight
        delays = run.plan.delays[projection.name]
        for delay in np.unique(delays):
            ones = ((weight != 0) & (np.asarray(delays) == delay)).astype(np.float64)
            touching = replace(projection, synapses=with_weights(projection.synapses, ones))
            touched = synaptic_sum(touching, there, flips[projection.source].astype(float)) > 0
            found[:, delay:] |= touched[:, : max(steps - int(delay), 0)]
    if name in flips:
        found[:, 1:] |= flips[name][:, :-1]
    return np.asarray(np.logical_or.accumulate(found, axis=1))


def common_units(a: Graph, b: Graph, name: str) -> tuple[Floats, Floats, bool]:
    """Both membrane units of a population, and whether its states can be compared exactly.

    A file that does not know the scale of its integers has 1.0 there: beside integers of the same
    fraction it counts in the other's units.
    """
    populations = [g.population(name) for g in (a, b)]
    units = [membrane_unit(g, p) for g, p in zip((a, b), populations, strict=True)]
    if a.number_format is None or b.number_format is None:
        return units[0], units[1], a.number_format is None and b.number_format is None
    if a.number_format.fraction_bits == b.number_format.fraction_bits:
        scales = [p.scale for p in populations]
        for mine, theirs in ((0, 1), (1, 0)):
            if np.array_equal(np.asarray(scales[mine]), 1.0):
                units[mine] = membrane_unit(a, populations[mine], scales[theirs])
    same = units[0].shape == units[1].shape and bool((units[0] == units[1]).all())
    return units[0], units[1], same


# In the order in which an update makes them.
QUANTITIES = ("sum", "current", "membrane", "spike", "reset")
# Timestep, rank of the population, quantity, sample, neuron: the causal order.
Key = tuple[int, int, int, int, int]


class Comparison:
    """Compares batch after batch; ``first_state`` and ``first_spike`` are the earliest so far."""

    def __init__(self, a: Graph, b: Graph) -> None:
        self._order = [name for group in a.order for name in group]
        self._units = {name: common_units(a, b, name) for name in self._order}
        self._tallies: dict[str, PopulationDivergence] = {}
        self._keys: dict[str, Key] = {}
        self._found: dict[str, Difference] = {}

    @property
    def first_state(self) -> Difference | None:
        """The earliest slot of equal history whose state differs beyond rounding."""
        return self._found.get("state")

    @property
    def first_spike(self) -> Difference | None:
        """The earliest slot whose spikes differ; no cause if its neuron's states did before."""
        return self._found.get("spike")

    @property
    def populations(self) -> tuple[PopulationDivergence, ...]:
        """The tallies, in causal order."""
        return tuple(self._tallies[name] for name in self._order)

    def add(self, a: Run, b: Run, start: int) -> None:
        """Compare one batch, whose first sample is number ``start``."""
        flips = {
            name: a.trace.spikes[name].astype(np.int64) != b.trace.spikes[name].astype(np.int64)
            for name in a.trace.spikes
        }
        trained = a.bound is not None or b.bound is not None
        for rank, name in enumerate(self._order):
            unit_a, unit_b, exact = self._units[name]
            exact = exact and not trained
            one, other = _side("A", a, name, unit_a), _side("B", b, name, unit_b)
            fresh = ~(reached(a, name, flips) | reached(b, name, flips))
            allowance = nothing(one.books) if exact else _allowed(a, one).plus(_allowed(b, other))
            flipped = flips.get(name, np.zeros_like(fresh))
            states = _states(one, other, allowance, fresh, flipped)
            self._count(one, other, exact, fresh, flipped, states)
            for kind, masks in (("state", states), ("spike", {"spike": flipped})):
                first = _first(rank, masks, start)
                if first is None or (kind in self._keys and self._keys[kind] <= first[0]):
                    continue
                self._keys[kind], quantity, at = first
                why: Verdict | None = None
                if kind == "state":
                    why = cause_of_state(one, other, allowance, at, quantity)
                elif not _parted(states, at):
                    why = cause_of_spike(one, other, allowance, at, trained=trained)
                self._found[kind] = _difference(quantity, one, other, at, start, why)

    def _count(
        self,
        one: Side,
        other: Side,
        exact: bool,
        fresh: Mask,
        flipped: Mask,
        states: dict[str, Mask],
    ) -> None:
        name = one.population.name
        apart = np.abs(one.books.before - other.books.before)[fresh]
        times = np.flatnonzero(flipped.any(axis=(0, *range(2, flipped.ndim))))
        levels = (one.books.level, other.books.level)
        fires = bool(np.isfinite(levels[0]).any())
        found = PopulationDivergence(
            population=name,
            exact=exact,
            slots=flipped.size if fires else 0,
            spikes=int(one.books.spikes.sum()),
            differing=int(flipped.sum()),
            roots=int((flipped & fresh).sum()),
            cascaded=int((flipped & ~fresh).sum()),
            first_timestep=int(times[0]) if len(times) else None,
            states=int(np.logical_or.reduce(list(states.values())).sum()),
            membrane_apart=float(apart.max(initial=0.0)),
            threshold_apart=float(np.abs(levels[0] - levels[1]).max()) if fires else 0.0,
        )
        self._tallies[name] = joined(self._tallies.get(name), found)


def _side(label: str, run: Run, name: str, unit: Floats) -> Side:
    population = run.graph.population(name)
    books = open_books(run.graph, population, run.plan, run.trace, unit)
    return Side(
        label=label, graph=run.graph, population=population, plan=run.plan, trace=run.trace,
        books=books, unit=unit,
    )  # fmt: skip


def _allowed(run: Run, side: Side) -> Allowance:
    """What rounding may explain of one side: that of its integers, or of float32."""
    if run.bound is None:
        return allowed(run.graph, side.population, run.plan, run.trace, side.books, side.unit)
    bound = run.bound[side.population.name]
    return Allowance(
        sums=dict.fromkeys(side.books.sums, bound), current=bound, bias=np.zeros(()),
        before=bound, after=bound, tie=bound,
    )  # fmt: skip


def _states(
    one: Side, other: Side, allowance: Allowance, fresh: Mask, flipped: Mask
) -> dict[str, Mask]:
    """Per quantity, the slots of equal history where it differs beyond rounding."""
    a, b = one.books, other.books
    differs = np.zeros_like(fresh)
    for name, limit in allowance.sums.items():
        differs |= np.abs(a.sums.get(name, 0.0) - b.sums.get(name, 0.0)) > limit
    return {
        "sum": differs & fresh,
        "current": (np.abs(a.current - b.current) > allowance.current) & fresh,
        "membrane": (np.abs(a.before - b.before) > allowance.before) & fresh,
        "reset": (np.abs(a.after - b.after) > allowance.after) & fresh & ~flipped,
    }


def _parted(states: dict[str, Mask], at: At) -> bool:
    """Whether a state of this very neuron differed by then."""
    sample, step, *neuron = at
    until: tuple[Any, ...] = (sample, slice(step + 1), *neuron)
    return any(bool(mask[until].any()) for mask in states.values())


def _first(rank: int, masks: dict[str, Mask], start: int) -> tuple[Key, str, At] | None:
    """Key, quantity and place (sample, timestep, *neuron) of the first slot in causal order."""
    steps = [mask.any(axis=(0, *range(2, mask.ndim))) for mask in masks.values()]
    if not np.any(steps):
        return None
    step = int(np.logical_or.reduce(steps).argmax())
    for quantity, mask in masks.items():
        if mask[:, step].any():
            sample, *neuron = np.argwhere(mask[:, step])[0].tolist()
            index = int(np.ravel_multi_index(neuron, mask.shape[2:]))
            key = (step, rank, QUANTITIES.index(quantity), start + sample, index)
            return key, quantity, (sample, step, *neuron)
    raise AssertionError("unreachable")


def _difference(
    quantity: str, one: Side, other: Side, at: At, start: int, why: Verdict | None
) -> Difference:
    sample, step, *neuron = at
    return Difference(
        quantity=quantity,
        population=one.population.name,
        timestep=step,
        sample=start + sample,
        neuron=int(np.ravel_multi_index(neuron, one.population.shape)),
        position=tuple(neuron),
        a=_reading(one, at),
        b=_reading(other, at),
        cause=None if why is None else why[0],
        facts=() if why is None else why[1],
    )


def _reading(side: Side, at: At) -> Reading:
    books, here = side.books, at[2:]
    level = float(books.level[here])
    return Reading(
        current=float(books.current[at]),
        bias=float(books.bias[here]),
        membrane=float(books.before[at]),
        threshold=level if np.isfinite(level) else None,
        spikes=int(books.spikes[at]),
    )
