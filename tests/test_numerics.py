"""The integer norm, against exact fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor, trunc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_deploy import numerics
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.nets import integers

wide = st.integers(-(1 << 31), 1 << 31)


@given(value=wide, multiplier=st.integers(0, 4096))
def test_a_product_is_cut_toward_zero_or_downward(value: int, multiplier: int) -> None:
    exact = Fraction(value * multiplier, 4096)
    for rule, cut in (("multiply_truncate", trunc), ("multiply_floor", floor)):
        assert numerics.decayed(integers(value), integers(multiplier), rule, 12) == cut(exact)


@given(value=wide, shift=st.integers(0, 31))
def test_a_shifted_state_always_nears_zero(value: int, shift: int) -> None:
    left = int(numerics.decayed(integers(value), integers(shift), "shift_subtract", 12))
    lost = floor(Fraction(value, 2**shift))
    assert left == value - lost or (lost == 0 and left == value - 1)
    assert abs(left) < abs(value) or left == value == 0
    assert left * value >= 0  # and never crosses it


@pytest.mark.parametrize(
    ("rule", "value", "decay", "expected"),
    [
        ("multiply_truncate", -1, 4095, 0),
        ("multiply_truncate", 1, 4095, 0),
        ("multiply_truncate", -3, 2048, -1),
        ("multiply_truncate", 3, 2048, 1),
        ("multiply_truncate", -7, 4096, -7),
        ("multiply_truncate", 9, 0, 0),
        ("multiply_floor", -1, 1, -1),  # what is negative never gets to zero
        ("multiply_floor", -1, 0, 0),
        ("multiply_floor", 1, 4095, 0),
        ("multiply_floor", -3, 2048, -2),
        ("multiply_floor", 3, 2048, 1),
        ("multiply_floor", -7, 4096, -7),
        ("shift_subtract", 9, 0, 0),
        ("shift_subtract", -9, 0, 0),
        ("shift_subtract", 9, 2, 7),
        ("shift_subtract", -9, 2, -6),  # -9 >> 2 is -3
        ("shift_subtract", 3, 2, 2),  # the shift is 0: one unit all the same
        ("shift_subtract", 4, 2, 3),
        ("shift_subtract", -1, 2, 0),
        ("shift_subtract", 1, 31, 0),
        ("shift_subtract", 0, 5, 0),
    ],
)
def test_decay_of_small_values(
    rule: numerics.DecayRule, value: int, decay: int, expected: int
) -> None:
    found = numerics.decayed(integers([value, 0]), integers(decay), rule, 12)
    assert found.tolist() == [expected, 0]


@given(kept=st.floats(0, 1), rule=st.sampled_from(("multiply_truncate", "multiply_floor")))
def test_a_decay_field_keeps_the_nearest_share(kept: float, rule: numerics.DecayRule) -> None:
    field = int(numerics.decay_mantissa(np.array(kept), rule, 12))
    assert 0 <= field <= 4096
    assert abs(Fraction(field, 4096) - Fraction(kept)) <= Fraction(1, 8192)


@given(kept=st.one_of(st.floats(0, 1, exclude_max=True), st.integers(0, 40).map(lambda k: 2.0**-k)))
def test_a_shift_keeps_the_nearest_share(kept: float) -> None:
    """Shifts keep nothing, a half, three quarters ..., and none keeps all."""
    for share in {kept, 1 - kept} - {1.0}:
        field = int(numerics.decay_mantissa(np.array(share), "shift_subtract", 12))

        def error(shift: int, share: float = share) -> Fraction:
            return abs(1 - Fraction(1, 2**shift) - Fraction(share))

        assert field >= 0
        assert error(field) <= min(error(field + 1), error(max(field - 1, 0)))


@given(field=st.integers(0, 31), rule=st.sampled_from(get_args(numerics.DecayRule)))
def test_the_share_of_a_field_is_what_it_keeps(field: int, rule: numerics.DecayRule) -> None:
    share = numerics.kept_share(integers(field), rule, 5)
    assert numerics.decay_mantissa(share, rule, 5) == field
    large = 1 << 40
    assert numerics.decayed(integers(large), integers(field), rule, 5) == large * float(share)


def test_no_shift_keeps_everything() -> None:
    assert numerics.decay_mantissa(np.array([0.0, 0.5, 0.75]), "shift_subtract", 12).tolist() == [
        0, 1, 2,
    ]  # fmt: skip
    with pytest.raises(OverflowError, match="never decays"):
        numerics.decay_mantissa(np.array([0.5, 1.0]), "shift_subtract", 12)


@given(value=st.integers(-(1 << 62), 1 << 62), bits=st.integers(1, 64))
def test_wrap_is_twos_complement(value: int, bits: int) -> None:
    (found,) = numerics.wrap(integers([value]), bits).tolist()
    assert -(1 << (bits - 1)) <= found < 1 << (bits - 1)
    assert (found - value) % (1 << bits) == 0


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("saturate", [127, 127, -127, -127, 127, 5]),
        ("wrap", [127, -128, -128, 127, -56, 5]),
        ("wrap_once", [127, 128, 128, 127, 200, 5]),
    ],
)
def test_rules_of_overflow(rule: numerics.OverflowRule, expected: list[int]) -> None:
    values = integers([127, 128, -128, -129, 456, 5])
    assert numerics.limit(values, rule, 8).tolist() == expected


@pytest.mark.parametrize(
    ("comparator", "most", "expected"),
    [
        (">=", 1, [0, 1, 1, 1, 1, 1]),
        (">", 1, [0, 0, 1, 1, 1, 1]),
        (">=", 3, [0, 1, 1, 2, 2, 3]),
        (">", 3, [0, 0, 1, 1, 2, 3]),
        (">=", 255, [0, 1, 1, 2, 2, 6]),
    ],
)
def test_a_neuron_fires_again_while_it_reaches_the_threshold(
    comparator: numerics.Comparator, most: int, expected: list[int]
) -> None:
    """The threshold is 10, and 4 are subtracted: from 14 it fires at 14 and at 10."""
    membrane = integers([9, 10, 11, 14, 15, 33])
    found = numerics.spikes_fired(membrane, integers(10), 4, most, comparator)
    assert (found.tolist(), found.dtype) == (expected, np.int64)


@given(
    membrane=st.integers(-300, 300),
    threshold=st.integers(0, 50),
    amount=st.integers(1, 60),
    most=st.integers(1, 255),
    comparator=st.sampled_from((">", ">=")),
)
def test_spikes_are_those_of_a_loop(
    membrane: int, threshold: int, amount: int, most: int, comparator: numerics.Comparator
) -> None:
    left, times = membrane, 0
    while times < most and (left > threshold if comparator == ">" else left >= threshold):
        left, times = left - amount, times + 1
    found = numerics.spikes_fired(integers(membrane), integers(threshold), amount, most, comparator)
    assert found == times


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
        *(numerics.decayed(value, integers(3), rule, 12) for rule in get_args(numerics.DecayRule)),
        *(numerics.limit(value, rule, 3) for rule in get_args(numerics.OverflowRule)),
        numerics.spikes_fired(value, integers(1), 2, 3, ">"),
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
    assert LOIHI2.decay_limit == GENERIC.decay_limit == 4096
    assert replace(GENERIC, decay_bits=5).decay_limit == 32
    assert replace(GENERIC, decay_rule="shift_subtract").decay_limit == 31
