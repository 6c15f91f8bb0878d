"""The norm for integer arithmetic: what a neuromorphic core does to a number.

Every engine, exporter and generated program restates these few rules and is tested against them.
Arrays are int64 unless said otherwise, so that no rule here can overflow on the widths a
:class:`NumberFormat` may declare (membranes up to 32 bits, decays up to 12). Only a synaptic sum of
foreign 32-bit weights may turn over in int64, which changes none of the lower bits that are kept.
Words of 64 bits under ``wrap_once`` are for proved graphs: there a current could grow past int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

Comparator = Literal[">", ">="]
DecayRule = Literal["multiply_truncate", "multiply_floor", "shift_subtract"]
OverflowRule = Literal["saturate", "wrap", "wrap_once"]


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
    word_bits : width of the words in which current and membrane are added up, before they are
        brought into ``membrane_bits``; a sum beyond it wraps (Lava: 32). 64 where nothing wraps.
    current_overflow, membrane_overflow : what happens to a value beyond ``membrane_bits``:
        ``"saturate"``, ``"wrap"`` or ``"wrap_once"``; see :func:`limit`.
    decay_bits : states keep ``decay / 2**decay_bits`` of themselves per timestep.
    decay_rule : ``"multiply_truncate"``: the product is cut toward zero (Loihi);
        ``"multiply_floor"``: cut downward, a plain shift to the right; ``"shift_subtract"``: a
        state loses its own value shifted right by ``decay`` bits, at least one unit (Xylo).
    comparator : a neuron fires when its membrane is ``>`` or ``>=`` the shifted threshold.
    threshold_bits, threshold_shift : width of a threshold mantissa, and its left shift to membrane
        units.
    threshold_per_population : the chip holds one threshold for a whole population.
    bias_bits, bias_shift : width of a signed bias mantissa, and its left shift to membrane units.
    synaptic_current : neurons may have a synaptic current with a decay of its own.
    delay_max : longest delay of a synapse, in timesteps beside the hop.
    spikes_max : most spikes of one neuron per timestep.
    soft_reset : reset by subtraction is available beside reset to a value.
    hop_delay : timesteps a spike needs from one population to the next in pipelined timing.
    first_layer : how values that are constant over time enter. ``"host_bias"``: the host sums them
        in integers and hands the result over as a bias; ``"graded"``: the chip multiplies payloads
        by weights, as it does with values that change.
    first_layer_weight_bits : signed width of the weights that the host multiplies values by.
    input_bits : width of a quantized input value.
    """

    weight_min: int
    weight_max: int
    weight_step: int
    weight_exponent_max: int
    fraction_bits: int
    membrane_bits: int
    word_bits: int
    current_overflow: OverflowRule
    membrane_overflow: OverflowRule
    decay_bits: int
    decay_rule: DecayRule
    comparator: Comparator
    threshold_bits: int
    threshold_shift: int
    threshold_per_population: bool
    bias_bits: int
    bias_shift: int
    synaptic_current: bool
    soft_reset: bool
    spikes_max: int
    delay_max: int
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
    def decay_limit(self) -> int:
        """Largest decay field: all is kept; or the largest shift that still means something."""
        if self.decay_rule == "shift_subtract":
            return self.membrane_bits - 1
        return 1 << self.decay_bits

    @property
    def first_layer_weight_limit(self) -> int:
        """Largest magnitude of a weight that multiplies input values."""
        return (1 << (self.first_layer_weight_bits - 1)) - 1


def decayed(value: Integers, decay: Integers, rule: DecayRule, bits: int) -> Integers:
    """What is left of a state after one timestep.

    ``multiply_truncate`` is Loihi's (lava ``proc/lif/models.py``): sign(x) * (|x| * decay >> bits).
    ``shift_subtract`` is Xylo's: x - (x >> decay), and one unit nearer to zero where that changes
    nothing; ``bits`` has no part in it.
    """
    if rule == "multiply_floor":
        return np.asarray(value * decay >> bits)
    if rule == "shift_subtract":
        left = value - (value >> decay)
        return np.where(left == value, value - np.sign(value), left)
    product = np.abs(value) * decay >> bits
    return np.where(value < 0, -product, product)


def decay_mantissa(kept: NDArray[np.float64], rule: DecayRule, bits: int) -> Integers:
    """The decay field that keeps nearest to ``kept`` (0 to 1) of a state per timestep.

    Raises
    ------
    OverflowError
        If the rule has no such field: ``shift_subtract`` cannot keep everything.
    """
    if rule != "shift_subtract":
        return round_to_integer(np.asarray(kept * 2.0**bits))
    if (np.asarray(kept) >= 1).any():
        raise OverflowError("a state that never decays")
    lost = 1 - np.asarray(kept, np.float64)
    shift = np.floor(-np.log2(lost))
    # 2**-shift and 2**-(shift + 1) may be lost; halfway between them lie three quarters
    return round_to_integer(np.asarray(shift + (lost < 0.75 * 2.0**-shift)))


def kept_share(decay: Integers, rule: DecayRule, bits: int) -> NDArray[np.float64]:
    """The share of a state that a decay field keeps, but for rounding."""
    field = decay.astype(np.float64)
    return np.asarray(1 - 2.0**-field if rule == "shift_subtract" else field / 2.0**bits)


def limit(value: Integers, rule: OverflowRule, bits: int) -> Integers:
    """Bring a value into a signed register of ``bits``, by the register's overflow rule."""
    if rule == "saturate":
        return saturate(value, bits)
    return wrap(value, bits) if rule == "wrap" else wrap_once(value, bits)


def wrap(value: Integers, bits: int) -> Integers:
    """Two's complement: the lower ``bits`` of a value, as a signed number."""
    spare = 64 - bits
    return np.asarray(value << spare >> spare, np.int64)


def wrap_once(value: Integers, bits: int) -> Integers:
    """Bring a value that left a signed register of ``bits`` back by one turn of 2**bits.

    One turn only, and +2^(bits-1) stays while -2^(bits-1) turns: so Lava's synaptic current does.
    """
    half = 1 << (bits - 1)
    turned = np.where(value > half, value - 2 * half, value)
    return np.where(value <= -half, value + 2 * half, turned)


def saturate(value: Integers, bits: int) -> Integers:
    """Clip to +-(2**(bits-1) - 1): symmetric, as Loihi's membrane does."""
    largest = (1 << (bits - 1)) - 1
    return np.clip(value, -largest, largest)


def spikes_fired(
    membrane: Integers, threshold: Integers, amount: int, most: int, comparator: Comparator
) -> Integers:
    """How often a neuron fires in one timestep, at most ``most`` times.

    Once where the membrane reaches the threshold (both in membrane units), and again as long as it
    still does after ``amount`` was subtracted: the repeated crossing of Xylo and of sinabs'
    MultiSpike, floor(u / threshold) where both are equal. ``amount`` matters if ``most`` > 1 only.
    """
    above = membrane - threshold - (comparator == ">")  # >= 0: it fires
    times = above >= 0 if most == 1 else np.clip(above // amount + 1, 0, most)
    return np.asarray(times, np.int64)


def firing_level(number_format: NumberFormat, mantissa: Any) -> Any:
    """The lowest membrane that fires at a threshold mantissa (int or int64 array)."""
    return (mantissa << number_format.threshold_shift) + (number_format.comparator == ">")


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
