"""Augmentation: every outcome is one of those that can be enumerated, each about as often."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn import augment as module
from snn_deploy.nn.augment import Augment, parse_augment, shifted
from snn_deploy.nn.autoaugment import OPERATIONS, POLICY
from tests.helpers.refusals import refused

Array = np.ndarray

EVERY: list[dict[str, Any]] = [
    {"type": "crop", "padding": 4},
    {"type": "flip"},
    {"type": "autoaugment"},
    {"type": "cutout", "size": 16},
    {"type": "cutout", "size": 3, "fill": [1, 2.5, 3]},
    {"type": "shift", "pixels": 1},
    {"type": "roll", "pixels": 5},
]


def step(**table: Any) -> Augment:
    return parse_augment([table], "a test")


def image(channels: int = 2, height: int = 4, width: int = 5) -> Array:
    """Every pixel a number of its own, none of them 0."""
    count = channels * height * width
    return np.arange(1, count + 1, dtype=np.uint8).reshape(channels, height, width)


def moved(start: Array, down: int, right: int, cyclic: bool = False) -> Array:
    """An image [C, H, W] moved, zeros or the other side moving in."""
    result = np.zeros_like(start)
    height, width = start.shape[1:]
    for y in range(height):
        for x in range(width):
            if cyclic or (0 <= y - down < height and 0 <= x - right < width):
                result[:, y, x] = start[:, (y - down) % height, (x - right) % width]
    return result


def holed(start: Array, top: int, left: int, size: int, fill: Array) -> Array:
    """An image [C, H, W] with a square of other values."""
    result = start.copy()
    for y, x in itertools.product(range(start.shape[1]), range(start.shape[2])):
        if top <= y < top + size and left <= x < left + size:
            result[:, y, x] = fill
    return result


WAYS = list(itertools.product((-1, 0, 1), (-1, 0, 1)))
CASES: dict[str, tuple[dict[str, Any], Callable[[Array], list[Array]]]] = {
    "shift": ({"pixels": 1}, lambda start: [moved(start, *way) for way in WAYS]),
    "crop": ({"padding": 1}, lambda start: [moved(start, *way) for way in WAYS]),
    "roll": ({"pixels": 1}, lambda start: [moved(start, *way, cyclic=True) for way in WAYS]),
    "flip": ({}, lambda start: [start, start[:, :, ::-1]]),
    "cutout": (
        {"size": 3, "fill": [7, 9]},
        lambda start: [
            holed(start, y - 1, x - 1, 3, np.array([7, 9])) for y in range(4) for x in range(5)
        ],
    ),
    "even cutout": (
        {"size": 2},
        lambda start: [
            holed(start, y - 1, x - 1, 2, np.zeros(2)) for y in range(4) for x in range(5)
        ],
    ),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_every_sample_is_augmented_on_its_own(case: str, dtype: torch.dtype) -> None:
    options, outcomes = CASES[case]
    augment = step(type=case.split()[-1], **options)
    expected = [outcome.tobytes() for outcome in outcomes(image())]
    assert len(set(expected)) == len(expected)
    count = 40 * len(expected)
    batch = torch.from_numpy(np.repeat(image()[None], count, axis=0)).to(dtype)
    before = batch.clone()
    torch.manual_seed(0)
    out = augment(batch)
    assert torch.equal(batch, before)  # what is given is not changed
    assert (out.dtype, out.shape) == (batch.dtype, batch.shape)
    times = Counter(sample.tobytes() for sample in out.to(torch.uint8).numpy())
    assert set(times) == set(expected)
    assert min(times.values()) >= 22  # each is drawn 40 times in the mean
    torch.manual_seed(0)
    assert torch.equal(augment(batch), out)


@pytest.mark.parametrize("case", CASES)
def test_all_timesteps_of_a_sample_are_augmented_alike(case: str) -> None:
    options, _ = CASES[case]
    if "fill" in options:
        options = {**options, "fill": [1, 0]}
    augment = step(type=case.split()[-1], **options)
    torch.manual_seed(0)
    spikes = torch.randint(2, (50, 3, 2, 4, 5), dtype=torch.uint8)
    torch.manual_seed(1)
    out = augment(spikes)
    assert (out.dtype, out.shape) == (torch.uint8, spikes.shape)
    differing = 0
    for n in range(50):  # the same draws, a timestep at a time
        for t in range(3):
            torch.manual_seed(1)
            alone = augment(spikes[:, t])
            assert torch.equal(out[n, t], alone[n])
        differing += not torch.equal(out[n], spikes[n])
    assert differing >= 15


def test_images_are_shifted_each_on_its_own() -> None:
    """The draws are those of the first release: a run that it began goes on."""
    start = np.arange(1, 2 * 4 * 5 + 1, dtype=np.float32).reshape(2, 4, 5)
    images = torch.from_numpy(np.repeat(start[None], 200, axis=0))
    torch.manual_seed(0)
    out = shifted(images, 1).numpy()
    torch.manual_seed(0)
    offset = torch.randint(0, 3, (2, 200, 1))[..., 0].numpy()
    for n in range(200):
        assert np.array_equal(out[n], moved(start, *(1 - offset[:, n])))
    assert shifted(images, 0) is images


def test_a_hole_in_whole_numbers_is_rounded() -> None:
    out = step(type="cutout", size=64, fill=2.6)(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    assert (out == 3).all()
    out = step(type="cutout", size=64, fill=2.5)(torch.zeros(3, 1, 4, 4))
    assert (out == 2.5).all()


def test_the_order_is_that_of_the_list() -> None:
    """A hole moves if the roll comes after it: then it may touch no border."""
    batch = torch.ones(300, 1, 5, 5)
    hole, roll = {"type": "cutout", "size": 5}, {"type": "roll", "pixels": 2}
    torch.manual_seed(0)
    first = parse_augment([hole, roll], "a test")(batch)
    torch.manual_seed(0)
    again = step(**roll)(step(**hole)(batch))
    torch.manual_seed(0)
    other = parse_augment([roll, hole], "a test")(batch)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_is_an_augmentation_too() -> None:
    batch = torch.ones(2, 3, 4, 4)
    before = torch.get_rng_state()
    for nothing in (None, []):
        augment = parse_augment(nothing, "a test")
        assert augment(batch) is batch
        assert augment.to_data() == []
        augment.require("spikes", (12,))
    assert torch.equal(torch.get_rng_state(), before)


# ---- AutoAugment -------------------------------------------------------------------------------


def picture(seed: int = 0) -> Array:
    """A smooth RGB image [3, 32, 32] that uses neither 0 nor 255."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(30, 200, (3, 4, 4)).repeat(8, axis=1).repeat(8, axis=2)
    return (rough + rng.integers(0, 20, (3, 32, 32))).astype(np.uint8)


