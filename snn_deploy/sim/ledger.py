"""The books of one population: what entered every membrane, slot by slot, and what was left of it.

A trace says where a membrane ended; a ledger says how it came there: the sum of every projection,
the current behind its register, what decay left, the membrane that met the threshold, the membrane
after the reset. It restates nothing: sums and arithmetic are those of the reference engine, over
all timesteps at once, since the trace already holds what each step started from. All values are in
the units of the float network, so that the books of a float and of an integer graph can be laid
side by side; integers keep their differences (a double holds 53 bits, a register at most 32).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import firing_level
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import FloatArithmetic, IntegerArithmetic, synaptic_sum
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import with_weights

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ledger:
    """One population's update, [samples, steps, *shape] and float64 in network units.

    Attributes
    ----------
    sums : per projection, what arrived.
    current : all that arrives: the synaptic current behind its register, and what the host adds.
    bias : [*shape].
    kept : what decay left of the membrane.
    before : membrane as it is compared, behind its register.
    after : membrane after the reset.
    level : [*shape], the least membrane that fires; infinite where neurons never do.
    spikes : int64.
    free_current, free_before : what the registers of ``current`` and ``before`` were handed: other
        values where they wrapped or saturated.
    """

    sums: dict[str, Floats]
    current: Floats
    bias: Floats
    kept: Floats
    before: Floats
    after: Floats
    level: Floats
    spikes: NDArray[np.int64]
    free_current: Floats
    free_before: Floats


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Side:
    """One side of a comparison at one population: its run, its books, its membrane unit."""

    label: str
    graph: Graph
    population: Population
    plan: Plan
    trace: Trace
    books: Ledger
    unit: Floats

    @property
    def projections(self) -> dict[str, Projection]:
        """What ends at the population, by name."""
        return {p.name: p for p in self.graph.incoming(self.population.name)}


def membrane_unit(graph: Graph, population: Population, scale: Any = None) -> Floats:
    """Value of a membrane's least significant bit in network units; 1 in a float graph.

    Shape (), or broadcastable to the population where channels have scales of their own. ``scale``
    replaces the population's own value of a weight unit.
    """
    if graph.number_format is None:
        return np.ones(())
    weight_unit = np.asarray(population.scale if scale is None else scale, np.float64)
    return np.asarray(weight_unit * 2.0**-graph.number_format.fraction_bits)


def firing_levels(graph: Graph, population: Population) -> Array:
    """The least membrane that fires, of every neuron in membrane units; infinite for sinks."""
    neurons, form = population.neurons, graph.number_format
    if not isinstance(neurons, LIF):
        return np.full(population.shape, np.inf)
    threshold = np.broadcast_to(neurons.threshold, population.shape)
    if form is None:
        return threshold
    return np.asarray(firing_level(form, threshold.astype(np.int64)))


def sent_by(plan: Plan, trace: Trace, source: str) -> Array:
    """What an input or population sent, [samples, steps, ...] ([samples, 1, ...] if constant)."""
    return plan.inputs[source] if source in plan.inputs else trace.spikes[source]


def arriving(graph: Graph, projection: Projection, plan: Plan, source: Array) -> Array:
    """Synaptic sums of all timesteps, [samples, steps, *target], each after its delay."""
    shape, steps = graph.shape_of(projection.source), plan.steps
    if graph.is_constant(projection):
        sums = synaptic_sum(projection, shape, source[:, :1])
        return np.broadcast_to(sums, (len(sums), steps, *sums.shape[2:]))
    delays = plan.delays[projection.name]
    total: Any = 0
    for delay in np.unique(delays):
        part = projection
        if isinstance(delays, np.ndarray):
            weight = np.where(delays == delay, projection.synapses.weight, 0)
            part = replace(projection, synapses=with_weights(projection.synapses, weight))
        sums = synaptic_sum(part, shape, source)
        late = np.zeros_like(sums)
        late[:, delay:] = sums[:, : max(steps - delay, 0)]
        total = total + late
    return np.asarray(total)


def as_current(graph: Graph, projection: Projection, total: Array) -> Array:
    """What a synaptic sum adds to the membrane, in membrane units; the host's is handed as bias."""
    form = graph.number_format
    if form is None:
        return total
    arithmetic = IntegerArithmetic(form)
    if graph.on_host(projection):
        return arithmetic.bias(arithmetic.host_sum(total, projection.exponent))
    return arithmetic.synaptic(total, projection)


