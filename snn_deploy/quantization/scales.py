"""Quantize one population at a given scale: weights, bias, threshold, decay and reset together.

A scale S is the number of weight units per unit of the float network. Thresholds decide it where a
chip has one coarse threshold per population: with comparator ``>`` and threshold mantissa m a
neuron fires from the membrane ``(m << shift) + 1`` on, so S is chosen to put the float threshold
exactly there; then only the rounding of weights, bias and decay remains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import (
    LIF,
    Graph,
    Neurons,
    Population,
    Projection,
    Reset,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.numerics import Integers, NumberFormat, decay_mantissa, round_to_integer
from snn_deploy.quantization.ranges import out_of_range, population_range
from snn_deploy.synapses import with_weights

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """One population with its incoming projections, as integers."""

    population: Population
    projections: tuple[Projection, ...]


def firing_level(number_format: NumberFormat, mantissa: int) -> int:
    """The lowest membrane that fires at a threshold mantissa."""
    return (mantissa << number_format.threshold_shift) + (number_format.comparator == ">")


def at_scale(
    graph: Graph,
    population: Population,
    scale: float,
    number_format: NumberFormat,
    threshold: int | None = None,
) -> Quantized:
    """Round a population at ``scale``; ``threshold`` is its mantissa where the scale follows it.

    ``graph`` is the float graph, but with quantized inputs and the number format.
    """
    projections = tuple(
        _projection(graph, p, scale, number_format) for p in graph.incoming(population.name)
    )
    neurons = population.neurons
    unit = scale * 2.0**number_format.fraction_bits  # membrane units per unit of the float network
    bias = round_to_integer(np.asarray(neurons.bias * unit / 2.0**number_format.bias_shift))
    rule, bits = number_format.decay_rule, number_format.decay_bits
    decay = decay_mantissa(neurons.decay, rule, bits)
    memory = neurons.current_decay
    current_decay = None if memory is None else decay_mantissa(memory, rule, bits)
    quantized: Neurons
    if isinstance(neurons, LIF):
        mantissas = (
            _fine_thresholds(neurons.threshold * unit, number_format)
            if threshold is None
            else np.array(threshold, np.int64)
        )
        quantized = LIF(
            decay=decay,
            threshold=mantissas,
            bias=bias,
            reset=_reset(neurons.reset, unit),
            current_decay=current_decay,
        )
    else:
        quantized = replace(neurons, decay=decay, bias=bias, current_decay=current_decay)
    return Quantized(replace(population, neurons=quantized, scale=1.0 / scale), projections)


def _fine_thresholds(level: Any, number_format: NumberFormat) -> Integers:
    """Threshold mantissas of a format whose threshold unit is the membrane's.

    Membranes are integers, so ``v >= ceil(level)`` is exactly ``v >= level``.
    """
    ceiling = round_to_integer(np.ceil(np.asarray(level, np.float64)))
    return ceiling - (number_format.comparator == ">")


def _reset(reset: Reset, unit: float) -> Reset:
    amount = reset.amount if isinstance(reset, ResetSubtract) else reset.value
    rounded = int(round_to_integer(np.asarray(amount * unit)))
    return ResetSubtract(rounded) if isinstance(reset, ResetSubtract) else ResetTo(rounded)


def _projection(
    graph: Graph, projection: Projection, scale: float, number_format: NumberFormat
) -> Projection:
    """One projection's mantissas; those of a host sum are as fine as their width allows."""
    step, exponent = number_format.weight_step, 0
    factor = scale
    if graph.carries_values(projection):
        factor *= graph.input(projection.source).scale or 1.0
        if graph.on_host(projection):
            step = 1
            factor *= 2.0 ** (number_format.fraction_bits - number_format.bias_shift)
            largest = float(np.abs(projection.synapses.weight).max()) * factor
            if largest > 0:
                room = int(np.floor(np.log2(number_format.first_layer_weight_limit / largest)))
                exponent = -min(max(room, 0), 30)
    mantissas = step * round_to_integer(
        projection.synapses.weight * (factor * 2.0**-exponent) / step
    )
    return replace(
        projection,
        synapses=with_weights(projection.synapses, _narrow(mantissas)),
        exponent=exponent,
    )


def _narrow(weight: Integers) -> NDArray[Any]:
    """int16 where that holds the weights."""
    return weight.astype(np.int16) if np.abs(weight).max(initial=0) < 1 << 15 else weight


def misfit(graph: Graph, quantized: Quantized, number_format: NumberFormat) -> str | None:
    """Why a quantized population does not fit the format, in words; None if it does."""
    neurons = quantized.population.neurons
    real = graph.incoming(quantized.population.name)
    for projection, before in zip(quantized.projections, real, strict=True):
        weight = projection.synapses.weight
        if before.synapses.weight.any() and not weight.any():
            return f"every weight of {projection.name} rounds to zero"
        if graph.on_host(projection):
            limit = number_format.first_layer_weight_limit
            low, high = -limit, limit
        else:
            low, high = number_format.weight_min, number_format.weight_max
        if weight.min() < low or weight.max() > high:
            return f"weights of {projection.name} exceed [{low}, {high}]"
    if np.abs(neurons.bias).max() > number_format.bias_limit:
        return f"biases exceed +-{number_format.bias_limit}"
    if isinstance(neurons, LIF) and (
        neurons.threshold.max() > number_format.threshold_limit or neurons.threshold.min() < 0
    ):
        return f"thresholds exceed {number_format.threshold_limit}"
    if isinstance(neurons, LIF):
        reset = neurons.reset
        amount = reset.amount if isinstance(reset, ResetSubtract) else reset.value
        if abs(amount) > number_format.membrane_limit:
            return f"the reset exceeds +-{number_format.membrane_limit}"
    found = population_range(graph, quantized.population, quantized.projections, number_format)
    return out_of_range(found, number_format)
