"""From a float graph to the integers of a target: the only place where scales are chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, InputSpec, Population, ResetTo
from snn_deploy.hardware import Target, target
from snn_deploy.numerics import NumberFormat
from snn_deploy.quantization.ranges import Range, prove_ranges
from snn_deploy.quantization.scales import Quantized, at_scale, firing_level, misfit

__all__ = ["Range", "prove_ranges", "quantize"]

# Where no threshold decides the scale, scales are tried in steps of this factor.
_SCALE_STEP = 2.0**-0.125
_SCALE_TRIES = 400


def quantize(graph: Graph, to: Target | str) -> Graph:
    """Quantize a float graph to a target's number format.

    One scale per population, the largest at which weights, biases, thresholds and the range proof
    all fit. Weights are rounded to nearest, never clipped.

    Parameters
    ----------
    graph : a float graph.
    to : a target with a number format, or its name.

    Returns
    -------
    Graph
        The integer graph; ``prove_ranges`` holds for it.

    Raises
    ------
    SnnDeployError
        SD201 if the target has no number format, SD202 or SD203 naming what does not fit.
    """
    chip = target(to) if isinstance(to, str) else to
    number_format = chip.require_format()
    checks.check_float(graph)
    inputs = tuple(_input(spec, number_format) for spec in graph.inputs)
    graph = replace(graph, inputs=inputs, number_format=number_format)
    _check_host_sums(graph, chip.id)
    quantized = [_population(graph, p, number_format, chip.id) for p in graph.populations]
    found = {p.name: p for q in quantized for p in q.projections}
    integer = replace(
        graph,
        populations=tuple(q.population for q in quantized),
        projections=tuple(found[p.name] for p in graph.projections),
    )
    checks.check_integer(integer)
    prove_ranges(integer)
    return integer


def _input(spec: InputSpec, number_format: NumberFormat) -> InputSpec:
    """Give values the step that lets the declared range fill the input's bits, symmetric at 0.

    Zero stays zero: a zero point would shift what zero padding adds at the borders.
    """
    if spec.kind == "spikes":
        return spec
    low, high = spec.encoded_range()
    signed = bool(low.min() < 0)
    limit = (1 << (number_format.input_bits - signed)) - 1
    largest = max(float(-low.min()), float(high.max()))
    return replace(spec, scale=largest / limit if largest > 0 else 1.0)


def _check_host_sums(graph: Graph, chip: str) -> None:
    """A sum that the host hands over as a bias joins the membrane behind any synaptic filter."""
    for projection in graph.projections:
        neurons = graph.population(projection.target).neurons
        if graph.on_host(projection) and neurons.current_decay is not None:
            raise SnnDeployError(
                "SD202",
                f"{chip} takes a constant input as a bias, which passes no synaptic filter",
                where=projection.name,
                fix="train the first layer without current_decay or on spikes, or choose the "
                "target `generic`",
            )


def _population(
    graph: Graph, population: Population, number_format: NumberFormat, chip: str
) -> Quantized:
    """Quantize one population at the largest scale that fits."""
    neurons = population.neurons
    if isinstance(neurons, LIF):
        _check_neurons(population, neurons, number_format, chip)
        if number_format.threshold_per_population:
            return _at_largest_threshold(graph, population, neurons, number_format, chip)
    scale = _upper_scale(graph, population, number_format)
    why = None
    for _ in range(_SCALE_TRIES):
        quantized, why = _attempt(graph, population, scale, number_format)
        if quantized is not None and why is None:
            return quantized
        scale *= _SCALE_STEP
    raise _unfit(population, why, chip)


def _check_neurons(
    population: Population, neurons: LIF, number_format: NumberFormat, chip: str
) -> None:
    if neurons.threshold.min() <= 0:
        raise SnnDeployError("SD202", "a threshold must be above 0", where=population.name)
    hard_zero = isinstance(neurons.reset, ResetTo) and neurons.reset.value == 0
    if not number_format.soft_reset and not hard_zero:
        raise SnnDeployError(
            "SD202",
            f"{chip} resets membranes to zero only",
            where=population.name,
            fix="train with hard reset, or choose the target `generic`",
        )
    if number_format.threshold_per_population and neurons.threshold.size != 1:
        raise SnnDeployError(
            "SD202",
            f"{chip} has one threshold per population",
            where=population.name,
            fix="train with one threshold per layer, or choose the target `generic`",
        )


def _upper_scale(graph: Graph, population: Population, number_format: NumberFormat) -> float:
    """The scale at which the largest weight on the chip fills its mantissa."""
    bounds = []
    for projection in graph.incoming(population.name):
        largest = float(np.abs(projection.synapses.weight).max())
        limit = number_format.weight_max
        if graph.carries_values(projection):
            largest *= graph.input(projection.source).scale or 1.0
        if graph.on_host(projection):
            limit = number_format.first_layer_weight_limit
        if largest > 0:
            bounds.append(limit / largest)
    return min(bounds, default=1.0)


def _at_largest_threshold(
    graph: Graph,
    population: Population,
    neurons: LIF,
    number_format: NumberFormat,
    chip: str,
) -> Quantized:
    """Search the largest threshold mantissa whose scale fits, by bisection."""
    threshold = float(neurons.threshold.item())
    unit = threshold * 2.0**number_format.fraction_bits

    def attempt(mantissa: int) -> tuple[Quantized | None, str | None]:
        scale = firing_level(number_format, mantissa) / unit
        return _attempt(graph, population, scale, number_format, mantissa)

    fits, best = 0, None
    high = number_format.threshold_limit + 1
    why = None
    while high - fits > 1:
        middle = (fits + high) // 2
        quantized, why_not = attempt(middle)
        if why_not is None:
            fits, best = middle, quantized
        else:
            high, why = middle, why_not
    if best is None:
        raise _unfit(population, why, chip)
    return best


def _attempt(
    graph: Graph,
    population: Population,
    scale: float,
    number_format: NumberFormat,
    threshold: int | None = None,
) -> tuple[Quantized | None, str | None]:
    """A population at this scale, and why it does not fit (None if it does)."""
    try:
        quantized = at_scale(graph, population, scale, number_format, threshold)
    except OverflowError as error:
        return None, str(error)
    return quantized, misfit(graph, quantized, number_format)


def _unfit(population: Population, why: str | None, chip: str) -> SnnDeployError:
    return SnnDeployError(
        "SD203",
        f"no scale puts this population into {chip}'s integers",
        where=population.name,
        why=why,
        fix="lower its biases, weights or fan-in against its threshold",
    )
