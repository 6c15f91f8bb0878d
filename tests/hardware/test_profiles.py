"""The profiles that come with the package."""

from __future__ import annotations

import re
from importlib import resources
from math import prod

import pytest

from snn_deploy.hardware import EVIDENCE, LIMITS, OPERATIONS, Limit, Target, available, target
from tests.hardware.provenance import computed, sourced, static_figures

CHIPS = available()
# Energies in pJ, written down from the publications and not from the profiles.
PUBLISHED = {
    ("cmos45", "synaptic_operation"): (0.9, 0.9, 0.9),
    ("cmos45", "multiply_accumulate"): (4.6, 4.6, 4.6),
    ("cmos45-int8", "synaptic_operation"): (0.03, 0.03, 0.1),
    ("cmos45-int8", "multiply_accumulate"): (0.23, 0.23, 0.3),
    ("cmos45-int32", "synaptic_operation"): (0.1, 0.1, 0.1),
    ("cmos45-int32", "multiply_accumulate"): (3.2, 3.2, 3.2),
    ("cmos45-int32-sram", "synaptic_operation"): (0.1, 0.1, 0.1),
    ("cmos45-int32-sram", "multiply_accumulate"): (3.2, 3.2, 3.2),
    ("cmos45-int32-sram", "memory_read"): (5, 5, 10),
    ("cmos45-int32-sram", "memory_write"): (5, 5, 10),
    ("loihi1-davies2018", "synaptic_operation"): (23.6, 23.6, 23.6),
    ("loihi1-davies2018", "neuron_update_active"): (81, 81, 81),
    ("loihi1-davies2018", "neuron_update_inactive"): (52, 52, 52),
    ("loihi1-davies2018", "spike_within_tile"): (1.7, 1.7, 1.7),
    ("loihi1-davies2018", "hop_east_west"): (3, 3, 3),
    ("loihi1-davies2018", "hop_north_south"): (4, 4, 4),
    ("loihi1-sanafe", "synaptic_operation"): (24, 35.5, 35.5),
    ("loihi1-sanafe", "neuron_update_active"): (72.8, 72.8, 72.8),
    ("loihi1-sanafe", "neuron_update_inactive"): (51.2, 51.2, 51.2),
    ("loihi1-sanafe", "spike_out"): (69.3, 69.3, 69.3),
    ("loihi1-sanafe", "message_out"): (111, 111, 111),
    ("loihi1-sanafe", "hop_east_west"): (3, 3, 3),
    ("loihi1-sanafe", "hop_north_south"): (4.2, 4.2, 4.2),
    ("truenorth", "synaptic_operation"): (2.5, 26, 26),
    ("spinnaker1", "synaptic_operation"): (13_300, 13_300, 13_300),
    ("spinnaker1", "neuron_update_active"): (26_000, 26_000, 26_000),
    ("spinnaker1", "neuron_update_inactive"): (26_000, 26_000, 26_000),
    ("spinnaker1", "packet"): (1000, 1000, 1000),
    ("spinnaker2", "synaptic_operation"): (10, 10, 10),
    ("spinnaker2", "multiply_accumulate"): (0.72, 0.72, 0.97),
    ("spinnaker2-prototype", "synaptic_operation"): (450, 450, 450),
    ("spinnaker2-prototype", "neuron_update_active"): (2190, 2190, 2190),
    ("spinnaker2-prototype", "neuron_update_inactive"): (2190, 2190, 2190),
    ("tianjic", "synaptic_operation"): (1.54, 1.54, 1.54),
    ("odin", "synaptic_operation"): (12.7, 12.7, 54),
    ("reckon", "synaptic_operation"): (5.3, 5.3, 5.3),
    ("darwin3", "synaptic_operation"): (5.47, 5.47, 5.47),
    ("seneca", "synaptic_operation"): (2.8, 2.8, 12.7),
    ("seneca", "spike_out"): (1.1, 1.1, 1.1),
    ("seneca", "packet"): (2, 2, 2),
    ("h100-sxm-int8-peak", "multiply_accumulate"): (0.71, 0.71, 0.71),
    ("h100-pcie-int8-peak", "multiply_accumulate"): (0.46, 0.46, 0.46),
    ("a100-sxm-int8-peak", "multiply_accumulate"): (1.28, 1.28, 1.28),
    ("a100-sxm-fp16-peak", "multiply_accumulate"): (2.56, 2.56, 2.56),
    ("cpu-i7-4960x", "multiply_accumulate"): (8600, 8600, 8600),
    ("gpu-titan-black", "multiply_accumulate"): (300, 300, 300),
    ("arm-cortex-a", "multiply_accumulate"): (900, 900, 900),
}
UNPUBLISHED = {"brainscales2", "generic", "loihi2", "speck2f", "xylo-audio2", "xylo-audio3",
               "xylo-imu"}  # fmt: skip
