"""What reaches every node of a file: linear maps of what neurons and inputs send, and biases.

Nodes without state are followed in order. A Flatten changes no map: neurons behind one may be seen
in the shape of the convolution before it, since their order is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.dynamics import NEURONS
from snn_deploy.exporters.nir.file import NirFile, Node
from snn_deploy.exporters.nir.linear import LinearMap, UnmappableError
from snn_deploy.exporters.nir.nodes import (
    LINEAR,
    MAX_NEURONS,
    WINDOWS,
    Affine,
    affine,
    size_of_input,
)

from snn_deploy.errors import SnnDeployError
from snn_deploy.synapses import Shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Arriving:
    """What reaches a node: a map per source, and biases by the timestep that they begin in."""

    maps: dict[str, LinearMap]
    biases: dict[int, Floats]


class Wiring:
    """What reaches the nodes of one file.

    ``shapes`` are those of the graph, (N,), (C, 1, L) or (C, H, W). ``dt`` is the length of a
    timestep in the file's unit of time.

    Raises
    ------
    SnnDeployError
        SD401 for a loop without neurons, SD204 for what does not fit or is no projection.
    """

    def __init__(self, file: NirFile, dt: float) -> None:
        _check_kinds(file)
        self.file = file
        self.dt = dt
        self.before, self.after = file.neighbours()
        self.order = self._order()
        self.shapes: dict[str, Shape] = {}
        self.known: dict[str, Arriving] = {}
        self._follow()
        for name in self.order:
            self._leaving(name)

    def _carries_state(self, name: str) -> bool:
        """Whether what leaves a node is that of neurons or an input."""
        node = self.file.nodes[name]
        return node.kind in NEURONS or name in self.file.inputs

    def _order(self) -> list[str]:
        """Nodes without state, each behind all that it gets its input from.

        Raises SD401 for a loop that no neuron is in.
        """
        waiting = [n for n in self.file.nodes if not self._carries_state(n)]
        order: list[str] = []
        placed: set[str] = set()
        while waiting:
            ready = [
                n
                for n in waiting
                if all(self._carries_state(b) or b in placed for b in self.before[n])
            ]
            if not ready:
                raise self.file.nodes[waiting[0]].refuse(
                    "a loop without neurons has no delay", code="SD401"
                )
            order += ready
            placed.update(ready)
            waiting = [n for n in waiting if n not in placed]
        return order

    def _follow(self) -> None:
        """Shapes of all nodes, and what arrives at each, from the inputs on."""
        for name in self.file.inputs:
            self.shapes[name] = self._input_shape(name)
        # a neuron that only a loop leads to has the shape that its parameters have
        while True:
            known = len(self.shapes)
            for name in [*self.order, *(n for n in self.file.nodes if self.is_neuron(n))]:
                ready = [b for b in self.before[name] if b in self.shapes]
                if name not in self.shapes and ready:
                    self.shapes[name] = self._shape(name, self.shapes[ready[0]])
            if len(self.shapes) == known:
                return

    def is_neuron(self, name: str) -> bool:
        """Whether a node has neurons."""
        return self.file.nodes[name].kind in NEURONS

    def _shape(self, name: str, source: Shape) -> Shape:
        node = self.file.nodes[name]
        if node.kind == "Flatten":
            return (int(np.prod(source)),)
        if node.kind in ("Scale", "Delay"):
            return source
        if node.kind in LINEAR:
            return self._affine(node, source).map.target
        if node.kind in NEURONS:
            sizes = {
                value.size
                for value in node.parameters.values()
                if isinstance(value, np.ndarray) and value.size > 1
            }
            if len(sizes) > 1 or (sizes and sizes != {int(np.prod(source))}):
                raise node.refuse(
                    f"parameters of {sorted(sizes)} neurons, and an input of shape {source}"
                )
        return source

    def _input_shape(self, name: str) -> Shape:
        """The shape of an input, without batch axes that some writers leave in it."""
        node = self.file.nodes[name]
        shape = node.integers("shape")
        if min(shape) < 1 or math.prod(shape) > MAX_NEURONS:
            raise node.refuse(f"an input of shape {shape}", code="SD401")
        after = [self.file.nodes[n] for n in self.after[name]]
        sizes = [size for size in map(size_of_input, after) if size is not None]
        if sizes and sizes[0] != int(np.prod(shape)):
            kept = [shape[i:] for i in range(len(shape)) if int(np.prod(shape[i:])) == sizes[0]]
            if not kept:
                raise node.refuse(f"an input of shape {shape} feeds {sizes[0]} synapses")
            shape = kept[-1]
        if after and all(n.kind in ("Affine", "Linear") for n in after):
            return (int(np.prod(shape)),)
        return self._as_shape(node, shape)

    def _as_shape(self, node: Node, shape: tuple[int, ...]) -> Shape:
        """(N,), (C, 1, L) of (C, L), or (C, H, W)."""
        while len(shape) > 3 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) == 2:
            return (shape[0], 1, shape[1])
        if len(shape) not in (1, 3):
            raise node.refuse(f"a shape of {shape}: at most channels, height and width")
        return shape

    def _affine(self, node: Node, shape: Shape) -> Affine:
        return affine(node, shape, self.dt)

    def _map(self, node: Node, shape: Shape) -> LinearMap:
        """The map of a node; what looks through windows needs the shape that the file means."""
        if node.kind in WINDOWS:
            shape = next(self.shapes[b] for b in self.before[node.name] if b in self.shapes)
        return self._affine(node, shape).map

    def at(self, name: str) -> Arriving:
        """What reaches a node, of all its edges."""
        found = Arriving({}, {})
        for source in self.before[name]:
            leaving = self._leaving(source)
            node = self.file.nodes[name]
            for start, one in leaving.maps.items():
                try:
                    held = found.maps.get(start)
                    found.maps[start] = one if held is None else held.plus(one)
                except UnmappableError as error:
                    raise node.refuse(f"two ways from {start} join here", why=str(error)) from None
            for since, bias in leaving.biases.items():
                flat = bias.reshape(-1)
                held_bias = found.biases.get(since)
                if held_bias is not None and held_bias.size != flat.size:
                    raise node.refuse("inputs of different sizes")
                found.biases[since] = flat if held_bias is None else held_bias + flat
        sizes = {int(np.prod(one.target)) for one in found.maps.values()}
        sizes |= {bias.size for bias in found.biases.values()}
        if len(sizes) > 1:
            raise self.file.nodes[name].refuse(f"inputs of different sizes: {sorted(sizes)}")
        return found

    def _leaving(self, name: str) -> Arriving:
        if self._carries_state(name):
            if name not in self.shapes:
                raise self.file.nodes[name].refuse("no input leads here", code="SD401")
            return Arriving({name: LinearMap(self.shapes[name])}, {})
        if name not in self.known:  # in order, so that all before it are known
            self.known[name] = self._through(self.file.nodes[name], self.at(name))
        return self.known[name]

    def _through(self, node: Node, arriving: Arriving) -> Arriving:
        """What a node without state makes of what reaches it."""
        if node.kind in ("Input", "Output"):
            return arriving
        maps: dict[str, LinearMap] = {}
        for source, one in arriving.maps.items():
            try:
                maps[source] = one.then(self._map(node, one.target))
            except UnmappableError as error:
                raise node.refuse(
                    f"what it makes of {source} is no projection", why=str(error)
                ) from None
        sources = [self.shapes[b] for b in self.before[node.name] if b in self.shapes]
        biases: dict[int, Floats] = {}
        if not sources:
            return Arriving(maps, biases)
        made = self._affine(node, sources[0])
        for since, bias in arriving.biases.items():
            delay = np.broadcast_to(made.map.delay, (1, bias.size)).reshape(-1)
            for wait in np.unique(delay):
                begin = since + int(wait)
                value = made.map(np.where(delay == wait, bias, 0).reshape(sources[0]))
                biases[begin] = biases.get(begin, 0) + value.reshape(-1)
        if made.bias is not None:
            biases[0] = biases.get(0, 0) + made.bias.reshape(-1)
        return Arriving(maps, biases)


def _check_kinds(file: NirFile) -> None:
    for node in file.nodes.values():
        if node.kind not in (*LINEAR, *NEURONS, "Input", "Output"):
            raise node.refuse(
                "no node of NIR 1.0.8, or none that acts", fix="update, or export without it"
            )
    if not file.inputs or not file.outputs:
        raise SnnDeployError("SD401", "the graph has no input or no output", where=file.path)
