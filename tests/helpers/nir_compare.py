"""Our spikes beside those of a library that ran our file, and what float32 explains of differences.

A library computes in float32. Where a membrane lies within its rounding error of the threshold, or
within the margin by which our files lower thresholds, a spike may differ: a tie, which is listed.
What such a spike changes later, in the same neuron or in those it reaches, is that tie's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.neurons import TIE_MARGIN

from snn_deploy.freezing.bounds import membrane_and_bound, tainted
from snn_deploy.graph import (
    LIF,
    Graph,
    Neurons,
    Population,
    Projection,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.numerics import NumberFormat, firing_level, kept_share
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import with_weights

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """Spikes of a run that differ from ours.

    Attributes
    ----------
    slots : neuron-timesteps compared.
    spikes : how many spikes there are in our run.
    wrong : differing ones that nothing explains.
    ties : (population, sample, timestep, neuron, distance from the threshold, bound).
    downstream : differing ones that an earlier one explains.
    output : largest difference of an output without spikes, in units of what float32 may be off.
    """

    slots: int
    spikes: int
    wrong: int
    ties: tuple[tuple[str, int, int, int, float, float], ...]
    downstream: int
    output: float

    @property
    def differing(self) -> int:
        """All of them."""
        return self.wrong + len(self.ties) + self.downstream


def in_float(graph: Graph) -> Graph:
    """An integer graph without its rounding, in weight units; for values that are normalised."""
    form = graph.number_format
    assert form is not None
    return replace(
        graph,
        inputs=tuple(replace(spec, scale=None) for spec in graph.inputs),
        populations=tuple(_population_in_float(p, form) for p in graph.populations),
        projections=tuple(_projection_in_float(graph, p) for p in graph.projections),
        number_format=None,
    )


def _population_in_float(population: Population, form: NumberFormat) -> Population:
    neurons, unit = population.neurons, 2.0**-form.fraction_bits
    memory = neurons.current_decay
    made: Neurons = replace(
        neurons,
        decay=kept_share(neurons.decay, form.decay_rule, form.decay_bits),
        bias=neurons.bias * 2.0**form.bias_shift * unit,
        current_decay=None
        if memory is None
        else kept_share(memory, form.decay_rule, form.decay_bits),
    )
    if isinstance(made, LIF):
        reset = made.reset
        made = replace(
            made,
            threshold=firing_level(form, made.threshold.astype(np.int64)) * unit,
            reset=ResetTo(reset.value * unit)
            if isinstance(reset, ResetTo)
            else ResetSubtract(reset.amount * unit),
        )
    return replace(population, neurons=made, scale=None)


def _projection_in_float(graph: Graph, projection: Projection) -> Projection:
    assert not graph.on_host(projection)
    weight = projection.synapses.weight * 2.0**projection.exponent
    if graph.carries_values(projection):
        weight = weight / graph.input(projection.source).scale
    synapses = with_weights(projection.synapses, weight)
    return replace(projection, synapses=synapses, exponent=0)


def recorded(graph: Graph, inputs: Array) -> Recording:
    """Input of every timestep, [B, T, ...], as a recording for a graph."""
    (spec,) = (one for one in graph.inputs if not one.always_fires)
    if spec.kind == "spikes":
        return Recording(spikes={spec.name: inputs})
    return Recording(values={spec.name: inputs[:, 0] if spec.kind == "constant" else inputs})


def compared(graph: Graph, inputs: Array, spikes: dict[str, Array], output: Array) -> Difference:
    """A float graph's own run beside another's.

    Parameters
    ----------
    inputs : what was fed, [B, T, ...].
    spikes : by population, [B, T, ...].
    output : what the other returned, [B, T, ...].
    """
    recording = recorded(graph, inputs)
    trace = simulate(graph, recording, engine="reference", trace=True)
    assert spikes.keys() == trace.spikes.keys()
    for name, ours in trace.spikes.items():
        assert spikes[name].shape == ours.shape, name
    flips = {name: spikes[name] != ours for name, ours in trace.spikes.items()}
    biases: Any = SimpleNamespace(
        magnitude={p.name: np.broadcast_to(p.neurons.bias, p.shape) for p in graph.populations}
    )
    wrong, downstream, ties, off = 0, 0, [], 0.0
    for name in (n for group in graph.order for n in group):
        population = graph.population(name)
        reached = tainted(graph, population, flips, trace.membrane[name].shape)
        membrane, bound = membrane_and_bound(graph, biases, population, recording, trace)
        if not isinstance(population.neurons, LIF):
            apart = np.abs(output.reshape(membrane.shape) - membrane) / np.maximum(bound, 1e-30)
            off = max(off, float(np.where(reached, 0, apart).max()))
            continue
        threshold = population.neurons.threshold
        distance = np.abs(membrane - threshold)
        bound = bound + TIE_MARGIN * np.abs(threshold)
        root = flips[name] & ~reached
        wrong += int((root & (distance > bound)).sum())
        downstream += int((flips[name] & reached).sum())
        for at in map(tuple, np.argwhere(root & (distance <= bound))):
            neuron = int(np.ravel_multi_index(at[2:], population.shape))
            ties.append(
                (name, int(at[0]), int(at[1]), neuron, float(distance[at]), float(bound[at]))
            )
    return Difference(
        slots=sum(one.size for one in flips.values()),
        spikes=sum(int(one.sum()) for one in trace.spikes.values()),
        wrong=wrong,
        ties=tuple(ties),
        downstream=downstream,
        output=off,
    )
