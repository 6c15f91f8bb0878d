"""Calibration: rows against the reference's sums, statistics and corrections against plain runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import LIF, Graph, Projection
from snn_deploy.hardware import target
from snn_deploy.nn.architecture import Architecture
from snn_deploy.packets import Recording
from snn_deploy.quantization import inputs as inputs_module
from snn_deploy.quantization import prove_ranges, quantize
from snn_deploy.quantization.calibration import gathered_weights, spread_weights, statistics
from snn_deploy.quantization.inputs import arriving, run_batches, synaptic_rows
from snn_deploy.quantization.isolation import feed, isolated
from snn_deploy.quantization.moments import measure
from snn_deploy.quantization.scales import float_weights
from snn_deploy.sim import simulate
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import Conv2d
from tests.helpers.graphs import Case, float_cases, integer_cases
from tests.helpers.refusals import refused
from tests.helpers.spiking import architecture, architectures, every_kind, random_input, settled

Array = NDArray[Any]


def groups_of(projection: Projection) -> int:
    return projection.synapses.groups if isinstance(projection.synapses, Conv2d) else 1


def rows_and_sums(graph: Graph) -> Iterator[tuple[Projection, Array, Array]]:
    """Every projection with the rows of a random source, and the reference's sums of it."""
    rng = np.random.default_rng(0)
    for projection in graph.projections:
        shape = graph.shape_of(projection.source)
        source = rng.integers(0, 3, (4, *shape)).astype(np.float64)
        yield (
            projection,
            synaptic_rows(projection, shape, source),
            synaptic_sum(projection, shape, source),
        )


@given(case=float_cases())
def test_a_kernel_times_a_row_is_the_synaptic_sum(case: Case) -> None:
    for projection, rows, expected in rows_and_sums(case.graph):
        weight = projection.synapses.weight
        kernels = weight.reshape(groups_of(projection), -1, rows.shape[-1])
        sums = np.einsum("npgk,gck->ngcp", rows, kernels)
        assert np.allclose(sums.reshape(expected.shape), expected, rtol=1e-12, atol=1e-12)


@given(case=float_cases())
def test_spread_weights_say_the_same_over_all_columns(case: Case) -> None:
    for projection, rows, expected in rows_and_sums(case.graph):
        weight = projection.synapses.weight
        full = spread_weights(projection, weight)
        sums = rows.reshape(*rows.shape[:2], -1) @ full.T
        flat = sums.transpose(0, 2, 1).reshape(expected.shape)
        assert np.allclose(flat, expected, rtol=1e-12, atol=1e-12)
        marks = weight > 0
        back = gathered_weights(projection, spread_weights(projection, marks) > 0)
        assert np.array_equal(back, marks)


def plain_currents(graph: Graph, name: str, trace: Any, given_inputs: dict[str, Array]) -> Array:
    """Synaptic sums of a float graph with their delays, by the reference's sum."""
    total: Any = 0.0
    for projection in graph.incoming(name):
        shape, delay = graph.shape_of(projection.source), projection.longest_delay
        sent = given_inputs.get(projection.source, trace.spikes.get(projection.source))
        late = np.zeros(sent.shape)
        late[:, delay:] = sent[:, : max(sent.shape[1] - delay, 0)]
        total = total + synaptic_sum(projection, shape, late)
    return np.asarray(total)


