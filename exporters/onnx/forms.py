"""The two forms of a network: a whole sequence, and one timestep per call.

Both are made of the same operators. In the sequence they are the body of a Scan over time; what is
fixed over time stands before it, what the readouts make of the run behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from onnx import GraphProto, NodeProto, ValueInfoProto, helper
from snn_deploy.exporters.onnx.emission import INT64, UINT8, Emitter
from snn_deploy.exporters.onnx.timestep import State, Timestep, input_kind

from snn_deploy.graph import Graph, InputSpec, Readout
from snn_deploy.synapses import Shape

Form = Literal["sequence", "step"]
FORMS: tuple[Form, ...] = get_args(Form)
Known = dict[str, ValueInfoProto]

# Where all inputs are constant, one more says for how many timesteps they hold: int64 [1].
TIMESTEPS = "/timesteps"


def _info(name: str, kind: int, shape: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _state_info(state: State, name: str) -> ValueInfoProto:
    return _info(name, state.kind, ("batch", *state.shape))


def _named(value: str, name: str) -> NodeProto:
    """An operator that gives a value its name outside."""
    return helper.make_node("Identity", [value], [name], name=name)


def step_graph(graph: Graph, emit: Emitter) -> GraphProto:
    """One timestep per call: inputs and states in, spikes and states out."""
    emit.varying.update(spec.name for spec in graph.fed)
    step = Timestep(graph, emit, {s.name: s.name for s in graph.fed} | _firing(graph, emit))
    given = [_info(s.name, input_kind(s), ("batch", *s.shape)) for s in graph.fed]
    given += [_state_info(state, state.name) for state in step.states]
    nodes, results = [*emit.once, *emit.step], []
    for name, value in step.spikes.items():
        nodes.append(_named(value, f"{name}/spikes"))
        results.append(_info(f"{name}/spikes", UINT8, ("batch", *graph.shape_of(name))))
    for state in step.states:
        name = f"{state.name}_next"
        nodes.append(_named(step.handed_on[state.name], name))
        results.append(_state_info(state, name))
    return helper.make_graph(nodes, "snn_deploy_step", given, results)


def sequence_graph(graph: Graph, emit: Emitter, known: Known) -> GraphProto:
    """A whole run per call: inputs in, readouts and spikes out.

    Adds to ``known`` the types of the values that a step by itself does not have.
    """
    timed = [spec for spec in graph.fed if spec.kind != "constant"]
    now = {s.name: s.name if s.kind == "constant" else f"{s.name}/now" for s in graph.fed}
    emit.varying.update(now[spec.name] for spec in timed)
    step = Timestep(graph, emit, now | _firing(graph, emit))
    traced = _traced(graph, step)
    loop = _loop(timed, emit, step, traced, known)
    inside = len(emit.step)
    emit.varying.update(traced)
    results = []
    for name in graph.outputs:
        _readout(emit, name, graph.population(name).neurons.readout)
        results.append(_info(f"{name}/output", INT64, ("batch", *graph.shape_of(name))))
    for name in step.spikes:
        results.append(known[f"{name}/spikes"])
        over_time = traced[f"{name}/spikes"].over_time
        known[f"{name}/counted"] = _info(f"{name}/counted", INT64, over_time)
    given = []
    for spec in graph.fed:
        time = () if spec.kind == "constant" else ("time",)
        given.append(_info(spec.name, input_kind(spec), ("batch", *time, *spec.shape)))
    if not timed:
        given.append(_info(TIMESTEPS, INT64, (1,)))
    nodes = [*emit.once, loop, *emit.step[inside:]]
    return helper.make_graph(nodes, "snn_deploy_sequence", given, results)


@dataclass(frozen=True, slots=True)
class _Traced:
    """A value of every timestep that leaves the loop."""

    value: str
    kind: int
    shape: Shape

    @property
    def over_time(self) -> tuple[int | str, ...]:
        """Its shape outside the loop."""
        return "batch", "time", *self.shape


def _traced(graph: Graph, step: Timestep) -> dict[str, _Traced]:
    """All spikes, and the membranes that are read out."""
    found = {}
    for name, value in step.spikes.items():
        found[f"{name}/spikes"] = _Traced(value, UINT8, graph.shape_of(name))
    for name in graph.outputs:
        if graph.population(name).neurons.readout is not None:
            value = step.handed_on[f"{name}/membrane"]
            found[f"{name}/membranes"] = _Traced(value, INT64, graph.shape_of(name))
    return found


def _loop(
    timed: list[InputSpec],
    emit: Emitter,
    step: Timestep,
    traced: dict[str, _Traced],
    known: Known,
) -> NodeProto:
    """The Scan over time: all of ``emit.step`` is its body."""
    zero = helper.make_tensor("zero", INT64, (1,), [0])
    zeros = _zeros(step, emit, known)
    over = [spec.name for spec in timed]
    given = [_state_info(state, state.name) for state in step.states]
    given += [_info(f"{s.name}/now", input_kind(s), ("batch", *s.shape)) for s in timed]
    if not timed:
        over = [emit.add("ConstantOfShape", [TIMESTEPS], "/clock", value=zero)]
        known["/clock"] = _info("/clock", INT64, ("time",))
        given.append(_info("/tick", INT64, ()))
    nodes, results = list(emit.step), []
    for state in step.states:
        nodes.append(_named(step.handed_on[state.name], f"{state.name}_next"))
        results.append(_state_info(state, f"{state.name}_next"))
        known[f"{state.name}_end"] = _state_info(state, f"{state.name}_end")
    for name, trace in traced.items():
        nodes.append(_named(trace.value, f"{name}_now"))
        results.append(_info(f"{name}_now", trace.kind, ("batch", *trace.shape)))
        known[name] = _info(name, trace.kind, trace.over_time)
    return helper.make_node(
        "Scan",
        [*zeros, *over],
        [*(f"{state.name}_end" for state in step.states), *traced],
        name="/time",
        body=helper.make_graph(nodes, "snn_deploy_timestep", given, results),
        num_scan_inputs=len(over),
        scan_input_axes=[int(bool(timed))] * len(over),
        scan_output_axes=[1] * len(traced),
    )


def _zeros(step: Timestep, emit: Emitter, known: Known) -> list[str]:
    """The states before the first timestep, of as many samples as an input has."""
    found = []
    for state in step.states:
        name = f"{state.name}_start"
        found.append(_filled(step.graph, emit, state.shape, state.kind, 0, name))
        known[f"{name}_samples"] = _info(f"{name}_samples", INT64, (1,))
        known[f"{name}_shape"] = _info(f"{name}_shape", INT64, (len(state.shape) + 1,))
        known[name] = _state_info(state, name)
    return found


def _firing(graph: Graph, emit: Emitter) -> dict[str, str]:
    """What the inputs that always fire send in any timestep: ones."""
    return {
        spec.name: _filled(graph, emit, spec.shape, UINT8, 1, f"{spec.name}/firing")
        for spec in graph.inputs
        if spec.always_fires
    }


def _filled(graph: Graph, emit: Emitter, shape: Shape, kind: int, number: int, name: str) -> str:
    """One number everywhere, [batch, *shape]: of as many samples as an input has."""
    fed = graph.fed[0].name
    samples = emit.add("Shape", [fed], f"{name}_samples", start=0, end=1)
    extents = [samples, emit.constant(shape)]
    whole = emit.add("Concat", extents, f"{name}_shape", axis=0)
    value = helper.make_tensor("value", kind, (1,), [number])
    return emit.add("ConstantOfShape", [whole], name, value=value)


def _readout(emit: Emitter, name: str, kind: Readout | None) -> None:
    """What a population is read out as, over the time axis 1; ``mean`` is read as the sum."""
    output, membranes = f"{name}/output", f"{name}/membranes"
    if kind == "last":
        emit.add("Gather", [membranes, emit.constant(-1)], output, axis=1)
        return
    if kind is None:
        membranes = emit.cast(f"{name}/spikes", INT64, f"{name}/counted")
    reduce = "ReduceMax" if kind == "max" else "ReduceSum"
    emit.add(reduce, [membranes, emit.constant((1,))], output, keepdims=0)
