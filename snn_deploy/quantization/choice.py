"""The choice of a population's scale.

``max`` and ``percentile`` take the largest scale that leaves room for the weights (all, or all but
the largest thousandth); ``mse`` the one whose currents err least. All must fit the number format,
the range proof included: if they do not, the scale is lowered until they do. Several projections
share the membrane's LSB, but each has an exponent of its own where a target has exponents: the one
with the smallest weights decides the scale, others shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection
from snn_deploy.numerics import NumberFormat, firing_level
from snn_deploy.quantization.clipping import least_error_step
from snn_deploy.quantization.moments import Moments, current_error
from snn_deploy.quantization.scales import (
    Quantized,
    Scale,
    along_outputs,
    at_scale,
    misfit,
    rounded_away,
    weight_factor,
)
from snn_deploy.quantization.scheme import Grid, Scheme, weight_grid

Floats = NDArray[np.float64]

PERCENTILE = 99.9

# A scale that does not fit is lowered in steps of this factor.
_SCALE_STEP = 2.0**-0.125
_SCALE_TRIES = 400
# A channel's scale is at most so many times its population's: beyond, weights are so far below the
# largest that a finer step changes no current that matters, and registers would fill.
_FINEST_CHANNEL = 256.0
# `mse` where thresholds are coarse: scales from this much above to this much below the largest
# that clips nothing, and at most so many of them.
_LOWEST, _HIGHEST, _MOST_THRESHOLDS = 0.5, 16.0, 512


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a scale is chosen for: one population, as the scheme and the target want it.

    ``graph`` is the float graph with quantized inputs and the number format.
    """

    graph: Graph
    population: Population
    scheme: Scheme
    number_format: NumberFormat
    chip: str
    moments: Moments

    @property
    def grid(self) -> Grid:
        """The mantissas that weights on the chip may take."""
        return weight_grid(self.number_format, self.scheme.bits)

    @property
    def clips(self) -> bool:
        """Whether weights beyond the grid are brought into it."""
        return self.scheme.clipping != "max"

    @property
    def per_channel(self) -> bool:
        """Whether channels have scales of their own: not where a readout compares membranes."""
        neurons = self.population.neurons
        return (
            self.scheme.granularity == "channel"
            and neurons_fire(self.population)
            and (neurons.readout is None)
        )

    def on_chip(self) -> tuple[Projection, ...]:
        """The projections whose weights lie on the grid."""
        incoming = self.graph.incoming(self.population.name)
        return tuple(p for p in incoming if not self.graph.on_host(p))

    def try_at(
        self, scale: Scale, threshold: int | None = None, exponents: dict[str, int] | None = None
    ) -> tuple[Quantized | None, str | None]:
        """The population at a scale, and why it does not fit (None if it does)."""
        try:
            quantized = at_scale(
                self.graph, self.population, scale, self.grid, self.number_format,
                threshold=threshold, exponents=exponents, clips=self.clips,
            )  # fmt: skip
        except OverflowError as error:
            return None, str(error)
        why = misfit(self.graph, quantized, self.grid, self.number_format)
        if why is None and self.scheme.rounding == "learned":  # whatever will be learned must fit
            largest = rounded_away(self.graph, quantized, self.grid, self.number_format)
            why = misfit(self.graph, largest, self.grid, self.number_format)
        return quantized, why

    def unfit(self, why: str | None) -> SnnDeployError:
        """The error where no scale fits."""
        fix = "lower its biases, weights or fan-in against its threshold"
        if self.graph.timesteps is None and (self.population.neurons.decay == 1).any():
            fix = "say for how many timesteps it runs: without leak its membranes have no other end"
        return SnnDeployError(
            "SD203",
            f"no scale puts this population into {self.chip}'s integers",
            where=self.population.name,
            why=why,
            fix=fix,
        )


def neurons_fire(population: Population) -> bool:
    """Whether the population spikes."""
    return isinstance(population.neurons, LIF)


