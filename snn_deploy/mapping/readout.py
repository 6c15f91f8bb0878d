"""Let the chip add up a readout that the host would have to add up timestep by timestep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.graph import Graph, Integrator, Population
from snn_deploy.quantization.ranges import out_of_range, population_range


def accumulate_readout(graph: Graph) -> Graph:
    """Readouts of summed currents as membranes without leak, read after the last timestep.

    An integrator without memory whose currents are summed (``mean`` is summed in integers, too) is
    the same as one that never leaks, at its last timestep. Only where the range proof holds for the
    sum over all timesteps; else the readout stays, and the host adds up.
    """
    return replace(graph, populations=tuple(_accumulated(graph, p) for p in graph.populations))


def _accumulated(graph: Graph, population: Population) -> Population:
    neurons, number_format = population.neurons, graph.number_format
    if (
        number_format is None
        or graph.timesteps is None
        or number_format.decay_rule == "shift_subtract"  # cannot but leak
        or not isinstance(neurons, Integrator)
        or neurons.readout not in ("sum", "mean")
        or neurons.decay.any()
    ):
        return population
    whole = np.array(1 << number_format.decay_bits)
    summing = replace(population, neurons=replace(neurons, decay=whole, readout="last"))
    found = population_range(graph, summing, graph.incoming(population.name), number_format)
    return population if out_of_range(found, number_format) else summing
