"""Depthwise convolutions with vector registers: identity shortcuts among them.

Every channel reaches its own channel only, so that a word of spikes chooses among the weights of 64
channels: they are added where a bit is set, whatever the number of spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from snn_deploy.sim.panels import check_extents, most_uses
from snn_deploy.sim.vectors import I1, I32, LANES, data_of, ones, vector_at

Array = NDArray[Any]

_NO_SUMS = np.empty(0, np.int32)


def _add_where(
    typing_context: Any, bits: Any, weights: Any, origin: Any, sums: Any, place: Any
) -> Any:
    """sums[place + i] += weights[origin + i] where bit i of a uint64 is set; both int32.

    All ``LANES`` are read and written.
    """
    signature = types.void(types.uint64, weights, types.int64, sums, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weight, total = (data_of(context, builder, signature.args[i], arguments[i]) for i in (1, 3))
        chosen = builder.bitcast(arguments[0], ir.VectorType(I1, LANES))
        read = builder.load(vector_at(builder, weight, arguments[2], LANES), align=4)
        out = vector_at(builder, total, arguments[4], LANES)
        added = builder.select(chosen, read, ir.Constant(ir.VectorType(I32, LANES), None))
        builder.store(builder.add(builder.load(out, align=4), added), out, align=4)
        return context.get_dummy_value()

    return signature, generate


add_where: Any = intrinsic(_add_where)


@njit(cache=True, nogil=True)
def _accumulate(
    words: Any,  # uint64 [samples, steps, source pixels, words]
    first: int,
    last: int,
    delay: int,
    starts: Any,  # int64 [target pixels + 1]
    pixels: Any,  # int32 [entries]: source pixel
    taps: Any,  # int32 [entries]: kernel position
    weights: Any,  # int32, flat [taps, words * LANES]
    direct: Any,  # int32, flat: ``current`` itself, LANES more in reach, or empty if it is int64
    current: Any,  # int32 or int64 [samples, steps from ``first`` on, pixels, channels], added to
    events: Any,  # int64 [samples], added to
) -> None:
    """Add the weights of all spikes that arrive in steps ``first`` to ``last``."""
    channels, number = current.shape[3], words.shape[3]
    for sample in range(words.shape[0]):
        found = 0
        for step in range(max(first, delay), last):
            for target in range(starts.shape[0] - 1):
                total = current[sample, step - first, target]
                place = (sample * current.shape[1] + step - first) * current.shape[2] + target
                for entry in range(starts[target], starts[target + 1]):
                    for index in range(number):
                        bits = words[sample, step - delay, pixels[entry], index]
                        base = index * LANES
                        origin = taps[entry] * number * LANES + base
                        found += ones(bits)
                        if direct.shape[0] > 0:
                            add_where(bits, weights, origin, direct, place * channels + base)
                        else:
                            for lane in range(min(LANES, channels - base)):
                                bit = np.int64((bits >> np.uint64(lane)) & np.uint64(1))
                                total[base + lane] += weights[origin + lane] * bit
        events[sample] += found


@dataclass(frozen=True, slots=True, eq=False)
class Depthwise:
    """Connectivity of one depthwise projection, per target pixel, for the vector kernel.

    ``starts``, ``pixels`` and ``taps`` as in :class:`snn_deploy.sim.tables.SynapseTable`;
    ``weights`` are [taps, channels in whole words], flat. ``largest_sum``: no sum over 0/1 inputs
    can exceed this magnitude.
    """

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    taps: NDArray[np.int32]
    weights: NDArray[np.int32]
    largest_sum: int
    source: tuple[int, int]  # pixels and channels

    def add_spikes(
        self,
        words: NDArray[np.uint64],
        first: int,
        last: int,
        delay: int,
        current: Array,
        events: NDArray[np.int64],
    ) -> None:
        """Add what 0/1 spikes bring in steps ``first`` to ``last``; ``current`` begins there.

        If it is int32, ``LANES`` elements beyond its end must be in reach; they are written as they
        were.

        Raises
        ------
        ValueError
            If the arrays are not those of this projection.
        """
        targets = (len(self.starts) - 1, self.source[1])
        check_extents(words, self.source, first, last, delay, current, targets)
        direct = current.reshape(-1) if current.dtype == np.int32 else _NO_SUMS
        _accumulate(
            words, first, last, delay, self.starts, self.pixels, self.taps, self.weights, direct,
            current, events,
        )  # fmt: skip


def depthwise(
    starts: NDArray[np.int64],
    pixels: NDArray[np.int32],
    taps: NDArray[np.int32],
    weights: NDArray[np.int64],
    source_pixels: int,
) -> Depthwise | None:
    """The vector kernel's form of a table; None where a weight or a sum may leave 32 bits.

    ``weights`` are [taps, channels].

    Raises
    ------
    ValueError
        If the table leads out of its source or its weights; a defect of whoever built it.
    """
    count, channels = weights.shape
    if not (
        (pixels >= 0).all()
        and (pixels < source_pixels).all()
        and (taps >= 0).all()
        and (taps < count).all()
        and starts[0] == 0
        and (np.diff(starts) >= 0).all()
        and starts[-1] == len(pixels) == len(taps)
    ):
        raise ValueError("a table of synapses leads out of its source or its weights")
    sizes = np.abs(weights.astype(np.float64))
    largest = int(sizes.sum(axis=0).max(initial=0)) * most_uses(starts, taps)
    if largest >= 1 << 31:
        return None
    padded = np.zeros((count, -(-channels // LANES) * LANES), np.int32)
    padded[:, :channels] = weights
    source = (source_pixels, channels)
    return Depthwise(starts, pixels, taps, padded.reshape(-1), largest, source)
