"""The NIR nodes of a projection: delay, pool, flattening and weights, one behind the other.

A projection from a population to itself with a delay of one timestep needs no Delay: every reader
hands what comes back to a neuron over in the next one. Groups are written out with zeros, as no
reader knows them. Delays that differ from synapse to synapse become one branch for every delay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nir
import numpy as np
from snn_deploy.exporters.nir.assembly import Assembly
from snn_deploy.exporters.nir.squares import cropping, square
from snn_deploy.exporters.nir.values import Array, Float, weights

from snn_deploy.graph import Graph, Projection
from snn_deploy.synapses import (
    Conv2d,
    Dense,
    Shape,
    hands_on,
    pooled_shape,
    ungrouped,
    with_weights,
)


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Nodes that a projection joins, and what follows from its place in the graph.

    ``bias``: a current that its weights are to add, of the target's shape. ``dt``: a timestep in
    the file's unit. ``late``: it closes a loop.
    """

    source: str
    target: str
    bias: Float | None
    dt: float
    late: bool


def branches(graph: Graph, projection: Projection) -> int:
    """How many chains of nodes the projection becomes."""
    return 1 if _one_delay(graph, projection) else len(np.unique(projection.delay))


def _one_delay(graph: Graph, projection: Projection) -> bool:
    """Whether a delay per source neuron, or none, says it all."""
    delay = projection.delay
    if not isinstance(delay, np.ndarray) or graph.is_constant(projection):
        return True
    return bool((delay == delay[:1]).all())


def _branches(graph: Graph, projection: Projection) -> Iterator[tuple[str, Array, Float]]:
    """Suffix of the name, delay by source neuron (or one for all), and weights of each branch."""
    weight, delay = weights(graph, projection), projection.delay
    if graph.is_constant(projection):  # it was always there
        yield "", np.zeros((), np.int64), weight
        return
    implied = int(projection.source == projection.target)
    if _one_delay(graph, projection):
        every = np.asarray(delay, np.int64)
        if every.ndim:
            every = np.broadcast_to(every[0], weight.shape[1:])
        yield "", every if (every != implied).any() else np.zeros((), np.int64), weight
        return
    for value in np.unique(delay):
        part = np.where(delay == value, weight, 0)
        yield f"_after_{value}", np.asarray(0 if value == implied else value, np.int64), part


def add_projection(assembly: Assembly, graph: Graph, projection: Projection, ends: Ends) -> None:
    """Add the nodes of a projection, and the edges between them."""
    base = projection.target
    if len(graph.incoming(projection.target)) > 1:
        base = f"{projection.target}_from_{projection.source}"
    shape = graph.shape_of(projection.source)
    bias = ends.bias
    assembly.make_room(branches(graph, projection), projection.synapses.weight.size)
    for suffix, delay, weight in _branches(graph, projection):
        chain = list(_chain(assembly, projection, shape, delay * ends.dt, weight, bias))
        source = ends.source
        for index, (kind, node) in enumerate(chain):
            name = assembly.add(f"{base}{suffix}_{kind}", node)
            assembly.edges.append((source, name))
            if index == 0 and projection.source == projection.target:
                assembly.first.add((source, name))
            source = name
        assembly.edges.append((source, ends.target))
        if ends.late:
            assembly.late.add((source, ends.target))
        bias = None  # once


def _chain(
    assembly: Assembly,
    projection: Projection,
    shape: Shape,
    delay: Array,
    weight: Float,
    bias: Float | None,
) -> Iterator[tuple[str, nir.NIRNode]]:
    """Names and nodes from source to target; none where it hands spikes on as they are."""
    if (delay != 0).any():
        by_source = delay if delay.ndim == 0 else delay.reshape(shape)
        yield "delay", nir.Delay(delay=np.broadcast_to(by_source, shape).astype(np.float64))
    pool = projection.pool
    if pool is not None:
        yield (
            "pool",
            nir.SumPool2d(
                kernel_size=np.array(pool.kernel),
                stride=np.array(pool.stride),
                padding=np.array([0, 0]),
            ),
        )
    seen = pooled_shape(shape, pool)
    synapses = with_weights(projection.synapses, weight)
    alone = projection.source == projection.target
    if bias is None and not alone and hands_on(synapses):
        return
    if isinstance(synapses, Conv2d) and len(seen) == 1:
        synapses = _of_a_vector(_without_groups(assembly, synapses))
    if isinstance(synapses, Dense):
        if len(seen) > 1:
            yield "flatten", nir.Flatten({"input": np.array(seen)}, -len(seen), -1)
        outputs = len(synapses.weight)
        added = np.zeros(outputs) if bias is None else bias
        yield "synapses", nir.Affine(weight=narrow(synapses.weight), bias=narrow(added))
        return
    found = square(_without_groups(assembly, synapses), (seen[1], seen[2]))
    outputs = len(synapses.weight)
    added = np.zeros(outputs) if bias is None else bias[:, 0, 0]
    yield "synapses", _convolution(found.synapses, seen, added)
    if found.crop is not None:
        made = found.synapses.target_shape(seen)
        assembly.make_room(outputs, outputs, 4)
        crop = cropping(outputs, found.crop)
        yield "crop", _convolution(crop, made, np.zeros(outputs))


def _convolution(synapses: Conv2d, seen: Shape, bias: Float) -> nir.Conv2d:
    return nir.Conv2d(
        input_shape=(seen[1], seen[2]),
        weight=narrow(synapses.weight),
        stride=synapses.stride,
        padding=synapses.padding,
        dilation=synapses.dilation,
        groups=1,
        bias=narrow(bias),
    )


def identity(assembly: Assembly, shape: Shape, bias: Float) -> nir.NIRNode:
    """Weights that hand everything on and add a bias, uniform in every channel of a map."""
    assembly.make_room(shape[0], shape[0])
    eye = np.eye(shape[0])
    if len(shape) == 1:
        return nir.Affine(weight=narrow(eye), bias=narrow(bias))
    return _convolution(Conv2d(eye[:, :, None, None]), shape, bias[:, 0, 0])


def _of_a_vector(synapses: Conv2d) -> Dense:
    """A convolution without groups of a map of one pixel: the weights that meet the pixel."""
    weight = synapses.weight
    place = [
        p // d if p % d == 0 and p // d < k else None
        for p, d, k in zip(synapses.padding, synapses.dilation, weight.shape[2:], strict=True)
    ]
    if None in place:  # only the padding is met
        return Dense(np.zeros(weight.shape[:2]))
    return Dense(np.ascontiguousarray(weight[:, :, place[0], place[1]]))


def _without_groups(assembly: Assembly, synapses: Conv2d) -> Conv2d:
    if synapses.groups > 1:
        outputs, inside, height, width = synapses.weight.shape
        assembly.make_room(outputs, inside * synapses.groups, height, width)
    return ungrouped(synapses)


def narrow(values: Float) -> Array:
    """float32 where that is exact, else float64."""
    with np.errstate(over="ignore"):
        small = values.astype(np.float32)
    return small if (small == values).all() else np.asarray(values, np.float64)
