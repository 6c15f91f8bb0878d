"""Search for the inputs of one neuron that drive its current and membrane furthest.

The search walks forward through states that can be had: sets of (current, membrane) pairs, each
remembering the sums of inputs that lead there. While they are few it keeps them all and its result
is exact; of too many it keeps those at the ends of bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.quantization.drive import Choices, Drive, Taps, choices, thinned
from snn_deploy.quantization.ranges import ENDLESS

Integers = NDArray[np.int64]
Side = Literal["membrane+", "membrane-", "current+", "current-"]
SIDES: tuple[Side, ...] = ("membrane+", "membrane-", "current+", "current-")

# Per timestep a list of sums, its entries, and the place in it.
Way = tuple[tuple[Choices, Taps, int], ...]

# Sums that are listed; and the search looks at all of them, and keeps all states, while there are
# no more than so many successors.
_SUMS, _SUCCESSORS = 4096, 1 << 17
# Bins of membranes per bin of currents, where a current has a memory.
_ACROSS = 8
# Runs of more timesteps are searched more coarsely, and of no more are improved step by step.
_LONG, _SHORT = 64, 12


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A value, and how it was reached: per timestep a list of sums and the place in it.

    ``complete``: the search has left nothing out.
    """

    value: int
    complete: bool
    path: Way
    constant: int
    constants: list[Choices]


@dataclass(slots=True, eq=False)
class _States:
    """States that can be had at one time: the constant input's choice, current and membrane."""

    constant: Integers
    current: Integers
    membrane: Integers


