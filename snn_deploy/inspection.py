"""What is in an exported folder or a network file: one record, for people and programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.artefacts import open_artefact
from snn_deploy.errors import SnnDeployError
from snn_deploy.exporters import ReadOptions
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.hardware import Target, target
from snn_deploy.mapping import Finding, design_rules
from snn_deploy.sim.timing import pipelined
from snn_deploy.synapses import Dense, Shape

Span = tuple[int, int] | tuple[float, float]


@dataclass(frozen=True, slots=True)
class InputSummary:
    """One input: what it is fed."""

    name: str
    kind: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class PopulationSummary:
    """One population; parameters as (smallest, largest), integers where the network is integer.

    ``stage``: timesteps it runs behind the zero-delay network on a pipelined chip, None where the
    network cannot be pipelined.
    """

    name: str
    shape: Shape
    neurons: int
    model: str
    current_decay: Span | None
    decay: Span
    threshold: Span | None
    bias: Span
    stage: int | None


@dataclass(frozen=True, slots=True)
class ProjectionSummary:
    """One projection; ``synapses`` counts pairs of neurons, ``weights`` what is stored."""

    name: str
    kind: str
    weights: int
    weight: Span
    exponent: int
    delay: Span
    synapses: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """A network, summed up."""

    path: str
    timesteps: int | None
    inputs: tuple[InputSummary, ...]
    populations: tuple[PopulationSummary, ...]
    projections: tuple[ProjectionSummary, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    design_rules: tuple[Finding, ...]


def inspect(
    path: str | os.PathLike[str],
    *,
    to: Target | str | None = None,
    reading: ReadOptions | None = None,
) -> Inspection:
    """Sum up an exported folder, a ``.nir`` or a ``.net`` file.

    Parameters
    ----------
    path, reading : as :func:`snn_deploy.artefacts.open_artefact`, with its errors.
    to : chip whose design rules are checked; default: the one that the network is for.

    Raises
    ------
    SnnDeployError
        SD105 or SD201 for a chip that is unknown or has no number format, besides.
    """
    artefact = open_artefact(path, reading)
    graph = artefact.graph
    chip = artefact.target if to is None else to
    if isinstance(chip, str):
        chip = target(chip)
    findings = () if chip is None else design_rules(graph, chip.require_format())
    try:
        stages = pipelined(graph).stages
    except SnnDeployError:
        stages = {}
    return Inspection(
        path=str(path),
        timesteps=graph.timesteps,
        inputs=tuple(InputSummary(i.name, i.kind, i.shape) for i in graph.inputs),
        populations=tuple(_population(p, stages.get(p.name)) for p in graph.populations),
        projections=tuple(_projection(graph, p) for p in graph.projections),
        outputs=graph.outputs,
        notes=artefact.notes,
        design_rules=findings,
    )


def _span(values: NDArray[Any] | int) -> Span:
    ends = np.min(values).item(), np.max(values).item()
    return ends[0], ends[1]


def _population(population: Population, stage: int | None) -> PopulationSummary:
    neurons = population.neurons
    memory = neurons.current_decay
    model = "integrator"
    if isinstance(neurons, LIF):
        model = "LIF" if memory is None else "current-based LIF"
        if isinstance(neurons.reset, ResetSubtract):
            model += ", reset by subtraction"
    elif memory is not None:
        model = "current-based integrator"
    return PopulationSummary(
        name=population.name,
        shape=population.shape,
        neurons=population.size,
        model=model,
        current_decay=None if memory is None else _span(memory),
        decay=_span(neurons.decay),
        threshold=_span(neurons.threshold) if isinstance(neurons, LIF) else None,
        bias=_span(neurons.bias),
        stage=stage,
    )


def _projection(graph: Graph, projection: Projection) -> ProjectionSummary:
    synapses = projection.synapses
    kind = "dense"
    if not isinstance(synapses, Dense):
        kind = "conv2d" if synapses.groups == 1 else f"conv2d in {synapses.groups} groups"
    if projection.pool is not None:
        kind = f"sum pool, {kind}"
    return ProjectionSummary(
        name=projection.name,
        kind=kind,
        weights=synapses.weight.size,
        weight=_span(synapses.weight),
        exponent=projection.exponent,
        delay=_span(projection.delay),
        synapses=int(graph.fan_out(projection).sum()),
    )
