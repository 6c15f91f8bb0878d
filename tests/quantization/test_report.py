"""The report, against plain loops; and its way into the manifest and past the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from snn_deploy import export, save
from snn_deploy.artefacts import open_artefact
from snn_deploy.cli import run
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.graph import Graph
from snn_deploy.nn.architecture import Architecture
from snn_deploy.packets import Recording, write_npz
from snn_deploy.quantization import quantization_report, quantize
from snn_deploy.quantization.scales import float_weights
from snn_deploy.sim import simulate
from snn_deploy.synapses import Dense
from tests.helpers.deploy import small_net, small_recording
from tests.helpers.refusals import refused
from tests.helpers.spiking import architectures, every_kind, random_input, settled


def retraced(graph: Graph, integer: Graph, name: str, recording: Recording) -> int:
    """Slots that flip when all other populations do exactly what the float network does.

    Their neurons are replaced by the float network's spikes, one timestep at a time: a graph with
    the population alone is not built.
    """
    from snn_deploy.graph import LIF
    from snn_deploy.numerics import decayed, limit, rounding_shift_right
    from snn_deploy.sim.reference import synaptic_sum

    form = integer.number_format
    assert form is not None
    exact = simulate(graph, recording, engine="reference", trace=True)
    neurons = integer.population(name).neurons
    assert isinstance(neurons, LIF)
    wanted = exact.spikes[name]
    membrane = np.zeros((len(wanted), *wanted.shape[2:]), np.int64)
    current = np.zeros_like(membrane)
    flipped = 0
    for step in range(wanted.shape[1]):
        host = np.zeros_like(membrane)
        arriving = np.zeros_like(membrane)
        for projection in integer.incoming(name):
            then = step - projection.longest_delay
            source, shape = projection.source, integer.shape_of(projection.source)
            if integer.is_input(source):
                spec = integer.input(source)
                if spec.always_fires:
                    if then < 0:
                        continue
                    sent = np.ones((len(wanted), *shape), np.int64)
                elif spec.kind == "constant":
                    sent = spec.encode(recording.values[""])
                elif then >= 0:
                    sent = recording.spikes[""][:, then]
                else:
                    continue
            elif then >= 0:
                sent = exact.spikes[source][:, then]
            else:
                continue
            total = synaptic_sum(projection, shape, sent)
            if integer.on_host(projection):
                host = host + rounding_shift_right(total, -projection.exponent)
            else:
                arriving = arriving + (total << projection.exponent + form.fraction_bits)
        if neurons.current_decay is not None:
            arriving = arriving + decayed(
                current, neurons.current_decay, form.decay_rule, form.decay_bits
            )
        current = limit(arriving, form.current_overflow, form.membrane_bits)
        bias = (np.broadcast_to(neurons.bias, membrane.shape[1:]) + host) << form.bias_shift
        membrane = decayed(
            membrane, np.asarray(neurons.decay), form.decay_rule, form.decay_bits
        ) + current + bias  # fmt: skip
        threshold = neurons.threshold.astype(np.int64) << form.threshold_shift
        fired = membrane > threshold if form.comparator == ">" else membrane >= threshold
        flipped += int((fired != wanted[:, step]).sum())
        amount = getattr(neurons.reset, "amount", None)
        membrane = np.where(fired, 0, membrane) if amount is None else membrane - fired * amount
    return flipped


@settings(max_examples=40)
@given(
    described=architectures(), seed=st.integers(0, 2**16),
    chip=st.sampled_from(("generic", "loihi2")), bits=st.sampled_from((3, 4, 8)),
)  # fmt: skip
def test_every_figure(described: Architecture, seed: int, chip: str, bits: int) -> None:
    graph = freeze(settled(described, seed))
    recording = random_input(described, np.random.default_rng(seed), 6)
    try:
        integer = quantize(graph, chip, bits=bits)
    except SnnDeployError as error:
        event(error.code)
        return
    event("compared")
    found = quantization_report(graph, integer, recording)
    exact = simulate(graph, recording, engine="reference", trace=True)
    rounded = simulate(integer, recording, engine="reference", trace=True)
    assert found.samples == 6
    assert found.agreeing == (exact.decisions() == rounded.decisions()).sum()
    assert list(found.populations) == [p.name for p in graph.populations]
    for name, one in found.populations.items():
        signal = noise = 0.0
        weights = 0
        for old, new in zip(graph.incoming(name), integer.incoming(name), strict=True):
            error = float_weights(integer, new) - old.synapses.weight
            signal += (old.synapses.weight**2).sum()
            noise += (error**2).sum()
            weights += error.size
        assert one.weights == weights
        if one.weight_sqnr is not None:
            assert one.weight_sqnr == pytest.approx(10 * np.log10(signal / noise))
        if name not in exact.spikes:
            assert (one.slots, one.cascaded, one.isolated) == (None, None, None)
            continue
        assert one.slots == exact.spikes[name].size
        assert one.float_rate == pytest.approx(exact.spikes[name].mean())
        assert one.integer_rate == pytest.approx(rounded.spikes[name].mean())
        assert one.cascaded == (exact.spikes[name] != rounded.spikes[name]).sum()
        assert one.isolated == retraced(graph, integer, name, recording)


def test_clipped_weights_are_counted() -> None:
    graph = freeze(every_kind(0))
    recording = Recording(values={"": np.random.default_rng(0).uniform(0, 1, (4, 2, 7, 7))})
    last = graph.incoming(graph.outputs[0])[0]
    weight = last.synapses.weight.copy()
    weight.flat[:3] = np.array([50, -50, 40]) * np.abs(weight).max()
    heavy = replace(
        graph,
        projections=tuple(
            replace(p, synapses=Dense(weight)) if p is last else p for p in graph.projections
        ),
    )
    scale = {graph.outputs[0]: 127 / np.abs(weight.flat[3:]).max()}
    few = quantize(heavy, "generic", clipping="mse", scales=scale)
    # a projection with an exponent needs no clipping: take the exponent away
    (projection,) = few.incoming(graph.outputs[0])
    clipped = np.clip(np.rint(weight * scale[graph.outputs[0]]), -127, 127).astype(np.int64)
    plain = replace(
        few,
        projections=tuple(
            replace(p, exponent=0, synapses=Dense(clipped)) if p is projection else p
            for p in few.projections
        ),
    )
    found = quantization_report(heavy, plain, recording).populations
    assert found[graph.outputs[0]].clipped == 3
    assert sum(p.clipped for p in found.values()) == 3


def test_an_exact_network_has_no_noise() -> None:
    """Weights, thresholds and decays that are on the grid: nothing flips, nothing is lost."""
    graph = freeze(every_kind(0))
    integer = quantize(graph, "generic", bits=16)
    snapped = replace(
        graph,
        projections=tuple(
            replace(p, synapses=replace(p.synapses, weight=float_weights(integer, p)))
            for p in integer.projections
        ),
    )
    snapped = replace(
        snapped, projections=tuple(replace(p, exponent=0) for p in snapped.projections)
    )
    recording = Recording(values={"": np.random.default_rng(0).uniform(0, 1, (4, 2, 7, 7))})
    found = quantization_report(snapped, integer, recording)
    assert all(p.weight_sqnr is None and p.clipped == 0 for p in found.populations.values())


def test_graphs_of_two_networks_are_refused() -> None:
    graph = freeze(small_net())
    integer = quantize(graph, "generic")
    recording = small_recording(2)
    for one, other in ((graph, graph), (integer, integer), (freeze(every_kind()), integer)):
        with refused("SD408", "not a float graph"):
            quantization_report(one, other, recording)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(small_net(), folder / "model.pt", example=small_recording(4))
    write_npz(folder / "seen.npz", small_recording(16).arrays())
    return folder


OPTIONS: tuple[str, ...] = (
    "--bits", "4", "--granularity", "channel", "--rounding", "learned", "--correct",
)  # fmt: skip


def test_the_manifest_says_how_it_was_quantized(model: Path, tmp_path: Path) -> None:
    """From the command line and from Python: the same bytes."""
    command = ["export", str(model / "model.pt"), "--target", "generic", *OPTIONS]
    command += ["--calibration", str(model / "seen.npz"), "-o", str(tmp_path / "a"), "--json"]
    assert run(command) == 0
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    configuration = manifest["configuration"]
    assert configuration.pop("calibration")["samples"] == 16
    assert configuration == {
        "timesteps": 3, "formats": ["nir"], "bits": 4, "granularity": "channel",
        "clipping": "mse", "rounding": "learned", "correction": True, "dialect": "portable",
    }  # fmt: skip
    table = manifest["proof"]["quantization"]
    assert table["samples"] == 4
    names = [p["name"] for p in manifest["populations"]]
    assert sorted(table["populations"]) == sorted(names)
    scales = [p["scale"] for p in manifest["populations"]]
    assert [len(s) if isinstance(s, list) else 1 for s in scales] == [4, 5, 1]
    options: dict[str, Any] = {"bits": 4, "granularity": "channel", "rounding": "learned"}
    export(
        model / "model.pt", "generic", tmp_path / "b", calibration=model / "seen.npz",
        correction=True, **options,
    )  # fmt: skip
    for file in ("model.nir", "manifest.json", "recorded.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    opened = open_artefact(tmp_path / "a").graph
    for population, scale in zip(opened.populations, scales, strict=True):
        assert np.ravel(population.scale).tolist() == np.ravel(scale).tolist()


def test_the_table_of_an_export_says_what_was_lost(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(model / "model.pt"), "--target", "generic", *OPTIONS[:4]]
    assert run([*command, "-o", str(tmp_path / "a")]) == 0
    output = capsys.readouterr().out
    assert "weights of 4 bits" in output
    assert "dB" in output


def test_what_makes_no_sense_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, code in (
        (["--rounding", "learned"], "SD104"),
        (["--correct"], "SD104"),
        (["--calibration", str(model / "seen.npz")], "SD104"),
        (["--bits", "17"], "SD104"),
        (["--calibration", str(model / "nothing.npz"), "--correct"], "SD101"),
    ):
        command = ["export", str(model / "model.pt"), "--target", "generic", *options]
        assert run([*command, "-o", str(tmp_path / "a")]) == 2
        assert code in capsys.readouterr().err
        assert not (tmp_path / "a").exists()
