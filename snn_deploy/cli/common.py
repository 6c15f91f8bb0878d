"""What verbs share: arguments, output, progress."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from snn_deploy.reporting import plain

if TYPE_CHECKING:
    from snn_deploy.graph import Graph

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
input_option = click.option(
    "--input", "recording", required=True, metavar="FILE", help="Recording (.npz)."
)
exported_argument = click.argument("exported", metavar="FOLDER_OR_FILE")
steps_option = click.option(
    "--steps", type=click.IntRange(1), metavar="N", help="Timesteps to run; default: all there are."
)


class _Shape(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``C,H,W`` or ``N``."""

    name = "shape"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[int, ...]:
        try:
            extents = tuple(int(part) for part in value.split(","))
        except ValueError:
            extents = ()
        if len(extents) not in (1, 3) or min(extents) < 1:
            self.fail(f"{value!r} is no shape: C,H,W or N", param, context)
        return extents


def reading_options(command: Any) -> Any:
    """Options for what a file may leave unsaid about its input."""
    bits = click.option(
        "--input-bits",
        type=click.IntRange(0, 31),
        default=0,
        metavar="N",
        help="A .net file is fed integers of up to N bits per timestep, not spikes.",
    )
    shape = click.option(
        "--input-shape",
        type=_Shape(),
        metavar="C,H,W",
        help="Input of a .net file that begins with a convolution and does not say.",
    )
    return bits(shape(command))


def open_with_notes(exported: str, input_bits: int, input_shape: tuple[int, ...] | None) -> Graph:
    """The graph of a folder or file; what acts otherwise than the file reads is said on stderr."""
    from snn_deploy.artefacts import open_artefact

    artefact = open_artefact(exported, input_bits=input_bits, input_shape=input_shape)
    for note in artefact.notes:
        talk(f"note: {note}")
    return artefact.graph


def print_json(value: Any) -> None:
    """A result as JSON on stdout."""
    with _reader_may_leave():
        print(json.dumps(plain(value), indent=2, sort_keys=True, allow_nan=False), flush=True)


def show(*items: Any) -> None:
    """Tables and lines on stdout, as wide as they need to be."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    with _reader_may_leave():
        for item in items:
            console.print(item, markup=not isinstance(item, str))
        sys.stdout.flush()


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Drop what is left to print when the reader of a pipe has gone; the exit code stands."""
    try:
        yield
    except (BrokenPipeError, SystemExit):  # rich turns the one into the other
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def talk(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Progress of long work on stderr: a bar on a terminal, else a line every few seconds."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        """``done`` of ``of`` parts of ``what`` are finished."""
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=of)
            self._bar.update(self._tasks[what], completed=done)
        elif time.monotonic() - self._said >= 5:
            self._said = time.monotonic()
            talk(f"{what}: {done} of {of}")

    def of(self, what: str) -> Any:
        """A callback (done, of) for one kind of work."""
        return lambda done, of: self(what, done, of)


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress for the length of a block."""
    if not sys.stderr.isatty():
        yield Progress(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield Progress(bar)
