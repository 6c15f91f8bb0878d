"""Switches of the conventions one at a time, and what they say of themselves."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest

from snn_deploy.counting import Convention, asgl, conventions, count, neurobench, syops
from snn_deploy.counting.fans import fan, windows
from snn_deploy.graph import Graph, InputSpec, Projection
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense, SumPool, one_to_one
from tests.helpers.graphs import LOIHI2
from tests.helpers.nets import integers, lif, one_layer, population, spike_input
from tests.helpers.refusals import refused


def residual() -> Graph:
    """A convolution with an identity around it, and one of them alone."""
    first = one_layer(one_to_one((2, 3, 3), 200), spike_input(2, 3, 3))
    conv = Conv2d(np.ones((2, 2, 3, 3), np.int64), padding=(1, 1))
    return replace(
        first,
        populations=(*first.populations, population("sum", 2, 3, 3), population("copy", 2, 3, 3)),
        projections=(
            *first.projections,
            Projection(source="p", target="sum", synapses=conv),
            Projection(source="in", target="sum", synapses=one_to_one((2, 3, 3), 50)),
            Projection(source="sum", target="copy", synapses=one_to_one((2, 3, 3), 50)),
        ),
        outputs=("copy",),
    )


@pytest.mark.parametrize("name", conventions())
def test_identity_shortcuts(name: str) -> None:
    """Only the identity beside another projection is one; its twin multiplies nothing anywhere."""
    graph = residual()
    spikes = np.ones((1, 2, 2, 3, 3), np.uint8)
    record = simulate(graph, Recording(spikes={"": spikes}), steps=2).record
    first, _, shortcut, copied = count(graph, record, conventions()[name]()).projections
    assert first.accumulates == 36
    assert shortcut.accumulates == (36 if name in ("asgl", "sana-fe") else 0)
    assert shortcut.twin == 0
    assert copied.accumulates > 0
    assert (first.twin, copied.twin) == (18, 18)


def test_every_convention_has_its_name() -> None:
    found = conventions()
    assert list(found) == ["asgl", "dspike", "neurobench", "syops", "lemaire2022", "sana-fe"]
    assert [factory().name for factory in found.values()] == list(found)
    assert found["asgl"]() == asgl("once")


def test_every_switch_is_printed() -> None:
    """Changing any switch changes what a convention says of itself."""
    other = {
        "name": "b",
        "fanout": "padded",
        "first_layer": "per_timestep",
        "values": "none",
        "zero_weights": "free",
        "zero_values": "free",
        "count_residual": True,
        "count_bias": "rate",
        "count_pool": "inputs",
        "count_neuron": "leak",
        "count_reset": True,
        "memory": "per_event",
        "ann_activation_sparsity": True,
        "ann_adds": True,
    }
    plain = Convention(name="a", source="a test")
    assert other.keys() == {f.name for f in fields(Convention)} - {"source", "remarks"}
    texts = {plain.switches()} | {
        replace(plain, **{switch: value}).switches() for switch, value in other.items()
    }
    assert len(texts) == len(other) + 1


def test_a_bound_knows_no_zero_weights() -> None:
    with refused("SD104", "a bound on the fan-out"):
        Convention(name="a", source="a test", fanout="ceiling", zero_weights="free")


def values(**switches: object) -> list[tuple[float, float]]:
    """MACs and twin of three inputs, one of them zero, through weights of which one is zero."""
    spec = InputSpec(name="in", kind="constant", shape=(3,), high=9.0, scale=1.0)
    graph = one_layer(Dense(integers([[1, 2, 3], [0, 5, 6]])), spec)
    recording = Recording(values={"": np.array([[4, 0, 5], [0, 0, 1]])})
    record = simulate(graph, recording, steps=4).record
    convention = replace(Convention(name="a", source="a test"), **switches)  # type: ignore[arg-type]
    counts = count(graph, record, convention)
    return [(p.multiply_accumulates, p.twin) for p in counts.projections]


def test_values_and_weights_of_zero() -> None:
    assert values() == [(12, 6)]
    assert values(first_layer="per_timestep") == [(48, 6)]
    assert values(zero_values="free") == [(6, 6)]  # three values that are not zero, to two each
    assert values(zero_weights="free") == [(10, 5)]
    assert values(zero_values="free", zero_weights="free") == [(5, 5)]
    assert values(zero_weights="free", ann_activation_sparsity=True) == [(10, 2.5)]
    assert values(values="none") == [(0, 6)]


def test_the_twin_s_own_activations() -> None:
    """Its density is taken where it is given, and named where it is not."""
    graph = residual()
    record = simulate(graph, Recording(spikes={"": np.ones((1, 1, 2, 3, 3), np.uint8)})).record
    dense = count(graph, record, neurobench())
    half = count(graph, record, neurobench(), {"p": 0.5})
    assert half.projections[1].twin * 2 == dense.projections[1].twin
    assert half.projections[3].twin == dense.projections[3].twin
    assert "p, sum, copy" in dense.remarks[-1]
    assert " p," not in half.remarks[-1]
    with refused("SD104", "a share of 1.5"):
        count(graph, record, neurobench(), {"p": 1.5})


def test_overlapping_windows() -> None:
    """Two windows see the middle column: two ways to one target, whose weights may cancel."""
    pool = SumPool((1, 2), (1, 1))
    opposite = Conv2d(integers([[[[1, -1]]]]))
    assert windows(pool, (1, 1, 3)).tolist() == [[[1, 2, 1]]]
    assert fan(opposite, pool, (1, 1, 3)).reach.tolist() == [[[1, 1, 1]]]
    free = fan(opposite, pool, (1, 1, 3), zero_weights="free")
    assert free.reach.tolist() == [[[1, 0, 1]]]
    padded = fan(opposite, pool, (1, 1, 3), "padded")
    assert padded.each == Fraction(2, 2)
    assert padded.total() == 4


def test_the_terms_of_a_neuron() -> None:
    """Ten spikes come in and ten go out, in two samples of five timesteps."""
    graph = one_layer(Dense(integers([[200]])), spike_input(1), lif(decay=2048, bias=1))
    record = simulate(graph, Recording(spikes={"": np.ones((2, 5, 1), np.uint8)})).record
    counts = count(graph, record, conventions()["lemaire2022"]())
    found = {(t.name, t.operation): t.count for t in counts.terms if not t.twin}
    assert found == {
        ("bias", "synaptic_operation"): 10,
        ("leak", "multiply_accumulate"): 10,
        ("inputs", "memory_read"): 10,
        ("weights", "memory_read"): 10,
        ("biases", "memory_read"): 10,
        ("membranes", "memory_read"): 20,
        ("membranes", "memory_write"): 20,
        ("outputs", "memory_write"): 10,
        ("addresses", "synaptic_operation"): 10,
    }
    twin = {(t.name, t.operation): t.count for t in counts.terms if t.twin}
    assert twin == {
        ("bias", "synaptic_operation"): 1,
        ("inputs", "memory_read"): 1,
        ("weights", "memory_read"): 1,
        ("biases", "memory_read"): 1,
        ("outputs", "memory_write"): 1,
        ("addresses", "synaptic_operation"): 1,
    }


def test_an_identity_onto_itself_or_of_values_is_no_shortcut() -> None:
    """A neuron that excites itself has a synapse, and a value through an identity is a MAC."""
    still = InputSpec(name="still", kind="constant", shape=(2, 1, 1), high=9.0, scale=1.0)
    plain = one_layer(one_to_one((2, 1, 1), 200), spike_input(2, 1, 1))
    itself = Projection(source="p", target="p", synapses=one_to_one((2, 1, 1)), delay=1)
    values = Projection(source="still", target="p", synapses=one_to_one((2, 1, 1)))
    graph = replace(
        plain,
        inputs=(*plain.inputs, still),
        projections=(*plain.projections, itself, values),
    )
    recording = Recording(
        spikes={"in": np.ones((1, 3, 2, 1, 1), np.uint8)}, values={"still": np.ones((1, 2, 1, 1))}
    )
    record = simulate(graph, recording, steps=3).record
    shortcut, recurrent, multiplied = count(graph, record, neurobench()).projections
    assert (shortcut.accumulates, shortcut.twin) == (0, 0)
    assert (recurrent.accumulates, recurrent.twin) == (6, 2)
    assert (multiplied.multiply_accumulates, multiplied.twin) == (6, 2)


def test_a_bias_has_the_rate_of_what_is_weighed() -> None:
    """Not of the identity beside it, whichever is listed first: the input's is 1, p's is 1/2."""
    weight = np.zeros((2, 2, 1, 1), np.int64)
    weight[0] = 200
    first = one_layer(Conv2d(weight), spike_input(2, 3, 3))
    conv = Conv2d(np.ones((2, 2, 3, 3), np.int64), padding=(1, 1))
    graph = replace(
        first,
        populations=(*first.populations, population("sum", 2, 3, 3, neurons=lif(bias=1))),
        projections=(
            *first.projections,
            Projection(source="in", target="sum", synapses=one_to_one((2, 3, 3), 50)),
            Projection(source="p", target="sum", synapses=conv),
        ),
        outputs=("sum",),
    )
    spikes = np.ones((1, 4, 2, 3, 3), np.uint8)
    record = simulate(graph, Recording(spikes={"": spikes})).record
    biases = [t for t in count(graph, record, syops()).terms if t.name == "bias" and not t.twin]
    assert [(t.population, t.count) for t in biases] == [("sum", 4 * 18 / 2)]


def test_projections_share_a_pool() -> None:
    """Two that read one map through the same window pool it once, two windows twice."""
    first = one_layer(one_to_one((1, 4, 4), 200), spike_input(1, 4, 4))

    def pooled(name: str, kernel: int) -> Projection:
        pool = SumPool((kernel, kernel), (2, 2))
        return Projection(source="p", target=name, synapses=Conv2d(integers([[[[9]]]])), pool=pool)

    names = ("a", "b", "c")
    graph = replace(
        first,
        populations=(*first.populations, *(population(n, 1, 2, 2) for n in names)),
        projections=(*first.projections, *map(pooled, names, (2, 2, 1))),
        outputs=names,
    )
    record = simulate(graph, Recording(spikes={"": np.ones((1, 1, 1, 4, 4), np.uint8)})).record
    counts = count(graph, record, syops())
    pools = [(t.population, t.count, t.twin) for t in counts.terms if t.name == "pooling"]
    assert pools == [("a", 16, False), ("a", 16, True), ("c", 16, False), ("c", 16, True)]


def test_what_the_host_hands_on_is_neither_read_nor_addressed() -> None:
    spec = InputSpec(name="in", kind="constant", shape=(2, 2, 2), high=9.0, scale=1.0)
    graph = one_layer(one_to_one((2, 2, 2)), spec, number_format=LOIHI2)
    record = simulate(graph, Recording(values={"": np.full((1, 2, 2, 2), 3)}), steps=3).record
    counts = count(graph, record, conventions()["lemaire2022"]())
    assert {(t.name, t.operation) for t in counts.terms} == {
        ("membranes", "memory_read"),
        ("membranes", "memory_write"),
        ("outputs", "memory_write"),
    }
