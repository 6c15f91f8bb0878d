"""Static energy: what chips and cores draw whether or not anything fires."""

from __future__ import annotations

from typing import Literal

from snn_deploy.energy_model.pricing import Prices
from snn_deploy.energy_model.report import StaticEnergy
from snn_deploy.hardware import Figure


def static_energy(
    prices: Prices,
    timesteps: int,
    chips: int | None,
    cores: int | None,
    seconds_per_step: float | None = None,
) -> tuple[StaticEnergy, ...]:
    """Power times time, of chips and of cores; empty where the power or the time is not known.

    An all-in figure holds it already.

    Parameters
    ----------
    timesteps : of one inference.
    chips, cores : used; None if the network was not placed: then it takes one chip at least, and
        nobody knows how many cores.
    seconds_per_step : time of a timestep; default: the profile's.
    """
    known = prices.figures.static
    if known is None or prices.all_in:
        return ()
    if seconds_per_step is not None:
        seconds, time_source = timesteps * seconds_per_step, "as asked for"
    elif known.timestep_seconds is not None:
        step = known.timestep_seconds
        seconds, time_source = timesteps * step.value, step.source
    else:
        return ()
    drawn: tuple[tuple[Literal["chip", "core"], Figure | None, int | None], ...] = (
        ("chip", known.watts_per_chip, 1 if chips is None else chips),
        ("core", known.watts_per_core, cores),
    )
    return tuple(
        StaticEnergy(
            watts=power.value,
            per=per,
            number=number,
            placed=chips is not None,
            seconds=seconds,
            picojoules=power.value * number * seconds * 1e12,
            source=power.source,
            evidence=power.evidence,
            time_source=time_source,
        )
        for per, power, number in drawn
        if power is not None and number is not None
    )
