"""A record counted by a convention: synaptic operations per projection, all else in terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from snn_deploy.counting.activity import PopulationCount, activity
from snn_deploy.counting.conventions import Convention
from snn_deploy.counting.fans import FanOutRule, fan
from snn_deploy.counting.lemaire import lemaire_terms
from snn_deploy.counting.roles import is_handed_on, is_shortcut, sent_by, values_per_neuron
from snn_deploy.counting.terms import ACCUMULATE, Term, number, terms
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Projection
from snn_deploy.sim import Record
from snn_deploy.synapses import pooled_shape


@dataclass(frozen=True, slots=True)
class ProjectionCount:
    """Operations of one projection, summed over all samples; ``twin`` is per inference.

    Whole numbers, except where a convention multiplies by a mean rate.
    """

    name: str
    source: str
    target: str
    accumulates: int | float
    multiply_accumulates: int | float
    twin: int | float


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything counted, with the convention that counted it.

    ``terms`` are what a convention counts besides synaptic operations and neuron updates;
    ``remarks`` what a reader has to know about the figures.
    """

    convention: Convention
    samples: int
    timesteps: int
    projections: tuple[ProjectionCount, ...]
    populations: tuple[PopulationCount, ...]
    terms: tuple[Term, ...] = ()
    remarks: tuple[str, ...] = ()


def count(
    graph: Graph,
    record: Record,
    convention: Convention,
    ann_density: Mapping[str, float] | None = None,
) -> Counts:
    """Count the operations of a run.

    Parameters
    ----------
    graph : the graph that ran.
    record : its record, of a run with zero-delay timing.
    convention : how to count.
    ann_density : per population, the share of the twin's activations that are not zero, where that
        is known and the convention asks (``ann_activation_sparsity``); 1 otherwise.

    Raises
    ------
    SnnDeployError
        SD407 if the events that the engine carried out are not the record's dot product, SD104 for
        a density that is no share.
    """
    density = dict(ann_density or {})
    for name, share in density.items():
        if not 0 <= share <= 1:
            raise SnnDeployError("SD104", f"a share of {share} activations", where=name)
    for projection in graph.projections:
        _check_events(graph, projection, record)
    populations = activity(graph, record)
    remarks = list(convention.remarks)
    dense = [p.name for p in populations if p.spiking and p.name not in density]
    if convention.ann_activation_sparsity and dense:
        remarks.append(
            "no activation of the twin is taken for zero in " + ", ".join(dense) + ", since its "
            "own were not measured"
        )
    projections = tuple(
        _projection(graph, p, record, convention, density) for p in graph.projections
    )
    found = [*terms(graph, record, convention), *lemaire_terms(graph, record, convention)]
    if convention.ann_adds:
        for population in populations:
            twin = sum(p.twin for p in projections if p.target == population.name)
            found.append(Term("addition of a MAC", population.name, ACCUMULATE, twin, twin=True))
    return Counts(
        convention=convention,
        samples=record.samples,
        timesteps=record.timesteps,
        projections=projections,
        populations=populations,
        terms=tuple(term for term in found if term.count),
        remarks=tuple(remarks),
    )


def _check_events(graph: Graph, projection: Projection, record: Record) -> None:
    """The engine carried out what follows from what was sent."""
    done = int(record.events[projection.name].sum())
    follow = int((sent_by(graph, projection, record) * graph.fan_out(projection)).sum())
    if projection.longest_delay == 0 and done != follow:
        raise SnnDeployError(
            "SD407",
            "the engine's events are not spikes times fan-out",
            where=projection.name,
            why=f"{done} were carried out, {follow} follow",
        )


def _projection(
    graph: Graph,
    projection: Projection,
    record: Record,
    convention: Convention,
    density: Mapping[str, float],
) -> ProjectionCount:
    accumulates = products = Fraction(0)
    if graph.carries_values(projection):
        if convention.values == "mac" and not is_handed_on(graph, projection):
            products = _products(graph, projection, record, convention)
    elif convention.count_residual or not is_shortcut(graph, projection):
        source = graph.shape_of(projection.source)
        accumulates = fan(
            projection.synapses,
            projection.pool,
            source,
            convention.fanout,
            convention.zero_weights,
        ).total(sent_by(graph, projection, record))
    return ProjectionCount(
        name=projection.name,
        source=projection.source,
        target=projection.target,
        accumulates=number(accumulates),
        multiply_accumulates=number(products),
        twin=number(_twin(graph, projection, record, convention, density)),
    )


def _products(
    graph: Graph, projection: Projection, record: Record, convention: Convention
) -> Fraction:
    """Multiply-accumulates of values, all samples."""
    fans = fan(
        projection.synapses,
        projection.pool,
        graph.shape_of(projection.source),
        _of_values(convention),
        convention.zero_weights,
    )
    again = graph.is_constant(projection) and convention.first_layer == "per_timestep"
    repeats = record.timesteps if again else 1
    if convention.zero_values == "counted":
        return fans.total() * values_per_neuron(graph, projection, record) * repeats
    return fans.total(sent_by(graph, projection, record)) * repeats


def _twin(
    graph: Graph,
    projection: Projection,
    record: Record,
    convention: Convention,
    density: Mapping[str, float],
) -> Fraction:
    """Multiply-accumulates of one inference of the twin; it pools first."""
    if is_handed_on(graph, projection) or is_shortcut(graph, projection):
        return Fraction(0)
    seen = pooled_shape(graph.shape_of(projection.source), projection.pool)
    fans = fan(projection.synapses, None, seen, _of_values(convention), convention.zero_weights)
    if not convention.ann_activation_sparsity:
        return fans.total()
    if graph.is_input(projection.source) and projection.pool is None:
        sent = sent_by(graph, projection, record)
        return fans.total(sent) / values_per_neuron(graph, projection, record)
    return fans.total() * Fraction(density.get(projection.source, 1))


def _of_values(convention: Convention) -> FanOutRule:
    """A bound on a spike's fan-out says nothing of a whole layer: that is padded."""
    return "exact" if convention.fanout == "exact" else "padded"
