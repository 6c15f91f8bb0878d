"""A file of others as a float graph, run as its writer runs it.

Neurons become populations; what lies between them becomes one projection per pair. Biases go into
the neurons; where one cannot (behind a synaptic current, or delayed) an input that always fires
carries it. Graphs and nodes of NIR: Pedersen et al., Nature Communications 15, 2024.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.bias import NAME as ALWAYS_ON
from snn_deploy.exporters.nir.bias import Biases, UnbiasableError
from snn_deploy.exporters.nir.dynamics import SPIKING, Dialect, Dynamics
from snn_deploy.exporters.nir.file import NirFile, Node
from snn_deploy.exporters.nir.linear import LinearMap, UnmappableError, scaled
from snn_deploy.exporters.nir.wiring import Arriving, Wiring

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
    return _Reading(file, dialect, inputs, readout).graph()


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
        self.wiring = Wiring(file, dialect.dt)
        self.populations: dict[str, Population] = {}
        self.maps: list[tuple[str, str, LinearMap]] = []
        self.biases = Biases()

    def graph(self) -> Graph:
        """Populations and projections of the whole file."""
        shapes = self.wiring.shapes
        specs = {n: self.inputs(self.names[n], shapes[n]) for n in self.file.inputs}
        for name in self.file.nodes:
            if self.wiring.is_neuron(name):
                self._add_neurons(name)
        outputs = [self._output(name) for name in self.file.outputs]
        return self._assemble(specs, outputs)

    def _add_neurons(self, name: str) -> None:
        node, arriving = self.file.nodes[name], self.wiring.at(name)
        if not arriving.maps:
            raise node.refuse("no input leads here", code="SD401")
        dynamics = self.dialect.step(node)
        shape = self.wiring.shapes[name]
        if any(one.target != shape for one in arriving.maps.values()):
            shape = (int(np.prod(shape)),)  # a vector, where maps and matrices meet
        unit, factor = _unit(node, dynamics)
        bias = np.zeros(())
        for since, value in arriving.biases.items():
            scaled_bias = value * np.broadcast_to(factor.reshape(-1), value.shape)
            if since == 0 and dynamics.current_decay is None:
                bias = scaled_bias
            else:
                self.biases.add(name, since, scaled_bias)
        bias = _in_shape(node, bias, shape) + _in_shape(node, dynamics.drift / unit, shape)
        self.populations[name] = Population(
            name=self.names[name],
            shape=shape,
            neurons=_neurons(node, dynamics, unit, _compact(bias), shape, self.readout),
            max_spikes=dynamics.max_spikes,
        )
        for source, one in arriving.maps.items():
            if self.wiring.is_neuron(source) and self.file.nodes[source].kind not in SPIKING:
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
            self.maps.append((source, name, one))

    def _output(self, name: str) -> str:
        """The population that an output reads: neurons, or one that adds up currents."""
        node = self.file.nodes[name]
        before = self.wiring.before[name]
        while len(before) == 1 and self.file.nodes[before[0]].kind in ("Output", "Flatten"):
            before = self.wiring.before[before[0]]
        if len(before) == 1 and self.wiring.is_neuron(before[0]):
            return before[0]
        arriving = self.wiring.at(name)
        if not arriving.maps:
            raise node.refuse("nothing leads here", code="SD401")
        shapes = {one.target for one in arriving.maps.values()}
        shape = shapes.pop() if len(shapes) == 1 else (self._size(arriving),)
        bias = np.zeros(())
        for since, value in arriving.biases.items():
            if since == 0:
                bias = value
            else:
                self.biases.add(name, since, value)
        for source, one in arriving.maps.items():
            if self.wiring.is_neuron(source) and self.file.nodes[source].kind not in SPIKING:
                raise self.file.nodes[source].refuse("its membrane is read among other values")
            self.maps.append((source, name, one))
        self.populations[name] = Population(
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

    def _assemble(self, specs: dict[str, InputSpec], outputs: list[str]) -> Graph:
        used = {source for source, _, _ in self.maps} | set(outputs)
        projections = []
        for source, target, one in self.maps:
            shape = specs[source].shape if source in specs else self.populations[source].shape
            if shape != one.source or one.target != self.populations[target].shape:
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
            extra, more = self.biases.inputs(self.populations)
            projections += more
        except UnbiasableError as error:
            raise SnnDeployError("SD204", str(error), where=self.file.path) from None
        try:
            graph = Graph(
                inputs=(*every, *extra),
                populations=tuple(self.populations.values()),
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

    In units of the gain, weights stay as the file has them, except where membranes are read.
    Another unit is needed where what a reset leaves or takes would differ between the neurons of a
    population.
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
