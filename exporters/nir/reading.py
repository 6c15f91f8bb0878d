"""A file of others as a float graph, run as its writer runs it.

Neurons become populations; what lies between them becomes one projection per pair. Biases go into
the neurons; where one cannot (behind a synaptic current, or delayed) an input that always fires
carries it. Graphs and nodes of NIR: Pedersen et al., Nature Communications 15, 2024.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.bias import NAME as ALWAYS_ON
from snn_deploy.exporters.nir.bias import Biases, UnbiasableError
from snn_deploy.exporters.nir.dynamics import NEURONS, SPIKING, Dialect, Dynamics
from snn_deploy.exporters.nir.file import NirFile, Node
from snn_deploy.exporters.nir.linear import LinearMap, UnmappableError, scaled
from snn_deploy.exporters.nir.nodes import LINEAR, Affine, affine, size_of_input

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Neurons,
    Population,
    Projection,
    Readout,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.synapses import Shape

Array = NDArray[Any]
Floats = NDArray[np.float64]

@dataclass(frozen=True, slots=True, eq=False)
class Arriving:
    """What reaches a node: a map per source, and biases by the timestep that they begin in."""

    maps: dict[str, LinearMap]
    biases: dict[int, Floats]


def read_graph(
    file: NirFile,
    dialect: Dialect,
    inputs: Callable[[str, Shape], InputSpec],
    readout: Readout = "mean",
) -> Graph:
    """The float graph of a file.

    Parameters
    ----------
    file : as read by :func:`snn_deploy.exporters.nir.file.read_file`.
    dialect : whose reading of it.
    inputs : makes the description of an input of a name and shape.
    readout : of outputs that are no spikes.

    Raises
    ------
    SnnDeployError
        SD401 for what is damaged, SD204 for what a graph has not, naming the node.
    """
    _check_kinds(file)
    return _Reading(file, dialect, inputs, readout).graph()


def _check_kinds(file: NirFile) -> None:
    for node in file.nodes.values():
        if node.kind not in (*LINEAR, *NEURONS, "Input", "Output"):
            raise node.refuse(
                "no node of NIR 1.0.8, or none that acts", fix="update, or export without it"
            )
    if not file.inputs or not file.outputs:
        raise SnnDeployError("SD401", "the graph has no input or no output", where=file.path)


class _Reading:
    """One file as it becomes a graph."""

    def __init__(
        self,
        file: NirFile,
        dialect: Dialect,
        inputs: Callable[[str, Shape], InputSpec],
        readout: Readout,
    ) -> None:
        self.file = file
        self.dialect = dialect
        self.inputs = inputs
        self.readout = readout
        self.names = _names(file)
        self.before: dict[str, list[str]] = {name: [] for name in file.nodes}
        for source, target in file.edges:
            self.before[target].append(source)
        self.order = self._order()
        self.shapes: dict[str, Shape] = {}
        self.arriving: dict[str, Arriving] = {}

    # ---- order and shapes ----

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
            for name in [*self.order, *(n for n in self.file.nodes if self._is_neuron(n))]:
                ready = [b for b in self.before[name] if b in self.shapes]
                if name not in self.shapes and ready:
                    self.shapes[name] = self._shape(name, self.shapes[ready[0]])
            if len(self.shapes) == known:
                return

    def _is_neuron(self, name: str) -> bool:
        return self.file.nodes[name].kind in NEURONS

    def _shape(self, name: str, source: Shape) -> Shape:
        node = self.file.nodes[name]
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
        if min(shape) < 1 or int(np.prod(shape, dtype=np.float64)) > 1 << 31:
            raise node.refuse(f"an input of shape {shape}", code="SD401")
        after = [self.file.nodes[n] for n in self.file.after(name)]
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

    # ---- linear nodes ----

    def _affine(self, node: Node, shape: Shape) -> Affine:
        return affine(node, shape, self.dialect.dt)

    def _arriving(self, name: str) -> Arriving:
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
        if name not in self.arriving:  # in order, so that all before it are known
            self.arriving[name] = self._through(self.file.nodes[name], self._arriving(name))
        return self.arriving[name]

    def _through(self, node: Node, arriving: Arriving) -> Arriving:
        """What a node without state makes of what reaches it."""
        if node.kind in ("Input", "Output"):
            return arriving
        maps: dict[str, LinearMap] = {}
        for source, one in arriving.maps.items():
            made = self._affine(node, one.target)
            try:
                maps[source] = one.then(made.map)
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

    # ---- populations ----

    def graph(self) -> Graph:
        """Populations and projections of the whole file."""
        self._follow()
        for name in self.order:
            self._leaving(name)
        specs = {n: self.inputs(self.names[n], self.shapes[n]) for n in self.file.inputs}
        populations: dict[str, Population] = {}
        found: list[tuple[str, str, LinearMap]] = []
        always = Biases()
        for name in self.file.nodes:
            if not self._is_neuron(name):
                continue
            arriving = self._arriving(name)
            if not arriving.maps:
                raise self.file.nodes[name].refuse("no input leads here", code="SD401")
            self._add_neurons(name, arriving, populations, found, always)
        outputs = [self._output(n, populations, found, always) for n in self.file.outputs]
        return self._assemble(specs, populations, found, always, outputs)

    def _add_neurons(
        self,
        name: str,
        arriving: Arriving,
        populations: dict[str, Population],
        found: list[tuple[str, str, LinearMap]],
        always: Biases,
    ) -> None:
        node = self.file.nodes[name]
        dynamics = self.dialect.step(node)
        shape = self.shapes[name]
        if any(one.target != shape for one in arriving.maps.values()):
            shape = (int(np.prod(shape)),)  # a vector, where maps and matrices meet
        unit, factor = _unit(node, dynamics)
        bias = np.zeros(())
        for since, value in arriving.biases.items():
            scaled_bias = value * np.broadcast_to(factor.reshape(-1), value.shape)
            if since == 0 and dynamics.current_decay is None:
                bias = scaled_bias
            else:
                always.add(name, since, scaled_bias)
        bias = _in_shape(node, bias, shape) + _in_shape(node, dynamics.drift / unit, shape)
        populations[name] = Population(
            name=self.names[name],
            shape=shape,
            neurons=_neurons(node, dynamics, unit, _compact(bias), shape, self.readout),
            max_spikes=dynamics.max_spikes,
        )
        for source, one in arriving.maps.items():
            if self._is_neuron(source) and self.file.nodes[source].kind not in SPIKING:
                raise self.file.nodes[source].refuse(
                    f"its membrane feeds {name}: only spikes travel between populations",
                    fix="put a Threshold between them, or fold it into the weights",
                )
            if source == name:  # what says no delay arrives a timestep later
                one = replace(one, delay=np.maximum(one.delay, 1)).simplified()
            if (factor != 1).any():
                try:
                    values = _in_shape(node, factor, one.target)
                    one = one.then(scaled(one.target, values))
                except UnmappableError as error:
                    raise node.refuse("neurons of different gain", why=str(error)) from None
            found.append((source, name, one))

    def _output(
        self,
        name: str,
        populations: dict[str, Population],
        found: list[tuple[str, str, LinearMap]],
        always: Biases,
    ) -> str:
        """The population that an output reads: neurons, or one that adds up currents."""
        node = self.file.nodes[name]
        before = self.before[name]
        while len(before) == 1 and self.file.nodes[before[0]].kind in ("Output", "Flatten"):
            before = self.before[before[0]]
        if len(before) == 1 and self._is_neuron(before[0]):
            return before[0]
        arriving = self._arriving(name)
        if not arriving.maps:
            raise node.refuse("nothing leads here", code="SD401")
        shapes = {one.target for one in arriving.maps.values()}
        shape = shapes.pop() if len(shapes) == 1 else (self._size(arriving),)
        bias = np.zeros(())
        for since, value in arriving.biases.items():
            if since == 0:
                bias = value
            else:
                always.add(name, since, value)
        for source, one in arriving.maps.items():
            if self._is_neuron(source) and self.file.nodes[source].kind not in SPIKING:
                raise self.file.nodes[source].refuse("its membrane is read among other values")
            found.append((source, name, one))
        populations[name] = Population(
            name=self.names[name],
            shape=shape,
            neurons=Integrator(
                decay=np.zeros(()),
                bias=_compact(_in_shape(node, bias, shape)),
                readout=self.readout,
            ),
        )
        return name

    def _size(self, arriving: Arriving) -> int:
        return int(np.prod(next(iter(arriving.maps.values())).target))

    def _assemble(
        self,
        specs: dict[str, InputSpec],
        populations: dict[str, Population],
        found: list[tuple[str, str, LinearMap]],
        always: Biases,
        outputs: list[str],
    ) -> Graph:
        used = {source for source, _, _ in found} | set(outputs)
        projections = []
        for source, target, one in found:
            shape = specs[source].shape if source in specs else populations[source].shape
            if shape != one.source or one.target != populations[target].shape:
                one = _as_matrix(self.file.nodes[target], one)
            projections.append(
                Projection(
                    source=self.names[source],
                    target=self.names[target],
                    synapses=one.whole,
                    pool=one.pool,
                    delay=one.delay,
                )
            )
        every = [spec for name, spec in specs.items() if name in used]
        try:
            extra, more = always.inputs(populations)
            projections += more
        except UnbiasableError as error:
            raise SnnDeployError("SD204", str(error), where=self.file.path) from None
        try:
            graph = Graph(
                inputs=(*every, *extra),
                populations=tuple(populations.values()),
                projections=tuple(projections),
                outputs=tuple(dict.fromkeys(self.names[name] for name in outputs)),
            )
            checks.check_float(graph)
        except SnnDeployError as error:
            where = self.file.path if error.where is None else f"{self.file.path}: {error.where}"
            raise SnnDeployError(
                error.code if error.code == "SD403" else "SD204", error.message, where=where
            ) from None
        return graph


def _names(file: NirFile) -> dict[str, str]:
    """A name in the graph for every node."""
    taken: set[str] = set()
    names = {}
    for name in file.nodes:
        base = re.sub(r"[^A-Za-z0-9_.\-]", "_", name).lstrip(".-") or "node"
        if base.startswith(ALWAYS_ON):
            base = f"node_{base}"
        unique, number = base, 2
        while unique in taken:
            unique, number = f"{base}_{number}", number + 1
        taken.add(unique)
        names[name] = unique
    return names


def _in_shape(node: Node, value: Array, shape: Shape) -> Floats:
    """One value for all, or one per neuron in the population's shape."""
    numbers = np.asarray(value, np.float64)
    if numbers.size == 1:
        return numbers.reshape(())
    if numbers.size != int(np.prod(shape)):
        raise node.refuse(f"a parameter of shape {numbers.shape} for neurons of shape {shape}")
    return numbers.reshape(shape)


