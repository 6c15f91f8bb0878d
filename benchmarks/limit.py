"""How many int8 weights a core can add per second, if it need do nothing else.

Rows of 128 int8 weights, one after another in a buffer that a cache holds, are widened and added to
int16 sums in vector registers: what the engine's gathering comes down to, without lists, without
bringing sums to int32, without neurons. No network can be faster; a share of it says how much of
the machine is used.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from benchmarks.measuring import Work

LANES = 128
ROWS_AT_ONCE = 8
# Bytes that L1, and that L2, hold with room to spare.
BUFFERS = {"L1": 24 << 10, "L2": 256 << 10}
ADDITIONS = 3 << 29  # in one measurement; all buffers divide it


def _add_rows(typing_context: Any, rows: Any, begin: Any, end: Any, total: Any) -> Any:
    """total[:] += sum of int8 rows begin to end of ``rows`` in int16; a multiple of ROWS_AT_ONCE.

    ``rows`` and ``total`` are flat.
    """
    signature = types.void(rows, types.int64, types.int64, total)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i64 = ir.IntType(64)
        narrow, wide = (ir.VectorType(ir.IntType(bits), LANES) for bits in (8, 16))
        source, out = (
            context.make_array(signature.args[i])(context, builder, arguments[i]).data
            for i in (0, 3)
        )
        out = builder.bitcast(out, wide.as_pointer())
        loop, done = (builder.function.append_basic_block(name) for name in ("loop", "done"))
        first, entered = builder.load(out, align=2), builder.block
        builder.cbranch(builder.icmp_signed("<", arguments[1], arguments[2]), loop, done)

        builder.position_at_end(loop)
        index, added = builder.phi(i64), builder.phi(wide)
        index.add_incoming(arguments[1], entered)
        added.add_incoming(first, entered)
        total = added
        for ahead in range(ROWS_AT_ONCE):
            row = builder.add(index, ir.Constant(i64, ahead))
            place = builder.gep(source, [builder.mul(row, ir.Constant(i64, LANES))])
            read = builder.load(builder.bitcast(place, narrow.as_pointer()), align=1)
            total = builder.add(total, builder.sext(read, wide))
        following = builder.add(index, ir.Constant(i64, ROWS_AT_ONCE))
        index.add_incoming(following, loop)
        added.add_incoming(total, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[2]), loop, done)

        builder.position_at_end(done)
        last = builder.phi(wide)
        last.add_incoming(first, entered)
        last.add_incoming(total, loop)
        builder.store(last, out, align=2)
        return context.get_dummy_value()

    return signature, generate


add_rows: Any = intrinsic(_add_rows)


@njit
def _repeat(rows: Any, count: int, total: Any, times: int) -> None:
    for _ in range(times):
        add_rows(rows, 0, count, total)


def works() -> dict[str, Work]:
    """For each of ``BUFFERS`` a work that makes ``ADDITIONS`` additions; its sums are checked."""
    rng = np.random.default_rng(0)
    found: dict[str, Work] = {}
    for name, size in BUFFERS.items():
        count = size // LANES
        rows = rng.integers(-128, 128, size).astype(np.int8)
        total = np.zeros(LANES, np.int16)
        _repeat(rows, count, total, 3)
        wanted = 3 * rows.reshape(-1, LANES).sum(0, dtype=np.int64)
        if (total != wanted.astype(np.int16)).any():
            raise SystemExit("the limit's sums differ")
        found[name] = partial(_repeat, rows, count, total, ADDITIONS // size)
    return found