@settings(max_examples=25)
@given(case=float_cases(), batch=st.sampled_from((1, 1 << 20)))
def test_rows_of_a_run_make_its_currents(case: Case, batch: int) -> None:
    """Delays, constants and recurrence: rows give the currents of the trace, batch by batch."""
    graph = case.graph
    steps = graph.timesteps
    if steps is None or any(p.shortest_delay != p.longest_delay for p in graph.projections):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs_module, "_BATCH_VALUES", batch)
        batches = list(run_batches(graph, case.recording))
    trace = simulate(graph, case.recording, engine="reference", trace=True)
    for population in graph.populations:
        if population.neurons.current_decay is not None:
            continue  # its current remembers
        found = []
        for one in batches:
            total: Any = 0.0
            for projection in graph.incoming(population.name):
                rows = arriving(graph, projection, one)
                weight = spread_weights(projection, projection.synapses.weight)
                total = total + rows.reshape(*rows.shape[:3], -1) @ weight.T
            found.append(total.transpose(0, 1, 3, 2).reshape(*total.shape[:2], *population.shape))
        assert np.allclose(np.concatenate(found), trace.current[population.name], atol=1e-9)


@settings(max_examples=40)
@given(case=integer_cases())
def test_an_isolated_population_is_itself(case: Case) -> None:
    """Fed what it was fed in the network, a population does what it did there."""
    graph = case.graph
    named = Recording(
        spikes={(k or graph.inputs[0].name): v for k, v in case.recording.spikes.items()},
        values={(k or graph.inputs[0].name): v for k, v in case.recording.values.items()},
    )
    whole = simulate(graph, named, engine="reference", steps=case.steps, trace=True)
    for population in graph.populations:
        alone = isolated(graph, population.name)
        fed = feed(alone, named, whole.spikes)
        alone = replace(alone, timesteps=None)  # the run may be shorter or longer than the graph's
        found = simulate(alone, fed, engine="reference", steps=case.steps, trace=True)
        for part in ("spikes", "membrane", "current"):
            mine, theirs = getattr(found, part), getattr(whole, part)
            if population.name in theirs:
                assert np.array_equal(mine[population.name], theirs[population.name])


def test_moments_are_those_of_the_spikes() -> None:
    graph = freeze(every_kind(1))
    recording = Recording(values={"": np.random.default_rng(0).uniform(0, 1, (6, 2, 7, 7))})
    found = measure(graph, recording)
    trace = simulate(graph, recording, engine="reference", trace=True)
    (output,) = graph.incoming(graph.outputs[0])
    sent = trace.spikes[output.source].reshape(-1, output.synapses.weight.shape[1])
    expected = (sent.sum(axis=0) + 0.5) / (len(sent) + 1)
    assert np.allclose(found.of(graph, output), expected[None])


def error_of(graph: Graph, integer: Graph, name: str, recording: Recording) -> Array:
    """Errors of the currents with bias, in float units: [samples, steps, *shape]."""
    form, population = integer.number_format, integer.population(name)
    assert form is not None
    exact = simulate(graph, recording, engine="reference", trace=True)
    found = simulate(integer, recording, engine="reference", trace=True)
    scale = np.asarray(population.scale) / 2.0**form.fraction_bits
    bias = population.neurons.bias * 2.0**form.bias_shift
    mine = (found.current[name] + bias) * scale
    return np.asarray(mine - exact.current[name] - graph.population(name).neurons.bias)


NETS = st.integers(0, 2**16)


def net(seed: int, kind: str = "constant") -> tuple[Graph, Recording]:
    layers: list[dict[str, Any]] = [
        {"type": "conv", "channels": 6, "kernel": 3, "padding": 1, "bias": True}, {"type": "lif"},
        {"type": "residual", "layers": [
            {"type": "conv", "channels": 6, "kernel": 3, "padding": 1}, {"type": "lif"},
            {"type": "conv", "channels": 6, "kernel": 3, "padding": 1}, {"type": "batchnorm"}],
         "shortcut": []}, {"type": "lif"},
        {"type": "avgpool", "kernel": 2}, {"type": "flatten"}, {"type": "linear", "features": 4},
    ]  # fmt: skip
    described = architecture(layers, (2, 6, 6), kind=kind)
    graph = freeze(settled(described, seed))
    return graph, random_input(described, np.random.default_rng(seed), 12)


