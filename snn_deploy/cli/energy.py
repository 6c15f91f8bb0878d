"""``snn-deploy energy``."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from snn_deploy.errors import Exit, SnnDeployError

if TYPE_CHECKING:
    from snn_deploy.counting import Convention
    from snn_deploy.energy_model import EnergyReport
    from snn_deploy.exporters import ReadOptions
    from snn_deploy.graph import Graph
    from snn_deploy.hardware import Target
    from snn_deploy.mapping import Placement

_PICOJOULES = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "mJ": 1e9, "J": 1e12}


class _Energy(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``2.5uJ``, in pJ."""

    name = "energy"

    def convert(self, value: Any, param: Any, context: Any) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9.eE+-]+) *(pJ|nJ|uJ|mJ|J)", value, re.ASCII)
        try:
            energy = float(found[1]) * _PICOJOULES[found[2]] if found else math.nan
        except ValueError:
            energy = math.nan
        if not 0 < energy < math.inf:
            self.fail(f"{value!r} is no energy: a number above 0 and pJ, nJ, uJ, mJ or J", param)
        return energy


@click.command()
@exported_argument
@input_option
@click.option(
    "--profile",
    "names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="Chip: see `snn-deploy targets`; several are set side by side, `all` is every one.",
)
@click.option("--host-profile", help="Who prices the first layer's MACs where the chip does not.")
@click.option("--proxy", help="Chip whose figures stand in for one that publishes none.")
@click.option(
    "--convention",
    "named",
    default="asgl",
    show_default=True,
    metavar="NAME",
    help="How operations are counted: asgl, dspike, neurobench, syops, lemaire2022 or sana-fe.",
)
@click.option(
    "--first-layer",
    type=click.Choice(["once", "per-timestep"]),
    help="How often the MACs of a constant input are counted; default: as the convention does.",
)
@click.option(
    "--place",
    "placed",
    is_flag=True,
    help="Place the network on the chip's cores, and count messages between them.",
)
@click.option(
    "--seconds-per-step",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Time of a timestep, for static energy; default: the profile's, if it has one.",
)
@click.option("--explain", is_flag=True, help="Show every product: count, figure and its source.")
@click.option(
    "--max-energy",
    type=_Energy(),
    metavar="ENERGY",
    help="Gate: most that chip and host may take per inference, as 2.5uJ.",
)
@steps_option
@reading_options
@json_option
def command(
    exported: str,
    recording: str,
    names: tuple[str, ...],
    host_profile: str | None,
    proxy: str | None,
    named: str,
    first_layer: str | None,
    placed: bool,
    seconds_per_step: float | None,
    explain: bool,
    max_energy: float | None,
    steps: int | None,
    reading: ReadOptions,
    as_json: bool,
) -> int:
    """Count every accumulate and multiply-accumulate of a replay, and price them on a chip.

    Exits with 1 if a gate fails.

    Example: snn-deploy energy build/ --input digits-test.npz --profile loihi1-davies2018
    """
    from snn_deploy.energy_model import energy, gate_failure, prices
    from snn_deploy.packet_files import open_recording
    from snn_deploy.sim import Simulator

    chips, convention = _chips(names), _convention(named, first_layer)
    for chip in chips:  # a wrong name should fail before any work
        prices(chip, proxy, host_profile)
    graph = open_with_notes(exported, reading)
    simulator = Simulator(graph)
    with open_recording(recording) as data, progress() as bar, compilation_told():
        record = simulator.run(data, steps=steps, progress=bar.simulation()).record
    reports = []
    for chip in chips:
        placement, unplaced = _placement(graph, chip, len(chips) == 1) if placed else (None, None)
        report = energy(
            graph,
            record,
            chip,
            convention=convention,
            host_profile=host_profile,
            proxy=proxy,
            placement=placement,
            seconds_per_step=seconds_per_step,
        )
        reports.append(replace(report, unplaced=unplaced))
    if as_json:
        print_json(reports if len(reports) > 1 else reports[0])
    else:
        _show(reports, explain)
    failure = None if max_energy is None else gate_failure(reports, max_energy)
    if failure is not None:
        print(SnnDeployError("SD302", failure, where=exported), file=sys.stderr)
        return Exit.GATE
    return Exit.OK


def _chips(names: tuple[str, ...]) -> tuple[Target, ...]:
    """The profiles asked for, each once."""
    from snn_deploy.hardware import available, target

    chips: dict[str, Target] = {}
    for name in names:
        for chip in available() if name == "all" else (target(name),):
            chips[chip.id] = chip
    return tuple(chips.values())


def _convention(name: str, first_layer: str | None) -> Convention:
    from snn_deploy.counting import conventions

    known = conventions()
    if name not in known:
        raise SnnDeployError(
            "SD105", f"unknown convention {name!r}", fix=f"choose one of: {', '.join(known)}"
        )
    convention = known[name]()
    if first_layer is None:
        return convention
    return replace(convention, first_layer="once" if first_layer == "once" else "per_timestep")


def _placement(graph: Graph, chip: Target, alone: bool) -> tuple[Placement | None, str | None]:
    """Where the network is on a chip; of several chips, why one does not hold it."""
    from snn_deploy.mapping import place

    try:
        return place(graph, chip), None
    except SnnDeployError as error:
        if alone or error.exit != Exit.UNSUPPORTED:
            raise
        return None, error.message


def _show(reports: list[EnergyReport], explain: bool) -> None:
    from snn_deploy.reporting import energy_tables as tables

    if len(reports) > 1:
        show(tables.chips_table(reports), *tables.chips_lines(reports))
    else:
        show(tables.energy_table(reports[0]), *tables.energy_lines(reports[0]))
    if explain:
        for report in reports:
            show(tables.products_table(report), *tables.products_lines(report))