def open_books(
    graph: Graph, population: Population, plan: Plan, trace: Trace, unit: Floats
) -> Ledger:
    """The ledger of one population of a traced run.

    Parameters
    ----------
    graph, population : float or integer graph.
    plan, trace : of the run, in zero-delay timing and without resets.
    unit : value of a membrane unit; see :func:`membrane_unit`.
    """
    form = graph.number_format
    arithmetic = FloatArithmetic() if form is None else IntegerArithmetic(form)
    neurons, name = population.neurons, population.name
    after, current = trace.membrane[name], trace.current[name]
    entering: Any = np.zeros_like(current)
    host: Any = np.zeros_like(current)
    sums: dict[str, Floats] = {}
    for projection in graph.incoming(name):
        total = arriving(graph, projection, plan, sent_by(plan, trace, projection.source))
        added = as_current(graph, projection, total)
        sums[projection.name] = np.asarray(added * unit)
        if graph.on_host(projection):
            host = host + added
        else:
            entering = entering + added
    if neurons.current_decay is not None:
        entering = entering + arithmetic.decay(_earlier(current), neurons.current_decay)
    kept = arithmetic.decay(_earlier(after), neurons.decay)
    own = arithmetic.bias(np.broadcast_to(neurons.bias, population.shape))
    free = kept + current + own + host
    before = arithmetic.limit_membrane(free)
    fired = trace.spikes.get(name, np.zeros(after.shape, bool)).astype(np.int64)
    return Ledger(
        sums=sums,
        current=(current + host) * unit,
        bias=np.asarray(own * unit),
        kept=kept * unit,
        before=before * unit,
        after=after * unit,
        level=np.asarray(firing_levels(graph, population) * unit),
        spikes=fired,
        free_current=np.asarray((entering + host) * unit),
        free_before=np.asarray(free * unit),
    )


def _earlier(state: Array) -> Array:
    """The state that every timestep starts from: silence first."""
    return np.concatenate([np.zeros_like(state[:, :1]), state[:, :-1]], axis=1)


def driven(graph: Graph, plan: Plan, trace: Trace, spikes: dict[str, Array]) -> Trace:
    """The membranes of a float graph whose neurons fire as ``spikes`` say, whatever they reach.

    So the arithmetic of a trained module is laid open from the spikes it made: they arrive, and
    they reset, as its own. ``trace`` lends the record; its states and readout are replaced.
    """
    membrane, current = {}, {}
    forced = replace(trace, spikes={**trace.spikes, **spikes})
    for population in graph.populations:
        name, neurons = population.name, population.neurons
        sums: Any = np.zeros((plan.samples, plan.steps, *population.shape))
        for projection in graph.incoming(name):
            source = sent_by(plan, forced, projection.source)
            sums = sums + arriving(graph, projection, plan, source)
        membrane[name], current[name] = np.zeros_like(sums), np.zeros_like(sums)
        synaptic = left = np.zeros_like(sums[:, 0])
        for step in range(plan.steps):
            memory = neurons.current_decay
            synaptic = sums[:, step] + (0.0 if memory is None else synaptic * memory)
            left = left * neurons.decay + synaptic + neurons.bias
            if isinstance(neurons, LIF):
                fired = spikes[name][:, step]
                if isinstance(neurons.reset, ResetSubtract):
                    left = left - fired * neurons.reset.amount
                else:
                    left = np.where(fired > 0, neurons.reset.value, left)
            current[name][:, step], membrane[name][:, step] = synaptic, left
    return replace(forced, membrane=membrane, current=current)
