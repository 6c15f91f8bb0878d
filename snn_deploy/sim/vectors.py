"""Instructions that Numba has no word for, stated in LLVM's intermediate language: what they share.

A loop over weights that Numba compiles keeps its sums in memory; intrinsics that work on vectors
keep them in registers, which is what decides the speed. LLVM makes of them whatever the processor
has, AVX-512, AVX2, NEON or plain SSE2, so there is one statement for all. Nothing in them checks a
bound: callers pass places that were checked when their tables were made.

Intrinsics stand beside the kernels that use them (``gather``, ``depthwise``, ``lanes``), which are
compiled, and cached on disk, as parts of :mod:`snn_deploy.sim.sweep` only.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

# Neurons that are handled at once: as many as a word of spikes has bits.
LANES = 64
CACHE_LINE = 64  # bytes

I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))


def room(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array that begins where a cache line does, so that no vector lies in two; not cleared."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    begin = -address(raw) % CACHE_LINE
    array: NDArray[Any] = raw[begin : begin + size].view(dtype)
    return array.reshape(shape)


def address(array: NDArray[Any] | None) -> int:
    """Address of an array's first element; 0 where there is none.

    Raises
    ------
    ValueError
        If the elements do not follow each other.
    """
    if array is None or not array.size:
        return 0
    if not array.flags.c_contiguous:
        raise ValueError(f"an array of strides {array.strides} is not contiguous")
    if not array.flags.writeable:
        return int(array.ctypes.data)
    # ten times as fast, which small networks feel
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))


def data_of(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to the first element of an array argument."""
    return context.make_array(kind)(context, builder, array).data


def vector_at(builder: Any, data: Any, place: Any, lanes: int) -> Any:
    """Pointer to ``lanes`` elements from index ``place`` on, as one vector."""
    element = builder.gep(data, [place])
    return builder.bitcast(element, ir.VectorType(element.type.pointee, lanes).as_pointer())


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """A scalar in every lane."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
    first = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), first)


def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Index of the lowest set bit of a uint64, 64 where there is none, as one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(I1, 0))  # 0: defined for zero, too

    return types.uint64(types.uint64), generate


def _ones(typing_context: Any, word: Any) -> Any:
    """Number of set bits of a uint64, as int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


trailing_zeros: Any = intrinsic(_trailing_zeros)
ones: Any = intrinsic(_ones)
