"""What we write for Lava: the same bytes, read back as what was meant, or refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from snn_deploy.exporters import Opened
from snn_deploy.exporters.lava import PROGRAM, exporter, writer
from snn_deploy.exporters.lava.program import Program
from snn_deploy.exporters.lava.reader import read
from snn_deploy.exporters.lava.writer import chain as to_chain
from snn_deploy.exporters.lava.writer import write

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Population,
    Projection,
    ResetSubtract,
)
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d, Dense, SumPool, one_to_one
from tests.helpers.graphs import GENERIC, LOIHI2, Case
from tests.helpers.nets import integers, lif, population, spike_input
from tests.helpers.pools import pooled_cases
from tests.helpers.random_graphs import chain, network
from tests.helpers.refusals import refused

SEEDS = range(12)
VECTOR = spike_input(2)
IMAGE = spike_input(2, 4, 6)
MIXED = np.array([[4, -2], [6, -8], [2, 2]])
SQUARE = np.array([[2, -4, 6], [0, 2, -2], [8, 8, -8]])
KERNEL = 2 * np.arange(-12, 12).reshape(3, 2, 2, 2)  # of (2, 4, 6) it makes (3, 3, 5)


def integrator(**more: Any) -> Integrator:
    return Integrator(decay=integers(0), bias=integers(0), **more)


def to(source: str, target: str, synapses: Any, **more: Any) -> Projection:
    return Projection(source=source, target=target, synapses=synapses, **more)


def graph_of(
    inputs: InputSpec | tuple[InputSpec, ...],
    populations: list[Population],
    *projections: Projection,
    outputs: tuple[str, ...] = (),
    **more: Any,
) -> Graph:
    options: dict[str, Any] = {"timesteps": 4, "number_format": LOIHI2} | more
    return Graph(
        inputs=inputs if isinstance(inputs, tuple) else (inputs,),
        populations=tuple(populations),
        projections=projections,
        outputs=outputs or (populations[-1].name,),
        **options,
    )


def one(synapses: Any, spec: InputSpec = VECTOR, neurons: Any = None, **more: Any) -> Graph:
    """An input and one population "p" behind it."""
    form = more.pop("number_format", LOIHI2)
    steps = more.pop("timesteps", 4)
    seen = spec.shape if more.get("pool") is None else more["pool"].output_shape(spec.shape)
    made = population("p", *synapses.target_shape(seen), neurons=neurons)
    projection = to(spec.name, "p", synapses, **more)
    return graph_of(spec, [made], projection, number_format=form, timesteps=steps)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the file -------------------------------------------------------------------------------------


def datasets(path: Path) -> dict[str, Any]:
    """Everything below /layer, by path."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        assert file.keys() == {"layer", "snn_deploy"}
        file["layer"].visititems(visit)
    return found


def test_layers_of_images(tmp_path: Path) -> None:
    """As netx wants them: flattened before a vector, maps of biases in W, H, C order."""
    bias = np.arange(45).reshape(3, 3, 5)
    graph = graph_of(
        IMAGE,
        [
            population("a", 3, 3, 5, neurons=lif(decay=4000, threshold=70, bias=bias)),
            population(
                "b", 3, 3, 5, neurons=lif(threshold=5, bias=np.array([1, 0, -1]).reshape(3, 1, 1))
            ),
            population("c", 2, neurons=lif(threshold=9, bias=3, current_decay=integers([1, 2]))),
        ],
        to("in", "a", Conv2d(KERNEL)),
        to("a", "b", one_to_one((3, 3, 5), 6)),
        to("b", "c", Dense(2 * np.arange(-45, 45).reshape(2, 45))),
    )
    write(graph, tmp_path / "a.net")
    found = datasets(tmp_path / "a.net")
    layers = [found[f"{i}/type"] for i in range(5)]
    assert [(t.dtype, t.shape, t[0]) for t in layers] == [
        (np.dtype("S10"), (1,), kind) for kind in (b"input", b"conv", b"conv", b"flatten", b"dense")
    ]
    shapes = {name: value.tolist() for name, value in found.items() if name.endswith("/shape")}
    assert shapes == {
        "0/shape": [2, 4, 6], "1/shape": [3, 3, 5], "2/shape": [3, 3, 5], "4/shape": [2],
    }  # fmt: skip
    assert "0/neuron/type" not in found
    assert found["1/weight"].tolist() == KERNEL.tolist()
    assert found["1/weight"].dtype == np.int32
    for name, value in (("stride", [1, 1]), ("padding", [0, 0]), ("dilation", [1, 1])):
        assert found[f"1/{name}"].tolist() == value
    assert (found["1/groups"], found["1/groups"].shape, found["2/groups"]) == (1, (), 3)
    for c, y, x in np.ndindex(3, 3, 5):
        assert found["1/bias"][x, y, c] == bias[c, y, x]
    assert found["2/bias"].tolist() == [1, 0, -1]
    assert found["4/bias"].tolist() == [3, 3]
    parameters = {
        i: [found[f"{i}/neuron/{name}"].tolist() for name in ("iDecay", "vDecay", "vThMant")]
        for i in (1, 2, 4)
    }
    assert parameters == {1: [4096, 96, 70], 2: [4096, 4096, 5], 4: [[4095, 4094], 4096, 9]}
    assert all(found[f"{i}/neuron/type"] == b"CUBA" for i in (1, 2, 4))