ALL_IN = {"truenorth", "odin", "h100-sxm-int8-peak", "h100-pcie-int8-peak", "a100-sxm-int8-peak",
          "a100-sxm-fp16-peak"}  # fmt: skip


def each_chip() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.id)


def test_energies_are_the_published_ones() -> None:
    found = {(chip.id, name): row for chip in CHIPS for name, row in chip.energy.items()}
    assert found.keys() == PUBLISHED.keys()
    for key, row in found.items():
        printed = (row.low_picojoules, row.picojoules, row.high_picojoules)
        # two digits of those that are computed, as many as were printed of the others
        assert printed == pytest.approx(PUBLISHED[key], rel=1e-2 if row.derived else 1e-12), key


@each_chip()
def test_a_summary_says_what_the_rows_say(chip: Target) -> None:
    said = re.findall(r"([0-9.]+) ([fpn]J) per", chip.summary)
    rows = chip.energy.values()
    known = {v for r in rows for v in (r.low_picojoules, r.picojoules, r.high_picojoules)}
    for value, unit in said:
        assert float(value) * {"pJ": 1, "nJ": 1000}[unit] in known


def test_what_is_unset_stays_unset() -> None:
    assert {chip.id for chip in CHIPS if not chip.energy} == UNPUBLISHED
    assert {c.id for c in CHIPS if any(r.scope == "all_in" for r in c.energy.values())} == ALL_IN


@each_chip()
def test_names(chip: Target) -> None:
    files = [f.name for f in resources.files("snn_deploy.hw_profiles").iterdir()]
    assert f"{chip.id}.toml" in files
    assert target(chip.id) == chip
    assert chip.energy.keys() <= set(OPERATIONS)
    assert chip.limits.keys() <= set(LIMITS)
    assert all((chip.name, chip.vendor, chip.summary))
    assert all(note.endswith(".") for note in chip.notes)


@each_chip()
def test_derived_values(chip: Target) -> None:
    """A figure is its expression to three digits, a limit exactly."""
    for key, row in sourced(chip):
        assert row.evidence in EVIDENCE
        assert (row.evidence == "derived") == (row.derived is not None), key
        if row.derived is not None:
            assert row.inputs
            result = computed(row.derived, row.inputs)
            assert row.value == (result if isinstance(row, Limit) else float(f"{result:.3g}")), key


