"""The integer graph as NIR nodes in float semantics, for other simulators to run.

Euler with dt = 1e-4 s: ``tau = dt / (1 - g)``, ``r = 1``, ``v_leak = v_reset = 0``, so that a
reader's ``v += dt/tau * (x - v)`` is our membrane times (1 - g), and ``v_threshold`` is (1 - g)
times the level that fires. Readers compare with ``>`` or ``>=``; the factor 1 - 2^-22 makes both
fire on a tie. Weights stay integers (in float32, exact); those of values carry the input's step, so
that the file takes normalised values as the trained network did.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetTo
from snn_deploy.numerics import NumberFormat, kept_share
from snn_deploy.synapses import Conv2d, Dense, pooled_shape

DT = 1e-4
TIE_MARGIN = 1 - 2.0**-22

Array = NDArray[Any]


def encode(graph: Graph) -> nir.NIRGraph:
    """Build the NIR graph.

    Raises
    ------
    SnnDeployError
        SD204 naming the place that NIR cannot say.
    """
    number_format = graph.number_format
    if number_format is None:
        raise ValueError("only integer graphs are encoded")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise _unsaid("more than one input or output", "graph")
    (spec,), (output,) = graph.inputs, graph.outputs
    for name in (p.name for p in graph.populations):
        if name in ("input", "output") and name != output:
            raise _unsaid("a population of this name beside the file's own node", name)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(spec.shape)})}
    edges: list[tuple[str, str]] = []
    ends: dict[str, str] = {spec.name: "input"}
    for population in graph.populations:
        if population.neurons.current_decay is not None:
            raise _unsaid("a synaptic current in this encoding", population.name)
        if isinstance(population.neurons, LIF) and population.neurons.readout is not None:
            raise _unsaid("a readout of the membranes of neurons that fire", population.name)
        if population.max_spikes > 1:
            raise _unsaid("several spikes per timestep", population.name)
        # A readout without memory is no node: its current is the output, averaged by the reader.
        if isinstance(population.neurons, LIF):
            ends[population.name] = f"{population.name}_neurons"
            if ends[population.name] in nodes:
                raise _unsaid(f"two nodes called {ends[population.name]}", population.name)
            nodes[ends[population.name]] = _neurons(population, population.neurons, number_format)
        elif population.name != output:
            raise _unsaid("a readout that is not the output", population.name)
        elif (population.neurons.decay != 0).any() or population.neurons.readout != "mean":
            raise _unsaid("a readout other than the mean current", population.name)
    nodes["output"] = nir.Output({"output": np.array(graph.population(output).shape)})
    if isinstance(graph.population(output).neurons, LIF):
        edges.append((ends[output], "output"))
    for population in graph.populations:
        for index, projection in enumerate(graph.incoming(population.name)):
            bias = population.neurons.bias if index == 0 else np.zeros((), np.int64)
            into = ends.get(population.name, "output")
            _add_projection(
                graph, projection, bias, number_format, nodes, edges, ends[projection.source], into
            )
    try:
        return nir.NIRGraph(nodes=nodes, edges=edges, type_check=True)
    except ValueError as error:
        raise _unsaid(f"this graph ({error})", "graph") from None


def _unsaid(what: str, where: str) -> SnnDeployError:
    return SnnDeployError("SD204", f"NIR cannot say {what}", where=where)


def _neurons(population: Population, neurons: LIF, number_format: NumberFormat) -> nir.NIRNode:
    unit = 2.0**number_format.fraction_bits
    level = neurons.threshold.astype(np.float64) * 2.0**number_format.threshold_shift
    level = (level + (number_format.comparator == ">")) / unit
    if not isinstance(neurons.reset, ResetTo):
        raise _unsaid("a reset by subtraction", population.name)
    kept = kept_share(neurons.decay, number_format.decay_rule, number_format.decay_bits)
    full = np.ones(population.shape)
    lost = 1 - kept
    if (lost == 0).all():
        return nir.IF(
            r=full / DT,
            v_threshold=level * TIE_MARGIN * full,
            v_reset=neurons.reset.value / unit * full,
        )
    if (lost == 0).any():
        raise _unsaid("neurons with and without leak in one population", population.name)
    return nir.LIF(
        tau=DT / lost * full,
        r=full,
        v_leak=0 * full,
        v_threshold=lost * level * TIE_MARGIN * full,
        v_reset=lost * neurons.reset.value / unit * full,
    )


def _add_projection(
    graph: Graph,
    projection: Projection,
    bias: Array,
    number_format: NumberFormat,
    nodes: dict[str, nir.NIRNode],
    edges: list[tuple[str, str]],
    source: str,
    target: str,
) -> None:
    """Add pool, flatten and synapses of one projection, and the edges between them."""
    if projection.longest_delay:
        raise _unsaid("a delay in this encoding", projection.name)
    base = projection.target
    if len(graph.incoming(projection.target)) > 1:
        base = f"{projection.target}_from_{projection.source}"
    shape = graph.shape_of(projection.source)
    seen = pooled_shape(shape, projection.pool)

    def chain(suffix: str, node: nir.NIRNode) -> None:
        nonlocal source
        name = f"{base}_{suffix}"
        if name in nodes:
            raise _unsaid(f"two nodes called {name}", projection.name)
        nodes[name] = node
        edges.append((source, name))
        source = name

    if projection.pool is not None:
        pool = projection.pool
        chain(
            "pool",
            nir.SumPool2d(
                kernel_size=np.array(pool.kernel),
                stride=np.array(pool.stride),
                padding=np.array([0, 0]),
            ),
        )
    weight = _weight(graph, projection, number_format)
    bias_unit = 2.0 ** (number_format.bias_shift - number_format.fraction_bits)
    per_output = bias.astype(np.float64) * bias_unit
    if isinstance(projection.synapses, Dense):
        if len(seen) > 1:
            chain("flatten", nir.Flatten({"input": np.array(seen)}, -len(seen), -1))
        chain("synapses", nir.Affine(weight=weight, bias=_spread(per_output, weight, base)))
    elif len(seen) == 1:
        raise _unsaid("a convolution over a vector", projection.name)
    else:
        chain("synapses", _convolution(projection.synapses, weight, per_output, seen, base))
    edges.append((source, target))


def _weight(graph: Graph, projection: Projection, number_format: NumberFormat) -> Array:
    """Weights in weight units; of values, per unit of the normalised input."""
    weight = projection.synapses.weight.astype(np.float64) * 2.0**projection.exponent
    if graph.carries_values(projection):
        weight /= graph.input(projection.source).scale or 1.0
        if graph.on_host(projection):
            weight *= 2.0 ** (number_format.bias_shift - number_format.fraction_bits)
    return np.asarray(weight, np.float32)


def _spread(bias: Array, weight: Array, where: str) -> Array:
    """One bias per output channel, float32."""
    if bias.size not in (1, len(weight)):
        raise _unsaid("a bias per neuron of a convolution", where)
    spread = np.empty(len(weight), np.float32)
    spread[:] = bias.reshape(-1)
    if (spread != np.broadcast_to(bias.reshape(-1), spread.shape)).any():
        raise _unsaid("a bias of more than 24 bits", where)
    return spread


def _convolution(
    synapses: Conv2d, weight: Array, bias: Array, seen: tuple[int, ...], where: str
) -> nir.NIRNode:
    out, per_group, height, width = weight.shape
    if height != width:
        raise _unsaid("a kernel that is not square", where)
    if synapses.groups > 1:  # no reader knows groups: write them out with zeros
        grouped = weight
        weight = np.zeros((out, per_group * synapses.groups, height, width), np.float32)
        rows = out // synapses.groups
        for group in range(synapses.groups):
            weight[
                group * rows : (group + 1) * rows, group * per_group : (group + 1) * per_group
            ] = grouped[group * rows : (group + 1) * rows]
    return nir.Conv2d(
        input_shape=(seen[1], seen[2]),
        weight=weight,
        stride=synapses.stride,
        padding=synapses.padding,
        dilation=synapses.dilation,
        groups=1,
        bias=_spread(bias, weight, where),
    )
