"""Recordings in files: read safely, written whole."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy import packets
from snn_deploy.errors import SnnDeployError
from snn_deploy.packets import (
    Recording,
    atomic_file,
    read_npz,
    read_recording,
    require_writable,
    write_atomically,
    write_npz,
)
from tests.helpers.refusals import refused

SPIKES = np.random.default_rng(3).integers(0, 2, (3, 5, 2, 4), dtype=np.uint8)
LABELS = np.array([2, 0, 1])


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "recording.npz"
    np.savez(path, **arrays)
    return path


def with_header(folder: Path, header: str, data: bytes = b"") -> Path:
    """An archive whose only array has this header and this data."""
    text = header.encode() + b"\n"
    path = folder / "recording.npz"
    with zipfile.ZipFile(path, "w") as archive:
        member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
        archive.writestr("spikes.npy", member)
    return path


@pytest.mark.parametrize("name", ["", "in", "left.eye"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    key = f"{name}.spikes" if name else "spikes"
    values = np.array([[0.5], [1.5], [-2.0]], np.float32)
    recording = Recording(spikes={name: SPIKES}, values={"v": values}, labels=LABELS)
    assert sorted(recording.arrays()) == sorted(["labels", key, "v.values"])
    path = tmp_path / "r.npz"
    write_npz(path, recording.arrays())
    found = read_recording(path)
    assert found.spikes.keys() == {name}
    assert found.spikes[name].dtype == np.uint8
    np.testing.assert_array_equal(found.spikes[name], SPIKES)
    np.testing.assert_array_equal(found.values["v"], values)
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    np.testing.assert_array_equal(found.labels, LABELS)


def test_same_arrays_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_npz(tmp_path / name, {"spikes": SPIKES.copy(), "labels": LABELS.copy()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parts() -> None:
    recording = Recording(spikes={"": SPIKES}, values={"v": LABELS}, labels=LABELS)
    part = recording.part(1, 3)
    np.testing.assert_array_equal(part.spikes[""], SPIKES[1:])
    assert part.values["v"].tolist() == [0, 1]
    assert part.labels is not None
    assert part.labels.tolist() == [0, 1]
    assert Recording(spikes={"": SPIKES}).head(2).labels is None


def test_fortran_order_and_empty_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path, values=np.asfortranarray(np.arange(6).reshape(2, 3)), x=np.zeros((0, 4)))
    assert read_npz(path)["values"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_npz(path)["x"].shape == (0, 4)


def test_not_there(tmp_path: Path) -> None:
    with refused("SD101", "no such file"):
        read_recording(tmp_path / "none.npz")
    with refused("SD101", "folder"):
        read_recording(tmp_path)
    (tmp_path / "file").touch()
    with refused("SD101"):
        read_recording(tmp_path / "file" / "r.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + b"\0" * 9])
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(content)
    with refused("SD401", "not a readable"):
        read_recording(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path, spikes=SPIKES, labels=LABELS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with refused("SD401"):
        read_recording(path)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_corrupt_anywhere(tmp_path: Path, write: Any) -> None:
    """Whatever byte is wrong: an error of ours, or (where no checksum covers it) the same data."""
    path = tmp_path / "r.npz"
    write(path, spikes=SPIKES)
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        wrong = bytearray(content)
        wrong[place] ^= 0xFF
        path.write_bytes(wrong)
        assert outcome(path) in ("same", "SD401", "SD402", "SD103"), place


def outcome(path: Path) -> str:
    try:
        same = np.array_equal(read_recording(path).spikes[""], SPIKES)
    except SnnDeployError as error:
        return error.code
    return "same" if same else "different"


def test_encrypted(tmp_path: Path) -> None:
    path = saved(tmp_path, spikes=SPIKES)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x03\x04") + 6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with refused("SD401"):
        read_recording(path)


class Exploit:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    pickled = np.empty(1, object)
    pickled[0] = Exploit(proof)
    path = saved(tmp_path, values=np.zeros((1, 2)), x=pickled)
    with refused("SD402", "x.npy holds pickled objects"):
        read_recording(path)
    assert not proof.exists()
    np.load(path, allow_pickle=True)["x"]  # the file is what it is meant to be
    assert proof.exists()


def test_a_bare_pickle_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("spikes.npy", b"\x80\x04K\x01.")
    with refused("SD401"):
        read_recording(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (4,",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<i8', (",
        "[]",
        "",
    ],
)
def test_header_that_lies(tmp_path: Path, header: str) -> None:
    with refused("SD401"):
        read_recording(with_header(tmp_path, header, b"\0\1\0\1"))


def test_header_that_tells_the_truth(tmp_path: Path) -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}"
    assert read_recording(with_header(tmp_path, header, b"\0\1\0\1")).spikes[""].sum() == 2


def test_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "MAX_UNPACKED_BYTES", 1000)
    path = tmp_path / "r.npz"
    np.savez_compressed(path, spikes=np.zeros(1001, np.uint8))
    with refused("SD402", "unpacks to more"):
        read_recording(path)


@pytest.mark.parametrize(
    "labels", [LABELS[:2], LABELS[None], LABELS[0], LABELS.astype(float), LABELS.astype(str)]
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: Any) -> None:
    with refused("SD103", "one integer per sample"):
        read_recording(saved(tmp_path, spikes=SPIKES, labels=labels))


def test_labels_of_one_number(tmp_path: Path) -> None:
    with refused("SD103"):
        read_recording(saved(tmp_path, spikes=np.array(1), labels=LABELS))


def test_neither_spikes_nor_values(tmp_path: Path) -> None:
    with refused("SD103", r"only \['labels', 'x'\]"):
        read_recording(saved(tmp_path, x=SPIKES, labels=LABELS))
    with refused("SD103", "only nothing"):
        read_recording(saved(tmp_path))


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for path in ("missing/out", "file/out", "folder"):
        with refused("SD102", "cannot write"):
            write_atomically(tmp_path / path, b"content")
        with refused("SD102"):
            require_writable(tmp_path / path)
    require_writable(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_broken_stream_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_file(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert path.read_text() == "old"


def test_unwritable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    try:
        (folder / "probe").touch()
    except PermissionError:
        with refused("SD102"):
            write_atomically(folder / "out", b"content")
        assert not list(folder.iterdir())
    else:
        pytest.skip("this user may write to every folder")


def test_an_npz_holds_what_it_is_given_and_no_objects(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["x"]
    with pytest.raises(TypeError, match="objects"):
        write_npz(tmp_path / "b.npz", {"x": np.array([{}])})
    assert not (tmp_path / "b.npz").exists()
