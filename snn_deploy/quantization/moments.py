"""How much an error of a weight matters: the second moment of what its synapse receives.

The error of a neuron's current is ``sum (w' - w) s``; with inputs s that are taken as independent
of each other its mean square is ``sum (w' - w)^2 E[s^2]``. Without a recording nothing is known of
s: a rate is then uniform in [0, 1], a value uniform in its declared range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Population, Projection
from snn_deploy.numerics import NumberFormat, firing_level
from snn_deploy.packets import Recording
from snn_deploy.quantization.inputs import arriving, run_batches
from snn_deploy.quantization.scales import (
    Quantized,
    along_channels,
    along_outputs,
    weight_factor,
)
from snn_deploy.synapses import Conv2d

Floats = NDArray[np.float64]

# A synapse that a recording never reaches is not worthless: one more event of unknown rate.
_UNSEEN = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Second moments per projection, as measured; what was not is assumed."""

    measured: Mapping[str, Floats] = field(default_factory=dict)

    def of(self, graph: Graph, projection: Projection) -> Floats:
        """E[s^2] of every synapse, in float values; broadcastable to the weight."""
        found = self.measured.get(projection.name)
        return np.asarray(_assumed(graph, projection)) if found is None else found


def _assumed(graph: Graph, projection: Projection) -> float:
    pool = projection.pool
    taps = 1 if pool is None else pool.kernel[0] * pool.kernel[1]
    if graph.carries_values(projection):
        spec = graph.input(projection.source)
        low, high = (spec.normalise(np.full(spec.shape, v)) for v in (spec.low, spec.high))
        square = float(((low**2 + low * high + high**2) / 3).mean())
        mean = float(((low + high) / 2).mean())
        return taps * square + taps * (taps - 1) * mean**2
    return taps / 2 + taps * (taps - 1) / 3  # of one rate, E[p] = 1/2, E[p^2] = 1/3


def measure(graph: Graph, recording: Recording) -> Moments:
    """The second moments of a float graph's own spikes and inputs on a recording."""
    sums: dict[str, Floats] = {}
    rows = dict.fromkeys((p.name for p in graph.projections), 0)
    for batch in run_batches(graph, recording):
        for projection in graph.projections:
            uneven = projection.shortest_delay != projection.longest_delay
            if uneven and not graph.is_constant(projection):
                continue  # assumed: its synapses have no common time of arrival
            arrived = arriving(graph, projection, batch)
            total = (arrived**2).sum(axis=(0, 1, 2))  # [groups, synapses]
            sums[projection.name] = sums.get(projection.name, np.zeros(())) + total
            rows[projection.name] += int(np.prod(arrived.shape[:3]))
    return Moments({name: _per_weight(graph, name, (total + _UNSEEN) / (rows[name] + 1))
                    for name, total in sums.items()})  # fmt: skip


def _per_weight(graph: Graph, name: str, moment: Floats) -> Floats:
    """[groups, synapses per neuron] in the shape of the weight."""
    synapses = next(p for p in graph.projections if p.name == name).synapses
    groups = synapses.groups if isinstance(synapses, Conv2d) else 1
    outputs = len(synapses.weight)
    return np.repeat(moment, outputs // groups, axis=0).reshape(synapses.weight.shape)


def current_error(
    graph: Graph, population: Population, quantized: Quantized, moments: Moments
) -> float:
    """Mean squared error of a population's currents, biases and thresholds, summed over channels.

    In units of the float network, squared. ``graph`` has quantized inputs and the number format.
    A sum that the host hands over is rounded to bias mantissas: one more error, uniform.
    """
    form = graph.number_format
    if form is None or quantized.population.scale is None:
        raise ValueError("errors are those of a quantized population")
    scale = 1.0 / np.asarray(quantized.population.scale, np.float64)
    flat: Any = scale.reshape(-1) if scale.ndim else scale
    unit = along_channels(flat, population.shape) * 2.0**form.fraction_bits
    bias_step = 2.0**form.bias_shift / unit
    error = 0.0
    before = graph.incoming(population.name)
    for exact, rounded in zip(before, quantized.projections, strict=True):
        weight = rounded.synapses.weight
        factor = along_outputs(weight_factor(graph, rounded, flat, form), weight)
        difference = weight * 2.0**rounded.exponent / factor - exact.synapses.weight
        error += float((difference**2 * moments.of(graph, exact)).sum())
        if graph.on_host(rounded) and rounded.exponent < 0:
            error += _per_neuron(bias_step / np.sqrt(12), population)
    error += _per_neuron(
        quantized.population.neurons.bias * bias_step - population.neurons.bias, population
    )
    if isinstance(population.neurons, LIF) and isinstance(quantized.population.neurons, LIF):
        level = _level(form, quantized.population.neurons) / unit
        error += _per_neuron(level - population.neurons.threshold, population)
    return error


def _level(form: NumberFormat, neurons: LIF) -> Floats:
    return np.asarray(firing_level(form, neurons.threshold.astype(np.int64)), np.float64)


def _per_neuron(difference: Floats, population: Population) -> float:
    """Squares, averaged over the positions of a channel and summed over channels."""
    spread = np.broadcast_to(difference, population.shape)
    return float((spread**2).mean()) * population.shape[0]
