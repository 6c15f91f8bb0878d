"""The plots of ``docs/performance.md``: time against rate, time and memory against neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "snn-deploy"  # the same figures make the same file

import matplotlib.pyplot as plt  # noqa: E402


def draw(growth: dict[str, Any], folder: Path) -> None:
    """Write ``rate.svg`` and ``neurons.svg``."""
    folder.mkdir(exist_ok=True)
    for name, plot in (("rate", against_rate), ("neurons", against_neurons)):
        figure = plot(growth)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def against_rate(growth: dict[str, Any]) -> Any:
    """Milliseconds per sample of two layers, against the share of inputs that spike."""
    rows = growth["against_rate"]
    titles = list(dict.fromkeys(row["layer"] for row in rows))
    figure, axes = plt.subplots(1, len(titles), figsize=(9, 3.4), layout="constrained")
    for axis, title in zip(axes, titles, strict=True):
        mine = [row for row in rows if row["layer"] == title]
        rates = [100 * row["rate"] for row in mine]
        axis.plot(rates, [row["ours_ms"] for row in mine], "o-", label="event engine")
        axis.plot(rates, [row["torch_ms"] for row in mine], "s--", label="torch float32, sums only")
        axis.set(title=title, xlabel="inputs that spike, %", ylabel="ms per sample", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def against_neurons(growth: dict[str, Any]) -> Any:
    """Milliseconds of a run, and peak memory of its process, against the number of neurons."""
    rows = growth["neurons"]
    neurons = [row["neurons"] for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, label in zip(
        axes, ("ms", "peak_mb"), ("ms for four timesteps", "peak of the process, MB"), strict=True
    ):
        axis.loglog(neurons, [row[key] for row in rows], "o-")
        axis.set(xlabel="neurons", ylabel=label)
        axis.grid(alpha=0.3, which="both")
    return figure
