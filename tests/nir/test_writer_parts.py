"""Parts of the NIR writer: square kernels, names, order of edges, the file's layout, verdicts."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from snn_deploy.exporters.nir import NirExporter, exporter
from snn_deploy.exporters.nir.compatibility import PEERS, peers
from snn_deploy.exporters.nir.encoding import encode
from snn_deploy.exporters.nir.neurons import DIALECTS, DialectName
from snn_deploy.exporters.nir.projections import narrow
from snn_deploy.exporters.nir.squares import cropping, square
from snn_deploy.exporters.nir.values import rounds
from snn_deploy.exporters.nir.writing import file_bytes

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    LIF,
    Graph,
    Integrator,
    Population,
    Projection,
    ResetSubtract,
    ResetTo,
)
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import Conv2d, Dense, SumPool, one_to_one
from tests.helpers.graphs import GENERIC, Case
from tests.helpers.nets import dense, integers, lif, one_layer, population, spike_input
from tests.helpers.refusals import refused
from tests.nir.test_writer_semantics import nets
from tests.test_exporters_nir import same

Array = NDArray[Any]

# --- square kernels -------------------------------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv2d, tuple[int, int]]:
    """A convolution with a kernel of any shape, and a map that it fits."""
    axes = []
    for _ in range(2):
        kernel, padding, dilation = (draw(st.integers(*ends)) for ends in ((1, 4), (0, 2), (1, 3)))
        least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        size = draw(st.integers(least, least + 5))
        axes.append((kernel, draw(st.integers(1, 3)), padding, dilation, size))
    kernel_, stride, padding_, dilation_, size_ = ((a, b) for a, b in zip(*axes, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-9, 10, (2, 3, *kernel_)).astype(np.float64)
    return Conv2d(weight, stride, padding_, dilation_), size_


def convolved(synapses: Conv2d, x: Array) -> Array:
    return synaptic_sum(Projection(source="a", target="b", synapses=synapses), x.shape, x)


@settings(max_examples=300)
@given(drawn=convolutions())
def test_square_kernels_say_the_same(drawn: tuple[Conv2d, tuple[int, int]]) -> None:
    synapses, size = drawn
    made = square(synapses, size)
    assert made.synapses.weight.shape[2] == made.synapses.weight.shape[3]
    x = np.random.default_rng(0).integers(-9, 10, (3, *size)).astype(np.float64)
    found = convolved(made.synapses, x)
    event("as it was" if made.synapses is synapses else f"cropped: {made.crop is not None}")
    if made.crop is not None:
        found = convolved(cropping(2, made.crop), found)
    np.testing.assert_array_equal(found, convolved(synapses, x))


@pytest.mark.parametrize("length", range(1, 9))
def test_one_dimension_needs_no_cropping(length: int) -> None:
    """(C, 1, L): of the only row no second window is made, whatever the stride."""
    synapses = Conv2d(np.ones((2, 3, 1, length)))
    assert square(synapses, (1, 12)).crop is None


# --- names and order ------------------------------------------------------------------------------


def named(*names: str) -> Graph:
    """Populations of these names, all of them fed by the input, the last by all others."""
    first = [dense("in", name, 2, 2) for name in names[:-1]]
    last = [dense(name, names[-1], 2, 2) for name in names[:-1]]
    return Graph(
        inputs=(spike_input(2),),
        populations=tuple(population(name, 2) for name in names),
        projections=(*first, *last),
        outputs=names[-1:],
        timesteps=3,
        number_format=GENERIC,
    )


def test_names_are_kept_apart(tmp_path: Path) -> None:
    """Readers make one name of a.b, a-b and a_b, and know nodes called input and output."""
    graph = named("a.b", "a-b", "a_b", "input", "output", "in_neurons")
    encoded = encode(graph)
    assert len(set(encoded.nodes.values())) == 7
    assert all(name.isidentifier() for name in encoded.graph.nodes)
    assert encoded.nodes["a.b"] == "a_b_neurons"
    exporter.write(graph, tmp_path / "model.nir")
    said = json.loads(nir.read(tmp_path / "model.nir").metadata["snn_deploy_encoding"])
    assert said == {"dialect": "portable", "dt": 1e-4, "nodes": encoded.nodes, "readouts": {}}


def shortcut(*, weight: int) -> Graph:
    """Two populations of a map, and a shortcut from the first one's input around the second."""
    shape = (2, 3, 3)
    spec = spike_input(*shape)
    around = Projection(source="a", target="c", synapses=one_to_one(shape, weight))
    kernel = Conv2d(np.ones((2, 2, 3, 3), np.int64), padding=(1, 1))
    ends = (("in", "a"), ("a", "b"), ("b", "c"))
    return Graph(
        inputs=(spec,),
        populations=tuple(population(name, *shape) for name in "cba"),
        projections=(
            around, *(Projection(source=a, target=b, synapses=kernel) for a, b in ends)
        ),
        outputs=("c",),
        timesteps=3,
        number_format=GENERIC,
    )  # fmt: skip


