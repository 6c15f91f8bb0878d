"""What a projection is to those who count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Graph, Projection
from snn_deploy.sim import Record
from snn_deploy.synapses import Conv2d, hands_on


def sent_by(graph: Graph, projection: Projection, record: Record) -> NDArray[np.int64]:
    """What each source neuron sent, summed over samples (int64, shape of the source).

    Spikes, or values that were not zero; a constant value once per sample.
    """
    own = record.inputs if graph.is_input(projection.source) else record.spikes
    return own[projection.source]


def values_per_neuron(graph: Graph, projection: Projection, record: Record) -> int:
    """How many values one neuron of an input of values sent in all, zeros included."""
    once = graph.is_constant(projection)
    return record.samples * (1 if once else record.timesteps)


def is_shortcut(graph: Graph, projection: Projection) -> bool:
    """Whether it is an identity: spikes, one to one, beside what another projection brings."""
    synapses = projection.synapses
    if not isinstance(synapses, Conv2d) or projection.pool is not None:
        return False
    return (
        synapses.weight.shape == (synapses.groups, 1, 1, 1)
        and (synapses.stride, synapses.padding) == ((1, 1), (0, 0))
        and not graph.carries_values(projection)
        and projection.source != projection.target
        and len(graph.incoming(projection.target)) > 1
    )


def is_handed_on(graph: Graph, projection: Projection) -> bool:
    """Whether it is a bias that the host sets as it is: nothing is multiplied."""
    return (
        graph.on_host(projection)
        and (projection.pool, projection.exponent) == (None, 0)
        and hands_on(projection.synapses)
    )
