"""``snn-deploy train``."""

from __future__ import annotations

import click

from snn_deploy.cli.common import json_option, print_json, show, talk


@click.command()
@click.argument("recipe", metavar="RECIPE.toml")
@click.option("-o", "--output", required=True, metavar="MODEL.pt", help="Checkpoint to write.")
@json_option
def command(recipe: str, output: str, as_json: bool) -> None:
    """Train a network from a recipe, and write its checkpoint and the recording of its test split.

    Interrupted training continues where it stopped when the same command is given again.

    Example: snn-deploy train examples/digits.toml -o model.pt
    """
    from snn_deploy.nn.trainer import Epoch, train

    def report(epoch: Epoch) -> None:
        mark = "  best so far" if epoch.best else ""
        talk(
            f"epoch {epoch.epoch:>3}/{epoch.epochs}  loss {epoch.loss:.4f}  "
            f"train {epoch.train_accuracy:6.2f}% (noisy)  "
            f"validation {epoch.validation_accuracy:6.2f}% (Heaviside){mark}"
        )

    result = train(recipe, output, progress=report)
    if as_json:
        print_json(result)
        return
    resumed = f" (resumed after epoch {result.resumed_at})" if result.resumed_at else ""
    show(
        f"trained{resumed}: epoch {result.best_epoch} is best on validation "
        f"({result.validation_accuracy:.2f}%)",
        f"test accuracy {result.test_accuracy:.2f}% with Heaviside spikes",
        f"wrote {result.checkpoint} and {result.recording}",
    )
