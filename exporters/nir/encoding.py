"""A graph as NIR nodes in float semantics, for other simulators to run.

What the format has no place for (how a spike resets, several spikes per timestep) is metadata of
the node it concerns; :mod:`compatibility` says who runs the file exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import nir
import numpy as np
from snn_deploy.exporters.nir.assembly import Assembly, Edge
from snn_deploy.exporters.nir.neurons import TIMESTEP, DialectName, nodes_of
from snn_deploy.exporters.nir.projections import Ends, add_projection, branches, identity
from snn_deploy.exporters.nir.values import Float, dynamics, forgets, has_memory, weights

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Integrator, Population, Projection
from snn_deploy.synapses import Conv2d


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A graph of NIR nodes.

    ``nodes``: by input and population, the node that stands for it; of a readout without a memory,
    the Output. ``late``: edges that close a loop.
    """

    graph: nir.NIRGraph
    dialect: DialectName
    nodes: dict[str, str]
    late: frozenset[Edge]

    @property
    def dt(self) -> float:
        """Length of a timestep, in the unit of the file's time constants."""
        return TIMESTEP[self.dialect]


def node_names(graph: Graph, dialect: DialectName) -> dict[str, str]:
    """The node of every population, and of every input that feeds something.

    Of inputs that always fire no node is made where a bias says the same.
    """
    return _place(graph, dialect, Assembly())[0]


def encode(graph: Graph, dialect: DialectName = "portable", most: int | None = None) -> Encoded:
    """Build the NIR graph.

    Parameters
    ----------
    most : how many weights may be made, None for any number.

    Raises
    ------
    SnnDeployError
        SD204 naming the place that NIR, or the dialect, cannot say; SD405 for more than ``most``.
    """
    assembly = Assembly(most)
    names, outputs = _place(graph, dialect, assembly)
    for population in graph.populations:
        _add_population(assembly, graph, population, dialect, names, outputs)
    edges = assembly.sorted_edges()
    try:
        made = nir.NIRGraph(nodes=assembly.nodes, edges=edges, type_check=True)
    except ValueError as error:
        raise SnnDeployError("SD204", f"NIR cannot say this graph ({error})") from None
    return Encoded(made, dialect, names, frozenset(assembly.late))


def _place(
    graph: Graph, dialect: DialectName, assembly: Assembly
) -> tuple[dict[str, str], dict[str, str]]:
    """Add Input and Output nodes, name the others; returns nodes and Outputs, by population.

    A population that feeds nothing has an Output even if nobody asked for it: NIR adds one, else.
    """
    sources = {p.source for p in graph.projections if _held(graph, p) is None}
    inputs = [spec for spec in graph.inputs if spec.name in sources]
    ends = [p for p in graph.populations if p.name in graph.outputs or p.name not in sources]
    names, outputs = {}, {}
    for spec in inputs:
        wanted = "input" if len(inputs) == 1 else f"{spec.name}_input"
        names[spec.name] = assembly.add(wanted, nir.Input({"input": np.array(spec.shape)}))
    for population in ends:
        wanted = "output" if len(ends) == 1 else f"{population.name}_output"
        node = nir.Output({"output": np.array(population.shape)})
        outputs[population.name] = assembly.add(wanted, node)
    for population in graph.populations:
        if _is_current(graph, population, dialect):
            names[population.name] = outputs[population.name]
        else:
            names[population.name] = assembly.reserve(f"{population.name}_neurons")
    return names, outputs


def _is_current(graph: Graph, population: Population, dialect: DialectName) -> bool:
    """Whether the output is a current without memory: no node, the reader averages it."""
    if not isinstance(population.neurons, Integrator) or not forgets(graph, population):
        return False
    joined = has_memory(graph, population) and not _apart(graph, population, dialect)
    return not joined and _per_channel(population)


def _apart(graph: Graph, population: Population, dialect: DialectName) -> bool:
    """Whether a synaptic current with a memory is a node of its own.

    sinabs has no other way; elsewhere it is one where the sum of a host bypasses the memory.
    """
    return dialect == "sinabs" or any(graph.on_host(p) for p in graph.incoming(population.name))


