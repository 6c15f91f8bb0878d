"""The range proof: no current and no membrane of an integer graph can leave its register.

Intervals are propagated per neuron over every input that the graph's inputs allow: a spike is 0 or
1, a value lies in its encoded range. Decay cuts toward zero and is monotone, so bounds pass through
it exactly; a membrane that did not fire is at most its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, decayed, rounding_shift_right
from snn_deploy.sim.reference import largest_sum, synaptic_sum
from snn_deploy.synapses import with_weights

Integers = NDArray[np.int64]

# Membrane bounds of a network without a fixed number of timesteps converge, or grow for ever.
_MOST_STEPS = 1 << 17
ENDLESS = 1 << 40


@dataclass(frozen=True, slots=True)
class Range:
    """Proved bounds of one population, in membrane units (host_bias in bias mantissas).

    ``current`` excludes biases; ``membrane`` is before the reset; ``bits`` is the narrowest signed
    register that holds both. ``overflowing`` names the projections whose synaptic sum may leave
    its own register.
    """

    current: tuple[int, int]
    membrane: tuple[int, int]
    host_bias: tuple[int, int]
    bits: int
    overflowing: tuple[str, ...] = ()


def prove_ranges(graph: Graph) -> dict[str, Range]:
    """Bounds of every population.

    Raises
    ------
    SnnDeployError
        SD203 naming the population and register that cannot be proved safe.
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
        proved[population.name] = found
    return proved


def out_of_range(found: Range, number_format: NumberFormat) -> str | None:
    """Which register a population may leave, in words; None if none."""
    if found.overflowing:
        return f"the synaptic sum of {found.overflowing[0]} may leave its register"
    limit = number_format.membrane_limit
    for what, bounds, bound in (
        ("synaptic current", found.current, limit),
        ("membrane", found.membrane, limit),
        ("bias set by the host", found.host_bias, number_format.bias_limit),
    ):
        if max(-bounds[0], bounds[1]) > bound:
            return f"the {what} may span {bounds[0]} to {bounds[1]}, its register holds +-{bound}"
    return None


def population_range(
    graph: Graph,
    population: Population,
    incoming: tuple[Projection, ...],
    number_format: NumberFormat,
) -> Range:
    """Bounds of one population with these projections (not necessarily the graph's own)."""
    zero = np.zeros(population.shape, np.int64)
    low, high, host_low, host_high = zero, zero, zero, zero
    most_arriving, overflowing = 0, []
    for projection in incoming:
        least, most = sum_range(graph, projection)
        if graph.on_host(projection):
            host_low = host_low + rounding_shift_right(least, -projection.exponent)
            host_high = host_high + rounding_shift_right(most, -projection.exponent)
        else:
            shift = projection.exponent + number_format.fraction_bits
            low, high = low + (least << shift), high + (most << shift)
            sent = max(int(np.abs(bound).max()) for bound in _sent(graph, projection))
            most_arriving += largest_sum(projection, sent) << shift
            if projection.sum_bits is not None and not _fits(least, most, projection.sum_bits):
                overflowing.append(projection.name)
    if most_arriving >= 1 << 62:  # the bounds themselves may have turned over in 64 bits
        low, high = zero - ENDLESS, zero + ENDLESS
    neurons = population.neurons
    bias = np.broadcast_to(neurons.bias.astype(np.int64), population.shape)
    host_low, host_high = host_low + bias, host_high + bias
    driven = (host_low << number_format.bias_shift, host_high << number_format.bias_shift)
    current, membrane = _state_ranges(graph, population, (low, high), driven, number_format)
    largest = max(-current[0], current[1], -membrane[0], membrane[1])
    return Range(
        current=current,
        membrane=membrane,
        host_bias=(int(host_low.min()), int(host_high.max())),
        bits=largest.bit_length() + 1,
        overflowing=tuple(overflowing),
    )


def _fits(least: Integers, most: Integers, bits: int) -> bool:
    """Whether sums between these bounds stay inside a two's-complement register."""
    half = 1 << (bits - 1)
    return -half <= int(least.min()) and int(most.max()) < half


def _sent(graph: Graph, projection: Projection) -> tuple[Integers, Integers]:
    """The least and the most that every source neuron may send in one timestep."""
    shape = graph.shape_of(projection.source)
    if graph.is_input(projection.source):
        spec = graph.input(projection.source)
        low, high = spec.encoded_range()
        if spec.kind == "graded":  # silent before its first value arrives and after its last
            low, high = np.minimum(low, 0), np.maximum(high, 0)
    else:
        low = np.zeros(shape)
        high = np.full(shape, graph.population(projection.source).max_spikes)
    return low.astype(np.int64), high.astype(np.int64)


def sum_range(graph: Graph, projection: Projection) -> tuple[Integers, Integers]:
    """Smallest and largest synaptic sum of every target neuron, in mantissas."""
    shape = graph.shape_of(projection.source)
    lowest, highest = (bound[None] for bound in _sent(graph, projection))
    weight = projection.synapses.weight.astype(np.int64)

    def total(part: Integers, values: Integers) -> Integers:
        same = replace(projection, synapses=with_weights(projection.synapses, part))
        return np.asarray(synaptic_sum(same, shape, values)[0])

    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    least = total(up, lowest) + total(down, highest)
    most = total(up, highest) + total(down, lowest)
    return least, most


