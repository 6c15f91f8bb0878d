"""Placing: every placement recounted synapse by synapse, every refusal checked for what it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Graph, InputSpec, Projection, ResetSubtract
from snn_deploy.hardware import Target, available
from snn_deploy.mapping import place
from snn_deploy.mapping.chip_rules import Breach
from snn_deploy.mapping.cores import RESOURCES, Cores
from snn_deploy.mapping.placement import Placement
from snn_deploy.mapping.placing import attempt
from snn_deploy.sim.trace import Record
from snn_deploy.synapses import Conv2d, Dense
from tests.helpers.graphs import GENERIC, MEDIUM, SMALL, Case, float_cases, integer_cases
from tests.helpers.nets import dense, lif, one_layer, population, spike_input
from tests.helpers.refusals import refused
from tests.helpers.zoo_graphs import zoo_graph
from tests.mapping.chips import chip, chips, limit
from tests.mapping.oracle import enumerate_placement, pairs


def on_chip(graph: Graph, target: Target) -> set[str]:
    """Projections that the chip computes: all but those of constants that the host can."""
    assert target.structure is not None
    host = not target.structure.graded_input
    constants = {s.name for s in graph.inputs if s.kind == "constant"}
    return {p.name for p in graph.projections if not (host and p.source in constants)}


def bits_of(graph: Graph, projection: Projection) -> int:
    """The narrowest integer that holds all weights, in steps of the format."""
    if graph.number_format is None:
        return 8
    host = graph.is_constant(projection) and graph.number_format.first_layer == "host_bias"
    step = 1 if host else graph.number_format.weight_step
    low, high = (int(f(projection.synapses.weight)) for f in (np.min, np.max))
    signed = low < 0
    return next(
        bits
        for bits in range(1, 64)
        if high <= ((1 << (bits - signed)) - 1) * step
        and low >= (-(1 << (bits - 1)) * step if signed else 0)
    )


def made_up_record(graph: Graph, rng: np.random.Generator) -> Record:
    """Counts that no network made."""
    return Record(
        samples=1,
        timesteps=1,
        spikes={p.name: rng.integers(0, 9, p.shape) for p in graph.populations},
        sample_spikes={},
        inputs={s.name: rng.integers(0, 9, s.shape) for s in graph.inputs},
        events={},
        updates={},
    )


def check_placement(placement: Placement, rng: np.random.Generator) -> None:
    """Everything that a placement says, against the enumeration."""
    graph, target = placement.graph, placement.target
    assert target.structure is not None
    for p in graph.populations:
        covered = np.zeros((*p.shape, 1, 1)[:3], int)
        home = placement.homes[p.name].reshape(covered.shape)
        for core, blocks in enumerate(placement.blocks):
            for block in blocks:
                if block.population == p.name:
                    covered[block.slices] += 1
                    assert (home[block.slices] == core).all()
        assert (covered == 1).all(), "every neuron is on exactly one core"
    record = made_up_record(graph, rng)
    counted = enumerate_placement(
        placement,
        on_chip(graph, target),
        shares=bool(target.structure.shares_weights),
        bits={p.name: bits_of(graph, p) for p in graph.projections},
        events={**record.spikes, **record.inputs},
        apart=set(graph.outputs) if "output_neurons" in target.limits else set(),
    )
    for name in RESOURCES:
        assert placement.used[name].tolist() == [usage[name] for usage in counted.usage], name
    assert placement.messages(record) == counted.messages
    exceeded = {b.limit for b in placement.beyond}
    for name, stated in target.limits.items():
        if name in RESOURCES and name not in exceeded:
            assert max(u[name] for u in counted.usage) <= stated.value, name
    assert placement.lower_bound <= placement.cores
    for stated in (target.limits.get("cores_per_chip"),):
        if stated is not None:
            assert placement.chips >= -(-placement.cores // stated.value)
            assert len(set(placement.slots.tolist())) == placement.cores


def check_refusal(graph: Graph, target: Target, breach: Breach) -> None:
    """A wall is exceeded, and by the number that is said."""
    assert breach.kind == "wall"
    assert breach.needed > breach.most
    if breach.limit == "graded_input":
        assert graph.input(breach.where).kind != "spikes"
        return
    stated = target.limits[breach.limit]
    assert stated.kind == "wall"
    assert breach.most == (1 if breach.limit == "cores_per_chip" else stated.value)
    assert f"{breach.needed:,}" in breach.message
    assert f"{breach.most:,}" in breach.message
    into, out_of = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for projection in graph.projections:
        if projection.name in on_chip(graph, target):
            for source, neuron in pairs(graph, projection):
                into[projection.target, neuron] += 1
                out_of[projection.source, source] += 1
    most_in = max((n for (name, _), n in into.items() if name == breach.where), default=0)
    most_out = max((n for (name, _), n in out_of.items() if name == breach.where), default=0)
    if breach.limit == "fan_in" or (breach.code, breach.limit) == ("DR21", "axons_in_per_core"):
        assert breach.needed == most_in
    if breach.limit == "fan_out":
        assert breach.needed == most_out
    if breach.limit == "axons_out_per_core" and breach.message.startswith("a neuron has to reach"):
        neurons = target.limits.get("neurons_per_core")
        assert breach.needed == (1 if neurons is None else -(-most_out // neurons.value))


@settings(max_examples=150)
@given(
    case=st.one_of(float_cases(), integer_cases((SMALL, MEDIUM))),
    target=chips(),
    seed=st.integers(0),
)
def test_placements_are_what_they_say(case: Case, target: Target, seed: int) -> None:
    graph = case.graph
    placement, found = attempt(Cores.of(graph, target))
    if placement is None:
        for breach in found:
            check_refusal(graph, target, breach)
        with refused("SD208"):
            place(graph, target)
        return
    assert placement.beyond == found
    assert {b.kind for b in found} <= {"budget"}
    check_placement(placement, np.random.default_rng(seed))


@settings(max_examples=15)
@given(case=integer_cases((SMALL,), delays=False), seed=st.integers(0))
def test_messages_of_a_run(case: Case, seed: int) -> None:
    """Records of simulations have what is needed, too."""
    target = chip({"graded_input": True}, neurons_per_core=3, cores_per_tile=2)
    placement = place(case.graph, target)
    record = case.run("reference", trace=False).record
    counted = enumerate_placement(
        placement,
        on_chip(case.graph, target),
        shares=False,
        bits=dict.fromkeys((p.name for p in case.graph.projections), 1),
        events={**record.spikes, **record.inputs},
        apart=set(),
    )
    assert placement.messages(record) == counted.messages


def test_a_record_of_another_network() -> None:
    placement = place(chain(7, 3, 5, 2), chip(neurons_per_core=3))
    other = made_up_record(chain(7, 3, 4, 2), np.random.default_rng(0))
    with refused("SD103", "not of the network that was placed"):
        placement.messages(other)


# --- the papers' networks on every profile --------------------------------------------------------

LIMITED = [t for t in available() if t.limits or t.structure]
PLACED = {
    ("loihi1-davies2018", "shd"), ("loihi1-sanafe", "shd"), ("brainscales2", "shd"),
    *((chip, net) for chip in ("loihi2", "darwin3", "spinnaker1")
      for net in ("shd", "vggsnn", "resnet18")),
}  # fmt: skip


@pytest.mark.parametrize("net", ["shd", "vggsnn", "resnet18"])
@pytest.mark.parametrize("target", LIMITED, ids=lambda t: t.id)
def test_networks_of_papers(target: Target, net: str) -> None:
    """Placed within 1.2 times the lower bound, or refused by a wall, with both numbers."""
    graph = zoo_graph(net)
    cores = Cores.of(graph, target)
    if not cores.limited:
        with refused("SD209", target.id):
            place(graph, target)
        return
    placement, found = attempt(cores)
    assert (placement is not None) == ((target.id, net) in PLACED)
    if placement is None:
        assert found
        for breach in found:
            assert breach.kind == "wall"
            assert breach.needed > breach.most
            if breach.limit in target.limits:
                assert f"{breach.needed:,}" in breach.message
                assert f"{breach.most:,}" in breach.message
        with refused("SD208"):
            place(graph, target)
        return
    assert placement.cores <= 1.2 * placement.lower_bound
    assert sum(p.size for p in graph.populations) == placement.used["neurons_per_core"].sum()
    for used in placement.utilisation().values():
        assert 0 < used.max() <= 1


def test_what_resnet18_takes_of_loihi_2() -> None:
    """557,066 neurons at 8,192 a core (the first layer's sums are the host's, its neurons not)."""
    placement = place(zoo_graph("resnet18"), "loihi2")
    assert sum(p.size for p in placement.graph.populations) == 557_066
    assert (placement.lower_bound, placement.chips) == (69, 1)
    assert placement.cores <= 72


def test_a_wall_is_named_with_what_would_fit() -> None:
    """VGGSNN's 64 channels through a kernel of 3x3 are 576 sources; TrueNorth has 256 axons."""
    with refused("SD208", "a neuron has 576 synapses in, the chip 256"):
        place(zoo_graph("vggsnn"), "truenorth")
    found = attempt(Cores.of(zoo_graph("vggsnn"), next(t for t in LIMITED if t.id == "truenorth")))
    breach = found[1][0]
    assert (breach.code, breach.where, breach.limit) == ("DR11", "p1", "fan_in")
    assert "at most 28 source channels for the 9 places" in breach.fix
    assert "3 groups" in breach.fix