def _compact(value: Floats) -> Floats:
    """One value for all, or one per channel, where that says as much."""
    if value.ndim == 0 or (value == value.flat[0]).all():
        return np.array(value.flat[0])
    rows = value.reshape(len(value), -1)
    if (rows == rows[:, :1]).all():
        return rows[:, 0].reshape(-1, *[1] * (value.ndim - 1)).copy()
    return value


def _unit(node: Node, dynamics: Dynamics) -> tuple[Floats, Floats]:
    """Unit of the graph's membrane in the file's, and the factor of what arrives.

    In units of the gain, weights stay as the file has them, except where membranes are read. Another unit is needed where what a
    reset leaves or takes would differ between the neurons of a population.
    """
    one = np.ones(())
    gain = dynamics.gain
    if dynamics.threshold is None:  # the membrane is what is read
        return one, gain
    if gain.min() > 0:
        amount = dynamics.subtracted if dynamics.reset_to is None else dynamics.reset_to
        if amount is None or len(np.unique(amount / gain)) == 1:
            return np.asarray(gain), one
    if dynamics.subtracted is not None:
        if dynamics.subtracted.min() <= 0:
            raise node.refuse("a reset that subtracts nothing, or less")
        return dynamics.subtracted, np.asarray(gain / dynamics.subtracted)
    if dynamics.reset_to is None or len(np.unique(dynamics.reset_to)) == 1:
        return one, np.asarray(gain)
    reset = dynamics.reset_to
    if reset.min() * reset.max() <= 0:
        raise node.refuse("resets to values of different sign in one population")
    return np.abs(reset), np.asarray(gain / np.abs(reset))


def _neurons(
    node: Node, dynamics: Dynamics, unit: Floats, bias: Floats, shape: Shape, readout: Readout
) -> Neurons:
    def parameter(value: Array) -> Floats:
        return _compact(_in_shape(node, value, shape))

    decay = parameter(dynamics.decay)
    memory = None if dynamics.current_decay is None else parameter(dynamics.current_decay)
    if dynamics.threshold is None:
        return Integrator(decay=decay, bias=bias, readout=readout, current_decay=memory)
    level = dynamics.threshold / unit
    if dynamics.strict:
        level = np.nextafter(level, np.inf)
    if dynamics.subtracted is not None:
        reset: Any = ResetSubtract(float((dynamics.subtracted / unit).flat[0]))
    else:
        assert dynamics.reset_to is not None
        reset = ResetTo(float((dynamics.reset_to / unit).flat[0]))
    return LIF(
        decay=decay, threshold=parameter(level), bias=bias, reset=reset, current_decay=memory
    )


def _as_matrix(node: Node, one: LinearMap) -> LinearMap:
    try:
        return one.dense()
    except UnmappableError as error:
        raise node.refuse("its inputs are of different shapes", why=str(error)) from None
