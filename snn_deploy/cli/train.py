"""``snn-deploy train``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_deploy.cli.common import json_option, print_json, show, talk
from snn_deploy.errors import SnnDeployError


@click.command()
@click.argument("recipe", metavar="RECIPE.toml")
@click.option("-o", "--output", required=True, metavar="MODEL.pt", help="Checkpoint to write.")
@click.option("--plot", metavar="FILE.svg", help="Draw accuracies, widths and similarities.")
@json_option
def command(recipe: str, output: str, plot: str | None, as_json: bool) -> None:
    """Train a network from a recipe, and write its checkpoint and the recording of its test split.

    Metrics go to MODEL.pt.metrics.jsonl, one line per epoch.

    Interrupted training continues where it stopped when the same command is given again.

    Example: snn-deploy train examples/digits.toml -o model.pt
    """
    from snn_deploy.nn.recipe import read_recipe
    from snn_deploy.nn.trainer import Epoch, train
    from snn_deploy.packets import require_writable

    checked = read_recipe(recipe)
    unit = " dB" if checked.loss == "reconstruction" else "%"
    if plot is not None:
        from snn_deploy.nn.plots import require_matplotlib

        require_writable(plot)
        require_matplotlib()
        if Path(plot).resolve() == Path(output).resolve():
            raise SnnDeployError(
                "SD102", "the plot would replace the network", where=plot, fix="name another file"
            )

    def report(epoch: Epoch) -> None:
        mark = "  best so far" if epoch.best else ""
        analog = epoch.probability is None
        talk(
            f"epoch {epoch.epoch:>3}/{epoch.epochs}  loss {epoch.loss:.4f}  "
            f"train {epoch.train_accuracy:6.2f}{unit} ({'ANN' if analog else 'noisy'})  "
            f"validation {epoch.validation_accuracy:6.2f}{unit} "
            f"({'ANN' if analog else 'Heaviside'}){mark}"
        )

    result = train(checked, output, progress=report)
    if plot is not None:
        from snn_deploy.nn.plots import plot_training

        plot_training(result.metrics, plot)
    if as_json:
        print_json(result)
        return
    resumed = f" (resumed after epoch {result.resumed_at})" if result.resumed_at else ""
    show(
        f"trained{resumed}: epoch {result.best_epoch} is best on validation "
        f"({result.validation_accuracy:.2f}{unit})",
        f"test {result.measure} {result.test_accuracy:.2f}{unit} with Heaviside spikes",
        f"wrote {result.checkpoint}, {result.recording} and {result.metrics}",
    )
