"""Progress of long work, for people, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from snn_deploy.cli.common import talk
from snn_deploy.reporting import quantity

if TYPE_CHECKING:
    from snn_deploy.sim import Advance

SECONDS_BETWEEN_LINES = 5


class Progress:
    """Progress of long work on stderr: a bar on a terminal, else a line every few seconds."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, of: int, text: str | None = None) -> None:
        """``done`` of ``of`` parts of ``what`` are finished; ``text`` says it otherwise."""
        told = f"{done} of {of}" if text is None else text
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=of, told="")
            self._bar.update(self._tasks[what], completed=done, told=told)
        elif done < of and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            talk(f"{what}: {told}")

    def of(self, what: str) -> Any:
        """A callback (done, of) for one kind of work."""
        return lambda done, of: self(what, done, of)

    def simulation(self) -> Callable[[Advance], None]:
        """A callback for a run: samples, how fast they go, and the time that is left."""
        rates = Rates()

        def told(run: Advance) -> None:
            text = rates.text(run, time.monotonic(), left=self._bar is None)
            self("simulate", run.timesteps, run.of_timesteps, text)

        return told


class Rates:
    """How fast a run goes, measured from its first word on.

    Before that tables are made and kernels compiled, which says nothing of what follows.
    """

    def __init__(self) -> None:
        self._first: tuple[float, Advance] | None = None

    def text(self, run: Advance, now: float, *, left: bool) -> str:
        """Samples done, samples/s, events/s, and (``left``) the time that is left."""
        parts = [
            f"{run.samples:,} of {run.of_samples:,} samples",
            f"{100 * run.timesteps // run.of_timesteps}%",
        ]
        if self._first is None:
            self._first = now, run
            return ", ".join(parts)
        since, first = self._first
        seconds = max(now - since, 1e-9)
        speed = (run.timesteps - first.timesteps) / seconds
        parts += [
            f"{quantity(speed * run.of_samples / run.of_timesteps)} samples/s",
            f"{quantity((run.events - first.events) / seconds)} events/s",
        ]
        if left:
            seconds_left = round((run.of_timesteps - run.timesteps) / speed)
            parts.append(f"{timedelta(seconds=seconds_left)} left")
        return ", ".join(parts)


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress for the length of a block."""
    if not sys.stderr.isatty():
        yield Progress(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield Progress(bar)


@contextmanager
def compilation_told() -> Iterator[None]:
    """Say so where kernels are compiled in the block."""
    from snn_deploy.sim.compiling import compilation

    with compilation(
        lambda: talk("compiling kernels, once on this machine ..."),
        lambda seconds: talk(f"kernels compiled in {seconds:.1f} s"),
    ):
        yield
