"""How far one neuron that only inputs feed can get: bounds that know more than an interval does.

The range proof keeps one interval per neuron. That is sound, and exact for a membrane that never
fires; but what a membrane kept from the step before is often not *just* below the threshold: sums
of few synapses leave gaps; a constant input drives every step alike; a current with a memory that
is at its largest has made the neuron fire before. Here the states are kept apart: as a list of
intervals, by the value of the constant input, or by the current.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, ResetSubtract
from snn_deploy.numerics import rounding_shift_right
from snn_deploy.quantization.drive import Drive, Taps
from snn_deploy.quantization.ranges import after_reset, silent_limit

Integers = NDArray[np.int64]
Bounds = tuple[Integers, Integers]

# Intervals, cells of a current and cells of a constant input that are kept apart.
_INTERVALS, _CURRENTS, _CONSTANTS, _BOTH = 512, 2048, 4096, 16
# Without a given number of timesteps the states must settle within so many.
_MOST_STEPS = 2000


def membrane_edges(
    drive: Drive, steps: int | None, current: tuple[int, int]
) -> tuple[int, int] | None:
    """Bounds of the membrane of one neuron before the reset; None where none were found.

    Parameters
    ----------
    steps : timesteps of the run, None for any number.
    current : proved bounds of its synaptic current.
    """
    constant = bool(len(drive.constant.weight)) or bool(drive.host)
    if drive.remembers:
        return _by_current(drive, steps, current)
    return _by_constant(drive, steps) if constant else _by_intervals(drive, steps)


def current_edges(drive: Drive, steps: int) -> tuple[int, int]:
    """Bounds of the current of one neuron, both reached: nothing resets it."""
    zero = np.zeros(1, np.int64)
    low, high, least, most = zero, zero, 0, 0
    added = _ends(drive.constant)
    for step in range(steps):
        arriving = _arriving(drive, step)
        low = drive.decay_current(low) + arriving[0] + added[0]
        high = drive.decay_current(high) + arriving[1] + added[1]
        least, most = min(least, int(low[0])), max(most, int(high[0]))
    return least, most


def _ends(taps: Taps) -> tuple[int, int]:
    """Smallest and largest sum over some entries."""
    low, high = taps.weight * taps.low, taps.weight * taps.high
    return int(np.minimum(low, high).sum()), int(np.maximum(low, high).sum())


def _arriving(drive: Drive, step: int) -> tuple[int, int]:
    """What may arrive in a step."""
    return _ends(drive.timed.where(drive.timed.delay <= step))


def _last_change(drive: Drive) -> int:
    """The step from which on everything may arrive."""
    return int(drive.timed.delay.max(initial=0))


def _driven(drive: Drive, cells: int) -> tuple[Bounds, Bounds]:
    """The constant inputs cut into cells: bounds of what each adds to current and bias."""
    shift, own = drive.number_format.bias_shift, drive.bias
    low, high = _ends(drive.constant)
    for exponent, taps in drive.host:
        ends = rounding_shift_right(np.array(_ends(taps), np.int64), -exponent)
        low, high = low + int(ends[0]), high + int(ends[1])
    count = min(cells, high - low + 1)
    begins = low + np.arange(count) * (high - low + 1) // count
    ends = np.append(begins[1:] - 1, high)
    zero = np.zeros(count, np.int64)
    if drive.host:
        return (zero, zero), ((begins + own) << shift, (ends + own) << shift)
    fixed = zero + (own << shift)
    return (begins, ends), (fixed, fixed)


def _settled(drive: Drive, low: Integers, high: Integers) -> Bounds:
    """After comparison and reset, of intervals before it."""
    return after_reset(drive.population, low, high, drive.number_format)


# Lists of intervals: no memory, no constant input.


def _by_intervals(drive: Drive, steps: int | None) -> tuple[int, int] | None:
    bias = drive.bias << drive.number_format.bias_shift
    zero = np.zeros(1, np.int64)
    states: Bounds = (zero, zero)
    least = most = 0
    sums, last = (zero, zero), _last_change(drive)
    changes = set(drive.timed.delay.tolist())
    for step in range(steps or _MOST_STEPS):
        if step in changes:
            sums = _sums(drive.timed.where(drive.timed.delay <= step))
        kept = drive.decay(states[0]), drive.decay(states[1])
        low = (kept[0][:, None] + sums[0] + bias).reshape(-1)
        high = (kept[1][:, None] + sums[1] + bias).reshape(-1)
        reached = _merged(low, high)
        least, most = min(least, int(reached[0][0])), max(most, int(reached[1][-1]))
        after = _split(drive, *reached)
        joined = _merged(
            np.concatenate([states[0], after[0]]), np.concatenate([states[1], after[1]])
        )
        same = all(np.array_equal(a, b) for a, b in zip(joined, states, strict=True))
        states = joined
        if same and step >= last:
            return least, most
    return (least, most) if steps is not None else None


def _sums(taps: Taps) -> Bounds:
    """Every sum over some entries, as intervals."""
    low = high = np.array([int((taps.weight * taps.low).sum())], np.int64)
    span = taps.high - taps.low
    for weight, levels in zip(taps.weight, span, strict=True):
        if weight == 0 or levels == 0:
            continue
        if levels <= 3:
            added = weight * np.arange(levels + 1)
            low = (low[:, None] + added).reshape(-1)
            high = (high[:, None] + added).reshape(-1)
        else:
            low, high = low + min(0, weight * levels), high + max(0, weight * levels)
        low, high = _merged(low, high)
    return low, high


def _merged(low: Integers, high: Integers) -> Bounds:
    """Intervals in order and apart; the nearest are joined where there are too many."""
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    gaps = low[1:] - high[:-1]
    apart = gaps > 1
    if int(apart.sum()) >= _INTERVALS:
        widest = np.argpartition(gaps, -(_INTERVALS - 1))[-(_INTERVALS - 1) :]
        chosen = np.zeros(len(gaps), bool)
        chosen[widest] = True
        apart &= chosen
    return low[np.append(True, apart)], high[np.append(apart, True)]


def _split(drive: Drive, low: Integers, high: Integers) -> Bounds:
    """Intervals after the reset: what is silent and what fired are kept apart."""
    neurons = drive.population.neurons
    if not isinstance(neurons, LIF):
        return low, high
    silent = int(silent_limit(drive.population, drive.number_format)[0])
    rests, fires = low <= silent, high > silent
    fired_low, fired_high = np.maximum(low[fires], silent + 1), high[fires]
    fallen = _settled(drive, fired_low, fired_high)
    if isinstance(neurons.reset, ResetSubtract):
        # where all of an interval fires equally often, it is moved as it is
        moved = drive.settle(fired_low), drive.settle(fired_high)
        alike = fired_low - moved[0] == fired_high - moved[1]
        fallen = np.where(alike, moved[0], fallen[0]), np.where(alike, moved[1], fallen[1])
    return (
        np.concatenate([low[rests], fallen[0]]),
        np.concatenate([np.minimum(high[rests], silent), fallen[1]]),
    )


# By the value of the constant input: no memory.


def _by_constant(drive: Drive, steps: int | None) -> tuple[int, int] | None:
    """One interval of membranes per cell of the constant input."""
    (add_low, add_high), (bias_low, bias_high) = _driven(drive, _CONSTANTS)
    last = _last_change(drive)
    low = high = np.zeros(len(bias_low), np.int64)
    least = most = 0
    for step in range(steps or _MOST_STEPS):
        arriving = _arriving(drive, step)
        reached_low = drive.decay(low) + add_low + bias_low + arriving[0]
        reached_high = drive.decay(high) + add_high + bias_high + arriving[1]
        least, most = min(least, int(reached_low.min())), max(most, int(reached_high.max()))
        after = _settled(drive, reached_low, reached_high)
        if steps is None:
            after = np.minimum(low, after[0]), np.maximum(high, after[1])
        same = np.array_equal(low, after[0]) and np.array_equal(high, after[1])
        low, high = after
        if same and step >= last:
            return least, most
    return (least, most) if steps is not None else None


# By the current: it has a memory.


def _by_current(
    drive: Drive, steps: int | None, current: tuple[int, int]
) -> tuple[int, int] | None:
    """One interval of membranes per cell of the current (and of the constant input).

    The next membrane depends on the membrane and the *next* current alone: for each cell of that
    one, the membranes of all cells that lead there are taken together.
    """
    (add_low, add_high), (bias_low, bias_high) = _driven(drive, _BOTH)
    width = max(1, -(-(current[1] - current[0] + 1) // (_CURRENTS // len(add_low))))
    begins = np.arange(current[0], current[1] + 1, width)
    ends = np.minimum(begins + width - 1, current[1])
    found: tuple[int, int] = (0, 0)
    for cell in range(len(add_low)):
        edges = _one_constant(
            drive,
            steps,
            (begins, ends),
            (int(add_low[cell]), int(add_high[cell])),
            (int(bias_low[cell]), int(bias_high[cell])),
        )
        if edges is None:
            return None
        found = min(found[0], edges[0]), max(found[1], edges[1])
    return found


def _one_constant(
    drive: Drive,
    steps: int | None,
    cells: Bounds,
    added: tuple[int, int],
    bias: tuple[int, int],
) -> tuple[int, int] | None:
    begins, ends = cells
    nowhere = 1 << 60
    start = int(np.searchsorted(ends, 0))
    low, high = np.full(len(begins), nowhere), np.full(len(begins), -nowhere)
    low[start] = high[start] = 0
    least, most, last = 0, 0, _last_change(drive)
    left_low, left_high = drive.decay_current(begins), drive.decay_current(ends)
    for step in range(steps or _MOST_STEPS):
        arriving = _arriving(drive, step)
        held = np.flatnonzero(low < nowhere)  # cells that a current may be in
        next_low = np.clip(left_low[held] + arriving[0] + added[0], begins[0], ends[-1])
        next_high = np.clip(left_high[held] + arriving[1] + added[1], begins[0], ends[-1])
        first, beyond = np.searchsorted(ends, next_low), np.searchsorted(begins, next_high, "right")
        # cells in order lead to cells in order: those that lead to one cell lie side by side
        cell = np.arange(int(first.min()), int(beyond.max()))
        sources = np.searchsorted(beyond, cell, "right"), np.searchsorted(first, cell, "right")
        whole = sources[0] < sources[1]
        cell, sources = cell[whole], (sources[0][whole], sources[1][whole])
        pairs = np.stack(sources, axis=1).reshape(-1)
        before_low = np.minimum.reduceat(np.append(low[held], nowhere), pairs)[::2]
        before_high = np.maximum.reduceat(np.append(high[held], -nowhere), pairs)[::2]
        from_low = np.maximum(begins[cell], next_low[sources[0]])
        from_high = np.minimum(ends[cell], next_high[sources[1] - 1])
        reached_low = drive.decay(before_low) + from_low + bias[0]
        reached_high = drive.decay(before_high) + from_high + bias[1]
        least, most = min(least, int(reached_low.min())), max(most, int(reached_high.max()))
        after = _settled(drive, reached_low, reached_high)
        earlier = low.copy(), high.copy()
        if steps is not None:
            low[:], high[:] = nowhere, -nowhere
        low[cell], high[cell] = np.minimum(low[cell], after[0]), np.maximum(high[cell], after[1])
        same = np.array_equal(low, earlier[0]) and np.array_equal(high, earlier[1])
        if same and step >= last:
            return least, most
    return (least, most) if steps is not None else None
