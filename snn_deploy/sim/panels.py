"""Connectivity and weights of a projection, laid out for the vector kernel of ``gather``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.sim.gather import EXCESS
from snn_deploy.sim.vectors import address, room

Array = NDArray[Any]

_MOST_LANES = 128


@dataclass(frozen=True, eq=False)
class Panels:
    """Connectivity and weights of one projection, for the vector kernel.

    Runs ``starts[p]`` to ``starts[p + 1]`` of ``runs`` are the source pixels that reach target
    pixel p: from the first up to the second number, and what to add to an input's index
    (pixel * channels + channel) to find its row. ``weights`` are [panels][rows + 1][lanes], flat,
    the last row zero; they are to be multiplied by ``factor``, a power of two. Target pixel p is of
    one of a few ``kinds``, which the same rows reach, ``fan_in`` of them, with the sums ``totals``
    (``factor`` included): [kinds, targets in whole panels].

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
    kinds: NDArray[np.int32]
    totals: NDArray[np.int32]
    fan_in: NDArray[np.int64]
    largest_sum: int
    targets: tuple[int, int]  # pixels and channels

    @property
    def source(self) -> tuple[int, int]:
        """Pixels and channels of the source."""
        return self.source_pixels, self.source_channels

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """From ``starts`` to ``fan_in``, as a row of ``sweep.ARRIVAL`` has them."""
        return (
            address(self.starts), address(self.runs), self.runs.size,
            address(self.weights), self.weights.size, (self.rows + 1) * self.lanes, self.lanes,
            self.rows, self.factor,
            address(self.kinds), address(self.totals), self.totals.size, address(self.fan_in),
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
    flat = mantissas.reshape(count * channels, targets)
    kinds, totals, fan_in = _totals(run_starts, runs, flat, channels)
    wide = room((len(totals), -(-targets // lanes) * lanes), np.int32)
    wide[...] = 0
    wide[:, :targets] = totals * factor  # modulo 2**32, as all sums are
    return Panels(
        starts=run_starts,
        runs=runs,
        weights=_panelled(flat, lanes, narrow=narrow),
        lanes=lanes,
        rows=count * channels,
        factor=factor,
        source_pixels=source_pixels,
        source_channels=channels,
        longest=longest,
        kinds=kinds,
        totals=wide,
        fan_in=fan_in,
        largest_sum=largest * factor,
        targets=(len(starts) - 1, targets),
    )


def _totals(
    starts: NDArray[np.int64],
    runs: NDArray[np.int64],
    weights: NDArray[np.int64],
    channels: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Kind of each target pixel; per kind the sum of the rows that reach it, and their number."""
    lengths = np.diff(starts)
    ranges = np.zeros((len(lengths), int(lengths.max(initial=0)), 2), np.int64)
    begins = runs[:, :2] * channels + runs[:, 2:]
    target = np.repeat(np.arange(len(lengths)), lengths)
    ranges[target, np.arange(len(runs)) - starts[target]] = begins
    flat = ranges.reshape(len(ranges), -1)
    # neighbours are mostly alike, so that few need be sorted
    changes = np.append(True, (flat[1:] != flat[:-1]).any(axis=1))
    distinct, kinds = np.unique(flat[changes], axis=0, return_inverse=True)
    kinds = kinds.reshape(-1)[np.cumsum(changes) - 1]
    before = np.zeros((len(weights) + 1, weights.shape[1]), np.int64)
    np.cumsum(weights, axis=0, out=before[1:])
    first, last = np.moveaxis(distinct.reshape(len(distinct), -1, 2), -1, 0)
    totals = before[last].sum(axis=1) - before[first].sum(axis=1)
    fan_in = (last - first).sum(axis=1)
    return kinds.astype(np.int32), totals, fan_in


def most_uses(starts: NDArray[np.int64], taps: NDArray[np.int32]) -> int:
    """Through how many inputs of one target a kernel position is used: several behind a pool."""
    target = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    taps_each = int(taps.max(initial=0)) + 1
    return int(np.bincount(target * taps_each + taps).max(initial=0))


def _panelled(rows: NDArray[np.int64], lanes: int, *, narrow: bool) -> Array:
    """[rows, targets] as flat [panels][rows + 1][lanes], the way :mod:`..gather` reads them."""
    count, targets = rows.shape
    number = -(-targets // lanes)
    view = room((number, count + 1, lanes), np.uint8 if narrow else np.int16)
    view[...] = EXCESS if narrow else 0
    order = np.arange(lanes).reshape(2, -1).T.reshape(-1) if narrow else np.arange(lanes)
    for panel in range(number):
        part = np.zeros((count, lanes), np.int64)
        held = rows[:, panel * lanes : (panel + 1) * lanes]
        part[:, : held.shape[1]] = held
        view[panel, :count] += part[:, order].astype(view.dtype)
    return view.reshape(-1)


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
