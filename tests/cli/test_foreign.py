"""Other people's .net files on the command line: what is in them, replayed, priced, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy import inspect, open_artefact, simulate
from snn_deploy.cli import run
from snn_deploy.packets import read_recording
from tests.cli.test_errors import USAGE, check
from tests.cli.workspace import contents, snn_deploy
from tests.helpers.deploy import make_files
from tests.helpers.netx_files import conv, dense, neuron, neurons_only, write_netx

SAMPLES, STEPS, IMAGE = 6, 5, (1, 4, 5)
NOTE = "layer {} (conv): its delays are ignored, as netx ignores them"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``their.net``, ``silent.net`` (does not say its shape), ``biased.net``; and recordings."""
    folder = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(0)
    neurons = neuron(current_decay=1000, membrane_decay=500, threshold=60)
    kernel = 2 * rng.integers(-20, 30, (2, 1, 3, 3))
    layers = [
        {"type": "input", "shape": IMAGE},
        conv(kernel, IMAGE[1:], neuron=neurons, bias=[3, -4], delay=[1, 0]),
        {"type": "flatten"},
        dense(2 * rng.integers(-40, 60, (3, 12))),
    ]
    write_netx(folder / "their.net", layers)
    write_netx(folder / "silent.net", layers[1:])
    write_netx(folder / "biased.net", [neurons_only((2,)), dense([[4, -2], [6, -8]])])
    write_netx(folder / "pool.net", [*layers, {"type": "pool", "shape": (1,)}])
    (folder / "cut.net").write_bytes((folder / "their.net").read_bytes()[:3000])
    (folder / "text.net").write_text("text\n")
    (folder / "folder.net").mkdir()
    spikes = (rng.random((SAMPLES, STEPS, *IMAGE)) < 0.4).astype(np.uint8)
    np.savez(folder / "spikes.npz", spikes=spikes, labels=np.arange(SAMPLES) % 3)
    np.savez(folder / "one.npz", spikes=spikes[0])
    np.savez(folder / "graded.npz", values=rng.integers(-255, 256, spikes.shape))
    np.savez(folder / "flat.npz", spikes=spikes.reshape(SAMPLES, STEPS, -1))
    np.savez(folder / "bias.npz", values=rng.integers(-300, 300, (4, 2)))
    make_files(folder)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def said(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """What a command that succeeds prints, and what it says to people."""
    assert run(command.split()) == 0
    out, err = capsys.readouterr()
    return out, err.splitlines()


def as_json(command: str, capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(said(f"{command} --json", capsys)[0])


# --- inspect --------------------------------------------------------------------------------------


def test_inspect(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said("inspect their.net", capsys)
    rows = [line.split() for line in out.splitlines()]
    assert ["0", "current-based", "LIF", "2x2x3", "12", "3096", "3596", "60", "-4..3", "1"] in rows
    assert ["1", "LIF", "3", "3", "-", "0", "64", "0", "2"] in rows
    # 2 channels of 2 x 3 windows of 9 pixels; 3 neurons that each see 12
    assert ["input->0", "conv2d", "18", "108"] in [[*row[:3], *row[-1:]] for row in rows]
    assert ["0->1", "dense", "36", "36"] in [[*row[:3], *row[-1:]] for row in rows]
    assert "input input: spikes, 1x4x5" in out
    assert "output 1; timesteps: as the input" in out
    assert f"note: {NOTE.format(1)}" in out


def test_inspect_as_json_says_what_the_library_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json("inspect their.net", capsys)
    record = inspect("their.net")
    assert found["path"] == "their.net"
    assert found["notes"] == list(record.notes) == [NOTE.format(1)]
    assert found["inputs"] == [{"name": "input", "kind": "spikes", "shape": list(IMAGE)}]
    for mine, theirs in zip(found["populations"], record.populations, strict=True):
        assert (mine["name"], mine["stage"]) == (theirs.name, theirs.stage)
        assert (tuple(mine["shape"]), tuple(mine["bias"])) == (theirs.shape, theirs.bias)
    assert [p["synapses"] for p in found["projections"]] == [108, 36]
    assert (found["outputs"], found["timesteps"]) == (["1"], None)


def test_inspect_what_must_be_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "inspect silent.net --input-shape 1,4,5 --input-bits 8"
    (spec,) = as_json(command, capsys)["inputs"]
    assert spec == {"name": "input", "kind": "graded", "shape": list(IMAGE)}


def test_inspect_an_exported_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("build", "build/model.nir"):
        found = as_json(f"inspect {what}", capsys)
        graph = open_artefact(what).graph
        assert [p["name"] for p in found["populations"]] == [p.name for p in graph.populations]
        assert found["timesteps"] == graph.timesteps


# --- sim ------------------------------------------------------------------------------------------


def test_raw_timesteps_of_a_pipelined_chip(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.npz"
    options = "--timing pipelined --steps 9 --reset-interval 4 --reset-offset 1"
    command = f"sim their.net --input spikes.npz {options} --trace {trace}"
    out, err = said(command, capsys)
    assert err == [f"note: {NOTE.format(1)}"]
    assert f"wrote {trace}" in out
    expected = simulate(
        open_artefact("their.net").graph,
        read_recording("spikes.npz"),
        engine="reference",
        timing="pipelined",
        steps=9,
        reset_interval=4,
        reset_offset=1,
        trace=True,
    )
    shapes = {"0": (SAMPLES, 9, 2, 2, 3), "1": (SAMPLES, 9, 3)}
    with np.load(trace) as found:
        assert found.keys() == {
            "0.spikes", "0.current", "0.membrane", "1.spikes", "1.current", "1.membrane", "output",
        }  # fmt: skip
        for part in ("spikes", "current", "membrane"):
            for name, shape in shapes.items():
                value = found[f"{name}.{part}"]
                assert value.shape == shape
                assert value.dtype == (np.bool_ if part == "spikes" else np.int64)
                np.testing.assert_array_equal(value, getattr(expected, part)[name])
        spikes = found["1.spikes"]
        np.testing.assert_array_equal(found["output"], spikes.sum(axis=1))
        # a hop each
        assert not found["0.current"][:, 0].any()
        assert not spikes[:, 0].any()
    result = as_json(command, capsys)
    assert (result["samples"], result["timesteps"]) == (SAMPLES, 9)
    assert result["decisions"] == spikes.sum(axis=1).argmax(axis=1).tolist()
    events = [p["accumulates"] for p in result["projections"]]
    assert f"{sum(events):,} accumulates" in out
    assert events == [int(expected.record.events[n].sum()) for n in ("input->0", "0->1")]


def test_every_option_changes_what_happens(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the last test would not see an option that nothing reads."""
    commands = [
        "--timing pipelined --steps 9 --reset-interval 4 --reset-offset 1",
        "--timing pipelined --steps 9 --reset-interval 4 --reset-offset 2",
        "--timing pipelined --steps 9 --reset-interval 3 --reset-offset 1",
        "--timing pipelined --steps 9",
        "--timing pipelined",
        "--timing zero-delay",
    ]
    results = [as_json(f"sim their.net --input spikes.npz {c}", capsys) for c in commands]
    seen = {json.dumps(result["populations"]) for result in results}
    assert len(seen) == len(commands)
    assert [result["timesteps"] for result in results] == [9, 9, 9, 9, STEPS, STEPS]


def test_engines_agree_on_a_foreign_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "sim their.net --input spikes.npz --timing pipelined --engine"
    results = [as_json(f"{command} {engine}", capsys) for engine in ("event", "reference")]
    assert [result.pop("engine") for result in results] == ["event", "reference"]
    assert results[0] == results[1]


def test_a_single_sample(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = as_json("sim their.net --input spikes.npz", capsys)
    one = as_json("sim their.net --input one.npz", capsys)
    assert (one["samples"], one["accuracy"]) == (1, None)
    assert one["decisions"] == whole["decisions"][:1]


def test_graded_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json("sim their.net --input graded.npz --input-bits 8", capsys)
    first, second = result["projections"]
    assert (first["accumulates"], second["multiply_accumulates"]) == (0, 0)
    # one per weight of every window, value and timestep
    assert first["multiply_accumulates"] == SAMPLES * STEPS * 108


def test_the_shape_of_the_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = as_json("sim silent.net --input spikes.npz --input-shape 1,4,5", capsys)
    assert told == as_json("sim their.net --input spikes.npz", capsys)
    assert told == as_json("sim their.net --input spikes.npz --input-shape 1,4,5", capsys)


def test_biases(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json("sim biased.net --input bias.npz --steps 3", capsys)
    with np.load("bias.npz") as file:
        fired = file["values"] > 64  # nothing is kept
    spikes = {p["name"]: p["spikes"] for p in result["populations"]}
    assert spikes["0"] == 3 * fired.sum() > 0
    assert result["samples"] == 4


# --- energy ---------------------------------------------------------------------------------------


def test_energy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = as_json("energy their.net --input spikes.npz --profile cmos45", capsys)
    counts = as_json("sim their.net --input spikes.npz", capsys)
    operations = {
        layer["name"]: layer["operations"]["synaptic_operation"] for layer in report["layers"]
    }
    accumulates = [p["accumulates"] / SAMPLES for p in counts["projections"]]
    assert list(operations.values()) == pytest.approx(accumulates)
    assert report["total_picojoules"]["nominal"] == pytest.approx(0.9 * sum(accumulates))
    out, err = said("energy their.net --input spikes.npz --profile cmos45", capsys)
    assert err == [f"note: {NOTE.format(1)}"]
    assert "ANN twin     144 MAC" in out  # 18 weights of 6 windows, and 36


def test_energy_of_what_must_be_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = as_json("energy their.net --input spikes.npz --profile cmos45", capsys)
    command = "energy silent.net --input spikes.npz --profile cmos45 --input-shape 1,4,5"
    assert as_json(command, capsys) == plain
    longer = as_json("energy biased.net --input bias.npz --profile cmos45 --steps 6", capsys)
    shorter = as_json("energy biased.net --input bias.npz --profile cmos45 --steps 3", capsys)
    total = shorter["total_picojoules"]["nominal"]
    assert longer["total_picojoules"]["nominal"] == pytest.approx(2 * total)


# --- refused --------------------------------------------------------------------------------------

SIM = "sim their.net --input spikes.npz"
CASES = {
    # the file
    "inspect none.net": ("SD101", "no such file"),
    "inspect folder.net": ("SD404", "no manifest"),
    "inspect cut.net": ("SD401", "not a readable HDF5 file"),
    "inspect text.net": ("SD401", "not a readable HDF5 file"),
    "inspect pool.net": ("SD204", "layer 4 (pool)"),
    "inspect spikes.npz": ("SD105", ".net"),
    "inspect silent.net": ("SD103", "--input-shape C,H,W"),
    "inspect": (USAGE, "FOLDER_OR_FILE"),
    "sim cut.net --input spikes.npz": ("SD401", "cut.net"),
    "sim silent.net --input spikes.npz": ("SD103", "--input-shape C,H,W"),
    "energy pool.net --input spikes.npz --profile cmos45": ("SD204", "layer 4 (pool)"),
    "verify their.net": ("SD104", "not a single file"),
    # what it is fed
    "sim their.net --input graded.npz": ("SD103", "wants `spikes`"),
    "sim their.net --input flat.npz": ("SD103", "(N, T, 1, 4, 5)"),
    "sim their.net --input graded.npz --input-bits 7": ("SD106", "[-127.0, 127.0]"),
    "sim biased.net --input bias.npz": ("SD103", "number of timesteps"),
    "energy biased.net --input bias.npz --profile cmos45": ("SD103", "number of timesteps"),
    # options that do not fit each other, or the file
    f"{SIM} --reset-offset 1": ("SD104", "needs a reset interval"),
    f"{SIM} --input-shape 1,5,4": ("SD104", "(1, 4, 5), not (1, 5, 4)"),
    f"{SIM} --input-shape 20": ("SD104", "(1, 4, 5), not (20,)"),
    "sim silent.net --input spikes.npz --input-shape 20": ("SD204", "a vector of 20"),
    "sim silent.net --input spikes.npz --input-shape 2,4,5": ("SD204", "source of shape (2, 4, 5)"),
    "sim biased.net --input bias.npz --steps 3 --input-bits 8": ("SD104", "driven by biases"),
    "sim build --input images.npz --input-bits 8": ("SD104", "says itself how it is read"),
    "sim build --input images.npz --input-shape 1,6,6": ("SD104", "says itself how it is read"),
    "inspect build/model.nir --input-bits 8": ("SD104", "says itself how it is read"),
    "energy build --input images.npz --profile cmos45 --input-bits 1": (
        "SD104",
        "says itself how it is read",
    ),
    # options that are none
    f"{SIM} --timing spam": (USAGE, "zero-delay"),
    f"{SIM} --timing": (USAGE, "--timing"),
    f"{SIM} --steps 0": (USAGE, "--steps"),
    f"{SIM} --steps spam": (USAGE, "--steps"),
    f"{SIM} --reset-interval 0": (USAGE, "--reset-interval"),
    f"{SIM} --reset-interval 3 --reset-offset -1": (USAGE, "--reset-offset"),
    f"{SIM} --input-bits -1": (USAGE, "--input-bits"),
    f"{SIM} --input-bits 32": (USAGE, "--input-bits"),
    **{
        f"inspect silent.net --input-shape {shape}": (USAGE, "is no shape: C,H,W or N")
        for shape in ("1x4x5", "1,4", "1,4,5,6", "1,4,", "0,4,5", "1,-4,5", "1.0,4,5", ",", "spam")
    },
}


@pytest.mark.parametrize("command", CASES)
def test_one_message_and_nothing_left_behind(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(here)
    exit_code = run([*command.split(), *(["--trace", "new.npz"] if "sim" in command else [])])
    out, err = capsys.readouterr()
    code, text = CASES[command]
    check(code, exit_code, out, err)
    assert text in err
    assert contents(here) == before


def test_as_installed(folder: Path) -> None:
    done = snn_deploy("inspect", "their.net", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "current-based LIF" in done.stdout
    done = snn_deploy("inspect", "silent.net", "--input-shape", "1,2", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'1,2' is no shape: C,H,W or N" in done.stderr