def _state_ranges(
    graph: Graph,
    population: Population,
    arriving: tuple[Integers, Integers],
    bias: tuple[Integers, Integers],
    number_format: NumberFormat,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bounds of the current, and of the membrane before the reset, over all timesteps.

    ``arriving`` and ``bias`` are what may come in one timestep, in membrane units.
    """
    neurons, limit = population.neurons, number_format.membrane_limit

    def kept(state: Integers, decay: Integers | None) -> Integers:
        if decay is None:
            return np.zeros_like(state)
        spread = np.broadcast_to(decay.astype(np.int64), population.shape)
        return decayed(state, spread, number_format.decay_rule, number_format.decay_bits)

    if graph.timesteps is None:
        endless = _endless(graph, population, arriving, bias, number_format)
        if endless is not None:
            return endless
    zero = np.zeros(population.shape, np.int64)
    current_low, current_high, low, high = zero, zero, zero, zero
    currents, membranes = [0, 0], [0, 0]
    for step in range(graph.timesteps or _MOST_STEPS):
        next_current_low = kept(current_low, neurons.current_decay) + arriving[0]
        next_current_high = kept(current_high, neurons.current_decay) + arriving[1]
        reached_low = kept(low, neurons.decay) + next_current_low + bias[0]
        reached_high = kept(high, neurons.decay) + next_current_high + bias[1]
        for found, least, most in (
            (currents, next_current_low, next_current_high),
            (membranes, reached_low, reached_high),
        ):
            found[:] = min(found[0], int(least.min())), max(found[1], int(most.max()))
        after_low, after_high = _after_reset(population, reached_low, reached_high, number_format)
        before = (current_low, current_high, low, high)
        current_low = np.minimum(current_low, next_current_low)
        current_high = np.maximum(current_high, next_current_high)
        low, high = np.minimum(low, after_low), np.maximum(high, after_high)
        after = (current_low, current_high, low, high)
        if step and all((a == b).all() for a, b in zip(before, after, strict=True)):
            break
        if max(-currents[0], currents[1], -membranes[0], membranes[1]) > limit:
            break
    else:
        if graph.timesteps is None:
            membranes[1] = max(membranes[1], ENDLESS)  # still growing: not bounded
    return (currents[0], currents[1]), (membranes[0], membranes[1])


def _endless(
    graph: Graph,
    population: Population,
    arriving: tuple[Integers, Integers],
    bias: tuple[Integers, Integers],
    number_format: NumberFormat,
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The bounds of a state that grows for ever, found without waiting for it; None if none does.

    Without a leak what falls falls for ever; what rises does so unless it fires.
    """
    if number_format.decay_rule == "shift_subtract":  # every state leaks
        return None
    neurons, whole = population.neurons, 1 << number_format.decay_bits
    if neurons.current_decay is not None:
        lossless = np.broadcast_to(neurons.current_decay == whole, population.shape)
        falls, rises = lossless & (arriving[0] < 0), lossless & (arriving[1] > 0)
        if falls.any() or rises.any():
            bounds = -ENDLESS * int(falls.any()), ENDLESS * int(rises.any())
            return bounds, bounds
    lossless = np.broadcast_to(neurons.decay == whole, population.shape)
    falls = lossless & (arriving[0] + bias[0] < 0)
    rises = lossless & (arriving[1] + bias[1] > 0) & (not isinstance(neurons, LIF))
    if falls.any() or rises.any():
        bounds = -ENDLESS * int(falls.any()), ENDLESS * int(rises.any())
        return (int(arriving[0].min()), int(arriving[1].max())), bounds
    return None


def _after_reset(
    population: Population, low: Integers, high: Integers, number_format: NumberFormat
) -> tuple[Integers, Integers]:
    """Bounds after the comparison and reset, given bounds before."""
    neurons = population.neurons
    if not isinstance(neurons, LIF):
        return low, high
    shifted = np.broadcast_to(neurons.threshold.astype(np.int64), low.shape)
    # the largest membrane that does not fire
    silent = (shifted << number_format.threshold_shift) - (number_format.comparator == ">=")
    may_fire = high > silent
    if isinstance(neurons.reset, ResetSubtract):
        amount, most = int(neurons.reset.amount), population.max_spikes
        # After the last of several spikes the membrane is silent, or has fired as often as it may.
        started = np.maximum(low, silent + 1) if most == 1 else silent + 1
        fired_low = started - amount
        fired_high = high - amount
        if most > 1:
            fired_high = np.minimum(fired_high, np.maximum(silent, high - most * amount))
    else:
        fired_low = fired_high = np.full(low.shape, int(neurons.reset.value), np.int64)
    kept_low, kept_high = np.minimum(low, silent), np.minimum(high, silent)
    return (
        np.where(may_fire, np.minimum(kept_low, fired_low), kept_low),
        np.where(may_fire, np.maximum(kept_high, fired_high), kept_high),
    )
