"""The numbers of random graphs: mantissas that a format allows, and floats without rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.graph import (
    LIF,
    InputSpec,
    Integrator,
    Neurons,
    Readout,
    Reset,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.numerics import NumberFormat
from snn_deploy.synapses import Shape

Array = NDArray[Any]

READOUTS: tuple[Readout, ...] = ("sum", "mean", "last", "max")


def several_spikes(draw: st.DrawFn, neurons: Neurons, most: int) -> int:
    """How often neurons may fire in a timestep, where their reset allows more than once."""
    if not isinstance(neurons, LIF) or not isinstance(neurons.reset, ResetSubtract):
        return 1
    return min(most, draw(st.sampled_from((1, 2, 3, 255))))


class IntegerNumbers:
    """Mantissas, parameters and quantized inputs that a number format allows."""

    def __init__(self, draw: st.DrawFn, rng: np.random.Generator, form: NumberFormat) -> None:
        self.draw, self.rng, self.format = draw, rng, form
        # What many weights, thresholds and biases are multiples of, so that sums meet thresholds.
        self.unit = draw(st.integers(1, 20)) * form.weight_step

    def weights(self, shape: Shape, *, host: bool) -> Array:
        form = self.format
        low, high, step = form.weight_min, form.weight_max, form.weight_step
        if host:
            low, high, step = -form.first_layer_weight_limit, form.first_layer_weight_limit, 1
        style = self.draw(st.sampled_from(("any", "any", "unit", "few", "low", "high", "zero")))
        if style == "unit":
            weight = self.unit * self.rng.integers(-1, 3, shape)
        elif style == "few":
            weight = step * self.rng.integers(-2, 3, shape)
        elif style == "any":
            weight = step * self.rng.integers(low // step, high // step + 1, shape)
        else:
            weight = np.full(shape, {"low": low, "high": high, "zero": 0}[style])
        fits_16_bits = max(-low, high) < 1 << 15
        types = (np.int64, np.int16) if fits_16_bits else (np.int64, np.int32)
        return np.clip(weight, low, high).astype(self.draw(st.sampled_from(types)))

    def exponent(self, *, host: bool) -> int:
        if host:
            return self.draw(st.sampled_from((0, -1, -4, -9, -14, -20, -62)))
        return self.draw(st.integers(0, self.format.weight_exponent_max))

    def sum_bits(self, *, host: bool) -> int | None:
        """Sometimes a register so narrow that sums wrap in it. A host has none."""
        if host:
            return None
        return self.draw(st.sampled_from((None, None, None, 1, 5, 8, 12, 31, 64)))

    def _spread(self, shape: Shape, low: int, high: int, *, one: bool = False) -> Array:
        """Random integers: one, one per channel, or one per neuron."""
        per_channel = (shape[0], *([1] * (len(shape) - 1)))
        size = () if one else self.draw(st.sampled_from(((), per_channel, shape)))
        return np.asarray(self.rng.integers(low, high, size, endpoint=True))

    def _units(self, most: int, shift: int) -> int:
        """A multiple of the unit, as a mantissa that is shifted left by ``shift``."""
        count = self.draw(st.integers(0, most))
        return count * self.unit << max(self.format.fraction_bits - shift, 0)

    def _decay(self, shape: Shape) -> Array:
        """All is lost, all is kept, half of it, or anything."""
        whole = self.format.decay_limit
        half = 1 if self.format.decay_rule == "shift_subtract" else whole // 2
        ranges = ((0, 0), (whole, whole), (half, half), (0, whole))
        return self._spread(shape, *self.draw(st.sampled_from(ranges)))

    def neurons(self, shape: Shape, *, sink: bool) -> Neurons:
        form = self.format
        decay = self._decay(shape)
        has_memory = form.synaptic_current and self.draw(st.booleans())
        memory = self._decay(shape) if has_memory else None
        style = self.draw(st.sampled_from(("zero", "unit", "small", "any")))
        if style == "unit":
            least = most = min(self._units(3, form.bias_shift), form.bias_limit)
        else:
            most = {"zero": 0, "small": min(200, form.bias_limit), "any": form.bias_limit}[style]
            least = -most
        bias = self._spread(shape, least, most)
        if sink:
            readout = self.draw(st.sampled_from(READOUTS))
            return Integrator(decay=decay, bias=bias, readout=readout, current_decay=memory)
        style = self.draw(st.sampled_from(("unit", "unit", "small", "small", "any", "limit")))
        if style == "unit":
            least = most = min(self._units(6, form.threshold_shift), form.threshold_limit)
        else:
            least = form.threshold_limit if style == "limit" else 0
            small = min(4 * form.weight_max, form.threshold_limit)
            most = small if style == "small" else form.threshold_limit
        threshold = self._spread(shape, least, most, one=form.threshold_per_population)
        return LIF(
            decay=decay,
            threshold=threshold,
            bias=bias,
            reset=self._reset(),
            current_decay=memory,
            readout=self.draw(st.sampled_from((None, None, None, *READOUTS))),
        )

    def max_spikes(self, neurons: Neurons) -> int:
        return several_spikes(self.draw, neurons, self.format.spikes_max)

    def _reset(self) -> Reset:
        if not self.format.soft_reset:
            return ResetTo(0)
        limit = self.format.membrane_limit
        amount = self.draw(st.sampled_from((1, self._units(6, 0), 1000, limit)))
        if self.draw(st.booleans()):
            return ResetSubtract(max(amount, 1))
        return ResetTo(amount * self.draw(st.sampled_from((0, 0, 1, -1))))

    def finish(self, spec: InputSpec) -> InputSpec:
        """Quantize the values of an input, down to two or three levels sometimes."""
        if spec.kind == "spikes":
            return spec
        ends = [spec.normalise(np.full(spec.shape, end)) for end in (spec.low, spec.high)]
        reach = float(np.abs(ends).max())
        most = (1 << (self.format.input_bits - bool(ends[0].min() < 0))) - 1
        levels = self.draw(st.sampled_from((1, 3, most)))
        return replace(spec, scale=reach / levels if reach else 1.0)

    def statistics(self, channels: int, low: float, high: float) -> tuple[Array, Array]:
        size = self.draw(st.sampled_from((1, channels)))
        mean = self.rng.uniform(low, high, size) * self.draw(st.booleans())
        return mean, self.rng.uniform(0.1, 2.0, size)

    def values(self, shape: Shape, low: float, high: float) -> Array:
        values = self.rng.uniform(low, high, shape)
        return np.where(self.rng.random(shape) < 0.2, self.rng.choice((low, high), shape), values)


class FloatNumbers:
    """Multiples of 1/16, of which every sum and product in a few steps is exact in float64."""

    format = None

    def __init__(self, draw: st.DrawFn, rng: np.random.Generator) -> None:
        self.draw, self.rng = draw, rng

    def weights(self, shape: Shape, *, host: bool) -> Array:
        return self.rng.integers(-16, 25, shape) / 16

    def exponent(self, *, host: bool) -> int:
        return 0

    def sum_bits(self, *, host: bool) -> None:
        return None

    def _spread(self, shape: Shape, low: int, high: int) -> Array:
        per_channel = (shape[0], *([1] * (len(shape) - 1)))
        size = self.draw(st.sampled_from(((), per_channel, shape)))
        return np.asarray(self.rng.integers(low, high, size, endpoint=True) / 16)

    def neurons(self, shape: Shape, *, sink: bool) -> Neurons:
        decay, bias = self._spread(shape, 0, 16), self._spread(shape, -8, 16)
        memory = self._spread(shape, 0, 16) if self.draw(st.booleans()) else None
        if sink:
            readout = self.draw(st.sampled_from(READOUTS))
            return Integrator(decay=decay, bias=bias, readout=readout, current_decay=memory)
        amount = self.draw(st.integers(1, 24)) / 16
        resets: tuple[Reset, ...] = (ResetTo(), ResetTo(-amount), ResetSubtract(amount))
        reset = self.draw(st.sampled_from(resets))
        return LIF(
            decay=decay,
            threshold=self._spread(shape, 1, 48),
            bias=bias,
            reset=reset,
            current_decay=memory,
            readout=self.draw(st.sampled_from((None, None, None, *READOUTS))),
        )

    def max_spikes(self, neurons: Neurons) -> int:
        return several_spikes(self.draw, neurons, 255)

    def finish(self, spec: InputSpec) -> InputSpec:
        return spec

    def statistics(self, channels: int, low: float, high: float) -> tuple[Array, Array]:
        size = self.draw(st.sampled_from((1, channels)))
        return self.rng.integers(-4, 5, size) / 4, self.rng.choice((0.5, 1.0, 2.0), size)

    def values(self, shape: Shape, low: float, high: float) -> Array:
        return low + (high - low) * self.rng.integers(0, 9, shape) / 8
