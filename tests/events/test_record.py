"""Recordings made from events: every spike and count against a plain statement of the rules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.cli import run
from snn_deploy.errors import SnnDeployError
from snn_deploy.events import Recorded, cameras, record
from snn_deploy.packet_files import open_recording, read_piece
from snn_deploy.packets import read_recording
from tests.helpers.refusals import refused
from tests.helpers.strangers import data, nmnist

Array = np.ndarray
Event = tuple[int, int, int, int]  # t in microseconds, x, y, p
H, W = 5, 7


def plainly(
    samples: list[list[Event]],
    step: int | None,
    steps: int | None,
    scale: int,
    polarity: str,
    channels: int,
    from_first: bool,
) -> tuple[Array, dict[str, int]]:
    """Spikes [N, T, C, H, W] and counts, event by event."""
    seen: set[tuple[int, ...]] = set()
    counts = dict.fromkeys(("events", "other_polarity", "late", "merged", "spikes"), 0)
    kept = []
    needed = 1
    for n, events in enumerate(samples):
        start = min((t for t, *_ in events), default=0) if from_first else 0
        last = max((t for t, *_ in events), default=0) - start
        for t, x, y, p in events:
            if step is not None:
                k = (t - start) // step
            else:
                assert steps is not None
                k = (t - start) * steps // (last + 1)
            needed = max(needed, k + 1)
            kept.append((n, k, x, y, p))
    timesteps = needed if steps is None else steps
    for n, k, x, y, p in kept:
        counts["events"] += 1
        if polarity != "both" and p != (polarity == "on"):
            counts["other_polarity"] += 1
        elif k >= timesteps:
            counts["late"] += 1
        else:
            place = (n, k, p if channels == 2 else 0, y // scale, x // scale)
            counts["spikes" if place not in seen else "merged"] += 1
            seen.add(place)
    size = (len(range(0, H, scale)), len(range(0, W, scale)))
    spikes = np.zeros((len(samples), timesteps, channels, *size), np.uint8)
    for place in seen:
        spikes[place] = 1
    return spikes, counts


def flat(samples: list[list[Event]], **changes: Any) -> dict[str, Any]:
    """The arrays of a list of events; None leaves one out."""
    t, x, y, p = np.array([e for s in samples for e in s], np.int64).reshape(-1, 4).T
    held = {"t": t, "x": x, "y": y, "p": p, "offsets": np.cumsum([0, *map(len, samples)])}
    return {k: v for k, v in {**held, **changes}.items() if v is not None}


def forty_bits(events: list[Event]) -> bytes:
    """N-MNIST's records, from the description of the format."""
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in events)


def unpacked(made: Recorded) -> Array:
    """The spikes, bit by bit."""
    samples, timesteps, _ = made.packed.shape
    found = np.zeros((samples, timesteps, int(np.prod(made.shape))), np.uint8)
    for neuron in range(found.shape[-1]):
        found[..., neuron] = made.packed[..., neuron // 8] >> (neuron % 8) & 1
    return found.reshape(samples, timesteps, *made.shape)


EVENTS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, W - 1), st.integers(0, H - 1), st.integers(0, 1)),
    max_size=12,
)


