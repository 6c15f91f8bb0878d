"""Depthwise convolutions with vector registers: identity shortcuts among them.

Every channel reaches its own channel only, so that a word of spikes chooses among the weights of 64
channels: they are added where a bit is set, whatever the number of spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from snn_deploy.sim.panels import most_uses
from snn_deploy.sim.vectors import I1, I32, LANES, address, data_of, ones, room, vector_at

Array = NDArray[Any]


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


@njit(nogil=True)
def depthwise_tile(
    words: Any,  # uint64, flat: [samples, all steps, source pixels, words]
    sample: int,  # of the tile's first
    step: int,  # at which the tile's first step reads them; before 0 nothing was sent
    all_steps: int,
    samples: int,
    steps: int,
    source_pixels: int,
    first_pixel: int,
    pixels: int,
    starts: Any,  # int64 [target pixels + 1]
    sources: Any,  # int32 [entries]: source pixel
    taps: Any,  # int32 [entries]: kernel position
    weights: Any,  # int32, flat [taps, width]
    width: int,
    sums: Any,  # int32 [steps, samples, pixels, width], flat, added to
    found: Any,  # int64 [samples], added to: accumulates
) -> None:
    """Add the weights of all spikes that reach a tile: pixels, samples and steps."""
    number = width // LANES
    for index in range(samples):
        events = 0
        for ahead in range(max(0, -step), steps):
            row = ((sample + index) * all_steps + step + ahead) * source_pixels
            for pixel in range(pixels):
                place = ((ahead * samples + index) * pixels + pixel) * width
                for entry in range(starts[first_pixel + pixel], starts[first_pixel + pixel + 1]):
                    for word in range(number):
                        bits = words[(row + sources[entry]) * number + word]
                        events += ones(bits)
                        base = word * LANES
                        add_where(bits, weights, taps[entry] * width + base, sums, place + base)
        found[index] += events


@dataclass(frozen=True, eq=False)
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

    @property
    def targets(self) -> tuple[int, int]:
        """Pixels and channels of the target."""
        return len(self.starts) - 1, self.source[1]

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """From ``starts`` to ``taps``, as a row of ``sweep.ARRIVAL`` has them."""
        return (
            address(self.starts), 0, self.pixels.size, address(self.weights), self.weights.size,
            *[0] * 8, address(self.pixels), address(self.taps),
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
    padded = room((count, -(-channels // LANES) * LANES), np.int32)
    padded[:, channels:] = 0
    padded[:, :channels] = weights
    source = (source_pixels, channels)
    return Depthwise(starts, pixels, taps, padded.reshape(-1), largest, source)
