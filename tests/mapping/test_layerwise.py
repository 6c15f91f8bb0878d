"""Chips whose core holds one whole population, as Speck's."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Graph, Projection
from snn_deploy.hardware import Target
from snn_deploy.mapping import place
from snn_deploy.mapping.cores import Cores
from snn_deploy.mapping.layerwise import words
from snn_deploy.mapping.placing import attempt
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.graphs import GENERIC
from tests.helpers.nets import dense, population, spike_input
from tests.mapping.chips import chip, limit

Memories = list[tuple[int, int]]


def speck(memories: Memories) -> Target:
    """Cores of (kernel words, neuron words)."""
    kernels, neurons = zip(*memories, strict=True)
    return chip(
        cores_per_chip=len(memories),
        kernel_words_per_core=limit(max(kernels), per_core=kernels),
        neuron_words_per_core=limit(max(neurons), per_core=neurons),
    )


def gesture() -> Graph:
    """The network that Speck's makers measure: 32C3s1-32C3s2-32C3s1-AP4-32FC on 2x32x32."""
    conv = {"a": (2, 1, 32), "b": (32, 2, 16), "c": (32, 1, 16)}
    before, populations, projections = "in", [], []
    for name, (channels, stride, side) in conv.items():
        kernel = Conv2d(np.ones((32, channels, 3, 3), np.int64), (stride, stride), (1, 1))
        projections.append(Projection(source=before, target=name, synapses=kernel))
        populations.append(population(name, 32, side, side))
        before = name
    head = Dense(np.ones((11, 32 * 4 * 4), np.int64))
    projections.append(
        Projection(source="c", target="out", synapses=head, pool=SumPool((4, 4), (4, 4)))
    )
    return Graph(
        inputs=(spike_input(2, 32, 32),),
        populations=(*populations, population("out", 11)),
        projections=tuple(projections),
        outputs=("out",),
        number_format=GENERIC,
    )


def test_words_of_a_layer() -> None:
    """K = c 2^(ceil lb(kx ky) + ceil lb f), N = f 2^(ceil lb fx + ceil lb fy)."""
    cores = Cores.of(gesture(), speck([(1, 1)] * 9))
    found = [tuple(words(cores, name).values()) for name in ("a", "b", "c", "out")]
    assert found == [
        (2 * 16 * 32, 32 * 32 * 32),
        (32 * 16 * 32, 32 * 16 * 16),
        (32 * 16 * 32, 32 * 16 * 16),
        (32 * 16 * 16, 11),
    ]


def test_speck_takes_the_network_of_its_makers() -> None:
    placement = place(gesture(), "speck2f")
    assert (placement.cores, placement.chips, placement.lower_bound) == (4, 1, 4)
    for used in placement.utilisation().values():
        assert used.max() <= 1
    assert len(set(placement.slots.tolist())) == 4
    assert placement.slots.max() < 9


def test_a_layer_that_no_core_holds() -> None:
    placement, found = attempt(Cores.of(gesture(), speck([(1 << 14, 1 << 14)] * 4)))
    assert placement is None
    (breach,) = found
    assert (breach.code, breach.where, breach.needed, breach.most) == ("DR21", "a", 32768, 16384)


def test_two_kernels_do_not_share_a_core() -> None:
    graph = Graph(
        inputs=(spike_input(2),),
        populations=(population("a", 2), population("b", 2)),
        projections=(
            dense("in", "a", 2, 2), dense("in", "b", 2, 2), dense("a", "b", 2, 2),
        ),
        outputs=("b",),
        number_format=GENERIC,
    )  # fmt: skip
    _, found = attempt(Cores.of(graph, speck([(99, 99)] * 3)))
    assert [(b.code, b.where, b.needed, b.most) for b in found] == [("DR23", "b", 2, 1)]


def chain(sizes: list[int]) -> Graph:
    names = [f"p{n}" for n in range(len(sizes))]
    return Graph(
        inputs=(spike_input(1),),
        populations=tuple(population(n, size) for n, size in zip(names, sizes, strict=True)),
        projections=tuple(
            dense(a, b, target, source)
            for a, b, source, target in zip(["in", *names], names, [1, *sizes], sizes, strict=False)
        ),
        outputs=(names[-1],),
        number_format=GENERIC,
    )


@settings(max_examples=80)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    memories=st.lists(
        st.tuples(st.sampled_from((8, 16, 40, 99)), st.sampled_from((2, 4, 6, 9))),
        min_size=1,
        max_size=5,
    ),
)
def test_an_assignment_is_found_if_there_is_one(sizes: list[int], memories: Memories) -> None:
    graph, target = chain(sizes), speck(memories)
    cores = Cores.of(graph, target)
    needs = [tuple(words(cores, p.name).values()) for p in graph.populations]
    possible = any(
        all(
            need[memory] <= memories[core][memory]
            for need, core in zip(needs, order, strict=True)
            for memory in (0, 1)
        )
        for order in permutations(range(len(memories)), len(needs))
    )
    placement, found = attempt(cores)
    assert (placement is not None) == possible
    if placement is None:
        assert {b.code for b in found} <= {"DR21", "DR22"}
        assert all(b.needed > b.most for b in found if b.code == "DR21")
        return
    for core, slot in enumerate(placement.slots.tolist()):
        (block,) = placement.blocks[core]
        kernel, neurons = needs[int(block.population[1:])]
        assert kernel <= memories[slot][0]
        assert neurons <= memories[slot][1]
        assert placement.capacity["kernel_words_per_core"][core] == memories[slot][0]
        assert placement.used["neuron_words_per_core"][core] == neurons


def test_the_wall_names_what_is_left() -> None:
    """Two layers of 9 neurons, one core for them."""
    _, (breach,) = attempt(Cores.of(chain([9, 9]), speck([(1000, 9), (1000, 4)])))
    assert (breach.code, breach.limit, breach.needed, breach.most) == (
        "DR22", "neuron_words_per_core", 9, 4,
    )  # fmt: skip
