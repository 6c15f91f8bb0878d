"""Profiles of one's own: what is read from a TOML file, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.errors import SnnDeployError
from snn_deploy.hardware import (
    EVIDENCE,
    LIMITS,
    OPERATIONS,
    EnergyRow,
    Figure,
    Limit,
    Structure,
    parse,
)
from snn_deploy.profile_rows import LIMIT_KINDS, MEMORY_OPERATIONS, UNITS
from snn_deploy.toml import tomllib
from tests.hardware.provenance import static_figures
from tests.helpers.refusals import refused

CHIP = '[chip]\nid = "x"\nname = "X"\nvendor = "me"\nsummary = "s"\n'
ENERGY = """
[energy.synaptic_operation]
value = 2.0
unit = "nJ"
source = "s"
evidence = "measured"
scope = "per_term"
low = 1.0
low_source = "l"
high = 3.0
high_source = "h"

[energy.memory_read]
value = 5.0
unit = "pJ per 32-bit word"
source = "s"
evidence = "derived"
scope = "per_term"
derived = "a / 2"
inputs = { a = 10 }
"""
STATIC = """
[static.watts_per_chip]
value = 0.1
unit = "W"
source = "s"
evidence = "measured"

[static.timestep_seconds]
value = 0.001
unit = "s"
source = "s"
evidence = "vendor"
"""
LIMIT = """
[limits.fan_in]
value = 256
kind = "wall"
source = "s"
evidence = "vendor"

