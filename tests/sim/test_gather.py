"""The vector kernels of synapses against plain integer sums, and which projections they take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.graph import Graph, ResetSubtract
from snn_deploy.sim import program as program_module
from snn_deploy.sim.batch import written
from snn_deploy.sim.depthwise import Depthwise
from snn_deploy.sim.event import PLAIN, EventEngine
from snn_deploy.sim.gather import ROWS_AT_ONCE, ROWS_PER_FLUSH
from snn_deploy.sim.lanes import RULES
from snn_deploy.sim.packing import count, pack, spike_counts, unpack
from snn_deploy.sim.panels import Panels
from snn_deploy.sim.program import Arrival, Program, Stage
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.sim.tables import DelayedSynapses, SynapseTable
from snn_deploy.sim.vectors import LANES
from snn_deploy.synapses import Conv2d, Dense, SumPool, as_map
from tests.helpers.graphs import GENERIC, LOIHI2
from tests.helpers.nets import lif, one_layer, population, spike_input

Array = NDArray[Any]

# Around the 64 channels of a word and the 64 and 128 lanes of a panel.
CHANNELS = (1, 2, 3, 7, 16, 63, 64, 65, 127, 128, 129, 192)
LIMITS = {"int8": 1 << 7, "even": 1 << 8, "int16": 1 << 15, "wide": 1 << 20}


@st.composite
def weights(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Weights of one kind: random, all at their lower or upper end, all zero, or scaled."""
    kind = draw(st.sampled_from(sorted(LIMITS)))
    limit, step = LIMITS[kind], 2 if kind == "even" else 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    how = draw(st.sampled_from(("random", "random", "lowest", "highest", "ends", "zero")))
    event(f"{kind} {how}")
    if how == "random":
        values = rng.integers(-limit // step, limit // step, shape) * step
    elif how == "ends":
        values = rng.choice([-limit, limit - step], shape)
    else:
        values = np.full(shape, {"lowest": -limit, "highest": limit - step, "zero": 0}[how])
    return np.asarray(values << draw(st.sampled_from((0, 0, 3))), np.int64)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """One projection of any geometry from spikes to a population."""
    channels, targets = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS))
    sizes = st.integers(1, 6)
    height, width = draw(sizes), draw(sizes)
    pool = None
    if draw(st.integers(0, 3)) == 0:
        window = draw(st.integers(1, min(height, width)))
        pool = SumPool((window, window), (draw(st.integers(1, 2)), draw(st.integers(1, 2))))
    seen = (
        (channels, height, width) if pool is None else pool.output_shape((channels, height, width))
    )
    synapses: Dense | Conv2d
    if draw(st.integers(0, 3)) == 0:
        synapses = Dense(draw(weights((targets, int(np.prod(seen))))))
    else:
        groups = draw(st.sampled_from((1, 1, 1, channels, channels)))
        targets = channels if groups > 1 else targets
        padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        kernel = tuple(
            draw(st.integers(1, min(3, (size + 2 * padding - 1) // dilation + 1)))
            for size in seen[1:]
        )
        weight = draw(weights((targets, channels // groups, *kernel)))
        stride = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        synapses = Conv2d(weight, stride, (padding, padding), (dilation, dilation), groups)
    exponent = draw(st.sampled_from((0, 0, 5)))
    spec = spike_input(channels, height, width)
    return one_layer(synapses, spec, pool=pool, exponent=exponent)


def spikes_of(graph: Graph, rate: float, seed: int, samples: int = 2, steps: int = 3) -> Array:
    shape = (samples, steps, *graph.inputs[0].shape)
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.uint8)


def gathered(
    table: Any, graph: Graph, spikes: Array, first: int, last: int, delay: int
) -> tuple[Array, Array]:
    """What a table makes sums of: [samples, steps, *shape], and its events.

    Neurons that keep nothing and never fire show their sums as currents.
    """
    target = graph.populations[0].shape
    channels, height, width = as_map(target)
    samples, steps, pixels = len(spikes), spikes.shape[1], height * width
    events = np.zeros(samples, np.int64)
    if isinstance(table, SynapseTable):
        current = np.zeros((samples, last - first, pixels, channels), np.int64)
        table.add_spikes(pack(spikes), first, last, delay, current, events)
    else:
        leaves = written(graph.populations[0], samples, steps, trace=True, numeric=False)
        lanes = -(-channels // LANES) * LANES
        nothing = np.zeros((1, 1, lanes), np.int32)
        stage = Stage(
            arrivals=(
                Arrival(table=table, words=pack(spikes), delay=delay, events=events, inner=False),
            ),
            channels=channels,
            pixels=pixels,
            clears=np.ones(steps, bool),
            windows=np.zeros(steps, np.int64),
            rules=np.zeros(len(RULES), np.int32),
            parameters=np.repeat([[0], [0], [2**31 - 1]], lanes, axis=1).astype(np.int32),
            drive=nothing,
            constant=None,
            states=None,
            written=leaves,
        )
        program = Program(samples, first, last)
        program.add((stage,), looped=False)
        program.run()
        current = leaves.current_trace[:, first:last]
        assert not leaves.words.any()
        np.testing.assert_array_equal(leaves.membrane_trace[:, first:last], current)
    return np.swapaxes(current, 2, 3).reshape(samples, last - first, *target), events


@settings(max_examples=250, deadline=None)
@given(
    graph=graphs(),
    rate=st.sampled_from((0.0, 0.02, 0.3, 0.9, 1.0)),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from((1, 1 << 9, 1 << 12, 1 << 20)),
    delay=st.integers(0, 2),
    first=st.integers(0, 2),
)
def test_sums_are_those_of_the_norm(
    graph: Graph, rate: float, seed: int, size: int, delay: int, first: int
) -> None:
    (projection,) = graph.projections
    table = EventEngine(graph).synapses[projection.name]
    event(type(table).__name__ + str(table.weights.dtype))
    assert not isinstance(table, DelayedSynapses)
    spikes = spikes_of(graph, rate, seed)
    with pytest.MonkeyPatch.context() as patch:  # blocks and tiles of every size
        for name in ("_CACHED_WEIGHTS", "_TILE_BYTES", "_BLOCK_BYTES", "_LISTED_BYTES"):
            patch.setattr(program_module, name, size)
        sums, events = gathered(table, graph, spikes, first, 3, delay)
    late = np.zeros_like(spikes)
    late[:, delay:] = spikes[:, : 3 - delay]
    wanted = synaptic_sum(projection, graph.inputs[0].shape, late) << projection.exponent
    np.testing.assert_array_equal(sums, wanted[:, first:])
    assert np.abs(wanted).max() <= table.largest_sum
    fan_out = graph.fan_out(projection)
    per_sample = (late[:, first:].sum(axis=1, dtype=np.int64) * fan_out).reshape(2, -1).sum(axis=1)
    assert events.tolist() == per_sample.tolist()


@pytest.mark.parametrize(
    "inputs", [ROWS_PER_FLUSH - 1, ROWS_PER_FLUSH, ROWS_PER_FLUSH + 1, 100_000]
)
@pytest.mark.parametrize("weight", [-128, 127, -32767, 32767])
@pytest.mark.parametrize("targets", [3, 128])
def test_sums_of_the_largest_weights(inputs: int, weight: int, targets: int) -> None:
    """Longer than int16 can sum, and where even int32 cannot be sure."""
    inputs = min(inputs, 70_000) if targets == 3 else min(inputs, 5000)
    graph = one_layer(Dense(np.full((targets, inputs), weight)), spike_input(inputs))
    table = EventEngine(graph).synapses["in->p"]
    assert isinstance(table, SynapseTable if abs(weight) * inputs >= 1 << 31 else Panels)
    sums, events = gathered(table, graph, spikes_of(graph, 1.1, 0), 0, 3, 0)
    assert (sums == weight * inputs).all()
    assert events.tolist() == [3 * inputs * targets] * 2


def test_rows_flush_before_int16_overflows() -> None:
    assert ROWS_PER_FLUSH * 255 < 1 << 16
    assert ROWS_PER_FLUSH % ROWS_AT_ONCE == 0


def test_many_lists_wait_and_none_is_lost() -> None:
    """More lists, and more rows, than may wait at a time; panels beyond the cache."""
    rng = np.random.default_rng(0)
    for channels, targets, side in ((2, 3, 40), (600, 200, 9)):
        weight = rng.integers(-128, 128, (targets, channels, 3, 3))
        graph = one_layer(Conv2d(weight, padding=(1, 1)), spike_input(channels, side, side))
        spikes = spikes_of(graph, 0.4, 1, samples=3)
        table = EventEngine(graph).synapses["in->p"]
        assert isinstance(table, Panels)
        sums, _ = gathered(table, graph, spikes, 0, 3, 0)
        wanted = synaptic_sum(graph.projections[0], graph.inputs[0].shape, spikes)
        np.testing.assert_array_equal(sums, wanted)


def kind_of(weight: Any, shape: tuple[int, ...], **more: Any) -> tuple[type, str]:
    synapses = Dense(weight) if weight.ndim == 2 else Conv2d(weight, groups=more.pop("groups", 1))
    number_format = more.pop("number_format", GENERIC)
    graph = one_layer(synapses, spike_input(*shape), number_format=number_format, **more)
    table = EventEngine(graph).synapses["in->p"]
    return type(table), str(table.weights.dtype)


def test_the_vector_kernels_take_what_fits() -> None:
    ends = np.array([[-128, 127]])
    assert kind_of(ends, (2,)) == (Panels, "uint8")
    assert kind_of(2 * ends, (2,), number_format=LOIHI2) == (Panels, "uint8")  # halved
    assert kind_of(ends << 9, (2,)) == (Panels, "uint8")
    assert kind_of(ends, (2,), exponent=9) == (Panels, "uint8")
    assert kind_of(np.array([[-127, 128]]), (2,)) == (Panels, "int16")
    assert kind_of(np.array([[-32768, 32767]]), (2,)) == (Panels, "int16")
    assert kind_of(np.array([[-32768, 32769]]), (2,)) == (SynapseTable, "int64")
    assert kind_of(np.array([[1, 1 << 40]]), (2,)) == (SynapseTable, "int64")
    assert kind_of(np.ones((6, 1, 3, 3), int), (6, 5, 5), groups=6) == (Depthwise, "int32")
    assert kind_of(np.ones((6, 1, 3, 3), int) << 29, (6, 5, 5), groups=6)[0] is SynapseTable
    assert kind_of(np.ones((12, 1, 3, 3), int), (6, 5, 5), groups=6)[0] is SynapseTable
    assert kind_of(np.ones((6, 2, 3, 3), int), (6, 5, 5), groups=3)[0] is SynapseTable


def test_plain_kernels_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLAIN, "1")
    assert kind_of(np.array([[-128, 127]]), (2,)) == (SynapseTable, "int16")
    assert kind_of(np.ones((6, 1, 3, 3), int), (6, 5, 5), groups=6)[0] is SynapseTable


def test_several_spikes_and_values_keep_the_plain_kernels() -> None:
    graph = one_layer(Dense(np.ones((2, 3), int)), spike_input(3))
    several = replace(
        graph,
        inputs=(spike_input(3, name="first"),),
        populations=(
            replace(population("in", 3, neurons=lif(reset=ResetSubtract(9))), max_spikes=2),
            graph.populations[0],
        ),
        projections=(
            replace(
                graph.projections[0],
                source="first",
                target="in",
                synapses=Dense(np.eye(3, dtype=int)),
            ),
            graph.projections[0],
        ),
    )
    tables = EventEngine(several).synapses
    assert isinstance(tables["first->in"], Panels)
    assert isinstance(tables["in->p"], SynapseTable)
    graded = replace(graph, inputs=(replace(graph.inputs[0], kind="graded", scale=1.0),))
    assert isinstance(EventEngine(graded).synapses["in->p"], SynapseTable)


@settings(max_examples=50)
@given(channels=st.integers(1, 200), side=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_packing_is_undone(channels: int, side: int, seed: int) -> None:
    shape = (channels, side, 2)
    spikes = np.random.default_rng(seed).random((2, 3, *shape)) < 0.5
    words = pack(spikes.astype(np.uint8))
    assert words.shape == (2, 3, 2 * side, -(-channels // 64))
    np.testing.assert_array_equal(unpack(words, shape), spikes)
    np.testing.assert_array_equal(spike_counts(words, shape), spikes.sum(axis=1))
    for channel in {0, channels - 1}:
        bits = words[..., channel // 64] >> np.uint64(channel % 64) & np.uint64(1)
        np.testing.assert_array_equal(bits, spikes[:, :, channel].reshape(2, 3, -1))


@pytest.mark.parametrize("steps", [1, 127, 128, 300])
def test_counts_beyond_what_a_byte_holds(steps: int) -> None:
    spikes = np.ones((2, steps, 3, 2, 1), np.uint8)
    spikes[:, :, 1] = 0
    assert count(spikes).tolist() == [[[2 * steps]] * 2, [[0]] * 2, [[2 * steps]] * 2]
