"""Timing of several ways to do one thing, in interleaved rounds, and the rows made of it.

The machine may be shared: work is timed by the CPU time of its thread where it runs in one thread,
by the wall clock where it does not; all contenders take turns in every round, and a ratio is taken
within a round. Its median is quoted with its smallest and largest value.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

Work = Callable[[], object]
Clock = Callable[[], float]
Key = TypeVar("Key")

# Work shorter than this is repeated until a measurement takes as long.
LEAST_SECONDS = 0.02


class NotThereError(Exception):
    """Software to compare with is not installed; says how to get it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How carefully to measure: ``rounds`` of everything; ``quick`` leaves compilation out."""

    rounds: int = 7
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    work, against : what was run, and what it is compared with.
    ratio, low, high : median over rounds, smallest and largest; None: not measured, ``note`` says
        why.
    goal, stretch : what was aimed at; None where nothing was.
    at_most : whether a ratio is good when small.
    ours_ms, theirs_ms : medians, per sample where there are samples.
    note : what else must be known to read the ratio.
    details : further ratios and figures, by name.
    """

    work: str
    against: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    stretch: float | None = None
    at_most: bool = False
    ours_ms: float | None = None
    theirs_ms: float | None = None
    note: str = ""
    details: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Whether the goal was reached."""
        if self.ratio is None:
            return "not measured"
        if self.goal is None:
            return ""

        def reached(bound: float | None) -> bool:
            assert self.ratio is not None
            if bound is None:
                return False
            return self.ratio <= bound if self.at_most else self.ratio >= bound

        if not reached(self.goal):
            return "missed"
        return "stretch reached" if reached(self.stretch) else "reached"

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"verdict": self.verdict}


def seconds(work: Work, clock: Clock, repeats: int = 1) -> float:
    """Time of one call, averaged over ``repeats``."""
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


def interleaved(
    works: Mapping[Key, Work], rounds: int, clock: Clock = time.thread_time
) -> dict[Key, list[float]]:
    """Seconds of every work in every round; each is called before, untimed."""
    repeats = {}
    for name, work in works.items():
        taken = seconds(work, clock)
        if taken < LEAST_SECONDS:  # now that it is warm
            taken = seconds(work, clock)
        repeats[name] = max(1, int(LEAST_SECONDS / max(taken, 1e-6)))
    times: dict[Key, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work, clock, repeats[name]))
    return times


def fastest(times: Mapping[Key, list[float]]) -> Key:
    """The key with the smallest median."""
    return min(times, key=lambda name: statistics.median(times[name]))


def ratio(over: list[float], under: list[float]) -> dict[str, Any]:
    """Median, smallest and largest ratio within a round, as fields of a :class:`Row`."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def milliseconds(times: list[float], samples: int = 1) -> float:
    """Median in milliseconds per sample."""
    return 1e3 * statistics.median(times) / samples
