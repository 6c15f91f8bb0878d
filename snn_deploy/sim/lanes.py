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

from snn_deploy.sim.vectors import I32, I64, LANES, data_of, splat, vector_at


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
    drive_period: Any,
    parameters: Any,
    lane: Any,
    period: Any,
    states: Any,
    state_lane: Any,
    counts: Any,
    count_lane: Any,
    words: Any,
    word: Any,
    per_pixel: Any,
    valid: Any,
    vectors: Any,
    alive: Any,
) -> Any:
    """One timestep of ``vectors`` times ``LANES`` neurons; returns how many fired, and changed.

    ``rules`` are the ``RULES``; ``current`` int32, the sums from index ``place`` on; ``drive``
    int32, bias and host sum in membrane units; ``parameters`` int32 [3, neurons]: decay, decay of
    the current, threshold, from index ``lane`` of each row on. Drive and parameters begin again
    after a ``period``, which the places are at the beginning of, or which never ends. ``states``
    int32 [2, neurons]: membrane and current, read and written from ``state_lane`` on; ``counts``
    int32, spikes so far, added to from ``count_lane`` on. Spikes are written to ``words``, uint64,
    from ``word`` on: of every ``per_pixel`` words the last has ``valid`` neurons only. ``alive`` is
    -1, or 0 where the neurons are cleared first.
    """
    i64 = types.int64
    both: Any = types.UniTuple(i64, 2)  # type: ignore[no-untyped-call]
    signature = both(
        rules, current, i64, drive, i64, i64, parameters, i64, i64, states, i64, counts, i64,
        words, i64, i64, types.uint64, i64, types.int32,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = dict(zip(
            ("rules", "current", "place", "drive", "drive_place", "drive_period", "parameters",
             "lane", "period", "states", "state_lane", "counts", "count_lane", "words", "word",
             "per_pixel", "valid", "vectors", "alive"),
            zip(signature.args, arguments, strict=True), strict=True))  # fmt: skip
        value = {name: argument for name, (_, argument) in given.items()}

        def data(name: str) -> Any:
            return data_of(context, builder, *given[name])

        def rows(name: str, number: int) -> list[Any]:
            """Pointers to the first element of each row of [number, neurons]."""
            kind, argument = given[name]
            array = context.make_array(kind)(context, builder, argument)
            width = builder.extract_value(array.shape, 1)
            starts = [builder.mul(width, ir.Constant(I64, row)) for row in range(number)]
            return [builder.gep(array.data, [start]) for start in starts]

        def load(pointer: Any, place: Any) -> _Lanes:
            return _Lanes(builder, builder.load(vector_at(builder, pointer, place, LANES), align=4))

        def store(values: _Lanes, pointer: Any, place: Any) -> None:
            builder.store(values.value, vector_at(builder, pointer, place, LANES), align=4)

        zero, one, lanes = (ir.Constant(I64, number) for number in (0, 1, LANES))
        rule = {
            name: builder.load(builder.gep(data("rules"), [ir.Constant(I64, index)]))
            for index, name in enumerate(RULES)
        }
        decay, current_decay, threshold = rows("parameters", 3)
        membrane, memory = rows("states", 2)
        current, drive, counts, words = (data(n) for n in ("current", "drive", "counts", "words"))
        clear = _Lanes(builder, splat(builder, value["alive"], LANES))
        fraction = _Lanes(builder, splat(builder, rule["fraction_bits"], LANES))
        kept_by_reset = _Lanes(builder, splat(builder, rule["kept_by_reset"], LANES))
        added_by_reset = _Lanes(builder, splat(builder, rule["added_by_reset"], LANES))
        last_word = builder.sub(value["per_pixel"], one)

        entered = builder.block
        loop, done = (builder.function.append_basic_block(name) for name in ("neurons", "done"))
        builder.cbranch(builder.icmp_signed("<", zero, value["vectors"]), loop, done)
        builder.position_at_end(loop)
        begins = (zero, zero, zero, zero, zero, zero, zero)
        carried = [builder.phi(I64) for _ in begins]
        for phi, begin in zip(carried, begins, strict=True):
            phi.add_incoming(begin, entered)
        index, offset, driven_offset, told_offset, in_pixel, fired_before, changed_before = carried

        at = builder.add(value["lane"], told_offset)
        state_at = builder.add(value["state_lane"], offset)
        count_at = builder.add(value["count_lane"], offset)
        before = load(membrane, state_at) & clear
        fresh = load(current, builder.add(value["place"], offset)) << fraction
        remembered = _if_told(
            rule["remembers"],
            fresh,
            lambda: fresh + _decayed(load(memory, state_at) & clear, load(current_decay, at), rule),
        )
        arriving = _limited(remembered, rule, "current")
        store(arriving, memory, state_at)
        driven = load(drive, builder.add(value["drive_place"], driven_offset))
        kept = _decayed(before, load(decay, at), rule)
        after = _limited(kept + arriving + driven, rule, "membrane")
        fires = after.compared(">", load(threshold, at))
        after = ((after & kept_by_reset) + added_by_reset).where(fires, after)
        store(after, membrane, state_at)
        fired = _Lanes(builder, builder.zext(fires, after.value.type))
        store(load(counts, count_at) + fired, counts, count_at)
        changed = builder.or_(fires, after.compared("!=", before))
        everyone = ir.Constant(I64, -1)
        ends = builder.icmp_signed("==", in_pixel, last_word)
        mask = builder.select(ends, value["valid"], everyone)
        spikes, changes = (builder.and_(_word(builder, bits), mask) for bits in (fires, changed))
        builder.store(spikes, builder.gep(words, [builder.add(value["word"], index)]))

        def cycled(place: Any, step: Any, period: Any) -> Any:
            following = builder.add(place, step)
            return builder.select(builder.icmp_signed("==", following, period), zero, following)

        following = builder.add(index, one)
        leaving = builder.block
        for phi, next_value in zip(
            carried,
            (
                following,
                builder.add(offset, lanes),
                cycled(driven_offset, lanes, value["drive_period"]),
                cycled(told_offset, lanes, value["period"]),
                cycled(in_pixel, one, value["per_pixel"]),
                builder.add(fired_before, builder.ctpop(spikes)),
                builder.add(changed_before, builder.ctpop(changes)),
            ),
            strict=True,
        ):
            phi.add_incoming(next_value, leaving)
        counted = [carried[5].incomings[1][0], carried[6].incomings[1][0]]
        builder.cbranch(builder.icmp_signed("<", following, value["vectors"]), loop, done)

        builder.position_at_end(done)
        results = []
        for total in counted:
            result = builder.phi(I64)
            result.add_incoming(zero, entered)
            result.add_incoming(total, leaving)
            results.append(result)
        return context.make_tuple(builder, signature.return_type, results)

    return signature, generate


advance: Any = intrinsic(_advance)


# Vectors of neurons whose timesteps alternate.
VECTORS = 8
_ENDLESS = 1 << 62


def pixels_at_once(words: int) -> int:
    """How many pixels of so many words ``update_tile`` takes through all steps together."""
    return max(1, VECTORS // words)


@njit(nogil=True)
def update_tile(
    sums: Any,  # int32 [steps, samples, pixels, width], flat
    sample: int,  # of the tile's first
    step: int,  # of the tile's first
    samples: int,
    steps: int,
    first_pixel: int,
    pixels: int,
    all_pixels: int,
    channels: int,
    windows: Any,  # int64 [all steps]
    clears: Any,  # uint8 [all steps]: whether all neurons are cleared before a step
    rules: Any,  # int32 [RULES]
    drive: Any,  # int32 [all samples or 1, windows, all pixels * width, or width for all pixels]
    parameters: Any,  # int32 [3, the same]
    states: Any,  # int32 [n, 2, all pixels * width]: membrane, current; or for pixels_at_once()
    counts: Any,  # int32 [all pixels * width], spikes, added to
    words: Any,  # uint64 [all samples, all steps, all pixels, words], written
    sent: Any,  # uint8 [..., channels] or empty, written: spikes as numbers
    sample_spikes: Any,  # int64 [all samples], added to
    updates: Any,  # int64 [all samples], added to
    membrane_trace: Any,  # int64 [all samples, all steps, all pixels, channels], or empty
    current_trace: Any,  # the same
) -> None:
    """Decay, integrate, limit, compare, reset, pack: as ``kernels.update_neurons`` does.

    ``pixels_at_once`` pixels go through all steps together, so that one need not wait for the other
    and their states stay near; where a tile holds all steps, it can use their ``states`` for all.
    Sample s has the states s modulo n.
    """
    number = words.shape[3]
    width = number * LANES
    together = max(1, VECTORS // number)
    driven, spikes = drive.reshape(-1), words.reshape(-1)
    drive_stride = 0 if drive.shape[2] == width else width
    drive_period = width if drive_stride == 0 else _ENDLESS
    stride = 0 if parameters.shape[1] == width else width
    period = width if stride == 0 else _ENDLESS
    valid = ~np.uint64(0) >> np.uint64(width - channels)
    for index in range(samples):
        here = sample + index
        fired_in_sample, changed_in_sample = 0, 0
        state = states[here % states.shape[0]]
        drives = min(here, drive.shape[0] - 1) * drive.shape[1]
        for start in range(first_pixel, first_pixel + pixels, together):
            origin = 0 if state.shape[1] == all_pixels * width else start
            stop = min(start + together, first_pixel + pixels)
            for ahead in range(steps):
                now = step + ahead
                alive = np.int32(0) if clears[now] else np.int32(-1)
                window = min(windows[now], drive.shape[1] - 1)
                base = (drives + window) * drive.shape[2]
                place = ((ahead * samples + index) * pixels + start - first_pixel) * width
                row = ((here * words.shape[1] + now) * all_pixels + start) * number
                fired, changed = advance(
                    rules, sums, place, driven, base + start * drive_stride, drive_period,
                    parameters, start * stride, period, state, (start - origin) * width, counts,
                    start * width, spikes, row, number, valid, (stop - start) * number, alive,
                )  # fmt: skip
                fired_in_sample += fired
                changed_in_sample += changed
                if sent.shape[0] > 0:
                    for pixel in range(start, stop):
                        for channel in range(channels):
                            word = words[here, now, pixel, channel >> 6]
                            bit = (word >> np.uint64(channel & 63)) & np.uint64(1)
                            sent[here, now, pixel, channel] = bit
                if membrane_trace.shape[0] > 0:
                    for pixel in range(start, stop):
                        for channel in range(channels):
                            at = (pixel - origin) * width + channel
                            membrane_trace[here, now, pixel, channel] = state[0, at]
                            current_trace[here, now, pixel, channel] = state[1, at]
        sample_spikes[here] += fired_in_sample
        updates[here] += changed_in_sample