def choose(choice: Choice, fixed: Scale | None = None) -> Quantized:
    """Quantize a population at the scale of its scheme, or at a ``fixed`` one.

    Raises
    ------
    SnnDeployError
        SD203 if no scale fits, or the fixed one does not.
    """
    if fixed is not None:
        if np.ndim(fixed) and not choice.per_channel:
            raise SnnDeployError(
                "SD104",
                "scales per channel for a population whose channels share one",
                where=choice.population.name,
                fix="give one number, or choose granularity `channel`",
            )
        quantized, why = choice.try_at(fixed)
        if quantized is None or why is not None:
            raise choice.unfit(why)
        return quantized
    neurons = choice.population.neurons
    if isinstance(neurons, LIF) and choice.number_format.threshold_per_population:
        if choice.scheme.clipping == "mse" and choice.on_chip():
            return _at_best_threshold(choice, neurons)
        return _at_largest_threshold(choice, neurons)
    exponents, scale = _room(choice)
    if choice.scheme.clipping == "mse" and choice.on_chip():
        scale = _least_error_scale(choice, exponents, scale)
    why = None
    for _ in range(_SCALE_TRIES):
        quantized, why = choice.try_at(scale, exponents=exponents if choice.clips else None)
        if quantized is not None and why is None:
            return quantized
        scale = scale * _SCALE_STEP
    raise choice.unfit(why)


def _magnitudes(choice: Choice, projection: Projection) -> Floats:
    """What a projection's weights need at scale 1, per output channel.

    The largest magnitude in units of the grid's largest; for ``percentile`` the largest thousandth
    is left out, of every channel or of all together.
    """
    weight = projection.synapses.weight
    factor = weight_factor(choice.graph, projection, 1.0, choice.number_format)
    size = np.abs(weight * along_outputs(factor, weight)).reshape(len(weight), -1)
    largest = size.max(axis=1)
    if choice.scheme.clipping == "percentile":
        if choice.per_channel:
            common = np.percentile(size, PERCENTILE, axis=1)
        else:
            common = np.full(len(size), np.percentile(size, PERCENTILE))
        largest = np.where(common > 0, np.minimum(common, largest), largest)
    return np.asarray(largest / choice.grid.high)


def _room(choice: Choice) -> tuple[dict[str, int], Scale]:
    """Exponents of the projections, and the largest scale at which their weights fill the grid.

    The projection with the smallest weights has exponent 0.
    """
    needed = {p.name: _magnitudes(choice, p) for p in choice.on_chip()}
    most = {name: float(n.max()) for name, n in needed.items() if n.any()}
    smallest = min(most.values(), default=1.0)
    exponents = dict.fromkeys(needed, 0)
    for name, largest in most.items():
        shift = int(np.ceil(np.log2(largest / smallest) - 1e-9))
        exponents[name] = min(max(shift, 0), choice.number_format.weight_exponent_max)
    shared = np.zeros(choice.population.shape[0])
    for name, n in needed.items():
        shared = np.maximum(shared, n * 2.0 ** -exponents[name])
    host = [
        float(np.abs(p.synapses.weight).max()) * (choice.graph.input(p.source).scale or 1.0)
        / choice.number_format.first_layer_weight_limit
        for p in choice.graph.incoming(choice.population.name)
        if choice.graph.on_host(p)
    ]  # fmt: skip
    lowest = max(float(shared.max()), *host, 0.0)
    if lowest == 0:
        return exponents, 1.0
    if not choice.per_channel:
        return exponents, 1.0 / lowest
    return exponents, 1.0 / np.maximum(shared, lowest / _FINEST_CHANNEL)


def _least_error_scale(choice: Choice, exponents: dict[str, int], largest: Scale) -> Scale:
    """The scale at which the weights, with these exponents, make the smallest error of current.

    Biases and thresholds are left out: where thresholds are per neuron they are rounded on the
    membrane's own, finer grid.
    """
    grid = choice.grid
    weights, moments = [], []
    for projection in choice.on_chip():
        weight = projection.synapses.weight
        factor = weight_factor(choice.graph, projection, 1.0, choice.number_format)
        part = 2.0 ** -exponents[projection.name]
        moment = choice.moments.of(choice.graph, projection)
        weights.append((weight * along_outputs(factor, weight) * part).reshape(len(weight), -1))
        # moments are of float values; in steps of a quantized input they are larger
        step = float(np.asarray(factor))
        spread = np.broadcast_to(moment / (step * part) ** 2, weight.shape)
        moments.append(spread.reshape(len(weight), -1))
    together, counted = np.concatenate(weights, axis=1), np.concatenate(moments, axis=1)
    low, high = grid.low // grid.step, grid.high // grid.step

    def best(weight: Floats, moment: Floats) -> float:
        return grid.step / least_error_step(weight.reshape(-1), moment.reshape(-1), low, high)

    if not choice.per_channel:
        return best(together, counted) if together.any() else largest
    spread = np.broadcast_to(np.asarray(largest, np.float64), (len(together),))
    scales = [
        best(w, m) if w.any() else float(one)
        for w, m, one in zip(together, counted, spread, strict=True)
    ]
    return np.minimum(scales, min(scales) * _FINEST_CHANNEL)


