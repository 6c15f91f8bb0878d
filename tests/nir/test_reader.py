"""Reading other people's NIR files: random graphs of all nodes do what their equations say."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snn_deploy.exporters import Opened, ReadOptions
from snn_deploy.exporters.nir import exporter

from snn_deploy import SnnDeployError, quantize, simulate
from snn_deploy.graph import LIF, Graph
from snn_deploy.packets import Recording
from tests.helpers.nir_graphs import DT, AnySimulator, Builder

EULER = ReadOptions(dialect="euler", dt=DT)
STEPS = 12


def opened(graph: nir.NIRGraph, options: ReadOptions = EULER, **given: Any) -> Opened:
    """What is read of a graph."""
    content = io.BytesIO()
    nir.write(content, graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "their.nir"
        path.write_bytes(content.getvalue())
        return exporter.open(path, options)


def check(graph: nir.NIRGraph, random: np.random.Generator) -> Graph:
    """The graph that is read spikes as its nodes say, and its outputs are theirs."""
    found = opened(graph).graph
    shape = tuple(int(n) for n in graph.nodes["input"].input_type["input"])
    inputs = random.integers(0, 2, (2, STEPS, *shape))
    fed = inputs.reshape(2, STEPS, *found.inputs[0].shape)
    trace = simulate(found, Recording(spikes={"": fed}), engine="reference", trace=True)
    spiking = {p.name for p in found.populations if isinstance(p.neurons, LIF)}
    (output,) = found.outputs
    for sample in range(2):
        theirs = AnySimulator(graph, "euler", np.greater).run({"input": inputs[sample]})
        for name in spiking:
            np.testing.assert_array_equal(
                trace.spikes[name][sample].reshape(STEPS, -1), theirs[name].reshape(STEPS, -1), name
            )
        if output not in spiking:
            mine = trace.membrane[output][sample].reshape(STEPS, -1)
            np.testing.assert_array_equal(mine, theirs["output"].reshape(STEPS, -1))
    return found


def refused_or_checked(graph: nir.NIRGraph, random: np.random.Generator) -> SnnDeployError | None:
    """The refusal of a graph that is refused; the others do as their nodes say."""
    try:
        opened(graph)
    except SnnDeployError as error:
        return error
    check(graph, random)
    return None


# What a graph has no place for, however it is drawn.
REFUSED = (
    "two ways from",  # different delays to one neuron
    "is no projection",
    "resets to values",
    "differs within a channel",
    "padding `same` that is odd",
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32))
def test_random_graphs(seed: int) -> None:
    builder = Builder(seed)
    graph = builder.graph()
    refusal = refused_or_checked(graph, builder.random)
    assert refusal is None or any(text in str(refusal) for text in REFUSED), refusal


def test_few_random_graphs_are_refused() -> None:
    refused: Counter[str] = Counter()
    for seed in range(15):
        refusal = refused_or_checked(Builder(seed).graph(), np.random.default_rng(seed))
        if refusal is not None:
            refused[refusal.message] += 1
    assert sum(refused.values()) < 6, refused


# ---- what must be said ----


def lif(**changed: Any) -> nir.LIF:
    one = np.ones(3)
    parameters = {"tau": 2e-4 * one, "r": one, "v_leak": 0 * one, "v_threshold": one} | changed
    return nir.LIF(**parameters)


def chain(*nodes: nir.NIRNode, shape: tuple[int, ...] = (3,)) -> nir.NIRGraph:
    """Input, nodes and output in a row."""
    named = {f"n{i}": node for i, node in enumerate(nodes)}
    order = ["input", *named, "output"]
    ends = {"input": nir.Input({"input": np.array(shape)}),
            "output": nir.Output({"output": np.array([3])})}  # fmt: skip
    edges = list(itertools.pairwise(order))
    return nir.NIRGraph(named | ends, edges, type_check=False)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (ReadOptions(), "SD104", "give --dialect: euler, snntorch, norse"),
        (ReadOptions(dt=1e-4), "SD104", "give --dialect"),
        (ReadOptions(dialect="spam"), "SD105", "choose one of euler"),
        (ReadOptions(dialect="euler"), "SD104", "give --dt"),
        (ReadOptions(dialect="norse"), "SD104", "give --dt"),
        (ReadOptions(dialect="rockpool"), "SD104", "give --dt"),
        (ReadOptions(dialect="euler", dt=0.0), "SD104", "a timestep of 0"),
        (ReadOptions(dialect="euler", dt=-1.0), "SD104", "a timestep of -1"),
        (ReadOptions(dialect="euler", dt=float("nan")), "SD104", "a timestep of nan"),
        (ReadOptions(dialect="sinabs", dt=1e-3), "SD104", "a timestep of 1, not 0.001"),
        (ReadOptions(dialect="snntorch"), "SD104", "--reset subtract"),
        (ReadOptions(dialect="snntorch", dt=1e-3, reset="zero"), "SD104", "of 0.0001, not 0.001"),
        (ReadOptions(dialect="spikingjelly", dt=1e-4, reset="subtract"), "SD104", "has zero"),
        (ReadOptions(dialect="rockpool", dt=1e-4, reset="zero"), "SD104", "has subtract"),
        (ReadOptions(dialect="euler", dt=1e-4, input_kind="graded"), "SD104", "--input-range"),
        (ReadOptions(dialect="euler", dt=1e-4, input_range=(0, 1)), "SD104", "for spikes"),
        (ReadOptions(dialect="euler", dt=1e-4, input_shape=(4,)), "SD104", "(3,), not (4,)"),
        (ReadOptions(dialect="euler", dt=1.0), "SD204", "0.0002 is shorter than a timestep of 1"),
        (ReadOptions(dialect="rockpool", dt=1e-4), "SD204", "does not go with a timestep"),
    ],
)
def test_options(options: ReadOptions, code: str, text: str) -> None:
    with pytest.raises(SnnDeployError) as caught:
        opened(chain(lif()), options)
    assert caught.value.code == code
    assert text in str(caught.value)
    assert "their.nir" in str(caught.value) or code == "SD105"


def test_notes_say_what_a_file_lost() -> None:
    for dialect, text in (("norse", "v_reset is taken for 0"), ("sinabs", "norm_input")):
        dt = 2e-5 if dialect == "norse" else None
        found = opened(chain(lif()), ReadOptions(dialect=dialect, dt=dt))
        assert len(found.notes) == 1
        assert text in found.notes[0]
    assert opened(chain(lif())).notes == ()


def test_values_and_readouts() -> None:
    options = ReadOptions(
        dialect="euler", dt=DT, input_kind="constant", input_range=(-1, 2), readout="max"
    )
    graph = opened(chain(nir.Affine(np.eye(3), np.ones(3))), options).graph
    (spec,) = graph.inputs
    assert (spec.kind, spec.low, spec.high) == ("constant", -1, 2)
    assert graph.population("output").neurons.readout == "max"
    trace = simulate(
        graph, Recording(values={"": np.array([[0.5, -1, 2]])}), engine="reference", steps=2
    )
    np.testing.assert_array_equal(trace.output["output"], [[1.5, 0, 3]])


def test_an_end_for_what_does_not_leak() -> None:
    one, weight = np.ones(3), np.eye(3) - 0.5
    endless = opened(chain(nir.Linear(weight), nir.IF(one / DT, 2 * one))).graph
    with pytest.raises(SnnDeployError, match="no scale puts") as caught:
        quantize(endless, "generic")
    assert "for how many timesteps" in str(caught.value)
    ended = opened(
        chain(nir.Linear(weight), nir.IF(one / DT, 2 * one)),
        ReadOptions(dialect="euler", dt=DT, timesteps=9),
    ).graph
    assert quantize(ended, "generic").timesteps == 9


def test_a_current_may_be_a_node_of_its_own() -> None:
    current = nir.LI(np.array([1e-4, 2e-4, 4e-4]), np.array([1.0, 2, 4]), np.zeros(3))
    graph = chain(nir.Affine(np.eye(3) - 0.25, 0.5 * np.ones(3)), current, lif())
    found = opened(graph).graph
    assert [p.name for p in found.populations] == ["n2"]
    random = np.random.default_rng(0)
    inputs = random.integers(0, 2, (2, 30, 3))
    trace = simulate(found, Recording(spikes={"": inputs}), engine="reference", trace=True)
    for sample in range(2):
        theirs = AnySimulator(graph, "euler", np.greater).run({"input": inputs[sample]})
        np.testing.assert_array_equal(trace.spikes["n2"][sample], theirs["n2"])
    assert 0.1 < trace.spikes["n2"].mean() < 0.9


# ---- what is refused ----


def edged(graph: nir.NIRGraph, *edges: tuple[str, str]) -> nir.NIRGraph:
    graph.edges = [*graph.edges, *edges]
    return graph


def ones(*shape: int) -> Any:
    return np.ones(shape)


def conv(**changed: Any) -> nir.Conv2d:
    node = nir.Conv2d((4, 4), ones(2, 1, 3, 3), (1, 1), (0, 0), (1, 1), 1, np.zeros(2))
    for name, value in changed.items():  # which nir would not take
        setattr(node, name, value)
    return node


CASES: dict[str, tuple[nir.NIRGraph, str, str]] = {
    "a loop without neurons": (
        edged(chain(nir.Linear(ones(3, 3)), lif()), ("n0", "n0")), "SD401", "no delay"),
    "a loop through two populations": (
        edged(chain(lif(), nir.Linear(ones(3, 3)), lif()), ("n2", "n0")), "SD204", "without delay"),
    "neurons that nothing reaches": (
        nir.NIRGraph(
            {**chain(lif()).nodes, "alone": lif()}, [*chain(lif()).edges, ("alone", "output")],
            type_check=False), "SD401", "node alone (LIF)"),
    "a membrane that feeds neurons": (
        chain(nir.I(1e4 * ones(3)), lif()), "SD204", "only spikes travel"),
    "a membrane that feeds synapses": (
        chain(nir.LI(2e-4 * ones(3), ones(3), 0 * ones(3)), nir.Linear(ones(3, 3)), lif()), "SD204",
        "only spikes travel"),
    "a current with a leak": (
        chain(nir.LI(2e-4 * ones(3), ones(3), ones(3)), lif()), "SD204", "`v_leak` of a current"),
    "a tau of 0": (chain(lif(tau=0 * ones(3))), "SD204", "time constants are above 0"),
    "a negative tau": (chain(lif(tau=-ones(3))), "SD204", "time constants are above 0"),
    "no number": (chain(lif(v_threshold=np.nan * ones(3))), "SD403", "`v_threshold` holds NaN"),
    "an infinite weight": (
        chain(nir.Linear(np.inf * ones(3, 3)), lif()), "SD403", "node n0 (Linear)"),
    "too few neurons": (chain(nir.Linear(ones(4, 3)), lif()), "SD204", "parameters of [3] neurons"),
    "weights that do not fit": (chain(nir.Linear(ones(3, 2)), lif()), "SD204", "feeds 2 synapses"),
    "weights between": (
        chain(lif(), nir.Linear(ones(3, 4))), "SD204", "do not fit an input of shape (3,)"),
    "a delay that is no multiple": (
        chain(nir.Delay(1.5e-4 * ones(3)), lif()), "SD204", "no multiples of a timestep"),
    "a negative delay": (chain(nir.Delay(-1e-4 * ones(3)), lif()), "SD204", "no multiples"),
    "a delay of hours": (chain(nir.Delay(1e9 * ones(3)), lif()), "SD204", "no multiples"),
    "a kernel larger than its map": (
        chain(conv(input_shape=(2, 2)), nir.Flatten({"input": np.array([2, 2, 2])}, -3),
              nir.Linear(ones(3, 8)), lif(), shape=(1, 2, 2)), "SD204", "does not fit its input"),
    "a stride of 0": (chain(conv(stride=(0, 0)), shape=(1, 4, 4)), "SD204", "numbers from 1 on"),
    "negative padding": (chain(conv(padding=(-1, 0)), shape=(1, 4, 4)), "SD204", "from 0 on"),
    "half a stride": (
        chain(conv(stride=np.array([1.5, 1])), shape=(1, 4, 4)), "SD401", "no integers"),
    "groups that do not fit": (chain(conv(groups=3), shape=(1, 4, 4)), "SD204", "feeds 48"),
    "a bias that does not fit": (chain(conv(bias=ones(3)), shape=(1, 4, 4)), "SD204", "a bias of"),
    "a pool of a vector": (
        chain(nir.SumPool2d(*np.ones((3, 2), int)), lif()), "SD204", "pools maps"),
    "five axes": (chain(lif(), shape=(2, 1, 3, 1, 2)), "SD204", "at most channels, height"),
    "a shape of 0": (chain(lif(), shape=(0,)), "SD401", "an input of shape (0,)"),
    "an enormous input": (chain(lif(), shape=(1 << 20, 1 << 20)), "SD401", "an input of shape"),
    "resets of both signs": (
        chain(lif(v_reset=np.array([0, 0.5, -0.5]))), "SD204", "resets to values of different"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str) -> None:
    graph, code, text = CASES[name]
    with pytest.raises(SnnDeployError) as caught:
        opened(graph)
    assert (caught.value.code, text in str(caught.value)) == (code, True), str(caught.value)
    assert "their.nir" in str(caught.value)
