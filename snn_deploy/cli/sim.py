"""``snn-deploy sim``."""

from __future__ import annotations

import csv
import io
from typing import Any, Literal

import click
import numpy as np

from snn_deploy.cli.common import (
    exported_argument,
    input_option,
    json_option,
    print_json,
    progress,
    show,
)


@click.command()
@exported_argument
@input_option
@click.option(
    "--engine",
    type=click.Choice(["event", "reference"]),
    default="event",
    show_default=True,
    help="Engines agree on every bit.",
)
@click.option("--trace", metavar="FILE", help="Write every spike and membrane (.npz).")
@click.option("--output", metavar="FILE", help="Write one prediction per sample (.csv).")
@json_option
def command(
    exported: str,
    recording: str,
    engine: Literal["event", "reference"],
    trace: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Replay a recording through an exported network, bit by bit as the chip computes it.

    Example: snn-deploy sim build/ --input digits-test.npz
    """
    from snn_deploy.artefacts import open_artefact
    from snn_deploy.counting import asgl, count
    from snn_deploy.packets import read_recording, require_writable, write_atomically, write_npz
    from snn_deploy.sim import simulate

    for path in (trace, output):
        if path is not None:
            require_writable(path)
    graph = open_artefact(exported).graph
    data = read_recording(recording)
    with progress() as bar:
        result = simulate(
            graph, data, engine=engine, trace=trace is not None, progress=bar.of("simulate")
        )
    decisions = result.decisions()
    accuracy = None if data.labels is None else 100 * float((decisions == data.labels).mean())
    if trace is not None:
        arrays: dict[str, Any] = {f"{name}.spikes": s for name, s in result.spikes.items()}
        arrays |= {f"{name}.membrane": m for name, m in result.membrane.items()}
        arrays["output"] = next(iter(result.output.values()))
        write_npz(trace, arrays)
    if output is not None:
        write_atomically(output, _predictions(decisions, data.labels).encode())
    counts = count(graph, result.record, asgl())
    if as_json:
        print_json(
            {
                "engine": engine,
                "samples": result.record.samples,
                "timesteps": result.record.timesteps,
                "accuracy": accuracy,
                "populations": counts.populations,
                "projections": counts.projections,
                "decisions": decisions,
            }
        )
        return
    from snn_deploy.reporting.tables import activity_table

    lines = [
        f"{sum(p.accumulates for p in counts.projections):,} accumulates and "
        f"{sum(p.multiply_accumulates for p in counts.projections):,} multiply-accumulates "
        f"in {counts.samples} samples, engine {engine}"
    ]
    if accuracy is not None:
        lines.append(f"accuracy {accuracy:.2f}%")
    lines += [f"wrote {path}" for path in (trace, output) if path is not None]
    show(activity_table(counts.populations, counts.samples, counts.timesteps), *lines)


def _predictions(decisions: np.ndarray, labels: np.ndarray | None) -> str:
    """CSV with a header: sample, decision, and label where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample", "decision"] + (["label"] if labels is not None else []))
    for index, decision in enumerate(decisions.tolist()):
        label = [] if labels is None else [int(labels[index])]
        writer.writerow([index, decision, *label])
    return text.getvalue()
