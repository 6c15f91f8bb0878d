"""``snn-deploy targets``: what is known of chips, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snn_deploy.cli import run
from snn_deploy.hardware import LIMITS, OPERATIONS, Target, available, target
from snn_deploy.reporting import plain

MINE = """
[chip]
id = "[/mine]"
name = "Mine"
vendor = "me"
summary = "a chip"
notes = ["[1] is no markup"]

[energy.packet]
value = 2.5
unit = "nJ"
source = "[2] [/me]"
evidence = "measured"
scope = "all_in"
"""


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines on stdout, with words apart by single spaces."""
    assert run(["targets", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [" ".join(line.split()) for line in out.splitlines()]


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["targets", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def unset(lines: list[str], kind: str) -> list[str]:
    """What a listing says is unset, by the names of the file."""
    head = f"unset {kind}: "
    found = [line.removeprefix(head) for line in lines if line.startswith(head)]
    assert len(found) <= 1
    return found[0].replace(" ", "_").split(",_") if found else []


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys)
    for chip in available():
        (line,) = (line for line in lines if line.split(" ")[:1] == [chip.id])
        words = line.split(" ")
        assert words[1] == ("-" if chip.number_format is None else "yes")
        assert words[2] == (str(len(chip.energy)) if chip.energy else "unset")
        for row in chip.energy.values():
            assert row.evidence.replace("_", " ") in line
        assert not chip.limits or str(len(chip.limits)) in words[3:]
    assert as_json(capsys) == plain(available())


@pytest.mark.parametrize("chip", available(), ids=lambda chip: chip.id)
def test_one_chip(chip: Target, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, chip.id)
    assert lines[0] == f"{chip.name} ({chip.vendor}): {chip.summary}"
    for name, row in chip.energy.items():
        low, high = ("-" if v is None else f"{v:g}" for v in (row.low, row.high))
        start = f"{name.replace('_', ' ')} {row.value:g} "
        (line,) = (line for line in lines if line.startswith(start))
        assert f" {low} {high} {row.scope.replace('_', ' ')} " in line
        assert row.evidence.replace("_", " ") in line
    for name, limit in chip.limits.items():
        start = f"{name.replace('_', ' ')} {(limit.per_core or (limit.value,))[0]:,}"
        (line,) = (line for line in lines if line.startswith(start))
        assert f" {limit.kind} {limit.evidence.replace('_', ' ')} " in line
    assert [line for line in lines if line.startswith("note ")] == [
        f"note {note}" for note in chip.notes
    ]
    all_in = any(row.scope == "all_in" for row in chip.energy.values())
    expected = [] if all_in else [name for name in OPERATIONS if name not in chip.energy]
    assert unset(lines, "energy") == expected
    assert unset(lines, "limits") == [name for name in LIMITS if name not in chip.limits]
    assert as_json(capsys, chip.id) == plain((chip,))


def test_structure_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "loihi1-davies2018", "truenorth")
    (loihi, truenorth) = (line for line in lines if line.startswith("structure "))
    assert "shares weights yes, convolution yes, recurrence yes, graded input no" in loihi
    assert truenorth.startswith("structure shares weights no, convolution no (Merolla")
    (first, second) = (line for line in lines if line.startswith("unset structure: "))
    assert first == "unset structure: bit exact"
    assert second == "unset structure: recurrence, graded input, soft reset, bit exact"
    # all of TrueNorth's power is inside its figure: it is not unset
    assert [line for line in lines if line.startswith("unset static")] == [
        "unset static: watts per core, timestep seconds"
    ]
    assert "timestep seconds 0.001 s vendor Merolla et al., Science 345:668, 2014" in lines
    assert "board_watts / chips with board_watts 3.34, chips 32" in " ".join(lines)


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    lines = said(capsys, str(path))
    assert lines[1] == "[/mine]: energies"
    assert "packet 2.5 nJ - - all in measured [2] [/me]" in lines
    assert lines[-1] == "note [1] is no markup"
    assert as_json(capsys, str(path), "generic") == plain((target(str(path)), target("generic")))


@pytest.mark.parametrize(
    ("spoilt", "where", "what"),
    [
        ("value = 2.5\n", "[energy.packet]", "`value` is missing"),
        ('unit = "nJ"', "[energy.packet]", "`unit` is missing"),
        ("[energy.packet]", "mine.toml", "unknown key 'evidence'"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(
    spoilt: str, where: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(spoilt, ""))
    assert run(["targets", str(path)]) == 2
    out, err = capsys.readouterr()
    first, place, *rest = err.splitlines()
    assert out == ""
    assert first == f"error[SD104]: {what}"
    assert str(path) in place
    assert where in place
    assert rest[-1].startswith("  = fix: ")
