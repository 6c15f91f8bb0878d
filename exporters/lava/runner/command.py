"""The runner's command line: one net, one program, or a list of them.

``net FILE.net IN.npz OUT.npz --steps N`` runs a netx file, ``program MODULE.py IN.npz OUT.npz
--steps N`` what a Python module builds; see ``networks.py`` for what goes in and out.

``batch JOBS.json`` runs many, without starting Python and importing Lava for each. The file is a
list of objects with ``net`` or ``program``, ``input``, ``output``, and the options' names without
dashes in front (``reset_interval``). Of each a line of JSON is printed when it is done: ``index``,
``ok``, ``error`` and ``seconds``.

Exit status: 0 if all went well, 1 if a run failed, 2 if the command makes no sense.
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .lava_imports import import_lava
from .networks import run_net, run_program
from .recording import Array
from .supervision import RunError, supervised

DEFAULT_TIMEOUT = 600.0
KINDS: dict[str, Callable[..., dict[str, Array]]] = {"net": run_net, "program": run_program}


def main() -> int:
    """Carry out the command line; returns the exit status."""
    arguments = vars(_parser().parse_args())
    # So that a run is ended, and its scratch files removed, when this process is told to end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    command = arguments.pop("command")
    try:
        import_lava()
    except ImportError as error:
        print(f"error: this Python has no working Lava: {error}", file=sys.stderr)
        return 2
    if command == "batch":
        return run_batch(arguments["jobs"])
    job = {name: value for name, value in arguments.items() if value is not None}
    try:
        run_job({command: job.pop("file"), **job})
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_batch(path: Path) -> int:
    """Run a list of jobs one after the other; returns the exit status."""
    try:
        jobs = json.loads(path.read_text("utf-8"))
        if not (isinstance(jobs, list) and all(isinstance(job, dict) for job in jobs)):
            raise ValueError("not a list of objects")
    except (OSError, ValueError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        return 2
    failures = 0
    for index, job in enumerate(jobs):
        start = time.perf_counter()
        message = None
        try:
            run_job(job)
        except RunError as error:
            message = str(error)
            failures += 1
        seconds = round(time.perf_counter() - start, 3)
        line = {"index": index, "ok": message is None, "error": message, "seconds": seconds}
        print(json.dumps(line), flush=True)
    return 1 if failures else 0


def run_job(job: dict[str, Any]) -> None:
    """Run one net or program in a child process and write what it did.

    Raises
    ------
    RunError
        If that cannot be done, or not in time.
    """
    options = dict(job)
    try:
        kind = next(name for name in KINDS if name in options)
        network, given, output = (Path(options.pop(name)) for name in (kind, "input", "output"))
        timeout = float(options.pop("timeout", DEFAULT_TIMEOUT))
        options["steps"] = int(options["steps"])
        if "input_shape" in options:
            options["input_shape"] = tuple(int(n) for n in options["input_shape"])
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise RunError(f"a job needs net or program, input, output and steps: {error!r}") from None
    if min(options["steps"], options.get("window", 1), options.get("reset_interval", 1)) < 1:
        raise RunError("steps, window and reset interval must be 1 or more")
    run = functools.partial(KINDS[kind], network, **options)
    supervised(functools.partial(_run_and_write, run, given, output), timeout)


def _run_and_write(run: Any, given: Path, output: Path, folder: Path) -> None:
    """What the child process does."""
    with np.load(given, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    recorded = run(given=arrays, folder=folder)
    with output.open("wb") as stream:
        np.savez(stream, **recorded)


def _parser() -> argparse.ArgumentParser:
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    net = commands.add_parser("net", help="run a netx file")
    program = commands.add_parser("program", help="run what a Python module builds")
    for command in (net, program):
        command.add_argument("file", type=Path)
        command.add_argument("input", type=Path, metavar="IN.npz")
        command.add_argument("output", type=Path, metavar="OUT.npz")
        command.add_argument("--steps", type=int, required=True, help="timesteps to run")
        command.add_argument("--reset-interval", type=int, metavar="T")
        command.add_argument("--reset-offset", type=int, metavar="P")
        command.add_argument("--window", type=int, metavar="T", help="timesteps of each bias map")
        command.add_argument("--timeout", type=float, metavar="SECONDS")
    net.add_argument("--input-message-bits", type=int, metavar="B")
    net.add_argument("--input-shape", type=_shape, metavar="W,H,C")
    batch = commands.add_parser("batch", help="run many")
    batch.add_argument("jobs", type=Path, metavar="JOBS.json")
    return parser


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))