def operated(name: str, pixels: Array, strength: float) -> Array:
    done = OPERATIONS[name](Image.fromarray(pixels.transpose(1, 2, 0)), strength)
    return np.asarray(done).transpose(2, 0, 1)


def test_the_policy_is_as_large_as_the_published_one() -> None:
    """Sums over the published table; its digest once it had been compared, number by number."""
    digest = hashlib.sha256(json.dumps(POLICY).encode()).hexdigest()
    assert digest == "9a50b9a12b929bd2725bf8418eda0c6d312236c61990f1bf8942a34d56c401a6"
    flat = [operation for row in POLICY for operation in row]
    assert (len(POLICY), len(flat)) == (25, 50)
    assert round(sum(10 * probability for _, probability, _ in flat)) == 265
    assert sum(strength for *_, strength in flat) == 267
    assert Counter(name for name, *_ in flat) == {
        "Equalize": 9,
        "AutoContrast": 7,
        "TranslateY": 5,
        "Color": 5,
        "Brightness": 4,
        "Sharpness": 5,
        "Invert": 3,
        "Solarize": 4,
        "ShearY": 2,
        "TranslateX": 2,
        "Contrast": 2,
        "Rotate": 1,
        "Posterize": 1,
    }


def luminance(pixels: Array) -> Array:
    """ITU-R 601-2, as Pillow states it, rounded as it does."""
    red, green, blue = pixels.astype(np.int64)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def blended(degenerate: Array, pixels: Array, factor: float) -> Array:
    return np.clip(degenerate + factor * (pixels.astype(float) - degenerate), 0, 255)