def _unit(choice: Choice, neurons: LIF) -> float:
    """Membrane LSBs of the float threshold at scale 1."""
    return float(neurons.threshold.item()) * 2.0**choice.number_format.fraction_bits


def _largest_mantissa(choice: Choice, neurons: LIF, scale: float) -> int:
    """The largest threshold mantissa whose scale is at most ``scale``."""
    form = choice.number_format
    level = scale * _unit(choice, neurons) - firing_level(form, 0)
    return int(min(max(level // (1 << form.threshold_shift), 0), form.threshold_limit))


def _at_mantissa(
    choice: Choice, neurons: LIF, mantissa: int, exponents: dict[str, int] | None
) -> tuple[Quantized | None, str | None]:
    """The population whose firing level is exactly the float threshold."""
    scale = firing_level(choice.number_format, mantissa) / _unit(choice, neurons)
    return choice.try_at(scale, mantissa, exponents)


def _at_largest_threshold(choice: Choice, neurons: LIF) -> Quantized:
    """Search the largest threshold mantissa whose scale fits, by bisection."""
    high, exponents = choice.number_format.threshold_limit + 1, None
    if choice.on_chip() and (choice.clips or choice.number_format.weight_exponent_max):
        rooms, largest = _room(choice)
        exponents = rooms if choice.clips else None
        room = float(np.asarray(largest)) * (1 + 0.5 * choice.grid.step / choice.grid.high)
        high = _largest_mantissa(choice, neurons, room) + 1
    fits, best, why = 0, None, None
    while high - fits > 1:
        middle = (fits + high) // 2
        quantized, why_not = _at_mantissa(choice, neurons, middle, exponents)
        if why_not is None:
            fits, best = middle, quantized
        else:
            high, why = middle, why_not
    if best is None:
        raise choice.unfit(why)
    return best


def _at_best_threshold(choice: Choice, neurons: LIF) -> Quantized:
    """Of the threshold mantissas whose scale fits, the one whose currents err least."""
    exponents, largest = _room(choice)
    room = float(np.asarray(largest))
    bounds = [_largest_mantissa(choice, neurons, room * f) for f in (_LOWEST, _HIGHEST)]
    mantissas = np.arange(max(bounds[0], 1), max(bounds[1], 1) + 1)
    if len(mantissas) > _MOST_THRESHOLDS:
        spaced = np.geomspace(mantissas[0], mantissas[-1], _MOST_THRESHOLDS)
        mantissas = np.unique(np.rint(spaced).astype(np.int64))
    ranked = sorted(_errors(choice, neurons, mantissas, exponents))
    for _, mantissa in ranked:
        quantized, why = _at_mantissa(choice, neurons, mantissa, exponents)
        if quantized is not None and why is None:
            return quantized
    return _at_largest_threshold(choice, neurons)


def _errors(
    choice: Choice, neurons: LIF, mantissas: NDArray[np.int64], exponents: dict[str, int]
) -> Iterator[tuple[float, int]]:
    """The error of the current at each threshold mantissa."""
    for mantissa in mantissas.tolist():
        scale = firing_level(choice.number_format, mantissa) / _unit(choice, neurons)
        try:
            quantized = at_scale(
                choice.graph, choice.population, scale, choice.grid, choice.number_format,
                threshold=mantissa, exponents=exponents, clips=True,
            )  # fmt: skip
        except OverflowError:
            continue
        yield current_error(choice.graph, choice.population, quantized, choice.moments), mantissa
