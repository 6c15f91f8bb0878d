"""Plots of a training run: SVG, the same bytes for the same run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from snn_deploy.nn.plots import figure, plot_training, read_metrics, require_matplotlib
from tests.helpers.refusals import refused

pytest.importorskip("matplotlib")

LAYERS = ("layers.2", "layers.5")


def epoch(number: int, layers: tuple[str, ...] = LAYERS) -> dict[str, Any]:
    return {
        "epoch": number,
        "noisy_accuracy": 50.0 + number,
        "validation_accuracy": 40.0 + number,
        "widths": dict.fromkeys(layers, 2.5 / number),
        "similarities": dict.fromkeys(layers, 0.5 + 0.1 * number),
    }


def write(folder: Path, epochs: list[Any]) -> Path:
    path = folder / "net.pt.metrics.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in epochs))
    return path


def test_an_svg_is_written_the_same_twice(tmp_path: Path) -> None:
    metrics = write(tmp_path, [epoch(1), epoch(2), epoch(3)])
    found = []
    for name in ("one.svg", "two.svg"):
        plot_training(metrics, tmp_path / name)
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
    root = ET.fromstring(found[0])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = found[0].decode()
    for label in ("noisy network", "embedded SNN", *LAYERS, "epoch", "width", "cosine similarity"):
        assert f"<!-- {label}" in text or label in text
    plot_training(write(tmp_path, [epoch(1), epoch(2)]), tmp_path / "other.svg")
    assert (tmp_path / "other.svg").read_bytes() != found[0]


def test_an_ann_in_front_and_a_network_without_neurons(tmp_path: Path) -> None:
    plot_training(write(tmp_path, [epoch(1, ()), epoch(2), epoch(3)]), tmp_path / "a.svg")
    plot_training(write(tmp_path, [epoch(1, ())]), tmp_path / "b.svg")
    for name in ("a.svg", "b.svg"):
        ET.fromstring((tmp_path / name).read_bytes())


def test_metrics_are_read_back(tmp_path: Path) -> None:
    epochs = [epoch(1), epoch(2)]
    assert read_metrics(write(tmp_path, epochs)) == epochs


WRONG: dict[str, bytes] = {
    "empty": b"",
    "text": b"epoch 1: 90%\n",
    "bytes": b"\xff\xfe\x00",
    "a list": b"[1, 2]\n",
    "numbers": b"1\n2\n",
    "an epoch without widths": b'{"epoch": 1}\n',
    "widths a number": b'{"epoch": 1, "widths": 3}\n',
    "without accuracies": b'{"epoch": 1, "widths": {}, "similarities": {}}\n',
    "accuracies words": json.dumps({**epoch(1), "noisy_accuracy": "high"}).encode() + b"\n",
    "accuracies lists": json.dumps({**epoch(1), "noisy_accuracy": [1, 2]}).encode() + b"\n",
    "widths of words": json.dumps({**epoch(1), "widths": {"a": "wide"}}).encode() + b"\n",
    "epoch a word": json.dumps({**epoch(1), "epoch": "one"}).encode() + b"\n",
    "similarities a list": json.dumps({**epoch(1), "similarities": [1]}).encode() + b"\n",
    "nested too deep": b"[" * 100_000,
    "a recording": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_holds_no_metrics(name: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WRONG[name])
    with refused("SD401", r"not a metrics file(.|\n)*metrics\.jsonl(.|\n)*snn-deploy train"):
        plot_training(path, tmp_path / "plot.svg")
    assert not (tmp_path / "plot.svg").exists()


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with refused("SD101"):
        plot_training(tmp_path / "none.jsonl", tmp_path / "plot.svg")
    with refused("SD101"):
        plot_training(tmp_path, tmp_path / "plot.svg")
    with refused("SD102"):
        plot_training(write(tmp_path, [epoch(1)]), tmp_path / "none" / "plot.svg")


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with refused("SD107", "pip install"):
        require_matplotlib()
    with refused("SD107", "pip install"):
        plot_training(write(tmp_path, [epoch(1)]), tmp_path / "plot.svg")


def test_one_panel_is_given_alone(tmp_path: Path) -> None:
    with figure(tmp_path / "one.svg") as axes:
        axes.plot([1, 2], [3, 4])
    with figure(tmp_path / "two.svg", panels=2) as (left, right):
        left.plot([1, 2], [3, 4])
        right.plot([1, 2], [3, 4])
    with pytest.raises(KeyError), figure(tmp_path / "none.svg"):
        raise KeyError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.svg", "two.svg"]
