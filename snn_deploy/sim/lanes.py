"""The update of 64 neurons at a time, in 32 bits and vector registers.

Decay, integrate, limit, compare, reset: the rules of numerics.py, where
:mod:`snn_deploy.sim.neurons` has proved that 32 bits are enough for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from snn_deploy.sim.vectors import I32, I64, LANES, data_of, ones, splat, vector_at


def _same(value: int) -> Any:
    """A constant in every lane."""
    return ir.Constant(ir.VectorType(I32, LANES), [value] * LANES)


class _Lanes:
    """int32 arithmetic on ``LANES`` neurons at once, modulo 2**32."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _of(self, value: Any) -> _Lanes:
        return _Lanes(self.builder, value)

    def __add__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.add(self.value, other.value))

    def __sub__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.sub(self.value, other.value))

    def __mul__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.mul(self.value, other.value))

    def __and__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.and_(self.value, other.value))

    def __xor__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.xor(self.value, other.value))

    def __lshift__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.shl(self.value, other.value))

    def __rshift__(self, other: _Lanes) -> _Lanes:
        return self._of(self.builder.ashr(self.value, other.value))

    def compared(self, how: str, other: _Lanes) -> Any:
        """One bit per lane."""
        return self.builder.icmp_signed(how, self.value, other.value)

    def where(self, bits: Any, other: _Lanes) -> _Lanes:
        """These lanes where the bit is set, else the other's."""
        return self._of(self.builder.select(bits, self.value, other.value))


def _word(builder: Any, bits: Any) -> Any:
    """One bit per lane as an int64."""
    return builder.bitcast(bits, I64)


# What advance() is told of a number format, in the order of its ``rules`` (int32).
RULES = (
    "fraction_bits",  # left shift of a synaptic sum
    "current_wrap",  # left and right shift that wraps a current in its word or register
    "current_turn",  # then it is turned once by this much where it is beyond half of it
    "current_clips",  # then it is clipped, if this is not 0, to
    "current_low",
    "current_high",
    "membrane_wrap",
    "membrane_turn",
    "membrane_clips",
    "membrane_low",
    "membrane_high",
    "shifts",  # decay by shift_subtract; else by a product,
    "decay_bits",
    "truncates",  # cut toward zero (-1), or downward (0)
    "kept_by_reset",  # of a neuron that fires: all bits (-1) or none (0),
    "added_by_reset",  # and what is added to them
    "remembers",  # the synaptic current decays, too, instead of being lost
)


def _if_told(told: Any, value: _Lanes, other: Callable[[], _Lanes]) -> _Lanes:
    """``other()`` where the number told, the same for all lanes, is not zero; else ``value``."""
    builder = value.builder
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", told, ir.Constant(I32, 0))):
        changed = other()
        changing = builder.block
    result = builder.phi(value.value.type)
    result.add_incoming(value.value, before)
    result.add_incoming(changed.value, changing)
    return _Lanes(builder, result)


def _decayed(value: _Lanes, decay: _Lanes, rule: dict[str, Any]) -> _Lanes:
    """Decay without a product beyond 32 bits: v = h * 2**bits + l, and h and l on their own."""
    builder = value.builder
    zero, one = _Lanes(builder, _same(0)), _Lanes(builder, _same(1))

    def shifted() -> _Lanes:
        left = value - (value >> decay)
        sign = zero.where(value.compared(">=", zero), zero - one)
        sign = one.where(value.compared(">", zero), sign)
        return (left - sign).where(left.compared("==", value), left)

    bits = _Lanes(builder, splat(builder, rule["decay_bits"], LANES))
    truncates = _Lanes(builder, splat(builder, rule["truncates"], LANES))
    below = (one << bits) - one
    low = (value & below) * decay
    down = (value >> bits) * decay + (low >> bits)
    # what is cut downward is cut away from zero where the state is negative
    negative, inexact = (value & truncates).compared("<", zero), (low & below).compared("!=", zero)
    product = (down + one).where(builder.and_(negative, inexact), down)
    return _if_told(rule["shifts"], product, shifted)


