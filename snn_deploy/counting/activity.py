"""What neurons and synapses did, whoever counts operations: spikes, events, updates, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.counting.roles import sent_by, values_per_neuron
from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.sim import Record

MembraneAccess = Literal["per_update", "per_event"]


@dataclass(frozen=True, slots=True)
class PopulationCount:
    """Activity of one population, summed over all samples and timesteps."""

    name: str
    neurons: int
    spiking: bool
    spikes: int
    active_updates: int
    inactive_updates: int


def activity(graph: Graph, record: Record) -> tuple[PopulationCount, ...]:
    """Spikes and neuron updates of every population in a run of any timing."""
    return tuple(population_count(p, record) for p in graph.populations)


def population_count(population: Population, record: Record) -> PopulationCount:
    """Spikes and neuron updates of one population."""
    spikes, updates = record.spikes.get(population.name), record.updates[population.name]
    active = int(updates.sum())
    return PopulationCount(
        name=population.name,
        neurons=population.size,
        spiking=spikes is not None,
        spikes=0 if spikes is None else int(spikes.sum()),
        active_updates=active,
        inactive_updates=population.size * record.samples * record.timesteps - active,
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """A count's distribution over samples; ``deviation`` is that of the samples at hand (1/n)."""

    mean: float
    deviation: float
    least: int
    most: int

    @staticmethod
    def of(counts: NDArray[np.int64]) -> Spread:
        """Of one count per sample, [samples]."""
        return Spread(
            float(counts.mean()), float(counts.std()), int(counts.min()), int(counts.max())
        )


@dataclass(frozen=True, slots=True)
class ProjectionActivity:
    """Activity of one projection.

    Attributes
    ----------
    name, source, target : of the projection.
    synapses : pairs of a source and a target neuron that it joins, exact at borders.
    sent : what the source sent: spikes, or values that are not zero; all samples, a constant value
        once per sample.
    events : per sample: what was sent, times the targets that it reached.
    weighted_rate : mean over synapses of what they carried per timestep (values: per value).
    """

    name: str
    source: str
    target: str
    synapses: int
    sent: int
    events: Spread
    weighted_rate: float


@dataclass(frozen=True, slots=True)
class PopulationActivity:
    """Activity of one population.

    Attributes
    ----------
    name, neurons, spiking : of the population; what does not spike has no spikes and no rates.
    spikes : per sample.
    active_updates, inactive_updates : per sample: neurons and timesteps in which the membrane
        changed or the neuron fired, and all others.
    events_in, events_out : per sample: events of the projections that end and begin here.
    rate : spikes per neuron and timestep.
    weighted_rate : the same, each neuron weighed by its fan-out; None where nothing is sent on.
    dead : neurons that never fired in the whole recording.
    saturated : neurons that fired at every timestep of every sample (where a neuron may fire
        several times: as often as it may).
    weight_reads : one per event that comes in; all samples.
    membrane_reads, membrane_writes : all samples. ``per_update``: a timestep reads every membrane
        and writes those that changed. ``per_event``: every event reads and writes one.
    """

    name: str
    neurons: int
    spiking: bool
    spikes: Spread
    active_updates: Spread
    inactive_updates: Spread
    events_in: Spread
    events_out: Spread
    rate: float | None
    weighted_rate: float | None
    dead: int
    saturated: int
    weight_reads: int
    membrane_reads: int
    membrane_writes: int


@dataclass(frozen=True, slots=True)
class ActivityRecord:
    """What a run did, per population and projection; ``membrane`` is the rule of its accesses."""

    samples: int
    timesteps: int
    membrane: MembraneAccess
    populations: tuple[PopulationActivity, ...]
    projections: tuple[ProjectionActivity, ...]


def activity_record(
    graph: Graph, record: Record, membrane: MembraneAccess = "per_update"
) -> ActivityRecord:
    """Activity of every population and projection, with its spread over samples.

    Parameters
    ----------
    graph, record : what ran, with any timing, and its record.
    membrane : when membranes are read and written.
    """
    return ActivityRecord(
        samples=record.samples,
        timesteps=record.timesteps,
        membrane=membrane,
        populations=tuple(_population(graph, p, record, membrane) for p in graph.populations),
        projections=tuple(_projection(graph, p, record) for p in graph.projections),
    )


def membrane_accesses(
    population: PopulationCount, events: int, rule: MembraneAccess
) -> tuple[int, int]:
    """Reads and writes of a population's membranes that ``events`` reached."""
    if rule == "per_event":
        return events, events
    return population.active_updates + population.inactive_updates, population.active_updates


def _projection(graph: Graph, projection: Projection, record: Record) -> ProjectionActivity:
    fans = graph.fan_out(projection)
    sent = sent_by(graph, projection, record)
    times = values_per_neuron(graph, projection, record)
    synapses = int(fans.sum())
    return ProjectionActivity(
        name=projection.name,
        source=projection.source,
        target=projection.target,
        synapses=synapses,
        sent=int(sent.sum()),
        events=Spread.of(record.events[projection.name]),
        weighted_rate=int((sent * fans).sum()) / (synapses * times) if synapses else 0.0,
    )


def _population(
    graph: Graph, population: Population, record: Record, membrane: MembraneAccess
) -> PopulationActivity:
    name, size = population.name, population.size
    count = population_count(population, record)
    nothing = np.zeros(record.samples, np.int64)
    coming = sum((record.events[p.name] for p in graph.incoming(name)), nothing)
    outgoing = [p for p in graph.projections if p.source == name]
    going = sum((record.events[p.name] for p in outgoing), nothing)
    events = int(coming.sum())
    reads, writes = membrane_accesses(count, events, membrane)
    slots = record.samples * record.timesteps
    rate = weighted = None
    dead = saturated = 0
    if count.spiking:
        spikes = record.spikes[name]
        fans = sum((graph.fan_out(p) for p in outgoing), np.zeros(population.shape, np.int64))
        rate = count.spikes / (size * slots)
        if fans.any():
            weighted = int((spikes * fans).sum()) / (int(fans.sum()) * slots)
        dead = int((spikes == 0).sum())
        saturated = int((spikes == slots * population.max_spikes).sum())
    updates = record.updates[name]
    return PopulationActivity(
        name=name,
        neurons=size,
        spiking=count.spiking,
        spikes=Spread.of(record.sample_spikes.get(name, nothing)),
        active_updates=Spread.of(updates),
        inactive_updates=Spread.of(size * record.timesteps - updates),
        events_in=Spread.of(coming),
        events_out=Spread.of(going),
        rate=rate,
        weighted_rate=weighted,
        dead=dead,
        saturated=saturated,
        weight_reads=events,
        membrane_reads=reads,
        membrane_writes=writes,
    )
