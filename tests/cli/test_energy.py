"""``energy`` on the command line: chips side by side, explanations, conventions, gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snn_deploy import open_artefact, read_recording, simulate
from snn_deploy.cli import run
from snn_deploy.counting import conventions
from snn_deploy.energy_model import CAVEAT
from snn_deploy.hardware import available, target
from snn_deploy.mapping import place
from snn_deploy.reporting import joules
from tests.helpers.deploy import TIMESTEPS, make_files

ENERGY = "energy build --input images.npz"
OWN = """
[chip]
id = "mine"
name = "Mine"
vendor = "me"
summary = "a chip"

[energy.synaptic_operation]
value = 2.0
unit = "pJ"
source = "measured by me"
evidence = "measured"
scope = "per_term"
"""
NARROW = """
[limits.neurons_per_core]
value = 256
kind = "wall"
source = "measured by me"
evidence = "measured"

[limits.fan_in]
value = 3
kind = "wall"
source = "measured by me"
evidence = "measured"
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("energy")
    make_files(folder)
    (folder / "mine.toml").write_text(OWN)
    (folder / "narrow.toml").write_text(OWN + NARROW)
    return folder


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    return workspace


def said(options: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    assert run([*ENERGY.split(), *options.split()]) == code
    found = capsys.readouterr()
    return found.out, found.err


def as_json(options: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    return json.loads(said(f"{options} --json", capsys, code)[0])


def lines_of(out: str, word: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(word)]


@pytest.mark.usefixtures("here")
def test_one_chip_is_an_object_several_are_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    one = as_json("--profile cmos45", capsys)
    twice = as_json("--profile cmos45 --profile cmos45", capsys)
    two = as_json("--profile cmos45 --profile mine.toml", capsys)
    assert one == twice == two[0]
    assert [r["profile"] for r in two] == ["cmos45", "mine"]


@pytest.mark.usefixtures("here")
def test_all_profiles_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said("--profile all --profile mine.toml", capsys)
    reports = as_json("--profile all --profile mine.toml", capsys)
    assert [r["profile"] for r in reports] == [*(chip.id for chip in available()), "mine"]
    for report in reports:
        (line,) = [x for x in out.splitlines() if x.split()[:1] == [report["profile"]]]
        total = report["total_picojoules"]
        shown = joules(total and total["nominal"])
        assert shown in line
        unset = [x for x in lines_of(out, "not priced") if x.split()[2] == f"{report['profile']}:"]
        assert bool(unset) == bool(report["unpriced"])
    assert len(lines_of(out, "caveat")) == 1
    assert CAVEAT in out
    assert "…" not in out


@pytest.mark.usefixtures("here")
def test_explain_shows_every_product(capsys: pytest.CaptureFixture[str]) -> None:
    short, _ = said("--profile loihi1-sanafe --host-profile cmos45", capsys)
    out, _ = said("--profile loihi1-sanafe --host-profile cmos45 --explain", capsys)
    assert out.startswith(short)
    report = as_json("--profile loihi1-sanafe --host-profile cmos45", capsys)
    rows = [line.split() for line in out[len(short) :].splitlines()]
    for layer in report["layers"]:
        for cost in layer["costs"]:
            words = [layer["name"], *cost["what"].split(), *cost["operation"].split("_")]
            found = [row for row in rows if row[: len(words)] == words]
            assert len(found) == bool(cost["count"])
            for row in found:
                assert float(row[len(words)].replace(",", "")) == pytest.approx(cost["count"])
                if cost["picojoules"]:
                    nominal = joules(cost["picojoules"]["nominal"])
                    assert nominal in " ".join(row)
    assert f"sum on the chip  {joules(report['total_picojoules']['nominal'])}, " in out
    assert f"sum on the host  {joules(report['host']['picojoules']['nominal'])}" in out
    sources = {row["source"] for row in report["figures"].values()}
    assert sources <= {s for s in sources if s in out}
    assert "access_pj + update_pj with access_pj = 51.2, update_pj = 21.6" in out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", conventions())
def test_conventions_are_named_with_their_switches(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"--profile cmos45 --convention {name}"
    (line,) = lines_of(said(options, capsys)[0], "counted by")
    assert line == f"counted by   {conventions()[name]().switches()}"
    assert as_json(options, capsys)["convention"]["name"] == name


@pytest.mark.usefixtures("here")
def test_first_layer_overrides_the_conventions(capsys: pytest.CaptureFixture[str]) -> None:
    def products(options: str) -> float:
        report = as_json(f"--profile cmos45 {options}", capsys)
        return float(sum(x["operations"]["multiply_accumulate"] for x in report["layers"]))

    once, each = products(""), products("--first-layer per-timestep")
    assert (products("--first-layer once"), each) == (once, TIMESTEPS * once)
    dspike, once_too = products("--convention dspike"), products(
        "--convention dspike --first-layer once"
    )  # fmt: skip
    assert dspike == TIMESTEPS * once_too


@pytest.mark.usefixtures("here")
def test_static_energy_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    without = as_json("--profile loihi1-davies2018", capsys)
    assert without["static"] == []
    report = as_json("--profile loihi1-davies2018 --seconds-per-step 0.001", capsys)
    (static,) = report["static"]
    assert static["seconds"] == pytest.approx(TIMESTEPS * 0.001)
    assert report["total_picojoules"]["nominal"] == pytest.approx(
        without["total_picojoules"]["nominal"] + static["watts"] * TIMESTEPS * 1e9
    )
    out, _ = said("--profile loihi1-davies2018 --seconds-per-step 0.001", capsys)
    (line,) = lines_of(out, "static")
    assert "on 1 chip, one at least: not placed" in line


@pytest.mark.usefixtures("here")
def test_place_counts_messages(capsys: pytest.CaptureFixture[str]) -> None:
    """What is sent between cores is what `place` says of the replayed spikes."""
    without = as_json("--profile loihi1-sanafe", capsys)
    report = as_json("--profile loihi1-sanafe --place", capsys)
    assert "message_out" in without["uncounted"]
    graph, recording = open_artefact("build").graph, read_recording("images.npz")
    record = simulate(graph, recording).record
    placement = place(graph, target("loihi1-sanafe"))
    assert (report["cores"], report["chips"]) == (placement.cores, placement.chips)
    sent = placement.messages(record)
    assert sum(messages["message_out"] for messages in sent.values()) > 0
    routing = 0.0
    for layer in report["layers"]:
        for operation, number in sent.get(layer["name"], {}).items():
            assert layer["operations"][operation] == number / record.samples
            figure = report["figures"].get(operation)
            routing += number / record.samples * figure["value"] if figure else 0.0
    assert set(sent) <= {layer["name"] for layer in report["layers"]}
    assert report["parts"]["routing"]["nominal"] == pytest.approx(routing, rel=1e-12)
    added = report["total_picojoules"]["nominal"] - without["total_picojoules"]["nominal"]
    assert added == pytest.approx(routing, rel=1e-6)


@pytest.mark.usefixtures("here")
def test_place_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """Alone it is refused; among others, the report says so and goes on."""
    out, err = said("--profile narrow.toml --place", capsys, 3)
    assert (out, err.split(":")[0]) == ("", "error[SD208]")
    out, _ = said("--profile narrow.toml --profile loihi1-sanafe --place", capsys)
    narrow, fits = as_json("--profile narrow.toml --profile loihi1-sanafe --place", capsys)
    assert f"not placed   mine: {narrow['unplaced']}" in out
    assert (narrow["cores"], fits["unplaced"]) == (None, None)
    assert f"error[SD208]: {narrow['unplaced']}\n" in err
    assert said("--profile cmos45 --place", capsys, 3)[1].startswith("error[SD209]")


# --- gates ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_gate(capsys: pytest.CaptureFixture[str]) -> None:
    report, (whole, _) = as_json("--profile cmos45", capsys), said("--profile cmos45", capsys)
    taken = report["total_picojoules"]["nominal"]
    for unit, size in (("pJ", 1.0), ("nJ", 1e3), ("uJ", 1e6), ("mJ", 1e9), ("J", 1e12)):
        enough, little = (f"{share * taken / size!r}{unit}" for share in (1.001, 0.999))
        assert said(f"--profile cmos45 --max-energy {enough}", capsys) == (whole, "")
        out, err = said(f"--profile cmos45 --max-energy {little}", capsys, 1)
        assert err.startswith("error[SD302]: not within ")
        assert f"cmos45 takes {taken:,.1f} pJ" in err
        assert out == whole  # the report is still written
    assert as_json("--profile cmos45 --max-energy 1pJ", capsys, 1) == report


@pytest.mark.usefixtures("here")
def test_gate_needs_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert "loihi2 has no figure for" in said("--profile loihi2 --max-energy 1J", capsys, 1)[1]
    lonely = "--profile loihi1-davies2018 --max-energy 1J"
    assert "no figure for multiply accumulate" in said(lonely, capsys, 1)[1]
    assert said(f"{lonely} --host-profile cmos45", capsys)[1] == ""
    several = f"{lonely} --host-profile cmos45 --profile cmos45"
    assert said(several, capsys)[1] == ""
    assert said(f"{several} --profile loihi2", capsys, 1)[1].count(" has no figure ") == 1


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "options",
    [
        "--max-energy 3",
        "--max-energy 0pJ",
        "--max-energy -1pJ",
        "--max-energy 1kJ",
        "--max-energy nanpJ",
        "--max-energy 1e999J",
        "--max-energy 1e+-2J",
        "--seconds-per-step 0",
        "--seconds-per-step nan",
        "--seconds-per-step inf",
        "--convention spam",
        "--profile spam",
    ],
)
def test_wrong_options(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(f"--profile cmos45 {options}", capsys, 2)
    assert out == ""
    assert "Traceback" not in err
    assert err
