"""Interrupted runs, gone on with, end as uninterrupted ones do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from snn_deploy.journal import Journal
from snn_deploy.packet_files import open_recording
from snn_deploy.sim import EngineName, Simulator, Trace, resuming
from snn_deploy.sim.resuming import Interrupted, ResumableRun
from snn_deploy.synapses import Dense
from tests.helpers.graphs import Case, float_cases, integer_cases
from tests.helpers.nets import fed_with_spikes, one_layer, spike_input
from tests.helpers.refusals import refused
from tests.property.test_engines import assert_same


class Run:
    """One case, as a recording in a file, run by parts."""

    def __init__(self, case: Case, folder: Path, engine: EngineName = "event") -> None:
        self.case, self.simulator = case, Simulator(case.graph, engine, threads=1)
        self.recording, self.journal = folder / "recording.npz", folder / "journal"
        np.savez(self.recording, **case.recording.arrays())  # type: ignore[arg-type]
        self.journal.unlink(missing_ok=True)

    def __call__(self, stop_at: int | None = None, **options: Any) -> Trace:
        """Run to the end, or be interrupted when so many samples have been run."""

        def progress(run: Any) -> None:
            if stop_at is not None and run.samples >= stop_at:
                raise KeyboardInterrupt

        case = self.case
        given: dict[str, Any] = {
            "resume": True,
            "steps": case.steps,
            "reset_interval": case.reset_interval,
            "reset_offset": case.reset_offset,
            "batch": 1,
            "progress": progress,
            **options,
        }
        with open_recording(self.recording) as data:
            made = ResumableRun(self.simulator, data, self.journal, **given)
            with made as run:
                found = run.run()
                run.finish()
        return found


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["each batch is kept", "only at the end"])
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=integer_cases(), stop_at=st.integers(1, 4), batch=st.integers(1, 3), cut=st.integers(0))
def test_resumed_is_uninterrupted(
    seconds: float,
    case: Case,
    stop_at: int,
    batch: int,
    cut: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted at any batch, then perhaps killed at any byte, then gone on with."""
    monkeypatch.setattr(resuming, "_SECONDS", seconds)
    run = Run(case, tmp_path)
    whole = case.run("reference", trace=False)
    samples = whole.record.samples
    if stop_at <= samples:
        with pytest.raises(Interrupted, match=f"of {samples} samples") as caught:
            run(stop_at)
        # the batch that was told of when Ctrl-C came was not handed over yet
        assert caught.value.done == stop_at - 1
        assert run.journal.exists() == (stop_at > 1)
    if run.journal.exists():
        content = run.journal.read_bytes()
        with Journal.resume(run.journal, run_identity(run)) as journal:
            header = journal._begin
        length = header + cut % (len(content) - header + 1)
        run.journal.write_bytes(content[:length])
        event(f"cut off: {length < len(content)}")
    assert_same(run(batch=batch), whole)
    assert not run.journal.exists()


def run_identity(run: Run) -> Any:
    case = run.case
    with open_recording(run.recording) as data:
        options: Any = {"reset_interval": case.reset_interval, "reset_offset": case.reset_offset}
        steps = {"steps": case.steps, "resume": True, **options}
        return ResumableRun(run.simulator, data, run.journal.with_name("none"), **steps)._identity


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=float_cases())
def test_floats(case: Case, tmp_path: Path) -> None:
    run = Run(case, tmp_path, "reference")
    whole = run(resume=False)
    if whole.record.samples > 1:
        with pytest.raises(Interrupted):
            run(2)
        event("interrupted")
        with refused("SD104", "another batch"):
            run(batch=2)
    assert_same(run(), whole)


def layer(weight: int = 3) -> Case:
    spikes = np.random.default_rng(0).random((4, 6, 5)) < 0.5
    return fed_with_spikes(one_layer(Dense(np.full((2, 5), weight)), spike_input(5)), spikes)


def test_the_layer_fires() -> None:
    assert 0 < layer().run("reference").spikes["p"].mean() < 1


def interrupted(folder: Path) -> Run:
    run = Run(layer(), folder)
    with pytest.raises(Interrupted):
        run(3)
    return run


def test_another_run_is_refused(tmp_path: Path) -> None:
    run = interrupted(tmp_path)
    kept = run.journal.read_bytes()
    for options, named in (
        ({"steps": 5}, "number of steps"),
        ({"timing": "pipelined"}, "timing"),
        ({"reset_interval": 2}, "reset interval"),
        ({"reset_interval": 2, "reset_offset": 1}, "reset interval, reset offset"),
    ):
        with refused("SD104", f"of another {named}"):
            run(**options)
    for case, named in (
        (layer(4), "network"),
        (replace(layer(), recording=layer().recording.head(3)), "recording"),
    ):
        other = Run(case, tmp_path / named_folder(tmp_path, named))
        other.journal.write_bytes(kept)
        with refused("SD104", f"of another {named}"):
            other()
        assert other.journal.read_bytes() == kept
    with refused("SD104", "in the way"):
        run(resume=False)
    with refused("SD104", "traces"):
        run(trace=True)
    assert run.journal.read_bytes() == kept
    assert_same(run(), layer().run("reference", trace=False))


def named_folder(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


def test_a_journal_of_something_else(tmp_path: Path) -> None:
    """With the right header, but arrays that this network does not leave behind."""
    run = interrupted(tmp_path)
    identity = run_identity(run)
    with Journal.resume(run.journal, identity) as journal:
        good, *_ = list(journal.parts())
    bad: list[dict[str, Any]] = [
        {"first": np.array(0)},
        {k: v for k, v in good.items() if k != "output.p"},
        {**good, "more.p": np.zeros(1)},
        {**good, "spikes.p": np.zeros(3, np.int64)},
        {**good, "output.p": good["output.p"].astype(float)},
        {**good, "updates.p": np.zeros(5, np.int64)},
        {k: v[:0] if v.ndim and len(v) == 2 and k != "spikes.p" else v for k, v in good.items()},
    ]
    for arrays in bad:
        run.journal.unlink()
        with Journal.begin(run.journal, identity) as journal:
            journal.append(arrays)
        with refused("SD401", "cannot be read"):
            run()


def test_a_part_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    run = interrupted(tmp_path)
    with Journal.resume(run.journal, run_identity(run)) as journal:
        parts = list(journal.parts())
        journal.append(parts[-1])
    assert_same(run(), layer().run("reference", trace=False))


def test_a_finished_run_whose_output_was_not_written(tmp_path: Path) -> None:
    run = Run(layer(), tmp_path)
    with (
        open_recording(run.recording) as data,
        ResumableRun(run.simulator, data, run.journal, resume=False, batch=1) as first,
    ):
        whole = first.run()
    with (
        open_recording(run.recording) as data,
        ResumableRun(run.simulator, data, run.journal, resume=True, batch=1) as again,
    ):
        assert again.done == again.samples == 4
        assert_same(again.run(), whole)


def test_a_recording_that_turns_out_bad_leaves_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "_SECONDS", 0.0)
    spikes = np.zeros((4, 6, 5), np.uint8)
    spikes[3, 5, 4] = 2
    case = replace(layer(), recording=replace(layer().recording, spikes={"": spikes}))
    run = Run(case, tmp_path)
    with refused("SD106", "0 or 1"):
        run()
    assert not run.journal.exists()
