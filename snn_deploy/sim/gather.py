"""Gather the weights of active inputs in vector registers.

For every (sample, step, target pixel) the active inputs that reach the pixel become a list of rows
of weights, and the rows are summed. Weights are in *panels* of 64 or 128 target channels, one panel
after another (:mod:`snn_deploy.sim.panels`); lists wait until there are enough of them to make a
panel, once it is in the cache, worth while.

Where more than half of all inputs are active, the others are listed: their rows are taken from the
sum of all rows that reach the pixel, so that half is the most there is to gather.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from snn_deploy.sim.vectors import I1, I16, I32, I64, data_of, ones, splat, vector_at

# Sums of uint8 rows stay within 16 bits for this many rows, a multiple of ROWS_AT_ONCE.
ROWS_PER_FLUSH = 256
# What uint8 rows hold more than the weight.
EXCESS = 128
ROWS_AT_ONCE = 4
# Active inputs are listed, and copied, so many at a time, the last ones beyond the end.
LISTED, COPIED = 16, 64

# The places of the ones in a byte, in the first elements of eight.
_PLACES = np.array(
    [
        place
        for byte in range(256)
        for place in sorted(range(8), key=lambda bit, byte=byte: not byte >> bit & 1)  # type: ignore[misc]
    ],
    np.uint8,
)


def _gather(lanes: int) -> Callable[..., Any]:
    """The intrinsic that sums rows of ``lanes`` weights."""

    def gather(
        typing_context: Any,
        panels: Any,
        origin: Any,
        rows: Any,
        start: Any,
        count: Any,
        factor: Any,
        sums: Any,
        place: Any,
    ) -> Any:
        """Add ``factor`` times a sum of rows to ``sums``, from index ``place`` on.

        The rows begin at ``panels[origin + rows[i]]``, start <= i < start + count. ``panels`` is
        uint8 or int16, ``rows`` uint32, ``sums`` int32; ``count`` a multiple of ``ROWS_AT_ONCE``.

        int16 rows are summed in int32. uint8 rows hold weights plus ``EXCESS``, those of the first
        half of the lanes in even places and of the second half in odd ones. Two neighbours are read
        as one number of 16 bits: the odd place is its upper half, and what the even places sum up
        to is what the upper halves leave of the sum of all. So nothing is ever widened but sums,
        every ``ROWS_PER_FLUSH`` rows.
        """
        places = (types.int64, types.int64, types.int64)  # start, count, factor
        signature = types.void(panels, types.int64, rows, *places, sums, types.int64)
        narrow = panels.dtype.bitwidth == 8
        wide = ir.VectorType(I32, lanes // 2 if narrow else lanes)
        inner = ir.VectorType(I16, lanes // 2) if narrow else wide

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weight, listed, total = (
                data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 6)
            )
            origin, start, count, place = (arguments[i] for i in (1, 3, 4, 7))
            factor = splat(builder, builder.trunc(arguments[5], I32), wide.count)
            eight = ir.Constant(inner, [8] * inner.count)
            weight = builder.gep(weight, [origin])
            end = builder.add(start, count)
            step = ir.Constant(I64, ROWS_PER_FLUSH)
            function = builder.function
            blocks, rows_loop, flush, done = (
                function.append_basic_block(name) for name in ("blocks", "rows", "flush", "done")
            )

            def read(index: Any) -> Any:
                """A row, as numbers of the kind that is summed."""
                row = builder.zext(builder.load(builder.gep(listed, [index])), I64)
                found = builder.load(vector_at(builder, weight, row, lanes), align=1)
                return builder.bitcast(found, inner) if narrow else builder.sext(found, inner)

            def added(values: list[Any]) -> Any:
                while len(values) > 1:
                    pairs = zip(values[::2], values[1::2], strict=True)
                    values = [builder.add(one, other) for one, other in pairs]
                return values[0]

            def add_to(place: Any, values: Any) -> None:
                out = vector_at(builder, total, place, wide.count)
                scaled = builder.mul(values, factor)
                builder.store(builder.add(builder.load(out, align=4), scaled), out, align=4)

            entered = builder.block
            builder.cbranch(builder.icmp_signed("<", start, end), blocks, done)

            builder.position_at_end(blocks)
            begin = builder.phi(I64)
            begin.add_incoming(start, entered)
            full = builder.add(begin, step)
            stop = builder.select(builder.icmp_signed("<", full, end), full, end)
            builder.branch(rows_loop)

            builder.position_at_end(rows_loop)
            index, sum_, uppers = builder.phi(I64), builder.phi(inner), builder.phi(inner)
            places = [builder.add(index, ir.Constant(I64, ahead)) for ahead in range(ROWS_AT_ONCE)]
            values = [read(place) for place in places]
            sum_after, uppers_after = builder.add(sum_, added(values)), uppers
            if narrow:
                upper = added([builder.lshr(value, eight) for value in values])
                uppers_after = builder.add(uppers, upper)
            following = builder.add(index, ir.Constant(I64, ROWS_AT_ONCE))
            zero = ir.Constant(inner, None)
            for phi, first, after in (
                (index, begin, following), (sum_, zero, sum_after), (uppers, zero, uppers_after)
            ):  # fmt: skip
                phi.add_incoming(first, blocks)
                phi.add_incoming(after, rows_loop)
            builder.cbranch(builder.icmp_signed("<", following, stop), rows_loop, flush)

            builder.position_at_end(flush)
            if narrow:
                lower = builder.sub(sum_after, builder.shl(uppers_after, eight))
                number = builder.trunc(builder.sub(stop, begin), I32)
                excess = builder.mul(number, ir.Constant(I32, EXCESS))
                excess = splat(builder, excess, wide.count)
                for half, sums in enumerate((lower, uppers_after)):
                    at = builder.add(place, ir.Constant(I64, half * wide.count))
                    add_to(at, builder.sub(builder.zext(sums, wide), excess))
            else:
                add_to(place, sum_after)
            begin.add_incoming(stop, flush)
            builder.cbranch(builder.icmp_signed("<", stop, end), blocks, done)

            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    gather.__name__ = f"gather_{lanes}"
    return gather


gather_64: Any = intrinsic(_gather(64))
gather_128: Any = intrinsic(_gather(128))


def _list_rows(
    typing_context: Any,
    active: Any,
    begins: Any,
    origin: Any,
    runs: Any,
    run: Any,
    last: Any,
    doublings: Any,
    rows: Any,
    place: Any,
) -> Any:
    """Rows of the active inputs in runs ``run`` to ``last``, from rows[place] on; returns the end.

    Each input of ``active`` plus the shift of its run, doubled so often. ``COPIED`` - 1 entries
    beyond those of a run may be read, and written.
    """
    i64 = types.int64
    signature = i64(active, begins, i64, runs, i64, i64, i64, rows, i64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, bounds, told, target = (
            data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 3, 7)
        )
        origin, first, last, place = (arguments[i] for i in (2, 4, 5, 8))
        doublings = splat(builder, builder.trunc(arguments[6], I32), COPIED)
        bounds = builder.gep(bounds, [origin])
        function = builder.function
        listing, copying, listed, done = (
            function.append_basic_block(name) for name in ("run", "copy", "listed", "done")
        )
        entered = builder.block
        builder.cbranch(builder.icmp_signed("<", first, last), listing, done)

        builder.position_at_end(listing)
        run, used = builder.phi(I64), builder.phi(I64)
        entry = builder.gep(told, [builder.mul(run, ir.Constant(I64, 3))])
        begin, end, shift = (
            builder.load(builder.gep(entry, [ir.Constant(I64, field)])) for field in range(3)
        )
        begin, end = (
            builder.zext(builder.load(builder.gep(bounds, [pixel])), I64) for pixel in (begin, end)
        )
        shift = splat(builder, builder.trunc(shift, I32), COPIED)
        builder.cbranch(builder.icmp_signed("<", begin, end), copying, listed)

        builder.position_at_end(copying)
        index, at = builder.phi(I64), builder.phi(I64)
        read = builder.load(vector_at(builder, source, index, COPIED), align=4)
        doubled = builder.shl(builder.add(read, shift), doublings)
        builder.store(doubled, vector_at(builder, target, at, COPIED), align=4)
        copied = ir.Constant(I64, COPIED)
        following = builder.add(index, copied)
        for phi, begun, after in ((index, begin, following), (at, used, builder.add(at, copied))):
            phi.add_incoming(begun, listing)
            phi.add_incoming(after, copying)
        builder.cbranch(builder.icmp_signed("<", following, end), copying, listed)

        builder.position_at_end(listed)
        used_after = builder.add(used, builder.sub(end, begin))
        run_after = builder.add(run, ir.Constant(I64, 1))
        for phi, begun, after in ((run, first, run_after), (used, place, used_after)):
            phi.add_incoming(begun, entered)
            phi.add_incoming(after, listed)
        builder.cbranch(builder.icmp_signed("<", run_after, last), listing, done)

        builder.position_at_end(done)
        result = builder.phi(I64)
        result.add_incoming(place, entered)
        result.add_incoming(used_after, listed)
        return result

    return signature, generate


list_rows: Any = intrinsic(_list_rows)


def _list_word(
    typing_context: Any, places: Any, word: Any, active: Any, place: Any, base: Any
) -> Any:
    """active[place:] = base + places of the ones in a word, lowest first; returns what follows.

    Up to ``LISTED`` - 1 more are written. No branch depends on the word: it would be mispredicted.
    """
    signature = types.int64(places, types.uint64, active, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, listed = (data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 2))
        word, place = arguments[1], arguments[3]
        # a register's worth at a time where the processor can press lanes together, else by bytes
        features = context.codegen().magic_tuple()[-1].split(",")
        lanes = LISTED if "+avx512f" in features else 8
        part = ir.IntType(lanes)
        base = splat(builder, builder.trunc(arguments[4], I32), lanes)
        vector = base.type
        for first in range(0, 64, lanes):
            bits = builder.trunc(builder.lshr(word, ir.Constant(I64, first)), part)
            if lanes == 8:
                entry = builder.mul(builder.zext(bits, I64), ir.Constant(I64, 8))
                within = builder.zext(
                    builder.load(vector_at(builder, table, entry, 8), align=1), vector
                )
            else:
                mask = builder.bitcast(bits, ir.VectorType(I1, lanes))
                kind = ir.FunctionType(vector, (vector, vector, mask.type))
                name = f"llvm.x86.avx512.mask.compress.v{lanes}i32"
                press = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
                    builder.module, kind, name
                )
                numbers = ir.Constant(vector, list(range(lanes)))
                within = builder.call(press, (numbers, numbers, mask))
            offset = ir.Constant(vector, [first] * lanes)
            found = builder.add(builder.add(within, base), offset)
            builder.store(found, vector_at(builder, listed, place, lanes), align=4)
            place = builder.add(place, builder.zext(builder.ctpop(bits), I64))
        return place

    return signature, generate


list_word: Any = intrinsic(_list_word)


@njit(nogil=True)
def list_active(
    words: Any,  # uint64, flat: [pixels, words] from ``origin`` on
    origin: int,
    pixels: int,
    channels: int,
    active: Any,  # uint32, written from ``place`` on, up to LISTED entries more than there are
    place: int,
    begins: Any,  # uint32, written from ``begin`` on, pixels + 1
    begin: int,
) -> bool:
    """List the inputs that spike in one step as pixel * channels + channel, or those that do not.

    Those of pixel p are ``active[begins[begin + p]:begins[begin + p + 1]]``. Returns whether it
    lists the silent ones, being fewer.
    """
    number = (channels + 63) >> 6
    spikes = 0
    for index in range(origin, origin + pixels * number):
        spikes += ones(words[index])
    silent = 2 * spikes > pixels * channels
    flip = ~np.uint64(0) if silent else np.uint64(0)
    for pixel in range(pixels):
        begins[begin + pixel] = place
        for index in range(number):
            left = channels - index * 64
            word = words[origin + pixel * number + index] ^ flip
            if left < 64:
                word &= (np.uint64(1) << np.uint64(left)) - np.uint64(1)
            if word == np.uint64(0):
                continue
            base = pixel * channels + index * 64
            place = list_word(_PLACES, word, active, place, base)
    begins[begin + pixels] = place
    return silent


@njit(nogil=True)
def _gather_lists(
    panels: Any,  # uint8 or int16 [panels * (rows + 1) * lanes]
    panel_size: int,
    lanes: int,
    rows: Any,  # uint32 [capacity]: where each row begins in a panel
    lists: Any,  # int64 [lists, 4]: first row, number of rows, place in ``sums``, factor
    waiting: int,
    width: int,
    sums: Any,  # int32, flat, added to
) -> None:
    """Sum the rows of every waiting list, panel by panel; ``width`` targets in whole panels."""
    for panel in range(width // lanes):
        origin, base = panel * panel_size, panel * lanes
        for index in range(waiting):
            start, count, factor = lists[index, 0], lists[index, 1], lists[index, 3]
            place = lists[index, 2] + base
            if lanes == 64:
                gather_64(panels, origin, rows, start, count, factor, sums, place)
            else:
                gather_128(panels, origin, rows, start, count, factor, sums, place)


@njit(nogil=True)
def gather_tile(
    active: Any,  # uint32: what list_active() found
    begins: Any,  # uint32: of (sample, step) from (sample * steps + step) * (source pixels + 1) on
    begin: int,  # of the first
    silent: Any,  # uint8: whether the silent ones are listed, of (sample, step)
    samples: int,
    steps: int,
    source_pixels: int,
    first_pixel: int,
    pixels: int,
    starts: Any,  # int64 [target pixels + 1]
    runs: Any,  # int64 [runs, 3], flat: first pixel, pixel after the last, shift to the row
    kinds: Any,  # int32 [target pixels]: which of
    totals: Any,  # int32 [kinds, width], flat: the sum of all rows that reach a pixel
    fan_in: Any,  # int64 [kinds]: their number
    panels: Any,
    panel_size: int,
    lanes: int,
    zero_row: int,
    capacity: int,  # rows that may wait before the next list begins
    factor: int,
    channels: int,
    width: int,
    rows: Any,  # uint32, for use here: ``capacity``, the longest list and ROWS_AT_ONCE + COPIED
    lists: Any,  # int64 [lists, 4], for use here
    sums: Any,  # int32 [steps, samples, pixels, width], flat, added to
    found: Any,  # int64 [samples], added to: accumulates
) -> None:
    """Add the weights of all spikes that reach a tile: pixels, samples and steps."""
    doublings = 6 if lanes == 64 else 7
    used, waiting = 0, 0
    for sample in range(samples):
        events = 0
        for step in range(steps):
            which = sample * steps + step
            origin = begin + which * (source_pixels + 1)
            for pixel in range(pixels):
                target = first_pixel + pixel
                place = ((step * samples + sample) * pixels + pixel) * width
                start = used
                used = list_rows(
                    active, begins, origin, runs, starts[target], starts[target + 1], doublings,
                    rows, used,
                )  # fmt: skip
                if silent[which]:
                    kind = kinds[target]
                    events += fan_in[kind] - (used - start)
                    for channel in range(width):
                        sums[place + channel] += totals[kind * width + channel]
                else:
                    events += used - start
                if used > start:
                    for padding in range(ROWS_AT_ONCE):
                        rows[used + padding] = zero_row << doublings
                    count = (used - start + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE * ROWS_AT_ONCE
                    lists[waiting, 0], lists[waiting, 1] = start, count
                    lists[waiting, 2] = place
                    lists[waiting, 3] = -factor if silent[which] else factor
                    used = start + count
                    waiting += 1
                    if used > capacity or waiting == lists.shape[0]:
                        _gather_lists(panels, panel_size, lanes, rows, lists, waiting, width, sums)
                        used, waiting = 0, 0
        found[sample] += events * channels
    _gather_lists(panels, panel_size, lanes, rows, lists, waiting, width, sums)
