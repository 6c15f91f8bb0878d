"""ONNX models, run in onnxruntime and compared with the reference at every timestep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from onnx.reference import ReferenceEvaluator
from snn_deploy.exporters.onnx.forms import TIMESTEPS
from snn_deploy.exporters.onnx.models import model

from snn_deploy.checks import check_integer
from snn_deploy.graph import Graph
from snn_deploy.sim import Trace
from snn_deploy.sim.plan import plan, with_sample_axis
from tests.helpers.graphs import Case

Array = NDArray[Any]

_TYPES = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


def session(made: ModelProto | str) -> ort.InferenceSession:
    """One thread; what onnxruntime warns of is printed, for pytest to show."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    content = made if isinstance(made, str) else made.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class _Value:
    name: str
    shape: list[Any]
    type: str


class Evaluator:
    """The evaluator of the package onnx, in numpy, behind the interface of onnxruntime."""

    def __init__(self, made: ModelProto) -> None:
        self.graph, self.evaluator = made.graph, ReferenceEvaluator(made)

    def get_inputs(self) -> list[_Value]:
        kinds = {TensorProto.DataType.Value(name[7:-1].upper()): name for name in _TYPES}
        return [
            _Value(
                value.name,
                [dim.dim_value for dim in value.type.tensor_type.shape.dim],
                kinds[value.type.tensor_type.elem_type],
            )
            for value in self.graph.input
        ]

    def get_outputs(self) -> list[_Value]:
        return [_Value(value.name, [], "") for value in self.graph.output]

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        return list(self.evaluator.run(names, feeds))


Runner = ort.InferenceSession | Evaluator


def run(runner: Runner, feeds: dict[str, Array]) -> dict[str, Array]:
    names = [output.name for output in runner.get_outputs()]
    return dict(zip(names, runner.run(names, feeds), strict=True))


def without_resets(case: Case) -> Case:
    """Every sample by itself, from silence."""
    return replace(case, reset_interval=None, reset_offset=None)


def feeds_of(case: Case) -> dict[str, Array]:
    """What the model is fed: per input [N, T, ...], or [N, ...] for constant values."""
    recording = with_sample_axis(case.graph, case.recording)
    planned = plan(case.graph, recording, steps=case.steps, timing="zero_delay", trace=True)
    found = {}
    for spec in case.graph.fed:
        value = planned.inputs[spec.name]
        value = value[:, 0] if spec.kind == "constant" else value
        found[spec.name] = value.astype(np.uint8 if spec.kind == "spikes" else np.int32)
    return found


def run_sequence(
    graph: Graph, runner: Runner, feeds: dict[str, Array], steps: int
) -> dict[str, Array]:
    if all(spec.kind == "constant" for spec in graph.fed):
        feeds = {**feeds, TIMESTEPS: np.array([steps], np.int64)}
    return run(runner, feeds)


def run_steps(
    graph: Graph, runner: Runner, feeds: dict[str, Array], steps: int
) -> dict[str, Array]:
    """Outputs of all calls, [N, T, ...]; the states begin at zero."""
    samples = len(next(iter(feeds.values())))
    given = {spec.name for spec in graph.fed}
    state = {
        i.name: np.zeros((samples, *i.shape[1:]), _TYPES[i.type])
        for i in runner.get_inputs()
        if i.name not in given
    }
    listed = []
    for step in range(steps):
        now = {
            spec.name: feeds[spec.name] if spec.kind == "constant" else feeds[spec.name][:, step]
            for spec in graph.fed
        }
        listed.append(run(runner, {**now, **state}))
        state = {name: listed[-1][f"{name}_next"] for name in state}
    return {name: np.stack([out[name] for out in listed], axis=1) for name in listed[0]}


def assert_equal(found: dict[str, Array], name: str, expected: Array) -> None:
    assert found[name].shape == expected.shape, name
    np.testing.assert_array_equal(found[name], expected, name)


def assert_sequence(found: dict[str, Array], trace: Trace) -> None:
    names = {f"{n}/spikes" for n in trace.spikes} | {f"{n}/output" for n in trace.output}
    assert found.keys() == names
    for name, spikes in trace.spikes.items():
        assert found[f"{name}/spikes"].dtype == np.uint8
        assert_equal(found, f"{name}/spikes", spikes)
    for name, output in trace.output.items():
        assert found[f"{name}/output"].dtype == np.int64
        assert_equal(found, f"{name}/output", output)


def assert_steps(graph: Graph, found: dict[str, Array], trace: Trace) -> None:
    for name, spikes in trace.spikes.items():
        assert_equal(found, f"{name}/spikes", spikes)
    for population in graph.populations:
        name = population.name
        assert_equal(found, f"{name}/membrane_next", trace.membrane[name])
        if population.neurons.current_decay is not None:
            assert_equal(found, f"{name}/current_next", trace.current[name])


def assert_exact(case: Case) -> Trace:
    """Both forms are the reference: all samples at once, and the first by itself."""
    check_integer(case.graph)
    trace = case.run("reference")
    feeds = feeds_of(case)
    runner = session(model(case.graph, "sequence"))
    found = run_sequence(case.graph, runner, feeds, case.steps)
    assert_sequence(found, trace)
    first = {name: value[:1] for name, value in feeds.items()}
    alone = run_sequence(case.graph, runner, first, case.steps)
    for name, value in alone.items():
        np.testing.assert_array_equal(value, found[name][:1], name)
    found = run_steps(case.graph, session(model(case.graph, "step")), feeds, case.steps)
    assert_steps(case.graph, found, trace)
    return trace
