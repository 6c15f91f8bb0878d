"""What a neuron does in one timestep, in the operators of ONNX: :mod:`snn_deploy.numerics` again.

All values are int64. ONNX divides toward zero and shifts no signed integers, so that a shift to the
right is a division after the bits that it drops are cleared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.onnx.emission import INT64, UINT8, Emitter
from snn_deploy.exporters.onnx.spans import Span

from snn_deploy.graph import LIF, Population, ResetSubtract
from snn_deploy.numerics import NumberFormat, OverflowRule

Array = NDArray[Any]


def parameter(emit: Emitter, value: Array, name: str) -> str:
    """An array of the graph, as int64."""
    return emit.cast(emit.stored.array(name, value), INT64, f"{name}_int64")


def shifted_right(emit: Emitter, value: str, bits: int, name: str) -> str:
    """``value >> bits``, rounded downward."""
    low = emit.add("BitwiseAnd", [value, emit.constant((1 << bits) - 1)], name)
    return emit.add("Div", [emit.add("Sub", [value, low], name), emit.constant(1 << bits)], name)


def rounded(emit: Emitter, value: str, bits: int, name: str) -> str:
    """``value / 2**bits`` to nearest, halves up."""
    if bits == 0:
        return value
    half = emit.add("Add", [value, emit.constant(1 << (bits - 1))], name)
    return shifted_right(emit, half, bits, name)


def wrapped(emit: Emitter, value: str, bits: int, name: str) -> str:
    """The lower ``bits``, as a signed number: the sign bit is flipped, and taken off again."""
    if bits == 64:
        return value
    half = emit.constant(1 << (bits - 1))
    lower = emit.add("BitwiseAnd", [value, emit.constant((1 << bits) - 1)], name)
    return emit.add("Sub", [emit.add("BitwiseXor", [lower, half], name), half], name)


def in_register(
    emit: Emitter, value: str, span: Span, form: NumberFormat, rule: OverflowRule, name: str
) -> str:
    """A sum in the word that adds up, then in its register; nothing where the span fits both."""
    if span.fits(form.membrane_bits):
        return value
    if not span.fits(form.word_bits):
        value = wrapped(emit, value, form.word_bits, name)
    bits, half = form.membrane_bits, 1 << (form.membrane_bits - 1)
    if rule == "wrap":
        return wrapped(emit, value, bits, name)
    if rule == "saturate":
        ends = [emit.constant(1 - half), emit.constant(half - 1)]
        return emit.add("Clip", [value, *ends], name)
    turn = emit.constant(2 * half)
    above = emit.add("Greater", [value, emit.constant(half)], name)
    below = emit.add("LessOrEqual", [value, emit.constant(-half)], name)
    lowered = emit.add("Sub", [value, turn], name)
    raised = emit.add("Add", [value, turn], name)
    turned = emit.add("Where", [above, lowered, value], name)
    return emit.add("Where", [below, raised, turned], name)


def decayed(emit: Emitter, state: str, decay: Array, form: NumberFormat, name: str) -> str | None:
    """What is left of a state after one timestep; None where nothing ever is."""
    fields = decay.astype(np.int64)
    if not fields.any():
        return None
    if form.decay_rule == "shift_subtract":
        return _shift_subtracted(emit, state, decay, name)
    if (fields == 1 << form.decay_bits).all():
        return state
    product = emit.add("Mul", [state, parameter(emit, decay, name)], f"{name}_product")
    if form.decay_rule == "multiply_floor":
        return shifted_right(emit, product, form.decay_bits, f"{name}_kept")
    return emit.add("Div", [product, emit.constant(1 << form.decay_bits)], f"{name}_kept")


def _shift_subtracted(emit: Emitter, state: str, decay: Array, name: str) -> str:
    """X - (x >> d), and one unit nearer to zero where that changes nothing."""
    place = f"{name}_kept"
    powers = emit.add("Pow", [emit.constant(2), parameter(emit, decay, name)], f"{name}_power")
    mask = emit.add("Sub", [powers, emit.constant(1)], f"{name}_mask")
    low = emit.add("BitwiseAnd", [state, mask], place)
    lost = emit.add("Div", [emit.add("Sub", [state, low], place), powers], place)
    sign = emit.add("Sign", [state], place)
    none = emit.add("Equal", [lost, emit.constant(0)], place)
    return emit.add("Sub", [state, emit.add("Where", [none, sign, lost], place)], place)


def fired(
    emit: Emitter, membrane: str, population: Population, neurons: LIF, form: NumberFormat
) -> tuple[str, str]:
    """Spikes of a membrane (uint8), and the membrane after their reset."""
    place = population.name
    level = parameter(emit, neurons.threshold, f"{place}/threshold")
    level = emit.scaled(level, 1 << form.threshold_shift, f"{place}/level")
    if form.comparator == ">":
        level = emit.add("Add", [level, emit.constant(1)], f"{place}/level")
    name, after = f"{place}/fired", f"{place}/after"
    if not isinstance(neurons.reset, ResetSubtract):
        fires = emit.add("GreaterOrEqual", [membrane, level], name)
        value = emit.constant(int(neurons.reset.value))
        left = emit.add("Where", [fires, value, membrane], after)
        return emit.cast(fires, UINT8, name), left
    amount = emit.constant(int(neurons.reset.amount))
    if population.max_spikes == 1:
        times = emit.cast(emit.add("GreaterOrEqual", [membrane, level], name), INT64, name)
    else:  # floor((u - level) / amount) + 1, from zero on
        above = emit.add("Add", [emit.add("Sub", [membrane, level], name), amount], name)
        above = emit.add("Max", [above, emit.constant(0)], name)
        times = emit.add("Div", [above, amount], name)
        times = emit.add("Min", [times, emit.constant(population.max_spikes)], name)
    lost = emit.add("Mul", [times, amount], after)
    return emit.cast(times, UINT8, name), emit.add("Sub", [membrane, lost], after)
