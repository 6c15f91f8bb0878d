"""Counts against brute force: every pair of neurons, one by one."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, conv2d

from snn_deploy.counting import FirstLayer, asgl, count
from snn_deploy.graph import Graph, InputSpec, Integrator, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.sim import EngineName, Trace, simulate
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses, one_to_one
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.nets import (
    dense,
    fed_with_spikes,
    integers,
    lif,
    one_layer,
    spike_input,
)
from tests.helpers.refusals import refused

Kind = Literal["constant", "graded", "spikes"]

SAMPLES, STEPS = 5, 3
SHAPES: dict[str, Shape] = {
    "in": (2, 7, 7),
    "a": (4, 7, 4),
    "b": (6, 4, 1),
    "c": (2, 1, 1),
    "out": (3,),
}


def net(kind: Kind = "constant") -> Graph:
    """Borders, strides, groups, dilation, pools with and without overlap; weights of zero."""
    rng = np.random.default_rng(1)

    def weight(*shape: int) -> NDArray[np.int64]:
        return rng.integers(-60, 61, shape)

    projections: list[tuple[str, str, Synapses, SumPool | None]] = [
        ("in", "a", Conv2d(weight(4, 2, 3, 3), padding=(1, 1), stride=(1, 2)), None),
        ("a", "b", Conv2d(weight(6, 2, 2, 2), padding=(1, 0), groups=2), SumPool((2, 2), (2, 2))),
        ("a", "c", Conv2d(weight(2, 4, 2, 1), dilation=(2, 1)), SumPool((3, 3), (2, 2))),
        ("b", "out", Dense(weight(3, 12)), SumPool((2, 1), (2, 1))),
        ("c", "out", Dense(np.zeros((3, 2), np.int64)), None),
    ]
    readout = Integrator(decay=integers(0), bias=integers(0))
    neurons = dict.fromkeys("abc", lif(2048, threshold=2000)) | {"out": readout}
    return Graph(
        inputs=(InputSpec(name="in", kind=kind, shape=SHAPES["in"], low=0, high=9, scale=1.0),),
        populations=tuple(
            Population(name=n, shape=SHAPES[n], neurons=neurons[n], scale=1.0) for n in neurons
        ),
        projections=tuple(
            Projection(source=a, target=b, synapses=s, pool=p) for a, b, s, p in projections
        ),
        outputs=("out",),
        timesteps=STEPS,
        number_format=GENERIC,
    )


def run(graph: Graph, **options: Any) -> Trace:
    rng = np.random.default_rng(2)
    (spec,) = graph.inputs
    time = () if spec.kind == "constant" else (STEPS,)
    most = 2 if spec.kind == "spikes" else 10
    values = {"": rng.integers(0, most, (SAMPLES, *time, *spec.shape))}
    recording = Recording(spikes=values) if spec.kind == "spikes" else Recording(values=values)
    trace = simulate(graph, recording, trace=True, **options)
    assert all(0 < s.mean() < 1 for s in trace.spikes.values())
    return replace(trace, spikes=trace.spikes | {"in": values[""]})


def reached(synapses: Synapses, pool: SumPool | None, shape: Shape) -> NDArray[np.bool_]:
    """[source neuron, target neuron]: whether a path of synapses joins them."""
    seen = torch.eye(int(np.prod(shape))).reshape(-1, *shape)
    if pool is not None:
        seen = avg_pool2d(seen, pool.kernel, pool.stride)
    if isinstance(synapses, Dense):
        out = seen.flatten(1) @ torch.ones(synapses.weight.shape).T
    else:
        options = (synapses.stride, synapses.padding, synapses.dilation, synapses.groups)
        out = conv2d(seen, torch.ones(synapses.weight.shape), None, *options)
    return np.asarray(out.flatten(1).numpy() > 0)


def pairs(graph: Graph, projection: Projection) -> NDArray[np.bool_]:
    return reached(projection.synapses, projection.pool, graph.shape_of(projection.source))


@pytest.mark.parametrize("engine", ["reference", "event"])
@pytest.mark.parametrize("kind", ["constant", "graded", "spikes"])
def test_accumulates(kind: Kind, engine: EngineName) -> None:
    graph = net(kind)
    trace = run(graph, engine=engine)
    counts = count(graph, trace.record, asgl())
    assert (counts.samples, counts.timesteps) == (SAMPLES, STEPS)
    for projection, counted in zip(graph.projections, counts.projections, strict=True):
        sent = 0
        if not graph.carries_values(projection):
            spikes = trace.spikes[projection.source].reshape(SAMPLES * STEPS, -1)
            sent = sum(
                int(pairs(graph, projection)[neuron].sum())
                for step in spikes
                for neuron in np.flatnonzero(step)
            )
        assert counted.accumulates == sent
        assert type(counted.accumulates) is int


@pytest.mark.parametrize(
    ("kind", "first_layer", "times"),
    [
        ("constant", "once", SAMPLES),
        ("constant", "per_timestep", SAMPLES * STEPS),
        ("graded", "once", SAMPLES * STEPS),
        ("graded", "per_timestep", SAMPLES * STEPS),
        ("spikes", "per_timestep", 0),
    ],
)
def test_multiply_accumulates(kind: Kind, first_layer: FirstLayer, times: int) -> None:
    """Of every value, zero or not; spikes never multiply."""
    graph = net(kind)
    first, *others = count(graph, run(graph).record, asgl(first_layer)).projections
    assert first.multiply_accumulates == times * pairs(graph, graph.projections[0]).sum()
    assert type(first.multiply_accumulates) is int
    assert not any(p.multiply_accumulates for p in others)


@pytest.mark.parametrize(
    ("number_format", "change", "products"),
    [
        (LOIHI2, {}, 0),
        (GENERIC, {}, 8),  # this chip multiplies, if only by one
        (LOIHI2, {"exponent": -1}, 8),
        (LOIHI2, {"pool": SumPool((1, 1), (1, 1))}, 8),
        (LOIHI2, {"synapses": one_to_one((2, 2, 2), 2)}, 8),
    ],
)
def test_a_bias_that_the_host_hands_on_is_no_product(
    number_format: NumberFormat, change: dict[str, Any], products: int
) -> None:
    spec = InputSpec(name="in", kind="constant", shape=(2, 2, 2), high=9.0, scale=1.0)
    plain = one_layer(one_to_one((2, 2, 2)), spec, number_format=number_format)
    graph = replace(plain, projections=(replace(plain.projections[0], **change),))
    values = Recording(values={"": np.full((1, 2, 2, 2), 3)})
    record = simulate(graph, values, steps=STEPS).record
    (found,) = count(graph, record, asgl()).projections
    assert (found.multiply_accumulates, found.twin) == (products, products)


def test_several_spikes_are_several_accumulates() -> None:
    """A membrane of 350 fires three times at 100, and each spike goes to both targets."""
    neurons = lif(threshold=100, reset=ResetSubtract(100))
    form = replace(GENERIC, fraction_bits=0)
    graph = one_layer(Dense(integers([[350]])), spike_input(1), neurons, number_format=form)
    (several,) = graph.populations
    sink = Integrator(decay=integers(0), bias=integers(0))
    graph = replace(
        graph,
        populations=(
            replace(several, max_spikes=9),
            Population(name="out", shape=(2,), neurons=sink, scale=1.0),
        ),
        projections=(*graph.projections, dense("p", "out", 2, 1)),
        outputs=("out",),
    )
    record = fed_with_spikes(graph, np.ones((1, 1, 1))).run("event").record
    counts = count(graph, record, asgl())
    assert [p.accumulates for p in counts.projections] == [1, 6]
    assert [p.spikes for p in counts.populations] == [3, 0]


def test_twin_pools_first() -> None:
    graph = net()
    counts = count(graph, run(graph).record, asgl())
    for projection, counted in zip(graph.projections, counts.projections, strict=True):
        shape = graph.shape_of(projection.source)
        if projection.pool is not None:
            shape = projection.pool.output_shape(shape)
        assert counted.twin == reached(projection.synapses, None, shape).sum()
    assert counts.projections[1].twin < pairs(graph, graph.projections[1]).sum()


def test_populations() -> None:
    graph = net()
    trace = run(graph)
    for population in count(graph, trace.record, asgl()).populations:
        membrane = trace.membrane[population.name]
        before = np.concatenate([np.zeros_like(membrane[:, :1]), membrane[:, :-1]], axis=1)
        spikes = trace.spikes.get(population.name, np.zeros_like(membrane))
        active = int(((membrane != before) | (spikes != 0)).sum())
        assert population.neurons == membrane[0, 0].size
        assert population.spiking == (population.name != "out")
        assert population.spikes == spikes.sum()
        assert population.active_updates == active
        assert population.inactive_updates == membrane.size - active


def test_batches_change_nothing() -> None:
    graph = net()
    whole = asdict(count(graph, run(graph).record, asgl()))
    for batch in (1, 2, SAMPLES):
        assert asdict(count(graph, run(graph, batch=batch).record, asgl())) == whole


@pytest.mark.parametrize("name", ["a->b", "a->c", "b->out", "c->out"])
def test_events_must_follow_from_spikes(name: str) -> None:
    graph = net()
    record = run(graph).record
    wrong = record.events[name] + np.arange(SAMPLES)
    with refused("SD407", f"--> {name}"):
        count(graph, replace(record, events=record.events | {name: wrong}), asgl())


def test_convention_is_said_in_words() -> None:
    assert "constant-input MACs once" in asgl().switches()
    assert "constant-input MACs per timestep" in asgl("per_timestep").switches()