# --- one rule at a time ---------------------------------------------------------------------------


def chain(*sizes: int) -> Graph:
    """Dense layers; the first size is the input's."""
    names = ["in", *(f"p{n}" for n in range(1, len(sizes)))]
    return Graph(
        inputs=(spike_input(sizes[0]),),
        populations=tuple(
            population(n, size) for n, size in zip(names[1:], sizes[1:], strict=True)
        ),
        projections=tuple(
            dense(a, b, target, source)
            for a, b, source, target in zip(names, names[1:], sizes, sizes[1:], strict=False)
        ),
        outputs=(names[-1],),
        number_format=GENERIC,
    )


def broken(graph: Graph, target: Target) -> list[tuple[str, str, int, int]]:
    """Code, limit and both numbers of what is in the way of a placement."""
    placement, found = attempt(Cores.of(graph, target))
    assert placement is None
    return [(b.code, b.limit, b.needed, b.most) for b in found]


Numbers = tuple[str, str, int, int]

EXCEEDED: list[tuple[dict[str, int], Numbers]] = [
    ({"fan_in": 6}, ("DR11", "fan_in", 7, 6)),
    ({"fan_out": 4}, ("DR12", "fan_out", 5, 4)),
    ({"fan_out_layers": 0}, ("DR13", "fan_out_layers", 1, 0)),
    ({"input_channels": 6}, ("DR14", "input_channels", 7, 6)),
    ({"output_neurons": 1}, ("DR15", "output_neurons", 2, 1)),
    ({"layers": 2}, ("DR16", "layers", 3, 2)),
    ({"axons_in_per_core": 6}, ("DR21", "axons_in_per_core", 7, 6)),
    ({"synapses_per_core": 6}, ("DR21", "synapses_per_core", 7, 6)),
    ({"synapse_bits_per_core": 6}, ("DR21", "synapse_bits_per_core", 7, 6)),
    (
        {"neurons_per_core": 1, "axons_out_per_core": 4},
        ("DR21", "axons_out_per_core", 5, 4),
    ),
    ({"neurons_per_core": 3, "chips": 1, "cores_per_chip": 2}, ("DR22", "chips", 2, 1)),
    ({"neurons_per_core": 3, "cores_per_chip": 1}, ("DR22", "cores_per_chip", 4, 1)),
    ({"neurons_per_chip": 9}, ("DR22", "neurons_per_chip", 2, 1)),
]