@settings(max_examples=80)
@given(
    samples=st.lists(EVENTS, min_size=1, max_size=3),
    step=st.none() | st.integers(1, 30),
    steps=st.none() | st.integers(1, 9),
    scale=st.integers(1, 8),
    polarity=st.sampled_from(["both", "on", "off"]),
    channels=st.integers(1, 2),
    from_first=st.booleans(),
    form=st.sampled_from(["npz", "hdf5", "bin"]),
    cut=st.integers(0, 3),
)
def test_spikes_and_counts(
    samples: list[list[Event]],
    step: int | None,
    steps: int | None,
    scale: int,
    polarity: str,
    channels: int,
    from_first: bool,
    form: str,
    cut: int,
) -> None:
    """Whatever the format, and whatever files the samples lie in."""
    if step is None and steps is None:
        steps = 4
    if form == "hdf5":
        samples = samples[:1]  # a process each
    with TemporaryDirectory() as folder:
        files = []
        parts = [[s] for s in samples] if form == "bin" else [samples[:cut], samples[cut:]]
        for part in parts:
            path = Path(folder, f"{len(files)}.{form}")
            if not part:
                continue
            files.append(path)
            if form == "npz":
                np.savez(path, **flat(part))
            elif form == "bin":
                path.write_bytes(forty_bits(part[0]))
            else:
                with h5py.File(path, "w") as file:
                    for name, array in flat(part).items():
                        file[name] = array
        asked: dict[str, Any] = {
            "shape": (channels, H, W),
            "step": None if step is None else f"{step}us",
            "steps": steps,
            "scale": f"1/{scale}",
            "polarity": polarity,
            "from_first": from_first,
        }
        kept = channels if polarity == "both" else 1
        spikes, counts = plainly(samples, step, steps, scale, polarity, kept, from_first)
        if counts["events"] and not counts["spikes"]:
            with refused("SD104", "none of"):
                record(files, **asked)
            return
        made = record(files, **asked)
        assert made.about["counts"] == counts
        assert made.labels is None
        assert np.array_equal(unpacked(made), spikes)
        out = Path(folder, "out.npz")
        made.write(out)
        first = out.read_bytes()
        assert np.array_equal(read_recording(out).spikes[""], spikes)
        with open_recording(out) as stored:
            assert np.array_equal(read_piece(stored.spikes[""], slice(None)), spikes)
        made.write(out)
        assert out.read_bytes() == first


def test_the_layout_of_shd(tmp_path: Path) -> None:
    """Times in seconds and half precision, as published; lists of one length each."""
    times, units = [[0.0, 0.25, 0.75], [], [0.5]], [[3, 699, 3], [], [0]]
    path = tmp_path / "shd.h5"
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            held = file.create_dataset(f"spikes/{name}", (3,), h5py.vlen_dtype(kind))
            for index, row in enumerate(rows):
                held[index] = np.array(row, kind)
        file["labels"] = np.array([4, 19, 0])
    made = record([path], shape=(700,), step="250ms")
    expected = np.zeros((3, 4, 700), np.uint8)
    for place in ((0, 0, 3), (0, 1, 699), (0, 3, 3), (2, 2, 0)):
        expected[place] = 1
    assert np.array_equal(unpacked(made), expected)
    assert made.labels is not None
    assert made.labels.tolist() == [4, 19, 0]
    (file,) = made.about["files"]
    assert (file["format"], file["samples"], file["events"]) == ("HDF5 in the layout of SHD", 3, 4)
    both = record([path, path], shape=(1, 1, 700), steps=2)
    assert both.shape == (1, 1, 700)
    assert both.labels is not None
    assert both.labels.tolist() == [4, 19, 0] * 2


def test_one_sample_without_offsets(tmp_path: Path) -> None:
    """What cameras' tools write: four arrays, in any order of time, and no labels."""
    path = tmp_path / "a.npz"
    np.savez(path, **flat([[(1000, 1, 2, 1), (0, 0, 0, 0)]], offsets=None))
    labelled = tmp_path / "b.npz"
    np.savez(labelled, **flat([[(0, 0, 0, 0)]], labels=np.array([3])))
    made = record([path], shape=(2, H, W), step="1ms")
    assert np.argwhere(unpacked(made)).tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 2, 1]]
    assert record([labelled], shape=(2, H, W), step="1ms").labels is not None
    assert record([path, labelled], shape=(2, H, W), step="1ms").labels is None


