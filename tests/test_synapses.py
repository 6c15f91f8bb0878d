"""Shapes and fan-out of synapses."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.synapses import (
    Conv2d,
    Dense,
    Pair,
    Shape,
    SumPool,
    Synapses,
    as_map,
    axis_reach,
    fan_out,
    pooled_shape,
)
from tests.helpers.refusals import refused


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    return np.ones(shape, np.int8)


def test_a_vector_is_a_map_of_one_pixel() -> None:
    assert as_map((7,)) == (7, 1, 1)
    assert as_map((7, 2, 3)) == (7, 2, 3)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "out"),
    [
        ((32, 32), (3, 3), (1, 1), (1, 1), (1, 1), (32, 32)),
        ((32, 31), (3, 3), (2, 2), (1, 1), (1, 1), (16, 16)),
        ((9, 8), (3, 2), (2, 2), (1, 0), (1, 1), (5, 4)),
        ((7, 5), (3, 1), (1, 3), (0, 2), (3, 2), (1, 3)),
        ((1, 1), (1, 1), (4, 4), (2, 2), (1, 1), (2, 2)),
        ((224, 224), (7, 7), (2, 2), (3, 3), (1, 1), (112, 112)),
    ],
)
def test_convolution_shape(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> None:
    synapses = Conv2d(ones(6, 2, *kernel), stride, padding, dilation, groups=2)
    assert synapses.target_shape((4, *size)) == (6, *out)


def test_a_convolution_over_a_vector_makes_a_vector() -> None:
    assert Conv2d(ones(6, 2, 1, 1), groups=2).target_shape((4,)) == (6,)
    assert Conv2d(ones(6, 4, 3, 5), (2, 3), (1, 2)).target_shape((4,)) == (6,)
    weight = ones(6, 2, 1, 1)
    assert fan_out(Conv2d(weight, groups=2), None, (4,)).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("synapses", "source", "text"),
    [
        (Dense(ones(3, 4)), (5,), "do not fit a source"),
        (Dense(ones(3, 4)), (1, 2, 3), "do not fit a source"),
        (Conv2d(ones(3, 2, 1, 1)), (3,), "do not fit a source"),
        (Conv2d(ones(3, 2, 2, 1)), (2,), "kernel .* does not fit"),
        (Conv2d(ones(3, 2, 1, 1), padding=(1, 0)), (2,), r"makes a map of \(3, 1\) of a vector"),
        (Conv2d(ones(3, 2, 1, 1)), (2, 5), "do not fit a source"),
        (Conv2d(ones(3, 2, 1, 1)), (3, 5, 5), "do not fit a source"),
        (Conv2d(ones(3, 2, 1, 1), groups=2), (4, 5, 5), "do not fit a source"),
        (Conv2d(ones(3, 2, 1, 1), groups=0), (4, 5, 5), "do not fit a source"),
        (Conv2d(ones(3, 2, 4, 1)), (2, 3, 3), "kernel .* does not fit"),
        (Conv2d(ones(3, 2, 2, 2), dilation=(1, 3)), (2, 3, 3), "kernel .* does not fit"),
    ],
)
def test_synapses_that_do_not_fit(synapses: Synapses, source: Shape, text: str) -> None:
    with refused("SD408", text):
        synapses.target_shape(source)


def test_pool_shape() -> None:
    assert pooled_shape((3, 5, 4), None) == (3, 5, 4)
    assert pooled_shape((3, 5, 4), SumPool((2, 2), (2, 2))) == (3, 2, 2)
    assert pooled_shape((3, 5, 4), SumPool((3, 1), (1, 2))) == (3, 3, 2)
    with refused("SD408", "only maps"):
        pooled_shape((5,), SumPool((2, 2), (2, 2)))
    with refused("SD408", "pooling window"):
        pooled_shape((3, 5, 4), SumPool((2, 5), (2, 2)))


@pytest.mark.parametrize(
    ("channels", "out_channels", "size", "kernel", "stride", "padding", "exact", "padded"),
    [
        (3, 64, 32, 3, 1, 1, 1_696_512, 1_769_472),
        (64, 128, 32, 3, 2, 1, 18_096_128, 18_874_368),
        (128, 128, 16, 3, 1, 1, 34_668_544, 37_748_736),
        (256, 512, 4, 3, 2, 1, 3_276_800, 4_718_592),
        (3, 64, 224, 7, 2, 3, 116_214_528, 118_013_952),
    ],
)
def test_exact_multiply_accumulates_of_convolutions(
    channels: int,
    out_channels: int,
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    exact: int,
    padded: int,
) -> None:
    """A pixel y of an axis is met by the taps k that have an output at (y + P - k) / S.

    n(y) = #{k in [0, K): (y + P - k) mod S = 0 and 0 <= (y + P - k) / S < H_out}, and the sum over
    all pixels of C_in * C_out * n(y) * n(x) leaves out the products with padding.
    """
    synapses = Conv2d(
        np.broadcast_to(np.int8(1), (out_channels, channels, kernel, kernel)),
        stride=(stride, stride),
        padding=(padding, padding),
    )
    source = (channels, size, size)
    out = synapses.target_shape(source)[1]
    offsets = [y + padding - k for y in range(size) for k in range(kernel)]
    met = sum(offset % stride == 0 and 0 <= offset // stride < out for offset in offsets)
    assert exact == channels * out_channels * met**2
    assert fan_out(synapses, None, source).sum() == exact
    assert channels * out_channels * kernel**2 * out**2 == padded


def test_fan_out_at_borders() -> None:
    found = fan_out(Conv2d(ones(5, 2, 3, 3), padding=(1, 1)), None, (2, 3, 4))
    edge, inside = [20, 30, 30, 20], [30, 45, 45, 30]
    assert found.dtype == np.int64
    assert found.tolist() == [[edge, inside, edge]] * 2


def test_fan_out_behind_a_pool() -> None:
    """Windows of 2 every 3 leave gaps, and drop what is left over."""
    found = fan_out(Dense(ones(7, 2)), SumPool((1, 2), (1, 3)), (1, 1, 6))
    assert found.tolist() == [[[7, 7, 0, 7, 7, 0]]]


def test_reach_of_overlapping_windows_is_listed_once() -> None:
    vertical, horizontal = axis_reach(Dense(ones(1, 2)), SumPool((2, 1), (1, 1)), (1, 3, 1))
    assert vertical.taps == (((0, (0,)), (1, (0, 1)), (2, (1,))),)
    assert horizontal.taps == (((0, (0,)),),)
    assert vertical.targets_per_source(3).tolist() == [1, 1, 1]
