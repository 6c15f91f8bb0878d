"""Graphs of the papers' architectures without training: their shape is theirs, their weights are 0.

Weights are views of one number, so that even the largest network takes no memory and no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.nn.architecture import Layer, parse
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses, one_to_one

_ZERO = np.zeros(())
_NEURONS = LIF(decay=_ZERO, threshold=np.ones(()), bias=_ZERO)

# Input of the network as its paper feeds it.
INPUTS: dict[str, tuple[str, Shape]] = {
    "vggsnn": ("spikes", (2, 48, 48)),
    "resnet18": ("constant", (3, 32, 32)),
    "shd": ("spikes", (700,)),
}


def zoo_graph(name: str) -> Graph:
    """The float graph of a named architecture."""
    kind, shape = INPUTS[name]
    data = {"timesteps": 4, "input": {"kind": kind, "shape": list(shape)}, "name": name}
    builder = _Builder()
    builder.path("input", parse(data, name).layers, close=True)
    spec = InputSpec(name="input", kind="spikes" if kind == "spikes" else "constant", shape=shape)
    return Graph(
        inputs=(spec,),
        populations=tuple(builder.populations),
        projections=tuple(builder.projections),
        outputs=(builder.populations[-1].name,),
        timesteps=4,
    )


@dataclass
class _Builder:
    populations: list[Population] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)

    def path(
        self, source: str, layers: Sequence[Layer], *, close: bool = False
    ) -> list[tuple[str, SumPool | None, Synapses]]:
        """Add the populations of a path; returns the synapses at its end, without their target."""
        pool: SumPool | None = None
        ends: list[tuple[str, SumPool | None, Synapses]] = []
        for layer in layers:
            options = layer.options
            if layer.type == "avgpool":
                size = options["kernel"]
                pool = SumPool((size, size), (size, size))
            elif layer.type == "conv":
                kernel, stride, padding = (options[k] for k in ("kernel", "stride", "padding"))
                shape = (options["channels"], layer.source[0], kernel, kernel)
                weight = np.broadcast_to(0.0, shape)
                ends = [(source, pool, Conv2d(weight, (stride, stride), (padding, padding)))]
                pool = None
            elif layer.type == "linear":
                weight = np.broadcast_to(0.0, (options["features"], layer.source[0]))
                ends, pool = [(source, pool, Dense(weight))], None
            elif layer.type == "residual":
                short = self.path(source, layer.shortcut)
                ends = self.path(source, layer.layers)
                ends += short or [(source, None, one_to_one(layer.source))]
            elif layer.type == "lif":
                source = self.add(ends, layer.source, recurrent=options["recurrent"])
        if close:
            self.add(ends, layers[-1].target, sink=True)
        return ends

    def add(
        self,
        ends: Sequence[tuple[str, SumPool | None, Synapses]],
        shape: Shape,
        *,
        recurrent: bool = False,
        sink: bool = False,
    ) -> str:
        name = f"p{len(self.populations)}"
        neurons = Integrator(decay=_ZERO, bias=_ZERO) if sink else _NEURONS
        self.populations.append(Population(name=name, shape=shape, neurons=neurons))
        for source, pool, synapses in ends:
            self.projections.append(
                Projection(source=source, target=name, synapses=synapses, pool=pool)
            )
        if recurrent:
            weight = np.broadcast_to(0.0, (shape[0], shape[0]))
            self.projections.append(
                Projection(source=name, target=name, synapses=Dense(weight), delay=1)
            )
        return name
