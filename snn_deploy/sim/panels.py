"""Connectivity and weights of a projection, laid out for the vector kernel of ``gather``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.sim.gather import COPIED, ROWS_AT_ONCE, SPARE, accumulate

Array = NDArray[Any]

# Rows that wait for a panel: few where all weights stay in the cache anyway.
_CACHED_WEIGHTS = 512 << 10  # bytes
_FEW_ROWS, _MANY_ROWS = 1 << 11, 1 << 16
_LISTS = 1 << 10
_MOST_LANES = 128
_ALIGNMENT = 64  # bytes of a cache line
_NO_SUMS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Working memory of the kernel."""

    active: NDArray[np.uint32]
    begins: NDArray[np.int64]
    rows: NDArray[np.uint32]
    lists: NDArray[np.int64]
    sums: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """Connectivity and weights of one projection, for the vector kernel.

    Runs ``starts[p]`` to ``starts[p + 1]`` of ``runs`` are the source pixels that reach target
    pixel p: from the first up to the second number, and what to add to an input's index
    (pixel * channels + channel) to find its row. ``weights`` are [panels][rows + 1][lanes], flat,
    the last row zero; they are to be multiplied by ``factor``, a power of two.

    ``largest_sum``: no sum over 0/1 inputs can exceed this magnitude, ``factor`` included.
    """

    starts: NDArray[np.int64]
    runs: NDArray[np.int64]
    weights: Array
    lanes: int
    rows: int
    factor: int
    source_pixels: int
    source_channels: int
    longest: int
    largest_sum: int
    targets: tuple[int, int]  # pixels and channels

    def room(self) -> Room:
        """Working memory for :meth:`add_spikes`, to be used by one thread."""
        capacity = _MANY_ROWS if self.weights.nbytes > _CACHED_WEIGHTS else _FEW_ROWS
        return Room(
            active=np.empty(self.source_pixels * self.source_channels + SPARE, np.uint32),
            begins=np.empty(self.source_pixels + 1, np.int64),
            rows=np.empty(capacity + 2 * self.longest + ROWS_AT_ONCE + COPIED, np.uint32),
            lists=np.empty((_LISTS, 3), np.int64),
            sums=np.empty(self.lanes, np.int32),
        )

    def add_spikes(
        self,
        words: NDArray[np.uint64],
        first: int,
        last: int,
        delay: int,
        current: Array,
        events: NDArray[np.int64],
        room: Room,
    ) -> None:
        """Add what 0/1 spikes bring in steps ``first`` to ``last``; ``current`` begins there.

        Raises
        ------
        ValueError
            If the arrays are not those of this projection.
        """
        source = (self.source_pixels, self.source_channels)
        check_extents(words, source, first, last, delay, current, self.targets)
        accumulate(
            words, first, last, delay, self.source_channels, self.starts, self.runs, self.weights,
            (self.rows + 1) * self.lanes, self.lanes, self.rows, self.longest, self.factor,
            room.active, room.begins, room.rows, room.lists, room.sums,
            current.reshape(-1) if current.dtype == np.int32 else _NO_SUMS, current, events,
        )  # fmt: skip


