"""Gather the weights of active inputs in vector registers.

For every (sample, step, target pixel) the active inputs that reach the pixel become a list of rows
of weights, and the rows are summed. Weights are in *panels* of 64 or 128 target channels, one panel
after another (:mod:`snn_deploy.sim.panels`); lists wait until there are enough of them to make a
panel, once it is in the cache, worth while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from snn_deploy.sim.vectors import I16, I32, I64, data_of, ones, splat, trailing_zeros, vector_at

# Sums of int8 rows stay within int16 for this many rows, a multiple of ROWS_AT_ONCE.
ROWS_PER_FLUSH = 252
ROWS_AT_ONCE = 4
# Active inputs are listed, and copied, so many at a time, the last ones beyond the end.
LISTED = 8
COPIED = 32
SPARE = max(LISTED, COPIED)


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
        int8 or int16, ``rows`` uint32, ``sums`` int32; ``count`` a multiple of ``ROWS_AT_ONCE``.
        int8 rows are summed in int16 and brought to int32 every ``ROWS_PER_FLUSH`` rows, int16 rows
        are summed in int32.
        """
        places = (types.int64, types.int64, types.int64)  # start, count, factor
        signature = types.void(panels, types.int64, rows, *places, sums, types.int64)
        narrow = panels.dtype.bitwidth == 8
        inner = ir.VectorType(I16 if narrow else I32, lanes)
        outer = ir.VectorType(I32, lanes)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weight, listed, total = (
                data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 6)
            )
            origin, start, count, place = (arguments[i] for i in (1, 3, 4, 7))
            factor = splat(builder, builder.trunc(arguments[5], I32), lanes)
            weight = builder.gep(weight, [origin])
            out = vector_at(builder, total, place, lanes)
            end = builder.add(start, count)
            step = ir.Constant(I64, ROWS_PER_FLUSH)
            function = builder.function
            blocks, rows_loop, flush, done = (
                function.append_basic_block(name) for name in ("blocks", "rows", "flush", "done")
            )
            entered = builder.block
            builder.cbranch(builder.icmp_signed("<", start, end), blocks, done)

            builder.position_at_end(blocks)
            begin = builder.phi(I64)
            begin.add_incoming(start, entered)
            full = builder.add(begin, step)
            stop = builder.select(builder.icmp_signed("<", full, end), full, end)
            builder.branch(rows_loop)

            builder.position_at_end(rows_loop)
            index, sum_ = builder.phi(I64), builder.phi(inner)
            index.add_incoming(begin, blocks)
            sum_.add_incoming(ir.Constant(inner, None), blocks)
            added = sum_
            for ahead in range(ROWS_AT_ONCE):
                entry = builder.gep(listed, [builder.add(index, ir.Constant(I64, ahead))])
                row = builder.zext(builder.load(entry), I64)
                read = builder.load(vector_at(builder, weight, row, lanes), align=1)
                added = builder.add(added, builder.sext(read, inner))
            following = builder.add(index, ir.Constant(I64, ROWS_AT_ONCE))
            index.add_incoming(following, rows_loop)
            sum_.add_incoming(added, rows_loop)
            builder.cbranch(builder.icmp_signed("<", following, stop), rows_loop, flush)

            builder.position_at_end(flush)
            widened = builder.sext(added, outer) if narrow else added
            widened = builder.mul(widened, factor)
            builder.store(builder.add(builder.load(out, align=4), widened), out, align=4)
            begin.add_incoming(stop, flush)
            builder.cbranch(builder.icmp_signed("<", stop, end), blocks, done)

            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    gather.__name__ = f"gather_{lanes}"
    return gather


gather_64: Any = intrinsic(_gather(64))
gather_128: Any = intrinsic(_gather(128))


def _copy_shifted(
    typing_context: Any,
    listed: Any,
    begin: Any,
    end: Any,
    rows: Any,
    place: Any,
    shift: Any,
    lanes: Any,
) -> Any:
    """rows[place + i] = (listed[begin + i] + shift) * lanes for begin + i < end, all uint32.

    Up to ``COPIED`` - 1 entries more are read and written.
    """
    places = (types.int64, types.int64, types.int64)  # place, shift, lanes
    signature = types.void(listed, types.int64, types.int64, rows, *places)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        source, target = (data_of(context, builder, kinds[i], arguments[i]) for i in (0, 3))
        begin, end, place = (arguments[i] for i in (1, 2, 4))
        shift, lanes = (
            splat(builder, builder.trunc(argument, I32), COPIED) for argument in arguments[5:]
        )
        target = builder.gep(target, [builder.sub(place, begin)])
        copying, done = (builder.function.append_basic_block(name) for name in ("copy", "copied"))
        entered = builder.block
        builder.cbranch(builder.icmp_signed("<", begin, end), copying, done)

        builder.position_at_end(copying)
        index = builder.phi(I64)
        index.add_incoming(begin, entered)
        read = builder.load(vector_at(builder, source, index, COPIED), align=4)
        written = vector_at(builder, target, index, COPIED)
        builder.store(builder.mul(builder.add(read, shift), lanes), written, align=4)
        following = builder.add(index, ir.Constant(I64, COPIED))
        index.add_incoming(following, copying)
        builder.cbranch(builder.icmp_signed("<", following, end), copying, done)

        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


