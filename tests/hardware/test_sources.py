"""SOURCES.md against the profiles: every value, and how far its source was followed."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from snn_deploy.hardware import Target, available
from tests.hardware.provenance import COMPUTED, FOLLOWED, rows, sourced

PAGE = resources.files("snn_deploy.hw_profiles").joinpath("SOURCES.md").read_text("utf-8")
HEAD = "| key | value | evidence | source | followed |\n|---|---|---|---|---|\n"
# Least and largest figures that are computed: of value and unit as they are printed.
COMPUTED_ENDS = {
    ("cmos45-int8", "energy.multiply_accumulate high"): 0.2 + 0.1,
    ("seneca", "energy.synaptic_operation high"): 3.7 + 3.7 + 1.4 + 3.9,
    ("spinnaker2", "energy.multiply_accumulate high"): 2 / 2.06,
}


def lines(chip: str) -> list[str]:
    """The rows of the table of one chip."""
    found = re.findall(rf"^### {re.escape(chip)}\n\n{re.escape(HEAD)}((?:\|.*\n)*)$", PAGE, re.M)
    assert len(found) <= 1
    return found[0].splitlines() if found else []


def followed(line: str) -> str:
    return line.removesuffix(" |").rsplit(" | ", 1)[1]


@pytest.mark.parametrize("chip", available(), ids=lambda chip: chip.id)
def test_every_value_stands_there(chip: Target) -> None:
    printed = lines(chip.id)
    expected = list(rows(chip))
    assert [line.count("|") for line in printed] == [6] * len(expected)
    for row, line in zip(expected, printed, strict=True):
        how = followed(line)
        assert how in (*FOLLOWED, *COMPUTED)
        assert line == row.line(how)


def test_nothing_else_stands_there() -> None:
    headings = re.findall(r"^### (.*)$", PAGE, re.M)
    assert headings == [chip.id for chip in available() if any(True for _ in rows(chip))]
    assert PAGE.count(HEAD) == len(headings)


@pytest.mark.parametrize("chip", available(), ids=lambda chip: chip.id)
def test_what_is_computed_says_so(chip: Target) -> None:
    derived = {key for key, row in sourced(chip) if row.evidence == "derived"}
    ends = {key for name, key in COMPUTED_ENDS if name == chip.id}
    printed = {
        row.key
        for row, line in zip(rows(chip), lines(chip.id), strict=True)
        if followed(line) in COMPUTED
    }
    assert printed == derived | ends


@pytest.mark.parametrize(("chip", "key"), COMPUTED_ENDS)
def test_computed_ends(chip: str, key: str) -> None:
    (line,) = (line for line in lines(chip) if line.startswith(f"| {key} |"))
    value = float(line.split(" | ")[1].split(" ")[0])
    assert value == float(f"{COMPUTED_ENDS[chip, key]:.3g}")


def test_number_formats_stand_there() -> None:
    section = PAGE.partition("## Number formats")[2]
    named = set(re.findall(r"^\| ([a-z0-9-]+) \|", section, re.M)) - {"profile"}
    assert named == {chip.id for chip in available() if chip.number_format is not None}
