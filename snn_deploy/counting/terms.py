"""What conventions count besides synaptic operations: biases, pools, neurons, resets, memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from snn_deploy.counting.activity import membrane_accesses, population_count
from snn_deploy.counting.conventions import Convention
from snn_deploy.counting.fans import windows
from snn_deploy.counting.roles import is_shortcut, sent_by, values_per_neuron
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import kept_share
from snn_deploy.sim import Record
from snn_deploy.synapses import pooled_shape

ACCUMULATE, MULTIPLY = "synaptic_operation", "multiply_accumulate"
READ, WRITE = "memory_read", "memory_write"


@dataclass(frozen=True, slots=True)
class Term:
    """Something counted that is no synaptic operation of a projection.

    Attributes
    ----------
    name : what it is, in words.
    population : whose neurons it is done for.
    operation : name of the operation in a profile (:data:`snn_deploy.hardware.OPERATIONS`).
    count : summed over all samples; of the twin, per inference.
    twin : whether the ANN twin does it.
    """

    name: str
    population: str
    operation: str
    count: int | float
    twin: bool = False


def number(exact: Fraction) -> int | float:
    """A whole number as an int, any other as the nearest float."""
    return exact.numerator if exact.denominator == 1 else float(exact)


def terms(graph: Graph, record: Record, convention: Convention) -> Iterator[Term]:
    """The terms of all populations, in order."""
    for population in graph.populations:
        yield from _bias(graph, population, record, convention)
        yield from _pools(graph, population, record, convention)
        yield from _neurons(graph, population, record, convention)
        yield from _memory(graph, population, record, convention)


def evaluations(graph: Graph, population: Population, record: Record, once: bool) -> int:
    """How often a population is evaluated: a constant current, if ``once``, is once per sample."""
    constant = all(graph.is_constant(p) for p in graph.incoming(population.name))
    return record.samples * (1 if constant and once else record.timesteps)


def has_bias(population: Population) -> bool:
    """Whether any neuron has a bias; then the layer adds one to all."""
    return bool(np.any(population.neurons.bias))


def arrivals(graph: Graph, projection: Projection, record: Record) -> int:
    """What was sent and seen behind the pool: once for every window that it is in."""
    source = graph.shape_of(projection.source)
    return int((sent_by(graph, projection, record) * windows(projection.pool, source)).sum())


def _bias(
    graph: Graph, population: Population, record: Record, convention: Convention
) -> Iterator[Term]:
    name, size = population.name, population.size
    if convention.count_bias == "no" or not has_bias(population):
        return
    if convention.count_bias == "per_timestep":
        times = evaluations(graph, population, record, convention.first_layer == "once")
        yield Term("bias", name, ACCUMULATE, size * times)
        yield Term("bias", name, ACCUMULATE, size, twin=True)
        return
    first = next(
        (p for p in graph.incoming(name) if p.source != name and not is_shortcut(graph, p)),
        graph.incoming(name)[0],
    )
    if graph.carries_values(first):
        times = evaluations(graph, population, record, convention.first_layer == "once")
        if convention.values == "mac":
            yield Term("bias", name, MULTIPLY, size * times)
    else:
        seen = math.prod(pooled_shape(graph.shape_of(first.source), first.pool))
        rate = Fraction(arrivals(graph, first, record), seen)
        yield Term("bias", name, ACCUMULATE, number(size * rate))
    yield Term("bias", name, MULTIPLY, size, twin=True)


def _pools(
    graph: Graph, population: Population, record: Record, convention: Convention
) -> Iterator[Term]:
    """A pool that several projections share is one pool, of the first one's target."""
    if convention.count_pool == "no":
        return
    shared: dict[tuple[object, ...], Projection] = {}
    for projection in graph.projections:
        if projection.pool is not None:
            shared.setdefault((projection.source, projection.pool), projection)
    for projection in shared.values():
        if projection.target != population.name:
            continue
        size = math.prod(graph.shape_of(projection.source))
        if not graph.carries_values(projection):
            sent = int(sent_by(graph, projection, record).sum())
            yield Term("pooling", population.name, ACCUMULATE, sent)
        elif convention.values == "mac":
            times = values_per_neuron(graph, projection, record)
            if graph.is_constant(projection) and convention.first_layer == "per_timestep":
                times *= record.timesteps
            yield Term("pooling", population.name, MULTIPLY, size * times)
        yield Term("pooling", population.name, MULTIPLY, size, twin=True)


def _neurons(
    graph: Graph, population: Population, record: Record, convention: Convention
) -> Iterator[Term]:
    name, neurons = population.name, population.neurons
    if convention.count_neuron == "add" and isinstance(neurons, LIF):
        slots = record.samples * record.timesteps
        yield Term("neuron", name, ACCUMULATE, population.size * slots)
        yield Term("activation function", name, MULTIPLY, population.size, twin=True)
    if convention.count_neuron == "leak":
        times = evaluations(graph, population, record, convention.first_layer == "once")
        leaking = _leaking(graph, population)
        if leaking:
            yield Term("leak", name, MULTIPLY, leaking * times)
    subtracts = isinstance(neurons, LIF) and isinstance(neurons.reset, ResetSubtract)
    if convention.count_reset and subtracts:
        yield Term("reset", name, ACCUMULATE, int(record.spikes[name].sum()))


def _leaking(graph: Graph, population: Population) -> int:
    """Neurons that keep a share of their membrane: neither all of it nor nothing."""
    decay, form = population.neurons.decay, graph.number_format
    if form is not None:
        decay = kept_share(np.asarray(decay), form.decay_rule, form.decay_bits)
    leaks = (decay != 0) & (decay != 1)
    return int(np.broadcast_to(leaks, population.shape).sum())


def _memory(
    graph: Graph, population: Population, record: Record, convention: Convention
) -> Iterator[Term]:
    """One read of a weight per event, and membranes by the convention's rule."""
    rule = convention.memory
    if rule not in ("per_update", "per_event"):
        return
    events = sum(int(record.events[p.name].sum()) for p in graph.incoming(population.name))
    reads, writes = membrane_accesses(population_count(population, record), events, rule)
    yield Term("weights", population.name, READ, events)
    yield Term("membranes", population.name, READ, reads)
    yield Term("membranes", population.name, WRITE, writes)