copy_shifted: Any = intrinsic(_copy_shifted)


@njit(cache=True, nogil=True)
def _list_active(words: Any, channels: int, active: Any, begins: Any) -> None:
    """Inputs that spike in one step, as pixel * channels + channel.

    Those of pixel p are ``active[begins[p]:begins[p + 1]]``.
    """
    count = 0
    for pixel in range(words.shape[0]):
        begins[pixel] = count
        for index in range(words.shape[1]):
            word = words[pixel, index]
            base = pixel * channels + index * 64
            number = ones(word)
            # so many at a time, whether there are or not: a branch per input would be mispredicted
            for start in range(count, count + number, LISTED):
                for ahead in range(LISTED):
                    active[start + ahead] = base + np.int64(trailing_zeros(word))
                    word &= word - np.uint64(1)
            count += number
    begins[words.shape[0]] = count


@njit(cache=True, nogil=True)
def _add_lists(
    panels: Any,  # int8 or int16 [panels * (rows + 1) * lanes]
    panel_size: int,
    lanes: int,
    rows: Any,  # uint32 [capacity]: where each row begins in a panel
    lists: Any,  # int64 [lists, 3]: first row, number of rows, place in ``current``
    waiting: int,
    factor: int,
    channels: int,
    sums: Any,  # int32 [lanes], for use here
    direct: Any,  # int32: ``current`` itself, or empty where it is int64
    current: Any,  # int32 or int64, flat, added to
) -> None:
    """Sum the rows of every waiting list, panel by panel."""
    for panel in range((channels + lanes - 1) // lanes):
        origin, base = panel * panel_size, panel * lanes
        width = min(lanes, channels - base)
        whole = width == lanes and direct.shape[0] > 0
        for index in range(waiting):
            start, count = lists[index, 0], lists[index, 1]
            place = lists[index, 2] + base
            if whole and lanes == 64:
                gather_64(panels, origin, rows, start, count, factor, direct, place)
            elif whole:
                gather_128(panels, origin, rows, start, count, factor, direct, place)
            else:
                sums[:] = 0
                if lanes == 64:
                    gather_64(panels, origin, rows, start, count, 1, sums, 0)
                else:
                    gather_128(panels, origin, rows, start, count, 1, sums, 0)
                for channel in range(width):
                    current[place + channel] += sums[channel] * factor


@njit(cache=True, nogil=True)
def accumulate(
    words: Any,  # uint64 [samples, steps, source pixels, words]
    first: int,
    last: int,
    delay: int,
    source_channels: int,
    starts: Any,  # int64 [target pixels + 1]
    runs: Any,  # int64 [runs, 3]: first pixel, pixel after the last, shift to the row
    panels: Any,
    panel_size: int,
    lanes: int,
    zero_row: int,
    longest: int,
    factor: int,
    active: Any,  # uint32 [source neurons + SPARE], for use here, as all that follow:
    begins: Any,  # int64 [source pixels + 1]
    rows: Any,  # uint32 [capacity + COPIED]
    lists: Any,  # int64 [lists, 3]
    sums: Any,  # int32 [lanes]
    direct: Any,  # int32, flat: ``current`` itself, or empty where it is int64
    current: Any,  # int32 or int64 [samples, steps from ``first`` on, pixels, channels], added to
    events: Any,  # int64 [samples], added to
) -> None:
    """Add the weights of all spikes that arrive in steps ``first`` to ``last``."""
    flat = current.reshape(-1)
    pixels, channels = current.shape[2], current.shape[3]
    capacity = rows.shape[0] - COPIED - ROWS_AT_ONCE - longest
    used, waiting = 0, 0
    for sample in range(words.shape[0]):
        found = 0
        for step in range(max(first, delay), last):
            _list_active(words[sample, step - delay], source_channels, active, begins)
            place = (sample * current.shape[1] + step - first) * pixels * channels
            for target in range(pixels):
                start = used
                for run in range(starts[target], starts[target + 1]):
                    begin, end = begins[runs[run, 0]], begins[runs[run, 1]]
                    copy_shifted(active, begin, end, rows, used, runs[run, 2], lanes)
                    used += end - begin
                if used > start:
                    found += used - start
                    for padding in range(ROWS_AT_ONCE):
                        rows[used + padding] = zero_row * lanes
                    count = (used - start + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE * ROWS_AT_ONCE
                    lists[waiting, 0], lists[waiting, 1] = start, count
                    lists[waiting, 2] = place + target * channels
                    used = start + count
                    waiting += 1
                    if used > capacity or waiting == lists.shape[0]:
                        _add_lists(
                            panels, panel_size, lanes, rows, lists, waiting, factor, channels,
                            sums, direct, flat,
                        )  # fmt: skip
                        used, waiting = 0, 0
        events[sample] += found * channels
    _add_lists(
        panels, panel_size, lanes, rows, lists, waiting, factor, channels, sums, direct, flat
    )
