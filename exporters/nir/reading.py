"""A file of others as a float graph, run as its writer runs it.

Neurons become populations; what lies between them becomes one projection per pair. Biases go into
the neurons; where one cannot (behind a synaptic current, or delayed) an input that always fires
carries it. Graphs and nodes of NIR: Pedersen et al., Nature Communications 15, 2024.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.dynamics import NEURONS, SPIKING, Dialect, Dynamics
from snn_deploy.exporters.nir.file import NirFile, Node
from snn_deploy.exporters.nir.linear import LinearMap, UnmappableError, scaled
from snn_deploy.exporters.nir.units import compact, in_shape, neurons_of, step_in_units
from snn_deploy.exporters.nir.wiring import Wiring

from snn_deploy import checks
from snn_deploy.biases import NAME as ALWAYS_ON
from snn_deploy.biases import Biases, UnbiasableError
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, InputSpec, Integrator, Population, Projection, Readout
from snn_deploy.synapses import Shape

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
        file, filters = _joined(file)
        self.file = file
        self.readout = readout
        self.names = _names(file)
        self.wiring = Wiring(file, dialect.dt)
        shapes = self.wiring.shapes
        self.specs = {n: inputs(self.names[n], shapes[n]) for n in file.inputs}
        self.steps = {
            name: step_in_units(node, _step(dialect, node, filters.get(name)))
            for name, node in file.nodes.items()
            if self.wiring.is_neuron(name)
        }
        self.maps: dict[tuple[str, str], LinearMap] = {}
        self.bias: dict[str, Floats] = {}
        self.later = Biases()

    def graph(self) -> Graph:
        """Populations and projections of the whole file."""
        for name, step in self.steps.items():
            self._connect(name, step.factor, filtered=step.current_decay is not None)
        outputs = [self._output(name) for name in self.file.outputs]
        shapes = self._settle()
        populations = {name: self._population(name, shapes[name]) for name in self.bias}
        projections = [
            Projection(
                source=self.names[source],
                target=self.names[target],
                synapses=one.whole,
                pool=one.pool,
                delay=one.delay,
            )
            for (source, target), one in self.maps.items()
        ]
        used = {source for source, _ in self.maps}
        try:
            extra, more = self.later.inputs(populations)
            graph = Graph(
                inputs=(*(spec for name, spec in self.specs.items() if name in used), *extra),
                populations=tuple(populations.values()),
                projections=(*projections, *more),
                outputs=tuple(dict.fromkeys(self.names[name] for name in outputs)),
            )
            checks.check_float(graph)
        except UnbiasableError as error:
            raise SnnDeployError("SD204", str(error), where=self.file.path) from None
        except SnnDeployError as error:
            where = self.file.path if error.where is None else f"{self.file.path}: {error.where}"
            raise SnnDeployError(
                error.code if error.code == "SD403" else "SD204", error.message, where=where
            ) from None
        return graph

    def _connect(self, name: str, factor: Floats, *, filtered: bool) -> None:
        """Maps and biases of what reaches neurons, or an output that adds it up.

        ``factor`` multiplies all of it; ``filtered``: by a synaptic current, which a bias of the
        membrane would pass by.
        """
        node, arriving = self.file.nodes[name], self.wiring.at(name)
        if not arriving.maps:
            raise node.refuse("no input leads here", code="SD401")
        for source, one in arriving.maps.items():
            before = self.file.nodes[source]
            if before.kind in NEURONS and before.kind not in SPIKING:
                raise before.refuse(
                    f"its membrane feeds {name}: only spikes travel between populations",
                    fix="put a Threshold between them, or fold it into the weights",
                )
            if source == name:  # what says no delay arrives a timestep later
                one = replace(one, delay=np.maximum(one.delay, 1)).simplified()
            if (factor != 1).any():
                try:
                    one = one.then(scaled(one.target, in_shape(node, factor, one.target)))
                except UnmappableError as error:
                    raise node.refuse("neurons of different gain", why=str(error)) from None
            self.maps[source, name] = one
        self.bias[name] = np.zeros(())
        for since, value in arriving.biases.items():
            weighed = value * np.broadcast_to(factor.reshape(-1), value.shape)
            if since == 0 and not filtered:
                self.bias[name] = weighed
            else:
                self.later.add(name, since, weighed)

    def _output(self, name: str) -> str:
        """The population that an output reads: neurons, or one that adds up currents."""
        before = self.wiring.before[name]
        while len(before) == 1 and self.file.nodes[before[0]].kind in ("Output", "Flatten"):
            before = self.wiring.before[before[0]]
        if len(before) == 1 and before[0] in self.steps:
            return before[0]
        self._connect(name, np.ones(()), filtered=False)
        return name

    def _settle(self) -> dict[str, Shape]:
        """Shapes of all populations; a vector, where matrices meet maps or follow on vectors."""
        shapes = {name: spec.shape for name, spec in self.specs.items()}
        for name in self.bias:
            made = [one.target for (_, target), one in self.maps.items() if target == name]
            same = len(set(made)) == 1
            shapes[name] = made[0] if same else (int(np.prod(made[0])),)
        while True:
            for (source, target), one in self.maps.items():
                if (one.source, one.target) == (shapes[source], shapes[target]):
                    continue
                try:
                    matrix = replace(one.dense(), source=shapes[source])
                except UnmappableError as error:
                    raise self.file.nodes[target].refuse(
                        "its inputs are of different shapes", why=str(error)
                    ) from None
                self.maps[source, target] = matrix
                if shapes[target] != matrix.target:
                    shapes[target] = matrix.target
                    break
            else:
                return shapes

    def _population(self, name: str, shape: Shape) -> Population:
        node, step = self.file.nodes[name], self.steps.get(name)
        bias = in_shape(node, self.bias[name], shape)
        if step is None:  # an output that adds up currents
            sink = Integrator(decay=np.zeros(()), bias=compact(bias), readout=self.readout)
            return Population(name=self.names[name], shape=shape, neurons=sink)
        return Population(
            name=self.names[name],
            shape=shape,
            neurons=neurons_of(node, step, bias, shape, self.readout),
            max_spikes=step.max_spikes,
        )


def _joined(file: NirFile) -> tuple[NirFile, dict[str, Node]]:
    """The file with synaptic currents that are nodes of their own taken out, by their neurons.

    An LI that feeds one LIF and nothing else, and is all that feeds it, is that neuron's current.
    """
    filters: dict[str, Node] = {}
    before, after = file.neighbours()
    for name, node in file.nodes.items():
        fed = after[name]
        if node.kind != "LI" or len(fed) != 1 or file.nodes[fed[0]].kind != "LIF":
            continue
        if before[fed[0]] == [name]:
            filters[fed[0]] = node
    gone = {node.name: neurons for neurons, node in filters.items()}
    edges = tuple((a, gone.get(b, b)) for a, b in file.edges if a not in gone)
    nodes = {name: node for name, node in file.nodes.items() if name not in gone}
    return replace(file, nodes=nodes, edges=edges), filters


def _step(dialect: Dialect, node: Node, current: Node | None) -> Dynamics:
    """The step of neurons, whose current may come of a node of its own."""
    step = dialect.step(node)
    if current is None:
        return step
    before = dialect.step(current)
    if before.drift.any():
        raise current.refuse("a `v_leak` of a current that feeds neurons")
    return replace(step, current_decay=before.decay, gain=np.asarray(before.gain * step.gain))


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
