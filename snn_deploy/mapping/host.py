"""Cut off what the host computes: the chip's network begins with biases that the host sets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, InputSpec, Projection
from snn_deploy.numerics import rounding_shift_right
from snn_deploy.packets import Recording
from snn_deploy.quantization.ranges import population_range
from snn_deploy.sim.plan import with_sample_axis
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import one_to_one


@dataclass(frozen=True, slots=True, eq=False)
class HostLayer:
    """The part of a graph that the host computes: from values to the biases of one population."""

    graph: Graph
    population: str

    def biases(self, recording: Recording) -> NDArray[np.int64]:
        """Bias mantissas of every neuron, the network's own included, [samples, *shape].

        Raises
        ------
        SnnDeployError
            SD103 or SD106 if the recording does not fit the graph.
        """
        given = with_sample_axis(self.graph, recording)
        shape = self.graph.shape_of(self.population)
        neurons = self.graph.population(self.population).neurons
        total = np.broadcast_to(neurons.bias.astype(np.int64), shape)
        for projection in self.graph.incoming(self.population):
            spec = self.graph.input(projection.source)
            values = spec.encode(given.values[spec.name])
            sums = synaptic_sum(projection, spec.shape, values)
            total = total + rounding_shift_right(sums, -projection.exponent)
        return np.asarray(total, np.int64)


def split_host(graph: Graph) -> tuple[Graph, HostLayer | None]:
    """The graph as the chip sees it, and what the host does before; None if it does nothing.

    In place of values the chip's graph takes one input ``bias``, an integer per neuron of the first
    population that stays for a whole sample.

    Raises
    ------
    SnnDeployError
        SD204 where the host feeds several populations, or one that spikes reach, too.
    """
    fed = {p.target for p in graph.projections if graph.on_host(p)}
    if not fed or graph.number_format is None:
        return graph, None
    name = sorted(fed)[0]
    if len(fed) > 1 or not all(graph.on_host(p) for p in graph.incoming(name)):
        raise SnnDeployError(
            "SD204",
            "values reach several populations, or one that spikes reach, too",
            where=", ".join(sorted(fed)),
            fix="feed them to one population of their own",
        )
    population = graph.population(name)
    incoming = graph.incoming(name)
    low, high = population_range(graph, population, incoming, graph.number_format).host_bias
    source = "bias"
    others = [i.name for i in graph.inputs if _used(graph, i.name, but=name)]
    if source in (*others, *(p.name for p in graph.populations)):
        raise SnnDeployError(
            "SD204",
            "an input or population called `bias`, as what the host hands over is",
            where=source,
            fix="give it another name",
        )
    spec = InputSpec(
        name=source, kind="constant", shape=population.shape, low=low, high=high, scale=1.0
    )
    chip = replace(
        graph,
        inputs=(*(i for i in graph.inputs if i.name in others), spec),
        populations=tuple(
            replace(p, neurons=replace(p.neurons, bias=np.zeros((), np.int64)))
            if p.name == name
            else p
            for p in graph.populations
        ),
        projections=(
            *(p for p in graph.projections if p.target != name),
            Projection(source=source, target=name, synapses=one_to_one(population.shape)),
        ),
    )
    return chip, HostLayer(graph, name)


def _used(graph: Graph, name: str, *, but: str) -> bool:
    return any(p.source == name and p.target != but for p in graph.projections)