@settings(max_examples=6)
@given(seed=NETS, chip=st.sampled_from(("generic", "loihi2")), bits=st.sampled_from((3, 4, 8)))
def test_learned_rounding_errs_less_in_each_layer(seed: int, chip: str, bits: int) -> None:
    """On its own inputs every layer's squared error is at most that of nearest rounding."""
    graph, recording = net(seed)
    options: dict[str, Any] = {"bits": bits, "clipping": "mse", "calibration": recording}
    learned = quantize(graph, chip, rounding="learned", **options)
    nearest = quantize(graph, chip, **options)
    assert [p.scale for p in learned.populations] == [p.scale for p in nearest.populations]
    checks.check_integer(learned)
    prove_ranges(learned)
    for population in learned.populations:
        name = population.name
        # the layers before as they are, this one rounded to nearest
        own = {p.name: p for p in nearest.incoming(name)}
        other = replace(learned, projections=tuple(own.get(p.name, p) for p in learned.projections))
        found, plain = ((error_of(graph, g, name, recording) ** 2).mean() for g in (learned, other))
        host = any(learned.on_host(p) for p in learned.incoming(name))
        assert found <= plain * (1 + 1e-9) or host
        for projection in learned.incoming(name):
            change = projection.synapses.weight.astype(int) - own[projection.name].synapses.weight
            step = learned.number_format.weight_step if learned.number_format else 1
            assert np.abs(change).max() <= step
            exact = next(p for p in graph.projections if p.name == projection.name)
            distance = np.abs(float_weights(learned, projection) - exact.synapses.weight)
            inside = np.abs(projection.synapses.weight) < np.abs(projection.synapses.weight).max()
            unit = np.abs(
                float_weights(learned, replace(projection, synapses=replace(
                    projection.synapses, weight=np.ones_like(exact.synapses.weight))))
            )  # fmt: skip
            assert (distance <= unit * step * (1 + 1e-9))[inside].all()


@settings(max_examples=6)
@given(seed=NETS, rounding=st.sampled_from(("nearest", "learned")))
def test_a_corrected_bias_leaves_no_mean_error(seed: int, rounding: str) -> None:
    graph, recording = net(seed)
    for chip in ("generic", "loihi2"):
        integer = quantize(
            graph, chip, bits=4, correction=True, rounding=rounding, calibration=recording
        )
        form = integer.number_format
        assert form is not None
        for population in integer.populations:
            if any(integer.on_host(p) for p in integer.incoming(population.name)):
                continue  # the host's sum is rounded once more
            error = error_of(graph, integer, population.name, recording)
            mean = error.mean(axis=(0, 1, *range(3, error.ndim)))
            step = np.asarray(population.scale).reshape(-1)
            step = step * 2.0 ** (form.bias_shift - form.fraction_bits)
            assert (np.abs(mean) <= step / 2 * (1 + 1e-6)).all()


def test_a_corrected_threshold_flips_no_more_slots_in_its_layer() -> None:
    for seed in range(3):
        graph, recording = net(seed)
        integer = quantize(graph, "generic", bits=3, correction=True, calibration=recording)
        exact = simulate(graph, recording, engine="reference", trace=True)
        moved = 0
        for population in integer.spiking():
            name = population.name
            before = graph.population(name).neurons
            assert isinstance(before, LIF)
            assert isinstance(population.neurons, LIF)
            level = before.threshold * 64 / np.asarray(population.scale)
            threshold = np.ceil(level).astype(np.int64)
            plain = replace(
                integer,
                populations=tuple(
                    replace(p, neurons=replace(population.neurons, threshold=threshold))
                    if p.name == name else p
                    for p in integer.populations
                ),
            )  # fmt: skip
            found, other = (
                (simulate(g, recording, trace=True).spikes[name] != exact.spikes[name]).sum(
                    axis=(0, 1, 3, 4)
                )
                for g in (integer, plain)
            )
            assert (found <= other).all()
            moved += int((population.neurons.threshold != threshold).sum())
        assert moved