def _per_channel(population: Population) -> bool:
    """Whether weights can add the bias: one per neuron of a vector, or per channel of a map."""
    bias = population.neurons.bias
    return len(population.shape) == 1 or bias.ndim < 3 or bool((bias == bias[:, :1, :1]).all())


def _held(graph: Graph, projection: Projection) -> Float | None:
    """What an input that always fires adds to every channel, where other weights can hold it.

    Shape (N,), or (C, 1, 1); None for other projections, and where there are no such weights.
    """
    spec = next((i for i in graph.inputs if i.name == projection.source), None)
    if spec is None or not spec.always_fires or projection.longest_delay:
        return None
    synapses = projection.synapses
    if isinstance(synapses, Conv2d) and synapses.padding != (0, 0):
        return None
    if not any(_holds(graph, p) for p in graph.incoming(projection.target)):
        return None
    pool = 1 if projection.pool is None else math.prod(projection.pool.kernel)
    summed = weights(graph, projection).reshape(len(synapses.weight), -1).sum(axis=1) * pool
    axes = len(graph.shape_of(projection.target))
    return np.asarray(summed.reshape(-1, *[1] * (axes - 1)))


def _holds(graph: Graph, projection: Projection) -> bool:
    """Whether weights of a projection can hold a bias of the synaptic current."""
    source = next((i for i in graph.inputs if i.name == projection.source), None)
    itself = projection.source == projection.target
    always = source is not None and source.always_fires
    return not (itself or always or graph.on_host(projection))


def _add_population(
    assembly: Assembly,
    graph: Graph,
    population: Population,
    dialect: DialectName,
    names: dict[str, str],
    outputs: dict[str, str],
) -> None:
    """Add the nodes of a population and of what projects to it."""
    neurons, name = dynamics(graph, population), population.name
    held = {p.name: _held(graph, p) for p in graph.incoming(name)}
    incoming = [p for p in graph.incoming(name) if held[p.name] is None]
    place = {n: i for i, n in enumerate(n for group in graph.order for n in group)}

    def late(projection: Projection) -> bool:
        return place.get(projection.source, -1) >= place[projection.target]

    biases: dict[str, Float] = {}  # by projection whose weights add them

    def put(value: Float, among: list[Projection]) -> None:
        carrier = min(among, key=late).name
        biases[carrier] = biases.get(carrier, np.zeros(population.shape)) + value

    for value in held.values():
        if value is not None:
            put(value, [p for p in incoming if _holds(graph, p)])
    beside = [p for p in incoming if p.source != p.target]
    if neurons.current_kept is not None:
        beside = [p for p in beside if graph.on_host(p)]
    drive = neurons.bias if (neurons.bias != 0).any() else None
    target = names[name]
    if _is_current(graph, population, dialect):
        nodes = nodes_of(neurons, None, dialect, apart=True, where=name)
        # Readers return what arrives at an Output as it is: sums are made before it.
        if sum(branches(graph, p) for p in incoming) > 1 or (drive is not None and not beside):
            target = assembly.add(f"{name}_sum", identity(assembly, population.shape, neurons.bias))
            assembly.edges.append((target, outputs[name]))
        elif drive is not None:
            put(drive, beside)
    else:
        if drive is not None and beside and _per_channel(population):
            put(drive, beside)
            drive = None
        apart = _apart(graph, population, dialect)
        nodes = nodes_of(neurons, drive, dialect, apart=apart, where=name)
        assembly.nodes[target] = nodes.body
        if name in outputs:
            assembly.edges.append((target, outputs[name]))
    synaptic = target
    if nodes.current is not None:
        synaptic = assembly.add(f"{name}_current", nodes.current)
        assembly.edges.append((synaptic, target))
    for projection in incoming:
        ends = Ends(
            source=names[projection.source],
            target=target if graph.on_host(projection) else synaptic,
            bias=biases.get(projection.name),
            dt=TIMESTEP[dialect],
            late=late(projection),
        )
        add_projection(assembly, graph, projection, ends)
