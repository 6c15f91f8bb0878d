"""Data sets: what is read equals what plain statements of each format say, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.binning import Binning
from snn_deploy.events.nmnist import read_bin
from snn_deploy.events.ragged import read_ragged
from snn_deploy.events.streams import EventList, microseconds
from snn_deploy.nn.datasets import (
    READERS,
    ArraySamples,
    Dataset,
    Split,
    hold_out,
    open_dataset,
    parse_data,
)
from snn_deploy.nn.datasets.events import EventSamples
from snn_deploy.nn.datasets.med import decode
from tests.helpers.refusals import refused
from tests.helpers.strangers import data

Array = np.ndarray


def opened(timesteps: int = 4, **table: Any) -> Dataset:
    return open_dataset(parse_data(table, "a test"), timesteps)


def everything(split: Split) -> Array:
    return split.samples.batch(np.arange(len(split.samples)))


# ---- options -----------------------------------------------------------------------------------


def test_defaults_are_those_documented() -> None:
    options = parse_data({"name": "digits", "augment": "somebody else's"}, "a test")
    assert options.to_data() == {
        "name": "digits",
        "path": None,
        "validation": 200,
        "train": None,
        "test": None,
        "window": None,
        "duration": None,
        "scale": None,
        "size": None,
        "polarity": None,
        "random_start": False,
        "sensor": None,
    }


def test_options_are_kept() -> None:
    table = {
        "name": "events",
        "path": "somewhere",
        "validation": 5,
        "train": 10,
        "test": 3,
        "window": 2,
        "size": [3, 4],
        "polarity": "merge",
        "random_start": True,
        "sensor": [2, 10, 20],
    }
    options = parse_data(table, "a test")
    assert options.to_data() == {**table, "duration": None, "scale": None}
    assert isinstance(options.window, float)
    assert options.size == (3, 4)
    assert parse_data({"name": "shd", "size": 5}, "a test").size == (5,)


BAD_OPTIONS: dict[str, tuple[Any, str]] = {
    "no table": ([], r"\[data\]: a table"),
    "no name": ({}, r"\[data\] name: unknown data set None(.|\n)*digits, mnist, cifar10"),
    "a list": ({"name": ["mnist"]}, r"\[data\] name: unknown"),
    "unknown name": ({"name": "imagenet"}, r"\[data\] name: unknown data set 'imagenet'"),
    "unknown key": ({"name": "mnist", "pth": "x"}, r"\[data\] pth: unknown key(.|\n)*path"),
    "shift": ({"name": "digits", "shift": 1}, r'\[data\] shift: (.|\n)*type = "shift"'),
    "no path": ({"name": "digits", "path": "x"}, r"\[data\] path: the data set digits does not"),
    "no window": ({"name": "mnist", "window": 1}, r"\[data\] window: the data set mnist does not"),
    "no polarity": ({"name": "shd", "polarity": "merge"}, r"\[data\] polarity: the data set shd"),
    "no sensor": ({"name": "nmnist", "sensor": [34, 34]}, r"\[data\] sensor: the data set nmnist"),
    "path": ({"name": "mnist", "path": 3}, r"\[data\] path: 3"),
    "empty path": ({"name": "mnist", "path": ""}, r"\[data\] path: ''"),
    "validation": ({"name": "digits", "validation": 0}, r"\[data\] validation: 0"),
    "true": ({"name": "digits", "validation": True}, r"\[data\] validation: True"),
    "train": ({"name": "digits", "train": -1}, r"\[data\] train: -1"),
    "test": ({"name": "digits", "test": 1.5}, r"\[data\] test: 1\.5"),
    "window 0": ({"name": "shd", "window": 0}, r"\[data\] window: 0 must"),
    "negative": ({"name": "shd", "window": -1.0}, r"\[data\] window: -1\.0"),
    "not a number": ({"name": "shd", "window": float("nan")}, r"\[data\] window: nan"),
    "endless": ({"name": "shd", "duration": float("inf")}, r"\[data\] duration: inf"),
    "finer": ({"name": "shd", "window": 1 / 3}, r"\[data\] window: 0\.33(.|\n)*microsecond"),
    "text": ({"name": "shd", "window": "1"}, r"\[data\] window: '1'"),
    "both times": ({"name": "shd", "window": 1, "duration": 9}, r"\[data\] duration: window is"),
    "scale": ({"name": "shd", "scale": 0}, r"\[data\] scale: 0"),
    "half": ({"name": "shd", "scale": 2.0}, r"\[data\] scale: 2\.0"),
    "both sizes": ({"name": "shd", "scale": 2, "size": 9}, r"\[data\] size: scale is"),
    "size": ({"name": "nmnist", "size": [1, 2, 3]}, r"\[data\] size: \[1, 2, 3\]"),
    "size 0": ({"name": "nmnist", "size": [0, 2]}, r"\[data\] size: \[0, 2\]"),
    "polarity": ({"name": "nmnist", "polarity": "on"}, r"\[data\] polarity: 'on'"),
    "polarities": ({"name": "nmnist", "polarity": ["both"]}, r"\[data\] polarity: \['both'\]"),
    "random": ({"name": "shd", "random_start": 1, "window": 1}, r"\[data\] random_start: 1"),
    "unbounded": ({"name": "shd", "random_start": True}, r"\[data\] random_start: (.|\n)*window"),
    "sensor": ({"name": "events", "sensor": []}, r"\[data\] sensor: \[\]"),
    "sensors": ({"name": "events", "sensor": 34}, r"\[data\] sensor: 34"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_wrong_options_are_refused_by_name(case: str) -> None:
    table, text = BAD_OPTIONS[case]
    with pytest.raises(SnnDeployError, match=rf"^error\[SD104\]: {text}") as caught:
        parse_data(table, "recipe.toml")
    assert caught.value.fix
    assert caught.value.where == "recipe.toml"


# ---- samples -----------------------------------------------------------------------------------


def test_samples_of_samples() -> None:
    array = np.arange(20, dtype=np.uint8).reshape(10, 2)
    samples = ArraySamples(array).take(np.array([9, 3, 5])).take(np.array([2, 0]))
    assert len(samples) == 2
    batch = samples.batch(np.array([1, 1, 0]))
    assert batch.tolist() == [[18, 19], [18, 19], [10, 11]]
    batch[:] = 0
    assert array[9].tolist() == [18, 19]  # a batch is a copy
    assert samples.steady() is samples


def test_validation_is_held_out_by_a_fixed_permutation() -> None:
    split = Split(ArraySamples(np.arange(50, dtype=np.uint8)), np.arange(50) + 100)
    torch.manual_seed(5)
    train, validation = hold_out(split, 20)
    expected = torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist()
    assert everything(validation).tolist() == expected[:20]
    assert everything(train).tolist() == expected[20:]
    for part in (train, validation):
        assert (part.labels - 100).tolist() == everything(part).tolist()
    for left in (0, 1):
        with refused("SD104", r"^error\[SD104\]: \[data\] validation: "):
            hold_out(split, 50 - left)


# ---- binning -----------------------------------------------------------------------------------

Event = tuple[int, int, int, int]  # t, x, y, p


def plainly(
    events: list[Event],
    timesteps: int,
    when: Callable[[int, int], int],
    where: Callable[[int, int], tuple[int, int]],
    shape: tuple[int, int, int],
    start: int = 0,
) -> Array:
    """Spikes [T, C, H, W], event by event; ``when`` is the timestep of a time and the last one."""
    spikes = np.zeros((timesteps, *shape), np.uint8)
    last = max((event[0] - start for event in events), default=0)
    for t, x, y, p in events:
        step = when(t - start, last)
        if 0 <= step < timesteps:
            row, column = where(x, y)
            spikes[step, p % shape[0], row, column] = 1
    return spikes


def listed(samples: list[list[Event]], relative: bool = False) -> EventList:
    flat = [event for sample in samples for event in sample]
    t, x, y, p = np.array(flat, np.int64).reshape(-1, 4).T
    if relative:
        t = np.array([t - s for sample in samples for (t, *_), (s, *_) in _pairs(sample)], np.int64)
    return EventList(
        offsets=np.cumsum([0, *map(len, samples)]),
        t=t.astype(np.uint16 if relative else np.int64),
        x=x.astype(np.uint8),
        y=y.astype(np.uint8),
        p=p.astype(np.uint8),
        relative=relative,
    )


def _pairs(sample: list[Event]) -> list[tuple[Event, Event]]:
    return list(zip(sample, [(0, 0, 0, 0), *sample], strict=False))


EVENTS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 6), st.integers(0, 4), st.integers(0, 1)),
    max_size=12,
).map(sorted)


@settings(max_examples=60)
@given(
    samples=st.lists(EVENTS, min_size=1, max_size=4),
    timesteps=st.integers(1, 7),
    relative=st.booleans(),
    window=st.none() | st.integers(1, 20),
    duration=st.none() | st.integers(1, 80),
    polarities=st.integers(1, 2),
    scale=st.integers(0, 8),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    chosen=st.lists(st.integers(0, 3), max_size=5),
)
def test_spikes_are_where_events_are(
    samples: list[list[Event]],
    timesteps: int,
    relative: bool,
    window: int | None,
    duration: int | None,
    polarities: int,
    scale: int,
    size: tuple[int, int],
    chosen: list[int],
) -> None:
    height, width = (-(-5 // scale), -(-7 // scale)) if scale else size
    how = Binning(timesteps, window, duration, (5, 7), (height, width), scale, polarities)
    assert how.shape == (polarities, height, width)

    def when(t: int, last: int) -> int:
        if window is not None:
            return t // window
        return t * timesteps // (last + 1 if duration is None else duration)

    def where(x: int, y: int) -> tuple[int, int]:
        if scale:
            return y // scale, x // scale
        return y * height // 5, x * width // 7

    places = np.array([index % len(samples) for index in chosen], np.int64)
    view = EventSamples(listed(samples, relative), how, np.arange(len(samples)))
    expected = [plainly(samples[k], timesteps, when, where, how.shape) for k in places]
    for found in (view.batch(places), view.take(places).batch(np.arange(len(places)))):
        assert found.dtype == np.uint8
        assert found.shape == (len(places), timesteps, *how.shape)
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_random_start_is_for_training_and_leaves_all_timesteps_before_the_last_event() -> None:
    """One event a microsecond, at a place of its own: where a sample begins can be read off."""
    count, timesteps, window = 23, 3, 5
    source = listed([[(t, t, 0, 0) for t in range(count)]] * 400 + [[(1, 1, 0, 0)]])
    how = Binning(timesteps, window, None, (1, 23), (1, 23), 1, 1)
    samples = EventSamples(source, how, np.arange(401), random_start=True)
    torch.manual_seed(0)
    batch = samples.batch(np.arange(401))
    torch.manual_seed(0)
    assert np.array_equal(batch, samples.batch(np.arange(401)))
    assert not np.array_equal(batch, samples.batch(np.arange(401)))
    starts = batch[:400].any(axis=(1, 2, 3)).argmax(axis=1)
    for sample, start in zip(batch, starts, strict=False):
        for step in range(timesteps):
            seen = np.flatnonzero(sample[step, 0, 0])
            assert seen.tolist() == list(range(start + 5 * step, start + 5 * step + 5))
    times = np.bincount(starts)
    assert len(times) == count - timesteps * window + 1  # all of them, each 44 times in the mean
    assert times.min() >= 20
    assert batch[400].sum() == 1  # a short one begins at 0
    assert np.flatnonzero(batch[400, 0, 0, 0]).tolist() == [1]
    steady = samples.steady().batch(np.arange(401))
    assert (steady[:400] == steady[0]).all()
    assert np.flatnonzero(steady[0, 0, 0, 0]).tolist() == [0, 1, 2, 3, 4]
    _, validation = hold_out(Split(samples, np.zeros(401, np.int64)), 100)
    assert np.array_equal(everything(validation), everything(validation))


def test_times_in_seconds_are_rounded_to_microseconds() -> None:
    whole = np.arange(200_000)
    assert microseconds(whole / 1e6).tolist() == whole.tolist()
    assert microseconds((whole / 1e6).astype(np.float32)).tolist() == whole.tolist()
    assert microseconds(np.array([0.5], np.float16)).tolist() == [500_000]
    assert microseconds(whole.astype(np.uint32)).dtype == np.int64


# ---- what is not there -------------------------------------------------------------------------

FOLDERS = [name for name in READERS if name != "digits"]


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_data_says_where_it_was_looked_for_and_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    table = {"name": name}
    monkeypatch.delenv("SNN_DEPLOY_DATA", raising=False)
    with refused(
        "SD101", rf"{name} is looked for in \[data\] path(.|\n)*fix: (download|.* npz|.*\.npz)"
    ):
        opened(**table)
    monkeypatch.setenv("SNN_DEPLOY_DATA", str(tmp_path))
    with refused("SD101", rf"{name}: no such folder(.|\n)*{name}(.|\n)*SNN_DEPLOY_DATA"):
        opened(**table)
    (tmp_path / name).mkdir()
    with refused("SD101", rf"{name}: no f(.|\n)*--> {tmp_path / name}(.|\n)*SNN_DEPLOY_DATA"):
        opened(**table)
    with refused("SD101", r"\[data\] path(.|\n)*--> none/such(.|\n)*current folder"):
        opened(**table, path="none/such")


def test_a_relative_path_begins_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = write_mnist(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNN_DEPLOY_DATA", "/nowhere")
    assert np.array_equal(everything(opened(name="mnist", path="here").train)[:, 0], images)


# ---- digits and idx ----------------------------------------------------------------------------


def test_digits() -> None:
    held = opened(name="digits", test=100)
    assert (len(held.train.labels), len(held.test.labels), held.classes) == (1297, 100, 10)
    assert (held.kind, held.shape, held.low, held.high) == ("constant", (1, 8, 8), 0.0, 16.0)
    both = np.concatenate([everything(held.train), everything(held.test)])
    assert both.dtype == np.float32
    assert (both.min(), both.max()) == (0, 16)
    with refused("SD104", r"^error\[SD104\]: \[data\] train: 1298 samples are more than the 1297"):
        opened(name="digits", train=1298)


def idx(array: Array) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, packed: bool = False) -> tuple[Array, Array]:
    """Files of random images, five to train on and three to test; returns those to train on."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("t10k", 3), ("train", 5)):
        images = rng.integers(0, 256, (count, 3, 4), np.uint8)
        labels = rng.integers(0, 7, count)
        for kind, content in (("images-idx3", idx(images)), ("labels-idx1", idx(labels))):
            path = folder / f"{name}-{kind}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return images, labels


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(tmp_path: Path, packed: bool) -> None:
    images, labels = write_mnist(tmp_path / "here", packed)
    held = opened(name="mnist", path=str(tmp_path / "here"))
    assert np.array_equal(everything(held.train)[:, 0], images)
    assert held.train.labels.tolist() == labels.tolist()
    assert (held.shape, len(held.test.labels)) == ((1, 3, 4), 3)
    assert held.classes == 1 + max(held.train.labels.max(), held.test.labels.max())
    cut = opened(name="mnist", path=str(tmp_path / "here"), train=2)
    assert np.array_equal(everything(cut.train)[:, 0], images[:2])
    assert cut.classes == held.classes


