"""Dense weights of netx files as they act: cases whose outcome was seen in Lava."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snn_deploy.exporters.lava.encoding import effective_weights

from tests.helpers.refusals import refused

Weights = list[list[float]]


@pytest.mark.parametrize(
    ("written", "acts", "shift"),
    [
        # both signs: as written, odd weights too
        ([[3, -5]], [[3, -5]], 5),
        ([[127, -128]], [[127, -128]], 1),
        ([[128, -128]], [[128, -128]], 0),
        ([[254, -256]], [[254, -256]], 0),
        ([[253, -255]], [[253, -255]], 0),
        ([[1, -1]], [[1, -1]], 7),
        ([[4, 0, -4]], [[4, 0, -4]], 5),
        # one sign, within 8 bits, the largest no power of two below zero
        ([[1]], [[1]], 7),
        ([[255, 3]], [[255, 3]], 0),
        ([[0, 1]], [[0, 1]], 7),
        ([[-3, -7]], [[-3, -7]], 5),
        ([[-255, -1]], [[-255, -1]], 0),
        ([[0, -7]], [[0, -7]], 5),
        # clipped to the chip's range
        ([[255, -2]], [[254, -2]], 0),
        ([[400, -700]], [[254, -256]], 0),
        ([[2, -257]], [[2, -256]], 0),
        # a magnitude of 256 becomes 255, of which the lower bits are cut
        ([[-64, -2]], [[-62, -2]], 2),
        ([[-16, -8]], [[-8, -8]], 4),
        ([[0, -64]], [[0, -32]], 2),
        ([[-256, -1]], [[-255, -1]], 0),
        # alone, all of its bits
        ([[-256]], [[0]], 0),
        ([[-64, -64]], [[0, 0]], 2),
        ([[-1]], [[0]], 8),
        # one sign and too wide, or no positive weight and too many bits: nothing is left
        ([[256, 0]], [[0, 0]], -1),
        ([[300, 2]], [[0, 0]], -1),
        ([[-257, -2]], [[0, 0]], -1),
        ([[-300, 0]], [[0, 0]], -1),
        ([[0, -200, -1]], [[0, 0, 0]], 0),
        ([[0, -200, -2]], [[0, -200, -2]], 0),
        # fractions are cut toward zero before anything else
        ([[253.9999, -3.5]], [[253, -3]], 0),
        ([[255.5, 0.9]], [[255, 0]], 0),
        ([[-0.9, 2.0]], [[0, 2]], 6),
    ],
)
def test_weights_of_one_matrix(written: Weights, acts: list[list[int]], shift: int) -> None:
    found = effective_weights(np.array(written))
    assert found.weight.dtype == np.int64
    assert found.weight.tolist() == acts
    assert (found.shift, found.recurrent) == (shift, None)
    assert bool(found.notes) == (acts != written)


@pytest.mark.parametrize(
    ("weight", "recurrent", "acts", "recurrent_acts", "shift"),
    [
        # one shift for both, found from all weights
        ([[100, -3]], [[1]], [[100, -3]], [[1]], 1),
        ([[3, -5]], [[-20]], [[3, -5]], [[-20]], 3),
        ([[0, 0]], [[3]], [[0, 0]], [[3]], 6),
        ([[500, -2]], [[-300]], [[254, -2]], [[-256 + 1]], 0),
        # but one sign mode for each: lateral inhibition loses magnitude 256
        ([[64, -2]], [[-128]], [[64, -2]], [[-127]], 1),
        # and, if an odd weight asks for nine bits, all of it
        ([[201, -3]], [[-5]], [[201, -3]], [[0]], 0),
        ([[201, 3]], [[-5]], [[0, 0]], [[0]], 0),
        ([[200, 4]], [[-6]], [[200, 4]], [[-6]], 0),
    ],
)
def test_weights_with_recurrent_ones(
    weight: Weights,
    recurrent: Weights,
    acts: list[list[int]],
    recurrent_acts: list[list[int]],
    shift: int,
) -> None:
    found = effective_weights(np.array(weight), np.array(recurrent))
    assert found.recurrent is not None
    assert (found.weight.tolist(), found.recurrent.tolist()) == (acts, recurrent_acts)
    assert found.shift == shift
    said = " ".join(found.notes)
    assert ("recurrent weights act" in said) == (recurrent_acts != recurrent)


def test_notes_say_what_acts_differently() -> None:
    weight = np.full((64, 64), -2)
    weight[:2, :7] = -64
    assert effective_weights(weight).notes == (
        "14 of 4096 weights act differently: -64 acts as -62",
    )


@pytest.mark.parametrize(
    ("weight", "recurrent", "code", "text"),
    [
        ([[0, 0]], None, "SD204", "zero"),
        ([[0.9, -0.9]], None, "SD204", "zero"),
        ([[0]], [[0]], "SD204", "zero"),
        ([[1.0, np.nan]], None, "SD403", "NaN"),
        ([[1.0]], [[-np.inf]], "SD403", "NaN"),
        ([[2.0**31, -1.0]], None, "SD204", "32 bits"),
        ([[1]], [[-(1 << 40)]], "SD204", "32 bits"),
        ([[0, -64, -1]], None, "SD204", "fraction"),
        ([[63, -3]], [[-64]], "SD204", "fraction"),
    ],
)
def test_what_is_refused(weight: Any, recurrent: Any, code: str, text: str) -> None:
    given = [np.array(part) for part in (weight, recurrent) if part is not None]
    with refused(code, text):
        effective_weights(*given, where="a.net: layer 3")


@st.composite
def ordinary(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Weights of both signs within the chip's range."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(2, 6)))
    low, high = draw(st.sampled_from([(-256, 254), (-30, 30), (-2, 100), (-200, 3)]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    weight = rng.integers(low, high, shape, endpoint=True)
    weight.flat[0], weight.flat[-1] = rng.integers(1, high + 1), rng.integers(low, 0)
    return weight.astype(draw(st.sampled_from([np.int16, np.int64, np.float32])))


@given(weight=ordinary())
def test_weights_of_both_signs_act_as_written(weight: np.ndarray[Any, Any]) -> None:
    found = effective_weights(weight)
    assert (found.weight == weight).all()
    assert found.notes == ()
    assert 0 <= found.shift <= 7
    # shifted, they use the chip's nine bits and no more
    shifted = weight.astype(int) << found.shift
    assert -256 <= shifted.min() <= shifted.max() <= 254
    assert shifted.max() > 127 or shifted.min() < -128


@given(weight=ordinary(), recurrent=ordinary())
def test_recurrent_weights_of_both_signs_act_as_written(
    weight: np.ndarray[Any, Any], recurrent: np.ndarray[Any, Any]
) -> None:
    found = effective_weights(weight, recurrent)
    assert found.recurrent is not None
    assert (found.weight == weight).all()
    assert (found.recurrent == recurrent).all()
    assert found.notes == ()
