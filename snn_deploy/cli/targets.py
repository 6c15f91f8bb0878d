"""``snn-deploy targets``."""

from __future__ import annotations

import click

from snn_deploy.cli.common import json_option, print_json, show


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME_OR_FILE]...")
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List targets (what can be exported to) and energy profiles (what operations cost).

    With names, or paths of TOML files of one's own: every figure and limit with its evidence and
    source, and what is unset.

    Example: snn-deploy targets loihi1-davies2018
    """
    from snn_deploy.hardware import available, target
    from snn_deploy.reporting.target_tables import chip_lines, chip_tables, target_table

    chips = tuple(target(name) for name in names) if names else available()
    if as_json:
        print_json(chips)
    elif not names:
        show(target_table(chips))
    else:
        for chip in chips:
            head, *rest = chip_lines(chip)
            show(head, *chip_tables(chip), *rest)
