"""The rounding rules: from float numbers and a scale to the mantissas of a number format.

A scale S is the number of weight units per unit of the float network: one for a population, or one
per output channel. Times ``2**fraction_bits`` it is the *unit*, membrane LSBs per unit of the float
network. The first functions round arrays; the rest puts a population together from them.

A neuron with comparator ``>`` and threshold mantissa m fires from the membrane
``(m << threshold_shift) + 1`` on: its *firing level*.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from snn_deploy.quantization.scheme import Grid
from snn_deploy.synapses import Shape, with_weights

Floats = NDArray[np.float64]

# One for a population, or one per output channel, shape (C,).
Scale = float | Floats


def weight_mantissas(weight: Floats, factor: Scale, grid: Grid, *, clips: bool = True) -> Integers:
    """Weights times ``factor`` (one, or one per output channel) on the grid, ties to even steps.

    Without ``clips`` they may lie beyond it.
    """
    steps = round_to_integer(weight * along_outputs(factor, weight) / grid.step)
    if clips:
        steps = np.clip(steps, grid.low // grid.step, grid.high // grid.step)
    return steps * grid.step


def bias_mantissas(bias: Floats, unit: Any, number_format: NumberFormat) -> Integers:
    """Nearest bias mantissas; ``unit`` is broadcastable to the population, as ``bias`` is."""
    return round_to_integer(np.asarray(bias * unit / 2.0**number_format.bias_shift))


def threshold_mantissas(threshold: Floats, unit: Any, number_format: NumberFormat) -> Integers:
    """Threshold mantissas with the nearest firing levels.

    Where a threshold has the membrane's own unit, membranes are integers and ``v >= ceil(level)``
    is exactly ``v >= level``: there the level is rounded up.
    """
    level = np.asarray(threshold * unit, np.float64)
    strict = number_format.comparator == ">"
    if number_format.threshold_shift == 0:
        return round_to_integer(np.ceil(level)) - strict
    return round_to_integer((level - strict) / 2.0**number_format.threshold_shift)


def reset_mantissa(reset: Reset, unit: float) -> Reset:
    """The reset in membrane units, to nearest."""
    amount = reset.amount if isinstance(reset, ResetSubtract) else reset.value
    rounded = int(round_to_integer(np.asarray(amount * unit)))
    return ResetSubtract(rounded) if isinstance(reset, ResetSubtract) else ResetTo(rounded)


def along_outputs(value: Scale, weight: NDArray[Any]) -> NDArray[np.float64]:
    """One value for all, or one per output channel, shaped to multiply weights (C_out, ...)."""
    array = np.asarray(value, np.float64)
    return array if array.ndim == 0 else array.reshape(-1, *([1] * (weight.ndim - 1)))


def along_channels(value: Scale, shape: Shape) -> NDArray[np.float64]:
    """One value for all, or one per channel, shaped to multiply a population's parameters."""
    array = np.asarray(value, np.float64)
    return array if array.ndim == 0 else array.reshape(-1, *([1] * (len(shape) - 1)))


def weight_factor(
    graph: Graph, projection: Projection, scale: Scale, number_format: NumberFormat
) -> Scale:
    """Mantissas (exponent 0) per unit of a projection's float weights.

    ``graph`` has quantized inputs and the number format: values come in steps of their own, and a
    sum on the host is counted in bias mantissas.
    """
    factor = scale
    if graph.carries_values(projection):
        factor = factor * (graph.input(projection.source).scale or 1.0)
        if graph.on_host(projection):
            factor = factor * 2.0 ** (number_format.fraction_bits - number_format.bias_shift)
    return factor


def float_weights(integer: Graph, projection: Projection) -> Floats:
    """What an integer graph's weights are worth, in units of the float network."""
    number_format, scale = integer.number_format, integer.population(projection.target).scale
    if number_format is None or scale is None:
        raise ValueError("only the weights of a quantized graph have such a worth")
    per_output = 1.0 / np.asarray(scale, np.float64).reshape(-1)
    unit = float(per_output[0]) if per_output.size == 1 else per_output
    factor = weight_factor(integer, projection, unit, number_format)
    weight = projection.synapses.weight
    return np.asarray(weight * 2.0**projection.exponent / along_outputs(factor, weight))


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """One population with its incoming projections, as integers."""

    population: Population
    projections: tuple[Projection, ...]


