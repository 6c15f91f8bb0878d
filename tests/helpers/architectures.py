"""Graphs of whole architectures as the papers describe them: shapes and synapses, no weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.nn.architecture import Architecture, Layer
from snn_deploy.sim import Record
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, one_to_one

Way = tuple[str, SumPool | None, Any]  # source, pool and synapses of a projection


def graph_of(architecture: Architecture) -> Graph:
    """The network of an architecture; every weight is 1, in one byte of memory."""
    kind: Any = architecture.input_kind
    spec = InputSpec(name="in", kind=kind, shape=architecture.input_shape)
    return graph_of_layers(spec, architecture.layers, architecture.timesteps)


def graph_of_layers(spec: InputSpec, layers: Iterable[Layer], timesteps: int) -> Graph:
    """The network of layers behind an input, the last of them linear."""
    return _Reading(spec).graph(layers, timesteps)


def silent(graph: Graph, timesteps: int = 1) -> Record:
    """The record of one sample in which nothing ever happened."""
    nothing = np.zeros(1, np.int64)
    spiking = {p.name: np.zeros(p.shape, np.int64) for p in graph.spiking()}
    return Record(
        samples=1,
        timesteps=timesteps,
        spikes=spiking,
        sample_spikes=dict.fromkeys(spiking, nothing),
        inputs={spec.name: np.zeros(spec.shape, np.int64) for spec in graph.inputs},
        events={p.name: nothing for p in graph.projections},
        updates={p.name: nothing for p in graph.populations},
    )


class _Reading:
    """Layers in order, gathered into populations and what projects to them."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.populations: list[Population] = []
        self.projections: list[Projection] = []

    def graph(self, layers: Iterable[Layer], timesteps: int) -> Graph:
        layers = tuple(layers)
        _, ways = self.read(layers, self.spec.name)
        bias = np.full((), float(layers[-1].options["bias"]))
        readout = Integrator(decay=np.zeros(()), bias=bias)
        self.add(layers[-1].target, ways, neurons=readout)
        return Graph(
            inputs=(self.spec,),
            populations=tuple(self.populations),
            projections=tuple(self.projections),
            outputs=(self.populations[-1].name,),
            timesteps=timesteps,
        )

    def add(self, shape: Shape, ways: list[Way], neurons: Any = None) -> str:
        name = f"p{len(self.populations)}"
        if neurons is None:
            neurons = LIF(decay=np.zeros(()), threshold=np.ones(()), bias=np.zeros(()))
        self.populations.append(Population(name=name, shape=shape, neurons=neurons))
        for source, pool, synapses in ways:
            self.projections.append(
                Projection(source=source, target=name, synapses=synapses, pool=pool)
            )
        return name

    def read(self, layers: Iterable[Layer], source: str) -> tuple[str, list[Way]]:
        """Read layers behind a source: the last population, and what leads on from it."""
        pool: SumPool | None = None
        ways: list[Way] = []
        for layer in layers:
            if layer.type == "avgpool":
                assert pool is None
                side = layer.options["kernel"]
                pool = SumPool((side, side), (side, side))
            elif layer.type in ("conv", "linear"):
                ways, pool = [(source, pool, _ones(layer))], None
            elif layer.type == "residual":
                ways = self.read(layer.layers, source)[1]
                identity: Way = (source, None, one_to_one(layer.source))
                ways += self.read(layer.shortcut, source)[1] if layer.shortcut else [identity]
            elif layer.type in ("lif", "clif"):
                source, ways = self.add(layer.target, ways), []
                if layer.options.get("recurrent"):
                    size = math.prod(layer.target)
                    own = Dense(np.broadcast_to(np.int8(1), (size, size)))
                    self.projections.append(
                        Projection(source=source, target=source, synapses=own, delay=1)
                    )
            else:
                assert layer.type in ("batchnorm", "flatten"), layer.type
        return source, ways


def _ones(layer: Layer) -> Dense | Conv2d:
    if layer.type == "linear":
        return Dense(np.broadcast_to(np.int8(1), (layer.target[0], math.prod(layer.source))))
    side = layer.options["kernel"]
    return Conv2d(
        np.broadcast_to(np.int8(1), (layer.target[0], layer.source[0], side, side)),
        stride=(layer.options["stride"],) * 2,
        padding=(layer.options["padding"],) * 2,
    )
