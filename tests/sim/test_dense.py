"""The dense engine's choice of types, its blocks, and what it leaves in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy import numerics
from snn_deploy.graph import LIF, Integrator, Projection, ResetSubtract, ResetTo
from snn_deploy.numerics import DecayRule, NumberFormat
from snn_deploy.packets import Recording
from snn_deploy.sim import dense, dense_sums, simulate
from snn_deploy.sim.dense_neurons import Decay
from snn_deploy.sim.dense_proof import NOTHING_PROVED, Proof, proved
from snn_deploy.sim.dense_sums import Sums, integer_products
from snn_deploy.synapses import Conv2d, Dense, SumPool, Synapses, as_map
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import GENERIC, LOIHI2, Case, integer_cases, narrow_formats
from tests.helpers.nets import (
    fed_with_spikes,
    integers,
    lif,
    one_layer,
    population,
    spike_input,
)
from tests.helpers.refusals import refused
from tests.property.test_engines import assert_same

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
Array = NDArray[Any]


def summed(sums: Sums, source: Array, value: int) -> list[Any]:
    """Sums of one row, flat; ``source`` is of the source's shape."""
    maps = torch.from_numpy(source.reshape(1, *as_map(source.shape)).transpose(0, 2, 3, 1).copy())
    return sums(maps, value).permute(0, 3, 1, 2).reshape(-1).tolist()


def sums_of(synapses: Synapses, *shape: int, pool: SumPool | None = None) -> Sums:
    projection = Projection(source="in", target="p", synapses=synapses, pool=pool)
    return Sums(projection, shape, CPU)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        ([2**24 - 2, 1], torch.float32),
        ([2**24 - 1, 1], torch.float32),
        ([2**24, 1], torch.float64),
        ([-(2**24), -1], torch.float64),
        ([2**53 - 2, 1], torch.float64),
        ([2**53 - 1, 1], torch.float64),
        ([2**53, 1], torch.int64),
        ([-(2**53), -1], torch.int64),
        ([2**62, 2**62, 2**62], torch.int64),
    ],
)
def test_the_type_follows_the_largest_sum(weights: list[int], kind: torch.dtype) -> None:
    """At 2**24 and 2**53 floats are exact for the last time: one more, and they lose the one."""
    sums = sums_of(Dense(integers([weights])), len(weights))
    assert sums.kind(1) == kind
    spikes = np.ones(len(weights), np.uint8)
    wanted = sum(weights)
    assert summed(sums, spikes, 1) == [(wanted + 2**63) % 2**64 - 2**63]
    if kind != torch.float32 and wanted in (2**24 + 1, 2**53 + 1):
        number = np.float32 if kind == torch.float64 else np.float64
        assert int(np.array(weights, number).sum(dtype=number)) == wanted - 1


