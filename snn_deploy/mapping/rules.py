"""Design rules: what a chip does not take although its simulator does, each with a code and a mend.

The limits are those of the target's number format (for Loihi: as lava-dl 0.6.0 and lava-nc 0.10.0
say); the rules look at a graph of whatever origin and say all that they find, instead of raising.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.checks import decays
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection
from snn_deploy.numerics import NumberFormat
from snn_deploy.quantization.ranges import ENDLESS, population_range
from snn_deploy.synapses import Conv2d

RULES = {
    "DR01": "weights lie in the range of the chip's synapses",
    "DR02": "weights are multiples of the chip's step (mixed signs: even)",
    "DR03": "biases fit their register",
    "DR04": "thresholds fit their register",
    "DR05": "one threshold and one decay per population",
    "DR06": "decays fit their field",
    "DR07": "no synaptic current leaves its register",
    "DR08": "delays fit their field",
    "DR09": "convolutions have at most 127 groups",
    "DR10": "neurons are reset every power of two of timesteps",
}

_MOST_GROUPS = 127


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: its code, where, what was found and what mends it."""

    code: str
    where: str
    message: str
    fix: str


def design_rules(graph: Graph, limits: NumberFormat) -> tuple[Finding, ...]:
    """All rules of a chip that an integer graph breaks.

    Parameters
    ----------
    graph : integer graph; its own number format may have wider limits.
    limits : the chip's number format.
    """
    return (
        *(f for p in graph.projections for f in _of_projection(graph, p, limits)),
        *(f for p in graph.populations for f in _of_population(graph, p, limits)),
        *_of_time(graph, limits),
    )


def _of_projection(graph: Graph, projection: Projection, limits: NumberFormat) -> Iterator[Finding]:
    if graph.on_host(projection):
        return
    weight, name = projection.synapses.weight, projection.name
    least, most = int(weight.min()), int(weight.max())
    if least < limits.weight_min or most > limits.weight_max:
        yield Finding(
            "DR01",
            name,
            f"weights from {least} to {most}, the chip has {limits.weight_min} to "
            f"{limits.weight_max}",
            "lower the scale of the population",
        )
    uneven = int((weight % limits.weight_step != 0).sum())
    if uneven and least < 0 < most:
        yield Finding(
            "DR02",
            name,
            f"{uneven} of {weight.size} weights are no multiple of {limits.weight_step}",
            f"round to multiples of {limits.weight_step}",
        )
    if projection.longest_delay > limits.delay_max:
        yield Finding(
            "DR08",
            name,
            f"a delay of {projection.longest_delay} timesteps, the chip has {limits.delay_max}",
            "train with shorter delays",
        )
    if isinstance(projection.synapses, Conv2d) and projection.synapses.groups > _MOST_GROUPS:
        yield Finding(
            "DR09",
            name,
            f"{projection.synapses.groups} groups, the most is {_MOST_GROUPS}",
            "split the population",
        )


def _of_population(graph: Graph, population: Population, limits: NumberFormat) -> Iterator[Finding]:
    neurons, name = population.neurons, population.name
    bias = _largest(neurons.bias)
    if bias > limits.bias_limit:
        yield Finding(
            "DR03",
            name,
            f"a bias of {bias}, the register of {limits.bias_bits} bits holds {limits.bias_limit}",
            "lower the biases or the scale of the population",
        )
    shared = {key: value.size == 1 for key, value in decays(population).items()}
    if isinstance(neurons, LIF):
        threshold = _largest(neurons.threshold)
        if threshold > limits.threshold_limit or neurons.threshold.min() < 0:
            yield Finding(
                "DR04",
                name,
                f"a threshold of {threshold}, the register holds 0 to {limits.threshold_limit}",
                "lower the threshold or the scale of the population",
            )
        if limits.threshold_per_population:
            shared["threshold"] = neurons.threshold.size == 1
    apart = [key for key, one in shared.items() if not one]
    if limits.threshold_per_population and apart:
        yield Finding(
            "DR05",
            name,
            f"{' and '.join(apart)} differ between neurons",
            "train with one value per population",
        )
    wrong = [
        key
        for key, value in decays(population).items()
        if value.min() < 0 or value.max() > limits.decay_limit
    ]
    if wrong:
        yield Finding("DR06", name, f"{' and '.join(wrong)} outside 0 to {limits.decay_limit}",
                      "clip the decays")  # fmt: skip
    try:
        found = population_range(graph, population, graph.incoming(name), limits)
    except SnnDeployError:
        return
    largest = max(-found.current[0], found.current[1])
    if largest > limits.membrane_limit:
        reach = "grow without end" if largest >= ENDLESS else f"reach {largest}"
        yield Finding(
            "DR07",
            name,
            f"its synaptic current may {reach}, and wraps at {limits.membrane_limit + 1}",
            "lower the weights or the fan-in",
        )


def _of_time(graph: Graph, limits: NumberFormat) -> Iterator[Finding]:
    steps = graph.timesteps
    if limits.hop_delay and steps is not None and steps & (steps - 1):
        yield Finding(
            "DR10",
            "timesteps",
            f"windows of {steps} timesteps; the chip resets neurons every power of two",
            f"train with {1 << steps.bit_length()} timesteps, or let windows rest until then",
        )


def _largest(values: NDArray[np.integer]) -> int:
    return int(np.abs(values.astype(np.int64)).max())