IMAGES = idx(np.zeros((5, 3, 4)))
BAD_IDX: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an idx file"),
    "of labels": (idx(np.zeros(5)), "in 3 dimensions"),
    "of floats": (b"\0\0\x0d\3" + IMAGES[4:], "not an idx file"),
    "cut header": (IMAGES[:9], "ends in its header"),
    "cut": (IMAGES[:-1], "claims 60 bytes, it holds 59"),
    "more": (IMAGES + b"\0", "claims 60 bytes, it holds 61"),
    "huge": (b"\0\0\x08\3" + b"\xff" * 12, "cannot hold"),
    "fewer": (idx(np.zeros((4, 3, 4))), "4 samples"),
    "none": (idx(np.zeros((0, 3, 4))), "one integer is needed"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", BAD_IDX)
def test_damaged_idx_files(tmp_path: Path, case: str, packed: bool) -> None:
    folder = tmp_path / "here"
    write_mnist(folder, packed)
    content, text = BAD_IDX[case]
    path = folder / ("train-images-idx3-ubyte" + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    with refused("SD401", text):
        opened(name="mnist", path=str(folder))


def test_damaged_gzip_files(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    write_mnist(folder, packed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:30], b"rubbish", whole[:-6] + b"\0" + whole[-5:]):
        path.write_bytes(content)
        with refused("SD401", "train-images-idx3-ubyte.gz"):
            opened(name="mnist", path=str(folder))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((3, 2, 2)))))
    path.write_bytes(whole)
    with refused("SD401", "another size"):
        opened(name="mnist", path=str(folder))


