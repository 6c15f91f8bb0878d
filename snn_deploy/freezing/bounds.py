"""How far the float32 arithmetic of a module may be from the frozen graph, and what flips reach.

The error bound is derived for every neuron and timestep from the magnitudes it sums (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1: a sum of n products has a relative
error of at most n*u / (1 - n*u) of the sum of their absolute values).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.freezing.lowering import Lowered
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetTo
from snn_deploy.packets import Recording
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import with_weights

Array = NDArray[Any]

# Unit roundoff of float32, and roundings per sum besides its products: normalisation of the input
# (4), pooling (2), batch normalisation (7) with tdBN's scale or the gain of a C-LIF (2), sums of
# residual ways (1 for each), rounded up.
ROUNDOFF = 2.0**-24
_OTHER_OPERATIONS = 20
# Decays, thresholds and reset amounts are rounded to float32, learned ones after a sigmoid or an
# exponential of a few roundings; then come a product and a sum.
_PARAMETER_ROUNDINGS = 8


def _weighing(projection: Projection, weight: Array) -> Projection:
    """The same projection with other weights."""
    return replace(projection, synapses=with_weights(projection.synapses, weight))


def tainted(
    graph: Graph, population: Population, flips: dict[str, Array], shape: tuple[int, ...]
) -> Array:
    """Neurons and timesteps that an earlier flip may have changed: bool of ``shape`` [B, T, ...].

    A flip reaches the neurons it projects to in the step it arrives, and stays in their currents
    and membranes. A neuron's own flip stays in its membrane, through either reset.
    """
    reached = np.zeros(shape, bool)
    for projection in graph.incoming(population.name):
        if graph.is_input(projection.source) or not flips[projection.source].any():
            continue
        ones = _weighing(projection, np.ones_like(projection.synapses.weight))
        source = graph.shape_of(projection.source)
        arriving = synaptic_sum(ones, source, flips[projection.source].astype(float)) > 0
        delay = projection.longest_delay  # frozen graphs have one delay per projection
        reached[:, delay:] |= arriving[:, : max(arriving.shape[1] - delay, 0)]
    if population.name in flips:
        reached[:, 1:] |= flips[population.name][:, :-1]
    return np.asarray(np.logical_or.accumulate(reached, axis=1))


def membrane_and_bound(
    graph: Graph, lowered: Lowered, population: Population, part: Recording, trace: Trace
) -> tuple[Array, Array]:
    """Membranes before the reset, and how far float32 may be from them: [B, T, *shape]."""
    name, neurons = population.name, population.neurons
    after = trace.membrane[name]
    before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
    membrane = before * neurons.decay + trace.current[name] + neurons.bias
    summed = np.zeros_like(after) + np.abs(lowered.magnitude[name])
    terms = 0
    for projection in graph.incoming(name):
        magnitudes = _weighing(projection, np.abs(projection.synapses.weight))
        arriving = synaptic_sum(
            magnitudes,
            graph.shape_of(projection.source),
            _source_magnitude(graph, projection, part, trace),
        )
        delay = projection.longest_delay
        summed[:, delay:] += arriving[:, : max(after.shape[1] - delay, 0)]
        window = 1 if projection.pool is None else int(np.prod(projection.pool.kernel))
        terms += projection.synapses.weight[0].size * window
    operations = (terms + _OTHER_OPERATIONS) * ROUNDOFF
    fresh = operations / (1 - operations) * summed
    # What the parameters themselves are rounded by counts with the state that they multiply.
    update = _PARAMETER_ROUNDINGS * ROUNDOFF
    current = np.zeros_like(fresh[:, 0])  # error of the synaptic current, where that has a memory
    carried = np.zeros_like(fresh[:, 0])
    bound = np.empty_like(fresh)
    for step in range(fresh.shape[1]):
        arriving = fresh[:, step]
        if neurons.current_decay is not None:
            now = np.abs(trace.current[name][:, step])
            earlier = np.abs(trace.current[name][:, max(step - 1, 0)])
            current = neurons.current_decay * current + arriving + update * (now + earlier)
            arriving = current
        state = np.abs(membrane[:, step]) + np.abs(before[:, step])
        bound[:, step] = neurons.decay * carried + arriving + update * state
        carried = bound[:, step]
        if name in trace.spikes and isinstance(neurons, LIF):
            # a hard reset leaves 0 in both; a subtraction leaves the error, and adds its rounding
            fired = trace.spikes[name][:, step]
            if isinstance(neurons.reset, ResetTo):
                carried = np.where(fired, 0.0, carried)
            else:
                carried = carried + fired * update * neurons.reset.amount
    return membrane, bound


def _source_magnitude(graph: Graph, projection: Projection, part: Recording, trace: Trace) -> Array:
    """Absolute values that a projection multiplies, [B, T or 1, *source shape], float64."""
    if not graph.is_input(projection.source):
        return trace.spikes[projection.source].astype(np.float64)
    spec = graph.input(projection.source)
    if spec.always_fires:
        return np.ones((part.samples, 1, *spec.shape))
    if spec.kind == "spikes":
        return part.spikes[spec.name].astype(np.float64)
    raw = np.abs(part.values[spec.name].astype(np.float64))
    per_channel = (-1, *([1] * (len(spec.shape) - 1)))
    magnitude = (raw + np.abs(spec.mean).reshape(per_channel)) / spec.std.reshape(per_channel)
    return magnitude[:, None] if spec.kind == "constant" else magnitude
