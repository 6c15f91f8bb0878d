"""From a float graph to the integers of a target: the only place where scales are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, InputSpec, Population, ResetTo
from snn_deploy.hardware import Target, target
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.quantization.calibration import calibrate
from snn_deploy.quantization.choice import Choice, choose
from snn_deploy.quantization.moments import Moments, measure
from snn_deploy.quantization.ranges import Range, prove_ranges
from snn_deploy.quantization.report import quantization_report
from snn_deploy.quantization.scales import Scale
from snn_deploy.quantization.scheme import Scheme

__all__ = ["Range", "Scheme", "prove_ranges", "quantization_report", "quantize"]


def quantize(
    graph: Graph,
    to: Target | str,
    *,
    bits: int | None = None,
    granularity: str = "tensor",
    clipping: str | None = None,
    rounding: str = "nearest",
    calibration: Recording | None = None,
    correction: bool = False,
    scales: Mapping[str, Scale] | None = None,
) -> Graph:
    """Quantize a float graph to a target's number format.

    Parameters
    ----------
    graph : a float graph.
    to : a target with a number format, or its name.
    bits, granularity, clipping, rounding, correction : see
        :class:`snn_deploy.quantization.scheme.Scheme`. ``bits`` None: 8, or what the target has.
    calibration : inputs of the float graph. ``mse`` weighs errors by the rates it sees in them;
        learned rounding and correction need it.
    scales : population -> weight units per unit of the float network, one number or one per
        channel, instead of a choice: for weights that lie on a grid already, as those of a network
        that was trained for one.

    Returns
    -------
    Graph
        The integer graph; ``prove_ranges`` holds for it.

    Raises
    ------
    SnnDeployError
        SD104 for choices that make no sense, SD201 if the target has no number format, SD202 or
        SD203 naming what does not fit, SD103 or SD106 where the calibration does not.
    """
    chip = target(to) if isinstance(to, str) else to
    scheme = Scheme.of(
        chip, bits=bits, granularity=granularity, clipping=clipping, rounding=rounding,
        correction=correction,
    )  # fmt: skip
    number_format = chip.require_format()
    checks.check_float(graph)
    scheme.check_calibration(calibration)
    fixed = _fixed(graph, scales or {})
    inputs = tuple(_input(spec, number_format) for spec in graph.inputs)
    prepared = replace(graph, inputs=inputs, number_format=number_format)
    _check_host_sums(prepared, chip.id)
    moments = Moments()
    if calibration is not None and scheme.clipping == "mse":
        moments = measure(graph, calibration)
    quantized = []
    for population in prepared.populations:
        _check_neurons(population, scheme, number_format, chip.id)
        choice = Choice(prepared, population, scheme, number_format, chip.id, moments)
        quantized.append(choose(choice, fixed.get(population.name)))
    found = {p.name: p for q in quantized for p in q.projections}
    integer = replace(
        prepared,
        populations=tuple(q.population for q in quantized),
        projections=tuple(found[p.name] for p in graph.projections),
    )
    if scheme.calibrated and calibration is not None:
        integer = calibrate(graph, integer, calibration, scheme)
    checks.check_integer(integer)
    prove_ranges(integer)
    return integer


def _fixed(graph: Graph, scales: Mapping[str, Scale]) -> dict[str, Scale]:
    """Given scales: one number, or a flat array of one per channel."""
    fixed: dict[str, Scale] = {}
    for name, scale in scales.items():
        population = next((p for p in graph.populations if p.name == name), None)
        if population is None:
            raise SnnDeployError("SD105", f"a scale for no population: {name!r}")
        values = np.asarray(scale, np.float64).reshape(-1)
        if values.size not in (1, population.shape[0]):
            raise SnnDeployError(
                "SD104", f"{values.size} scales for {population.shape[0]} channels", where=name
            )
        if not (np.isfinite(values).all() and values.min() > 0):
            raise SnnDeployError("SD104", "a scale must be above 0", where=name)
        fixed[name] = float(values[0]) if values.size == 1 else values
    return fixed


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


def _check_neurons(
    population: Population, scheme: Scheme, number_format: NumberFormat, chip: str
) -> None:
    neurons = population.neurons
    if not isinstance(neurons, LIF):
        return
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
    if scheme.granularity == "channel" and not hard_zero and neurons.readout is None:
        raise SnnDeployError(
            "SD202",
            "channels with scales of their own are reset to zero only",
            where=population.name,
            why="a graph has one reset amount for all channels of a population",
            fix="train with hard reset to zero, or choose granularity `tensor`",
        )