def test_published_recordings_of_nmnist(tmp_path: Path) -> None:
    """A hundred recordings, as a network trained by others is fed them."""
    expected = nmnist(tmp_path, 100)
    files = [data("nmnist_small/test100.npz")]
    made = record(files, shape=(2, 34, 34), step="1ms", steps=300)
    spikes = np.unpackbits(made.packed, axis=-1, count=2312, bitorder="little")
    assert np.array_equal(spikes, expected.fed)
    one_axis = record(files, shape=(2, 34, 34), step="1ms", steps=300, flat=True)
    assert (one_axis.shape, made.shape) == ((2312,), (2, 34, 34))
    assert np.array_equal(one_axis.packed, made.packed)
    one_axis.write(tmp_path / "flat.npz")
    assert np.array_equal(read_recording(tmp_path / "flat.npz").spikes[""], expected.fed)
    assert made.labels is not None
    assert np.array_equal(made.labels, expected.labels)


FITS = {"shape": (2, H, W), "step": "1ms"}
ONE: list[list[Event]] = [[(5, 1, 2, 1), (9, 6, 4, 0)], [(0, 0, 0, 0), (1, 2, 3, 1)]]
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "x": ({}, {"shape": (2, H, 6)}, "SD106", r"event 1 \(sample 0\) lies at x = 6, outside 6"),
    "y": ({}, {"shape": (2, 3, W)}, "SD106", r"event 1 \(sample 0\) lies at y = 4, outside 3"),
    "later": (
        {"x": np.array([0, 0, 0, 9])},
        {},
        "SD106",
        r"event 3 \(sample 1\) lies at x = 9(.|\n)*--> .*a\.npz",
    ),
    "negative": ({"x": np.array([0, 0, 0, -1])}, {}, "SD401", "x below 0"),
    "a line": ({}, {"shape": (70,)}, "SD103", "a row and a column"),
    "no y": ({"y": None}, {}, "SD103", "no row"),
    "no p": ({"p": None}, {}, "SD103", "no polarity"),
    "on": ({"p": None}, {"shape": (1, H, W), "polarity": "on"}, "SD103", "no polarity"),
    "p": ({"p": np.array([0, 1, 2, 0])}, {}, "SD401", "p: 1 is ON"),
    "no t": ({"t": None}, {}, "SD401", "no array 't'"),
    "no x": ({"x": None}, {}, "SD401", "no array 'x'"),
    "short": ({"t": np.array([1, 2])}, {}, "SD401", "t of shape"),
    "nan": ({"t": np.array([0, np.nan, 1, 1])}, {}, "SD401", "times from"),
    "offsets": ({"offsets": np.array([0, 3, 2, 4])}, {}, "SD401", "do not rise"),
    "labels": ({"labels": np.array([1])}, {}, "SD401", "offsets of shape"),
    "pickled": ({"x": np.array([None] * 4)}, {}, "SD402", "pickled"),
    "a clock": ({"t": np.arange(4) + (1 << 49)}, {}, "SD104", "GiB(.|\n)*--from-first"),
    "late": ({"t": np.arange(4) + 5000}, {"steps": 5}, "SD104", "none of 4 events"),
    "no step": ({}, {"step": None}, "SD104", "no step"),
    "finer": ({}, {"step": "0.5us"}, "SD104", "step: '0.5us'"),
    "no unit": ({}, {"step": "10"}, "SD104", "step: '10'"),
    "nothing": ({}, {"step": "0ms"}, "SD104", "step: '0ms'"),
    "endless": ({}, {"step": "infs"}, "SD104", "step: 'infs'"),
    "larger": ({}, {"scale": "2"}, "SD104", "scale: '2'"),
    "no scale": ({}, {"scale": "1/0"}, "SD104", "scale: '1/0'"),
    "steps": ({}, {"steps": 0}, "SD104", "steps: 0"),
    "fine": ({}, {"step": None, "steps": 5000}, "SD104", "steps: 5000"),
    "three": ({}, {"shape": (3, H, W)}, "SD104", r"shape: \[3"),
    "flat": ({}, {"shape": (H, W)}, "SD104", r"shape: \[5, 7\]"),
    "blue": ({}, {"polarity": "blue"}, "SD104", "polarity: 'blue'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    arrays, asked, code, text = REFUSED[case]
    path = tmp_path / "a.npz"
    np.savez(path, **flat(ONE, **arrays))
    with refused(code, text):
        record([path], **{**FITS, **asked})


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, code in (
        ("a.bin", b"1234", "SD401"),
        ("a.npz", b"rubbish", "SD401"),
        ("a.h5", b"rubbish", "SD401"),
        ("a.mat", b"", "SD105"),
        ("a", b"", "SD105"),
    ):
        (tmp_path / name).write_bytes(content)
        with refused(code, name):
            record([tmp_path / name], **FITS)
    with refused("SD101", "none.bin"):
        record([tmp_path / "none.bin"], **FITS)
    (tmp_path / "folder.npz").mkdir()
    with refused("SD101", "folder.npz"):
        record([tmp_path / "folder.npz"], **FITS)
    with refused("SD104", "no files"):
        record([], **FITS)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("00001.bin").write_bytes(forty_bits([*ONE[0], ONE[0][0], (25_000, 3, 3, 1)]))
    asked = "record 00001.bin --shape 2,34,34 --step 10ms -o packets.npz"
    assert run(asked.split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "timesteps of 10000 microseconds; from 0 of each sample; channel 0 OFF" in out
    assert "4 events = 3 spikes + 1 merged" in out
    assert out.endswith("wrote packets.npz\n")
    spikes = read_recording("packets.npz").spikes[""]
    assert np.argwhere(spikes).tolist() == [[0, 0, 0, 4, 6], [0, 0, 1, 2, 1], [0, 2, 1, 3, 3]]
    with np.load("packets.npz") as file:
        about = json.loads(str(file["about"]))
    assert about["files"][0]["name"] == "00001.bin"
    assert run([*asked.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == about


WRONG = {
    "record 00001.bin --shape 2,3,3 --step 1ms -o new.npz": (2, "SD106"),
    "record none.bin --shape 2,5,7 --step 1ms -o new.npz": (2, "SD101"),
    "record bad.npz --shape 2,5,7 --step 1ms -o new.npz": (4, "SD401"),
    "record 00001.bin --shape 2,5,7 --step 1ms -o none/new.npz": (2, "SD102"),
    "record bad.npz --shape 2,5,7 --step 1ms -o bad.npz": (2, "SD102"),
    "record 00001.bin --shape 2,5,7 --step soon -o new.npz": (2, "SD104"),
    "record 00001.bin --shape 2,5,7 -o new.npz": (2, "SD104"),
    "record 00001.bin --shape five --step 1ms -o new.npz": (2, "is no shape"),
    "record --shape 2,5,7 --step 1ms -o new.npz": (2, "Missing argument"),
}


@pytest.mark.parametrize("command", WRONG)
def test_refused_commands_write_nothing(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("00001.bin").write_bytes(forty_bits(ONE[0]))
    Path("bad.npz").write_bytes(b"rubbish")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, text = WRONG[command]
    assert run(command.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_recording_does_not_load_torch() -> None:
    code = "import sys, snn_deploy.cli.record, snn_deploy.events; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_refusal_says_what_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **flat(ONE))
    with pytest.raises(SnnDeployError) as caught:
        record([path], shape=(2, 3, 3), step="1ms")
    assert (caught.value.where, caught.value.why) == (str(path), "the shape is 2,3,3")
    assert caught.value.fix


def test_without_the_package_for_cameras_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import runpy, sys\n"
        "sys.modules['faery'] = None\n"
        f"runpy.run_path({str(cameras.CHILD)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(cameras, "CHILD", child)
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 2.0\n")
    with refused("SD107", r"faery(.|\n)*snn-deploy\[events\]"):
        record([path], **FITS)
