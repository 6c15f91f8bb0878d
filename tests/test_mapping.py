"""Passes from an integer graph to one that a chip's tools can say: they change no output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from snn_deploy.graph import (
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    ResetSubtract,
)
from snn_deploy.mapping import accumulate_readout, fold_pools, insert_relays, split_host
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate, simulate_stream
from snn_deploy.sim.timing import pipelined
from snn_deploy.synapses import Conv2d, Dense, SumPool, hands_on, one_to_one
from tests.helpers.graphs import GENERIC, LOIHI2, Case
from tests.helpers.nets import integers, lif, one_layer, population, spike_input
from tests.helpers.pools import pooled_cases
from tests.helpers.random_graphs import chain, network
from tests.helpers.refusals import refused


def same_traces(
    one: Graph, other: Graph, given: Recording, instead: Recording | None = None
) -> None:
    """Every spike, current, membrane and output of the first graph's populations."""
    expected = simulate(one, given, engine="reference", trace=True)
    found = simulate(other, instead or given, trace=True)
    for part in ("spikes", "current", "membrane", "output"):
        for name, value in getattr(expected, part).items():
            np.testing.assert_array_equal(getattr(found, part)[name], value, f"{part} of {name}")


# --- pools ----------------------------------------------------------------------------------------


def pool_covers(shape: tuple[int, ...], pool: SumPool) -> bool:
    """Whether every pixel of a map is in a window."""
    sizes = zip(shape[1:], pool.kernel, pool.stride, strict=True)
    return all((size - kernel) % stride == 0 for size, kernel, stride in sizes)


@settings(max_examples=150, deadline=None)
@given(case=pooled_cases(LOIHI2))
def test_a_folded_pool_does_the_same(case: Case) -> None:
    (projection,) = case.graph.projections
    assert projection.pool is not None
    folded = fold_pools(case.graph)
    (after,) = folded.projections
    assert after.pool is None
    assert type(after.synapses) is type(projection.synapses)
    same_traces(case.graph, folded, case.recording)
    apart = projection.pool.kernel == projection.pool.stride  # nothing is in two windows
    # What no weight was for, between dilated ones or left over by the pool, is filled with zeros,
    # and a zero counts as any weight.
    covers = pool_covers(case.graph.inputs[0].shape, projection.pool)
    dilated = isinstance(projection.synapses, Conv2d) and projection.synapses.dilation != (1, 1)
    if apart and covers and not dilated:
        counts = [simulate(g, case.recording).record.events for g in (case.graph, folded)]
        np.testing.assert_array_equal(counts[0]["in->p"], counts[1]["in->p"])


def test_a_pool_folded_into_a_convolution_by_hand() -> None:
    kernel = integers([[[[1, 2]]]])
    synapses = Conv2d(kernel, stride=(1, 2), padding=(0, 1), dilation=(1, 2))
    graph = one_layer(synapses, spike_input(1, 2, 9), pool=SumPool((2, 3), (2, 3)))
    (folded,) = fold_pools(graph).projections
    assert isinstance(folded.synapses, Conv2d)
    # two windows of 2 x 3, and one between them that no weight is for
    assert folded.synapses.weight.tolist() == [[[[1, 1, 1, 0, 0, 0, 2, 2, 2]] * 2]]
    assert (folded.synapses.stride, folded.synapses.padding) == ((2, 6), (0, 3))
    assert folded.synapses.dilation == (1, 1)


def test_a_pool_folded_into_dense_synapses_by_hand() -> None:
    """Windows of 3 every 2 over 6 pixels: the third is in both, the last in none."""
    graph = one_layer(
        Dense(integers([[1, 10]])), spike_input(1, 1, 6), pool=SumPool((1, 3), (1, 2))
    )
    (folded,) = fold_pools(graph).projections
    assert folded.synapses.weight.tolist() == [[1, 1, 11, 10, 10, 0]]


def test_without_pools_nothing_changes() -> None:
    graph = one_layer(Dense(integers([[1, 10]])), spike_input(2), delay=3)
    assert fold_pools(graph).projections == graph.projections


