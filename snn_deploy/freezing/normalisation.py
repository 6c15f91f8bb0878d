"""Fold the normalisation of an input into weights and biases, where that is exact.

The host feeds ``(x - mean) / std``. With ``W' = W / std`` per input channel and ``b' = b - sum W'
mean`` raw values do the same, wherever every synapse of a neuron reaches the input: zero padding
stands for normalised zeros, which are raw means, so that neurons at the border would get another
bias.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.forms import per_input
from snn_deploy.graph import Graph, InputSpec, Projection
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import Conv2d, with_weights

Floats = NDArray[np.float64]


def fold_normalisation(
    graph: Graph, magnitude: dict[str, Floats]
) -> tuple[Graph, dict[str, Floats]]:
    """A float graph whose input is raw, and the magnitudes that were summed into its biases.

    Raises
    ------
    SnnDeployError
        SD205 where a mean other than 0 meets zero padding or a synaptic filter.
    """
    spec, *always = graph.inputs
    raw = replace(spec, mean=np.zeros(1), std=np.ones(1))
    shifts: dict[str, Floats] = {}
    magnitude = dict(magnitude)
    projections = []
    for projection in graph.projections:
        if projection.source == spec.name and spec.kind != "spikes":
            projection = _by_std(spec, projection)
            if spec.mean.any():
                _check(graph, projection)
                shifts[projection.target] = _shift(spec, projection, spec.mean)
                sizes = np.abs(projection.synapses.weight)
                sized = replace(projection, synapses=with_weights(projection.synapses, sizes))
                extra = _shift(spec, sized, np.abs(spec.mean))
                magnitude[projection.target] = magnitude[projection.target] + extra
        projections.append(projection)
    populations = tuple(
        replace(p, neurons=replace(p.neurons, bias=p.neurons.bias - shifts[p.name]))
        if p.name in shifts
        else p
        for p in graph.populations
    )
    return (
        replace(
            graph, inputs=(raw, *always), populations=populations, projections=tuple(projections)
        ),
        magnitude,
    )


def _check(graph: Graph, projection: Projection) -> None:
    synapses = projection.synapses
    what = None
    if isinstance(synapses, Conv2d) and synapses.padding != (0, 0):
        what, fix = "zero padding", "use padding=0 in the first layer, or a mean of 0"
    elif graph.population(projection.target).neurons.current_decay is not None:
        what, fix = "neurons with a synaptic filter, which a bias does not pass", "use a mean of 0"
    if what is not None:
        raise SnnDeployError(
            "SD205",
            f"the mean of the input cannot be folded into weights in front of {what}",
            where=projection.name,
            fix=f"{fix}, or leave normalisation to the host (fold_normalisation=False)",
        )


def _by_std(spec: InputSpec, projection: Projection) -> Projection:
    """Weights divided by the std of the channel that they see."""
    std = np.broadcast_to(spec.std, (spec.shape[0],))
    synapses = projection.synapses
    weight = synapses.weight / per_input(synapses, std)
    return replace(projection, synapses=with_weights(synapses, weight))


def _shift(spec: InputSpec, projection: Projection, mean: Floats) -> Floats:
    """``sum W' mean`` for every neuron of a target, per channel: [C, 1, 1] or [N]."""
    spread = np.broadcast_to(mean, (spec.shape[0],)).reshape(-1, *([1] * (len(spec.shape) - 1)))
    full = np.broadcast_to(spread, (1, *spec.shape)).astype(np.float64)
    sums: Floats = synaptic_sum(projection, spec.shape, full)[0]
    return sums[:, :1, :1] if sums.ndim == 3 else sums