def _limited(value: _Lanes, rule: dict[str, Any], part: str) -> _Lanes:
    """Wrap, clip, turn once: whichever the rules of overflow leave any effect."""
    builder = value.builder

    def rule_of(name: str) -> _Lanes:
        return _Lanes(builder, splat(builder, rule[f"{part}_{name}"], LANES))

    shift, low, high, turn = (rule_of(name) for name in ("wrap", "low", "high", "turn"))
    zero = _Lanes(builder, _same(0))

    def turned() -> _Lanes:
        half = _Lanes(builder, builder.lshr(turn.value, _same(1)))
        once = wrapped - turn.where(wrapped.compared(">", half), zero)
        return once + turn.where(wrapped.compared("<=", zero - half), zero)

    def clipped() -> _Lanes:
        least = low.where(once.compared("<", low), once)
        return high.where(least.compared(">", high), least)

    wrapped = _if_told(rule[f"{part}_wrap"], value, lambda: (value << shift) >> shift)
    once = _if_told(rule[f"{part}_turn"], wrapped, turned)
    return _if_told(rule[f"{part}_clips"], once, clipped)


def _advance(
    typing_context: Any,
    rules: Any,
    current: Any,
    place: Any,
    drive: Any,
    drive_place: Any,
    parameters: Any,
    lane: Any,
    states: Any,
    state_lane: Any,
    counts: Any,
    alive: Any,
) -> Any:
    """One timestep of ``LANES`` neurons; returns (bits of those that fired, that changed).

    ``rules`` are the ``RULES``; ``current`` int32, the sums from index ``place`` on; ``drive``
    int32, bias and host sum in membrane units; ``parameters`` int32 [3, neurons]: decay, decay of
    the current, threshold, from index ``lane`` of each row on. ``states`` int32 [2, neurons]:
    membrane and current, read and written from ``state_lane`` on; ``counts`` int32, spikes so far,
    added to from ``lane`` on. ``alive`` is -1, or 0 where the neurons are cleared first.
    """
    places = (types.int64, drive, types.int64, parameters, types.int64, states, types.int64)
    words: Any = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]
    signature = words(rules, current, *places, counts, types.int32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(which: int) -> Any:
            return data_of(context, builder, signature.args[which], arguments[which])

        def rows(which: int, number: int, lane: Any) -> list[Any]:
            """Pointers to the lanes in each row of [number, neurons]."""
            array = context.make_array(signature.args[which])(context, builder, arguments[which])
            width = builder.extract_value(array.shape, 1)
            starts = [builder.mul(width, ir.Constant(I64, row)) for row in range(number)]
            places = [builder.add(start, lane) for start in starts]
            return [vector_at(builder, array.data, place, LANES) for place in places]

        def load(pointer: Any) -> _Lanes:
            return _Lanes(builder, builder.load(pointer, align=4))

        rule = {
            name: builder.load(builder.gep(data(0), [ir.Constant(I64, index)]))
            for index, name in enumerate(RULES)
        }
        decay, current_decay, threshold = rows(5, 3, arguments[6])
        membrane, memory = rows(7, 2, arguments[8])
        counts = vector_at(builder, data(9), arguments[6], LANES)
        clear = _Lanes(builder, splat(builder, arguments[10], LANES))

        before = load(membrane) & clear
        fraction = _Lanes(builder, splat(builder, rule["fraction_bits"], LANES))
        fresh = load(vector_at(builder, data(1), arguments[2], LANES)) << fraction
        remembered = _if_told(
            rule["remembers"],
            fresh,
            lambda: fresh + _decayed(load(memory) & clear, load(current_decay), rule),
        )
        arriving = _limited(remembered, rule, "current")
        builder.store(arriving.value, memory, align=4)

        driven = load(vector_at(builder, data(3), arguments[4], LANES))
        kept = _decayed(before, load(decay), rule)
        after = _limited(kept + arriving + driven, rule, "membrane")
        fires = after.compared(">", load(threshold))
        kept_by_reset = _Lanes(builder, splat(builder, rule["kept_by_reset"], LANES))
        added_by_reset = _Lanes(builder, splat(builder, rule["added_by_reset"], LANES))
        after = ((after & kept_by_reset) + added_by_reset).where(fires, after)
        builder.store(after.value, membrane, align=4)
        fired = _Lanes(builder, builder.zext(fires, after.value.type))
        builder.store((load(counts) + fired).value, counts, align=4)
        changed = builder.or_(fires, after.compared("!=", before))
        return context.make_tuple(
            builder, signature.return_type, (_word(builder, fires), _word(builder, changed))
        )

    return signature, generate


advance: Any = intrinsic(_advance)


# Vectors of neurons whose timesteps alternate.
VECTORS = 8


def pixels_at_once(words: int) -> int:
    """How many pixels of so many words ``update_lanes`` takes through all steps together."""
    return max(1, VECTORS // words)


@njit(cache=True, nogil=True)
def update_lanes(
    current: Any,  # int32 [samples, steps from ``first`` on, P, C], LANES more are readable
    windows: Any,  # int64 [steps]
    resets: Any,  # bool [steps]
    first: int,
    last: int,
    rules: Any,  # int32 [RULES]
    drive: Any,  # int32 [samples or 1, windows, P * lanes]
    parameters: Any,  # int32 [3, P * lanes]
    states: Any,  # int32 [samples, 2, P * lanes]: membrane, current; or for pixels_at_once()
    counts: Any,  # int32 [P * lanes], spikes, added to
    words: Any,  # uint64 [samples, steps, P, words], written
    sent: Any,  # uint8 [samples, steps, P, C] or empty, written: spikes as numbers
    sample_spikes: Any,  # int64 [samples], added to
    updates: Any,  # int64 [samples], added to
    membrane_trace: Any,  # int64 [samples, steps, P, C], or empty
    current_trace: Any,  # the same
) -> None:
    """Decay, integrate, limit, compare, reset, pack: as ``kernels.update_neurons`` does.

    ``pixels_at_once`` pixels go through all steps together, so that one need not wait for the other
    and their states stay near. Where a call takes all steps, it can use their ``states`` for all.
    """
    samples, steps, pixels, channels = current.shape
    flat, driven = current.reshape(-1), drive.reshape(-1)
    number = words.shape[3]
    together = max(1, VECTORS // number)
    for sample in range(samples):
        fired_in_sample, changed_in_sample = 0, 0
        state = states[min(sample, states.shape[0] - 1)]
        drives = min(sample, drive.shape[0] - 1) * drive.shape[1]
        for start in range(0, pixels, together):
            origin = 0 if state.shape[1] == pixels * number * LANES else start
            for step in range(first, last):
                alive = np.int32(0) if step == 0 or resets[step] else np.int32(-1)
                window = min(windows[step], drive.shape[1] - 1)
                base = (drives + window) * drive.shape[2]
                for pixel in range(start, min(start + together, pixels)):
                    state_base = (pixel - origin) * number * LANES
                    place = ((sample * steps + step - first) * pixels + pixel) * channels
                    for word in range(number):
                        lane = (pixel * number + word) * LANES
                        fired, changed = advance(
                            rules, flat, place + word * LANES, driven, base + lane, parameters,
                            lane, state, state_base + word * LANES, counts, alive,
                        )  # fmt: skip
                        spare = np.uint64(max((word + 1) * LANES - channels, 0))
                        valid = ~np.uint64(0) >> spare
                        fired &= valid
                        words[sample, step, pixel, word] = fired
                        fired_in_sample += ones(fired)
                        changed_in_sample += ones(changed & valid)
                    if sent.shape[0] > 0:
                        for channel in range(channels):
                            row = words[sample, step, pixel, channel >> 6]
                            bit = (row >> np.uint64(channel & 63)) & np.uint64(1)
                            sent[sample, step, pixel, channel] = bit
                    if membrane_trace.shape[0] > 0:
                        for channel in range(channels):
                            at = state_base + channel
                            membrane_trace[sample, step, pixel, channel] = state[0, at]
                            current_trace[sample, step, pixel, channel] = state[1, at]
        sample_spikes[sample] += fired_in_sample
        updates[sample] += changed_in_sample
