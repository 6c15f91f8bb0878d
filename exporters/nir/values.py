"""What the numbers of a graph stand for in a NIR file: floats, in weight units.

Weights stay the integers that they are, times their projection's power of two; those of values
carry the input's step, so that the file takes normalised values as the trained network did. A float
graph's numbers stand for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract, ResetTo
from snn_deploy.numerics import NumberFormat, firing_level, kept_share

Array = NDArray[Any]
Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Dynamics:
    """A population's neurons: float64 arrays of the population's shape.

    ``i = current_kept * i + x`` (None: no memory), ``u = kept * u + i + bias``, a spike where u
    reaches ``threshold`` (None: an integrator); then u becomes ``reset``, or loses ``amount``, up
    to ``max_spikes`` times per timestep.
    """

    kept: Float
    current_kept: Float | None
    bias: Float
    threshold: Float | None
    reset: float
    amount: float | None
    max_spikes: int


def dynamics(graph: Graph, population: Population) -> Dynamics:
    """The neurons of a population, in float."""
    neurons, form, shape = population.neurons, graph.number_format, population.shape
    unit = 1.0 if form is None else 2.0**-form.fraction_bits

    def full(value: Array) -> Float:
        return np.ascontiguousarray(np.broadcast_to(value.astype(np.float64), shape))

    threshold, reset, amount = None, 0.0, None
    if isinstance(neurons, LIF):
        level = neurons.threshold
        if form is not None:
            level = firing_level(form, level.astype(np.int64))
        threshold = full(level) * unit
        if isinstance(neurons.reset, ResetTo):
            reset = neurons.reset.value * unit
        else:
            amount = neurons.reset.amount * unit
    return Dynamics(
        kept=full(_kept(neurons.decay, form)),
        current_kept=full(_kept(neurons.current_decay, form))
        if neurons.current_decay is not None and has_memory(graph, population)
        else None,
        bias=full(neurons.bias) * (1.0 if form is None else _bias_unit(form)),
        threshold=threshold,
        reset=reset,
        amount=amount,
        max_spikes=population.max_spikes,
    )


def has_memory(graph: Graph, population: Population) -> bool:
    """Whether anything of a synaptic current is left in the next timestep.

    What a host adds is no synaptic current.
    """
    memory = population.neurons.current_decay
    if memory is None or all(graph.on_host(p) for p in graph.incoming(population.name)):
        return False
    return bool((_kept(memory, graph.number_format) != 0).any())


def forgets(graph: Graph, population: Population) -> bool:
    """Whether nothing of a membrane is left in the next timestep."""
    return bool((_kept(population.neurons.decay, graph.number_format) == 0).all())


def weights(graph: Graph, projection: Projection) -> Float:
    """Weights of a projection, of the shape they have there; of values, per normalised unit."""
    weight = projection.synapses.weight.astype(np.float64) * 2.0**projection.exponent
    form = graph.number_format
    if form is not None and graph.carries_values(projection):
        weight /= graph.input(projection.source).scale or 1.0
        if graph.on_host(projection):
            weight *= _bias_unit(form)
    return weight


def _kept(decay: Array, form: NumberFormat | None) -> Float:
    if form is None:
        return decay.astype(np.float64)
    return kept_share(decay, form.decay_rule, form.decay_bits)


def _bias_unit(form: NumberFormat) -> float:
    return 2.0 ** (form.bias_shift - form.fraction_bits)


def rounds(graph: Graph) -> Iterator[str]:
    """Where an integer graph may round what these floats keep; nothing: it acts as they do.

    Values must lie on the input's grid for that. A decay cuts nothing as long as every membrane is
    a multiple of a power of two that outlasts the timesteps.
    """
    form = graph.number_format
    if form is None:
        return
    for projection in graph.projections:
        if graph.on_host(projection) and projection.exponent < 0:
            yield f"the host rounds the sum of {projection.name} to a bias"
    for population in graph.populations:
        neurons = population.neurons
        decays = [d for d in (neurons.decay, neurons.current_decay) if d is not None]
        lost = max(_bits_lost(d, form) for d in decays)
        spare = _spare_bits(graph, population, form)
        if lost and (graph.timesteps is None or lost * (graph.timesteps - 1) > spare):
            yield f"the decay of {population.name} cuts what is less than a membrane unit"


def _bits_lost(decay: Array, form: NumberFormat) -> int:
    """How many more fractional bits one decay may leave behind."""
    field = decay.astype(np.int64)
    if form.decay_rule == "shift_subtract":
        return int(field.max())
    return max(0, form.decay_bits - _trailing_zeros(field))


def _spare_bits(graph: Graph, population: Population, form: NumberFormat) -> int:
    """Every current, bias and reset of a population is a multiple of two to this power."""
    neurons = population.neurons
    bits = [form.bias_shift + _trailing_zeros(neurons.bias)]
    for projection in graph.incoming(population.name):
        if graph.on_host(projection):
            bits.append(form.bias_shift)
        else:
            zeros = _trailing_zeros(projection.synapses.weight)
            bits.append(form.fraction_bits + projection.exponent + zeros)
    if isinstance(neurons, LIF):
        reset = neurons.reset
        moved = reset.amount if isinstance(reset, ResetSubtract) else reset.value
        bits.append(_trailing_zeros(np.array(int(moved))))
    return min(bits)


def _trailing_zeros(values: Array) -> int:
    """The largest power of two, as an exponent, that divides all values; 64 if all are zero."""
    joined = int(np.bitwise_or.reduce(values.astype(np.int64), axis=None))
    return 64 if joined == 0 else (joined & -joined).bit_length() - 1
