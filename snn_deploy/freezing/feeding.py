"""What feeds a population at every timestep: patterns with their delays, and a constant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.following import Followed
from snn_deploy.freezing.forms import Floats, Form, Moment


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """What feeds a population at every timestep: patterns with their delays, and a constant."""

    terms: dict[Moment, float]  # with the lag in place of the timestep; None: constant over time
    bias: Floats
    magnitude: Floats


def _fed(form: Form, step: int) -> Fed:
    terms: dict[Moment, float] = {}
    bias, magnitude = np.zeros(()), np.zeros(())
    for (pattern, time), weight in form.terms.items():
        if pattern.source is None:
            bias = bias + weight * pattern.constant
            magnitude = magnitude + abs(weight) * pattern.magnitude
        elif weight != 0:
            terms[pattern, None if time is None else step - time] = weight
    return Fed(terms, bias, magnitude)


def every_step(population: Followed) -> Fed:
    """What feeds a population at every timestep, checked to be the same at all of them.

    What comes with a delay is missing at the first timesteps, as nothing was sent before them.
    """
    last = len(population.forms) - 1
    steady = _fed(population.forms[-1], last)
    for step, form in enumerate(population.forms[:-1]):
        found = _fed(form, step)
        expected = {m: w for m, w in steady.terms.items() if m[1] is None or m[1] <= step}
        if found.terms != expected or not alike(found.bias, steady.bias, steady.magnitude):
            origins = {p.origin for p, _ in (*found.terms, *expected) if p.origin}
            raise SnnDeployError(
                "SD205",
                f"it is fed otherwise at timestep {step} than at timestep {last}",
                where=population.path,
                why="a chip has one set of weights for all timesteps"
                + (f"; this comes from {', '.join(sorted(origins))}" if origins else ""),
                fix="use the same layers, and one batch normalisation, at every timestep",
            )
    if any(lag is not None and lag < 0 for _, lag in steady.terms):
        raise SnnDeployError("SD205", "it is fed by a later timestep", where=population.path)
    return steady


# Sums of the same constants in another order differ by a few roundings of float64.
_SAME = 2.0**-44


def alike(one: Floats, other: Floats, magnitude: Floats | None = None) -> bool:
    """Whether constants are equal, up to the rounding of sums of this magnitude. NaN is NaN."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    allowed = 0.0 if magnitude is None else _SAME * magnitude
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return bool((same | (apart <= allowed)).all())