def test_mnist() -> None:
    data("mnist")
    held = opened(name="mnist")
    for split, name in ((held.train, "train"), (held.test, "t10k")):
        packed = data(f"mnist/{name}-images-idx3-ubyte.gz").read_bytes()
        pixels = np.frombuffer(gzip.decompress(packed), np.uint8, offset=16)
        assert np.array_equal(everything(split).reshape(-1), pixels)
    assert (len(held.train.labels), len(held.test.labels), held.classes) == (60000, 10000, 10)
    assert held.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert (held.shape, held.low, held.high) == ((1, 28, 28), 0.0, 255.0)


# ---- CIFAR -------------------------------------------------------------------------------------


def med_residuals(images: Array) -> Array:
    """Residuals [N, 3, H, W] of RGB images [N, H, W, 3], sample by sample, as ``med.py`` says."""
    count, height, width, _ = images.shape
    result = np.zeros((count, 3, height, width), np.uint8)
    for n in range(count):
        red, green, blue = (images[n, ..., c].astype(int) for c in range(3))
        planes = [green, (red - green + 128) % 256, (blue - green + 128) % 256]
        for number, plane in enumerate(planes):
            for y in range(height):
                for x in range(width):
                    if y and x:
                        a, b, c = plane[y, x - 1], plane[y - 1, x], plane[y - 1, x - 1]
                        if c >= max(a, b):
                            guess = min(a, b)
                        elif c <= min(a, b):
                            guess = max(a, b)
                        else:
                            guess = a + b - c
                    else:
                        guess = plane[y, x - 1] if x else plane[y - 1, x] if y else 128
                    error = (plane[y, x] - guess + 128) % 256 - 128
                    result[n, number, y, x] = 2 * error if error >= 0 else -2 * error - 1
    return result


def med_file(images: Array) -> bytes:
    size = np.array(images.shape[:3], "<u4").tobytes()
    return lzma.compress(b"MED1" + size + med_residuals(images).tobytes())


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_packed_images_are_unpacked_exactly(kind: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 6, 7, 3))
    if kind == "smooth":
        images = images // 64 + 12 * np.arange(7)[:, None] + 9 * np.arange(6)[:, None, None]
    images = images.astype(np.uint8)
    found = decode(med_residuals(images))
    assert np.array_equal(found.transpose(0, 2, 3, 1), images)


