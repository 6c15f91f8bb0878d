"""ASGL's robustness claim at CPU scale: accuracy against the initial width of the surrogate.

    SNN_DEPLOY_DATA=... python examples/robustness.py -o robustness/ [--jobs 2] [--seeds 3]

A plain MLP of eight LIF layers (784-8x128-10, batch normalisation, T = 4, decay and threshold 1/2)
learns 10,000 images of MNIST in 8 epochs with SGD, and is judged on the 10,000 test images with
Heaviside spikes. Four arms: a surrogate gradient (SG) of fixed width, SG with learned width, ASGL's
noise at a fixed width, and ASGL. The checkpoint is chosen on 500 other training images. Every run
leaves its metrics behind; runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from snn_deploy import train
from snn_deploy.nn.recipe import parse_recipe

WIDTHS = (0.5, 1.0, 2.5, 5.0, 10.0)
ARMS: dict[str, dict[str, Any]] = {
    "SG": {"function": "surrogate"},
    "SG, learned width": {"function": "surrogate", "learn_width": True},
    "noise, fixed width": {"function": "asgl", "probability": 0.8, "learn_width": False},
    "ASGL": {"function": "asgl", "probability": 0.8},
}
LAYERS, FEATURES = 8, 128


def recipe(arm: str, width: float, seed: int) -> dict[str, Any]:
    """The recipe of one run, as a TOML file would say it."""
    hidden = [{"type": "linear", "features": FEATURES}, {"type": "batchnorm"}, {"type": "lif"}]
    return {
        "data": {"name": "mnist", "train": 10_500, "validation": 500},
        "model": {
            "timesteps": 4,
            "input": {"kind": "constant", "shape": [1, 28, 28], "high": 255, "mean": [33.3],
                      "std": [78.6]},
            "lif": {"threshold": 0.5, "decay": 0.5},
            "spike": {**ARMS[arm], "width": width},
            "layers": [{"type": "flatten"}, *hidden * LAYERS, {"type": "linear", "features": 10}],
        },
        "training": {"epochs": 8, "batch": 100, "seed": seed, "learning_rate": 0.1},
    }  # fmt: skip


def run(arm: str, width: float, seed: int, folder: Path) -> dict[str, Any]:
    """Train once, or read what an earlier call has left."""
    name = f"{arm.replace(', ', '-').replace(' ', '-').lower()}-{width:g}-{seed}"
    done = folder / name / "result.json"
    if not done.is_file():
        done.parent.mkdir(exist_ok=True)
        result = train(
            parse_recipe(recipe(arm, width, seed), "robustness"), folder / name / "net.pt"
        )
        Path(result.recording).unlink()  # ten thousand images in every folder
        last = json.loads(Path(result.metrics).read_text().splitlines()[-1])
        done.write_text(
            json.dumps(
                {"arm": arm, "width": width, "seed": seed, "test": result.test_accuracy,
                 "widths": last["widths"], "similarities": last["similarities"]}
            )
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def table(results: list[dict[str, Any]], widths: tuple[float, ...]) -> str:
    """Mean and sample standard deviation over seeds, as Markdown."""
    lines = ["| method | " + " | ".join(f"{w:g}" for w in widths) + " |",
             "|---" * (len(widths) + 1) + "|"]  # fmt: skip
    for arm in ARMS:
        cells = []
        for width in widths:
            found = [r["test"] for r in results if r["arm"] == arm and r["width"] == width]
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            cells.append(f"{statistics.mean(found):.2f} ± {spread:.2f}" if found else "-")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against the initial width, one line per arm."""
    from snn_deploy.nn.plots import figure

    with figure(path) as axes:
        for arm in ARMS:
            points = sorted((r["width"], r["test"]) for r in results if r["arm"] == arm)
            widths = sorted({w for w, _ in points})
            groups = [[t for w, t in points if w == width] for width in widths]
            axes.errorbar(
                widths, [statistics.mean(g) for g in groups],
                yerr=[statistics.stdev(g) if len(g) > 1 else 0.0 for g in groups],
                marker="o", capsize=3, label=arm,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(WIDTHS, [f"{w:g}" for w in WIDTHS])
        axes.set_xlabel("initial width")
        axes.set_ylabel("test accuracy, Heaviside spikes (%)")
        axes.legend()


def main() -> None:
    """Run what is missing, then print the table and draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    wanted = [(a, w, s) for s in range(options.seeds) for w in WIDTHS for a in ARMS]
    results = []
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(run, *one, options.output) for one in wanted]
        for number, future in enumerate(as_completed(waiting), 1):
            one = future.result()
            results.append(one)
            print(f"[{number}/{len(wanted)}] {one['arm']}, width {one['width']:g}, seed "
                  f"{one['seed']}: {one['test']:.2f}%", flush=True)  # fmt: skip
    text = table(results, WIDTHS)
    (options.output / "table.md").write_text(text + "\n")
    print(text)
    plot(results, options.output / "robustness.svg")


if __name__ == "__main__":
    main()
