"""What a graph holds at every stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snn_deploy.graph import (
    Graph,
    InputSpec,
    Integrator,
    Projection,
    Reset,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.nets import dense, integers, lif, one_layer, population, spike_input
from tests.helpers.refusals import refused


def two_layers(**parts: Any) -> Graph:
    """4 inputs -> "a" (3) -> "b" (2), with some parts replaced."""
    return Graph(
        **{
            "inputs": (spike_input(4),),
            "populations": (population("a", 3), population("b", 2)),
            "projections": (dense("in", "a", 3, 4), dense("a", "b", 2, 3)),
            "outputs": ("b",),
            **parts,
        }
    )


def sink(name: str, *shape: int) -> Any:
    return population(name, *shape, neurons=Integrator(decay=integers(0), bias=integers(0)))


def test_look_up() -> None:
    graph = two_layers()
    assert graph.input("in").shape == graph.shape_of("in") == (4,)
    assert graph.population("b").size == 2
    assert graph.is_input("in")
    assert not graph.is_input("a")
    assert [p.name for p in graph.incoming("b")] == ["a->b"]
    assert graph.fan_out(graph.projections[0]).tolist() == [3, 3, 3, 3]
    assert [p.name for p in graph.spiking()] == ["a", "b"]


def delayed(delay: Any) -> dict[str, Any]:
    return {"projections": (IN_A, replace(A_B, delay=delay))}


def firing(most: int, reset: Reset) -> dict[str, Any]:
    several = replace(population("a", 3, neurons=lif(reset=reset)), max_spikes=most)
    return {"populations": (several, population("b", 2))}


IN_A, A_B = dense("in", "a", 3, 4), dense("a", "b", 2, 3)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"inputs": ()}, "needs an input"),
        ({"outputs": ()}, "needs an input"),
        ({"populations": (), "projections": ()}, "needs an input"),
        ({"timesteps": 0}, "timesteps must be at least 1"),
        ({"outputs": ("c",)}, "output 'c' is no population"),
        ({"outputs": ("in",)}, "output 'in' is no population"),
        ({"inputs": (spike_input(4, name=""),)}, "is not a name"),
        ({"inputs": (spike_input(4, name="in/../x"),)}, "is not a name"),
        ({"inputs": (spike_input(4, name=".in"),)}, "is not a name"),
        ({"inputs": (spike_input(4, name="in\n"),)}, "is not a name"),
        ({"inputs": (spike_input(4, name="a"),)}, "same name"),
        ({"populations": (population("a", 3), population("a", 3))}, "same name"),
        ({"projections": (IN_A, A_B, A_B)}, "join the same pair"),
        ({"projections": (IN_A, A_B, dense("x", "b", 2, 3))}, "no input or population 'x'"),
        ({"projections": (IN_A, A_B, dense("a", "x", 2, 3))}, "no population 'x'"),
        ({"projections": (IN_A, A_B, dense("a", "in", 4, 3))}, "no population 'in'"),
        ({"projections": (IN_A,)}, "population without input"),
        ({"populations": (sink("a", 3), population("b", 2))}, "an integrator is a sink"),
        ({"projections": (IN_A, dense("a", "b", 2, 3, delay=-1))}, "must not be negative"),
        ({"projections": (IN_A, dense("a", "b", 2, 4))}, "do not fit a source"),
        ({"projections": (IN_A, dense("a", "b", 5, 3))}, "the population has"),
        ({"projections": (IN_A, A_B, dense("a", "a", 3, 3))}, "a loop without delay"),
        ({"projections": (IN_A, A_B, dense("b", "a", 3, 2))}, "a loop without delay"),
        (
            {"projections": (IN_A, A_B, dense("b", "a", 3, 2, delay=np.array([[0, 2]])))},
            "a loop without delay",
        ),
        (delayed(np.array([[1], [-1]])), "must not be negative: -1"),
        (delayed(np.array([1, 2, 3])), "do not fit weights"),
        (delayed(np.array(1)), "do not fit weights"),
        (delayed(np.ones((3, 2), int)), "do not fit weights"),
        (delayed(np.ones((1, 2), int)), "do not fit weights"),
        (delayed(np.ones((2, 3))), "type float64 do not fit"),
        (delayed(np.ones((2, 3), bool)), "type bool do not fit"),
        ({"projections": (IN_A, replace(A_B, sum_bits=0))}, "a sum of 0 bits"),
        ({"projections": (IN_A, replace(A_B, sum_bits=65))}, "a sum of 65 bits"),
        (firing(0, ResetSubtract(1)), "max_spikes must be 1 to 255, not 0"),
        (firing(256, ResetSubtract(1)), "max_spikes must be 1 to 255, not 256"),
        (firing(2, ResetTo(0)), "need a reset by subtraction"),
        (
            {"populations": (population("a", 3), replace(sink("b", 2), max_spikes=2))},
            "need a reset by subtraction",
        ),
    ],
)
def test_malformed(parts: dict[str, Any], text: str) -> None:
    with refused("SD408", text):
        two_layers(**parts)


def test_delays_per_synapse() -> None:
    for shape in ((2, 3), (2, 1), (1, 3), (1, 1)):
        delay = np.arange(np.prod(shape)).reshape(shape) + 2
        projection = two_layers(**delayed(delay)).projections[1]
        assert (projection.shortest_delay, projection.longest_delay) == (2, 1 + np.prod(shape))
    assert (A_B.shortest_delay, replace(A_B, delay=7).longest_delay) == (0, 7)


def test_delays_per_synapse_are_for_plain_dense_synapses() -> None:
    kernel = Conv2d(np.ones((3, 2, 1, 1), int))
    with refused("SD408", "need dense synapses without pool"):
        one_layer(kernel, spike_input(2, 3, 3), delay=np.ones((3, 2), int))
    pooled = {"pool": SumPool((1, 1), (1, 1)), "delay": np.ones((1, 9), int)}
    with refused("SD408", "need dense synapses without pool"):
        one_layer(Dense(np.ones((1, 9), int)), spike_input(1, 3, 3), **pooled)


def test_loops_of_delays_per_synapse() -> None:
    """All of them must take time, and then they make a loop like any other."""
    back = dense("b", "a", 3, 2, delay=np.array([[1], [2], [9]]))
    assert two_layers(projections=(IN_A, A_B, back)).order == (("a", "b"),)


def test_what_is_binary_and_what_is_constant() -> None:
    graph = two_layers(**firing(2, ResetSubtract(1)))
    assert [graph.is_binary(p) for p in graph.projections] == [True, False]
    assert [graph.is_constant(p) for p in graph.projections] == [False, False]
    assert two_layers().is_binary(A_B)
    for kind, constant in (("constant", True), ("graded", False)):
        values = InputSpec(name="in", kind=kind, shape=(4,), scale=1.0)
        graph = two_layers(inputs=(values,))
        assert not graph.is_binary(IN_A)
        assert graph.is_constant(IN_A) == constant


@pytest.mark.parametrize("shape", [(3,), (3, 4, 1), (0, 4), (3, 4, 1, 1)])
def test_weights_of_another_rank(shape: tuple[int, ...]) -> None:
    synapses = Dense(np.ones(shape, int))
    with refused("SD408", "weights of shape"):
        two_layers(projections=(Projection(source="in", target="a", synapses=synapses), A_B))


GEOMETRY = [
    *(
        (what, pair)
        for what in ("stride", "dilation", "pool kernel", "pool stride")
        for pair in ((0, 1), (1, 0), (1, -1), (1,), (1, 1, 1))
    ),
    *(("padding", pair) for pair in ((-1, 0), (0, -1), (0,), (0, 0, 0))),
]


@pytest.mark.parametrize(("what", "pair"), GEOMETRY)
def test_malformed_geometry(what: str, pair: Any) -> None:
    synapses, pool = Conv2d(np.ones((1, 2, 1, 1), int)), SumPool((1, 1), (1, 1))
    graph = one_layer(synapses, spike_input(2, 3, 3), pool=pool)
    if what.startswith("pool"):
        pool = replace(pool, **{what.removeprefix("pool "): pair})
    else:
        synapses = replace(synapses, **{what: pair})
    projection = replace(graph.projections[0], synapses=synapses, pool=pool)
    with refused("SD408", f"{what} .* must be two numbers"):
        replace(graph, projections=(projection,))


def test_pool_that_does_not_fit() -> None:
    synapses = Conv2d(np.ones((1, 2, 1, 1), int))
    graph = one_layer(synapses, spike_input(2, 3, 3))
    for source, pool, text in (
        ((2, 3, 3), SumPool((4, 1), (1, 1)), "pooling window"),
        ((4,), SumPool((1, 1), (1, 1)), "only maps"),
    ):
        projection = replace(graph.projections[0], pool=pool)
        with refused("SD408", text):
            replace(graph, inputs=(spike_input(*source),), projections=(projection,))


def test_order_follows_projections_without_delay() -> None:
    graph = two_layers(
        populations=(population("c", 1), population("b", 2), population("a", 3)),
        projections=(dense("b", "c", 1, 2), dense("a", "b", 2, 3), dense("in", "a", 3, 4)),
        outputs=("c",),
    )
    assert graph.order == (("a",), ("b",), ("c",))


def test_loops_are_grouped() -> None:
    """ "a" and "b" feed each other; "c" follows, however late its input arrives."""
    graph = two_layers(
        populations=(population("c", 1), population("b", 2), population("a", 3)),
        projections=(
            IN_A,
            A_B,
            dense("b", "a", 3, 2, delay=1),
            dense("b", "c", 1, 2, delay=2),
            dense("c", "c", 1, 1, delay=1),
        ),
        outputs=("c",),
    )
    assert graph.order == (("a", "b"), ("c",))


def test_values_and_hosts() -> None:
    values = InputSpec(name="in", kind="constant", shape=(4,), scale=0.1)
    weights = Dense(np.ones((2, 4), int))
    for spec, number_format, multiplied, on_host in (
        (spike_input(4), LOIHI2, False, False),
        (values, LOIHI2, True, True),
        (values, GENERIC, True, False),
        (values, None, True, False),
        (replace(values, kind="graded"), LOIHI2, True, False),  # changes: multiplied on the chip
    ):
        graph = one_layer(weights, spec, lif(), number_format=number_format)
        assert graph.carries_values(graph.projections[0]) == multiplied
        assert graph.on_host(graph.projections[0]) == on_host


def test_encoding_of_values() -> None:
    spec = InputSpec(
        name="in",
        kind="constant",
        shape=(2, 1, 2),
        high=8.0,
        mean=np.array([0.0, 4.0]),
        std=np.array([1.0, 2.0]),
        scale=0.5,
    )
    raw = np.array([[[[0.25, 0.75]], [[3.0, 8.0]]]])
    assert spec.normalise(raw).tolist() == [[[[0.25, 0.75]], [[-0.5, 2.0]]]]
    assert spec.encode(raw).tolist() == [[[[0, 2]], [[-1, 4]]]]  # ties to even
    assert replace(spec, scale=None).encode(raw).tolist() == spec.normalise(raw).tolist()
    low, high = spec.encoded_range()
    assert low.tolist() == [[[0.0, 0.0]], [[-4.0, -4.0]]]
    assert high.tolist() == [[[16.0, 16.0]], [[4.0, 4.0]]]
    bits = spike_input(2).encoded_range()
    assert [b.tolist() for b in bits] == [[0.0, 0.0], [1.0, 1.0]]
