"""Neurons of the event engine: their parameters, and when 32 bits are enough for them.

The norm's arithmetic is 64 bits wide. It is done in 32 where that changes nothing, in one of two
ways. *Limited*: sums wrap in words of 32 bits or less, so that additions are exact modulo 2**32,
and what is limited afterwards leaves room for a reset. *Unlimited*: by a bound on the growth of the
membrane no value reaches any limit, nor 2**31. Products are split either way (``lanes``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Population, ResetSubtract
from snn_deploy.numerics import NumberFormat, OverflowRule
from snn_deploy.sim.lanes import RULES
from snn_deploy.sim.vectors import LANES, room
from snn_deploy.synapses import as_map

Array = NDArray[Any]
Integers = NDArray[np.int64]

_LOWEST, _HIGHEST = -(1 << 31), (1 << 31) - 1
# With decays of more bits the lower part of a state times the decay would leave 32 bits.
_DECAY_BITS = 15
# Three halves of a register, what a reset may leave, must stay below 2**31.
_MEMBRANE_BITS = 30

# Shift that wraps, turn, largest; 0 or None where there is none.
_Limits = tuple[int, int, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """What a population's neurons are told; arrays are int64 [pixels, channels].

    Or [1, channels], where it is the same for all pixels. ``shape``: pixels and channels. ``bias``
    in mantissas, ``threshold`` in membrane units, and a neuron fires above it.
    ``current_decay`` is empty where the synaptic current has no memory. ``reset`` is what a spike
    subtracts (``subtracts``), or what it leaves.
    """

    shape: tuple[int, int]
    bias: Integers
    decay: Integers
    current_decay: Integers
    threshold: Integers
    subtracts: bool
    reset: int

    @property
    def remembers(self) -> bool:
        """Whether the synaptic current has a memory."""
        return self.current_decay.size > 0


def parameters(population: Population, number_format: NumberFormat) -> Parameters:
    """A population's parameters."""
    neurons = population.neurons
    channels, height, width = as_map(population.shape)

    def spread(value: Array) -> Integers:
        if value.ndim < 3 or value.shape[1:] == (1, 1):
            values = value.reshape(-1) if value.ndim else value
            return np.array(np.broadcast_to(values, channels), np.int64)[None]
        wide = np.broadcast_to(value, population.shape).astype(np.int64)
        return np.ascontiguousarray(wide.reshape(channels, height * width).T)

    threshold: Array = np.array(1 << 62)  # never reached
    subtracts, reset = False, 0
    if isinstance(neurons, LIF):
        threshold = neurons.threshold.astype(np.int64) << number_format.threshold_shift
        threshold = threshold - (number_format.comparator == ">=")
        subtracts = isinstance(neurons.reset, ResetSubtract)
        reset = int(
            neurons.reset.amount
            if isinstance(neurons.reset, ResetSubtract)
            else neurons.reset.value
        )
    memory = neurons.current_decay
    return Parameters(
        shape=(height * width, channels),
        bias=spread(neurons.bias),
        decay=spread(neurons.decay),
        current_decay=np.zeros((0, 0), np.int64) if memory is None else spread(memory),
        threshold=spread(threshold),
        subtracts=subtracts,
        reset=reset,
    )