def test_a_shortcut_of_ones_is_an_edge_behind_the_longer_way() -> None:
    edges = encode(shortcut(weight=1)).graph.edges
    assert edges.index(("a_neurons", "c_neurons")) > edges.index(("a_neurons", "b_synapses"))
    assert ("a_neurons", "c_neurons") not in encode(shortcut(weight=2)).graph.edges


def test_what_loops_back_comes_first() -> None:
    """Norse hands out what it runs last: that must not be the weights of a loop."""
    graph = named("a", "b")
    graph = replace(
        graph,
        populations=graph.populations[::-1],
        projections=(*graph.projections, dense("a", "a", 2, 2, delay=1)),
    )
    edges = encode(graph).graph.edges
    assert edges.index(("a_neurons", "a_from_a_synapses")) < edges.index(
        ("a_neurons", "b_synapses")
    )


# --- the file -------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(case=nets(), dialect=st.sampled_from(DIALECTS))
def test_round_trip_of_everything(
    tmp_path_factory: pytest.TempPathFactory, case: Case, dialect: DialectName
) -> None:
    """Float and integer, both dialects: read back equal, written again to the same bytes."""
    folder = tmp_path_factory.mktemp("nir")
    try:
        exporter.write(case.graph, folder / "one.nir", dialect)
    except SnnDeployError as error:
        event(error.code)
        assert not list(folder.iterdir())
        assume(False)
    read = exporter.read(folder / "one.nir")
    assert same(read, case.graph)
    exporter.write(read, folder / "two.nir", dialect)
    assert (folder / "one.nir").read_bytes() == (folder / "two.nir").read_bytes()


def test_the_layout_is_that_of_nir_write() -> None:
    """But for a ``v_reset`` of zeros, that releases before 1.0.6 do not know."""
    graph = encode(shortcut(weight=1)).graph
    graph.metadata = {"a": "text", "b": {"0": np.arange(3)}}
    theirs, skipped = io.BytesIO(), []
    nir.write(theirs, graph)
    with h5py.File(theirs) as expected, h5py.File(io.BytesIO(file_bytes(graph))) as found:

        def compare(name: str, item: Any) -> None:
            if name not in found:
                skipped.append(name)
                assert not item[()].any()
            elif isinstance(item, h5py.Dataset):
                one, other = item[()], found[name][()]
                assert (found[name].dtype, found[name].compression) == (
                    item.dtype, item.compression
                )  # fmt: skip
                assert np.array_equal(one, other)

        expected.visititems(compare)
        names: list[str] = []
        found.visit(names.append)
        assert all(name in expected for name in names)
    assert skipped == [f"node/nodes/{p}_neurons/v_reset" for p in "abc"]


