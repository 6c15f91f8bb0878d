"""Figures as people and programs read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy.reporting import joules, percent, plain, quantity, round_to


@pytest.mark.parametrize(
    ("picojoules", "text"),
    [
        (None, "unset"),
        (0, "0 pJ"),
        (0.5, "0.500 pJ"),
        (0.9994, "0.999 pJ"),
        (0.9996, "1.00 pJ"),
        (1, "1.00 pJ"),
        (23.6, "23.6 pJ"),
        (99.95, "100 pJ"),
        (999.4, "999 pJ"),
        (999.6, "1.00 nJ"),
        (1000, "1.00 nJ"),
        (1005, "1.00 nJ"),
        (1006, "1.01 nJ"),
        (999_499, "999 nJ"),
        (999_500.1, "1.00 uJ"),
        (12_567.5e6, "12.6 mJ"),
        (168.28e6, "168 uJ"),
        (1e12, "1.00 J"),
        (999e12, "999 J"),
        (999.6e12, "1,000 J"),
        (1e16, "10,000 J"),
    ],
)
def test_joules(picojoules: float | None, text: str) -> None:
    assert joules(picojoules) == text


@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.12345, 999.5, 123456.0, -2.5])
def test_round_to(value: float, digits: int) -> None:
    assert round_to(value, digits) == pytest.approx(value, rel=0.5 * 10 ** (1 - digits))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7.0, "7"),
        (7.25, "7.2"),
        (999.94, "999.9"),
        (1000.4, "1,000"),
        (1234567.0, "1,234,567"),
    ],
)
def test_quantity(value: float, text: str) -> None:
    assert quantity(value) == text


def test_percent() -> None:
    assert (percent(None), percent(0.0), percent(0.12345), percent(1)) == (
        "-",
        "0.00%",
        "12.35%",
        "100.00%",
    )


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    value: Any


def test_plain_survives_json() -> None:
    value = Part(
        "whole",
        {
            "parts": (Part("a", np.int64(7)), Part("b", np.float64(0.1))),
            "array": np.arange(6).reshape(2, 3),
            "flags": np.array([True, False]),
            "path": Path("model.pt"),
            3: [None, True, 1.5, "text"],
        },
    )
    data = plain(value)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data == {
        "name": "whole",
        "value": {
            "parts": [{"name": "a", "value": 7}, {"name": "b", "value": 0.1}],
            "array": [[0, 1, 2], [3, 4, 5]],
            "flags": [True, False],
            "path": "model.pt",
            "3": [None, True, 1.5, "text"],
        },
    }
    assert type(data["value"]["parts"][0]["value"]) is int


def test_plain_leaves_numbers_exact() -> None:
    value = 0.1 + 0.2
    assert json.loads(json.dumps(plain({"x": value, "n": 2**60})))["x"] == value
