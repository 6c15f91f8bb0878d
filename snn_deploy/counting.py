"""What is counted: the one statement, and the conventions that price it.

The raw record of a simulation (:class:`snn_deploy.sim.Record`) says how often each neuron spiked
and each input was not zero. An *accumulate* (AC) is a distinct pair (source neuron, target neuron)
through which a binary spike added a weight, whatever the weight, exact at borders; a
*multiply-accumulate* (MAC) is a value through a weight. Both are dot products of the record with a
fan-out map. A *neuron update* is active if it changed the membrane or fired.

The *ANN twin* is the same network with real-valued activations, evaluated once: every synapse is
one MAC, and pooling happens before the synapses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Projection
from snn_deploy.sim import Record
from snn_deploy.synapses import fan_out, hands_on, pooled_shape

FirstLayer = Literal["once", "per_timestep"]


@dataclass(frozen=True, slots=True)
class Convention:
    """How operations are counted where papers differ.

    Attributes
    ----------
    name : by which a report names it.
    first_layer : MACs of a constant input: ``once``, since its current is the same at every
        timestep, or ``per_timestep``.
    source : where the convention comes from.
    """

    name: str
    first_layer: FirstLayer
    source: str

    def switches(self) -> str:
        """The switches in words, for a report."""
        return (
            f"{self.name}: exact fan-out at borders, zero weights and zero values counted, "
            f"constant-input MACs {self.first_layer.replace('_', ' ')}, "
            "no adds for bias, pooling or reset"
        )


def asgl(first_layer: FirstLayer = "once") -> Convention:
    """ASGL, ICML 2023, Eq. 29 (accumulates) and 30 (the ANN's MACs).

    The paper leaves open whether the MACs of a constant input are spent once or at every timestep.
    """
    return Convention("asgl", first_layer, "ASGL, ICML 2023, Eq. 29-30")


@dataclass(frozen=True, slots=True)
class ProjectionCount:
    """Operations of one projection, summed over all samples; ``twin`` is per inference."""

    name: str
    source: str
    target: str
    accumulates: int
    multiply_accumulates: int
    twin: int


@dataclass(frozen=True, slots=True)
class PopulationCount:
    """Activity of one population, summed over all samples and timesteps."""

    name: str
    neurons: int
    spiking: bool
    spikes: int
    active_updates: int
    inactive_updates: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything counted, with the convention that counted it."""

    convention: Convention
    samples: int
    timesteps: int
    projections: tuple[ProjectionCount, ...]
    populations: tuple[PopulationCount, ...]


def count(graph: Graph, record: Record, convention: Convention) -> Counts:
    """Count the operations of a run.

    Parameters
    ----------
    graph : the graph that ran.
    record : its record, of a run with zero-delay timing.
    convention : how to count.

    Raises
    ------
    SnnDeployError
        SD407 if the events that the engine carried out are not the record's dot product.
    """
    return Counts(
        convention=convention,
        samples=record.samples,
        timesteps=record.timesteps,
        projections=tuple(_projection(graph, p, record, convention) for p in graph.projections),
        populations=activity(graph, record),
    )


def activity(graph: Graph, record: Record) -> tuple[PopulationCount, ...]:
    """Spikes and neuron updates of every population in a run of any timing."""
    return tuple(
        PopulationCount(
            name=p.name,
            neurons=p.size,
            spiking=p.name in record.spikes,
            spikes=int(record.spikes[p.name].sum()) if p.name in record.spikes else 0,
            active_updates=int(record.updates[p.name].sum()),
            inactive_updates=p.size * record.samples * record.timesteps
            - int(record.updates[p.name].sum()),
        )
        for p in graph.populations
    )


def _projection(
    graph: Graph, projection: Projection, record: Record, convention: Convention
) -> ProjectionCount:
    fans = graph.fan_out(projection)
    if graph.is_input(projection.source):
        sent = record.inputs[projection.source]
    else:
        sent = record.spikes[projection.source]
    events = int((sent * fans).sum())
    if projection.longest_delay == 0 and events != int(record.events[projection.name].sum()):
        raise SnnDeployError(
            "SD407",
            "the engine's events are not spikes times fan-out",
            where=projection.name,
            why=f"{int(record.events[projection.name].sum())} were carried out, {events} follow",
        )
    # the host sets a bias as it is: nothing is multiplied
    handed_on = (
        graph.on_host(projection)
        and (projection.pool, projection.exponent) == (None, 0)
        and hands_on(projection.synapses)
    )
    accumulates, products = events, 0
    if graph.carries_values(projection):
        times = record.samples
        constant = graph.input(projection.source).kind == "constant"
        if not constant or convention.first_layer == "per_timestep":
            times *= record.timesteps
        accumulates, products = 0, 0 if handed_on else int(fans.sum()) * times
    shape = graph.shape_of(projection.source)
    pooled = pooled_shape(shape, projection.pool)
    return ProjectionCount(
        name=projection.name,
        source=projection.source,
        target=projection.target,
        accumulates=accumulates,
        multiply_accumulates=products,
        twin=0 if handed_on else int(np.sum(fan_out(projection.synapses, None, pooled))),
    )