def test_a_reset_that_is_not_zero_is_written(tmp_path: Path) -> None:
    graph = one_layer(Dense(integers([[1]])), spike_input(1), lif(2048, reset=ResetTo(-32)))
    exporter.write(graph, tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir") as file:
        assert file["node/nodes/p_neurons/v_reset"][()] == [-0.25]  # of half a membrane


def test_weights_are_float32_where_that_is_exact() -> None:
    assert narrow(np.array([0.5, 2.0**24])).dtype == np.float32
    assert narrow(np.array([0.1])).dtype == np.float64
    assert narrow(np.array([2.0**24 + 1])).dtype == np.float64
    assert narrow(np.array([1e300])).dtype == np.float64


@pytest.mark.parametrize("claim", ["groups", "delays"])
def test_weights_that_a_file_claims_are_not_made(claim: str, tmp_path: Path) -> None:
    """What is small in a description, and large when it is written out with zeros."""
    wide = 1500
    if claim == "groups":
        shape = (wide, 1, 1)
        graph = one_layer(Conv2d(np.ones((wide, wide, 1, 1), np.int16)), spike_input(*shape))
        forged = Conv2d(np.full((wide, 1, 1, 1), 2, np.int16), groups=wide)
        graph = replace(graph, projections=(replace(graph.projections[0], synapses=forged),))
        most = wide * 10
    else:
        weight = np.ones((wide, wide), np.int16)
        delay = np.arange(wide * wide).reshape(wide, wide) % 59
        graph = one_layer(Dense(weight), spike_input(wide), delay=delay)
        most = wide * wide * 3
    tracemalloc.start()
    began = time.monotonic()
    with refused("SD405", "more weights than the file holds"):
        encode(graph, most=most)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert time.monotonic() - began < 5


def test_unknown_dialect(tmp_path: Path) -> None:
    with refused("SD105", "known: portable, sinabs"):
        exporter.with_dialect("spam")
    with refused("SD204", "sinabs cannot say a bias per neuron"):
        spread = lif(bias=np.arange(4).reshape(1, 2, 2))
        graph = one_layer(Conv2d(np.ones((1, 1, 1, 1), np.int64)), spike_input(1, 2, 2), spread)
        exporter.write(graph, tmp_path / "model.nir", "sinabs")
    assert not list(tmp_path.iterdir())


# --- who runs it ----------------------------------------------------------------------------------


def one(neurons: LIF | Integrator, **more: Any) -> Graph:
    return one_layer(Dense(np.ones((2, 2), np.int64)), spike_input(2), neurons, **more)


LEAKY = lif(2048)
MAP = spike_input(1, 3, 3)
SPREAD = np.arange(9).reshape(1, 3, 3)
KERNEL = Conv2d(np.ones((1, 1, 3, 3), np.int64), padding=(1, 1))
EXACT, MISREAD, REFUSED = "exact", "misread", "refused"


def judged() -> Iterator[Any]:
    """Graphs and the verdicts of snnTorch, Norse, SpikingJelly on the portable file."""
    two = named("a", "b")
    leaky = tuple(population(name, 2, neurons=LEAKY) for name in "ab")
    two = replace(two, populations=leaky, projections=(*two.projections[:1], dense("a", "b", 2, 2)))
    itself = replace(two, projections=(*two.projections, dense("a", "a", 2, 2, delay=1)))
    delayed = replace(two, projections=(two.projections[0], dense("a", "b", 2, 2, delay=1)))
    parallel = named("a", "b", "c")
    soft = lif(2048, reset=ResetSubtract(64))
    several = replace(one(soft).populations[0], max_spikes=2)
    inputs = replace(
        two, inputs=(*two.inputs, spike_input(2, name="x")),
        projections=(*two.projections, dense("x", "b", 2, 2)),
    )  # fmt: skip
    for name, graph, verdicts in (
        ("leaky", one(LEAKY), (EXACT, EXACT, EXACT)),
        ("no leak", one(lif(4096)), (REFUSED, EXACT, EXACT)),
        ("no threshold", one(lif(2048, threshold=0)), (MISREAD, EXACT, EXACT)),
        ("no memory", one(lif(0)), (EXACT, EXACT, EXACT)),
        ("decays", one(lif([0, 4096])), (EXACT, EXACT, REFUSED)),
        ("thresholds", one(lif(2048, threshold=[1, 2])), (REFUSED, EXACT, REFUSED)),
        ("current", one(lif(2048, current_decay=integers(1024))), (EXACT, EXACT, EXACT)),
        ("currents", one(lif(2048, current_decay=integers([0, 1]))), (EXACT, EXACT, REFUSED)),
        (
            "current, biased",
            one(lif(2048, bias=3, current_decay=integers(1024))),
            (REFUSED, MISREAD, REFUSED),
        ),
        ("subtraction", one(soft), (MISREAD, MISREAD, MISREAD)),
        ("several spikes", replace(one(soft), populations=(several,)), (MISREAD,) * 3),
        ("reset to 32", one(lif(2048, reset=ResetTo(32))), (MISREAD, MISREAD, REFUSED)),
        ("readout", one(Integrator(decay=integers(0), bias=integers(0))), (EXACT,) * 3),
        (
            "readout with memory",
            one(Integrator(decay=integers(9), bias=integers(0))),
            (REFUSED, MISREAD, REFUSED),
        ),
        ("membranes read", one(lif(2048, readout="last")), (MISREAD,) * 3),
        ("biases of a map", one_layer(KERNEL, MAP, lif(2048, bias=SPREAD)),
         (REFUSED, MISREAD, REFUSED)),
        ("recurrence", itself, (REFUSED, EXACT, EXACT)),
        ("delay", delayed, (REFUSED, MISREAD, REFUSED)),
        ("parallel", parallel, (EXACT, MISREAD, EXACT)),
        ("shortcut", shortcut(weight=1), (EXACT, EXACT, EXACT)),
        ("weighted shortcut", shortcut(weight=2), (EXACT, MISREAD, EXACT)),
        ("two inputs", inputs, (REFUSED, MISREAD, REFUSED)),
        ("two outputs", replace(two, outputs=("a", "b")), (REFUSED, MISREAD, REFUSED)),
        ("a pool", one_layer(one_to_one((1, 1, 1)), spike_input(1, 2, 2), LEAKY,
                             pool=SumPool((2, 2), (2, 2))), (EXACT,) * 3),
    ):  # fmt: skip
        yield pytest.param(graph, verdicts, id=name)


@pytest.mark.parametrize(("graph", "verdicts"), list(judged()))
def test_verdicts(graph: Graph, verdicts: tuple[str, ...]) -> None:
    found = peers(graph)
    assert found.keys() == PEERS.keys()
    assert tuple(found[p].verdict for p in ("snntorch", "norse", "spikingjelly")) == verdicts
    for verdict in found.values():
        assert (verdict.verdict == "exact") == (not verdict.why)
    assert found["sinabs"].verdict != "exact"


def test_a_verdict_says_what_mends_it() -> None:
    graph = named("a", "b")
    graph = replace(graph, projections=(*graph.projections, dense("b", "b", 2, 2, delay=1)))
    found = peers(graph)["snntorch"]
    assert (found.verdict, found.mended) == ("refused", "exact")
    assert "b feeds itself" in found.why[0]
    assert "_replace_rnn_subgraph_with_nirgraph" in found.steps[0]


SOFT = ResetSubtract(64)


@pytest.mark.parametrize(
    ("neurons", "most", "verdict", "mended"),
    [
        (lif(2048, threshold=64, reset=SOFT), 255, "exact", "exact"),
        (lif(2048, threshold=64, reset=SOFT), 1, "misread", "exact"),
        (lif(2048, threshold=64, reset=SOFT), 3, "approximate", "exact"),
        (lif(2048, threshold=65, reset=SOFT), 255, "misread", "misread"),
        (lif(2048, threshold=65, reset=SOFT), 1, "misread", "exact"),
        (lif(2048), 1, "misread", "exact"),
        (lif(2048, reset=ResetTo(3)), 1, "misread", "misread"),
    ],
)
def test_verdicts_of_sinabs(neurons: LIF, most: int, verdict: str, mended: str) -> None:
    graph = one(neurons)
    graph = replace(graph, populations=(replace(graph.populations[0], max_spikes=most),))
    found = peers(graph, "sinabs")["sinabs"]
    assert (found.verdict, found.mended) == (verdict, mended)
    assert peers(graph, "sinabs")["norse"].verdict == "misread"


@pytest.mark.parametrize(
    ("neurons", "timesteps", "exact"),
    [
        (lif(0), None, True),
        (lif(4096), None, True),
        (lif(2048), None, False),
        (lif(2048), 8, True),  # 7 decays, of membranes that are multiples of 2^7
        (lif(2048), 9, False),
        (lif(2048, bias=64), 8, False),
        (lif(2048, bias=128), 8, True),
        (lif(0, current_decay=integers(2048)), 9, False),
        (lif(3072), 4, True),
        (lif(3072), 5, False),
    ],
)
def test_when_floats_act_as_integers(neurons: LIF, timesteps: int | None, exact: bool) -> None:
    """A spike adds 2 weight units, 2^7 membrane units; a decay by half takes one bit of them."""
    graph = one_layer(Dense(integers([[2, 2]])), spike_input(2), neurons)
    assert (not list(rounds(replace(graph, timesteps=timesteps)))) == exact


def test_facts_are_plain_data(tmp_path: Path) -> None:
    written = NirExporter("sinabs").export(one(LEAKY), tmp_path)
    facts = json.loads(json.dumps(written.facts))
    assert (facts["dialect"], facts["dt"], facts["integer_exact"]) == ("sinabs", 1.0, False)
    assert facts["integer_rounding"] == ["the decay of p cuts what is less than a membrane unit"]
    assert facts["peers"].keys() == PEERS.keys()
    assert facts["peers"]["sinabs"]["release"] == "3.1.3"


def test_populations_that_lead_nowhere_are_written(tmp_path: Path) -> None:
    """NIR would add an Output of its own to them; an input that feeds nothing has no node."""
    graph = named("a", "b", "c")
    graph = replace(graph, inputs=(*graph.inputs, spike_input(3, name="idle")), outputs=("a",))
    graph = replace(graph, populations=tuple(
        replace(p, neurons=lif(), scale=1.0) if isinstance(p, Population) else p
        for p in graph.populations
    ))  # fmt: skip
    exporter.write(graph, tmp_path / "model.nir")
    read = nir.read(tmp_path / "model.nir")
    kinds = {name: type(node).__name__ for name, node in read.nodes.items()}
    assert [n for n, kind in kinds.items() if kind == "Input"] == ["input"]
    assert sorted(n for n, k in kinds.items() if k == "Output") == ["a_output", "c_output"]
    assert same(exporter.read(tmp_path / "model.nir"), graph)