@pytest.mark.parametrize(
    ("size", "pool"),
    [
        ((5, 6), SumPool((2, 2), (2, 2))),
        ((6, 5), SumPool((2, 2), (2, 2))),
        ((6, 6), SumPool((2, 2), (2, 1))),
        ((6, 6), SumPool((2, 2), (3, 3))),
    ],
)
def test_pools_that_no_stride_can_say(size: tuple[int, int], pool: SumPool) -> None:
    graph = one_layer(Conv2d(integers([[[[1]]]])), spike_input(1, *size), pool=pool)
    with refused("SD204", "(?s)cannot be folded.*--> in->p"):
        fold_pools(graph)


# --- readout --------------------------------------------------------------------------------------


def readout(decay: int = 0, steps: int | None = 3, **more: Any) -> Graph:
    """Two classes with weights of both signs."""
    form = more.pop("number_format", LOIHI2)
    neurons = Integrator(decay=integers(decay), bias=integers([3, -5]), **more)
    graph = one_layer(
        Dense(integers([[4, -6], [2, 8]])), spike_input(2), neurons, number_format=form
    )
    return replace(graph, timesteps=steps)


def test_what_the_host_would_add_up() -> None:
    for how in ("sum", "mean"):
        graph = readout(readout=how, current_decay=integers(100))
        neurons = accumulate_readout(graph).population("p").neurons
        assert isinstance(neurons, Integrator)
        assert (int(neurons.decay), neurons.readout) == (4096, "last")
        assert neurons.bias.tolist() == [3, -5]
        spikes = np.array([[[1, 1], [0, 1], [1, 0]]])
        outputs = [
            simulate(g, Recording(spikes={"": spikes})).output["p"]
            for g in (graph, accumulate_readout(graph))
        ]
        np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    "graph",
    [
        readout(readout="last"),
        readout(readout="max"),
        readout(decay=1, readout="sum"),
        readout(steps=None, readout="sum"),
        readout(steps=18725, readout="sum"),
        readout(readout="sum", number_format=replace(LOIHI2, decay_rule="shift_subtract")),
        one_layer(Dense(integers([[2, -2]])), spike_input(2), lif()),
    ],
)  # fmt: skip
def test_readouts_that_stay(graph: Graph) -> None:
    assert accumulate_readout(graph).populations == graph.populations


def test_a_readout_is_added_up_as_long_as_it_is_proved_to_fit() -> None:
    """The first class gains 4 + 3 units per step at most: 64 * 7 * 18724 ends below 2^23."""
    for steps, fits in ((18724, True), (18725, False)):
        neurons = accumulate_readout(readout(steps=steps, readout="sum")).population("p").neurons
        assert isinstance(neurons, Integrator)
        assert (neurons.readout == "last") == fits


@pytest.mark.parametrize("make", [chain, network])
def test_random_networks_are_read_out_as_before(make: Any) -> None:
    changed = 0
    for seed in range(60):
        graph, recording = make(seed)
        after = accumulate_readout(graph)
        changed += any(
            a is not b for a, b in zip(graph.populations, after.populations, strict=True)
        )
        expected, found = (
            simulate(graph, recording, trace=True),
            simulate(after, recording, trace=True),
        )
        for name, output in expected.output.items():
            np.testing.assert_array_equal(found.output[name], output)
        for name, spikes in expected.spikes.items():
            np.testing.assert_array_equal(found.spikes[name], spikes)
    assert changed >= 5


# --- host -----------------------------------------------------------------------------------------


