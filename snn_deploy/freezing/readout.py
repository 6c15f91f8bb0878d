"""How a graph ends: in what the network returns, read over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.building import Builder, spread
from snn_deploy.freezing.following import OUTPUT, Followed, Result
from snn_deploy.freezing.forms import Pattern
from snn_deploy.freezing.neurons import FrozenNeurons
from snn_deploy.graph import Integrator, Readout


def read_out(builder: Builder, result: Result) -> tuple[str, float]:
    """End in what the network returns.

    Returns
    -------
    output : name of the population that is read out.
    factor : what the network returns per unit of that; above 0.

    Raises
    ------
    SnnDeployError
        SD205 for a result that no readout makes.
    """
    direct = _populations_own(builder, result)
    if direct is not None:
        return direct
    form, steps = result.output, result.steps
    times: dict[Pattern, dict[int | None, float]] = {}
    bias, magnitude = np.zeros(()), np.zeros(())
    for (pattern, time), weight in form.terms.items():
        if pattern.source is None:
            bias = bias + weight * pattern.constant
            magnitude = magnitude + abs(weight) * pattern.magnitude
        elif weight != 0:
            times.setdefault(pattern, {})[time] = weight
    read, per_step = reading([one for one in times.values() if None not in one], steps)
    # what is the same at all timesteps was added up over them
    share = 1.0 / steps if read == "sum" else 1.0
    integrator = Integrator(decay=np.array(0.0), bias=np.array(0.0), readout=read)
    target = Followed(OUTPUT, "the result", form.shape, FrozenNeurons(integrator))
    builder.close(
        OUTPUT, form.shape, replace(integrator, bias=spread(form.shape, bias * share)),
        spread(form.shape, magnitude * share),
    )  # fmt: skip
    for pattern, weights in times.items():
        weight = weights[None] * share if None in weights else per_step
        builder.project(pattern, target, weight, np.ones(()), 0)
    return OUTPUT, 1.0


def _populations_own(builder: Builder, result: Result) -> tuple[str, float] | None:
    """Read out the last population itself: its spike counts, or an integrator's membranes."""
    patterns = {p for p, _ in result.output.terms}
    if len(patterns) != 1:
        return None
    (pattern,) = patterns
    if not (pattern.membrane or (pattern.own_values and pattern.pool is None)):
        return None
    if pattern.source == builder.spec.name:
        return None
    place = next(k for k, p in enumerate(builder.populations) if p.name == pattern.source)
    population = builder.populations[place]
    weights = {time: w for (_, time), w in result.output.terms.items()}
    if max(weights.values()) <= 0:
        raise SnnDeployError(
            "SD205",
            "a result whose largest value is of the neurons that fire least cannot be frozen",
            where=pattern.origin,
            fix="return counts of spikes with a positive factor, or weigh them with a layer",
        )
    read, per_step = reading([weights], result.steps)
    if pattern.largest:
        if set(weights) != set(range(result.steps)):
            raise SnnDeployError(
                "SD205", "the largest of some of the timesteps cannot be frozen",
                where=pattern.origin, fix="take it over all timesteps",
            )  # fmt: skip
        read, per_step = "max", weights[0]
    if pattern.hidden:
        raise SnnDeployError(
            "SD205",
            "a result read from synaptic currents, or from spikes of neurons without reset, "
            "cannot be frozen",
            where=pattern.origin,
            fix="read membranes of neurons without reset, or spikes of neurons with one",
        )
    if pattern.membrane:
        if not isinstance(population.neurons, Integrator):
            raise SnnDeployError(
                "SD205",
                "a result read from the membranes of neurons that are reset cannot be frozen",
                where=pattern.origin,
                fix="count their spikes, or let the last neurons have no reset",
            )
        builder.populations[place] = replace(
            population, neurons=replace(population.neurons, readout=read)
        )
        return population.name, per_step
    if read == "last":
        raise SnnDeployError(
            "SD205", "a result of the last timestep's spikes alone cannot be frozen",
            where=pattern.origin, fix="count spikes over all timesteps",
        )  # fmt: skip
    return population.name, per_step / result.steps if read == "mean" else per_step


def reading(weights: Iterable[dict[int | None, float]], steps: int) -> tuple[Readout, float]:
    """How terms are read over time, and the factor that is left at each timestep."""
    found: set[tuple[str, float]] = set()
    for one in weights:
        values = set(one.values())
        if len(values) != 1:
            raise SnnDeployError(
                "SD205",
                "a result that weighs timesteps differently cannot be frozen",
                fix="return the sum or mean over time",
            )
        (weight,) = values
        if set(one) == set(range(steps)):
            mean = abs(weight * steps - 1) < 1e-12
            found.add(("mean", 1.0) if mean else ("sum", weight))
        elif set(one) == {steps - 1}:
            found.add(("last", weight))
        else:
            raise SnnDeployError(
                "SD205",
                "a result of some of the timesteps cannot be frozen",
                fix="return the sum or mean over all timesteps, or the last",
            )
    if not found:
        return "mean", 1.0
    if len(found) != 1:
        raise SnnDeployError(
            "SD205",
            "a result read in two ways at once cannot be frozen",
            fix="return one sum or mean over time, of one or several layers",
        )
    ((read, weight),) = found
    return read, weight  # type: ignore[return-value]
