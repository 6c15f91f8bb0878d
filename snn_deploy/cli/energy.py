"""``snn-deploy energy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snn_deploy.cli.common import (
    exported_argument,
    input_option,
    json_option,
    open_with_notes,
    print_json,
    reading_options,
    show,
    steps_option,
)
from snn_deploy.cli.progress import compilation_told, progress

if TYPE_CHECKING:
    from snn_deploy.exporters import ReadOptions


@click.command()
@exported_argument
@input_option
@click.option("--profile", required=True, help="Chip: see `snn-deploy targets`.")
@click.option("--host-profile", help="Who prices the first layer's MACs where the chip does not.")
@click.option("--proxy", help="Chip whose figures stand in for one that publishes none.")
@click.option(
    "--first-layer",
    type=click.Choice(["once", "per-timestep"]),
    default="once",
    show_default=True,
    help="How often the MACs of a constant input are counted.",
)
@steps_option
@reading_options
@json_option
def command(
    exported: str,
    recording: str,
    profile: str,
    host_profile: str | None,
    proxy: str | None,
    first_layer: str,
    steps: int | None,
    reading: ReadOptions,
    as_json: bool,
) -> None:
    """Count every accumulate and multiply-accumulate of a replay, and price them on a chip.

    Example: snn-deploy energy build/ --input digits-test.npz --profile loihi1-davies2018
    """
    from snn_deploy.counting import asgl
    from snn_deploy.energy_model import energy
    from snn_deploy.hardware import target
    from snn_deploy.packet_files import open_recording
    from snn_deploy.sim import Simulator

    for name in (profile, host_profile, proxy):
        if name is not None:
            target(name)  # an unknown name should fail before any work
    graph = open_with_notes(exported, reading)
    simulator = Simulator(graph)
    with open_recording(recording) as data, progress() as bar, compilation_told():
        record = simulator.run(data, steps=steps, progress=bar.simulation()).record
    report = energy(
        graph,
        record,
        profile,
        convention=asgl("once" if first_layer == "once" else "per_timestep"),
        host_profile=host_profile,
        proxy=proxy,
    )
    if as_json:
        print_json(report)
        return
    from snn_deploy.reporting.tables import energy_lines, energy_table

    show(energy_table(report), *energy_lines(report))
