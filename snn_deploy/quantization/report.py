"""What quantization changed, population by population: numbers, rates, and spikes that flipped.

*Cascaded* flips are those of the whole integer network against the float network. For *isolated*
flips every population is fed the float network's spikes, so that only its own rounding is left;
errors grow from layer to layer, and the one figure says nothing of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population
from snn_deploy.numerics import NumberFormat, firing_level, kept_share
from snn_deploy.packets import Recording
from snn_deploy.quantization.inputs import run_batches
from snn_deploy.quantization.isolation import feed, isolated
from snn_deploy.quantization.scales import float_weights
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import steps_of, with_sample_axis

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationReport:
    """One population; None where a figure does not apply (a readout fires no spikes).

    Attributes
    ----------
    weight_sqnr : signal to quantization noise of all its weights, dB; None if they are exact.
    clipped, weights : weights that were moved by a whole step of the grid or more, of how many.
    threshold_error : largest distance of a firing level from the float threshold, membrane LSBs.
    decay_error : largest difference of a share kept per timestep, decays of currents included.
    float_rate, integer_rate : spikes per neuron and timestep.
    slots : neurons times timesteps times samples.
    cascaded, isolated : slots whose number of spikes differs.
    """

    weight_sqnr: float | None
    clipped: int
    weights: int
    threshold_error: float | None
    decay_error: float
    float_rate: float | None
    integer_rate: float | None
    slots: int | None
    cascaded: int | None
    isolated: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """All populations by name, and how often both networks decide alike (of ``samples``).

    ``agreeing`` is None for a network with several outputs: it decides nothing.
    """

    populations: dict[str, PopulationReport]
    samples: int
    agreeing: int | None


def quantization_report(
    graph: Graph, integer: Graph, recording: Recording, *, progress: Progress | None = None
) -> QuantizationReport:
    """Compare a float graph and the integer graph that :func:`quantize` made of it.

    Parameters
    ----------
    graph, integer : of the same populations and projections.
    recording : inputs of both.
    progress : called with (samples done, samples in all).

    Raises
    ------
    SnnDeployError
        SD103 or SD106 if the recording does not fit, SD408 if the graphs are not of one network.
    """
    _require_same(graph, integer)
    recording = with_sample_axis(graph, recording)
    steps = steps_of(graph, recording, None)
    spiking = [p.name for p in graph.spiking()]
    zero = dict.fromkeys(spiking, 0)
    fired, reached, cascaded, apart = dict(zero), dict(zero), dict(zero), dict(zero)
    alone = {name: isolated(integer, name) for name in spiking}
    agreeing: int | None = 0 if len(graph.outputs) == 1 else None
    done = 0
    for exact, rounded in zip(
        run_batches(graph, recording), run_batches(integer, recording), strict=True
    ):
        samples = exact.trace.record.samples
        for name in spiking:
            mine, theirs = exact.trace.spikes[name], rounded.trace.spikes[name]
            fired[name] += int(mine.sum())
            reached[name] += int(theirs.sum())
            cascaded[name] += int((mine != theirs).sum())
            given = feed(alone[name], recording.part(done, done + samples), exact.trace.spikes)
            found = simulate(alone[name], given, steps=steps, trace=True).spikes[name]
            apart[name] += int((mine != found).sum())
        if agreeing is not None:
            agreeing += int((exact.trace.decisions() == rounded.trace.decisions()).sum())
        done += samples
        if progress is not None:
            progress(done, recording.samples)
    populations = {}
    for population in graph.populations:
        name = population.name
        slots = done * steps * population.size if name in zero else None
        populations[name] = PopulationReport(
            **_numbers(graph, integer, population),
            float_rate=None if slots is None else fired[name] / slots,
            integer_rate=None if slots is None else reached[name] / slots,
            slots=slots,
            cascaded=cascaded.get(name),
            isolated=apart.get(name),
        )
    return QuantizationReport(populations=populations, samples=done, agreeing=agreeing)


def _require_same(graph: Graph, integer: Graph) -> None:
    same = (
        [(p.name, p.shape) for p in graph.populations]
        == [(p.name, p.shape) for p in integer.populations]
        and [p.name for p in graph.projections] == [p.name for p in integer.projections]
        and graph.number_format is None
        and integer.number_format is not None
    )
    if not same:
        raise SnnDeployError(
            "SD408",
            "not a float graph and what quantization made of it",
            fix="compare `freeze(model)` with `quantize(freeze(model), target)`",
        )


def _numbers(graph: Graph, integer: Graph, population: Population) -> dict[str, Any]:
    """What the numbers of a population alone say."""
    form = integer.number_format
    found = integer.population(population.name)
    if form is None or found.scale is None:
        raise ValueError("reports are of integer graphs")
    signal = noise = 0.0
    clipped = weights = 0
    for old, new in zip(
        graph.incoming(population.name), integer.incoming(population.name), strict=True
    ):
        exact, worth = old.synapses.weight, float_weights(integer, new)
        signal += float((exact**2).sum())
        noise += float(((worth - exact) ** 2).sum())
        unit = float_weights(
            integer, replace(new, synapses=replace(new.synapses, weight=np.ones_like(exact)))
        )
        step = unit * (1 if integer.on_host(new) else form.weight_step)
        clipped += int((np.abs(worth - exact) >= step * (1 + 1e-9)).sum())
        weights += exact.size
    error = None
    if isinstance(population.neurons, LIF) and isinstance(found.neurons, LIF):
        level = firing_level(form, found.neurons.threshold.astype(np.int64))
        exact_level = population.neurons.threshold * 2.0**form.fraction_bits / found.scale
        error = float(np.abs(level - exact_level).max())
    return {
        "weight_sqnr": None if noise == 0 or signal == 0 else 10 * float(np.log10(signal / noise)),
        "clipped": clipped,
        "weights": weights,
        "threshold_error": error,
        "decay_error": _decay_error(population, found, form),
    }


def _decay_error(population: Population, found: Population, form: NumberFormat) -> float:
    def error(exact: NDArray[Any], field: NDArray[Any]) -> float:
        kept = kept_share(field.astype(np.int64), form.decay_rule, form.decay_bits)
        return float(np.abs(kept - exact).max())

    errors = [error(population.neurons.decay, found.neurons.decay)]
    memory, after = population.neurons.current_decay, found.neurons.current_decay
    if memory is not None and after is not None:
        errors.append(error(memory, after))
    return max(errors)