@pytest.mark.parametrize("strength", [-1.0, -2 / 9, 0.0, 4 / 9, 1.0])
def test_operations_on_colours(strength: float) -> None:
    pixels = picture()
    factor = 1 + 0.9 * strength
    found = {name: operated(name, pixels, strength) for name in OPERATIONS}
    assert np.array_equal(found["Invert"], 255 - pixels)
    bits = round(8 - 4 * abs(strength))
    assert np.array_equal(found["Posterize"], pixels >> (8 - bits) << (8 - bits))
    threshold = round(256 - 256 * abs(strength))
    assert np.array_equal(found["Solarize"], np.where(pixels >= threshold, 255 - pixels, pixels))
    low, high = (f(pixels, axis=(1, 2), keepdims=True).astype(float) for f in (np.min, np.max))
    stretched = (pixels - low) * 255 / (high - low)
    assert np.abs(found["AutoContrast"] - stretched).max() <= 1
    grey = luminance(pixels)
    expected = {
        "Brightness": blended(np.zeros(()), pixels, factor),
        "Color": blended(grey, pixels, factor),
        "Contrast": blended(np.floor(grey.mean() + 0.5), pixels, factor),
    }
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= 1, name
    if strength == 0:
        assert np.array_equal(found["Sharpness"], pixels)


