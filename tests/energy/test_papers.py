"""Energies that papers and tools print, from the shipped profiles."""

from __future__ import annotations

import pytest

from snn_deploy.energy_model import price
from snn_deploy.energy_model.pricing import total
from snn_deploy.hardware import target
from snn_deploy.reporting import joules

CMOS = "cmos45"

# Dspike, NeurIPS 2021, Table 3: additions and multiplications in millions, energy as printed. The
# printed units are a thousand times too large: J stands for mJ, mJ for uJ.
DSPIKE = {
    "ANN ResNet-19": (2285, 2285, "12.6 mJ"),
    "ANN ResNet-18": (187, 187, "1.03 mJ"),
    "SNN ResNet-20, T=5": (142, 8.80, "168 uJ"),
    "SNN ResNet-19, T=2": (360, 6.8, "355 uJ"),
    "SNN ResNet-18, T=2": (71.2, 3.52, "80.3 uJ"),
}
# README of syops-counter: 10^9 accumulates, 10^9 multiply-accumulates, mJ with as many decimals.
SYOPS = {
    "spiking_resnet18": (0.10, 0.14, 3, 0.734),
    "sew_resnet18": (0.50, 2.75, 2, 13.10),
    "resnet18": (0.0, 1.82, 3, 8.372),
}


def picojoules(profile: str, **operations: float) -> float:
    summed = total(price(operations, target(profile)).values())
    assert summed is not None
    return summed.nominal


def arithmetic(adds: float, mults: float) -> float:
    return picojoules(CMOS, synaptic_operation=adds, multiply_accumulate=mults)


@pytest.mark.parametrize("row", DSPIKE)
def test_dspike_table_3(row: str) -> None:
    adds, mults, printed = DSPIKE[row]
    assert joules(arithmetic(adds * 1e6, mults * 1e6)) == printed


def test_dspike_counts_the_adds_of_the_ann_twice() -> None:
    """4.6 pJ are a multiplication and its addition: the ANN's additions are already inside."""
    snn = arithmetic(71.2, 3.52)
    as_printed, as_meant = arithmetic(187, 187), arithmetic(0, 187)
    assert as_printed / snn == pytest.approx(12.8, abs=0.05)
    assert as_meant / snn == pytest.approx(10.7, abs=0.05)
    assert snn / as_meant == pytest.approx(0.0933, abs=5e-5)


@pytest.mark.parametrize("row", SYOPS)
def test_syops_readme(row: str) -> None:
    adds, mults, decimals, printed = SYOPS[row]
    assert round(arithmetic(adds * 1e9, mults * 1e9) / 1e9, decimals) == printed


# --- two profiles of one chip ---------------------------------------------------------------------


def fired(profile: str, fan_out: int) -> float:
    """A neuron that fires into ``fan_out`` dense synapses on one core, in its own tile or beyond.

    Hops are left out. SANA-FE charges a message per core, Davies et al. have no figure for it.
    """
    operations: dict[str, float] = {
        "neuron_update_active": 1,
        "spike_out": 1,
        "message_out": 1,
        "synaptic_operation": fan_out,
    }
    return picojoules(profile, **operations)


@pytest.mark.parametrize(
    ("fan_out", "davies", "sana_fe", "times"),
    [(1, "105 pJ", "289 pJ", 2.8), (1000, "23.7 nJ", "35.8 nJ", 1.5)],
)
def test_loihi_before_silicon_and_measured(
    fan_out: int, davies: str, sana_fe: str, times: float
) -> None:
    lower, higher = fired("loihi1-davies2018", fan_out), fired("loihi1-sanafe", fan_out)
    assert (joules(lower), joules(higher)) == (davies, sana_fe)
    assert round(higher / lower, 1) == times
    assert lower == pytest.approx(81 + 23.6 * fan_out, rel=1e-12)
    assert higher == pytest.approx(51.2 + 21.6 + 69.3 + 111 + 35.5 * fan_out, rel=1e-12)


def test_a_silent_neuron_costs_the_same_in_both() -> None:
    silent = {
        name: picojoules(name, neuron_update_inactive=1)
        for name in ("loihi1-davies2018", "loihi1-sanafe")
    }
    assert silent == {"loihi1-davies2018": 52.0, "loihi1-sanafe": 51.2}


def test_sana_fes_convolutions_are_the_low_end() -> None:
    """24.0 pJ per synapse that shares its weight, 35.5 pJ per dense one."""
    energy = price({"synaptic_operation": 10}, target("loihi1-sanafe"))["synaptic_operation"]
    assert energy is not None
    assert (energy.low, energy.nominal, energy.high) == (240.0, 355.0, 355.0)


def test_truenorths_range_is_that_of_its_operating_points() -> None:
    """26 pJ at 20 Hz with 128 synapses, all in; 2.5 pJ at best: 46 GSOPS/W lies between."""
    energy = price({"synaptic_operation": 1}, target("truenorth"))["synaptic_operation"]
    assert energy is not None
    assert energy.low < 1e12 / 46e9 < energy.high