def panels(
    starts: NDArray[np.int64],
    pixels: NDArray[np.int32],
    taps: NDArray[np.int32],
    weights: NDArray[np.int64],
    source_pixels: int,
) -> Panels | None:
    """The vector kernel's form of a table of synapses, None where it cannot take them.

    ``starts``, ``pixels`` and ``taps`` as in :class:`snn_deploy.sim.tables.SynapseTable`,
    ``weights`` [taps, source channels, target channels], of synapses without groups. Once what all
    weights have in common is taken out, a power of two, they must fit in 16 bits, and every sum in
    32.

    Raises
    ------
    ValueError
        If the table leads out of its source or its weights; a defect of whoever built it.
    """
    count, channels, targets = weights.shape
    if max((count * channels + 1) * _MOST_LANES, source_pixels * channels) >= 1 << 32:
        return None  # lists are uint32
    runs, run_starts = _runs(starts, pixels, taps, channels)
    _check(runs, run_starts, source_pixels, channels, count * channels)
    common = int(np.bitwise_or.reduce(weights, axis=None))
    factor = common & -common or 1
    mantissas = weights // factor
    low, high = int(mantissas.min(initial=0)), int(mantissas.max(initial=0))
    longest = int(np.diff(starts).max(initial=0)) * channels
    sums = np.abs(mantissas.astype(np.float64)).sum(axis=(0, 1)).max(initial=0)
    largest = min(int(sums) * most_uses(starts, taps), longest * max(-low, high))
    if low < -(1 << 15) or high >= 1 << 15 or largest >= 1 << 31 or factor >= 1 << 31:
        return None
    narrow = low >= -(1 << 7) and high < 1 << 7
    lanes = _MOST_LANES if narrow and -(-targets // 64) % 2 == 0 else 64
    dtype = np.int8 if narrow else np.int16
    return Panels(
        starts=run_starts,
        runs=runs,
        weights=_panelled(mantissas.reshape(count * channels, targets), lanes, dtype),
        lanes=lanes,
        rows=count * channels,
        factor=factor,
        source_pixels=source_pixels,
        source_channels=channels,
        longest=longest,
        largest_sum=largest * factor,
        targets=(len(starts) - 1, targets),
    )


def check_extents(
    words: NDArray[np.uint64],
    source: tuple[int, int],
    first: int,
    last: int,
    delay: int,
    current: Array,
    targets: tuple[int, int],
) -> None:
    """Raise ValueError unless kernels stay within these arrays; pixels and channels as pairs."""
    samples, steps, *seen = words.shape
    if (
        seen != [source[0], -(-source[1] // 64)]
        or current.shape != (samples, last - first, *targets)
        or not (words.flags.c_contiguous and current.flags.c_contiguous)
        or not 0 <= first <= last <= steps
        or delay < 0
    ):
        raise ValueError(
            f"spikes {words.shape} and sums {current.shape} of steps {first} to {last} are not of "
            f"synapses from {source} to {targets}"
        )


def most_uses(starts: NDArray[np.int64], taps: NDArray[np.int32]) -> int:
    """Through how many inputs of one target a kernel position is used: several behind a pool."""
    target = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    taps_each = int(taps.max(initial=0)) + 1
    return int(np.bincount(target * taps_each + taps).max(initial=0))


def _panelled(rows: NDArray[np.int64], lanes: int, dtype: Any) -> Array:
    """[rows, targets] as flat [panels][rows + 1][lanes] from the start of a cache line on."""
    count, targets = rows.shape
    number = -(-targets // lanes)
    size = number * (count + 1) * lanes
    room = np.zeros(size + _ALIGNMENT, dtype)
    begin = -room.ctypes.data % _ALIGNMENT // room.itemsize
    flat: Array = room[begin : begin + size]
    view = flat.reshape(number, count + 1, lanes)
    for panel in range(number):
        part = rows[:, panel * lanes : (panel + 1) * lanes]
        view[panel, :count, : part.shape[1]] = part
    return flat


def _runs(
    starts: NDArray[np.int64], pixels: NDArray[np.int32], taps: NDArray[np.int32], channels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbouring pixels that go to neighbouring rows, put together."""
    shift = taps.astype(np.int64) - pixels
    begins = np.ones(len(pixels), bool)
    begins[1:] = (np.diff(pixels) != 1) | (np.diff(shift) != 0)
    begins[starts[:-1][np.diff(starts) > 0]] = True
    first = np.flatnonzero(begins)
    last = np.append(first, len(pixels))[1:] - 1
    runs = np.stack([pixels[first], pixels[last] + 1, shift[first] * channels], axis=1)
    before = np.concatenate([[0], np.cumsum(begins)])
    return np.ascontiguousarray(runs, np.int64), before[starts].astype(np.int64)


def _check(
    runs: NDArray[np.int64],
    starts: NDArray[np.int64],
    source_pixels: int,
    channels: int,
    rows: int,
) -> None:
    """What the kernel relies on, as it reads memory unchecked.

    Raises
    ------
    ValueError
        If a run leaves the source, or the rows of weights; a defect of whoever built the table.
    """
    begin, end, shift = runs.T
    sound = (
        starts[0] == 0
        and starts[-1] == len(runs)
        and (np.diff(starts) >= 0).all()
        and (begin >= 0).all()
        and (begin < end).all()
        and (end <= source_pixels).all()
        and (begin * channels + shift >= 0).all()
        and (end * channels + shift <= rows).all()
    )
    if not sound:
        raise ValueError("a table of synapses leads out of its source or its weights")
