"""The norm for integer arithmetic: what a neuromorphic core does to a number.

Every engine, exporter and generated program restates these few rules and is tested against them.
Arrays are int64 unless said otherwise, so that no rule here can overflow on the widths a
:class:`NumberFormat` may declare (membranes up to 32 bits, decays up to 12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

Comparator = Literal[">", ">="]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """The integer arithmetic of one target.

    A *weight unit* is what a weight mantissa of one adds to a membrane; the membrane's own least
    significant bit is ``2**-fraction_bits`` weight units.

    Attributes
    ----------
    weight_min, weight_max, weight_step : mantissas are multiples of ``weight_step`` in this range
        (Loihi's mixed-sign weights are even, in [-256, 254]).
    weight_exponent_max : largest exponent e >= 0 of a projection, whose weights are mantissa * 2^e.
    fraction_bits : left shift of a synaptic sum before it joins the membrane (Loihi: 6).
    membrane_bits : width of membrane and synaptic current, sign included.
    current_overflow : ``"wrap_once"``: a current that leaves the width is brought back by one turn.
    membrane_overflow : ``"saturate"``: a membrane stops at +-(2^(membrane_bits-1) - 1).
    decay_bits : membranes keep ``decay / 2**decay_bits`` of themselves per timestep.
    decay_rule : ``"multiply_truncate"``: the product is cut toward zero.
    comparator : a neuron fires when its membrane is ``>`` or ``>=`` the shifted threshold.
    threshold_bits, threshold_shift : width of a threshold mantissa, and its left shift to membrane
        units.
    threshold_per_population : the chip holds one threshold for a whole population.
    bias_bits, bias_shift : width of a signed bias mantissa, and its left shift to membrane units.
    soft_reset : reset by subtraction is available beside reset to a value.
    hop_delay : timesteps a spike needs from one population to the next in pipelined timing.
    first_layer : how values (not spikes) enter. ``"host_bias"``: the host sums them in integers and
        hands the result over as a bias; ``"graded"``: the chip multiplies payloads by weights.
    first_layer_weight_bits : signed width of the weights that multiply values.
    input_bits : width of a quantized input value.
    """

    weight_min: int
    weight_max: int
    weight_step: int
    weight_exponent_max: int
    fraction_bits: int
    membrane_bits: int
    current_overflow: Literal["wrap_once"]
    membrane_overflow: Literal["saturate"]
    decay_bits: int
    decay_rule: Literal["multiply_truncate"]
    comparator: Comparator
    threshold_bits: int
    threshold_shift: int
    threshold_per_population: bool
    bias_bits: int
    bias_shift: int
    soft_reset: bool
    hop_delay: int
    first_layer: Literal["host_bias", "graded"]
    first_layer_weight_bits: int
    input_bits: int

    @property
    def membrane_limit(self) -> int:
        """Largest magnitude of a membrane, in membrane units."""
        return (1 << (self.membrane_bits - 1)) - 1

    @property
    def bias_limit(self) -> int:
        """Largest magnitude of a bias mantissa."""
        return (1 << (self.bias_bits - 1)) - 1

    @property
    def threshold_limit(self) -> int:
        """Largest threshold mantissa."""
        return (1 << self.threshold_bits) - 1

    @property
    def first_layer_weight_limit(self) -> int:
        """Largest magnitude of a weight that multiplies input values."""
        return (1 << (self.first_layer_weight_bits - 1)) - 1


def multiply_truncate(value: Integers, multiplier: Integers, bits: int) -> Integers:
    """``value * multiplier / 2**bits``, cut toward zero.

    Loihi's decay (NETX.md section 5, lava's ``proc/lif/models.py``): sign(x) * (|x|*m >> bits).
    """
    product = np.abs(value) * multiplier >> bits
    return np.where(value < 0, -product, product)


def wrap_once(value: Integers, bits: int) -> Integers:
    """Bring a value that left a signed register of ``bits`` back by one turn of 2**bits.

    One turn only, and +2^(bits-1) stays while -2^(bits-1) turns: so Lava's synaptic current does.
    """
    half = 1 << (bits - 1)
    turned = np.where(value > half, value - 2 * half, value)
    return np.where(value <= -half, value + 2 * half, turned)


def saturate(value: Integers, bits: int) -> Integers:
    """Clip to +-(2**(bits-1) - 1): symmetric, as Loihi's membrane does."""
    limit = (1 << (bits - 1)) - 1
    return np.clip(value, -limit, limit)


def rounding_shift_right(value: Integers, bits: int) -> Integers:
    """``value / 2**bits`` to the nearest integer, halves up. ``bits`` = 0 changes nothing.

    Only the host uses it, on sums that are finer than a weight unit.
    """
    if bits == 0:
        return value
    return (value + (1 << (bits - 1))) >> bits


def round_to_integer(value: NDArray[np.float64]) -> Integers:
    """Nearest integer of float64 values, ties to even (IEEE 754).

    Raises
    ------
    OverflowError
        If a value has no place among 53-bit integers.
    """
    if not np.abs(value).max(initial=0) < 1 << 53:
        raise OverflowError("a number beyond 53 bits")
    return np.rint(value).astype(np.int64)
