"""One population of a graph by itself: what feeds it becomes its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from snn_deploy.graph import Graph, InputSpec
from snn_deploy.packets import Recording


def isolated(graph: Graph, name: str) -> Graph:
    """The graph of population ``name`` alone; it is fed the spikes of others, and its own, too."""
    inputs: list[InputSpec] = []
    projections = []
    for projection in graph.incoming(name):
        source = projection.source
        if graph.is_input(source):
            inputs.append(graph.input(source))
            projections.append(projection)
            continue
        sender = graph.population(source)
        spec = InputSpec(name=_given(source), kind="spikes", shape=sender.shape)
        if sender.max_spikes > 1:  # counts, as payloads in steps of 1
            spec = replace(spec, kind="graded", high=float(sender.max_spikes), scale=1.0)
        inputs.append(spec)
        projections.append(replace(projection, source=spec.name))
    return replace(
        graph,
        inputs=tuple(inputs),
        populations=(graph.population(name),),
        projections=tuple(projections),
        outputs=(name,),
    )


def feed(alone: Graph, recording: Recording, spikes: Mapping[str, NDArray[Any]]) -> Recording:
    """Inputs of an isolated population: the recording's (its inputs named), and given spikes."""
    fed: dict[str, NDArray[Any]] = {}
    payloads: dict[str, NDArray[Any]] = {}
    sent = {_given(name): counts for name, counts in spikes.items()}
    for spec in alone.fed:
        held = fed if spec.kind == "spikes" else payloads
        own = recording.spikes if spec.kind == "spikes" else recording.values
        held[spec.name] = sent[spec.name] if spec.name in sent else own[spec.name]
    return Recording(spikes=fed, values=payloads)


def _given(source: str) -> str:
    return f"{source}.given"
