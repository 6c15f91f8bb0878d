"""``snn-deploy sim``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from snn_deploy.cli.common import (
    batch_option,
    engine_option,
    exported_argument,
    input_option,
    json_option,
    open_with_notes,
    print_json,
    reading_options,
    show,
    steps_option,
    talk,
    threads_option,
)
from snn_deploy.cli.progress import compilation_told, progress
from snn_deploy.errors import Exit, SnnDeployError

if TYPE_CHECKING:
    from snn_deploy.counting import ProjectionCount
    from snn_deploy.exporters import ReadOptions
    from snn_deploy.graph import Graph
    from snn_deploy.packet_files import StoredRecording
    from snn_deploy.sim import EngineChoice, Record, RunOptions, Simulator, Trace
    from snn_deploy.sim.resuming import ResumableRun


@click.command()
@exported_argument
@input_option
@engine_option
@threads_option
@batch_option
@click.option(
    "--timing",
    type=click.Choice(["zero-delay", "pipelined"]),
    default="zero-delay",
    show_default=True,
    help="pipelined: every hop takes a timestep, as on Loihi; raw timesteps.",
)
@steps_option
@click.option(
    "--reset-interval", type=click.IntRange(1), metavar="T", help="Clear all neurons every T steps."
)
@click.option(
    "--reset-offset",
    type=click.IntRange(0),
    metavar="P",
    help="Timestep of the first clearing of the first population, from 0; default: as its input "
    "arrives (Lava: 1 if spikes drive it, 0 if biases do).",
)
@reading_options
@click.option("--trace", metavar="FILE", help="Write every spike, current and membrane (.npz).")
@click.option("--output", metavar="FILE", help="Write one prediction per sample (.csv).")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with an interrupted run: what was finished is kept in OUTPUT.partial.",
)
@json_option
def command(
    exported: str,
    recording: str,
    engine: EngineChoice,
    threads: int | None,
    batch: int | None,
    timing: str,
    steps: int | None,
    reset_interval: int | None,
    reset_offset: int | None,
    reading: ReadOptions,
    trace: str | None,
    output: str | None,
    resume: bool,
    as_json: bool,
) -> int:
    """Replay a recording through an exported network, bit by bit as the chip computes it.

    Example: snn-deploy sim build/ --input digits-test.npz
    """
    from snn_deploy.packet_files import open_recording
    from snn_deploy.packets import require_writable, write_atomically, write_npz
    from snn_deploy.sim import Simulator
    from snn_deploy.sim.resuming import Interrupted

    resumable = output is not None and trace is None
    if resume and not resumable:
        raise SnnDeployError(
            "SD104",
            "only a run with --output and without --trace can be resumed",
            fix="name the file of the interrupted run: --output FILE",
        )
    for path in (trace, output):
        if path is not None:
            require_writable(path)
    graph = open_with_notes(exported, reading)
    options: RunOptions = {
        "timing": "pipelined" if timing == "pipelined" else "zero_delay",
        "steps": steps,
        "reset_interval": reset_interval,
        "reset_offset": reset_offset,
        "batch": batch,
        "trace": trace is not None,
    }
    with ExitStack() as stack:
        data = stack.enter_context(open_recording(recording))
        simulator = Simulator(graph, engine, threads)
        bar = stack.enter_context(progress())
        options["progress"] = bar.simulation()
        if output is None or not resumable:
            result = _watched(lambda: simulator.run(data, **options))
        else:
            run = stack.enter_context(_resumable(simulator, data, output, resume, options))
            try:
                result = _watched(run.run)
            except Interrupted as stopped:
                talk(f"{stopped}; --resume goes on from there" if stopped.done else f"{stopped}")
                return Exit.INTERRUPTED
        decisions, labels = result.decisions(), data.labels
        if output is not None:
            write_atomically(output, _predictions(decisions, labels).encode())
        if resumable:
            run.finish()
    if trace is not None:
        write_npz(trace, _traced(result))
    from snn_deploy.counting import activity, asgl, count

    record = result.record
    accuracy = None if labels is None else 100 * float((decisions == labels).mean())
    populations = activity(graph, record)
    # a convention counts what is sent; pipelined, some of that is still on its way at the end
    whole = timing == "zero-delay"
    projections = count(graph, record, asgl()).projections if whole else _arrived(graph, record)
    if as_json:
        print_json(
            {
                "engine": simulator.engine,
                "engine_reason": simulator.engine_reason,
                "samples": record.samples,
                "timesteps": record.timesteps,
                "accuracy": accuracy,
                "populations": populations,
                "projections": projections,
                "decisions": decisions,
            }
        )
        return Exit.OK
    from snn_deploy.reporting.tables import activity_table

    lines = [
        f"{sum(p.accumulates for p in projections):,} accumulates and "
        f"{sum(p.multiply_accumulates for p in projections):,} multiply-accumulates "
        f"in {record.samples} samples",
        f"engine {simulator.engine} ({simulator.engine_reason})",
    ]
    if accuracy is not None:
        lines.append(f"accuracy {accuracy:.2f}%")
    lines += [f"wrote {path}" for path in (trace, output) if path is not None]
    show(activity_table(populations, record.samples, record.timesteps), *lines)
    return Exit.OK


def _watched(run: Callable[[], Trace]) -> Trace:
    with compilation_told():
        return run()


def _resumable(
    simulator: Simulator, data: StoredRecording, output: str, resume: bool, options: RunOptions
) -> ResumableRun:
    """The run whose journal is beside the output, and a word on where it begins."""
    from snn_deploy.sim.resuming import ResumableRun

    run = ResumableRun(simulator, data, Path(f"{output}.partial"), resume=resume, **options)
    if run.done:
        talk(f"resumed after {run.done} of {run.samples} samples")
    elif resume:
        talk("there is nothing to resume: begun at the first sample")
    return run


def _traced(result: Trace) -> dict[str, Any]:
    """The arrays of a trace by the names they have in a file."""
    arrays: dict[str, Any] = {f"{name}.spikes": s for name, s in result.spikes.items()}
    arrays |= {f"{name}.membrane": m for name, m in result.membrane.items()}
    arrays |= {f"{name}.current": c for name, c in result.current.items()}
    return {**arrays, "output": next(iter(result.output.values()))}


def _arrived(graph: Graph, record: Record) -> tuple[ProjectionCount, ...]:
    """What reached a target within the run; values that are 0 are not counted."""
    from snn_deploy.counting import ProjectionCount

    found = []
    for projection in graph.projections:
        events = int(record.events[projection.name].sum())
        values = graph.carries_values(projection)
        found.append(
            ProjectionCount(
                name=projection.name,
                source=projection.source,
                target=projection.target,
                accumulates=0 if values else events,
                multiply_accumulates=events if values else 0,
                twin=0,
            )
        )
    return tuple(found)


def _predictions(decisions: np.ndarray, labels: np.ndarray | None) -> str:
    """CSV with a header: sample, decision, and label where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample", "decision"] + (["label"] if labels is not None else []))
    for index, decision in enumerate(decisions.tolist()):
        label = [] if labels is None else [int(labels[index])]
        writer.writerow([index, decision, *label])
    return text.getvalue()
