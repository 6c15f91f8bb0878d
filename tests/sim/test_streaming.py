"""Long runs: cut in time, read piece by piece, in bounded memory; the same as whole ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from snn_deploy.graph import Graph, Integrator, Projection
from snn_deploy.packet_files import open_recording
from snn_deploy.packet_layout import pack_bits
from snn_deploy.sim import Advance, Simulator, Trace, simulator
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Dense
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import LOIHI2, Case, integer_cases
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


def options(case: Case, **more: Any) -> dict[str, Any]:
    return {
        "steps": case.steps,
        "reset_interval": case.reset_interval,
        "reset_offset": case.reset_offset,
        **more,
    }


@settings(max_examples=150)
@given(
    case=integer_cases(),
    size=st.sampled_from((1, 50, 300, 1000)),
    timing=st.sampled_from(("zero_delay", "pipelined")),
    trace=st.booleans(),
)
def test_runs_cut_in_time_are_whole_runs(
    case: Case, size: int, timing: Timing, trace: bool
) -> None:
    """Graphs with delays, loops, resets, constant input and every readout."""
    if stages_of(case.graph, timing) is None:
        return
    whole = case.run("reference", timing, trace=trace)
    told: list[Advance] = []
    given = options(case, timing=timing, trace=trace, progress=told.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator, "_BATCH_BYTES", size)
        cut = Simulator(case.graph, "event").run(case.recording, **given)
    assert_same(whole, cut)
    samples = cut.record.samples
    event("cut in time" if len(told) > samples else "whole samples")
    assert told[-1].samples == told[-1].of_samples == samples
    assert told[-1].timesteps == told[-1].of_timesteps == samples * case.steps
    order = [(run.samples, run.timesteps, run.events) for run in told]
    assert order == sorted(order)
    spikes = (p.name for p in case.graph.projections if not case.graph.is_constant(p))
    assert told[-1].events == sum(int(whole.record.events[name].sum()) for name in spikes)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=integer_cases(),
    size=st.sampled_from((50, 300, 1 << 20)),
    packed=st.booleans(),
    compressed=st.booleans(),
    start=st.integers(0, 2),
)
def test_recordings_in_files_run_as_those_in_memory(
    case: Case, size: int, packed: bool, compressed: bool, start: int, tmp_path: Path
) -> None:
    arrays = case.recording.arrays()
    for spec in case.graph.inputs:
        for key in ("spikes", f"{spec.name}.spikes"):
            if spec.kind == "spikes" and packed and key in arrays:
                made = pack_bits(arrays.pop(key), len(spec.shape))
                arrays |= {f"{key}.{part}": array for part, array in made.items()}
    path = tmp_path / "recording.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    start = min(start, case.recording.samples - 1)
    part = case.recording.part(start, case.recording.samples)
    wanted = Case(case.graph, part, case.steps, case.reset_interval, case.reset_offset)
    with pytest.MonkeyPatch.context() as patch, open_recording(path) as stored:
        patch.setattr(simulator, "_BATCH_BYTES", size)
        runs = Simulator(case.graph).batches(stored, start=start, **options(case, batch=2))
        assert_same(Trace.joined(runs), wanted.run("reference", trace=False))


@pytest.mark.parametrize(
    ("value", "code"), [(2, "SD106"), (-1, "SD106"), (0.5, "SD106"), (np.nan, "SD403")]
)
def test_what_is_wrong_at_the_end_of_a_file_comes_to_light(
    value: float, code: str, tmp_path: Path
) -> None:
    """After the samples before it have been run."""
    spikes = np.zeros((3, 4, 5), np.float32)
    spikes[2, 3, 4] = value
    np.savez(tmp_path / "r.npz", spikes=spikes)
    graph = one_layer(Dense(np.full((2, 5), 3)), spike_input(5))
    with open_recording(tmp_path / "r.npz") as stored:
        runs = Simulator(graph).batches(stored, batch=1)
        next(runs)
        next(runs)
        with refused(code):
            next(runs)


def test_silence_where_the_recording_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in pieces that begin after its end."""
    graph = one_layer(Dense(np.full((2, 5), 3)), spike_input(5), delay=2)
    case = fed_with_spikes(graph, np.ones((2, 3, 5)))
    whole = Case(graph, case.recording, steps=12).run("reference", trace=False)
    assert whole.record.timesteps == 12
    assert whole.record.sample_spikes["p"].min() > 0
    np.savez(tmp_path / "r.npz", spikes=case.recording.spikes[""])
    monkeypatch.setattr(simulator, "_BATCH_BYTES", 1)  # one step at a time
    for recording in (case.recording, open_recording(tmp_path / "r.npz")):
        assert_same(Simulator(graph).run(recording, steps=12), whole)


# --- memory ---------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from snn_deploy import Simulator, open_recording
from snn_deploy.sim import simulator
from tests.sim.test_streaming import perceptron

simulator._BATCH_BYTES = int(sys.argv[1])
run = Simulator(perceptron(), threads=1)
for path in sys.argv[2:]:
    with open_recording(path) as stored:
        record = run.run(stored).record
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(record.timesteps, int(record.inputs["in"].sum()), 1024 * int(peak))
"""


def perceptron() -> Graph:
    """784-128-10."""
    rng = np.random.default_rng(0)
    neurons = Integrator(decay=integers(0), bias=integers(0), readout="sum")
    weights = [2 * rng.integers(-60, 61, shape) for shape in ((128, 784), (10, 128))]
    return Graph(
        inputs=(spike_input(784),),
        populations=(
            population("hidden", 128, neurons=lif(decay=3900, threshold=500)),
            population("out", 10, neurons=neurons),
        ),
        projections=(
            Projection(source="in", target="hidden", synapses=Dense(weights[0])),
            Projection(source="hidden", target="out", synapses=Dense(weights[1])),
        ),
        outputs=("out",),
        number_format=LOIHI2,
    )


def peaks(folder: Path, budget: int, *lengths: int) -> list[int]:
    """Peak memory in bytes of a process after it has run packed rasters of so many timesteps."""
    paths, spikes = [], []
    rng = np.random.default_rng(0)
    for steps in lengths:
        packed = rng.integers(0, 256, (4, 1, steps, 98), np.uint8)
        packed = np.bitwise_and.reduce(packed)  # one in sixteen
        spikes.append(sum(int(((packed >> bit) & 1).sum()) for bit in range(8)))
        paths.append(str(folder / f"{steps}.npz"))
        np.savez(paths[-1], **{"spikes.packed": packed, "spikes.shape": np.array([784])})
    command = [sys.executable, "-c", MEASURE, str(budget), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = [[int(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert [(steps, sent) for steps, sent, _ in found] == list(zip(lengths, spikes, strict=True))
    return [peak for *_, peak in found]


LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


@LINUX
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """The longer raster alone would take 78 MB unpacked, 10 MB packed."""
    short, long = peaks(tmp_path, 4 << 20, 10_000, 100_000)
    assert long - short < 4 << 20


@LINUX
@pytest.mark.slow
def test_a_million_timesteps_within_500_megabytes(tmp_path: Path) -> None:
    (peak,) = peaks(tmp_path, simulator._BATCH_BYTES, 1_000_000)
    assert peak < 500_000_000
