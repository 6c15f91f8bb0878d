"""Linear maps: composed and added, they do what one after the other and side by side do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snn_deploy.exporters.nir.linear import LinearMap, UnmappableError, scaled

from snn_deploy import SnnDeployError
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool

SHAPES: list[Shape] = [(5,), (2, 6, 6), (3, 1, 8), (1, 5, 7), (4, 4, 4)]


@st.composite
def elementary(draw: Any, source: Shape) -> LinearMap:
    """One node that fits its source."""
    node = draw(anything(source))
    try:
        node.target  # noqa: B018
    except SnnDeployError:  # a window larger than the map
        return LinearMap(source)
    return node  # type: ignore[no-any-return]


@st.composite
def anything(draw: Any, source: Shape) -> LinearMap:
    """One node: dense, convolution, pool, factors, delays or nothing; integer weights."""
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))

    def weights(*shape: int) -> Any:
        return random.integers(-3, 4, shape).astype(np.float64)

    kinds = ["dense", "scale", "channels", "delay", "nothing"]
    kind = draw(st.sampled_from(kinds + ["conv", "conv", "grouped", "pool"] * (len(source) == 3)))
    size = int(np.prod(source))
    if kind == "dense":
        return LinearMap(source, None, Dense(weights(draw(st.integers(1, 6)), size)))
    if kind == "scale":
        return scaled(source, weights(*source))
    if kind == "channels":
        return scaled(source, weights(source[0], *[1] * (len(source) - 1)))
    if kind == "delay":
        return LinearMap(source, delay=random.integers(0, draw(st.integers(1, 3)), (1, size)))
    if kind == "nothing":
        return LinearMap(source)
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    if kind == "pool":
        return LinearMap(source, SumPool(draw(pair), draw(pair)))
    groups = source[0] if kind == "grouped" else 1
    channels = groups * draw(st.integers(1, 3))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    weight = weights(channels, source[0] // groups, *draw(pair))
    return LinearMap(source, None, Conv2d(weight, draw(pair), padding, draw(pair), groups))


def delayed(one: LinearMap, values: Any) -> Any:
    """The map of a sequence [T, *source]: every synapse waits for its delay."""
    matrix = one.dense().whole.weight
    steps = len(values)
    flat = values.reshape(steps, -1)
    delay = np.broadcast_to(one.delay, matrix.shape)
    found = np.zeros((steps, len(matrix)))
    for wait in np.unique(delay):
        if wait < steps:
            found[wait:] += flat[: steps - wait] @ np.where(delay == wait, matrix, 0).T
    return found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_chain_is_its_nodes_one_after_another(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(SHAPES))
    composed = LinearMap(source)
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 2, (7, *source))
    expected = values.astype(np.float64)
    for _ in range(data.draw(st.integers(1, 5))):
        node = data.draw(elementary(composed.target))
        try:
            after = composed.then(node)
        except UnmappableError:
            assert isinstance(composed.delay, np.ndarray)
            break
        expected = delayed(node, expected.reshape(-1, *node.source)).reshape(7, *node.target)
        composed = after
        assert composed.source == source
        assert int(np.prod(composed.target)) == int(np.prod(node.target))
    np.testing.assert_array_equal(delayed(composed, values), expected.reshape(7, -1))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_sum_is_both(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(SHAPES))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 2, (2, *source))
    maps = []
    for _ in range(2):
        one = LinearMap(source)
        for _ in range(data.draw(st.integers(1, 2))):
            node = data.draw(elementary(one.target))
            if isinstance(node.delay, int):
                one = one.then(node)
        maps.append(one)
    first, second = maps
    if np.prod(first.target) != np.prod(second.target):
        return
    expected = first(values).reshape(2, -1) + second(values).reshape(2, -1)
    np.testing.assert_array_equal(first.plus(second)(values).reshape(2, -1), expected)


def test_convolutions_stay_convolutions() -> None:
    # a matrix in their place would be hundreds of times as large
    shape: Shape = (3, 8, 8)
    conv = LinearMap(shape, None, Conv2d(np.ones((4, 3, 3, 3)), padding=(1, 1)))
    for chain, kernel in (
        ([LinearMap(shape, SumPool((2, 2), (2, 2)))], (3, 3)),
        ([scaled(shape, np.arange(3.0).reshape(3, 1, 1))], (3, 3)),
    ):
        one = LinearMap(shape)
        for node in chain:
            one = one.then(node)
        both = one.then(LinearMap(one.target, None, conv.whole))
        assert isinstance(both.synapses, Conv2d)
        assert both.synapses.weight.shape == (4, 3, *kernel)
        assert both.synapses.padding == (1, 1)
    pooled = conv.then(LinearMap(conv.target, SumPool((2, 2), (2, 2))))
    assert isinstance(pooled.synapses, Conv2d)
    assert pooled.synapses.weight.shape == (4, 3, 4, 4)


def test_what_is_no_projection() -> None:
    waits = LinearMap((3,), delay=np.array([[0, 1, 2]]))
    dense = LinearMap((3,), None, Dense(np.ones((3, 3))))
    assert np.array_equal(waits.then(dense).delay, [[0, 1, 2]])
    assert np.array_equal(dense.then(waits).delay, [[0], [1], [2]])
    assert np.array_equal(waits.then(dense).then(waits).delay, [[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    with pytest.raises(UnmappableError, match="different times"):
        dense.then(waits).then(dense)
    with pytest.raises(UnmappableError, match="different delay"):
        dense.plus(dense.then(waits))
    large: Shape = (1, 100, 100)
    padded = LinearMap(large, None, Conv2d(np.ones((1, 1, 3, 3)), padding=(1, 1)))
    with pytest.raises(UnmappableError, match="100000000 weights"):
        padded.then(padded)
