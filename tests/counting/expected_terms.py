"""What conventions count besides synapses, by the formulas of their sources, written out again."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from snn_deploy.counting import Convention
from snn_deploy.graph import Population, Projection, ResetSubtract
from snn_deploy.sim import Trace
from snn_deploy.synapses import Dense
from tests.counting.enumeration import Enumeration, multiplications, pooled

Terms = Counter[tuple[str, str, str, bool]]
AC, MAC, READ, WRITE = (
    "synaptic_operation",
    "multiply_accumulate",
    "memory_read",
    "memory_write",
)


def expected_terms(run: Enumeration, trace: Trace, convention: Convention) -> dict[Any, Any]:
    """Count by (name, population, operation, twin); none is 0."""
    found: Terms = Counter()
    pools: set[Any] = set()
    for projection in run.graph.projections:
        key = (projection.source, projection.pool)
        if projection.pool is not None and key not in pools and convention.count_pool != "no":
            pools.add(key)
            _pool(found, run, projection, convention)
    for population in run.graph.populations:
        _biases(found, run, population, convention)
        _neurons(found, run, trace, population, convention)
        _memory(found, run, trace, population, convention)
        if convention.memory == "lemaire2022":
            _lemaire(found, run, trace, population, convention)
        if convention.ann_adds:
            for projection in run.graph.incoming(population.name):
                key = ("addition of a MAC", population.name, AC, True)
                found[key] += run.twin(projection, convention)  # type: ignore[assignment]
    return {key: number for key, number in found.items() if number}


def _pool(found: Terms, run: Enumeration, projection: Projection, convention: Convention) -> None:
    target, size = projection.target, prod(run.shapes(projection)[0])
    found["pooling", target, MAC, True] += size
    if not run.carries_values(projection):
        found["pooling", target, AC, False] += sum(run.sent[projection.source].values())
    elif convention.values == "mac":
        steps = 1 if run.is_constant(projection) else run.steps
        if convention.first_layer == "per_timestep":
            steps = run.steps
        found["pooling", target, MAC, False] += size * steps * run.samples


def _times(run: Enumeration, population: Population, convention: Convention) -> int:
    """A layer of nothing but constant current is evaluated once where its MACs are counted once."""
    constant = all(run.is_constant(p) for p in run.graph.incoming(population.name))
    once = constant and convention.first_layer == "once"
    return run.samples * (1 if once else run.steps)


def _biases(found: Terms, run: Enumeration, population: Population, convention: Convention) -> None:
    name, size = population.name, population.size
    if convention.count_bias == "no" or not np.any(population.neurons.bias != 0):
        return
    times = _times(run, population, convention)
    if convention.count_bias == "per_timestep":
        found["bias", name, AC, False] += size * times
        found["bias", name, AC, True] += size
        return
    found["bias", name, MAC, True] += size
    incoming = [p for p in run.graph.projections if p.target == name]
    layers = [p for p in incoming if p.source != name and not run.is_shortcut(p)]
    first = (layers or incoming)[0]
    if run.carries_values(first):
        found["bias", name, MAC, False] += size * times * (convention.values == "mac")
        return
    windows = pooled(first.pool, run.shapes(first)[0])
    seen = sum(run.sent[first.source][neuron] for window in windows.values() for neuron in window)
    found["bias", name, AC, False] += Fraction(size * seen, len(windows))  # type: ignore[assignment]


def _neurons(
    found: Terms, run: Enumeration, trace: Trace, population: Population, convention: Convention
) -> None:
    name, neurons, form = population.name, population.neurons, run.graph.number_format
    spikes = trace.spikes.get(name)
    if convention.count_neuron == "add" and spikes is not None:
        found["neuron", name, AC, False] += population.size * run.steps * run.samples
        found["activation function", name, MAC, True] += population.size
    if convention.count_neuron == "leak":
        everything = 1 if form is None else 2**form.decay_bits
        nothing = 0
        if form is not None and form.decay_rule == "shift_subtract":
            everything = None  # a shift always takes something; one by 0 takes all
        decays = np.broadcast_to(neurons.decay, population.shape).ravel().tolist()
        leaking = sum(decay not in (nothing, everything) for decay in decays)
        found["leak", name, MAC, False] += leaking * _times(run, population, convention)
    if convention.count_reset and spikes is not None and isinstance(neurons.reset, ResetSubtract):  # type: ignore[union-attr]
        found["reset", name, AC, False] += int(spikes.astype(int).sum())


def _memory(
    found: Terms, run: Enumeration, trace: Trace, population: Population, convention: Convention
) -> None:
    name = population.name
    events = sum(int(trace.record.events[p.name].sum()) for p in run.graph.incoming(name))
    active = int(trace.record.updates[name].sum())
    if convention.memory == "per_event":
        reads, writes = events, events
    elif convention.memory == "per_update":
        reads, writes = population.size * run.steps * run.samples, active
    else:
        return
    found["weights", name, READ, False] += events
    found["membranes", name, READ, False] += reads
    found["membranes", name, WRITE, False] += writes


def _lemaire(
    found: Terms, run: Enumeration, trace: Trace, population: Population, convention: Convention
) -> None:
    """Equations 3 to 16.3 of the paper, a layer per projection that weighs something."""
    name, size = population.name, population.size
    times = _times(run, population, convention)
    bias = bool(np.any(population.neurons.bias != 0))
    for projection in run.graph.projections:
        if projection.target != name:
            continue
        if run.is_shortcut(projection) or run.is_handed_on(projection):
            continue
        windows = pooled(projection.pool, run.shapes(projection)[0])
        sent = run.sent[projection.source]
        theta = sum(sent[neuron] for window in windows.values() for neuron in window)
        synapses = projection.synapses
        products = multiplications(projection, population.shape, "counted")
        found["inputs", name, READ, False] += theta
        found["weights", name, READ, True] += products
        if isinstance(synapses, Dense):
            targets = population.size
            found["inputs", name, READ, True] += len(windows)
            found["addresses", name, AC, True] += products
        else:
            outputs, _, height, width = synapses.weight.shape
            targets = outputs // synapses.groups * height * width
            found["inputs", name, READ, True] += products
            found["addresses", name, AC, True] += len(windows) + size + outputs * height * width
            found["addresses", name, MAC, False] += 2 * theta
        found["weights", name, READ, False] += theta * targets
        found["addresses", name, AC, False] += theta * targets
        for operation in (READ, WRITE):
            found["membranes", name, operation, False] += theta * targets
    for operation in (READ, WRITE):
        found["membranes", name, operation, False] += size * times
    found["biases", name, READ, False] += size * times * bias
    found["biases", name, READ, True] += size * bias
    found["outputs", name, WRITE, True] += size
    if name in trace.spikes:
        found["outputs", name, WRITE, False] += int(trace.spikes[name].astype(int).sum())
