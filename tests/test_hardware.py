"""Targets, and the profiles that describe them."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path

import pytest

from snn_deploy.hardware import available, parse, target
from snn_deploy.numerics import NumberFormat
from tests.helpers.refusals import refused


def profile(name: str) -> str:
    return resources.files("snn_deploy.hw_profiles").joinpath(f"{name}.toml").read_text("utf-8")


CHIP = '[chip]\nid = "x"\nname = "X"\nvendor = "me"\nsummary = "s"\n'
ENERGY = (
    "[energy.synaptic_operation]\n"
    'value = 2\nunit = "nJ"\nsource = "s"\nevidence = "measured"\nscope = "per_term"\n'
)
FORMAT = profile("generic").partition("[format]")[2]
WHOLE = f"{CHIP}{ENERGY}[format]{FORMAT}"


def test_shipped_profiles() -> None:
    targets = {t.id: t for t in available()}
    assert {"cmos45", "generic", "loihi1-davies2018", "loihi2"} <= targets.keys()
    assert {n for n, t in targets.items() if t.number_format} == {"generic", "loihi2"}
    for name, found in targets.items():
        assert target(name) == found


def test_formats_differ_where_the_chips_do() -> None:
    loihi2, generic = target("loihi2").require_format(), target("generic").require_format()
    assert (loihi2.comparator, generic.comparator) == (">", ">=")
    assert (loihi2.first_layer, generic.first_layer) == ("host_bias", "graded")
    assert (loihi2.hop_delay, generic.hop_delay) == (1, 0)
    assert (loihi2.word_bits, generic.word_bits) == (32, 64)
    assert (loihi2.spikes_max, generic.spikes_max) == (1, 255)
    for form in (loihi2, generic):
        assert (form.current_overflow, form.membrane_overflow) == ("wrap_once", "saturate")
        assert form.decay_rule == "multiply_truncate"
        assert form.synaptic_current


def test_an_energy_profile_is_no_target() -> None:
    with refused("SD201", "export to one of: generic, loihi2"):
        target("cmos45").require_format()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(WHOLE)
    found = target(str(path))
    assert (found.id, found.name, found.vendor, found.summary) == ("x", "X", "me", "s")
    assert found.number_format == target("generic").number_format
    assert found.energy["synaptic_operation"].picojoules == 2000
    path.write_text(CHIP)
    assert target(str(path)).energy == {}
    assert target(str(path)).number_format is None


def test_unknown_and_unreadable(tmp_path: Path) -> None:
    with refused("SD105", "unknown target .*loihi3.*(?s:.)*cmos45, .*generic, "):
        target("loihi3")
    with refused("SD101"):
        target(str(tmp_path / "none.toml"))
    with refused("SD101"):
        (tmp_path / "folder.toml").mkdir()
        target(str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with refused("SD104", "not a text file"):
        target(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    ("unit", "picojoules"), [("fJ", 2e-3), ("pJ", 2), ("nJ", 2e3), ("uJ", 2e6)]
)
def test_units(unit: str, picojoules: float) -> None:
    found = parse("x", WHOLE.replace('"nJ"', f'"{unit}"')).energy["synaptic_operation"]
    assert found.picojoules == pytest.approx(picojoules)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[chip]", "[chip", "not valid TOML"),
        ("[chip]", "[other]", "unknown key 'other'"),
        (CHIP, "", r"table \[chip\] is needed"),
        (CHIP, "chip = 3\n", r"table \[chip\] is needed"),
        ("[chip]", '[chip]\ncolour = "red"', "unknown key 'colour'"),
        ('id = "x"\n', "", "needs a text `id`"),
        ('name = "X"', "name = 3", "needs a text `name`"),
        ("[chip]", '[chip]\nnotes = "n"', "notes must be a list"),
        ("[chip]", "[chip]\nnotes = [1]", "notes must be a list"),
        ("[energy.synaptic_operation]", "[energy.spike]", "unknown key 'spike'"),
        (ENERGY, "[energy]\nsynaptic_operation = 2\n", r"table \[synaptic_operation\]"),
        ("value = 2\n", "", "`value` is missing"),
        ("value = 2", "value = 2\njoules = 1", "unknown key 'joules'"),
        ("value = 2", 'value = "2"', "`value` = '2' must be float"),
        ("value = 2", "value = true", "`value` = True must be float"),
        ("value = 2", "value = 0", "above 0"),
        ("value = 2", "value = -1.5", "above 0"),
        ("value = 2", "value = nan", "above 0"),
        ("value = 2", "value = inf", "above 0"),
        ('"nJ"', '"J"', "unit 'J'"),
        ('"nJ"', "3", "`unit` = 3 must be str"),
        ('"measured"', '"guessed"', "evidence 'guessed'"),
        ('"per_term"', '"total"', "scope 'total'"),
        ("value = 2", "value = 2\nvoltage = 1", "`voltage` = 1 must be"),
        ("decay_bits = 12\n", "", "`decay_bits` is missing"),
        ("decay_bits = 12", "decay_bits = 12.0", "`decay_bits` = 12.0 must be int"),
        ("decay_bits = 12", "decay_bits = true", "`decay_bits` = True must be int"),
        ("decay_bits = 12", "decay_bits = 12\nrefractory = 1", "unknown key 'refractory'"),
        ("soft_reset = true", "soft_reset = 1", "`soft_reset` = 1 must be bool"),
        ('comparator = ">="', 'comparator = "<"', "`comparator` = '<' must be > or >="),
        ('"multiply_truncate"', '"shift"', "must be multiply_truncate"),
        (
            '"wrap_once"',
            '"clip"',
            "`current_overflow` = 'clip' must be saturate or wrap or wrap_once",
        ),
        (
            '"saturate"',
            '"clip"',
            "`membrane_overflow` = 'clip' must be saturate or wrap or wrap_once",
        ),
        ("word_bits = 64", "word_bits = 31", "`word_bits` must be at least `membrane_bits`"),
        ("synaptic_current = true", "synaptic_current = 1", "`synaptic_current` = 1 must be"),
        ('"graded"', '"analog"', "must be host_bias or graded"),
        ("weight_min = -32767", "weight_min = 0", "must span zero"),
        ("weight_max = 32767", "weight_max = 0", "must span zero"),
        ("weight_max = 32767", "weight_max = 2147483648", "must span zero within 32 bits"),
        ("weight_min = -32767", "weight_min = -2147483649", "must span zero within 32 bits"),
    ],
)
def test_refusals(old: str, new: str, text: str) -> None:
    assert old in WHOLE
    with refused("SD104", text):
        parse("x.toml", WHOLE.replace(old, new, 1))


WIDTHS = {
    "fraction_bits": (0, 16),
    "membrane_bits": (8, 32),
    "decay_bits": (1, 12),
    "threshold_bits": (1, 31),
    "threshold_shift": (0, 16),
    "bias_bits": (2, 32),
    "bias_shift": (0, 16),
    "first_layer_weight_bits": (2, 16),
    "input_bits": (1, 31),
    "spikes_max": (1, 255),
    "delay_max": (0, 1 << 20),
    "word_bits": (8, 64),
    "weight_exponent_max": (0, 16),
    "weight_step": (1, 256),
    "hop_delay": (0, 1),
}


def with_width(name: str, value: int) -> str:
    lines = WHOLE.splitlines()
    if name == "word_bits":  # a word holds a membrane
        lines = [
            "membrane_bits = 8" if line.startswith("membrane_bits = ") else line for line in lines
        ]
    lines = [f"{name} = {value}" if line.startswith(f"{name} = ") else line for line in lines]
    return "\n".join(lines)


@pytest.mark.parametrize("name", WIDTHS)
def test_widths(name: str) -> None:
    low, high = WIDTHS[name]
    for value in (low, high):
        assert getattr(parse("x", with_width(name, value)).require_format(), name) == value
    for value in (low - 1, high + 1):
        with refused("SD104", rf"`{name}` = {value} is not in \[{low}, {high}\]"):
            parse("x", with_width(name, value))


def test_every_number_of_a_format_is_bounded() -> None:
    numbers = {f.name for f in fields(NumberFormat) if f.type == "int"}
    assert numbers == WIDTHS.keys() | {"weight_min", "weight_max"}


def test_largest_weights() -> None:
    text = WHOLE.replace("weight_max = 32767", "weight_max = 2147483647")
    text = text.replace("weight_min = -32767", "weight_min = -2147483648")
    form = parse("x", text).require_format()
    assert (form.weight_min, form.weight_max) == (-(1 << 31), (1 << 31) - 1)


def test_an_all_in_figure_stands_alone() -> None:
    second = ENERGY.replace("synaptic_operation", "neuron_update_active")
    text = WHOLE.replace(ENERGY, ENERGY.replace("per_term", "all_in"))
    assert parse("x", text).energy["synaptic_operation"].scope == "all_in"
    with refused("SD104", "all-in figure stands beside others"):
        parse("x", text + second)
