"""Plots of a training run from its metrics, as one SVG file; needs matplotlib."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snn_deploy.errors import SnnDeployError
from snn_deploy.packets import write_atomically


def require_matplotlib() -> None:
    """Raise SD107 now if plots could not be drawn after long work."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise SnnDeployError(
            "SD107",
            "plots need matplotlib",
            fix="pip install -c constraints.txt 'snn-deploy[plot]'",
        ) from None


@contextmanager
def figure(path: str | os.PathLike[str], panels: int = 1) -> Iterator[Any]:
    """Axes (a list, if there are several panels) of a figure that is written when the block ends.

    The file is SVG, and the same for the same data.

    Raises
    ------
    SnnDeployError
        SD107 without matplotlib, SD102 if the file cannot be written.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5.5 * panels, 4.0), layout="constrained")
    axes = [drawn.add_subplot(1, panels, number + 1) for number in range(panels)]
    yield axes if panels > 1 else axes[0]
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "snn-deploy"}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    write_atomically(path, buffer.getvalue())


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The epochs of a metrics file.

    Raises
    ------
    SnnDeployError
        SD101 if it cannot be read, SD401 if it is no metrics file.
    """
    where = str(path)
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise SnnDeployError("SD101", "cannot read", where=where, why=error.strerror) from None
    except UnicodeDecodeError:
        lines = [""]
    try:
        epochs = [json.loads(line) for line in lines]
        if not epochs or not all(map(_is_epoch, epochs)):
            raise ValueError("no epochs, or some that lack what is drawn")
    except (ValueError, RecursionError) as error:
        raise SnnDeployError(
            "SD401", "not a metrics file", where=where, why=str(error),
            fix="give the .metrics.jsonl that `snn-deploy train` writes",
        ) from None  # fmt: skip
    return epochs


def _is_epoch(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    values = [data.get(key) for key in ("epoch", "noisy_accuracy", "validation_accuracy")]
    for key in ("widths", "similarities"):
        if not isinstance(data.get(key), dict):
            return False
        values += data[key].values()
    return all(type(value) in (int, float) for value in values)


def plot_training(metrics: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Draw a training run: accuracies, widths and similarities by epoch (ASGL, Fig. 3 and 5).

    Parameters
    ----------
    metrics : ``*.metrics.jsonl``.
    output : SVG file to write.
    """
    epochs = read_metrics(metrics)
    x = [e["epoch"] for e in epochs]
    with figure(output, panels=3) as (accuracy, width, similarity):
        accuracy.plot(x, [e["noisy_accuracy"] for e in epochs], label="noisy network")
        accuracy.plot(x, [e["validation_accuracy"] for e in epochs], label="embedded SNN")
        accuracy.set_ylabel("validation score")
        for axes, key in ((width, "widths"), (similarity, "similarities")):
            for name in epochs[-1][key]:
                axes.plot(x, [e[key].get(name) for e in epochs], label=name)
            axes.set_ylabel(f"{'width' if key == 'widths' else 'cosine similarity'} per layer")
        for axes in (accuracy, width, similarity):
            axes.set_xlabel("epoch")
            if axes.lines:
                axes.legend(fontsize="small")
