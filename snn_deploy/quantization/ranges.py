"""The range proof: no current and no membrane of an integer graph can leave its register.

Intervals are propagated per neuron over every input that the graph's inputs allow: a spike is 0 or
1, a value lies in its encoded range. Decay cuts toward zero and is monotone, so bounds pass through
it exactly; a membrane that did not fire is at most its threshold. An interval forgets how a state
was reached: :mod:`snn_deploy.quantization.reach` says how near an input gets to these bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, decayed, firing_level, rounding_shift_right
from snn_deploy.quantization.sums import Accumulator, Bounds, accumulator, arrivals, sent, sum_range
from snn_deploy.sim.reference import largest_sum

Integers = NDArray[np.int64]

# Membrane bounds of a network without a fixed number of timesteps converge, or grow for ever.
_MOST_STEPS = 1 << 17
ENDLESS = 1 << 40

REGISTERS = {
    "current": "synaptic current",
    "membrane": "membrane",
    "host_bias": "bias set by the host",
}


@dataclass(frozen=True, slots=True)
class Range:
    """Proved bounds of one population, in membrane units (host_bias in bias mantissas).

    Attributes
    ----------
    current : synaptic current, without biases.
    membrane : before the reset.
    host_bias : bias mantissas, what the host adds included.
    bits : the narrowest symmetric register that holds current and membrane.
    overflowing : projections whose synaptic sum may leave its own register.
    neurons : per register (:data:`REGISTERS`), the neurons (in C, H, W order) with its ends.
    exceeding : per register that the number format does not hold, the number of such neurons.
    accumulators : per projection, the narrowest register for its synaptic sum; by
        :func:`prove_ranges` only.
    """

    current: tuple[int, int]
    membrane: tuple[int, int]
    host_bias: tuple[int, int]
    bits: int
    overflowing: tuple[str, ...] = ()
    neurons: dict[str, tuple[int, int]] = field(default_factory=dict)
    exceeding: dict[str, int] = field(default_factory=dict)
    accumulators: dict[str, Accumulator] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class NeuronRanges:
    """Bounds of every neuron of a population: pairs of int64 arrays of its shape, units as above.

    ``most_arriving``: no sum of what arrives in one timestep can exceed this magnitude.
    """

    current: Bounds
    membrane: Bounds
    host_bias: Bounds
    most_arriving: int


def prove_ranges(graph: Graph) -> dict[str, Range]:
    """Bounds of every population.

    Raises
    ------
    SnnDeployError
        SD203 naming the population, neuron and register that cannot be proved safe.
    """
    number_format = graph.number_format
    if number_format is None:
        raise ValueError("ranges are proved of integer graphs")
    proved = {}
    for population in graph.populations:
        found = population_range(graph, population, graph.incoming(population.name), number_format)
        reason = out_of_range(found, number_format)
        if reason is not None:
            raise SnnDeployError(
                "SD203",
                reason,
                where=population.name,
                why="some input inside the declared range may reach it",
                fix="lower the weights or the fan-in of this population, or declare a narrower "
                "input range",
            )
        sums = {p.name: accumulator(graph, p) for p in graph.incoming(population.name)}
        proved[population.name] = replace(found, accumulators=sums)
    return proved


def out_of_range(found: Range, number_format: NumberFormat) -> str | None:
    """Which register a population may leave, in words; None if none."""
    if found.overflowing:
        return f"the synaptic sum of {found.overflowing[0]} may leave its register"
    for register, bound in _limits(number_format).items():
        low, high = getattr(found, register)
        if max(-low, high) <= bound:
            continue
        neuron = found.neurons[register][high > -low]
        beyond = max(-low, high)
        over = "without end" if beyond >= ENDLESS else f"{beyond - bound} too far"
        return (
            f"the {REGISTERS[register]} may span {low} to {high}, its register holds +-{bound}: "
            f"neuron {neuron} may go {over} ({found.exceeding[register]} neurons may leave it)"
        )
    return None


def _limits(number_format: NumberFormat) -> dict[str, int]:
    """Largest magnitude that each register holds."""
    limit = number_format.membrane_limit
    return {"current": limit, "membrane": limit, "host_bias": number_format.bias_limit}


def population_range(
    graph: Graph,
    population: Population,
    incoming: tuple[Projection, ...],
    number_format: NumberFormat,
) -> Range:
    """Bounds of one population with these projections (not necessarily the graph's own)."""
    found = neuron_ranges(graph, population, incoming, number_format)
    spans: dict[str, tuple[int, int]] = {}
    neurons: dict[str, tuple[int, int]] = {}
    exceeding: dict[str, int] = {}
    for register, limit in _limits(number_format).items():
        low, high = getattr(found, register)
        spans[register] = (int(low.min()), int(high.max()))
        neurons[register] = (int(low.argmin()), int(high.argmax()))
        beyond = int((np.maximum(-low, high) > limit).sum())
        if beyond:
            exceeding[register] = beyond
    largest = max(map(abs, (*spans["current"], *spans["membrane"])))
    return Range(
        current=spans["current"],
        membrane=spans["membrane"],
        host_bias=spans["host_bias"],
        bits=largest.bit_length() + 1,
        overflowing=tuple(
            p.name
            for p in incoming
            if p.sum_bits is not None
            and not graph.on_host(p)
            and not _fits(sum_range(graph, p), p.sum_bits)
        ),
        neurons=neurons,
        exceeding=exceeding,
    )


def _fits(sums: Bounds, bits: int) -> bool:
    """Whether sums between these bounds stay inside a two's-complement register."""
    half = 1 << (bits - 1)
    return -half <= int(sums[0].min()) and int(sums[1].max()) < half


def neuron_ranges(
    graph: Graph,
    population: Population,
    incoming: tuple[Projection, ...],
    number_format: NumberFormat,
) -> NeuronRanges:
    """Bounds of every neuron of a population, over all timesteps."""
    zero = np.zeros(population.shape, np.int64)
    host_low = host_high = np.broadcast_to(
        population.neurons.bias.astype(np.int64), population.shape
    )
    arriving: dict[int, Bounds] = {0: (zero, zero)}
    most_arriving = 0
    for projection in incoming:
        if graph.on_host(projection):
            least, most = sum_range(graph, projection)
            host_low = host_low + rounding_shift_right(least, -projection.exponent)
            host_high = host_high + rounding_shift_right(most, -projection.exponent)
            continue
        shift = projection.exponent + number_format.fraction_bits
        for delay, (least, most) in arrivals(graph, projection).items():
            low, high = arriving.get(delay, (zero, zero))
            arriving[delay] = (low + (least << shift), high + (most << shift))
        largest = max(int(np.abs(bound).max()) for bound in sent(graph, projection))
        most_arriving += largest_sum(projection, largest) << shift
    if most_arriving >= 1 << 62:  # the bounds themselves may have turned over in 64 bits
        arriving = {0: (zero - ENDLESS, zero + ENDLESS)}
    driven = (host_low << number_format.bias_shift, host_high << number_format.bias_shift)
    current, membrane = _state_ranges(graph, population, arriving, driven, number_format)
    return NeuronRanges(current, membrane, (host_low, host_high), most_arriving)


def _state_ranges(
    graph: Graph,
    population: Population,
    arriving: dict[int, Bounds],
    bias: Bounds,
    number_format: NumberFormat,
) -> tuple[Bounds, Bounds]:
    """Bounds of the current, and of the membrane before the reset, over all timesteps.

    ``arriving`` (by delay) and ``bias`` are what may come in one timestep, in membrane units. The
    bounds of a step hold for every step before it as well, so that a neuron may be cleared at any
    time and everything may arrive later.
    """
    neurons = population.neurons

    def kept(state: Integers, decay: Integers | None) -> Integers:
        if decay is None:
            return np.zeros_like(state)
        spread = np.broadcast_to(decay.astype(np.int64), population.shape)
        return decayed(state, spread, number_format.decay_rule, number_format.decay_bits)

    zero = np.zeros(population.shape, np.int64)
    limitless = None
    if graph.timesteps is None:
        least = sum((low for low, _ in arriving.values()), zero)
        most = sum((high for _, high in arriving.values()), zero)
        limitless = _endless(population, (least, most), bias, number_format)
    # A given number of steps is soon done, and all of them say how far a state gets.
    enough = number_format.membrane_limit if graph.timesteps is None else ENDLESS
    low_in, high_in = zero, zero
    current_low, current_high, low, high = zero, zero, zero, zero
    found_low, found_high = zero, zero
    for step in range(graph.timesteps or _MOST_STEPS):
        if step in arriving:
            low_in, high_in = low_in + arriving[step][0], high_in + arriving[step][1]
        next_low = kept(current_low, neurons.current_decay) + low_in
        next_high = kept(current_high, neurons.current_decay) + high_in
        reached_low = kept(low, neurons.decay) + next_low + bias[0]
        reached_high = kept(high, neurons.decay) + next_high + bias[1]
        if limitless is not None:  # nothing more is asked of what has no end
            (falls, rises), (sinks, climbs) = limitless
            next_low, next_high = np.where(falls, 0, next_low), np.where(rises, 0, next_high)
            reached_low, reached_high = (
                np.where(sinks, 0, reached_low),
                np.where(climbs, 0, reached_high),
            )
        found_low = np.minimum(found_low, reached_low)
        found_high = np.maximum(found_high, reached_high)
        after_low, after_high = after_reset(population, reached_low, reached_high, number_format)
        before = (current_low, current_high, low, high)
        current_low = np.minimum(current_low, next_low)
        current_high = np.maximum(current_high, next_high)
        low, high = np.minimum(low, after_low), np.maximum(high, after_high)
        after = (current_low, current_high, low, high)
        if step >= max(arriving) and all(
            (a == b).all() for a, b in zip(before, after, strict=True)
        ):
            break
        ends = -found_low.min(), found_high.max(), -current_low.min(), current_high.max()
        if max(ends) > enough:
            break
    else:
        if graph.timesteps is None:
            found_high = np.maximum(found_high, ENDLESS)  # still growing: not bounded
    if limitless is not None:
        (falls, rises), (sinks, climbs) = limitless
        current_low = np.where(falls, -ENDLESS, current_low)
        current_high = np.where(rises, ENDLESS, current_high)
        found_low = np.where(sinks, -ENDLESS, found_low)
        found_high = np.where(climbs, ENDLESS, found_high)
    return (current_low, current_high), (found_low, found_high)


Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def _endless(
    population: Population, arriving: Bounds, bias: Bounds, number_format: NumberFormat
) -> tuple[Masks, Masks] | None:
    """Neurons whose current, and whose membrane, falls or rises for ever: (falls, rises) of each.

    None if there is none.

    Without a leak what falls falls for ever; what rises does so unless it fires. A membrane follows
    a current that does.
    """
    neurons, whole = population.neurons, 1 << number_format.decay_bits
    never = np.zeros(population.shape, bool)
    if number_format.decay_rule == "shift_subtract":  # every state leaks
        return None
    current = never, never
    if neurons.current_decay is not None:
        lossless = np.broadcast_to(neurons.current_decay == whole, population.shape)
        current = lossless & (arriving[0] < 0), lossless & (arriving[1] > 0)
    lossless = np.broadcast_to(neurons.decay == whole, population.shape)
    rising = lossless & (arriving[1] + bias[1] > 0) & (not isinstance(neurons, LIF))
    falling = lossless & (arriving[0] + bias[0] < 0)
    membrane = current[0] | falling, current[1] | rising
    return (current, membrane) if (membrane[0] | membrane[1]).any() else None


def silent_limit(population: Population, number_format: NumberFormat) -> Integers:
    """The largest membrane of each spiking neuron that does not fire, in membrane units."""
    neurons = population.neurons
    if not isinstance(neurons, LIF):
        raise TypeError("an integrator has no threshold")
    threshold = np.broadcast_to(neurons.threshold.astype(np.int64), population.shape)
    return np.asarray(firing_level(number_format, threshold) - 1, np.int64)


def after_reset(
    population: Population, low: Integers, high: Integers, number_format: NumberFormat
) -> Bounds:
    """Bounds after the comparison and reset, given bounds before (of the population's shape)."""
    neurons = population.neurons
    if not isinstance(neurons, LIF):
        return low, high
    silent = silent_limit(population, number_format)
    may_fire, may_rest = high > silent, low <= silent
    if isinstance(neurons.reset, ResetSubtract):
        amount, most = int(neurons.reset.amount), population.max_spikes
        lowest = np.maximum(low, silent + 1)  # of those that fire
        few, many = (np.clip((u - silent - 1) // amount + 1, 1, most) for u in (lowest, high))
        # Where one spike more begins, the membrane falls from the silent limit to one subtraction
        # below the threshold.
        fired_low = np.where(few < many, silent + 1 - amount, lowest - few * amount)
        fired_high = high - many * amount
        fired_high = np.where(few < many, np.maximum(silent, fired_high), fired_high)
    else:
        fired_low = fired_high = np.full(low.shape, int(neurons.reset.value), np.int64)
    kept_high = np.minimum(high, silent)
    return (
        np.where(may_rest, np.where(may_fire, np.minimum(low, fired_low), low), fired_low),
        np.where(may_rest, np.where(may_fire, np.maximum(kept_high, fired_high), high), fired_high),
    )
