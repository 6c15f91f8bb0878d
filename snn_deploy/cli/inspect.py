"""``snn-deploy inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snn_deploy.cli.common import (
    exported_argument,
    json_option,
    print_json,
    reading_options,
    show,
)

if TYPE_CHECKING:
    from snn_deploy.exporters import ReadOptions


@click.command()
@exported_argument
@click.option("--target", "to", help="Chip whose design rules are checked; default: its own.")
@reading_options
@json_option
def command(
    exported: str,
    to: str | None,
    reading: ReadOptions,
    as_json: bool,
) -> None:
    """Show what is in an exported folder, a .nir or a .net file: neurons, synapses, oddities.

    Rules that begin with DR are what the chip would not take although its simulator does.

    Example: snn-deploy inspect their.net
    """
    from snn_deploy.inspection import inspect

    result = inspect(exported, to=to, reading=reading)
    if as_json:
        print_json(result)
        return
    from snn_deploy.reporting.tables import inspection_lines, inspection_tables

    show(*inspection_tables(result), *inspection_lines(result))
