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
from snn_deploy.numerics import NumberFormat, multiply_truncate, rounding_shift_right
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import with_weights

Integers = NDArray[np.int64]

# Membrane bounds of a network without a fixed number of timesteps converge, or grow for ever.
_MOST_STEPS = 1 << 17
_ENDLESS = 1 << 40


@dataclass(frozen=True, slots=True)
class Range:
    """Proved bounds of one population, in membrane units (host_bias in bias mantissas).

    ``current`` excludes biases; ``membrane`` is before the reset; ``bits`` is the narrowest signed
    register that holds both.
    """

    current: tuple[int, int]
    membrane: tuple[int, int]
    host_bias: tuple[int, int]
    bits: int


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
    for projection in incoming:
        least, most = sum_range(graph, projection)
        if graph.on_host(projection):
            host_low = host_low + rounding_shift_right(least, -projection.exponent)
            host_high = host_high + rounding_shift_right(most, -projection.exponent)
        else:
            shift = projection.exponent + number_format.fraction_bits
            low, high = low + (least << shift), high + (most << shift)
    neurons = population.neurons
    bias = np.broadcast_to(neurons.bias.astype(np.int64), population.shape)
    host_low, host_high = host_low + bias, host_high + bias
    drive_low = low + (host_low << number_format.bias_shift)
    drive_high = high + (host_high << number_format.bias_shift)
    membrane = _membrane_range(graph, population, drive_low, drive_high, number_format)
    current = int(low.min()), int(high.max())
    largest = max(-current[0], current[1], -membrane[0], membrane[1])
    return Range(
        current=current,
        membrane=membrane,
        host_bias=(int(host_low.min()), int(host_high.max())),
        bits=largest.bit_length() + 1,
    )


def sum_range(graph: Graph, projection: Projection) -> tuple[Integers, Integers]:
    """Smallest and largest synaptic sum of every target neuron, in mantissas."""
    shape = graph.shape_of(projection.source)
    if graph.is_input(projection.source):
        spec = graph.input(projection.source)
        low, high = spec.encoded_range()
        if spec.kind == "graded":  # silent before its first value arrives and after its last
            low, high = np.minimum(low, 0), np.maximum(high, 0)
    else:
        low, high = np.zeros(shape), np.ones(shape)
    lowest, highest = low.astype(np.int64)[None], high.astype(np.int64)[None]
    weight = projection.synapses.weight.astype(np.int64)

    def total(part: Integers, values: Integers) -> Integers:
        same = replace(projection, synapses=with_weights(projection.synapses, part))
        return np.asarray(synaptic_sum(same, shape, values)[0])

    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    least = total(up, lowest) + total(down, highest)
    most = total(up, highest) + total(down, lowest)
    return least, most


def _membrane_range(
    graph: Graph,
    population: Population,
    drive_low: Integers,
    drive_high: Integers,
    number_format: NumberFormat,
) -> tuple[int, int]:
    """Bounds of the membrane before the reset over all timesteps."""
    neurons = population.neurons
    decay = np.broadcast_to(neurons.decay.astype(np.int64), population.shape)
    low = high = np.zeros(population.shape, np.int64)
    lowest, highest = 0, 0
    if graph.timesteps is None:
        # without a leak what falls falls for ever; what rises does so unless it fires
        endless = decay == 1 << number_format.decay_bits
        falls = endless & (drive_low < 0)
        rises = endless & (drive_high > 0) & (not isinstance(neurons, LIF))
        if falls.any() or rises.any():
            return -_ENDLESS * int(falls.any()), _ENDLESS * int(rises.any())
    for step in range(graph.timesteps or _MOST_STEPS):
        reached_low = multiply_truncate(low, decay, number_format.decay_bits) + drive_low
        reached_high = multiply_truncate(high, decay, number_format.decay_bits) + drive_high
        lowest = min(lowest, int(reached_low.min()))
        highest = max(highest, int(reached_high.max()))
        after_low, after_high = _after_reset(neurons, reached_low, reached_high, number_format)
        if step and (after_low >= low).all() and (after_high <= high).all():
            break
        low, high = np.minimum(low, after_low), np.maximum(high, after_high)
        if max(-lowest, highest) > number_format.membrane_limit:
            break
    else:
        if graph.timesteps is None:
            highest = max(highest, _ENDLESS)  # still growing: not bounded
    return lowest, highest


def _after_reset(
    neurons: object, low: Integers, high: Integers, number_format: NumberFormat
) -> tuple[Integers, Integers]:
    """Bounds after the comparison and reset, given bounds before."""
    if not isinstance(neurons, LIF):
        return low, high
    shifted = np.broadcast_to(neurons.threshold.astype(np.int64), low.shape)
    # the largest membrane that does not fire
    silent = (shifted << number_format.threshold_shift) - (number_format.comparator == ">=")
    may_fire = high > silent
    if isinstance(neurons.reset, ResetSubtract):
        amount = int(neurons.reset.amount)
        fired_low, fired_high = np.maximum(low, silent + 1) - amount, high - amount
    else:
        fired_low = fired_high = np.full(low.shape, int(neurons.reset.value), np.int64)
    kept_low, kept_high = np.minimum(low, silent), np.minimum(high, silent)
    return (
        np.where(may_fire, np.minimum(kept_low, fired_low), kept_low),
        np.where(may_fire, np.maximum(kept_high, fired_high), kept_high),
    )