@pytest.mark.parametrize("way", ["conv", "pool", "dense"])
def test_values_and_windows_count(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of 3 in a window of 4 makes 12 times as much as a spike through one synapse."""
    monkeypatch.setattr(dense_sums, "integer_products", lambda: False)
    if way == "dense":
        sums = sums_of(Dense(np.full((2, 4), 1 << 20)), 4)
    else:
        kernel = Conv2d(np.full((2, 2, 1, 1), 1 << 20))
        sums = sums_of(kernel, 2, 2, 2, pool=SumPool((2, 2), (1, 1)) if way == "pool" else None)
    rows = {"dense": 4, "conv": 2, "pool": 8}[way] << 20
    assert sums.largest(3) == 3 * rows
    at_most = (1 << 24) // rows
    assert sums.kind(at_most) == torch.float32
    assert sums.kind(at_most + 1) == torch.float64


SHAPES = st.sampled_from((1, 2, 3, 5, 8, 17, 33))
WAYS = ("as it is", "floats", "patches")


@st.composite
def layers(draw: st.DrawFn) -> tuple[Sums, Array, int]:
    """Synapses of extreme weights, and a source of extreme values with their bound."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ranges = ((-128, 127), (-256, 254), (-128, -128), (127, 127), (0, 0), (-129, 1), (-1, 128))
    low, high = draw(st.sampled_from(ranges))
    value = draw(st.sampled_from((1, 1, 3, 127, 128)))
    channels, groups = draw(SHAPES), 1
    if draw(st.booleans()):
        groups = draw(st.sampled_from((1, channels)))
    out = groups * draw(st.sampled_from((1, 2, 5)))
    kernel = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=2)))
    weight = rng.choice((low, high), (out, channels // groups, *kernel))
    shape = (channels, *(k + draw(st.integers(1, 4)) for k in kernel))
    pool = draw(st.sampled_from((None, None, SumPool((2, 1), (1, 2)))))
    stride, padding, dilation = (
        (draw(st.integers(least, 2)), draw(st.integers(least, 2))) for least in (1, 0, 1)
    )
    if draw(st.integers(0, 3)) == 0:
        pool, weight = None, rng.choice((low, high), (out, int(np.prod(shape))))
        synapses: Synapses = Dense(weight)
    else:
        padding = tuple(p + 2 for p in padding)  # dilated kernels fit
        synapses = Conv2d(weight, stride, padding, dilation, groups)
    rows = draw(st.sampled_from((1, 2, 9)))
    source = value * (rng.random((rows, *shape)) < draw(st.sampled_from((0.0, 0.3, 1.0))))
    return sums_of(synapses, *shape, pool=pool), source, value


def brute_force(sums: Sums, source: Array) -> Array:
    """By torch's integers: [rows, *target map]."""
    values = torch.from_numpy(source.astype(np.int64))
    pool, synapses = sums.projection.pool, sums.projection.synapses
    if pool is not None:
        values = values.unfold(2, pool.kernel[0], pool.stride[0])
        values = values.unfold(3, pool.kernel[1], pool.stride[1]).sum((-1, -2))
    weight = torch.from_numpy(synapses.weight.astype(np.int64))
    if isinstance(synapses, Dense):
        return (values.flatten(1) @ weight.T)[:, :, None, None].numpy()
    return torch.nn.functional.conv2d(
        values, weight, None, synapses.stride, synapses.padding, synapses.dilation, synapses.groups
    ).numpy()


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=80)
@given(layer=layers())
def test_sums_of_every_kind(way: str, layer: tuple[Sums, Array, int]) -> None:
    """As this processor would, as one without int8 products, and as a GPU."""
    sums, source, value = layer
    with pytest.MonkeyPatch.context() as patch:
        if way != WAYS[0]:
            patch.setattr(dense_sums, "integer_products", lambda: False)
        if way == "patches":
            patch.setattr(dense_sums, "_direct_convolutions", lambda device: False)
            patch.setattr(dense_sums, "_PATCH_BYTES", 100)
        dtype = np.uint8 if value < 128 else np.int32
        maps = np.ascontiguousarray(source.transpose(0, 2, 3, 1), dtype)
        found = sums(torch.from_numpy(maps), value)
        assert (sums.kind(value) == torch.int8) <= integer_products()
        assert (sums.kind(value) == torch.int8) <= (way == WAYS[0])
    wanted = brute_force(sums, source)
    np.testing.assert_array_equal(found.permute(0, 3, 1, 2).numpy(), wanted)


@pytest.mark.parametrize("weight", [-128, 127])
def test_int8_sums_of_large_fan_in(weight: int) -> None:
    """10**5 synapses of the largest weights: sums beyond 2**30 for the largest values."""
    sums = sums_of(Dense(np.full((3, 100_000), weight)), 100_000)
    for value in (1, 127):
        source = np.full(100_000, value, np.uint8)
        assert summed(sums, source, value) == [100_000 * value * weight] * 3


@pytest.mark.parametrize("strides", [(5, 1), (1, 1), (2, 2), (7, 3)])
def test_strides_that_torch_misreads(strides: tuple[int, int]) -> None:
    """A single row may have any stride; with some of them torch reads beyond the row."""
    sums = sums_of(Dense(np.arange(15).reshape(3, 5)), 5)
    if sums.kind(1) != torch.int8:
        pytest.skip("this processor has no exact int8 products")
    held = torch.zeros(100, dtype=torch.int8)
    row = held.as_strided((1, 1, 5), (5, *strides))
    row.fill_(1)
    assert sums._products(row).tolist() == [[10, 35, 60]]
    single = sums_of(Dense(np.arange(3).reshape(3, 1)), 1)
    column = held.as_strided((1, 5, 1), (5, *strides))
    column.fill_(1)
    assert single._products(column).tolist() == [[0, 1, 2]] * 5


def test_when_int8_products_are_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = integer_products.__wrapped__
    with monkeypatch.context() as patch:
        patch.setattr(dense_sums, "_is_x86", lambda: False)
        assert not probe()
    monkeypatch.delattr(torch, "_int_mm")
    assert not probe()


OLD_PROCESSOR = """
import torch
from snn_deploy.sim.dense_sums import Sums, integer_products
from snn_deploy.graph import Projection
from snn_deploy.synapses import Dense
import numpy as np
ones, weights = torch.ones((17, 64), dtype=torch.int8), torch.full((64, 16), -128).to(torch.int8)
exact = bool((torch._int_mm(ones, weights) == -128 * 64).all())
projection = Projection(source="a", target="b", synapses=Dense(np.full((16, 64), -128)))
sums = Sums(projection, (64,), torch.device("cpu"))
found = sums(torch.ones((17, 1, 1, 64), dtype=torch.uint8), 1)
print(exact, integer_products(), bool((found == -128 * 64).all()))
"""


def test_processors_whose_products_saturate() -> None:
    """oneDNN told to work as on one without VNNI: its int8 products are wrong, and not used."""
    old = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", OLD_PROCESSOR]
    done = subprocess.run(command, cwd=ROOT, env=old, check=True, capture_output=True, text=True)
    exact, used, right = (word == "True" for word in done.stdout.split())
    assert right
    assert used <= exact


@st.composite
def decays(draw: st.DrawFn) -> tuple[NumberFormat, int, Array, Array]:
    """A format, a bound, states within it, and decay fields."""
    rule, bits = draw(st.sampled_from(get_args(DecayRule))), draw(st.integers(1, 12))
    form = replace(GENERIC, decay_rule=rule, decay_bits=bits)
    largest = draw(st.sampled_from((1, 100, 1 << 19, (1 << 23) - 1, (1 << 31) - 1)))
    extreme = st.sampled_from((-largest, -1, 0, 1, largest))
    states = draw(st.lists(st.one_of(extreme, st.integers(-largest, largest)), min_size=1))
    top = 31 if rule == "shift_subtract" else 1 << bits
    field = st.one_of(st.sampled_from((0, top // 2, top)), st.integers(0, top))
    if draw(st.booleans()):
        fields = [draw(field)]
    else:
        fields = draw(st.lists(field, min_size=len(states), max_size=len(states)))
    return form, largest, integers(states), integers(fields)


@settings(max_examples=200)
@given(drawn=decays(), narrow=st.booleans())
def test_decays_in_either_width(
    drawn: tuple[NumberFormat, int, Array, Array], narrow: bool
) -> None:
    form, largest, states, fields = drawn
    proof = Proof(narrow, current=True, membrane=True, largest=largest)
    dtype = torch.int32 if narrow else torch.int64
    decay = Decay(form, fields, proof, lambda value: torch.from_numpy(value).to(dtype))
    state = torch.from_numpy(states).to(dtype)
    found = decay.left(state, torch.empty_like(state))
    wanted = numerics.decayed(states, fields, form.decay_rule, form.decay_bits)
    assert found.dtype == dtype
    assert found.tolist() == wanted.tolist()
    assert state.tolist() == states.tolist()


def test_membranes_at_the_edge_of_32_bits() -> None:
    """What is kept adds up: after 5 timesteps to 2**31 - 64 or less, in int32; beyond, in int64."""
    neurons = Integrator(decay=integers(4096), bias=integers(0), readout="last")
    for weight, narrow in (((1 << 25) // 5 - 1, True), ((1 << 25) // 5 + 1, False)):
        for sign in (-1, 1):
            graph = one_layer(Dense(integers([[sign * weight]])), spike_input(1), neurons)
            proof = proved(GENERIC, graph.populations[0], arriving=64 * weight, drive=0, steps=5)
            assert proof.narrow == narrow
            case = fed_with_spikes(graph, np.ones((2, 5, 1)))
            traces = [case.run(engine) for engine in ("reference", "dense")]
            assert_same(*traces)
            reached = sign * min(5 * 64 * weight, (1 << 31) - 1)
            assert traces[1].output["p"].tolist() == [[reached]] * 2


def test_a_narrow_register_for_wide_sums() -> None:
    """The sum leaves 32 bits before its register of 16 wraps it: 5 is left."""
    graph = one_layer(Dense(integers([[1 << 31, 5]])), spike_input(2), sum_bits=16)
    case = fed_with_spikes(graph, np.ones((1, 1, 2)))
    traced = case.run("dense")
    assert_same(case.run("reference"), traced)
    assert traced.current["p"].tolist() == [[[5 * 64]]]


@st.composite
def populations(draw: st.DrawFn) -> tuple[NumberFormat, LIF, int, int]:
    """A format, neurons, the current of a timestep in weight units, and the number of timesteps."""
    form = draw(narrow_formats(draw(st.sampled_from((12, 24, 30, 32)))))
    top = form.decay_limit
    decay = st.one_of(st.just(top), st.integers(0, top))
    amount = draw(st.integers(1, 1 << 12))
    neurons = LIF(
        decay=integers(draw(decay)),
        current_decay=draw(st.one_of(st.none(), decay.map(integers))),
        threshold=integers(draw(st.integers(0, 1 << 11))),
        bias=integers(draw(st.integers(-255, 255))),
        reset=draw(st.sampled_from((ResetTo(0), ResetTo(-amount), ResetSubtract(amount)))),
    )
    current = draw(st.one_of(st.integers(0, 1 << 10), st.integers(0, 1 << 29)))
    return form, neurons, current, draw(st.integers(1, 40))


@settings(max_examples=150)
@given(drawn=populations(), seed=st.integers(0, 2**32 - 1))
def test_no_number_leaves_what_was_proved(
    drawn: tuple[NumberFormat, LIF, int, int], seed: int
) -> None:
    """Currents of either sign, all at their bound: the reference's states stay in the proof's."""
    form, neurons, current, steps = drawn
    signs = np.random.default_rng(seed).choice((0, 1), (4, steps, 2))
    signs[0], signs[1] = (1, 0), (0, 1)
    weight = integers([[current, -current]])
    graph = one_layer(Dense(weight), spike_input(2), neurons, number_format=form)
    drive = int(abs(neurons.bias)) << form.bias_shift
    arriving = current << form.fraction_bits
    proof = proved(form, graph.populations[0], arriving=2 * arriving, drive=drive, steps=steps)
    case = fed_with_spikes(graph, signs)
    trace = case.run("reference")
    assert_same(trace, case.run("dense"))
    if proof.narrow:
        for states in (trace.membrane["p"], trace.current["p"]):
            assert np.abs(states).max() <= proof.largest


@pytest.mark.parametrize(
    ("form", "neurons", "arriving", "narrow"),
    [
        pytest.param(LOIHI2, lif(decay=2048), 1 << 29, True, id="one turn of the current"),
        pytest.param(LOIHI2, lif(decay=2048), 1 << 31, False, id="a word"),
        pytest.param(
            LOIHI2, lif(current_decay=integers(9)), 1 << 29, False, id="a current that is kept"
        ),
        pytest.param(LOIHI2, lif(current_decay=integers(9)), 1 << 24, True, id="and little"),
        pytest.param(
            GENERIC, lif(threshold=(1 << 31) - 1), 1, False, id="a threshold out of reach"
        ),
        pytest.param(LOIHI2, lif(decay=4097), 1, False, id="a decay that grows"),
        pytest.param(LOIHI2, lif(decay=-1), 1, False, id="a decay that alternates"),
        pytest.param(replace(GENERIC, decay_bits=20), lif(decay=1), 1, False, id="a fine decay"),
    ],
)
def test_when_32_bits_are_enough(
    form: NumberFormat, neurons: LIF, arriving: int, narrow: bool
) -> None:
    found = proved(form, population("p", 1, neurons=neurons), arriving=arriving, drive=0, steps=100)
    assert found.narrow == narrow
    assert narrow or found == NOTHING_PROVED


@pytest.fixture(scope="module")
def _small_blocks() -> Iterator[None]:
    """Blocks of one or two samples and timesteps, patches of one row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "_KEPT_BYTES", 2000)
        patch.setattr(dense, "_NEURONS", 30)
        patch.setattr(dense, "_SUMS", 60)
        patch.setattr(dense_sums, "_PATCH_BYTES", 200)
        yield


@pytest.mark.usefixtures("_small_blocks")
@settings(max_examples=60)
@given(case=integer_cases(), trace=st.booleans())
def test_blocks_make_no_difference(case: Case, trace: bool) -> None:
    timings: tuple[Literal["zero_delay", "pipelined"], ...] = ("zero_delay", "pipelined")
    for timing in timings:
        if stages_of(case.graph, timing) is not None:
            wanted = case.run("reference", timing, trace=trace)
            assert_same(wanted, case.run("dense", timing, trace=trace))


@pytest.mark.usefixtures("_small_blocks")
@settings(max_examples=30)
@given(case=integer_cases())
def test_threads_make_no_difference(case: Case) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_same(case.run("reference"), case.run("dense"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_raised() -> None:
    def failing(first: int) -> None:
        raise MemoryError(first)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(MemoryError):
            dense._share(failing, range(4), CPU, None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


MEMORY = """
import resource
import numpy as np
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.synapses import Conv2d
from tests.helpers.nets import integers, lif, one_layer, spike_input
graph = one_layer(Conv2d(np.full((64, 1, 3, 3), 9), padding=(1, 1)), spike_input(1, 32, 32))
def run(steps):
    spikes = np.ones((1, steps, 1, 32, 32), np.uint8)
    simulate(graph, Recording(spikes={"": spikes}), engine="dense", batch=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(10)
print(run(1000) - before)
"""


def test_untraced_runs_keep_spikes_only() -> None:
    """65536 neurons, 1000 timesteps: a byte each makes 64 MB, a membrane in 32 bits 256 MB more."""
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 150_000  # KB


def test_a_constant_input_is_multiplied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    whole = Sums.__call__

    def counting(sums: Sums, source: torch.Tensor, value: int) -> torch.Tensor:
        rows.append(len(source))
        return whole(sums, source, value)

    monkeypatch.setattr(Sums, "__call__", counting)
    spec = replace(spike_input(4), kind="constant", scale=1.0)
    for form in (LOIHI2, GENERIC):
        graph = one_layer(Dense(np.full((3, 4), 20)), spec, number_format=form)
        rows.clear()
        fed = Recording(values={"": np.ones((2, 4))})
        simulate(graph, fed, engine="dense", steps=7)
        assert rows == [2]


@pytest.mark.parametrize("device", ["nonsense", "meta"])
def test_devices_that_cannot_compute(device: str) -> None:
    graph = one_layer(Dense(np.ones((2, 3), int)), spike_input(3))
    with refused("SD105", device):
        dense.DenseEngine(graph, device)
