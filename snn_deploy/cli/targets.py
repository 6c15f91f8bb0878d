"""``snn-deploy targets``."""

from __future__ import annotations

import click

from snn_deploy.cli.common import json_option, print_json, show


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List targets (what can be exported to) and energy profiles (what operations cost).

    Example: snn-deploy targets
    """
    from snn_deploy.hardware import available
    from snn_deploy.reporting.tables import target_table

    if as_json:
        print_json(available())
    else:
        show(target_table(available()))
