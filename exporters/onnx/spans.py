"""How far an integer can get: which operators of overflow may be left out of a file.

The bounds hold for any number of timesteps, in whole Python numbers, and are found without a loop
over time or neurons. They are looser than the range proof; where they are too loose, the file
merely has an operator that never acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np

from snn_deploy.checks import decays
from snn_deploy.graph import LIF, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, OverflowRule, firing_level

_ENDLESS = 1 << 200


@dataclass(frozen=True, slots=True)
class Span:
    """All integers from ``low`` <= 0 to ``high`` >= 0."""

    low: int
    high: int

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)

    def __lshift__(self, bits: int) -> Span:
        return Span(self.low << bits, self.high << bits)

    def times(self, count: int) -> Span:
        """What ``count`` of them add up to."""
        return Span(self.low * count, self.high * count)

    def fits(self, bits: int) -> bool:
        """Whether a signed register of ``bits`` holds them, its lowest value left out."""
        return max(-self.low, self.high) < 1 << (bits - 1)


NOTHING = Span(0, 0)


def register(bits: int) -> Span:
    """What a signed register of ``bits`` holds."""
    return Span(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def span_of(value: np.ndarray) -> Span:
    """The values of an array, and zero."""
    return Span(min(int(value.min()), 0), max(int(value.max()), 0))


def sum_span(projection: Projection, sent: Span) -> Span:
    """Synaptic sums, in mantissas, of a (pooled) source that sends ``sent``."""
    weight = projection.synapses.weight.astype(np.int64).reshape(
        len(projection.synapses.weight), -1
    )
    up = int(np.maximum(weight, 0).sum(axis=1).max())
    down = int(np.minimum(weight, 0).sum(axis=1).min())
    return Span(down * sent.high + up * sent.low, up * sent.high + down * sent.low)


def limited(span: Span, number_format: NumberFormat, rule: OverflowRule) -> Span:
    """What a register holds of sums that may not fit."""
    if span.fits(number_format.membrane_bits):
        return span
    if rule == "wrap_once":  # one turn may be too few
        return span if span.fits(number_format.word_bits) else register(number_format.word_bits)
    return register(number_format.membrane_bits)


def current_span(population: Population, arriving: Span, number_format: NumberFormat) -> Span:
    """The synaptic current, before its register; ``arriving`` in one timestep, membrane units."""
    if population.neurons.current_decay is None:
        return arriving
    kept = _kept(population, "current_decay", number_format)
    return Span(-_settled(-arriving.low, kept), _settled(arriving.high, kept))


def membrane_span(population: Population, driven: Span, number_format: NumberFormat) -> Span:
    """The membrane before its register and reset; ``driven`` is current and bias of a timestep."""
    neurons, kept = population.neurons, _kept(population, "decay", number_format)
    low, high = _settled(-driven.low, kept), _settled(driven.high, kept)
    if not isinstance(neurons, LIF):
        return Span(-low, high)
    levels = firing_level(number_format, span_of(neurons.threshold).high)
    rests = max(int(levels) - 1, 0)  # whoever holds more fires
    if isinstance(neurons.reset, ResetSubtract):
        amount = int(neurons.reset.amount)
        fired = ceil(rests * kept) + 1 + driven.high
        if fired <= rests + population.max_spikes * amount:  # and is back at rest after its spikes
            high = fired
        return Span(-max(low, amount), high)
    value = int(neurons.reset.value)
    return Span(-max(low, -value), ceil(max(rests, value) * kept) + 1 + driven.high)


def _kept(population: Population, name: str, number_format: NumberFormat) -> Fraction:
    """The largest share of a state that a neuron keeps, but for a unit of rounding."""
    field = int(decays(population)[name].max())
    if number_format.decay_rule == "shift_subtract":
        return 1 - Fraction(1, 1 << field)
    return Fraction(field, 1 << number_format.decay_bits)


def _settled(drive: int, kept: Fraction) -> int:
    """A magnitude that a state which gains at most ``drive`` per timestep never exceeds."""
    if drive == 0 and kept in (0, 1):
        return 0
    return _ENDLESS if kept == 1 else ceil((drive + 1) / (1 - kept))