def furthest(drive: Drive, steps: int) -> dict[Side, Found]:
    """The most extreme currents and membranes that the search finds within ``steps``."""
    free, remembers = len(drive.timed.weight) > 0, drive.remembers
    added, bias, constants = drive.constants(2048 if not free else 16)
    long = steps > _LONG
    many = 64 if remembers or len(added) > 1 or long else 256
    delays = np.unique(drive.timed.delay)
    sums: dict[int, tuple[Choices, Taps]] = {}
    states = _States(np.arange(len(added)), *np.zeros((2, len(added)), np.int64))
    best: dict[Side, tuple[int, int, int]] = dict.fromkeys(SIDES, (0, -1, 0))  # it begins at 0
    history: list[tuple[Integers, Integers, Integers, int]] = []
    complete = len(drive.host) <= 1 and all(found.complete for found in constants)
    for step in range(steps):
        arrived = int((delays <= step).sum())
        if arrived not in sums:
            taps = drive.timed.where(drive.timed.delay <= step)
            sums[arrived] = choices(taps, _SUMS), taps
        every = sums[arrived][0]
        looked_at = thinned(every.sums, max(many, _SUCCESSORS // len(states.membrane)))
        some = every.sums[looked_at]
        complete &= every.complete and len(some) == len(every.sums)
        base = drive.decay_current(states.current) + added[states.constant]
        current = base[:, None] + some
        membrane = (drive.decay(states.membrane) + bias[states.constant])[:, None] + current
        for side, values in (("current", current), ("membrane", membrane)):
            for sign, place in (("+", values.argmax()), ("-", values.argmin())):
                name: Side = f"{side}{sign}"  # type: ignore[assignment]
                value = int(values.reshape(-1)[place])
                if value > best[name][0] if sign == "+" else value < best[name][0]:
                    best[name] = value, step, int(place)
        after = drive.settle(membrane.reshape(-1))
        owner = np.repeat(states.constant, len(some))
        memory = current.reshape(-1) if remembers else np.zeros_like(after)
        most = _SUCCESSORS // len(every.sums)
        kept, all_kept = _spread(owner, memory, after, remembers=remembers, many=many, most=most)
        if step < steps - 1:
            complete &= all_kept
        states = _States(owner[kept], memory[kept], after[kept])
        history.append((kept // len(some), kept % len(some), looked_at, arrived))
        if max(int(np.abs(membrane).max()), int(np.abs(current).max())) > ENDLESS:
            complete = False
            break

    def path(step: int, place: int) -> tuple[int, Way]:
        """Where a state of a step came from: the constant's choice, and the sums on the way."""
        if step < 0:
            return 0, ()
        width = len(history[step][2])
        state, way = place // width, [place % width]
        for parents, places, _, _ in reversed(history[:step]):
            way.append(int(places[state]))
            state = int(parents[state])
        passed = zip(history, reversed(way), strict=False)  # the history may go on
        steps = ((*sums[entry[3]], int(entry[2][place])) for entry, place in passed)
        return state, tuple(steps)

    found: dict[Side, Found] = {}
    for side_name, (value, when, where) in best.items():
        constant, way = path(when, where)
        if remembers and not complete and side_name.startswith("membrane") and len(way) <= _SHORT:
            shift = int(added[constant]), int(bias[constant])
            value, way = _climbed(drive, way, shift, 1 if side_name.endswith("+") else -1)
        found[side_name] = Found(value, complete, way, constant, constants)
    return found


def _climbed(drive: Drive, way: Way, constant: tuple[int, int], sign: int) -> tuple[int, Way]:
    """The way, changed in two timesteps at once for as long as the last membrane goes further.

    ``constant``: what the constant inputs add to current and membrane.
    """
    lists = [sums.sums for sums, _, _ in way]

    def last(places: Integers) -> Integers:
        """The last membrane of each row of places, times the sign."""
        current = after = membrane = np.zeros(len(places), np.int64)
        for step, sums in enumerate(lists):
            current = drive.decay_current(current) + sums[places[:, step]] + constant[0]
            membrane = drive.decay(after) + current + constant[1]
            after = drive.settle(membrane)
        return sign * membrane

    now = np.array([place for _, _, place in way], np.int64)
    best = int(last(now[None])[0])
    before = best - 1
    while best > before:
        before = best
        for one in range(len(way)):
            for other in range(one + 1, len(way)):
                pairs = np.stack(
                    np.meshgrid(*(_near(now[k], len(lists[k])) for k in (one, other))), axis=-1
                ).reshape(-1, 2)
                rows = np.tile(now, (len(pairs), 1))
                rows[:, [one, other]] = pairs
                reached = last(rows)
                if reached.max() > best:
                    best, now = int(reached.max()), rows[reached.argmax()]
    return sign * best, tuple((s, t, int(k)) for (s, t, _), k in zip(way, now, strict=True))


def _near(place: int, count: int) -> Integers:
    """Places to try beside one: a few of all, and closer ones at doubling distances."""
    steps = 1 << np.arange(count.bit_length())
    spread = np.linspace(0, count - 1, min(count, 32)).astype(np.int64)
    near = np.concatenate([[place], place - steps, place + steps, spread])
    return np.unique(np.clip(near, 0, count - 1))


def _spread(
    owner: Integers, memory: Integers, membrane: Integers, *, remembers: bool, many: int, most: int
) -> tuple[Integers, bool]:
    """Places of the different states, and whether these are all.

    Of more than ``most``, per constant choice, those at the ends of bins of their values.
    """
    order = np.lexsort((membrane, memory, owner))
    ordered = np.stack([owner, memory, membrane])[:, order]
    different = order[np.append(True, (np.diff(ordered, axis=1) != 0).any(axis=0))]
    if len(different) <= most:
        return different, True
    owner, memory, membrane = (part[different] for part in (owner, memory, membrane))
    constants = int(owner.max()) + 1
    lanes = max(1, many // constants)
    key, orders = owner * lanes + _bins(membrane, lanes), [membrane]
    if remembers:  # few bins of membranes in many of currents
        key = (owner * lanes + _bins(memory, lanes)) * _ACROSS + _bins(membrane, _ACROSS)
        orders = [membrane, memory]
    kept = []
    for values in orders:
        order = np.lexsort((values, key))
        change = np.flatnonzero(np.diff(key[order]))
        kept.append(order[np.concatenate([[0], change, change + 1, [len(order) - 1]])])
    return different[np.unique(np.concatenate(kept))], False


def _bins(values: Integers, count: int) -> Integers:
    """Which of ``count`` equal bins over their range values lie in."""
    low, high = int(values.min()), int(values.max())
    return np.asarray((values - low) * count // (high - low + 1))