[limits.kernel_words_per_core]
value = [16, 32]
kind = "budget"
source = "s"
evidence = "vendor"
"""
STRUCTURE = """
[structure]
source = "s"
shares_weights = true
soft_reset = false
"""
WHOLE = CHIP + ENERGY + STATIC + LIMIT + STRUCTURE


def test_what_is_read() -> None:
    chip = parse("x.toml", WHOLE)
    row = chip.energy["synaptic_operation"]
    assert (row.low_picojoules, row.picojoules, row.high_picojoules) == (1000, 2000, 3000)
    memory = chip.energy["memory_read"]
    assert (memory.low_picojoules, memory.picojoules, memory.high_picojoules) == (5, 5, 5)
    assert memory.inputs == {"a": 10}
    assert {k: f.value for k, f in static_figures(chip).items()} == {
        "watts_per_chip": 0.1,
        "timestep_seconds": 0.001,
    }
    assert chip.limits["fan_in"] == Limit(value=256, kind="wall", source="s", evidence="vendor")
    words = chip.limits["kernel_words_per_core"]
    assert (words.value, words.per_core, words.kind) == (32, (16, 32), "budget")
    assert chip.structure == Structure(source="s", shares_weights=True, soft_reset=False)
    assert chip.structure.recurrence is None


def test_what_is_missing_is_unset() -> None:
    chip = parse("x.toml", CHIP)
    assert (chip.energy, chip.static, chip.limits, chip.structure) == ({}, None, {}, None)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        # energies
        ("[energy.memory_read]", "[energy.memory]", "unknown key 'memory'"),
        ("value = 2.0", "value = 0", r"`value` must be above 0.*(?s:.)*synaptic_operation"),
        ("value = 2.0", "value = 1" + 400 * "0", "`value` must be above 0"),
        ("value = 2.0", "value = 1" + 9000 * "0", "not valid TOML"),
        ("low = 1.0", "low = 0.0", "`low` must be above 0"),
        ("low = 1.0", "low = -1.0", "`low` must be above 0"),
        ("high = 3.0", "high = inf", "`high` must be above 0"),
        ("high = 3.0", "high = nan", "`high` must be above 0"),
        ("high = 3.0", 'high = "3"', "`high` = '3' must be float"),
        ("high = 3.0", "high = true", "`high` = True must be float"),
        ("low = 1.0", "low = 2.1", "`low` <= `value` <= `high` does not hold"),
        ("high = 3.0", "high = 1.9", "`low` <= `value` <= `high` does not hold"),
        ("low = 1.0\n", "", "`low` and `low_source` go together"),
        ('low_source = "l"\n', "", "`low` and `low_source` go together"),
        ("high = 3.0\n", "", "`high` and `high_source` go together"),
        ('high_source = "h"\n', "", "`high` and `high_source` go together"),
        ('source = "s"', 'source = ""', "`source` is empty"),
        ('source = "s"', 'source = "  "', "`source` is empty"),
        ('"measured"', '"seen"', "evidence 'seen'.*(?s:.)*fix: measured, regressed, simulated"),
        ('"per_term"', '"per_core"', "scope 'per_core'.*(?s:.)*fix: per_term, all_in"),
        ("low = 1.0", 'extremum = "least"\nlow = 1.0', "extremum 'least'.*(?s:.)*min, typ, max"),
        ('"nJ"', '"pJ per 32-bit word"', "unit 'pJ per 32-bit word'.*(?s:.)*fJ, pJ, nJ, uJ"),
        ('"pJ per 32-bit word"', '"pJ"', "unit 'pJ'.*(?s:.)*pJ per 32-bit word"),
        ('"pJ per 32-bit word"', '"J per 32-bit word"', "unit 'J per 32-bit word'"),
        ('"pJ per 32-bit word"', '"pJ per 0-bit word"', "unit 'pJ per 0-bit word'"),
        ('derived = "a / 2"\n', "", "`derived` and `inputs` go together"),
        ("inputs = { a = 10 }\n", "", "`derived` and `inputs` go together"),
        ("{ a = 10 }", "[10]", r"`inputs` = \[10\] must be a table of numbers"),
        ("{ a = 10 }", '{ a = "10" }', "must be a table of numbers"),
        ("{ a = 10 }", "{ a = true }", "must be a table of numbers"),
        ("{ a = 10 }", "{ a = nan }", "`inputs.a` must be finite"),
        ("{ a = 10 }", "{ a = inf }", "`inputs.a` must be finite"),
        ('"per_term"', '"all_in"', "all-in figure stands beside others"),
        (
            ENERGY,
            "[energy]\nmemory_read = 3\n",
            r"a table \[memory_read\].*(?s:.)*x.toml \[energy\]",
        ),
        (ENERGY, "energy = 3\n", r"unknown key 'energy'|a table \[energy\] is needed"),
        # static power and time
        ("[static.watts_per_chip]", "[static.watts]", "unknown key 'watts'"),
        ('"W"', '"mW"', r"unit 'mW'.*(?s:.)*static.watts_per_chip(?s:.)*\"W\""),
        ('unit = "s"', 'unit = "ms"', r"unit 'ms'(?s:.)*\"s\""),
        ("value = 0.1", "value = 0", "`value` must be above 0"),
        ("value = 0.001", "value = nan", "`value` must be above 0"),
        ("value = 0.001\n", "", "`value` is missing(?s:.)*needs: value, unit, source, evidence"),
        ('"vendor"', '"said"', "evidence 'said'"),
        # limits
        ("[limits.fan_in]", "[limits.fan]", "unknown key 'fan'(?s:.)*fan_in"),
        ("value = 256", "value = 0", "`value` = 0 is no limit(?s:.)*limits.fan_in"),
        ("value = 256", "value = -1", "`value` = -1 is no limit"),
        ("value = 256", "value = 256.0", "`value` = 256.0 is no limit"),
        ("value = 256", "value = true", "`value` = True is no limit"),
        ("value = 256", "value = 9007199254740993", "is no limit"),
        ("value = 256", "value = 0x" + 5000 * "f", "`value` = a number of thousands of digits"),
        ("value = 256\n", "", "`value` = None is no limit"),
        ("value = 256", "value = [256]", "`value` is a list(?s:.)*only kernel_words_per_core"),
        ("[16, 32]", "[]", r"`value` = \[\] is no limit"),
        ("[16, 32]", "[16, 0]", r"`value` = \[16, 0\] is no limit"),
        ("[16, 32]", "[[16], 32]", "is no limit"),
        ("value = 256", "value = 256\nper_core = [1]", r"`per_core` = \[1\] must be tuple"),
        ('"wall"', '"fence"', "kind 'fence'(?s:.)*fix: wall, budget"),
        ('"budget"\nsource = "s"', '"budget"\nsource = ""', "`source` is empty"),
        ('"wall"', "0x" + 5000 * "f", "`kind` = a number of thousands of digits must be str"),
        # structure
        ("shares_weights = true", "shares_weights = 1", "`shares_weights` = 1 must be bool"),
        ("shares_weights = true", "shares = true", "unknown key 'shares'"),
        ('[structure]\nsource = "s"\n', "[structure]\n", "`source` is missing"),
        ('[structure]\nsource = "s"\n', '[structure]\nsource = ""\n', "`source` is empty"),
        # the chip
        ('id = "x"', 'id = "x"\nyear = "2018"', r"\[chip\] year must be an integer"),
        ('id = "x"', 'id = "x"\nformats = "nir"', r"\[chip\] formats must be a list"),
    ],
)
def test_refusals(old: str, new: str, text: str) -> None:
    assert old in WHOLE
    with refused("SD104", text):
        parse("x.toml", WHOLE.replace(old, new, 1))


def test_static_power_beside_an_all_in_energy() -> None:
    alone = ENERGY.partition("[energy.memory_read]")[0].replace("per_term", "all_in")
    timestep = "[static.timestep_seconds]"
    assert parse("x", CHIP + alone + timestep + STATIC.partition(timestep)[2]).static is not None
    with refused("SD104", "static power stands beside an all-in energy(?s:.)*watts_per_chip"):
        parse("x", CHIP + alone + STATIC)


# --- random profiles ------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: text.strip()
)
FIGURE = st.floats(1e-6, 1e9)


@st.composite
def energies(draw: st.DrawFn) -> dict[str, EnergyRow]:
    found = {}
    for name in draw(st.lists(st.sampled_from(OPERATIONS), unique=True)):
        low, value, high = sorted(draw(st.tuples(FIGURE, FIGURE, FIGURE)))
        word = f" per {draw(st.integers(1, 512))}-bit word" if name in MEMORY_OPERATIONS else ""
        ends: dict[str, Any] = {}
        if draw(st.booleans()):
            ends |= {"low": low, "low_source": draw(TEXT)}
        if draw(st.booleans()):
            ends |= {"high": high, "high_source": draw(TEXT)}
        if draw(st.booleans()):
            ends |= {"derived": "a", "inputs": {"a": draw(FIGURE)}}
        found[name] = EnergyRow(
            value=value,
            unit=draw(st.sampled_from(list(UNITS))) + word,
            source=draw(TEXT),
            evidence=draw(st.sampled_from(list(EVIDENCE))),
            scope="per_term",
            voltage=draw(st.none() | TEXT),
            **ends,
        )
    return found


@st.composite
def limits(draw: st.DrawFn) -> dict[str, Limit]:
    found = {}
    for name in draw(st.lists(st.sampled_from(LIMITS), unique=True)):
        listed = name in ("kernel_words_per_core", "neuron_words_per_core") and draw(st.booleans())
        values = draw(st.lists(st.integers(1, 1 << 53), min_size=1, max_size=9 if listed else 1))
        found[name] = Limit(
            value=max(values),
            kind=draw(st.sampled_from(list(LIMIT_KINDS))),
            source=draw(TEXT),
            evidence=draw(st.sampled_from(list(EVIDENCE))),
            per_core=tuple(values) if listed else (),
        )
    return found


def written(table: str, rows: dict[str, EnergyRow] | dict[str, Limit] | dict[str, Figure]) -> str:
    """Rows as TOML."""

    def value(entry: Any) -> str:
        if isinstance(entry, str):
            return json.dumps(entry, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(entry, dict):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in entry.items()) + " }"
        return repr(list(entry)) if isinstance(entry, tuple) else repr(entry)

    lines = []
    for name, row in rows.items():
        lines.append(f"[{table}.{name}]")
        entries = {key: getattr(row, key) for key in type(row).__dataclass_fields__}
        if entries.get("per_core"):
            entries["value"] = entries["per_core"]
        entries.pop("per_core", None)
        lines += [f"{key} = {value(entry)}" for key, entry in entries.items() if entry is not None]
    return "\n".join([*lines, ""])


@settings(max_examples=50, deadline=None)
@given(energies(), limits())
def test_what_is_written_is_read(rows: dict[str, EnergyRow], most: dict[str, Limit]) -> None:
    chip = parse("x.toml", CHIP + written("energy", rows) + written("limits", most))
    assert chip.energy == rows
    assert chip.limits == most
    assert list(chip.energy) == [name for name in OPERATIONS if name in rows]
    for row in chip.energy.values():
        assert 0 < row.low_picojoules <= row.picojoules <= row.high_picojoules


STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 1 << 70), st.floats(), TEXT, st.just([]),
    st.just({}), st.just([1, "a"]), st.just({"value": 1}),
)  # fmt: skip


def places(data: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all keys."""
    if not isinstance(data, dict):
        return []
    return [p for key, value in data.items() for p in ((*path, key), *places(value, (*path, key)))]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_spoilt_profile_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands in the place of an entry: no other error, and what is read is sound."""
    tree = tomllib.loads(WHOLE)
    path = data.draw(st.sampled_from(places(tree)))
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    strange = data.draw(STRANGE)
    if strange is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = strange
    refusal = None
    try:
        chip = parse("x.toml", _toml(tree))
    except SnnDeployError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code == "SD104"
        assert (refusal.where or "").startswith("x.toml")
        return
    for row in chip.energy.values():
        assert 0 < row.low_picojoules <= row.picojoules <= row.high_picojoules < float("inf")
    for limit in chip.limits.values():
        assert 1 <= limit.value <= 1 << 53
        assert limit.kind in LIMIT_KINDS
    for figure in static_figures(chip).values():
        assert 0 < figure.value < float("inf")


def _toml(tree: dict[str, Any]) -> str:
    """A tree as TOML, every table inline."""

    def value(entry: Any) -> str:
        if isinstance(entry, bool):
            return str(entry).lower()
        if isinstance(entry, str):
            return json.dumps(entry, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(entry, list):
            return "[" + ", ".join(map(value, entry)) + "]"
        if isinstance(entry, dict):
            return "{ " + ", ".join(f"{key} = {value(v)}" for key, v in entry.items()) + " }"
        return repr(entry)

    return "\n".join(f"{key} = {value(entry)}" for key, entry in tree.items())


def test_the_fuzz_writes_what_it_reads() -> None:
    assert tomllib.loads(_toml(tomllib.loads(WHOLE))) == tomllib.loads(WHOLE)
