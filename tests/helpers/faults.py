"""Deliberately wrong steps, planted in one place of an integer graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract, ResetTo
from snn_deploy.synapses import Dense, pooled_shape, with_weights


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A graph with a fault, where it is, and what it must be called."""

    graph: Graph
    population: str
    causes: tuple[str, ...]


Plant = Callable[[Graph, np.random.Generator], Planted | None]


def with_projection(graph: Graph, old: Projection, **changes: Any) -> Graph:
    """The graph with one projection changed."""
    new = replace(old, **changes)
    return replace(graph, projections=tuple(new if p is old else p for p in graph.projections))


def with_population(graph: Graph, name: str, **changes: Any) -> Graph:
    """The graph with other neuron parameters in one population."""

    def changed(p: Population) -> Population:
        return replace(p, neurons=replace(p.neurons, **changes)) if p.name == name else p

    return replace(graph, populations=tuple(changed(p) for p in graph.populations))


def _one(rng: np.random.Generator, items: list[Any]) -> Any:
    return items[rng.integers(len(items))] if items else None


def _reweighed(graph: Graph, projection: Projection, weight: Any) -> Graph:
    synapses = with_weights(projection.synapses, np.asarray(weight, np.int64))
    return with_projection(graph, projection, synapses=synapses)


def weight_off_by_one(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """One weight a step too large or too small."""
    projection = _one(rng, list(graph.projections))
    assert graph.number_format is not None
    weight = projection.synapses.weight.astype(np.int64)
    step = 1 if graph.on_host(projection) else graph.number_format.weight_step
    weight.flat[rng.integers(weight.size)] += step * rng.choice((-1, 1))
    return Planted(_reweighed(graph, projection, weight), projection.target, ("rounding",))


def pool_scale_forgotten(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """Weights as many times too large as the pool's window has places."""
    pooled = [
        p
        for p in graph.projections
        if p.pool is not None
        and p.pool.kernel != (1, 1)
        and np.count_nonzero(p.synapses.weight) > 1
    ]
    projection = _one(rng, pooled)
    if projection is None:
        return None
    window = int(np.prod(projection.pool.kernel))
    weight = projection.synapses.weight.astype(np.int64) * window
    return Planted(_reweighed(graph, projection, weight), projection.target, ("scale",))


def flatten_swapped(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """The columns of a matrix behind a map in H, W, C order, for one that comes as C, H, W."""

    def seen(p: Projection) -> tuple[int, ...]:
        return pooled_shape(graph.shape_of(p.source), p.pool)

    flat = [
        p
        for p in graph.projections
        if isinstance(p.synapses, Dense)
        and len(seen(p)) == 3
        and not isinstance(p.delay, np.ndarray)
    ]
    projection = _one(rng, flat)
    if projection is None:
        return None
    weight = projection.synapses.weight
    swapped = weight.reshape(len(weight), *seen(projection)).transpose(0, 2, 3, 1)
    swapped = swapped.reshape(weight.shape)
    if np.array_equal(swapped, weight):
        return None
    return Planted(_reweighed(graph, projection, swapped), projection.target, ("order",))


def bias_dropped(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """A population without its biases."""
    population = _one(rng, [p for p in graph.populations if p.neurons.bias.any()])
    if population is None:
        return None
    none = np.zeros_like(population.neurons.bias)
    return Planted(with_population(graph, population.name, bias=none), population.name, ("bias",))


def delay_off_by_one(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """Spikes that arrive a timestep late."""
    late = _one(rng, [p for p in graph.projections if not graph.is_constant(p)])
    if late is None:
        return None
    return Planted(with_projection(graph, late, delay=late.delay + 1), late.target, ("delay",))


def comparator_swapped(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """``>=`` for ``>`` everywhere, or the other way round: matters at ties only."""
    form = graph.number_format
    assert form is not None
    swapped = replace(form, comparator=">" if form.comparator == ">=" else ">=")
    return Planted(replace(graph, number_format=swapped), "", ("comparator",))


def threshold_off_by_one(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """The threshold of one population a mantissa higher."""
    population = _one(rng, [p for p in graph.populations if isinstance(p.neurons, LIF)])
    higher = population.neurons.threshold + 1
    wrong = with_population(graph, population.name, threshold=higher)
    return Planted(wrong, population.name, ("threshold",))


def decay_off_by_one(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """A decay field that differs in its last bit, of the membrane or of the current."""
    population = _one(rng, list(graph.populations))
    which = "decay"
    if population.neurons.current_decay is not None and rng.random() < 0.5:
        which = "current_decay"
    field = getattr(population.neurons, which)
    wrong = with_population(graph, population.name, **{which: np.abs(field - 1)})
    return Planted(wrong, population.name, ("decay",))


def reset_off_by_one(graph: Graph, rng: np.random.Generator) -> Planted | None:
    """A reset that leaves one membrane unit more, or takes one more."""
    population = _one(rng, [p for p in graph.populations if isinstance(p.neurons, LIF)])
    reset = population.neurons.reset
    if isinstance(reset, ResetSubtract):
        wrong: Any = ResetSubtract(reset.amount + 1)
    else:
        wrong = ResetTo(reset.value + 1)
    return Planted(
        with_population(graph, population.name, reset=wrong), population.name, ("reset",)
    )


PLANTS: dict[str, Plant] = {
    f.__name__.replace("_", " "): f
    for f in (
        weight_off_by_one,
        pool_scale_forgotten,
        flatten_swapped,
        bias_dropped,
        delay_off_by_one,
        comparator_swapped,
        threshold_off_by_one,
        decay_off_by_one,
        reset_off_by_one,
    )
}
