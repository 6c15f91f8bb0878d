"""Biases that an input carries: it fires at every timestep, and no recording holds it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy import quantize
from snn_deploy.biases import Biases, UnbiasableError
from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection
from snn_deploy.packets import Recording
from snn_deploy.quantization.reach import observed, reach
from snn_deploy.sim import EngineName, simulate
from snn_deploy.synapses import Conv2d, Dense


def neurons(name: str, shape: tuple[int, ...], current_decay: float = 0.5) -> Population:
    made = LIF(
        decay=np.array(0.75),
        threshold=np.array(2.0),
        bias=np.array(0.0),
        current_decay=np.array(current_decay),
    )
    return Population(name=name, shape=shape, neurons=made)


def biased(population: Population, biases: Biases, synapses: Dense | Conv2d) -> Graph:
    """One population fed by spikes and by its biases."""
    always, projections = biases.inputs({population.name: population})
    shape = (3,) if isinstance(synapses, Dense) else (1, 4, 4)
    return Graph(
        inputs=(InputSpec(name="input", kind="spikes", shape=shape), *always),
        populations=(population,),
        projections=(
            Projection(source="input", target=population.name, synapses=synapses),
            *projections,
        ),
        outputs=(population.name,),
    )


def test_vectors_share_an_input_with_a_neuron_per_beginning() -> None:
    biases = Biases()
    biases.add("a", 0, np.array([0.5, -1.0]))
    biases.add("a", 2, np.array([1.0, 0.0]))
    biases.add("a", 2, np.array([0.5, 0.0]))
    biases.add("b", 0, np.zeros(2))
    graph = biased(neurons("a", (2,)), biases, Dense(np.zeros((2, 3))))
    assert [spec.name for spec in graph.inputs] == ["input", "always_on"]
    assert [spec.name for spec in graph.fed] == ["input"]
    spikes = np.zeros((1, 5, 3), np.uint8)
    trace = simulate(graph, Recording(spikes={"": spikes}), engine="reference", trace=True)
    current, expected = np.zeros(2), []
    for step in range(5):
        current = 0.5 * current + np.array([0.5, -1.0]) + (step >= 2) * np.array([1.5, 0])
        expected.append(current)
    np.testing.assert_array_equal(trace.current["a"][0], expected)


def test_a_map_has_an_input_of_its_size() -> None:
    biases = Biases()
    biases.add("a", 1, np.repeat([0.5, -0.25], 16))
    graph = biased(neurons("a", (2, 4, 4)), biases, Conv2d(np.zeros((2, 1, 1, 1))))
    assert [(spec.name, spec.shape) for spec in graph.inputs[1:]] == [("always_on_4x4", (1, 4, 4))]
    fed = Recording(spikes={"": np.zeros((1, 3, 1, 4, 4), np.uint8)})
    trace = simulate(graph, fed, engine="reference", trace=True)
    assert not trace.current["a"][0, 0].any()
    assert (trace.current["a"][0, 1, 0] == 0.5).all()
    assert (trace.current["a"][0, 2, 1] == -0.375).all()


@pytest.mark.parametrize("since", [(0, 1), (0,)])
def test_a_map_with_more_than_a_bias_per_channel_is_refused(since: tuple[int, ...]) -> None:
    biases = Biases()
    for begin in since:
        value = np.ones(32)
        value[0] += len(since) == 1
        biases.add("a", begin, value)
    with pytest.raises(UnbiasableError, match="within a channel or over time"):
        biases.inputs({"a": neurons("a", (2, 4, 4))})


@pytest.mark.parametrize("chip", ["generic", "loihi2"])
def test_integers_keep_it_and_engines_agree(chip: str) -> None:
    random = np.random.default_rng(0)
    biases = Biases()
    biases.add("a", 0, np.array([0.5, -0.25, 0.125, 0.75]))
    graph = biased(neurons("a", (4,)), biases, Dense(random.normal(0, 1, (4, 3))))
    integer = quantize(replace(graph, timesteps=12), chip)
    fed = Recording(spikes={"": random.integers(0, 2, (5, 12, 3), np.uint8)})
    engines: tuple[EngineName, ...] = ("reference", "event", "dense")
    one, *others = (simulate(integer, fed, engine=engine, trace=True) for engine in engines)
    for other in others:
        assert one.record.difference(other.record) == 0
        np.testing.assert_array_equal(one.current["a"], other.current["a"])
    # 12 timesteps of 4 synapses, per sample
    assert (one.record.events["always_on->a"] == 48).all()
    exact = simulate(replace(graph, timesteps=12), fed, engine="reference", trace=True)
    assert (exact.spikes["a"] == one.spikes["a"]).mean() > 0.9


def test_it_fires_on_where_a_recording_has_ended() -> None:
    biases = Biases()
    biases.add("a", 0, np.array([1.0, 0.0]))
    graph = biased(neurons("a", (2,), 0.0), biases, Dense(np.zeros((2, 3))))
    fed = Recording(spikes={"": np.ones((1, 2, 3), np.uint8)})
    trace = simulate(graph, fed, engine="reference", steps=6, trace=True)
    np.testing.assert_array_equal(trace.current["a"][0, :, 0], np.ones(6))


def test_the_worst_input_leaves_it_firing() -> None:
    biases = Biases()
    biases.add("a", 0, np.array([0.5, -0.25]))
    graph = biased(neurons("a", (2,)), biases, Dense(np.array([[1.0, -1, 0.5], [0.5, 0, -1]])))
    integer = quantize(replace(graph, timesteps=6), "generic")
    found = reach(integer, "a", 0)
    assert found.reached <= found.bound
    trace = simulate(integer, found.recording, engine="reference", trace=True)
    assert trace.record.inputs["always_on"] == 6
    silent = observed(integer, Recording(spikes={"": np.zeros((1, 6, 3), np.uint8)}))
    assert silent["a"].membrane[1] < found.reached
