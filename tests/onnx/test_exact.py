"""The operators of the file do what the norm says, bit for bit, in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from snn_deploy.exporters.onnx.emission import INT64, Emitter
from snn_deploy.exporters.onnx.forms import FORMS, Form
from snn_deploy.exporters.onnx.models import IR_VERSION, OPSET, model
from snn_deploy.exporters.onnx.neurons import wrapped

from snn_deploy import numerics
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph, InputSpec, Integrator, ResetSubtract
from snn_deploy.nn.checkpoint import load
from snn_deploy.nn.recipe import parse_recipe
from snn_deploy.nn.trainer import train
from snn_deploy.packets import Recording, read_recording
from snn_deploy.quantization import quantize
from snn_deploy.synapses import Conv2d, Dense, SumPool
from snn_deploy.toml import tomllib
from tests.cli.workspace import recipe
from tests.helpers.deploy import small_net, small_recording
from tests.helpers.graphs import FOREIGN, GENERIC, LOIHI2, SMALL, Case, integer_cases
from tests.helpers.nets import fed_with_spikes, integers, lif, one_layer, spike_input
from tests.helpers.random_graphs import chain, network
from tests.helpers.refusals import refused
from tests.onnx.running import (
    Evaluator,
    assert_exact,
    assert_steps,
    feeds_of,
    run,
    run_steps,
    session,
    without_resets,
)


@settings(max_examples=40)
@given(case=integer_cases())
def test_random_graphs(case: Case) -> None:
    assert_exact(without_resets(case))


@settings(max_examples=20)
@given(case=integer_cases())
def test_another_runtime(case: Case) -> None:
    """Of onnx itself: it knows no Scan over axis 1, so that it runs single steps."""
    case = without_resets(case)
    found = run_steps(case.graph, Evaluator(model(case.graph, "step")), feeds_of(case), case.steps)
    assert_steps(case.graph, found, case.run("reference"))


@settings(max_examples=15)
@given(case=integer_cases((SMALL,), formats=st.sampled_from((FOREIGN, LOIHI2))))
def test_random_graphs_of_the_widest_numbers(case: Case) -> None:
    assert_exact(without_resets(case))


@pytest.mark.parametrize("make", [chain, network])
def test_proved_networks(make: Any) -> None:
    for seed in range(8):
        graph, recording = make(seed)
        assert_exact(Case(graph, recording, graph.timesteps))


def small_graph(chip: str = "generic", kind: str = "constant", bits: int = 8) -> Graph:
    return quantize(freeze(small_net(kind=kind)), chip, bits=bits)


@pytest.mark.parametrize(("chip", "bits"), [("generic", 8), ("generic", 16), ("loihi2", 8)])
def test_a_frozen_network(chip: str, bits: int) -> None:
    graph = small_graph(chip, bits=bits)
    trace = assert_exact(Case(graph, small_recording(), graph.timesteps or 0))
    assert all(spikes.any() for spikes in trace.spikes.values())


@pytest.mark.parametrize("chip", ["generic", "loihi2"])
def test_a_trained_network(chip: str, tmp_path: Path) -> None:
    data = tomllib.loads(recipe(epochs=2))
    result = train(parse_recipe(data, "a test"), tmp_path / "net.pt")
    graph = quantize(freeze(load(result.checkpoint)), chip)
    digits = read_recording(result.recording)
    assert_exact(Case(graph, digits, graph.timesteps or 0))


# --- numbers at their ends ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 31, 32, 33, 62, 63, 64])
def test_wrapping_to_any_width(bits: int) -> None:
    rng = np.random.default_rng(bits)
    half = 1 << (bits - 1)
    edges = [n for n in (half, -half, half - 1, -half - 1, 0, -1) if -(1 << 63) <= n < 1 << 63]
    values = np.concatenate([rng.integers(-(1 << 63), (1 << 63) - 1, 100), edges])
    emit = Emitter()
    emit.varying.add("x")
    result = wrapped(emit, "x", bits, "wrapped")
    info = [onnx.helper.make_tensor_value_info(n, INT64, (len(values),)) for n in ("x", "y")]
    nodes = [*emit.step, onnx.helper.make_node("Identity", [result], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:], [*emit.stored.tensors.values()])
    opset = [onnx.helper.make_opsetid("", OPSET)]
    made = onnx.helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    np.testing.assert_array_equal(
        run(session(made), {"x": values})["y"], numerics.wrap(values, bits)
    )


def one_sample(graph: Graph, *values: Any, steps: int = 1) -> Case:
    """A case of one sample of values."""
    return Case(graph, Recording(values={"": np.asarray(values, np.float64)}), steps)


@pytest.mark.parametrize("most", [1, 3, 127, 128, 32_767])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_weights_of_one_byte_and_more(most: int, kind: str) -> None:
    """The largest, the smallest, and what lies at the edge of a byte."""
    row = [most, -most, most - 1, 1 - most, 0, min(most, 255), -min(most, 256), min(most, 129)]
    weight = integers([row, row[::-1], [most] * 8, [-most] * 8])
    spikes = np.random.default_rng(most).random((5, 3, 8)) < 0.5
    if kind == "dense":
        graph = one_layer(Dense(weight), spike_input(8), lif(4000, threshold=3 * most))
        assert_exact(fed_with_spikes(graph, spikes))
        return
    kernel = Conv2d(weight.reshape(4, 2, 2, 2), padding=(1, 0))
    graph = one_layer(kernel, spike_input(2, 2, 2), lif(4000, threshold=3 * most))
    assert_exact(fed_with_spikes(graph, spikes.reshape(5, 3, 2, 2, 2)))


def test_values_of_both_signs_at_the_ends_of_31_bits() -> None:
    largest = (1 << 30) - 1
    form = replace(GENERIC, input_bits=31, membrane_bits=32, word_bits=32)
    for kind in ("graded", "constant"):
        spec = InputSpec(
            name="in", kind=kind, shape=(3,), low=-largest, high=largest, scale=1.0
        )  # fmt: skip
        weight = Dense(integers([[1, 0, 0], [127, -127, 1], [-32_767, 32_767, 0]]))
        graph = one_layer(weight, spec, lif(threshold=5), number_format=form)
        values = [-largest, largest, -1], [largest, -largest, 0], [0, 1, 128], [127, -128, 129]
        if kind == "graded":
            assert_exact(one_sample(graph, values, steps=4))
        else:
            assert_exact(one_sample(graph, *values, steps=2))


@pytest.mark.parametrize("shape", [(70_000,), (7, 100, 100)])
def test_large_fan_in(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    graph = one_layer(
        Dense(rng.integers(-32_767, 32_768, (2, 70_000))), spike_input(*shape), lif(4000, 1 << 20)
    )
    assert_exact(fed_with_spikes(graph, rng.random((2, 2, *shape)) < 0.7))
    ones = one_layer(Dense(np.full((1, 70_000), 127)), spike_input(*shape))
    assert_exact(fed_with_spikes(ones, np.ones((1, 1, *shape))))


def test_large_values_of_a_large_fan_in() -> None:
    """-1 in two bytes is 255 - 256: 70,000 times 255 * 127 is more than 32 bits."""
    spec = InputSpec(name="in", kind="graded", shape=(70_000,), high=127.0, scale=1.0)
    weight = np.full((1, 70_000), -1)
    weight[0, 0] = 300
    graph = one_layer(Dense(weight), spec, Integrator(decay=integers(0), bias=integers(0)))
    trace = assert_exact(one_sample(graph, np.full((1, 70_000), 127.0)))
    assert trace.output["p"].tolist() == [[(300 - 69_999) * 127 * 64]]


def test_more_spikes_than_a_part_of_a_product_holds() -> None:
    neurons = lif(threshold=1, reset=ResetSubtract(1))
    graph = one_layer(Dense(integers([[3], [2], [-1], [1]])), spike_input(1), neurons)
    several = replace(graph.populations[0], max_spikes=255)
    sink = replace(
        graph.populations[0], name="sink", shape=(2,),
        neurons=Integrator(decay=integers(0), bias=integers(0), readout="max"),
    )  # fmt: skip
    weights = Dense(integers([[127, 32_767, 1, -1], [-32_767, 100, 0, 5]]))
    further = replace(graph.projections[0], source="p", target="sink", synapses=weights)
    graph = replace(
        graph, populations=(several, sink), projections=(*graph.projections, further),
        outputs=("sink", "p"),
    )  # fmt: skip
    trace = assert_exact(fed_with_spikes(graph, [[[1], [0], [1]], [[1], [1], [1]]]))
    assert trace.spikes["p"].max() > 127


@pytest.mark.parametrize("high", [1, 31, 255])
def test_a_pool_of_more_than_a_part(high: int) -> None:
    """256 values in a window, and windows that overlap."""
    spec = InputSpec(name="in", kind="graded", shape=(2, 16, 17), high=float(high), scale=1.0)
    values = np.random.default_rng(high).integers(0, high, (3, 2, 2, 16, 17), endpoint=True)
    for pool in (SumPool((16, 16), (1, 1)), SumPool((3, 2), (2, 1))):
        seen = pool.output_shape(spec.shape)
        weight = Dense(np.arange(-3, 2 * int(np.prod(seen)) - 3).reshape(2, -1))
        graph = one_layer(weight, spec, pool=pool)
        assert_exact(Case(graph, Recording(values={"": values}), 2))


@pytest.mark.parametrize("form", FORMS)
def test_sums_beyond_32_bits_are_refused(form: Form) -> None:
    few = (1 << 31) // 255 + 1
    graph = one_layer(Dense(np.ones((1, few), np.int8)), spike_input(few))
    with refused("SD204", "32 bits"):
        model(graph, form)


@pytest.mark.parametrize(
    "weights",
    [[254] * 600, [-256] * 600, [254] * 516 + [8], [-256] * 512, [254] * 516 + [6], [254] * 70_000],
    ids=["above", "below", "upper edge stays", "lower edge turns", "inside", "one turn only"],
)
def test_current_wraps_once_and_membrane_saturates(weights: list[int]) -> None:
    neurons = Integrator(decay=integers(4096), bias=integers(0), readout="last")
    spec = spike_input(len(weights))
    graph = one_layer(Dense(integers([weights])), spec, neurons, number_format=LOIHI2)
    assert_exact(fed_with_spikes(graph, np.ones((1, 3, len(weights)))))


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 16, 31, 32])
def test_a_sum_wraps_in_its_own_register(bits: int) -> None:
    """One below its end, at it and one above."""
    edge = 1 << (bits - 1)
    form = replace(GENERIC, weight_min=-(1 << 31), weight_max=(1 << 31) - 1, fraction_bits=1)
    for sign in (1, -1):
        for weights in (
            [edge - 1, 1, 1],
            [edge - 1, 0, 0],
            [edge - 1, 1, 0],
            [edge - 1, 1, edge - 1],
        ):
            graph = one_layer(
                Dense(sign * integers([weights])), spike_input(3), number_format=form,
                sum_bits=bits, exponent=1,
            )  # fmt: skip
            assert_exact(fed_with_spikes(graph, np.ones((1, 1, 3))))


@pytest.mark.parametrize("delay", [0, 2, [[0, 1, 3], [2, 2, 0]]])
@pytest.mark.parametrize("kind", ["spikes", "constant", "graded"])
def test_an_input_that_always_fires_is_not_fed(kind: Any, delay: Any) -> None:
    spec = InputSpec(name="in", kind=kind, shape=(2,), scale=None if kind == "spikes" else 0.1)
    graph = one_layer(Dense(integers([[1, 2], [3, -4]])), spec, lif(4000, threshold=300))
    always = InputSpec(name="bias", kind="spikes", shape=(3,), low=1.0)
    delays = delay if isinstance(delay, int) else integers(delay)
    weights = Dense(integers([[1, 2, 3], [3, 1, 0]]))
    (alone,) = (replace(p, name="alone") for p in graph.populations)
    graph = replace(
        graph,
        inputs=(always, *graph.inputs),
        populations=(*graph.populations, alone),
        projections=(
            *graph.projections,
            *(
                replace(
                    graph.projections[0], source="bias", target=t, synapses=weights, delay=delays
                )
                for t in ("p", "alone")
            ),
        ),
    )
    values = np.random.default_rng(0).random((3, 2) if kind == "constant" else (3, 6, 2)) < 0.5
    held = {"spikes" if kind == "spikes" else "values": {"in": values.astype(np.uint8)}}
    trace = assert_exact(Case(graph, Recording(**held), 6))
    assert trace.spikes["alone"].any()
    assert "bias" not in {value.name for value in model(graph, "step").graph.input}


def test_a_thousand_timesteps() -> None:
    rng = np.random.default_rng(0)
    graph = one_layer(Dense(rng.integers(-100, 130, (7, 5))), spike_input(5), lif(4000, 5000))
    trace = assert_exact(fed_with_spikes(graph, rng.random((2, 1000, 5)) < 0.3))
    assert trace.spikes["p"][:, 990:].any()


# --- what is in the file --------------------------------------------------------------------------

# Standard operators that onnxruntime has for these types.
OPERATORS = {
    "Add", "BitwiseAnd", "BitwiseXor", "Cast", "Clip", "Concat", "ConstantOfShape", "ConvInteger",
    "Div", "Equal", "Gather", "Greater", "GreaterOrEqual", "Identity", "LessOrEqual",
    "MatMulInteger", "Max", "Min", "Mul", "Neg", "Pow", "ReduceMax", "ReduceSum", "Reshape", "Scan",
    "Shape", "Sign", "Slice", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
INTEGERS = {
    TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.BOOL,
}  # fmt: skip


def graphs_of(made: ModelProto) -> Iterator[GraphProto]:
    waiting = [made.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [a.g for n in graph.node for a in n.attribute if a.HasField("g")]


def nodes_of(made: ModelProto) -> list[NodeProto]:
    return [node for graph in graphs_of(made) for node in graph.node]


def assert_plain(made: ModelProto) -> None:
    """Standard integer operators; type and shape of every value are stated, and ONNX agrees."""
    onnx.checker.check_model(made, full_check=True)
    assert (made.ir_version, [(o.domain, o.version) for o in made.opset_import]) == (8, [("", 18)])
    assert {node.op_type for node in nodes_of(made)} <= OPERATORS
    assert not any(node.domain for node in nodes_of(made))
    for graph in graphs_of(made):
        stated = {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}
        for tensor in graph.initializer:
            assert tensor.data_type in INTEGERS
        for info in stated.values():
            assert info.type.tensor_type.elem_type in INTEGERS
            dims = info.type.tensor_type.shape.dim
            assert all(d.dim_value > 0 or d.dim_param in ("batch", "time") for d in dims)
        made_here = {name for node in graph.node for name in node.output}
        assert made_here <= stated.keys()
        assert len({node.name for node in graph.node}) == len(graph.node)


@settings(max_examples=20)
@given(case=integer_cases())
def test_files_are_plain(case: Case) -> None:
    for form in FORMS:
        assert_plain(model(case.graph, form))


def test_what_cannot_overflow_is_not_guarded() -> None:
    for form in FORMS:
        guards = {"Clip", "BitwiseXor"} & {n.op_type for n in nodes_of(model(small_graph(), form))}
        assert not guards


def test_values_that_stay_are_worked_out_once() -> None:
    made = model(small_graph(), "sequence")
    (loop,) = (node for node in made.graph.node if node.op_type == "Scan")
    before = [n.name for n in made.graph.node if n.op_type == "ConvInteger"]
    inside = [n.name for n in loop.attribute[0].g.node if n.op_type == "ConvInteger"]
    assert len(before) == 2  # 8-bit values in two parts
    assert len(inside) == 2  # the pool, and the second convolution