def with_limits(limits: dict[str, int], kind: str) -> Target:
    """A chip with these limits, and room for neurons if they say nothing of it."""
    stated = {name: limit(value, kind) for name, value in limits.items()}
    if not any(name.startswith("neurons") for name in limits):
        stated["neurons_per_core"] = limit(100)
    return chip(**stated)


@pytest.mark.parametrize(("limits", "expected"), EXCEEDED)
def test_a_wall_refuses(limits: dict[str, int], expected: Numbers) -> None:
    """A chain 7-3-5-2 whose weights, all 1, take one bit each."""
    assert expected in broken(chain(7, 3, 5, 2), with_limits(limits, "wall"))


@pytest.mark.parametrize(("limits", "expected"), EXCEEDED)
def test_a_budget_is_said_and_exceeded(limits: dict[str, int], expected: Numbers) -> None:
    placement = place(chain(7, 3, 5, 2), with_limits(limits, "budget"))
    assert expected in [(b.code, b.limit, b.needed, b.most) for b in placement.beyond]
    assert all(b.kind == "budget" for b in placement.beyond)


@pytest.mark.parametrize(("limits", "expected"), EXCEEDED)
def test_what_is_just_enough_is_enough(limits: dict[str, int], expected: Numbers) -> None:
    _, name, needed, _ = expected
    enough = {**limits, name: 10 if name.endswith("chip") else needed}
    assert place(chain(7, 3, 5, 2), with_limits(enough, "wall")).beyond == ()


