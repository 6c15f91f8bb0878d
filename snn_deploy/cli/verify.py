"""``snn-deploy verify``."""

from __future__ import annotations

import sys

import click

from snn_deploy.cli.common import exported_argument, json_option, print_json, show
from snn_deploy.cli.progress import progress
from snn_deploy.errors import Exit, SnnDeployError


@click.command()
@exported_argument
@click.option("--model", metavar="MODEL.pt", help="Checkpoint it was exported from.")
@click.option("--input", "recording", metavar="FILE", help="Labelled recording (.npz).")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(-100, 100),
    metavar="POINTS",
    help="Gate, in percentage points.",
)
@click.option(
    "--with", "against", type=click.Choice(["lava"]), help="Run the exported file in Lava, too."
)
@click.option("--lava-python", metavar="PATH", help="Python that has Lava; default: this one.")
@json_option
def command(
    exported: str,
    model: str | None,
    recording: str | None,
    max_accuracy_drop: float | None,
    against: str | None,
    lava_python: str | None,
    as_json: bool,
) -> int:
    """Check an exported folder: hashes, tensors, recorded spikes; with --model also its parity.

    Exits with 1 if a gate fails, with 4 if things that must be equal are not.

    Example: snn-deploy verify build/ --model model.pt --input digits-test.npz
    --max-accuracy-drop 0.5
    """
    from snn_deploy.parity import verify

    with progress() as bar:
        result = verify(
            exported,
            model=model,
            recording=recording,
            max_accuracy_drop=max_accuracy_drop,
            against=against,
            lava_python=lava_python,
            progress=bar,
        )
    if as_json:
        print_json(result)
    else:
        lines = [
            f"replay    {result.replay.samples} recorded samples, {result.replay.spikes:,} spikes: "
            f"0 differ in {' and '.join(result.replay.engines)}"
        ]
        if result.replay.latency is not None:
            lines.append(
                f"pipeline  output comes {result.replay.latency} timesteps later with a delay per "
                "hop; every window of a stream is the same, 0 values differ"
            )
        if result.lava is not None:
            lava = result.lava
            lines.append(
                f"lava      {lava.samples} samples, {lava.timesteps} timesteps: 0 of "
                f"{lava.values:,} spikes, currents and membranes differ in {lava.file} "
                f"(lava-nc {lava.versions['lava-nc']}, lava-dl {lava.versions['lava-dl']})"
            )
        parity = result.parity
        if parity is not None:
            lines.append(
                f"freeze    {parity.freeze_violations} flips outside ties in "
                f"{parity.freeze_slots:,} neuron-timesteps ({parity.freeze_ties} ties, "
                f"{parity.freeze_flips} flips in all)"
            )
            lines.append(
                f"engines   {parity.engine_differences} spikes, membranes and counts differ "
                f"between reference and event over {parity.samples} samples"
            )
            changed = len(parity.decisions_changed)
            if parity.drop is None:
                lines.append(f"parity    {changed} of {parity.samples} decisions changed")
            else:
                lines.append(
                    f"parity    trained {parity.trained_accuracy:.2f}%, exported "
                    f"{parity.exported_accuracy:.2f}%, drop {parity.drop:.2f} points; "
                    f"{changed} of {parity.samples} decisions changed"
                )
        lines.append("FAILED" if result.failed_gate else "PASSED")
        show(*lines)
    if result.failed_gate:
        gate = SnnDeployError("SD301", result.failed_gate, where=exported)
        print(gate, file=sys.stderr)
        return Exit.GATE
    return Exit.OK