def at_scale(
    graph: Graph,
    population: Population,
    scale: Scale,
    grid: Grid,
    number_format: NumberFormat,
    *,
    threshold: int | None = None,
    exponents: Mapping[str, int] | None = None,
    clips: bool = False,
) -> Quantized:
    """Round a population at ``scale``.

    Parameters
    ----------
    graph : the float graph, but with quantized inputs and the number format.
    population : of that graph.
    scale : weight units per unit of the float network, one or (C,).
    grid : what weights on the chip may be; those of a host sum are as fine as their width allows.
    threshold : the mantissa, where the scale follows from it.
    exponents : of the projections by name; default: the smallest that hold the weights.
    clips : bring weights beyond the grid into it, rather than leave them where they do not fit.

    Raises
    ------
    OverflowError
        If a number has no place among 53-bit integers, or a decay no field.
    """
    projections = tuple(
        _projection(graph, p, scale, grid, number_format, exponents, clips)
        for p in graph.incoming(population.name)
    )
    neurons = population.neurons
    spread = along_channels(scale, population.shape)
    unit = spread * 2.0**number_format.fraction_bits
    rule, bits = number_format.decay_rule, number_format.decay_bits
    memory = neurons.current_decay
    quantized: Neurons = replace(
        neurons,
        decay=decay_mantissa(neurons.decay, rule, bits),
        bias=bias_mantissas(neurons.bias, unit, number_format),
        current_decay=None if memory is None else decay_mantissa(memory, rule, bits),
    )
    if isinstance(quantized, LIF) and isinstance(neurons, LIF):
        mantissas = (
            threshold_mantissas(neurons.threshold, unit, number_format)
            if threshold is None
            else np.array(threshold, np.int64)
        )
        # zero is zero in every unit; another reset has one amount, so its channels share a unit
        reset = ResetTo(0) if unit.ndim else reset_mantissa(neurons.reset, float(unit))
        quantized = replace(quantized, threshold=mantissas, reset=reset)
    worth = 1.0 / spread
    return Quantized(
        replace(population, neurons=quantized, scale=worth if worth.ndim else float(worth)),
        projections,
    )


def _projection(
    graph: Graph,
    projection: Projection,
    scale: Scale,
    grid: Grid,
    number_format: NumberFormat,
    exponents: Mapping[str, int] | None,
    clips: bool,
) -> Projection:
    """One projection's mantissas and exponent."""
    weight = projection.synapses.weight
    factor = weight_factor(graph, projection, scale, number_format)
    scaled = weight * along_outputs(factor, weight)
    if graph.on_host(projection):
        grid = host_grid(number_format)
        largest, exponent = float(np.abs(scaled).max()), 0
        if largest > 0:
            room = int(np.floor(np.log2(grid.high / largest)))
            exponent = -min(max(room, 0), 30)
        clips = False
    elif exponents is not None:
        exponent = exponents[projection.name]
    else:
        exponent = smallest_exponent(scaled, grid, number_format.weight_exponent_max)
    mantissas = weight_mantissas(weight, factor * 2.0**-exponent, grid, clips=clips)
    return replace(
        projection,
        synapses=with_weights(projection.synapses, narrow(mantissas)),
        exponent=exponent,
    )


def host_grid(number_format: NumberFormat) -> Grid:
    """What the weights may be by which the host multiplies values."""
    limit = number_format.first_layer_weight_limit
    return Grid(-limit, limit, 1)


def smallest_exponent(scaled: Floats, grid: Grid, most: int) -> int:
    """The smallest exponent at which scaled weights round into the grid; ``most`` if none does."""
    least, largest = float(scaled.min()) / grid.step, float(scaled.max()) / grid.step
    low, high = grid.low // grid.step, grid.high // grid.step
    for exponent in range(most):
        part = 2.0**-exponent
        if low <= np.rint(least * part) and np.rint(largest * part) <= high:
            return exponent
    return most


def rounded_away(
    graph: Graph, quantized: Quantized, grid: Grid, number_format: NumberFormat
) -> Quantized:
    """The population with all weights on the chip rounded away from zero.

    No other choice between the two grid points around each weight makes larger sums.
    """
    scale = 1.0 / np.asarray(quantized.population.scale, np.float64).reshape(-1)
    real = graph.incoming(quantized.population.name)
    projections = []
    for projection, before in zip(quantized.projections, real, strict=True):
        if not graph.on_host(projection):
            weight = before.synapses.weight
            factor = weight_factor(graph, projection, scale, number_format)
            part = along_outputs(factor, weight) * 2.0**-projection.exponent / grid.step
            steps = np.sign(weight) * np.ceil(np.abs(weight * part))
            mantissas = np.clip(steps.astype(np.int64) * grid.step, grid.low, grid.high)
            synapses = with_weights(projection.synapses, mantissas)
            projection = replace(projection, synapses=synapses)
        projections.append(projection)
    return replace(quantized, projections=tuple(projections))


def narrow(weight: Integers) -> NDArray[Any]:
    """int16 where that holds the weights."""
    return weight.astype(np.int16) if np.abs(weight).max(initial=0) < 1 << 15 else weight


def misfit(
    graph: Graph, quantized: Quantized, grid: Grid, number_format: NumberFormat
) -> str | None:
    """Why a quantized population does not fit the format, in words; None if it does."""
    neurons = quantized.population.neurons
    real = graph.incoming(quantized.population.name)
    for projection, before in zip(quantized.projections, real, strict=True):
        weight = projection.synapses.weight
        if before.synapses.weight.any() and not weight.any():
            return f"every weight of {projection.name} rounds to zero"
        allowed = host_grid(number_format) if graph.on_host(projection) else grid
        if weight.min() < allowed.low or weight.max() > allowed.high:
            return f"weights of {projection.name} exceed [{allowed.low}, {allowed.high}]"
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