def noise(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def planes(images: Array) -> Array:
    return images.transpose(0, 3, 1, 2)


def write_packed(folder: Path) -> tuple[Array, Array]:
    """Two files to train on, one to test; images and labels of the former."""
    images, labels = noise(5), np.array([3, 1, 0, 9, 2], np.uint8)
    (folder / "train_1.med.xz").write_bytes(med_file(images[:3]))
    (folder / "train_2.med.xz").write_bytes(med_file(images[3:]))
    (folder / "test.med.xz").write_bytes(med_file(images[:1]))
    np.savez(folder / "labels.npz", train=labels, test=labels[:1], names=np.array(["a", "b"]))
    return images, labels


def test_packed_cifar(tmp_path: Path) -> None:
    images, labels = write_packed(tmp_path)
    held = opened(name="cifar10", path=str(tmp_path))
    assert np.array_equal(everything(held.train), planes(images))
    assert held.train.labels.tolist() == labels.tolist()
    assert (held.classes, held.shape, held.low, held.high) == (10, (3, 32, 32), 0.0, 255.0)
    (tmp_path / "train_2.med.xz").unlink()
    cut = opened(name="cifar10", path=str(tmp_path), train=2)  # what is not needed is not read
    assert np.array_equal(everything(cut.train), planes(images[:2]))
    with refused("SD101", "train_2.med.xz"):
        opened(name="cifar10", path=str(tmp_path))


def test_damaged_packed_cifar(tmp_path: Path) -> None:
    write_packed(tmp_path)
    path = tmp_path / "test.med.xz"
    whole = lzma.decompress(path.read_bytes())
    bad = {
        b"rubbish": "format",
        lzma.compress(b"MED2" + whole[4:]): "MED1",
        lzma.compress(whole[:8]): "MED1",
        lzma.compress(whole[:-1]): "it holds 3071",
        lzma.compress(whole + b"\0"): "it holds 3073",
        lzma.compress(whole[:4] + b"\xff" * 12): "at most 1 of 32x32",
        lzma.compress(whole)[:-40]: "ended",
    }
    for content, text in bad.items():
        path.write_bytes(content)
        with refused("SD401", rf"test\.med\.xz(.|\n)*{text}"):
            opened(name="cifar10", path=str(tmp_path))
    path.write_bytes(lzma.compress(whole))
    for labels, text in (
        ({"train": np.arange(5)}, "'test'"),
        ({"train": np.arange(5), "test": np.array([10])}, "not below 10"),
        ({"train": np.arange(5), "test": np.array([1, 1])}, "2 labels of test, but 1 images"),
    ):
        np.savez(tmp_path / "labels.npz", **labels)
        with refused("SD401", text):
            opened(name="cifar10", path=str(tmp_path))


def binary(images: Array, *labels: Array) -> bytes:
    parts = [*(label[:, None] for label in labels), planes(images).reshape(len(images), -1)]
    return np.concatenate(parts, axis=1).astype(np.uint8).tobytes()


def test_binary_cifar10(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = noise(10), np.arange(10)[::-1]
    for n in range(5):
        part = slice(2 * n, 2 * n + 2)
        (folder / f"data_batch_{n + 1}.bin").write_bytes(binary(images[part], labels[part]))
    (folder / "test_batch.bin").write_bytes(binary(images[:2], labels[:2]))
    for path in (tmp_path, folder):
        held = opened(name="cifar10", path=str(path))
        assert np.array_equal(everything(held.train), planes(images))
        assert held.train.labels.tolist() == labels.tolist()
    (folder / "data_batch_3.bin").unlink()
    cut = opened(name="cifar10", path=str(tmp_path), train=3)
    assert np.array_equal(everything(cut.train), planes(images[:3]))
    with refused("SD101", "data_batch_3.bin"):
        opened(name="cifar10", path=str(tmp_path))
    (folder / "data_batch_3.bin").write_bytes(binary(images[:2], labels[:2])[:-1])
    with refused("SD401", "data_batch_3.bin(.|\n)*records of 3073"):
        opened(name="cifar10", path=str(tmp_path))
    (folder / "data_batch_3.bin").write_bytes(binary(images[:2], labels[:2] + 10))
    with refused("SD401", "not below 10"):
        opened(name="cifar10", path=str(tmp_path))


def test_binary_cifar100_has_fine_labels(tmp_path: Path) -> None:
    images, fine = noise(4), np.array([99, 0, 55, 7])
    content = binary(images, np.arange(4), fine)
    (tmp_path / "train.bin").write_bytes(content)
    (tmp_path / "test.bin").write_bytes(content)
    held = opened(name="cifar100", path=str(tmp_path))
    assert np.array_equal(everything(held.train), planes(images))
    assert (held.train.labels.tolist(), held.classes) == (fine.tolist(), 100)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    for folder, name in (("cifar10", "data_batch_1"), ("cifar100", "train")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(pickle.dumps({b"data": 1}))
        with refused("SD101", r"pickles run code and are never read(.|\n)*binary version"):
            opened(name=folder, path=str(tmp_path / folder))


CIFAR_DIGESTS = {
    "cifar10": {
        "train": [
            "fc115a3de050d667b88cbd5b0b9612ebf996c54230fe7758f3a14bb5af9a1c27",
            "89e609b642f687bc796fa3bfa4211005582a0e8131d463d996d11ddb297d312e",
            "93a365823e61729490a8801d80864ccd0ab1e8c98f19d71af65644d1c5f1486e",
            "809eb95ecd057a36516318f5023ea619009dd70dd38193db9da43125a928e6fa",
            "d05b7d66d216d6df882cc760cdc0ff2f1f0437abf699ed16005c021ef0add9cb",
        ],
        "test": ["f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"],
    },
    "cifar100": {
        "train": ["903d017eff263b092a4799aedcffc09028f1385a06df0272a1f915b221d3402d"],
        "test": ["98d00159abcd07526bc87ffb6cd05ed72ff7714fa67fec7c05e439ece1d1cfe0"],
    },
}


@pytest.mark.parametrize("name", CIFAR_DIGESTS)
def test_cifar(name: str) -> None:
    data(name)
    held = opened(name=name)
    for key, digests in CIFAR_DIGESTS[name].items():
        split: Split = getattr(held, key)
        assert len(split.labels) == len(split.samples) == 10000 * len(digests)
        for n, digest in enumerate(digests):
            part = split.samples.batch(np.arange(10000 * n, 10000 * n + 10000))
            rows = np.ascontiguousarray(part.transpose(0, 2, 3, 1))
            assert hashlib.sha256(rows.data).hexdigest() == digest
        assert set(np.bincount(split.labels)) == {len(split.labels) // held.classes}


# ---- N-MNIST -----------------------------------------------------------------------------------


def bin_file(events: list[Event]) -> bytes:
    """Events as 40 bits each."""
    content = b""
    for t, x, y, p in events:
        content += bytes([x, y]) + (p << 23 | t).to_bytes(3, "big")
    return content


RANDOM = np.random.default_rng(3)
SOME: list[list[Event]] = [
    sorted(
        (int(t), int(x), int(y), int(p))
        for t, x, y, p in RANDOM.integers(0, (300_000, 34, 34, 2), (40, 4))
    )
    for _ in range(3)
]


def write_nmnist(folder: Path) -> None:
    """Files 1 to 3 of digits 7, 2, 7, the same to train and to test."""
    for part in ("Train", "Test"):
        for number, (digit, sample) in enumerate(zip((7, 2, 7), SOME, strict=True), 1):
            (folder / part / str(digit)).mkdir(parents=True, exist_ok=True)
            path = folder / part / str(digit) / f"{number:05}.bin"
            path.write_bytes(bin_file(sample))


def event_arrays(samples: list[list[Event]], labels: list[int]) -> dict[str, Any]:
    listing = listed(samples)
    return {
        "t": listing.t,
        "x": listing.x,
        "y": listing.y,
        "p": listing.p,
        "offsets": listing.offsets,
        "labels": np.array(labels),
    }


def test_official_folders_and_lists_are_the_same(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    (tmp_path / "lists").mkdir()
    for key in ("train", "test3"):
        np.savez(tmp_path / "lists" / f"{key}.npz", **event_arrays(SOME, [7, 2, 7]))
    official = opened(10, name="nmnist", path=str(tmp_path), window=30)
    lists = opened(10, name="nmnist", path=str(tmp_path / "lists"), window=30)
    expected = np.stack(
        [plainly(s, 10, lambda t, _: t // 30_000, lambda x, y: (y, x), (2, 34, 34)) for s in SOME]
    )
    for held in (official, lists):
        for split in (held.train, held.test):
            assert np.array_equal(everything(split), expected)
            assert split.labels.tolist() == [7, 2, 7]
        assert (held.classes, held.kind, held.shape) == (10, "spikes", (2, 34, 34))
        assert (held.low, held.high) == (0.0, 1.0)
    assert official.train.samples.batch(np.zeros(0, np.int64)).shape == (0, 10, 2, 34, 34)


def test_sensors_are_shrunk(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    for options, (height, width), where in (
        ({"scale": 3}, (12, 12), lambda x, y: (y // 3, x // 3)),
        ({"size": 8}, (8, 8), lambda x, y: (y * 8 // 34, x * 8 // 34)),
        ({"size": [5, 40]}, (5, 40), lambda x, y: (y * 5 // 34, x * 40 // 34)),
    ):
        held = opened(10, name="nmnist", path=str(tmp_path), window=30, **options)
        shape = (2, height, width)
        expected = [plainly(s, 10, lambda t, _: t // 30_000, where, shape) for s in SOME]
        assert held.shape == shape
        assert np.array_equal(everything(held.test), np.stack(expected))


@pytest.mark.parametrize("name", ["nmnist", "dvsgesture", "one file", "events", "shd"])
def test_only_training_samples_start_at_random(tmp_path: Path, name: str) -> None:
    table: dict[str, Any] = {"path": str(tmp_path), "random_start": True, "window": 20}
    if name == "nmnist":
        write_nmnist(tmp_path)
    elif name == "shd":
        table["window"] = 200
        for key in ("train", "test"):
            write_shd(tmp_path / f"shd_{key}.h5")
    elif name == "one file":
        name = "dvsgesture"
        table |= {"train": 1, "test": 2}
        np.savez(tmp_path / "dvsgesture.npz", **event_arrays(SOME, [0, 4, 0]))
    else:
        write_events(tmp_path)
    held = opened(3, name=name, **table)
    torch.manual_seed(0)
    assert not np.array_equal(everything(held.train), everything(held.train))
    for _ in range(3):
        plain = opened(3, name=name, **{**table, "random_start": False})
        assert np.array_equal(everything(held.test), everything(plain.test))


def test_overflows_of_event_times(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(
        bin_file([(5, 1, 2, 1), (0, 0, 240, 0), (6, 3, 4, 0), (0, 0, 240, 0), (7, 0, 0, 1)])
    )
    x, y, p, t = read_bin(path)
    assert t.tolist() == [5, 6 + 8192, 7 + 2 * 8192]
    assert (x.tolist(), y.tolist(), p.tolist()) == ([1, 3, 0], [2, 4, 0], [1, 0, 1])


def test_damaged_event_files(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    path = tmp_path / "Train" / "7" / "00001.bin"
    for content, text in ((b"1234", "records of 5"), (bin_file([(0, 34, 0, 0)]), "34x34")):
        path.write_bytes(content)
        held = opened(name="nmnist", path=str(tmp_path))
        with refused("SD401", rf"00001\.bin(.|\n)*{text}"):
            held.train.samples.batch(np.array([0]))
    path.unlink()
    with refused("SD101", r"00001\.bin"):
        held.train.samples.batch(np.array([0]))
    path.with_name("some.bin").touch()
    with refused("SD401", "not a number"):
        opened(name="nmnist", path=str(tmp_path))
    for other in (tmp_path / "Train").rglob("*.bin"):
        other.unlink()
    with refused("SD101", "no files <digit>/<number>.bin"):
        opened(name="nmnist", path=str(tmp_path))


def test_a_published_event_file(tmp_path: Path) -> None:
    packed = data("event_recordings/nmnist_sample.bin.xz").read_bytes()
    path = tmp_path / "a.bin"
    path.write_bytes(lzma.decompress(packed))
    x, y, p, t = read_bin(path)
    assert {len(x), len(y), len(p), len(t)} == {4325}
    assert (np.diff(t) >= 0).all()
    assert 250_000 < t[-1] < 350_000


def test_nmnist() -> None:
    data("nmnist_small")
    held, digits = opened(300, name="nmnist", window=1), opened(name="mnist")
    assert (len(held.train.labels), len(held.test.labels)) == (1000, 100)
    assert np.array_equal(held.train.labels, digits.train.labels[:1000])
    assert np.array_equal(held.test.labels, digits.test.labels[:100])
    with np.load(data("nmnist_small/test100.npz")) as file:
        stored = {name: file[name].astype(np.int64) for name in file.files}
    for k in (0, 99):
        part = slice(stored["offsets"][k], stored["offsets"][k + 1])
        t = np.cumsum(stored["dt"][part])
        sample = list(zip(t, *(stored[axis][part] for axis in "xyp"), strict=True))
        expected = plainly(sample, 300, lambda t, _: t // 1000, lambda x, y: (y, x), (2, 34, 34))
        assert np.array_equal(held.test.samples.batch(np.array([k]))[0], expected)
    small = opened(10, name="nmnist", size=17, polarity="merge", train=3)
    assert everything(small.train).shape == (3, 10, 1, 17, 17)
    assert everything(small.train)[:, -1].any()  # the whole duration is used


# ---- DVS128 Gesture ----------------------------------------------------------------------------


def test_recordings_without_a_split_of_their_own() -> None:
    data("dvsgesture_10")
    table: dict[str, Any] = {"name": "dvsgesture", "window": 25, "scale": 4}
    for options in ({}, {"train": 5}, {"test": 5}, {"train": 5, "test": 6}):
        with refused(
            "SD104", r"^error\[SD104\]: \[data\] train: the 10 recordings(.|\n)*set train"
        ):
            opened(20, **table, **options)
    held = opened(20, **table, train=7, test=3, random_start=True)
    assert held.train.labels.tolist() == list(range(7))
    assert held.test.labels.tolist() == [7, 8, 9]
    assert (held.classes, held.shape) == (11, (2, 32, 32))
    assert not np.array_equal(everything(held.train), everything(held.train))
    assert np.array_equal(everything(held.test), everything(held.test))
    with np.load(data("dvsgesture_10/dvsgesture_10.npz")) as file:
        stored = {name: file[name].astype(np.int64) for name in file.files}
    part = slice(stored["offsets"][8], stored["offsets"][9])
    sample = list(
        zip(np.cumsum(stored["dt"][part]), *(stored[axis][part] for axis in "xyp"), strict=True)
    )
    expected = plainly(
        sample, 20, lambda t, _: t // 25_000, lambda x, y: (y // 4, x // 4), (2, 32, 32)
    )
    assert np.array_equal(everything(held.test)[1], expected)


def test_gestures_with_a_split(tmp_path: Path) -> None:
    for key, labels in (("train", [0, 1, 10]), ("test", [10, 5, 6])):
        np.savez(tmp_path / f"{key}.npz", **event_arrays(SOME, labels))
    held = opened(name="dvsgesture", path=str(tmp_path), test=2)
    assert held.train.labels.tolist() == [0, 1, 10]
    assert held.test.labels.tolist() == [10, 5]
    arrays = event_arrays(SOME, [0, 1, 11])
    np.savez(tmp_path / "train.npz", **arrays)
    with refused("SD401", "not below 11"):
        opened(name="dvsgesture", path=str(tmp_path))
    del arrays["p"]
    np.savez(tmp_path / "train.npz", **arrays)
    with refused("SD401", "no array 'p'"):
        opened(name="dvsgesture", path=str(tmp_path))
    np.savez(tmp_path / "train2.npz", **arrays)
    with refused("SD101", r"more than one train\*\.npz"):
        opened(name="dvsgesture", path=str(tmp_path))


# ---- anyone's events ---------------------------------------------------------------------------


def write_events(folder: Path, **changes: Any) -> None:
    """The same list to train and to test; ``None`` leaves an array out."""
    arrays = {**event_arrays(SOME, [0, 4, 0]), "sensor": np.array([34, 40]), **changes}
    for key in ("train", "test"):
        np.savez(folder / f"{key}.npz", **{k: v for k, v in arrays.items() if v is not None})


def test_anyones_events(tmp_path: Path) -> None:
    write_events(tmp_path)
    expected = np.stack(
        [
            plainly(s, 7, lambda t, _: t * 7 // 300_000, lambda x, y: (y, x), (2, 34, 40))
            for s in SOME
        ]
    )
    held = opened(7, name="events", path=str(tmp_path), duration=300)
    assert np.array_equal(everything(held.train), expected)
    assert (held.classes, held.shape) == (5, (2, 34, 40))
    merged = opened(7, name="events", path=str(tmp_path), duration=300, polarity="merge")
    assert np.array_equal(everything(merged.test), expected.max(axis=2, keepdims=True))
    other = opened(7, name="events", path=str(tmp_path), duration=300, sensor=[1, 50, 60])
    assert other.shape == (1, 50, 60)
    assert np.array_equal(
        everything(other.train)[..., :34, :40], expected.max(axis=2, keepdims=True)
    )


def test_events_in_other_types(tmp_path: Path) -> None:
    """Seconds, −1 and 1, a label array of another name, HDF5: all the same."""
    write_events(tmp_path)
    expected = everything(opened(7, name="events", path=str(tmp_path), duration=300).train)
    arrays = event_arrays(SOME, [0, 4, 0])
    seconds = arrays["t"] / 1e6
    write_events(tmp_path, t=seconds, p=arrays["p"].astype(np.int8) * 2 - 1)
    found = opened(7, name="events", path=str(tmp_path), duration=300)
    assert np.array_equal(everything(found.train), expected)
    write_events(tmp_path, labels=None, label=np.array([0, 4, 0], np.uint8), p=arrays["p"] > 0)
    found = opened(7, name="events", path=str(tmp_path), duration=300)
    assert np.array_equal(everything(found.train), expected)
    for key in ("train", "test"):
        (tmp_path / f"{key}.npz").unlink()
        with h5py.File(tmp_path / f"{key}.h5", "w") as file:
            for name, value in arrays.items():
                file[name] = value
            file["notes"] = "of no meaning"
    found = opened(7, name="events", path=str(tmp_path), duration=300, sensor=[34, 40])
    assert np.array_equal(everything(found.test), expected)


def test_events_on_a_line(tmp_path: Path) -> None:
    write_events(tmp_path, y=None, p=None, sensor=np.array([34]))
    held = opened(7, name="events", path=str(tmp_path), duration=300)
    assert held.shape == (34,)
    flat = [[(t, x, 0, 0) for t, x, _, _ in s] for s in SOME]
    expected = [
        plainly(s, 7, lambda t, _: t * 7 // 300_000, lambda x, y: (0, x), (1, 1, 34))[:, 0, 0]
        for s in flat
    ]
    assert np.array_equal(everything(held.train), np.stack(expected))
    write_events(tmp_path, y=None, sensor=np.array([34]))
    assert opened(7, name="events", path=str(tmp_path), duration=300).shape == (2, 1, 34)
    with refused("SD104", r"\[data\] size: \[2, 2\] for a sensor of \[34\]"):
        opened(7, name="events", path=str(tmp_path), size=[2, 2])


T = event_arrays(SOME, [0, 4, 0])["t"]
BAD_EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"labels": None}, "'labels'"),
    "no x": ({"x": None}, "'x'"),
    "no t": ({"t": None}, "'t'"),
    "no offsets": ({"offsets": None}, "'offsets'"),
    "two times": ({"dt": T}, "both"),
    "short": ({"x": np.zeros(119, int)}, r"x of shape \(119,\) for 120"),
    "few offsets": ({"offsets": np.array([0, 40, 120])}, "4 integers"),
    "falling offsets": ({"offsets": np.array([0, 80, 40, 120])}, "do not rise"),
    "late offsets": ({"offsets": np.array([1, 40, 80, 120])}, "do not rise"),
    "wrong end": ({"offsets": np.array([0, 40, 80, 121])}, "for 121 events"),
    "floating offsets": ({"offsets": np.array([0.0, 40, 80, 120])}, "4 integers"),
    "floating labels": ({"labels": np.array([0.0, 4, 0])}, "one integer"),
    "negative label": ({"labels": np.array([0, -1, 0])}, "labels from -1"),
    "huge label": ({"labels": np.array([0, 1 << 40, 0])}, "not below 65536"),
    "early": ({"t": T - 300_000}, "times from"),
    "of the clock": ({"t": T + (1 << 52)}, "beginning of the sample"),
    "not a time": ({"t": np.where(T > 0, np.nan, 0.0)}, "times from"),
    "half a time": ({"t": np.full(120, np.inf, np.float16)}, "times from"),
    "times as text": ({"t": np.array(["a"] * 120)}, "times of type"),
    "floating differences": ({"t": None, "dt": T / 1e6}, "times of type"),
    "long differences": ({"t": None, "dt": np.full(120, 1 << 49)}, "add up"),
    "x as text": ({"x": np.array(["a"] * 120)}, "x of type"),
    "x below 0": ({"x": np.full(120, -1)}, "x below 0"),
    "x outside": ({"x": np.full(120, 40)}, "event at x = 40, outside 40"),
    "y outside": ({"y": np.full(120, 34)}, "event at y = 34, outside 34"),
    "p of 2": ({"p": np.full(120, 2)}, "p: 1 is ON"),
    "p of 255": ({"p": np.full(120, 255, np.uint8)}, "p: 1 is ON"),
    "floating p": ({"p": np.ones(120)}, "p: 1 is ON"),
    "no y": ({"y": None}, "without y"),
    "a line": ({"sensor": np.array([40])}, "with y"),
    "sensor of 0": ({"sensor": np.array([0, 40])}, "sensor: "),
    "sensor of 4": ({"sensor": np.array([2, 2, 2, 2])}, "sensor: "),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_damaged_event_lists(tmp_path: Path, case: str) -> None:
    changes, text = BAD_EVENTS[case]
    write_events(tmp_path, **changes)
    with refused("SD401", rf"t(rain|est)\.npz(.|\n)*{text}"):
        opened(name="events", path=str(tmp_path))


def test_event_lists_that_do_not_fit_the_options(tmp_path: Path) -> None:
    write_events(tmp_path, sensor=None)
    with refused("SD104", r"^error\[SD104\]: \[data\] sensor: the file does not say"):
        opened(name="events", path=str(tmp_path))
    with refused("SD104", r"^error\[SD104\]: \[data\] sensor: 3 polarities"):
        opened(name="events", path=str(tmp_path), sensor=[3, 34, 34])
    with refused("SD104", r"^error\[SD104\]: \[model\] timesteps: 5000"):
        opened(5000, name="events", path=str(tmp_path), sensor=[34, 34])
    write_events(tmp_path, t=T * 1_000_000)  # picoseconds
    with refused("SD104", r"^error\[SD104\]: \[data\] window: no event(.|\n)*microseconds"):
        opened(name="events", path=str(tmp_path), duration=0.1)
    write_events(tmp_path)
    arrays = {**event_arrays(SOME, [0, 4, 0]), "sensor": np.array([34, 41])}
    np.savez(tmp_path / "test.npz", **arrays)
    with refused("SD401", "that of train"):
        opened(name="events", path=str(tmp_path))


def test_pickled_events_are_refused(tmp_path: Path) -> None:
    write_events(tmp_path, t=np.array([T, T[:1]], object))
    with refused("SD402", "pickle"):
        opened(name="events", path=str(tmp_path))


# ---- SHD ---------------------------------------------------------------------------------------

UNITS = [[0, 699, 350, 350], [], [7], [1, 2, 3]]
TIMES = [[0.0, 0.25, 0.5, 0.5], [], [1.25], [0.125, 0.75, 0.9375]]


def write_shd(
    path: Path, times: Any = TIMES, units: Any = UNITS, labels: Any = (0, 19, 5, 5)
) -> None:
    """A file in the layout of the published ones."""
    with h5py.File(path, "w") as file:
        file["labels"] = np.array(labels, np.uint16)
        spikes = file.create_group("spikes")
        for name, lists, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            item = spikes.create_dataset(name, (len(lists),), h5py.vlen_dtype(kind))
            for n, values in enumerate(lists):
                item[n] = np.array(values, kind)
        extra = file.create_group("extra")
        extra["keys"] = np.array(["zero", "null"], h5py.string_dtype())
        extra["speaker"] = np.arange(4, dtype=np.uint16)


def test_shd(tmp_path: Path) -> None:
    for key in ("train", "test"):
        write_shd(tmp_path / f"shd_{key}.h5")
    held = opened(8, name="shd", path=str(tmp_path))
    expected = np.zeros((4, 8, 700), np.uint8)
    for n, (times, units) in enumerate(zip(TIMES, UNITS, strict=True)):
        for time, unit in zip(times, units, strict=True):
            if time < 1:
                expected[n, int(time * 8), unit] = 1
    assert np.array_equal(everything(held.train), expected)
    assert np.array_equal(everything(held.test), expected)
    assert held.train.labels.tolist() == [0, 19, 5, 5]
    assert (held.classes, held.kind, held.shape) == (20, "spikes", (700,))
    fewer = opened(8, name="shd", path=str(tmp_path), scale=5, window=250)
    assert fewer.shape == (140,)
    assert np.argwhere(everything(fewer.test)).tolist() == [
        [0, 0, 0], [0, 1, 139], [0, 2, 70], [2, 5, 1], [3, 0, 0], [3, 3, 0],
    ]  # fmt: skip


def objects(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["spikes/times"]
        file["spikes"].create_dataset("times", data=["0.5"] * 4, dtype=h5py.string_dtype())


def linked(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["spikes"]
        file["spikes"] = h5py.ExternalLink("other.h5", "/spikes")


def plain(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["spikes/units"]
        file["spikes/units"] = np.zeros(8, np.uint16)


def without_units(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["spikes/units"]


def whole_times(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["spikes/times"]
        item = file["spikes"].create_dataset("times", (4,), h5py.vlen_dtype(np.int64))
        for n, values in enumerate(UNITS):
            item[n] = np.array(values)


BAD_SHD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "rubbish": (lambda p: p.write_bytes(b"rubbish"), "SD401", "not a readable HDF5 file"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "SD401", "not a readable HDF5 file"),
    "units outside": (
        lambda p: write_shd(p, units=[[700] * 4, [], [7], [1, 2, 3]]),
        "SD401",
        "700",
    ),
    "unequal": (
        lambda p: write_shd(p, units=[[0], [], [7], [1, 2, 3]]),
        "SD401",
        "not of one length",
    ),
    "fewer labels": (lambda p: write_shd(p, labels=[1]), "SD401", "2 integers are needed"),
    "label 20": (lambda p: write_shd(p, labels=[20, 0, 0, 0]), "SD401", "not below 20"),
    "early": (lambda p: write_shd(p, times=[[-1.0] * 4, *TIMES[1:]]), "SD401", "times from -1.0"),
    "endless": (lambda p: write_shd(p, times=[[np.inf] * 4, *TIMES[1:]]), "SD401", "to inf"),
    "objects": (objects, "SD401", "spikes/times: not numbers"),
    "link": (linked, "SD402", "a link out of its place: /spikes"),
    "plain": (plain, "SD401", "one list for each sample"),
    "no units": (without_units, "SD401", "it has no spikes/units"),
    "whole times": (whole_times, "SD401", "not seconds"),
    "gone": (lambda p: p.unlink(), "SD101", "no file shd_train.h5"),
    "packed": (lambda p: p.rename(f"{p}.gz"), "SD101", "only packed as .gz"),
}


@pytest.mark.parametrize("case", BAD_SHD)
def test_damaged_shd(tmp_path: Path, case: str) -> None:
    damage, code, text = BAD_SHD[case]
    path = tmp_path / "shd_train.h5"
    write_shd(path)
    damage(path)
    with refused(code, text):
        opened(name="shd", path=str(tmp_path))


def test_lists_that_claim_more_than_the_bound_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every list is the same place of the file, counted again and again."""
    path = tmp_path / "shd_train.h5"
    with h5py.File(path, "w") as file:
        file["labels"] = np.zeros(1000, np.uint16)
        item = file.create_dataset("spikes/times", (1000,), h5py.vlen_dtype(np.float32))
        for n in range(1000):
            item[n] = np.zeros(5_000 if n == 0 else 1, np.float32)
        table = item.id.get_offset()
    content = bytearray(path.read_bytes())
    content[table : table + 16_000] = content[table : table + 16] * 1000
    path.write_bytes(content)
    lists = read_ragged(path, ["spikes/times"])
    assert lists["spikes/times"].shape == (5_000_000,)
    assert lists["spikes/times.offsets"].tolist() == list(range(0, 5_005_000, 5_000))
    del lists
    monkeypatch.setattr("snn_deploy.events.ragged.MAX_BYTES", 1_000_000)
    with refused("SD402", "spikes/times: lists of more than"):
        opened(name="shd", path=str(tmp_path))
    monkeypatch.setattr("snn_deploy.events.ragged.MAX_BYTES", 1000)
    with refused("SD402", "labels: more than"):
        opened(name="shd", path=str(tmp_path))


# ---- Braille -----------------------------------------------------------------------------------


def write_braille(path: Path, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "spikes": rng.integers(0, 2, (6, 12, 4), np.uint8),
        "label": np.arange(6, dtype=np.uint8),
        "val_split_index": np.array([[4, 1], [0, 1]], np.uint16),
        **changes,
    }
    np.savez(path, **arrays)
    return arrays


def test_braille_letters(tmp_path: Path) -> None:
    path = tmp_path / "braille7_th1_or.npz"
    spikes = write_braille(path)["spikes"]
    for place in (tmp_path, path):
        held = opened(4, name="braille", path=str(place))
        joined = np.stack([spikes[:, 3 * k : 3 * k + 3].any(axis=1) for k in range(4)], axis=1)
        assert np.array_equal(everything(held.test), joined[[4, 1]])
        assert np.array_equal(everything(held.train), joined[[0, 2, 3, 5]])
        assert held.train.labels.tolist() == [0, 2, 3, 5]
        assert (held.classes, held.shape) == (7, (4,))
    early = opened(3, name="braille", path=str(path), window=10)
    expected = np.stack([spikes[:, 2 * k : 2 * k + 2].any(axis=1) for k in range(3)], axis=1)
    assert np.array_equal(everything(early.train), expected[[0, 2, 3, 5]])
    for timesteps in (5, 24):
        with refused("SD104", rf"^error\[SD104\]: \[model\] timesteps: {timesteps} do not divide"):
            opened(timesteps, name="braille", path=str(path))
    for window, timesteps in ((7, 1), (15, 5), (5, 13)):
        with refused("SD104", r"^error\[SD104\]: \[data\] window: (.|\n)*multiple of 5 ms"):
            opened(timesteps, name="braille", path=str(path), window=window)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"spikes": np.zeros((6, 12))}, "spikes of shape"),
        ({"spikes": np.full((6, 12, 4), 2)}, "neither 0 nor 1"),
        ({"label": np.full(6, 7)}, "not below 7"),
        ({"val_split_index": np.array([[6, 1]])}, "some of the samples"),
        ({"val_split_index": np.array([[1, 1]])}, "some of the samples"),
        ({"val_split_index": np.array([4, 1])}, "rows of sample numbers"),
    ]
    for changes, text in bad:
        write_braille(path, **changes)
        with refused("SD401", text):
            opened(name="braille", path=str(path))


def test_braille() -> None:
    data("braille")
    held = opened(256, name="braille")
    with np.load(data("braille/braille7_th1_or.npz")) as file:
        spikes, label, chosen = (file[k] for k in ("spikes", "label", "val_split_index"))
    assert (len(held.train.labels), len(held.test.labels)) == (878, 280)
    assert np.array_equal(everything(held.test), spikes[chosen[0]])
    assert np.array_equal(held.test.labels, label[chosen[0]])
    assert int(everything(held.train).sum() + everything(held.test).sum()) == spikes.sum()


# ---- anyone's rasters --------------------------------------------------------------------------


def write_raster(folder: Path, train: dict[str, Any], test: dict[str, Any] | None = None) -> None:
    np.savez(folder / "train.npz", **train)
    np.savez(folder / "test.npz", **(train if test is None else test))


def test_anyones_spikes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spikes = rng.integers(0, 2, (5, 6, 2, 3), np.uint8)
    labels = np.array([0, 1, 2, 1, 0])
    write_raster(
        tmp_path,
        {"spikes": spikes, "labels": labels},
        {"NAME.spikes": spikes[:2] > 0, "labels": np.array([3, 0], np.uint8)},
    )
    held = opened(6, name="raster", path=str(tmp_path))
    assert np.array_equal(everything(held.train), spikes)
    assert np.array_equal(everything(held.test), spikes[:2])
    assert (held.classes, held.kind, held.shape) == (4, "spikes", (2, 3))
    assert (held.low, held.high) == (0.0, 1.0)
    joined = opened(3, name="raster", path=str(tmp_path), train=4)
    assert np.array_equal(everything(joined.train), (spikes[:4, ::2] | spikes[:4, 1::2]))
    with refused("SD104", "4 do not divide the 6"):
        opened(4, name="raster", path=str(tmp_path))


def test_anyones_values(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    labels = np.array([0, 1, 1])
    write_raster(tmp_path, {"values": values, "labels": labels})
    held = opened(name="raster", path=str(tmp_path))
    assert everything(held.train).dtype == np.uint8
    assert np.array_equal(everything(held.train), values)
    assert (held.classes, held.kind, held.shape) == (2, "constant", (4,))
    assert (held.low, held.high) == (0.0, 11.0)
    other = {"values": values - 2.5, "labels": labels}
    write_raster(tmp_path, {"values": values, "labels": labels}, other)
    held = opened(name="raster", path=str(tmp_path))
    assert everything(held.train).dtype == everything(held.test).dtype == np.float32
    assert np.array_equal(everything(held.test), (values - 2.5).astype(np.float32))
    assert (held.low, held.high) == (-2.5, 11.0)


LABELS = np.array([0, 1])
BAD_RASTERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no labels": ({"values": np.zeros((2, 3))}, "SD103", "labels, are needed"),
    "no samples": ({"labels": LABELS}, "SD103", "neither"),
    "two inputs": (
        {"a.values": np.zeros((2, 3)), "b.values": np.zeros((2, 3)), "labels": LABELS},
        "SD103",
        "one array",
    ),
    "few labels": ({"values": np.zeros((3, 3)), "labels": LABELS}, "SD103", "3 in all"),
    "negative label": ({"values": np.zeros((2, 3)), "labels": -LABELS}, "SD401", "labels from -1"),
    "flat": ({"spikes": np.zeros((2, 4)), "labels": LABELS}, "SD401", "spikes of shape"),
    "twos": ({"spikes": np.full((2, 4, 1), 2), "labels": LABELS}, "SD401", "neither 0 nor 1"),
    "text": ({"values": np.array([["a"]] * 2), "labels": LABELS}, "SD401", "values of type"),
    "endless": ({"values": np.full((2, 3), np.inf), "labels": LABELS}, "SD403", "not finite"),
    "too large": ({"values": np.full((2, 3), 1e300), "labels": LABELS}, "SD403", "not finite"),
}


@pytest.mark.parametrize("case", BAD_RASTERS)
def test_damaged_rasters(tmp_path: Path, case: str) -> None:
    arrays, code, text = BAD_RASTERS[case]
    write_raster(tmp_path, arrays)
    with refused(code, rf"{text}"):
        opened(name="raster", path=str(tmp_path))


def test_rasters_that_differ(tmp_path: Path) -> None:
    values = {"values": np.zeros((2, 3)), "labels": LABELS}
    for other in (
        {"values": np.zeros((2, 4)), "labels": LABELS},
        {"spikes": np.zeros((2, 4, 3)), "labels": LABELS},
    ):
        write_raster(tmp_path, values, other)
        with refused("SD401", r"those of train are values"):
            opened(name="raster", path=str(tmp_path))
    for content in (b"", b"rubbish", (tmp_path / "train.npz").read_bytes()[:-30]):
        (tmp_path / "test.npz").write_bytes(content)
        with refused("SD401", r"test\.npz"):
            opened(name="raster", path=str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    path = tmp_path / "Train" / "7" / "00001.bin"
    path.chmod(0)
    with refused("SD101", "cannot read"):
        opened(name="nmnist", path=str(tmp_path)).train.samples.batch(np.array([0]))