def test_provenance_lies_beside_the_layers(tmp_path: Path) -> None:
    write(one(Dense(MIXED)), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        said = json.loads(file["snn_deploy"][()])
    assert said == {
        "populations": ["p"], "scales": [1.0], "timesteps": 4, "input_message_bits": 0,
    }  # fmt: skip


def test_a_layer_with_recurrence_and_one_with_delays(tmp_path: Path) -> None:
    graph = graph_of(
        VECTOR,
        [population("a", 3), population("b", 3)],
        to("in", "a", Dense(MIXED)),
        to("a", "a", Dense(SQUARE), delay=1),
        to("a", "b", Dense(SQUARE), delay=integers([[1, 2, 3]])),
    )
    write(graph, tmp_path / "a.net")
    found = datasets(tmp_path / "a.net")
    assert [found[f"{i}/type"][0] for i in range(2)] == [b"dense_rec", b"dense"]
    assert found["0/weight_rec"].tolist() == SQUARE.tolist()
    assert "0/delay" not in found
    # of a vector netx would make delays per output neuron, as the matrix is square
    assert found["1/delay"].tolist() == [[1, 2, 3]] * 3


def test_what_the_host_computes_becomes_biases(tmp_path: Path) -> None:
    spec = InputSpec(name="in", kind="constant", shape=(2, 4, 6), high=1.0, scale=1 / 255)
    synapses = Conv2d(KERNEL)
    write(one(synapses, spec, lif(threshold=7, bias=9), exponent=-5), tmp_path / "a.net")
    found = datasets(tmp_path / "a.net")
    assert found["0/type"][0] == b"input"
    assert found["0/shape"].tolist() == [3, 3, 5]
    assert found["0/neuron/vThMant"] == 7
    assert not {"0/weight", "0/bias", "1/type"} & found.keys()  # the host adds the neurons' own


def test_a_readout_is_a_layer_that_cannot_fire(tmp_path: Path) -> None:
    write(one(Dense(MIXED), neurons=integrator(readout="sum")), tmp_path / "a.net")
    found = datasets(tmp_path / "a.net")
    # the chip adds up what the host would have to add up: no leak
    assert (found["0/neuron/vThMant"], found["0/neuron/vDecay"]) == ((1 << 17) - 1, 0)
    assert read(tmp_path / "a.net").graph.population("0").neurons.readout == "last"


def test_large_arrays_are_packed(tmp_path: Path) -> None:
    weight = np.tile(MIXED, (200, 1))
    write(one(Dense(weight)), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        assert file["layer/0/weight"].compression == "gzip"
        assert file["layer/0/shape"].compression is None
        assert file["layer/0/weight"][()].tolist() == weight.tolist()


# --- the same bytes -------------------------------------------------------------------------------


def write_all(folder: Path) -> None:
    """Networks of every kind, as netx files and as programs."""
    folder.mkdir()
    for seed in SEEDS:
        write(chain(seed)[0], folder / f"net{seed}.net")
        Program(network(seed)[0]).write(folder / f"net{seed}.py")


def test_same_bytes_in_any_folder_and_process(tmp_path: Path) -> None:
    write_all(tmp_path / "here")
    expected = contents(tmp_path / "here")
    assert len(expected) == 3 * len(SEEDS)
    for seed in ("1", "2"):
        folder = tmp_path / f"there{seed}"
        code = (
            "import sys; from pathlib import Path; from tests.test_lava_writer import write_all; "
            "write_all(Path(sys.argv[1]))"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": seed}, check=True, timeout=120,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        digests = {name: hashlib.sha256(c).hexdigest() for name, c in contents(folder).items()}
        assert digests == {n: hashlib.sha256(c).hexdigest() for n, c in expected.items()}


def test_written_again_over_itself(tmp_path: Path) -> None:
    graph, _ = chain(0)
    write(graph, tmp_path / "a.net")
    before = contents(tmp_path)
    write(graph, tmp_path / "a.net")
    assert contents(tmp_path) == before


# --- read again -----------------------------------------------------------------------------------


def fed(graph: Graph, recording: Recording) -> tuple[Recording, int]:
    """What the file is fed: what the host makes of values; and the number of timesteps."""
    said = to_chain(graph)
    assert graph.timesteps is not None
    if said.host is not None:
        return Recording(values={"": said.host.biases(recording)}), graph.timesteps
    (spec,) = graph.inputs
    if spec.kind == "graded":
        return Recording(values={"": spec.encode(recording.values[""])}), graph.timesteps
    return recording, graph.timesteps


def check_file(graph: Graph, recording: Recording, path: Path) -> None:
    """Write, read, and compare every spike, current and membrane with the graph's own."""
    write(graph, path)
    said = to_chain(graph)
    found = read(path, input_bits=said.input_bits)
    given, steps = fed(graph, recording)
    if found.graph.inputs[0].shape != graph.inputs[0].shape and said.host is None:
        arrays = given.spikes or given.values  # an image into dense synapses: flattened
        flat = {"": arrays[""].reshape(*arrays[""].shape[:2], -1)}
        given = Recording(spikes=flat) if given.spikes else Recording(values=flat)
    expected = simulate(graph, recording, trace=True)
    theirs = simulate(found.graph, given, steps=steps, trace=True)
    for index, name in enumerate(said.names):
        neurons = graph.population(name).neurons
        np.testing.assert_array_equal(theirs.current[str(index)], expected.current[name])
        if isinstance(neurons, LIF):
            np.testing.assert_array_equal(theirs.spikes[str(index)], expected.spikes[name])
            np.testing.assert_array_equal(theirs.membrane[str(index)], expected.membrane[name])
        else:
            assert not theirs.spikes[str(index)].any()
            last = said.graph.population(name).neurons
            assert isinstance(last, Integrator)
            over_time = {"last": lambda m: m[:, -1], "sum": lambda m: m.sum(axis=1)}
            over_time |= {"mean": over_time["sum"], "max": lambda m: m.max(axis=1)}
            read_out = over_time[last.readout](theirs.membrane[str(index)])
            np.testing.assert_array_equal(read_out, expected.output[name])


@pytest.mark.parametrize("seed", range(24))
def test_a_file_does_what_the_graph_does(seed: int, tmp_path: Path) -> None:
    check_file(*chain(seed), tmp_path / "a.net")


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(case=pooled_cases(LOIHI2))
def test_a_pool_is_folded_into_the_file(case: Case, tmp_path: Path) -> None:
    check_file(case.graph, case.recording, tmp_path / "a.net")


def population_with(graph: Graph, **parameters: Any) -> Graph:
    first, *rest = graph.populations
    changed = replace(first, neurons=replace(first.neurons, **parameters))
    return replace(graph, populations=(changed, *rest))


def projection_with(graph: Graph, **parts: Any) -> Graph:
    first, *rest = graph.projections
    return replace(graph, projections=(replace(first, **parts), *rest))


def synapses_with(graph: Graph, **parts: Any) -> Graph:
    return projection_with(graph, synapses=replace(graph.projections[0].synapses, **parts))


def longer(graph: Graph) -> Graph:
    more = population("9", 3, 3, 5)
    return replace(
        graph,
        populations=(*graph.populations, more),
        projections=(*graph.projections, to("0", "9", one_to_one((3, 3, 5)))),
    )


def larger(graph: Graph) -> Graph:
    """Another shape of the first population, and all that hangs on it."""
    (_, second), (_, onward) = graph.populations, graph.projections
    spec = replace(graph.inputs[0], shape=(2, 4, 7))
    first = replace(graph.populations[0], shape=(3, 3, 6), neurons=lif(decay=1))
    wider = np.pad(onward.synapses.weight, ((0, 0), (0, 9)))
    return replace(
        graph,
        inputs=(spec,),
        populations=(first, second),
        projections=(graph.projections[0], replace(onward, synapses=Dense(wider))),
    )


MISREAD: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "a weight": (lambda g: synapses_with(g, weight=KERNEL + (KERNEL == 2)), "synapses of in->a"),
    "geometry": (
        lambda g: synapses_with(
            g, weight=np.pad(KERNEL, ((0, 0), (0, 0), (0, 0), (1, 1))), padding=(0, 1)
        ),
        "synapses of in->a",
    ),
    "decay": (lambda g: population_with(g, decay=integers(4001)), "decay of a"),
    "no current": (lambda g: population_with(g, current_decay=None), "current_decay of a"),
    "threshold": (lambda g: population_with(g, threshold=integers(71)), "threshold of a"),
    "biases turned": (
        lambda g: population_with(g, bias=g.populations[0].neurons.bias[::-1]), "bias of a",
    ),
    "delay": (lambda g: projection_with(g, delay=1), "delays of in->a"),
    "one more": (longer, "the number of layers"),
    "shape": (larger, "the shape of a"),
}  # fmt: skip


def two_layers() -> Graph:
    bias = np.arange(45).reshape(3, 3, 5)
    neurons = lif(decay=4000, threshold=70, bias=bias, current_decay=integers(300))
    return graph_of(
        IMAGE,
        [population("a", 3, 3, 5, neurons=neurons), population("b", 2)],
        to("in", "a", Conv2d(KERNEL)),
        to("a", "b", Dense(2 * np.arange(-45, 45).reshape(2, 45))),
    )


@pytest.mark.parametrize("earlier", [False, True], ids=["new file", "earlier file"])
@pytest.mark.parametrize("what", MISREAD)
def test_what_is_read_back_is_compared(
    what: str, earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper, text = MISREAD[what]
    if earlier:
        (tmp_path / "a.net").write_bytes(b"earlier")
    before = contents(tmp_path)

    def misread(path: Path, **options: Any) -> Opened:
        return Opened(tamper(read(path, **options).graph))

    monkeypatch.setattr(writer, "read", misread)
    with pytest.raises(SnnDeployError) as caught:
        write(two_layers(), tmp_path / "a.net")
    assert caught.value.code == "SD407"
    assert caught.value.message == f"Lava would not run what was meant: {text}"
    assert caught.value.where == str(tmp_path / "a.net")
    assert contents(tmp_path) == before


def test_what_cannot_be_read_back_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **options: Any) -> Opened:
        raise SnnDeployError("SD204", "no", where=str(path))

    monkeypatch.setattr(writer, "read", refuse)
    with refused("SD204", "no"):
        write(two_layers(), tmp_path / "a.net")
    assert contents(tmp_path) == {}


def test_a_file_is_written_otherwise_than_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the reader's word against the writer's: the bytes are what is read."""
    faithful = writer._bias
    monkeypatch.setattr(
        writer, "_bias", lambda p: {k: v.transpose() for k, v in faithful(p).items()}
    )
    square = Conv2d(KERNEL, stride=(1, 2))
    bias = np.arange(27).reshape(3, 3, 3)  # as wide as deep: fits either way
    with refused("SD407", "bias of p"):
        write(one(square, IMAGE, lif(bias=bias)), tmp_path / "a.net")


# --- refused --------------------------------------------------------------------------------------

CONSTANT = InputSpec(name="x", kind="constant", shape=(2,), scale=1 / 255)
PER_NEURON = replace(LOIHI2, threshold_per_population=False)
SOFT = replace(LOIHI2, soft_reset=True, spikes_max=3)
FULL_MAP = np.arange(45).reshape(3, 3, 5)


def branch() -> Graph:
    return graph_of(
        VECTOR,
        [population(name, 3) for name in "abc"],
        to("in", "a", Dense(MIXED)),
        to("a", "b", Dense(SQUARE)),
        to("a", "c", Dense(SQUARE)),
    )


def residual() -> Graph:
    return graph_of(
        VECTOR,
        [population(name, 3) for name in "ab"],
        to("in", "a", Dense(MIXED)),
        to("a", "b", Dense(SQUARE)),
        to("in", "b", Dense(MIXED)),
    )


def loop_back() -> Graph:
    return graph_of(
        VECTOR,
        [population(name, 3) for name in "ab"],
        to("in", "a", Dense(MIXED)),
        to("a", "b", Dense(SQUARE)),
        to("b", "a", Dense(SQUARE), delay=2),
    )


def two_inputs() -> Graph:
    other = replace(VECTOR, name="other")
    synapses = (to(name, "p", Dense(MIXED)) for name in ("in", "other"))
    return graph_of((VECTOR, other), [population("p", 3)], *synapses)


def two_in_a_row(**more: Any) -> Graph:
    return graph_of(
        VECTOR,
        [population("a", 3), population("b", 3)],
        to("in", "a", Dense(MIXED)),
        to("a", "b", Dense(SQUARE)),
        **more,
    )


def recurrent(loop: Any, delay: int = 1, *, forward: int = 0, **more: Any) -> Graph:
    image = not isinstance(loop, Dense)
    spec, shape = (IMAGE, (3, 3, 5)) if image else (VECTOR, (3,))
    return graph_of(
        spec,
        [population("p", *shape)],
        to("in", "p", Conv2d(KERNEL) if image else Dense(MIXED), delay=forward),
        to("p", "p", loop, delay=delay, **more),
    )


def fed_to_two() -> Graph:
    return graph_of(
        CONSTANT,
        [population("a", 3), population("b", 3)],
        to("x", "a", Dense(MIXED)),
        to("x", "b", Dense(MIXED)),
    )


def fed_with_spikes_too() -> Graph:
    return graph_of(
        (CONSTANT, VECTOR),
        [population("p", 3)],
        to("x", "p", Dense(MIXED)),
        to("in", "p", Dense(MIXED)),
    )


def called_bias() -> Graph:
    return graph_of(CONSTANT, [population("bias", 3)], to("x", "bias", Dense(MIXED)))


def input_called_bias() -> Graph:
    return graph_of(
        (CONSTANT, replace(VECTOR, name="bias")),
        [population("a", 3), population("b", 3)],
        to("x", "a", Dense(MIXED)),
        to("bias", "b", Dense(MIXED)),
    )


SOFT_NEURONS = lif(reset=ResetSubtract(5))
REFUSED: dict[str, tuple[Callable[[], Graph], str, str, str]] = {
    # graph -> code, where, what is said
    "branches": (branch, "SD204", "a", "no branches"),
    "residual": (residual, "SD204", "in", "no branches"),
    "a loop over two": (loop_back, "SD204", "b->a", "paths that join"),
    "two inputs": (two_inputs, "SD204", "graph", "more than one input"),
    "two outputs": (
        lambda: two_in_a_row(outputs=("a", "b")), "SD204", "graph", "input or output",
    ),
    "an output before the last": (
        lambda: two_in_a_row(outputs=("a",)), "SD204", "a", "not the last population",
    ),
    "delays of a convolution": (
        lambda: one(Conv2d(KERNEL), IMAGE, delay=2), "SD204", "in->p", "netx ignores them",
    ),
    "recurrent convolution": (
        lambda: recurrent(one_to_one((3, 3, 5), 2)), "SD204", "p->p", "behind a convolution",
    ),
    "recurrent convolution over a vector": (
        lambda: graph_of(
            VECTOR,
            [population("p", 3)],
            to("in", "p", Dense(MIXED)),
            to("p", "p", one_to_one((3,), 2), delay=1),
        ),
        "SD204", "p->p", "recurrent synapses other than dense",
    ),
    "recurrence of delay 2": (
        lambda: recurrent(Dense(SQUARE), 2), "SD204", "p->p", "delay other than 1",
    ),
    "recurrence and delays": (
        lambda: recurrent(Dense(SQUARE), forward=1), "SD204", "in->p", "delays on a recurrent",
    ),
    "a convolution over a vector": (
        lambda: one(one_to_one((2,), 2)), "SD204", "in->p", "over a vector",
    ),
    "arithmetic of another chip": (
        lambda: one(Dense(MIXED), number_format=GENERIC),
        "SD204", "number format", "arithmetic other than Loihi's (`",
    ),
    "reset by subtraction": (
        lambda: one(Dense(MIXED), neurons=SOFT_NEURONS, number_format=SOFT),
        "SD204", "number format", "`soft_reset` differs",
    ),
    "reset by subtraction on this chip": (
        lambda: one(Dense(MIXED), neurons=SOFT_NEURONS), "SD202", "p", "reset by subtraction",
    ),
    "several spikes": (
        lambda: graph_of(
            VECTOR,
            [replace(population("p", 3, neurons=SOFT_NEURONS), max_spikes=2)],
            to("in", "p", Dense(MIXED)),
            number_format=SOFT,
        ),
        "SD204", "number format", "`soft_reset` differs",
    ),
    "thresholds per neuron of a map": (
        lambda: one(Conv2d(KERNEL), IMAGE, lif(threshold=FULL_MAP), number_format=PER_NEURON),
        "SD204", "p", "thresholds per neuron of a map",
    ),
    "decays per neuron of a map": (
        lambda: one(Conv2d(KERNEL), IMAGE, lif(decay=FULL_MAP)),
        "SD204", "p", "decays per neuron of a map",
    ),
    "decays of currents per neuron of a map": (
        lambda: one(Conv2d(KERNEL), IMAGE, lif(current_decay=FULL_MAP)),
        "SD204", "p", "current decays per neuron of a map",
    ),
    "stride beyond 8 bits": (
        lambda: one(Conv2d(KERNEL, stride=(128, 1)), IMAGE), "SD204", "in->p", "a stride of 128",
    ),
    "padding beyond 8 bits": (
        lambda: one(Conv2d(KERNEL, padding=(0, 128)), IMAGE), "SD204", "in->p", "padding of 128",
    ),
    "groups beyond 8 bits": (
        lambda: one(one_to_one((128, 1, 1), 2), spike_input(128, 1, 1)),
        "SD204", "in->p", "a groups of 128",
    ),
    "a kernel beyond 8 bits": (
        lambda: one(Conv2d(np.full((1, 1, 128, 1), 2)), spike_input(1, 128, 1)),
        "SD204", "in->p", "a kernel of 128",
    ),
    "a pool that leaves a rest": (
        lambda: one(Conv2d(KERNEL), spike_input(2, 7, 6), pool=SumPool((2, 2), (2, 2))),
        "SD204", "in->p", "(2, 2) every (2, 2)",
    ),
    "a pool whose windows overlap": (
        lambda: one(Conv2d(KERNEL), IMAGE, pool=SumPool((2, 2), (1, 2))),
        "SD204", "in->p", "(2, 2) every (1, 2)",
    ),
    "a pool whose windows overlap in too large a weight": (
        lambda: one(
            Dense(np.array([[254, -2, 254]])), spike_input(1, 1, 5), pool=SumPool((1, 3), (1, 1))
        ),
        "SD202", "in->p", "the target's grid",
    ),
    "weights of one sign": (
        lambda: one(Dense(np.array([[-64, -2]]))), "SD204", "in->p", "-64 acts as -62",
    ),
    "recurrent weights of one sign": (
        lambda: recurrent(Dense(-np.array([[2, 4, 128]] * 3))),
        "SD204", "in->p", "recurrent weights act differently: -128",
    ),
    "weights that are all zero": (
        lambda: one(Dense(0 * MIXED)), "SD204", "in->p", "all weights are zero",
    ),
    "a readout that may fire": (
        lambda: one(
            Dense(np.full((1, 275), 254)),
            spike_input(275),
            Integrator(decay=integers(3590), bias=integers(0), readout="last"),
            timesteps=2,
        ),  # 64 * 69850 + (64 * 69850 * 3590 >> 12) fits 24 bits, and exceeds 64 * 131071
        "SD203", "p", "may reach 8388548, where Lava's neurons fire",
    ),
    "a range beyond 24 bits": (
        lambda: one(Dense(np.full((1, 600), 254)), spike_input(600), lif(decay=4096)),
        "SD203", "p", "its register holds",
    ),
    "a sum that wraps": (
        lambda: one(Dense(MIXED), sum_bits=3), "SD203", "p", "may leave its register",
    ),
    "values to two populations": (fed_to_two, "SD204", "a, b", "several populations"),
    "values and spikes to one": (fed_with_spikes_too, "SD204", "p", "spikes reach, too"),
    "a population called bias": (called_bias, "SD204", "bias", "called `bias`"),
    "an input called bias": (input_called_bias, "SD204", "bias", "called `bias`"),
    "floats": (
        lambda: replace(one(Dense(MIXED)), number_format=None), "SD408", "", "number format",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_netx_cannot_say_is_refused(what: str, tmp_path: Path) -> None:
    make, code, where, text = REFUSED[what]
    graph = make()
    (tmp_path / "a.net").write_bytes(b"earlier")
    for name in ("a.net", "b.net"):
        with pytest.raises(SnnDeployError) as caught:
            write(graph, tmp_path / name)
        assert caught.value.code == code
        assert (caught.value.where or "") == where
        assert text in f"{caught.value.message} {caught.value.why}"
        assert contents(tmp_path) == {"a.net": b"earlier"}


@pytest.mark.parametrize("name", ["missing/a.net", "file/a.net", "folder"])
def test_where_nothing_can_be_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with refused("SD102", f"--> {tmp_path / name}"):
        write(one(Dense(MIXED)), tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


# --- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_program_is_python(seed: int, tmp_path: Path) -> None:
    program = Program(network(seed)[0])
    text = program.text()
    assert program.text() == text
    names: dict[str, Any] = {}
    compile(text, "program.py", "exec")
    # the table of stages, and the arrays that are named
    (line,) = (line for line in text.splitlines() if line.startswith("STAGES = "))
    exec(line, names)
    assert names["STAGES"] == program.schedule.stages
    program.write(tmp_path / "net.py")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as stored:
        for index in range(len(stored.files)):
            assert text.count(f'arrays["a{index}"]') == 1
        assert f'arrays["a{len(stored.files)}"]' not in text
    assert contents(tmp_path).keys() == {"net.py", "net.npz"}
    for name in program.relays:
        assert f"nodes[{name!r}] = populations[{name!r}]" in text


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"),
    [
        (kernel, padding, dilation)
        for kernel, padding, dilation in product((1, 2, 3), (0, 1, 2), (1, 2))
        if dilation * (kernel - 1) <= 2 * padding  # not wider than the padded pixel
    ],
)
def test_a_program_of_a_convolution_over_a_vector(
    kernel: int, padding: int, dilation: int, tmp_path: Path
) -> None:
    """Over one pixel, only the weights that lie on it count: a matrix."""
    rng = np.random.default_rng(0)
    weight = 2 * rng.integers(-60, 60, (6, 2, kernel, kernel))
    synapses = Conv2d(weight, (9, 9), (padding, padding), (dilation, dilation), groups=2)
    graph = one(synapses, spike_input(4))
    Program(graph).write(tmp_path / "net.py")
    with np.load(tmp_path / "net.npz") as stored:
        matrix = stored["a0"]
    spikes = np.eye(4, dtype=np.uint8)[:, None].repeat(4, 1)
    current = simulate(graph, Recording(spikes={"": spikes}), trace=True).current["p"]
    np.testing.assert_array_equal(64 * matrix.T, current[:, 0])


@pytest.mark.parametrize(
    ("make", "code", "where", "text"),
    [
        (lambda: one(Conv2d(KERNEL), IMAGE, delay=2), "SD204", "in->p", "no delays"),
        (lambda: one(Dense(MIXED), delay=63), "SD202", "in->p", "a delay of 63"),
        (
            lambda: one(Dense(MIXED), number_format=GENERIC),
            "SD204", "number format", "arithmetic other than Loihi's (`",
        ),
        (fed_to_two, "SD204", "a, b", "several populations"),
        (
            lambda: graph_of(
                VECTOR,
                [population("a", 3), population("b", 3)],
                to("in", "a", Dense(MIXED)),
                to("a", "b", Dense(SQUARE)),
                to("b", "a", Dense(SQUARE), delay=1),
            ),
            "SD207", "a, b", "shorter than its hops",
        ),
    ],
)  # fmt: skip
def test_what_a_program_cannot_do(
    make: Callable[[], Graph], code: str, where: str, text: str
) -> None:
    with pytest.raises(SnnDeployError) as caught:
        Program(make())
    assert (caught.value.code, caught.value.where) == (code, where)
    assert text in caught.value.message


def test_what_netx_would_change_becomes_a_program(tmp_path: Path) -> None:
    """A matrix of one sign whose least weight is a power of two acts otherwise in netx."""
    weights = Dense(integers([[-64, -2]]))
    graph = Graph(
        inputs=(spike_input(2),),
        populations=(population("p", 1),),
        projections=(Projection(source="in", target="p", synapses=weights),),
        outputs=("p",),
        timesteps=4,
        number_format=LOIHI2,
    )
    with refused("SD204", "would change these weights"):
        write(graph, tmp_path / "a.net")
    written = exporter.export(graph, tmp_path)
    assert written.files == (PROGRAM, "model_lava.npz")
    assert written.facts["form"] == "program"
    assert "-64 acts as -62" in written.facts["why"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written.files)
