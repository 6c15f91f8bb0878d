"""``snn-deploy completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_PROGRAM = "snn-deploy"
_REQUEST = "_SNN_DEPLOY_COMPLETE"  # where click looks for requests to this program


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete verbs, options and their values.

    Example: source <(snn-deploy completion bash)
    """
    completion = get_completion_class(shell)
    assert completion is not None, "click has these three"
    click.echo(completion(context.find_root().command, {}, _PROGRAM, _REQUEST).source())