def test_equalizing_makes_values_equally_frequent() -> None:
    """The cumulative histogram of each channel, in whole numbers as Pillow (and the paper) does."""
    pixels = picture()
    found = operated("Equalize", pixels, 0.5)
    for channel, result in zip(pixels, found, strict=True):
        histogram = np.bincount(channel.reshape(-1), minlength=256)
        part = (1024 - histogram[channel.max()]) // 255
        before = np.cumsum(histogram) - histogram
        assert np.array_equal(result, np.minimum((before + part // 2) // part, 255)[channel])


def test_sharpness_goes_both_ways() -> None:
    pixels = picture()

    def roughness(strength: float) -> float:
        found = operated("Sharpness", pixels, strength).astype(float)
        return float(np.abs(np.diff(found)).mean())

    assert roughness(-1) < roughness(-0.5) < roughness(0) < roughness(0.5) < roughness(1)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("strength", [0, 3, 9])
def test_operations_that_move_pixels(strength: int, side: int) -> None:
    """A white dot in the middle; where it goes, and that grey moves in."""
    part = side * strength / 9
    middle = np.zeros((3, 33, 33), np.uint8)
    middle[:, 16, 16] = 255
    offset = 150 / 331 * part * 33
    for name, axis in (("TranslateX", 2), ("TranslateY", 1)):
        found = operated(name, middle, part)
        (place,) = {tuple(spot) for spot in np.argwhere(found == 255)[:, 1:].tolist()}
        assert abs(place[axis - 1] - (16 - offset)) <= 0.5
        assert place[2 - axis] == 16
        grey = int((found == 128).all(axis=0).any(axis=2 - axis).sum())
        assert abs(grey - abs(offset)) <= 1
    line = np.zeros((3, 33, 33), np.uint8)
    line[:, 16] = 255
    for name, start, slope in (
        ("ShearX", line.transpose(0, 2, 1), 0.3 * part),
        ("ShearY", line, 0.3 * part),
        ("Rotate", line, np.tan(np.radians(30 * part))),
    ):
        found = operated(name, np.ascontiguousarray(start), part)
        found = found.transpose(0, 2, 1) if name == "ShearX" else found
        bright = np.where(found == 128, 0, found.astype(float))[0]
        for x in range(6, 28):  # what was level has this slope now
            column = bright[:, x]
            centre = (column * np.arange(33)).sum() / column.sum()
            reach = 16 - slope * (x - (16 if name == "Rotate" else 0))
            assert abs(centre - reach) <= 1.2, (name, x)


def outcomes(pixels: Array) -> set[bytes]:
    """All that the policy may make of an image."""
    found = set()
    for row in POLICY:
        ways = [
            [None, *((name, side * strength / 9) for side in (-1, 1))] for name, _, strength in row
        ]
        for way in itertools.product(*ways):
            done = pixels
            for choice in way:
                done = done if choice is None else operated(choice[0], done, choice[1])
            found.add(np.ascontiguousarray(done).tobytes())
    return found


def test_every_sample_draws_a_sub_policy_of_its_own() -> None:
    pixels = picture()
    possible = outcomes(pixels)
    batch = torch.from_numpy(np.repeat(pixels[None], 600, axis=0))
    torch.manual_seed(0)
    out = step(type="autoaugment")(batch)
    assert (out.dtype, out.shape) == (torch.uint8, batch.shape)
    times = Counter(sample.tobytes() for sample in out.numpy())
    assert set(times) <= possible
    assert len(times) > 60
    torch.manual_seed(0)
    assert torch.equal(step(type="autoaugment")(batch.float()), out.float())


def test_probabilities_are_those_of_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often each operation is applied, in 4000 images."""
    times: Counter[str] = Counter()

    def counted(name: str) -> Callable[[Image.Image, float], Image.Image]:
        def same(start: Image.Image, strength: float) -> Image.Image:
            times[f"{name} {strength * 9:+.0f}"] += 1
            return start

        return same

    for name in list(OPERATIONS):
        monkeypatch.setitem(OPERATIONS, name, counted(name))
    torch.manual_seed(0)
    batch = torch.zeros(4000, 3, 2, 2, dtype=torch.uint8)
    assert torch.equal(step(type="autoaugment")(batch), batch)
    expected: Counter[str] = Counter()
    for row in POLICY:
        for name, probability, strength in row:
            for side in (-1, 1):
                expected[f"{name} {side * strength:+.0f}"] += probability * 80
    for name, mean in expected.items():
        assert abs(times[name] - mean) <= 5 * mean**0.5 + 1, name
    assert set(times) <= set(expected)


# ---- recipes -----------------------------------------------------------------------------------


def test_what_a_recipe_says_is_kept() -> None:
    augment = parse_augment(EVERY, "a test")
    said = augment.to_data()
    assert said[3] == {"type": "cutout", "size": 16, "fill": [0.0]}
    assert said[4] == {"type": "cutout", "size": 3, "fill": [1.0, 2.5, 3.0]}
    assert said[:3] + said[5:] == EVERY[:3] + EVERY[5:]
    assert parse_augment(said, "a test") == augment
    assert parse_augment({"type": "flip"}, "a test") == parse_augment([{"type": "flip"}], "a test")


BAD: dict[str, tuple[Any, str]] = {
    "no list": ("flip", r"augment: a list of tables"),
    "a number": (3, r"augment: a list of tables"),
    "no table": (["flip"], r"augment\[0\]: 'flip' is not a table"),
    "no type": ([{}], r"augment\[0\]\.type: unknown augmentation None(.|\n)*shift, crop, flip"),
    "a list": ([{"type": ["flip"]}], r"augment\[0\]\.type: unknown augmentation \['flip'\]"),
    "unknown": ([{"type": "mixup"}], r"augment\[0\]\.type: unknown augmentation 'mixup'"),
    "no option": ([{"type": "flip", "p": 1}], r"augment\[0\]\.p: flip has no such option"),
    "other option": (
        [{"type": "flip"}, {"type": "crop", "pixels": 1}],
        r"augment\[1\]\.pixels: crop has no such option(.|\n)*padding",
    ),
    "none": ([{"type": "crop"}], r"augment\[0\]\.padding: None must be an integer"),
    "zero": ([{"type": "shift", "pixels": 0}], r"augment\[0\]\.pixels: 0 must"),
    "negative": ([{"type": "roll", "pixels": -1}], r"augment\[0\]\.pixels: -1 must"),
    "true": ([{"type": "roll", "pixels": True}], r"augment\[0\]\.pixels: True must"),
    "half": ([{"type": "cutout", "size": 1.5}], r"augment\[0\]\.size: 1\.5 must"),
    "huge": ([{"type": "shift", "pixels": 1 << 20}], r"augment\[0\]\.pixels: 1048576 must"),
    "fill": ([{"type": "cutout", "size": 1, "fill": "0"}], r"augment\[0\]\.fill: '0' must"),
    "no fill": ([{"type": "cutout", "size": 1, "fill": []}], r"augment\[0\]\.fill: \[\] must"),
    "nan": ([{"type": "cutout", "size": 1, "fill": float("nan")}], r"augment\[0\]\.fill: nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_recipes_are_refused_by_name(case: str) -> None:
    data, text = BAD[case]
    with pytest.raises(SnnDeployError, match=rf"^error\[SD104\]: \[data\] {text}") as caught:
        parse_augment(data, "recipe.toml")
    assert caught.value.where == "recipe.toml"
    assert caught.value.fix


def test_autoaugment_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with refused("SD107", r"augment\[1\]: autoaugment needs Pillow(.|\n)*pip install"):
        parse_augment([{"type": "flip"}, {"type": "autoaugment"}], "a test")
    parse_augment([{"type": "flip"}, {"type": "cutout", "size": 2}], "a test")


RGB = ("constant", (3, 32, 32), 0.0, 255.0)
EVENTS = ("spikes", (2, 34, 34), 0.0, 1.0)
UNFIT: dict[str, tuple[dict[str, Any], tuple[Any, ...], str]] = {
    "a line": (EVERY[1], ("spikes", (700,)), r"flip: it is for \[C, H, W\]"),
    "spikes": (EVERY[2], EVENTS, "autoaugment: it is for RGB"),
    "three channels of spikes": (EVERY[2], ("spikes", (3, 9, 9)), "autoaugment: it is for RGB"),
    "grey": (EVERY[2], ("constant", (1, 28, 28)), "autoaugment: it is for RGB"),
    "range": (EVERY[2], ("constant", (3, 8, 8), 0.0, 1.0), "from 0 to 255, these go from 0 to 1"),
    "channels": (EVERY[4], EVENTS, "cutout: fill has 3 values for 2 channels"),
    "no spike": ({"type": "cutout", "size": 1, "fill": 0.5}, EVENTS[:2], "0 or 1 among spikes"),
    "outside": ({"type": "cutout", "size": 1, "fill": 256}, RGB, "fill 256 lies outside"),
    "no zero": (EVERY[0], ("constant", (1, 8, 8), 0.5, 1.0), "crop: zeros move in"),
    "no zero either": (EVERY[5], ("constant", (1, 8, 8), -1.0, -0.5), "shift: zeros move in"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_augmentations_that_do_not_suit_the_samples(case: str) -> None:
    table, samples, text = UNFIT[case]
    augment = parse_augment([{"type": "flip"}] * (len(samples[1]) == 3) + [table], "a test")
    place = len(augment.steps) - 1
    with refused("SD104", rf"^error\[SD104\]: \[data\] augment\[{place}\]: (.|\n)*{text}"):
        augment.require(*samples)


def test_augmentations_that_suit_the_samples() -> None:
    parse_augment(EVERY, "a test").require(*RGB)
    parse_augment(EVERY, "a test").require(*RGB[:2])
    parse_augment([EVERY[n] for n in (0, 1, 3, 5, 6)], "a test").require(*EVENTS)


def test_the_order_of_the_paper_on_a_batch() -> None:
    batch = torch.from_numpy(np.stack([picture(seed) for seed in range(8)]))
    augment = parse_augment(EVERY[:4], "a test")
    state = torch.get_rng_state()
    out: Tensor = augment(batch)
    assert (out.dtype, out.shape) == (batch.dtype, batch.shape)
    assert (out == 0).flatten(1).any(1).all()  # the hole of every sample
    torch.set_rng_state(state)
    assert torch.equal(augment(batch), out)