@settings(max_examples=15)
@given(described=architectures(), seed=NETS, chip=st.sampled_from(("generic", "loihi2")))
def test_every_kind_of_network_can_be_calibrated(
    described: Architecture, seed: int, chip: str
) -> None:
    graph = freeze(settled(described, seed))
    recording = random_input(described, np.random.default_rng(seed), 5)
    options: dict[str, Any] = {"bits": 4, "clipping": "mse", "calibration": recording}
    try:
        integer = quantize(graph, chip, rounding="learned", correction=True, **options)
    except SnnDeployError as error:
        assert error.code in ("SD202", "SD203")  # noqa: PT017
        event(error.code)
        return
    event("calibrated")
    again = quantize(graph, chip, rounding="learned", correction=True, **options)
    checks.check_integer(integer)
    for one, other in zip(integer.projections, again.projections, strict=True):
        assert np.array_equal(one.synapses.weight, other.synapses.weight)


@settings(max_examples=5)
@given(seed=NETS)
def test_what_is_learned_fits_where_the_registers_are_tight(seed: int) -> None:
    """The range proof limits the scale, and holds for whatever rounding is chosen later."""
    graph, recording = net(seed)
    form = replace(target("generic").require_format(), membrane_bits=22)
    chip = replace(target("generic"), number_format=form)
    options: dict[str, Any] = {"bits": 8, "clipping": "max"}
    learned = quantize(graph, chip, rounding="learned", calibration=recording, **options)
    prove_ranges(learned)
    wide = quantize(graph, "generic", **options)
    tight = [
        p.name
        for p, q in zip(learned.populations, wide.populations, strict=True)
        if np.max(p.scale) > np.max(q.scale) * (1 + 1e-9)
    ]
    assert tight


def test_delays_per_synapse_are_refused() -> None:
    graph, recording = net(0, kind="spikes")
    (last,) = graph.incoming(graph.outputs[0])
    shape = last.synapses.weight.shape
    delayed = replace(last, delay=np.arange(np.prod(shape)).reshape(shape) % 2, pool=None)
    source = graph.population(last.source)
    if last.pool is not None or shape[1] != source.size:
        weight = np.ones((shape[0], source.size)) / source.size
        delayed = replace(
            delayed, synapses=replace(last.synapses, weight=weight),
            delay=np.arange(weight.size).reshape(weight.shape) % 2,
        )  # fmt: skip
    graph = replace(
        graph, projections=tuple(delayed if p is last else p for p in graph.projections)
    )
    with refused("SD104", "delays of their own"):
        quantize(graph, "generic", rounding="learned", calibration=recording)
    quantize(graph, "generic", clipping="mse", calibration=recording)  # these are assumed


def test_statistics_by_hand() -> None:
    """Of the readout, whose rows are the spikes before it as they are."""
    graph, recording = net(3)
    integer = quantize(graph, "generic", bits=4)
    name = graph.outputs[0]
    seen = statistics(graph, integer, name, recording)
    (projection,) = integer.incoming(name)
    found = simulate(integer, recording, engine="reference", trace=True)
    exact = simulate(graph, recording, engine="reference", trace=True)
    shape = integer.shape_of(projection.source)
    rows = synaptic_rows(
        projection, shape, found.spikes[projection.source].reshape(-1, *shape).astype(float)
    )[:, 0, 0]
    wanted = exact.current[name].reshape(len(rows), -1) + (
        graph.population(name).neurons.bias
        - integer.population(name).neurons.bias * np.asarray(integer.population(name).scale) / 64
    )
    assert np.allclose(seen.gram, rows.T @ rows / len(rows))
    assert np.allclose(seen.cross, wanted.T @ rows / len(rows))
    assert np.allclose(seen.mean, rows.mean(axis=0))
    assert np.allclose(seen.wanted, wanted.mean(axis=0))
