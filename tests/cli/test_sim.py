"""``sim`` in all its options: engines, batches, progress, interruptions."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy.cli import progress, run
from snn_deploy.cli.progress import Rates
from snn_deploy.sim import Advance
from tests.cli.workspace import SCRIPT
from tests.helpers.deploy import SHAPE, make_files

SAMPLES = 64
LONG = 30_000
LONG_RUN = ["sim", "build", "--input", "long.npz", "--json"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sim")
    make_files(folder)
    values = np.random.default_rng(0).uniform(0, 16, (LONG, *SHAPE)).astype(np.float32)
    np.savez(folder / "long.npz", values=values, labels=np.arange(LONG) % 3)
    return folder


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    return workspace


def result(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert run(["sim", "build", "--input", "images.npz", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_engines_threads_and_batches_change_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = result(capsys)
    assert auto.pop("engine") == "event"
    assert "an integer network" in auto.pop("engine_reason")
    for options in (
        ["--engine", "event", "--threads", "1"],
        ["--engine", "event", "--threads", "3", "--batch", "5"],
        ["--engine", "reference", "--batch", "1"],
        ["--engine", "dense"],
    ):
        other = result(capsys, *options)
        assert other.pop("engine") == options[1]
        assert other.pop("engine_reason") == "asked for"
        assert other == auto
    assert run(["sim", "build", "--input", "images.npz"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "engine event (an integer network: work is done only where spikes arrive)" in said


@pytest.mark.parametrize("option", ["--threads 0", "--batch 0", "--threads x", "--engine spam"])
def test_wrong_numbers(option: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "build", "--input", "images.npz", *option.split()]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: Invalid value")


# --- progress -------------------------------------------------------------------------------------


def test_lines_of_progress(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert run(["sim", "build", "--input", "images.npz", "--batch", "16"]) == 0
    lines = [n for n in capsys.readouterr().err.splitlines() if n.startswith("simulate: ")]
    assert [line.split(",")[:2] for line in lines] == [
        [f"simulate: {done} of {SAMPLES} samples", f" {100 * done // SAMPLES}%"]
        for done in (16, 32, 48)  # the result itself says that all are done
    ]
    for line in lines[1:]:
        assert " samples/s, " in line
        assert " events/s, " in line
        assert line.endswith(" left")


def test_rates_are_those_after_the_first_word() -> None:
    """20 samples in 4 seconds, whatever came before."""
    rates = Rates()
    first = Advance(samples=10, of_samples=110, timesteps=40, of_timesteps=440, events=1_000)
    assert rates.text(first, 110.0, left=True) == "10 of 110 samples, 9%"
    later = Advance(samples=30, of_samples=110, timesteps=120, of_timesteps=440, events=9_000)
    assert rates.text(later, 114.0, left=True) == (
        "30 of 110 samples, 27%, 5 samples/s, 2,000 events/s, 0:00:16 left"
    )
    assert rates.text(later, 114.0, left=False).endswith("2,000 events/s")


def test_a_long_sample_grows_too() -> None:
    rates = Rates()
    whole = {"of_samples": 1, "of_timesteps": 1_000_000}
    rates.text(Advance(samples=0, timesteps=250_000, events=0, **whole), 1.0, left=True)
    half = Advance(samples=0, timesteps=500_000, events=10**9, **whole)
    assert rates.text(half, 3.0, left=True) == (
        "0 of 1 samples, 50%, 0.1 samples/s, 500,000,000 events/s, 0:00:04 left"
    )


def test_a_bar_on_a_terminal(here: Path) -> None:
    ours, theirs = pty.openpty()
    command = [str(SCRIPT), "sim", "build", "--input", "images.npz", "--batch", "16", "--json"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=True, env=environment
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert json.loads(done.stdout)["samples"] == SAMPLES
    assert b"simulate" in said
    assert b"64 of 64 samples, 100%" in said
    assert b"events/s" in said


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on(
    how: signal.Signals, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the same bytes; anything else is refused, and the journal stays."""
    output, partial = here / f"{how.name}.csv", here / f"{how.name}.csv.partial"
    command = [*LONG_RUN, "--output", output.name]
    running = subprocess.Popen(
        [str(SCRIPT), *command, "--batch", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not partial.exists():
        assert running.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    running.send_signal(how)
    out, err = running.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    assert not output.exists()
    assert running.returncode == (130 if how is signal.SIGINT else -how)

    kept = partial.read_bytes()
    for options, why in (
        ([], "an interrupted run is in the way"),
        (["--resume", "--timing", "pipelined"], "the interrupted run was of another timing"),
        (["--resume", "--input", "images.npz"], "the interrupted run was of another recording"),
    ):
        assert run([*command, *options]) == 2
        assert f"error[SD104]: {why}" in capsys.readouterr().err
    assert partial.read_bytes() == kept

    assert run([*command, "--resume"]) == 0
    resumed = capsys.readouterr()
    (said,) = (n for n in resumed.err.splitlines() if n.startswith("resumed after "))
    done = int(said.split()[2])
    assert 0 < done < LONG
    if how is signal.SIGINT:
        told = f"interrupted after {done} of {LONG} samples; --resume goes on from there"
        assert err.splitlines()[-1] == told
    assert not partial.exists()
    assert run([*LONG_RUN, "--output", "whole.csv"]) == 0
    assert capsys.readouterr().out == resumed.out
    assert output.read_bytes() == (here / "whole.csv").read_bytes()


def test_nothing_to_resume(here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["sim", "build", "--input", "images.npz"]
    output = str(tmp_path / "p.csv")
    assert run([*command, "--resume", "--output", output]) == 0
    assert "nothing to resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    for wrong in ([], ["--output", output, "--trace", str(tmp_path / "t.npz")]):
        assert run([*command, "--resume", *wrong]) == 2
        assert "error[SD104]: only a run with --output" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
