"""What verbs share: arguments and output."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from snn_deploy.reporting import plain

if TYPE_CHECKING:
    from snn_deploy.exporters import ReadOptions
    from snn_deploy.graph import Graph

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
input_option = click.option(
    "--input", "recording", required=True, metavar="FILE", help="Recording (.npz)."
)
exported_argument = click.argument("exported", metavar="FOLDER_OR_FILE")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="Threads of the engines event and dense; default: all cores. No result depends on it.",
)
batch_option = click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Samples at a time; default: as many as fit a modest amount of memory.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "event", "dense", "reference"]),
    default="auto",
    show_default=True,
    help="Engines agree on every bit; auto: event, and reference for a network of floats.",
)
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


shape_type = _Shape()


class _Range(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``LOW,HIGH``."""

    name = "range"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[float, float]:
        try:
            low, high = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no range: LOW,HIGH", param, context)
        if not -math.inf < low < high < math.inf:
            self.fail(f"{value!r} is no range: the first must be the smaller", param, context)
        return low, high


_READING = (
    click.option(
        "--input-bits",
        type=click.IntRange(0, 31),
        default=0,
        metavar="N",
        help="A .net file is fed integers of up to N bits per timestep, not spikes.",
    ),
    click.option(
        "--input-shape",
        type=shape_type,
        metavar="C,H,W",
        help="Input of a .net file that begins with a convolution and does not say.",
    ),
    click.option(
        "--input-kind",
        type=click.Choice(["spikes", "constant", "graded"]),
        help="What another's .nir file is fed: spikes (default), or values, one for all "
        "timesteps or one for each.",
    ),
    click.option("--input-range", type=_Range(), metavar="LOW,HIGH", help="Range of those values."),
    click.option(
        "--readout",
        type=click.Choice(["sum", "mean", "last", "max"]),
        help="How outputs that are no spikes are read out over time in another's .nir file; "
        "default: mean.",
    ),
    click.option(
        "--timesteps",
        type=click.IntRange(1),
        metavar="N",
        help="For how long another's .nir network runs; without it, membranes that do not leak "
        "have no bound, and cannot be quantized.",
    ),
    click.option(
        "--dt", type=float, metavar="SECONDS", help="Length of a timestep of another's .nir file."
    ),
    click.option(
        "--reset",
        type=click.Choice(["zero", "subtract"]),
        help="What a spike does to the membrane, where another's .nir file leaves it open.",
    ),
)
_WIDEST = 1000
_SAID = ("input_bits", "input_shape", "input_kind", "input_range", "readout", "timesteps", "dt",
         "reset")  # fmt: skip


def reading_options(command: Any, flag: str = "--dialect") -> Any:
    """Options for what a file leaves unsaid; the command gets them as ``reading``.

    ``flag`` asks for the dialect that the file is written in.
    """

    @wraps(command)
    def gathered(read_as: str | None, **given: Any) -> Any:
        from snn_deploy.exporters import ReadOptions

        said = {name: given.pop(name) for name in _SAID}
        return command(reading=ReadOptions(dialect=read_as, **said), **given)

    dialect = click.option(
        flag,
        "read_as",
        metavar="NAME",
        help="Who wrote another's .nir file, and so how its neurons are stepped: euler, snntorch, "
        "norse, spikingjelly, sinabs, sinabs-norm or rockpool.",
    )
    for option in reversed((*_READING, dialect)):
        gathered = option(gathered)
    return gathered


def open_with_notes(exported: str, reading: ReadOptions) -> Graph:
    """The graph of a folder or file; what acts otherwise than the file reads is said on stderr."""
    from snn_deploy.artefacts import open_artefact

    artefact = open_artefact(exported, reading)
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
    from rich.measure import Measurement
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    width = console.width
    with _reader_may_leave():
        for item in items:
            console.width = width
            if isinstance(item, Table) and all(column.no_wrap for column in item.columns):
                # figures may not be cut off
                wide = console.options.update(width=_WIDEST)
                console.width = max(width, Measurement.get(console, wide, item).maximum)
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
