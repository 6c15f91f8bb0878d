"""Balance the paths of a pipelined network: what arrives early waits in relays or delays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection
from snn_deploy.sim.timing import pipelined
from snn_deploy.synapses import Dense, one_to_one


def insert_relays(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """A graph in which every projection takes one hop, or waits in delayed dense synapses.

    Where the stages of two populations differ by more than a hop, spikes that leave through a
    convolution (which knows no delays) are handed on by relays: populations that repeat every spike
    of their source, a stage later. All projections of a source share its relays.

    Returns
    -------
    Graph
        The graph with its relays, which does the same.
    tuple of str
        Names of the relays.

    Raises
    ------
    SnnDeployError
        SD207 where the graph cannot be pipelined, SD204 where spikes of an input would have to
        wait, or several spikes per timestep.
    """
    timed = pipelined(graph)
    number_format = graph.number_format
    if number_format is None or number_format.hop_delay == 0:
        return graph, ()
    stages = dict(timed.stages)
    populations, projections = list(graph.populations), []
    relays: list[str] = []

    def waiting(source: str, stage: int) -> str:
        """Name of what repeats ``source`` one hop before ``stage``."""
        here = stages.get(source, 0)
        name, behind = source, here
        while behind < stage - number_format.hop_delay:
            behind += number_format.hop_delay
            following = f"{source}_relay{behind - here}"
            if following not in relays:
                relays.append(following)
                populations.append(_relay(graph, following, source))
                projections.append(
                    Projection(
                        source=name,
                        target=following,
                        synapses=one_to_one(graph.shape_of(source), _relay_weight(graph)),
                    )
                )
            name = following
        return name

    for projection in graph.projections:
        if graph.is_constant(projection):
            projections.append(projection)
            continue
        late = stages[projection.target] - stages.get(projection.source, 0)
        if late <= number_format.hop_delay or isinstance(projection.synapses, Dense):
            projections.append(projection)
            continue
        if graph.is_input(projection.source) and graph.carries_values(projection):
            raise SnnDeployError(
                "SD204", "values of an input cannot wait in relays", where=projection.name
            )
        name = waiting(projection.source, stages[projection.target])
        projections.append(replace(projection, source=name))
    mapped = replace(graph, populations=tuple(populations), projections=tuple(projections))
    return mapped, tuple(relays)


def _relay_weight(graph: Graph) -> int:
    """The smallest weight of the format that lifts a membrane above a threshold of 1."""
    assert graph.number_format is not None
    return max(2, graph.number_format.weight_step)


def _relay(graph: Graph, name: str, source: str) -> Population:
    if any(p.name == source and p.max_spikes > 1 for p in graph.populations):
        raise SnnDeployError("SD204", "a relay repeats one spike per timestep", where=source)
    one = np.array(1, np.int64)
    nothing = np.zeros((), np.int64)
    neurons = LIF(decay=nothing, threshold=one, bias=nothing)
    return Population(name=name, shape=graph.shape_of(source), neurons=neurons, scale=1.0)