def test_the_host_by_hand() -> None:
    """Values, weights and the neurons' own biases become one bias each, rounded once."""
    spec = InputSpec(name="x", kind="constant", shape=(2,), high=1.0, scale=0.25)
    other = InputSpec(name="y", kind="constant", shape=(1,), low=-1.0, high=1.0, scale=1.0)
    graph = Graph(
        inputs=(spec, other),
        populations=(population("p", 2, neurons=lif(bias=integers([3, -5]), threshold=7)),),
        projections=(
            Projection(source="x", target="p", synapses=Dense(integers([[3, 1], [-4, 5]])),
                       exponent=-3),
            Projection(source="y", target="p", synapses=Dense(integers([[10], [20]]))),
        ),
        outputs=("p",),
        timesteps=3,
        number_format=LOIHI2,
    )  # fmt: skip
    chip, host = split_host(graph)
    assert host is not None
    assert host.population == "p"
    (bias,) = chip.inputs
    assert (bias.name, bias.kind, bias.shape, bias.scale) == ("bias", "constant", (2,), 1.0)
    # 16 / 8 at most, and 10; -16 / 8 at least, and -20; and the neurons' own
    assert (bias.low, bias.high) == (-27, 18)
    assert hands_on(chip.projections[0].synapses)
    assert chip.population("p").neurons.bias.tolist() == 0
    given = Recording(
        values={"x": np.array([[1.0, 0.5], [0.3, 0.0]]), "y": np.array([[-1], [0.4]])}
    )
    # (3 * 4 + 2) / 8 = 1.75; (-16 + 10) / 8 = -0.75; 3 / 8; -4 / 8 = -0.5, halves up
    np.testing.assert_array_equal(host.biases(given), [[2 - 10 + 3, -1 - 20 - 5], [0 + 3, 0 - 5]])
    same_traces(graph, chip, given, Recording(values={"": host.biases(given)}))


@pytest.mark.parametrize("make", [chain, network])
def test_random_networks_behind_the_host_do_the_same(make: Any) -> None:
    split = 0
    for seed in range(40):
        graph, recording = make(seed)
        chip, host = split_host(graph)
        if host is None:
            assert chip is graph
            continue
        split += 1
        biases = host.biases(recording)
        (spec,) = chip.inputs
        assert spec.low <= biases.min() <= biases.max() <= spec.high
        same_traces(graph, chip, recording, Recording(values={"": biases}))
    assert split >= 8


def test_inputs_of_spikes_stay() -> None:
    constant = InputSpec(name="x", kind="constant", shape=(2,), scale=0.25)
    graph = Graph(
        inputs=(spike_input(2), constant),
        populations=(population("a", 2), population("b", 2)),
        projections=(
            Projection(source="x", target="a", synapses=one_to_one((2,), 2)),
            Projection(source="a", target="b", synapses=one_to_one((2,), 2)),
            Projection(source="in", target="b", synapses=one_to_one((2,), 2)),
        ),
        outputs=("b",),
        number_format=LOIHI2,
    )
    chip, _ = split_host(graph)
    assert [i.name for i in chip.inputs] == ["in", "bias"]
    assert {p.name for p in chip.projections} == {"a->b", "in->b", "bias->a"}


def test_a_chip_that_takes_values_needs_no_host() -> None:
    form = replace(GENERIC, first_layer="graded")
    spec = InputSpec(name="x", kind="constant", shape=(2,), scale=0.25)
    graph = one_layer(Dense(integers([[2, -2]])), spec, number_format=form)
    assert split_host(graph) == (graph, None)


# --- relays ---------------------------------------------------------------------------------------


def skipping(length: int, last: Any, **more: Any) -> Graph:
    """A chain of convolutions, and one projection from its beginning to its end."""
    names = [f"p{i}" for i in range(length)]
    shape = (1, 2, 2)
    chained = [
        Projection(source=source, target=target, synapses=one_to_one(shape, 4))
        for source, target in zip(["in", *names], names, strict=False)
    ]
    return Graph(
        inputs=(more.pop("spec", spike_input(*shape)),),
        populations=tuple(population(n, *shape, neurons=lif(threshold=3)) for n in names),
        projections=(*chained, Projection(target=names[-1], synapses=last, **more)),
        outputs=(names[-1],),
        timesteps=5,
        number_format=LOIHI2,
    )


