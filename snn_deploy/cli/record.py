"""``snn-deploy record``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from snn_deploy.cli.common import json_option, print_json, shape_type, show
from snn_deploy.errors import SnnDeployError

if TYPE_CHECKING:
    from snn_deploy.events import Recorded


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--shape",
    type=shape_type,
    required=True,
    metavar="C,H,W",
    help="Shape of the sensor: 2,H,W for a channel OFF and a channel ON, 1,H,W, or N.",
)
@click.option("--step", metavar="TIME", help="Length of a timestep: 10ms, 250us, 1s.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    metavar="N",
    help="Timesteps. Without --step the time of each sample is divided into N; without --steps "
    "there are as many as the longest sample needs.",
)
@click.option(
    "--scale",
    default="1",
    show_default=True,
    metavar="1/K",
    help="K pixels along each axis become one.",
)
@click.option(
    "--polarity",
    type=click.Choice(["both", "on", "off"]),
    default="both",
    show_default=True,
    help="Events that count; on or off alone make one channel.",
)
@click.option(
    "--from-first",
    is_flag=True,
    help="Time begins at the first event of each sample, not at 0.",
)
@click.option(
    "--flat", is_flag=True, help="Number the neurons: for a network whose input is N, not C,H,W."
)
@click.option("-o", "output", required=True, metavar="FILE", help="Recording to write (.npz).")
@json_option
def command(
    files: tuple[str, ...],
    shape: tuple[int, ...],
    step: str | None,
    steps: int | None,
    scale: str,
    polarity: str,
    from_first: bool,
    flat: bool,
    output: str,
    as_json: bool,
) -> None:
    """Bin files of events into a recording for sim, energy and export.

    Reads N-MNIST .bin, lists of events in .npz or HDF5 (x, y, t, p), HDF5 in the layout of SHD,
    Prophesee .raw (EVT 2, EVT 3) and .aedat4. Several events of one pixel in one timestep count
    once.

    Example: snn-deploy record 00001.bin --shape 2,34,34 --step 10ms -o packets.npz
    """
    from snn_deploy.events import record
    from snn_deploy.packets import require_writable

    require_writable(output)
    for path in files:
        if Path(path).exists() and Path(output).exists() and Path(path).samefile(output):
            raise SnnDeployError(
                "SD102", "the output is one of the files to read", where=output, fix="name another"
            )
    result = record(
        files,
        shape=shape,
        step=step,
        steps=steps,
        scale=scale,
        polarity=polarity,
        from_first=from_first,
        flat=flat,
    )
    result.write(output)
    if as_json:
        print_json(result.about)
    else:
        show(*_lines(result), f"wrote {output}")


def _lines(result: Recorded) -> list[str]:
    """What was done, and what became of the events."""
    about, counts = result.about, result.about["counts"]
    forms = ", ".join(sorted({file["format"] for file in about["files"]}))
    shape = "x".join(map(str, result.shape))
    labels = "no labels" if result.labels is None else "with labels"
    lines = [
        f"read {len(about['files'])} files ({forms}), {counts['events']:,} events",
        f"done: {about['done']}",
        f"spikes: {len(result.packed)} samples, {about['timesteps']} timesteps, {shape}, {labels}",
        f"{counts['events']:,} events = {counts['spikes']:,} spikes + {counts['merged']:,} merged "
        f"(same pixel and timestep) + {counts['late']:,} after the last timestep "
        f"+ {counts['other_polarity']:,} of the other polarity",
    ]
    clocks = [f for f in about["files"] if f["clock_at_0_microseconds"]]
    lines += [
        f"time 0 of {file['name']} is {file['clock_at_0_microseconds']} microseconds on its clock"
        for file in clocks
    ]
    return lines
