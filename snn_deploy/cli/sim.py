"""``snn-deploy sim``."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np

from snn_deploy.cli.common import (
    exported_argument,
    input_option,
    json_option,
    open_with_notes,
    print_json,
    progress,
    reading_options,
    show,
    steps_option,
)

if TYPE_CHECKING:
    from snn_deploy.counting import ProjectionCount
    from snn_deploy.exporters import ReadOptions
    from snn_deploy.graph import Graph
    from snn_deploy.sim import Record


@click.command()
@exported_argument
@input_option
@click.option(
    "--engine",
    type=click.Choice(["event", "dense", "reference"]),
    help="Engines agree on every bit; default: event, and reference for a network of floats.",
)
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
@json_option
def command(
    exported: str,
    recording: str,
    engine: Literal["event", "dense", "reference"] | None,
    timing: str,
    steps: int | None,
    reset_interval: int | None,
    reset_offset: int | None,
    reading: ReadOptions,
    trace: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Replay a recording through an exported network, bit by bit as the chip computes it.

    Example: snn-deploy sim build/ --input digits-test.npz
    """
    from snn_deploy.counting import activity, asgl, count
    from snn_deploy.packets import read_recording, require_writable, write_atomically, write_npz
    from snn_deploy.sim import simulate

    for path in (trace, output):
        if path is not None:
            require_writable(path)
    graph = open_with_notes(exported, reading)
    if engine is None:
        engine = "reference" if graph.number_format is None else "event"
    data = read_recording(recording)
    with progress() as bar:
        result = simulate(
            graph,
            data,
            engine=engine,
            timing="pipelined" if timing == "pipelined" else "zero_delay",
            steps=steps,
            reset_interval=reset_interval,
            reset_offset=reset_offset,
            trace=trace is not None,
            progress=bar.of("simulate"),
        )
    decisions = result.decisions()
    accuracy = None if data.labels is None else 100 * float((decisions == data.labels).mean())
    if trace is not None:
        arrays: dict[str, Any] = {f"{name}.spikes": s for name, s in result.spikes.items()}
        arrays |= {f"{name}.membrane": m for name, m in result.membrane.items()}
        arrays |= {f"{name}.current": c for name, c in result.current.items()}
        arrays["output"] = next(iter(result.output.values()))
        write_npz(trace, arrays)
    if output is not None:
        write_atomically(output, _predictions(decisions, data.labels).encode())
    record = result.record
    populations = activity(graph, record)
    # a convention counts what is sent; pipelined, some of that is still on its way at the end
    whole = timing == "zero-delay"
    projections = count(graph, record, asgl()).projections if whole else _arrived(graph, record)
    if as_json:
        print_json(
            {
                "engine": engine,
                "samples": record.samples,
                "timesteps": record.timesteps,
                "accuracy": accuracy,
                "populations": populations,
                "projections": projections,
                "decisions": decisions,
            }
        )
        return
    from snn_deploy.reporting.tables import activity_table

    lines = [
        f"{sum(p.accumulates for p in projections):,} accumulates and "
        f"{sum(p.multiply_accumulates for p in projections):,} multiply-accumulates "
        f"in {record.samples} samples, engine {engine}"
    ]
    if accuracy is not None:
        lines.append(f"accuracy {accuracy:.2f}%")
    lines += [f"wrote {path}" for path in (trace, output) if path is not None]
    show(activity_table(populations, record.samples, record.timesteps), *lines)


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