def test_relays_by_hand() -> None:
    graph = skipping(4, one_to_one((1, 2, 2), 6), source="p0")
    mapped, relays = insert_relays(graph)
    assert relays == ("p0_relay1", "p0_relay2")
    assert {p.name for p in mapped.projections} == {
        "in->p0", "p0->p1", "p1->p2", "p2->p3", "p0->p0_relay1", "p0_relay1->p0_relay2",
        "p0_relay2->p3",
    }  # fmt: skip
    assert set(pipelined(mapped).delays.values()) == {1}
    stages = pipelined(mapped).stages
    assert (stages["p0"], stages["p0_relay1"], stages["p0_relay2"]) == (1, 2, 3)
    last = next(p for p in mapped.projections if p.name == "p0_relay2->p3")
    assert last.synapses is graph.projections[-1].synapses


def test_relays_of_an_input() -> None:
    mapped, relays = insert_relays(skipping(2, one_to_one((1, 2, 2), 6), source="in"))
    assert relays == ("in_relay1",)
    assert mapped.population("in_relay1").shape == (1, 2, 2)
    assert set(pipelined(mapped).delays.values()) == {1}


def test_relays_are_shared() -> None:
    graph = skipping(4, one_to_one((1, 2, 2), 6), source="p0")
    more = Projection(source="p0", target="p2", synapses=one_to_one((1, 2, 2), 8))
    mapped, relays = insert_relays(replace(graph, projections=(*graph.projections, more)))
    assert relays == ("p0_relay1", "p0_relay2")
    assert {p.source for p in mapped.incoming("p2")} == {"p1", "p0_relay1"}


def test_dense_synapses_wait_themselves() -> None:
    graph = one_layer(Dense(integers([[2, -2]])), spike_input(2), number_format=LOIHI2)
    second = population("q", 1)
    graph = replace(
        graph,
        populations=(*graph.populations, second),
        projections=(
            *graph.projections,
            Projection(source="p", target="q", synapses=Dense(integers([[2]]))),
            Projection(source="in", target="q", synapses=Dense(integers([[2, 4]]))),
        ),
    )
    mapped, relays = insert_relays(graph)
    assert relays == ()
    assert mapped.projections == graph.projections
    assert pipelined(mapped).delays == {"in->p": 1, "p->q": 1, "in->q": 2}


def test_without_hops_nothing_waits() -> None:
    graph = replace(skipping(3, one_to_one((1, 2, 2), 6), source="p0"), number_format=GENERIC)
    assert insert_relays(graph) == (graph, ())


def test_values_cannot_wait_in_relays() -> None:
    spec = InputSpec(name="in", kind="graded", shape=(1, 2, 2), high=1.0, scale=1 / 255)
    with refused("SD204", "(?s)values of an input.*--> in->p1"):
        insert_relays(skipping(2, one_to_one((1, 2, 2), 6), source="in", spec=spec))


def test_several_spikes_cannot_wait_in_relays() -> None:
    graph = skipping(3, one_to_one((1, 2, 2), 6), source="p0")
    neurons = lif(threshold=3, reset=ResetSubtract(5))
    first = Population(name="p0", shape=(1, 2, 2), neurons=neurons, scale=1.0, max_spikes=2)
    with refused("SD204", "(?s)one spike per timestep.*--> p0"):
        insert_relays(replace(graph, populations=(first, *graph.populations[1:])))


@pytest.mark.parametrize("part", range(4))
def test_random_networks_with_relays_do_the_same(part: int) -> None:
    """Timestep by timestep without hops, and window by window on the pipelined chip."""
    found = streamed = 0
    for seed in range(20 * part, 20 * part + 20):
        graph, recording = network(seed)
        mapped, relays = insert_relays(fold_pools(graph))
        found += len(relays)
        same_traces(graph, mapped, recording)
        delays = pipelined(mapped).delays
        for projection in mapped.projections:
            dense = isinstance(projection.synapses, Dense) or mapped.is_constant(projection)
            assert dense or delays[projection.name] == 1
        expected = simulate(mapped, recording, trace=True)
        if not any(p.longest_delay for p in mapped.projections):  # else a reset leaves spikes
            streamed += 1
            assert simulate_stream(mapped, recording).difference(expected) == 0
    assert found >= 3
    assert streamed >= 10