def rules_in_32_bits(
    number_format: NumberFormat,
    neurons: Parameters,
    *,
    largest_sum: int,
    largest_drive: int,
    steps: int,
) -> NDArray[np.int32] | None:
    """What ``advance`` is told (``RULES``), None where 32 bits are not proved to be enough.

    ``largest_sum`` bounds the synaptic sum of a neuron and timestep in weight units,
    ``largest_drive`` bias and host sum in membrane units.
    """
    form = number_format
    shifts = form.decay_rule == "shift_subtract"
    if not 0 <= form.fraction_bits < 32 or not (shifts or 0 <= form.decay_bits <= _DECAY_BITS):
        return None
    most = 31 if shifts else 1 << form.decay_bits
    decays = (neurons.decay, neurons.current_decay)
    if any(d.min(initial=0) < 0 or d.max(initial=0) > most for d in decays):
        return None
    half, word = 1 << (form.membrane_bits - 1), 1 << (form.word_bits - 1)
    largest_sum <<= form.fraction_bits
    current: _Limits = (0, 0, None)
    membrane: _Limits = (0, 0, None)
    grown = _growth(form, neurons, largest_sum, largest_drive, steps)
    if grown >= min(half, word, 1 << 31):  # something may be limited
        wraps = form.word_bits <= 32 and form.membrane_bits <= _MEMBRANE_BITS
        if not wraps or abs(neurons.reset) >= 2 * half:
            return None
        current = _limits(form, form.current_overflow)
        membrane = _limits(form, form.membrane_overflow)
    told = dict.fromkeys(RULES, 0)
    for part, (wrap, turn, limit) in (("current", current), ("membrane", membrane)):
        told |= {f"{part}_wrap": wrap, f"{part}_turn": turn}
        if limit is not None:
            told |= {f"{part}_clips": 1, f"{part}_low": -limit, f"{part}_high": limit}
    told |= {
        "fraction_bits": form.fraction_bits,
        "shifts": int(shifts),
        "decay_bits": 0 if shifts else form.decay_bits,
        "truncates": -(form.decay_rule == "multiply_truncate"),
        "kept_by_reset": -neurons.subtracts,
        "added_by_reset": -neurons.reset if neurons.subtracts else neurons.reset,
        "remembers": int(neurons.remembers),
    }
    return np.array([told[name] for name in RULES], np.int32)


def _limits(form: NumberFormat, rule: OverflowRule) -> _Limits:
    """Of words up to 32 bits and narrower registers."""
    half = 1 << (form.membrane_bits - 1)
    if rule == "saturate":
        return 32 - form.word_bits, 0, half - 1
    if rule == "wrap":
        return 32 - min(form.word_bits, form.membrane_bits), 0, None
    return 32 - form.word_bits, 2 * half, None


def _growth(
    form: NumberFormat, neurons: Parameters, largest_sum: int, largest_drive: int, steps: int
) -> int:
    """No current or membrane exceeds this magnitude in so many steps, if nothing limits it."""

    def repeated(decay: Integers) -> int:
        """What arrives at every step adds up to so many times as much."""
        lost = (1 << form.decay_bits) - int(decay.max(initial=0))
        if form.decay_rule == "shift_subtract" or lost <= 0:
            return steps
        return min(steps, -(-(1 << form.decay_bits) // lost))

    # one more for a product that is cut downward, away from zero
    arriving = largest_sum + 1
    if neurons.remembers:
        arriving *= repeated(neurons.current_decay)
    reset = abs(neurons.reset)
    return (arriving + largest_drive + reset + 1) * repeated(neurons.decay) + reset


def lanes_of(channels: int) -> int:
    """Channels of a pixel, in whole words of spikes."""
    return -(-channels // LANES) * LANES


def padded(values: Array, fill: int) -> NDArray[np.int32]:
    """Channels in whole words: [..., pixels, channels] to int32 [..., pixels * lanes]."""
    channels = values.shape[-1]
    wide = room((*values.shape[:-1], lanes_of(channels)), np.int32)
    wide[..., channels:] = fill
    wide[..., :channels] = values  # modulo 2**32
    return wide.reshape(*values.shape[:-2], -1)


def lane_parameters(neurons: Parameters) -> NDArray[np.int32]:
    """Decay, decay of the current and threshold as ``advance`` reads them.

    int32 [3, neurons], or [3, channels in whole words] where they are the same for all pixels.
    """
    memory = neurons.current_decay if neurons.remembers else np.zeros((1, 1), np.int64)
    threshold = np.clip(neurons.threshold, _LOWEST, _HIGHEST)
    rows = np.broadcast_arrays(neurons.decay, memory, threshold)
    told = room((3, rows[0].shape[0] * lanes_of(rows[0].shape[1])), np.int32)
    for index, fill in enumerate((0, 0, _HIGHEST)):
        told[index] = padded(rows[index], fill)
    return told


def lane_drive(neurons: Parameters, host: Integers, bias_shift: int) -> NDArray[np.int32]:
    """Bias and host sum [samples, windows, pixels, channels] in membrane units, modulo 2**32."""
    return padded((neurons.bias + host) << bias_shift, 0)
