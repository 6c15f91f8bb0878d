"""The small graphs that directed tests are about: an input, and one population."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snn_deploy.graph import LIF, Graph, InputSpec, Neurons, Population, Projection
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.synapses import Dense, Synapses, pooled_shape
from tests.helpers.graphs import GENERIC, Case


def integers(value: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(value, np.int64)


def lif(decay: ArrayLike = 0, threshold: ArrayLike = 100, bias: ArrayLike = 0, **more: Any) -> LIF:
    """LIF neurons of an integer graph."""
    return LIF(decay=integers(decay), threshold=integers(threshold), bias=integers(bias), **more)


def spike_input(*shape: int, name: str = "in") -> InputSpec:
    return InputSpec(name=name, kind="spikes", shape=shape)


def population(name: str, *shape: int, neurons: Neurons | None = None) -> Population:
    return Population(name=name, shape=shape, neurons=neurons or lif(), scale=1.0)


def dense(source: str, target: str, targets: int, sources: int, **more: Any) -> Projection:
    """A projection of ones."""
    weight = np.ones((targets, sources), np.int64)
    return Projection(source=source, target=target, synapses=Dense(weight), **more)


def one_layer(
    synapses: Synapses,
    spec: InputSpec,
    neurons: Neurons | None = None,
    *,
    number_format: NumberFormat | None = GENERIC,
    scale: float | None = 1.0,
    **more: Any,
) -> Graph:
    """``spec`` and a population "p" behind it; ``more`` is for the projection."""
    shape = synapses.target_shape(pooled_shape(spec.shape, more.get("pool")))
    return Graph(
        inputs=(spec,),
        populations=(Population(name="p", shape=shape, neurons=neurons or lif(), scale=scale),),
        projections=(Projection(source=spec.name, target="p", synapses=synapses, **more),),
        outputs=("p",),
        number_format=number_format,
    )


def fed_with_spikes(graph: Graph, spikes: ArrayLike) -> Case:
    """A case of [N, T, ...] spikes."""
    spikes = np.asarray(spikes, np.uint8)
    return Case(graph, Recording(spikes={"": spikes}), spikes.shape[1])
