"""Memory accesses and addressing of Lemaire et al., ICONIP 2022 (arXiv 2210.13107).

The paper's equations, per population: an event-driven layer reads each incoming spike, a weight and
a membrane per target of the kernel, borders not seen; every evaluation updates all membranes. Its
twin is a layer that reads an input and a weight per multiplication. Equation 16.3 has one addition
per kernel place and output channel; Qualia, which implements the paper, has one per place only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from snn_deploy.counting.conventions import Convention
from snn_deploy.counting.fans import kernel_targets, padded_products
from snn_deploy.counting.roles import is_handed_on, is_shortcut
from snn_deploy.counting.terms import (
    ACCUMULATE,
    MULTIPLY,
    READ,
    WRITE,
    Term,
    arrivals,
    evaluations,
    has_bias,
)
from snn_deploy.graph import LIF, Graph, Population, Projection
from snn_deploy.sim import Record
from snn_deploy.synapses import Dense, as_map, pooled_shape


def lemaire_terms(graph: Graph, record: Record, convention: Convention) -> Iterator[Term]:
    """Accesses and addressing of every population and its twin."""
    if convention.memory != "lemaire2022":
        return
    for population in graph.populations:
        weighing = [
            p
            for p in graph.incoming(population.name)
            if not is_shortcut(graph, p) and not is_handed_on(graph, p)
        ]
        yield from _spiking(graph, population, weighing, record, convention)
        yield from _twin(graph, population, weighing)


def _spiking(
    graph: Graph,
    population: Population,
    weighing: list[Projection],
    record: Record,
    convention: Convention,
) -> Iterator[Term]:
    name = population.name
    times = evaluations(graph, population, record, convention.first_layer == "once")
    came = [(p, arrivals(graph, p, record)) for p in weighing]
    targets = sum(n * kernel_targets(p.synapses) for p, n in came)
    membranes = targets + population.size * times
    yield Term("inputs", name, READ, sum(n for _, n in came))
    yield Term("weights", name, READ, targets)
    if has_bias(population):
        yield Term("biases", name, READ, population.size * times)
    yield Term("membranes", name, READ, membranes)
    yield Term("membranes", name, WRITE, membranes)
    if isinstance(population.neurons, LIF):
        yield Term("outputs", name, WRITE, int(record.spikes[name].sum()))
    starts = sum(2 * n for p, n in came if not isinstance(p.synapses, Dense))
    if starts:
        yield Term("addresses", name, MULTIPLY, starts)
    yield Term("addresses", name, ACCUMULATE, targets)


def _twin(graph: Graph, population: Population, weighing: list[Projection]) -> Iterator[Term]:
    name, size = population.name, population.size
    inputs = weights = addresses = 0
    for projection in weighing:
        synapses = projection.synapses
        seen = pooled_shape(graph.shape_of(projection.source), projection.pool)
        products = padded_products(synapses, seen)
        weights += products
        if isinstance(synapses, Dense):
            inputs += math.prod(seen)
            addresses += products
        else:
            inputs += products
            outputs, _, *kernel = synapses.weight.shape
            addresses += math.prod(as_map(seen)) + size + outputs * math.prod(kernel)
    yield Term("inputs", name, READ, inputs, twin=True)
    yield Term("weights", name, READ, weights, twin=True)
    if has_bias(population):
        yield Term("biases", name, READ, size, twin=True)
    yield Term("outputs", name, WRITE, size, twin=True)
    yield Term("addresses", name, ACCUMULATE, addresses, twin=True)