def test_structure() -> None:
    """What a chip cannot express at all."""
    loop = chain(2, 2)
    loop = replace(loop, projections=(*loop.projections, dense("p1", "p1", 2, 2, delay=1)))
    assert broken(loop, chip({"recurrence": False}, neurons_per_core=9)) == [
        ("DR18", "recurrence", 1, 0)
    ]
    assert place(loop, chip({"recurrence": True}, neurons_per_core=9)).cores == 1
    soft = replace(
        chain(2, 2), populations=(population("p1", 2, neurons=lif(reset=ResetSubtract(5))),)
    )
    assert broken(soft, chip({"soft_reset": False}, neurons_per_core=9)) == [
        ("DR20", "soft_reset", 1, 0)
    ]
    assert place(soft, chip({"soft_reset": True}, neurons_per_core=9)).cores == 1
    graded = replace(chain(2, 2), inputs=(InputSpec(name="in", kind="graded", shape=(2,)),))
    assert broken(graded, chip({"graded_input": False}, neurons_per_core=9)) == [
        ("DR19", "graded_input", 1, 0)
    ]
    assert place(graded, chip({"graded_input": True}, neurons_per_core=9)).cores == 1


def test_weights_that_are_too_wide() -> None:
    graph = chain(2, 2)
    wide = Projection(source="in", target="p1", synapses=Dense(np.array([[7, -9], [0, 1]])))
    graph = replace(graph, projections=(wide,))  # -9 needs 5 bits
    assert broken(graph, chip(neurons_per_core=9, weight_bits=4)) == [("DR17", "weight_bits", 5, 4)]
    assert place(graph, chip(neurons_per_core=9, weight_bits=5)).cores == 1


def test_outputs_may_have_a_place_of_their_own() -> None:
    """Xylo: so many hidden neurons, so many outputs."""
    graph = chain(7, 3, 5, 2)
    assert place(graph, chip(neurons_per_core=8, output_neurons=2, cores_per_chip=1)).chips == 1
    assert broken(graph, chip(neurons_per_core=8, cores_per_chip=1)) == [
        ("DR22", "cores_per_chip", 2, 1)
    ]


def test_kernels_are_stored_once_where_a_chip_shares_weights() -> None:
    """A kernel of 3x3, 2 to 4 channels, on a map of 6x6 without padding: 4x4 pixels."""
    weight = np.ones((4, 2, 3, 3), np.int64)
    graph = one_layer(Conv2d(weight), spike_input(2, 6, 6))
    apart = place(graph, chip({"shares_weights": False}, neurons_per_core=64))
    shared = place(graph, chip({"shares_weights": True}, neurons_per_core=64))
    assert apart.used["synapses_per_core"].tolist() == [4 * 2 * 9 * 16]
    assert shared.used["synapses_per_core"].tolist() == [4 * 2 * 9]
    assert shared.used["axons_in_per_core"].tolist() == [72]


def test_one_core_serves_what_two_populations_hear_once() -> None:
    """256 sources reach both populations: together they fit in 256 axons, one by one in 512."""
    graph = Graph(
        inputs=(spike_input(256),),
        populations=(population("a", 3), population("b", 4)),
        projections=(dense("in", "a", 3, 256), dense("in", "b", 4, 256)),
        outputs=("a", "b"),
        number_format=GENERIC,
    )
    placement = place(graph, chip(axons_in_per_core=256))
    assert placement.cores == 1
    assert placement.used["axons_in_per_core"].tolist() == [256]


def test_unknown_limits_are_no_room() -> None:
    with refused("SD209", "nothing is known of what a core of made-up holds"):
        place(chain(2, 2), chip())
    with refused("SD105"):
        place(chain(2, 2), "spam")
    placement = place(chain(2, 2), chip(neurons_per_core=1))
    assert placement.unset == (
        "axons_in_per_core", "axons_out_per_core", "synapses_per_core", "synapse_bits_per_core",
    )  # fmt: skip
