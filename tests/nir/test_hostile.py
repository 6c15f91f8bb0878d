"""Damaged and hostile NIR files of others: refused with a message, in bounded time and memory."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from snn_deploy.exporters import ReadOptions
from snn_deploy.exporters.nir import exporter

from snn_deploy import SnnDeployError

GOLDEN = Path(__file__).parents[1] / "golden" / "nir" / "spikingjelly_conv.nir"
JELLY = ReadOptions(dialect="spikingjelly", dt=1e-4)
CODES = ("SD204", "SD401", "SD402", "SD403", "SD408")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(GOLDEN, tmp_path / "their.nir"))


def test_truncated_files_are_refused(copy: Path) -> None:
    whole = copy.read_bytes()
    for length in (0, 7, 100, 2000, *range(5000, len(whole), 9001), len(whole) - 1):
        copy.write_bytes(whole[:length])
        with pytest.raises(SnnDeployError) as caught:
            exporter.open(copy, JELLY)
        assert caught.value.code == "SD401", length


def test_changed_bytes_end_in_a_message(copy: Path) -> None:
    """Or in a network: not every byte means something."""
    whole, random = copy.read_bytes(), np.random.default_rng(5)
    refused: list[SnnDeployError] = []
    for _ in range(30):
        changed = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 40)):
            changed[place] = random.integers(256)
        copy.write_bytes(bytes(changed))
        try:
            exporter.open(copy, JELLY)
        except SnnDeployError as error:
            refused.append(error)
    assert len(refused) > 3
    for refusal in refused:
        assert refusal.code in CODES, refusal
        assert "their.nir" in str(refusal)


CONV = "node/nodes/_0"


def replaced(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def bomb(file: h5py.File) -> None:
    """Eight gigabytes of zeros in a few bytes."""
    del file[f"{CONV}/weight"]
    file.create_dataset(
        f"{CONV}/weight", (1 << 10, 1 << 10, 1 << 10), "f8", chunks=(1, 1 << 10, 1 << 10),
        compression="gzip",
    )  # fmt: skip


def deep(file: h5py.File) -> None:
    """Graphs in graphs, deeper than any network."""
    group = file["node"]
    for _ in range(40):
        group = group["nodes"].create_group("inner")
        group["type"] = "NIRGraph"
        group["edges"] = np.zeros((0, 2), "S1")
        group.create_group("nodes")


def cycle(file: h5py.File) -> None:
    file["node/nodes/again"] = file["node"]


CHANGES: dict[str, tuple[str, Callable[[h5py.File], None]]] = {
    "text for weights": ("SD401", replaced(f"{CONV}/weight", "many")),
    "texts for weights": ("SD401", replaced(f"{CONV}/weight", np.array([b"a", b"b"]))),
    "complex weights": ("SD401", replaced(f"{CONV}/weight", np.ones((3, 2, 3, 3), complex))),
    "weights of no axis": ("SD204", replaced(f"{CONV}/weight", 1.0)),
    "no weights": ("SD401", replaced(f"{CONV}/weight", np.zeros((0, 2, 3, 3)))),
    "a number too large": ("SD403", replaced(f"{CONV}/weight", np.full((3, 2, 3, 3), 1e999))),
    "a stride beyond all": ("SD401", replaced(f"{CONV}/stride", np.array([1 << 40, 1]))),
    "padding beyond all": ("SD402", replaced(f"{CONV}/padding", np.array([1 << 30, 0]))),
    "dilation beyond all": ("SD204", replaced(f"{CONV}/dilation", np.array([1 << 30, 1]))),
    "an unknown type": ("SD204", replaced(f"{CONV}/type", "Conv9d")),
    "a type of numbers": ("SD401", replaced(f"{CONV}/type", 7)),
    "a node that is data": ("SD401", replaced(CONV, 7)),
    "edges of numbers": ("SD401", replaced("node/edges", np.ones((2, 2)))),
    "edges of three": ("SD401", replaced("node/edges", np.full((2, 3), b"_0"))),
    "an edge to nowhere": ("SD401", replaced("node/edges", np.array([[b"_0", b"x"]]))),
    "no edges": ("SD401", lambda f: f.__delitem__("node/edges")),
    "no nodes": ("SD401", lambda f: f.__delitem__("node/nodes")),
    "a link elsewhere": ("SD402", lambda f: f.__setitem__("node/x", h5py.SoftLink("/version"))),
    "another file": ("SD402", lambda f: f.__setitem__("node/x", h5py.ExternalLink("a", "/b"))),
    "a cycle of groups": ("SD402", cycle),
    "a bomb": ("SD402", bomb),
    "too deep": ("SD402", deep),
}


@pytest.mark.parametrize("what", CHANGES)
def test_hand_broken_files_are_refused(what: str, copy: Path) -> None:
    code, change = CHANGES[what]
    with h5py.File(copy, "r+") as file:
        change(file)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(SnnDeployError) as caught:
        exporter.open(copy, JELLY)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert caught.value.code == code, caught.value
    assert "their.nir" in str(caught.value)
    assert after.ru_utime - before.ru_utime < 5
    assert after.ru_maxrss - before.ru_maxrss < 200_000  # kilobytes


def test_more_nodes_than_any_network_has_are_refused(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        for number in range(4096):
            file[f"node/nodes/more{number}/type"] = "Flatten"
    with pytest.raises(SnnDeployError, match="more than 4096 nodes") as caught:
        exporter.open(copy, JELLY)
    assert caught.value.code == "SD402"