@pytest.mark.parametrize(
    ("expression", "inputs", "error"),
    [
        ("a + b", {"a": 1.0}, KeyError),
        ("a", {"a": 1.0, "b": 2.0}, AssertionError),
        ("a.real", {"a": 1.0}, AssertionError),
        ("a ** 2", {"a": 1.0}, KeyError),
        ("abs(a)", {"a": 1.0}, AssertionError),
        ("'a'", {}, AssertionError),
    ],
)
def test_expressions_are_arithmetic(
    expression: str, inputs: dict[str, float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        computed(expression, inputs)


def test_expressions() -> None:
    assert computed("(a + b) * c / 4 - 1.5", {"a": 1, "b": 2, "c": 8}) == 4.5


def test_a_board_is_no_measurement() -> None:
    for chip in CHIPS:
        if chip.id.endswith("-peak"):
            assert {row.evidence for row in chip.energy.values()} == {"derived"}
            assert {row.extremum for row in chip.energy.values()} == {"min"}
            assert "never a measurement" in " ".join(chip.notes)


def test_loihi1_twice() -> None:
    """One chip, two sets of energies: a fired neuron that reaches one core, without hops."""
    davies, sanafe = target("loihi1-davies2018"), target("loihi1-sanafe")
    assert davies.limits == sanafe.limits
    assert davies.structure == sanafe.structure
    for fan_out, by_davies, by_sanafe in ((1, 105, 289), (1000, 23_681, 35_753)):
        for chip, expected in ((davies, by_davies), (sanafe, by_sanafe)):
            counts = {"neuron_update_active": 1, "spike_out": 1, "message_out": 1,
                      "synaptic_operation": fan_out}  # fmt: skip
            total = sum(
                chip.energy[k].picojoules * n for k, n in counts.items() if k in chip.energy
            )
            assert total == pytest.approx(expected, abs=0.5)


def test_static_power_and_time() -> None:
    found = {c.id: {k: f.value for k, f in static_figures(c).items()} for c in CHIPS if c.static}
    assert found == {
        "darwin3": {"timestep_seconds": 5e-4},
        "loihi1-davies2018": {"watts_per_chip": 0.104},
        "speck2f": {"watts_per_chip": 0.42e-3},
        "spinnaker1": {"watts_per_chip": 0.35, "watts_per_core": 0.034},
        "truenorth": {"timestep_seconds": 1e-3},
        "xylo-audio2": {"watts_per_chip": 219e-6},
    }


# --- limits ---------------------------------------------------------------------------------------


def most(chip: str, name: str) -> int:
    return target(chip).limits[name].value


@pytest.mark.parametrize(
    ("chip", "parts", "whole"),
    [
        ("loihi1-davies2018", ("cores_per_chip", "neurons_per_core"), 131_072),
        ("loihi2", ("cores_per_chip", "neurons_per_core"), 1 << 20),
        ("truenorth", ("cores_per_chip", "neurons_per_core"), 1 << 20),  # "one million"
        ("truenorth", ("cores_per_chip", "synapses_per_core"), 1 << 28),  # "256 million"
        ("odin", ("cores_per_chip", "synapses_per_core"), 1 << 16),  # "64k"
    ],
)
def test_limits_agree_with_what_is_said_of_the_chip(
    chip: str, parts: tuple[str, ...], whole: int
) -> None:
    assert prod(most(chip, part) for part in parts) == whole


@each_chip()
def test_neurons_of_a_chip_are_those_of_its_cores(chip: Target) -> None:
    limits = chip.limits
    if {"neurons_per_chip", "neurons_per_core", "cores_per_chip"} <= limits.keys():
        whole = limits["neurons_per_core"].value * limits["cores_per_chip"].value
        assert limits["neurons_per_chip"].value == whole


def test_memories_of_speck() -> None:
    """272 and 320 Ki words over nine cores, as the documentation adds them up."""
    limits = target("speck2f").limits
    kernels, membranes = limits["kernel_words_per_core"], limits["neuron_words_per_core"]
    assert (sum(kernels.per_core), sum(membranes.per_core)) == (278_528, 327_680)
    assert (kernels.value, membranes.value) == (64 * 1024, 64 * 1024)
    assert len(kernels.per_core) == len(membranes.per_core) == most("speck2f", "cores_per_chip")
    others = [x for c in CHIPS if c.id != "speck2f" for x in c.limits.values()]
    assert not any(limit.per_core for limit in others)


@pytest.mark.parametrize(
    ("chip", "values"),
    [
        ("xylo-audio2", (16, 1000, 8, 64, 64_000)),
        ("xylo-audio3", (16, 992, 32, 1024, 63_488)),
        ("xylo-imu", (16, 496, 16, 512, 31_744)),
    ],
)
def test_xylo(chip: str, values: tuple[int, ...]) -> None:
    names = ("input_channels", "neurons_per_core", "output_neurons", "fan_out", "synapses_per_core")
    assert tuple(most(chip, name) for name in names) == values


def test_walls_and_budgets() -> None:
    budgets = {(c.id, n) for c in CHIPS for n, x in c.limits.items() if x.kind == "budget"}
    assert budgets == {("spinnaker1", "neurons_per_core")}
    assert target("truenorth").limits["fan_in"].kind == "wall"


def test_structure() -> None:
    def answering(name: str, answer: bool) -> set[str]:
        return {c.id for c in CHIPS if c.structure and getattr(c.structure, name) is answer}

    assert answering("bit_exact", False) == {"brainscales2"}
    loihi1 = {"loihi1-davies2018", "loihi1-sanafe"}
    assert answering("shares_weights", True) == {*loihi1, "loihi2", "speck2f"}
    assert answering("soft_reset", False) == {*loihi1, "odin"}
    assert answering("recurrence", False) == {"speck2f"}
    assert answering("graded_input", True) == {"loihi2", "spinnaker2"}
