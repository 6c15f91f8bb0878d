"""The integer norm, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor, trunc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_deploy import numerics
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.nets import integers

wide = st.integers(-(1 << 31), 1 << 31)


@given(value=wide, multiplier=st.integers(0, 4096))
def test_decay_is_cut_toward_zero(value: int, multiplier: int) -> None:
    found = numerics.multiply_truncate(integers(value), integers(multiplier), 12)
    assert found == trunc(Fraction(value * multiplier, 4096))


@pytest.mark.parametrize(
    ("value", "multiplier", "expected"),
    [(-1, 4095, 0), (1, 4095, 0), (-3, 2048, -1), (3, 2048, 1), (-7, 4096, -7), (9, 0, 0)],
)
def test_decay_of_small_values(value: int, multiplier: int, expected: int) -> None:
    assert numerics.multiply_truncate(integers(value), integers(multiplier), 12) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (127, 127),
        (128, 128),  # as Lava: this edge stays,
        (129, -127),
        (-127, -127),
        (-128, 128),  # and this one turns
        (-129, 127),
        (500, 244),  # one turn only
        (-500, -244),
    ],
)
def test_wrap_is_one_turn(value: int, expected: int) -> None:
    assert numerics.wrap_once(integers([value, 1]), 8).tolist() == [expected, 1]


@pytest.mark.parametrize(
    ("value", "expected"), [(127, 127), (128, 127), (-127, -127), (-128, -127), (10**9, 127)]
)
def test_saturation_is_symmetric(value: int, expected: int) -> None:
    assert numerics.saturate(integers([value, -5]), 8).tolist() == [expected, -5]


@given(value=wide, bits=st.integers(0, 62))
def test_host_rounds_halves_up(value: int, bits: int) -> None:
    expected = floor(Fraction(value, 2**bits) + Fraction(1, 2))
    assert numerics.rounding_shift_right(integers(value), bits) == expected


def test_rounding_is_to_even() -> None:
    found = numerics.round_to_integer(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999, 1e15 + 0.5]))
    assert found.dtype == np.int64
    assert found.tolist() == [0, 2, 2, 0, -2, 2, 10**15]


def test_rules_keep_the_shape_and_the_type() -> None:
    value = integers(np.arange(-6, 6).reshape(3, 4))
    for found in (
        numerics.multiply_truncate(value, integers(1000), 12),
        numerics.wrap_once(value, 3),
        numerics.saturate(value, 3),
        numerics.rounding_shift_right(value, 1),
    ):
        assert (found.shape, found.dtype) == (value.shape, value.dtype)


def test_widths_of_the_formats() -> None:
    assert LOIHI2.membrane_limit == 8_388_607
    assert LOIHI2.bias_limit == 4095
    assert LOIHI2.threshold_limit == 131_071
    assert LOIHI2.first_layer_weight_limit == 32_767
    assert GENERIC.membrane_limit == GENERIC.bias_limit == 2_147_483_647
    assert GENERIC.first_layer_weight_limit == 127
