"""One timestep of a graph: what is sent, what waits, what every population does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from snn_deploy.exporters.onnx.emission import INT32, INT64, UINT8, Emitter
from snn_deploy.exporters.onnx.neurons import (
    decayed,
    fired,
    in_register,
    parameter,
    rounded,
    wrapped,
)
from snn_deploy.exporters.onnx.spans import (
    NOTHING,
    Span,
    current_span,
    limited,
    membrane_span,
    register,
    span_of,
    sum_span,
)
from snn_deploy.exporters.onnx.sums import Source, delayed_weights, pooled, weighted_sum

from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection
from snn_deploy.synapses import Dense, Shape


@dataclass(frozen=True, slots=True)
class State:
    """A value that one timestep hands to the next, [batch, *shape]; zero in the beginning."""

    name: str
    shape: Shape
    kind: int


def input_kind(spec: InputSpec) -> int:
    """ONNX type of an input: spikes are bytes, values the integers of ``InputSpec.encode``."""
    return UINT8 if spec.kind == "spikes" else INT32


class Timestep:
    """Emits one timestep.

    ``inputs``: name of the value that holds what each input sends in this timestep. Afterwards
    ``states`` lists what is handed on, ``handed_on`` the value of each, and ``spikes`` the spikes
    of each spiking population.
    """

    def __init__(self, graph: Graph, emit: Emitter, inputs: dict[str, str]) -> None:
        if graph.number_format is None:
            raise ValueError("only integer graphs are exported")
        self.graph, self.emit, self.form = graph, emit, graph.number_format
        self.states: list[State] = []
        self.handed_on: dict[str, str] = {}
        self.spikes: dict[str, str] = {}
        self._now = dict(inputs)
        self._sources = {
            spec.name: Source("", spec.shape, _encoded_span(spec), input_kind(spec))
            for spec in graph.inputs
        }
        for population in graph.spiking():
            most = Span(0, population.max_spikes)
            self._sources[population.name] = Source("", population.shape, most, UINT8)
        self._longest = _longest_delays(graph)
        for name, steps in self._longest.items():
            source = self._sources[name]
            self._state(f"{name}/history", (steps, *source.shape), source.kind)
        for population in graph.populations:
            self._state(f"{population.name}/membrane", population.shape, INT64)
            if population.neurons.current_decay is not None:
                self._state(f"{population.name}/current", population.shape, INT64)
        for name in (name for group in graph.order for name in group):
            self._population(graph.population(name))
        for name, steps in self._longest.items():
            state = f"{name}/history"
            one = emit.constant((1,))
            now = emit.add("Unsqueeze", [self._now[name], one], f"{state}_now")
            if steps > 1:
                ends = [emit.constant((n,)) for n in (0, steps - 1, 1)]
                kept = emit.add("Slice", [state, *ends], f"{state}_kept")
                now = emit.add("Concat", [now, kept], f"{state}_now", axis=1)
            self.handed_on[state] = now

    def _state(self, name: str, shape: Shape, kind: int) -> None:
        self.states.append(State(name, shape, kind))
        self.emit.varying.add(name)

    def _population(self, population: Population) -> None:
        emit, form, place, neurons = self.emit, self.form, population.name, population.neurons
        arriving, drive, biases, bias = self._incoming(population)
        if neurons.current_decay is not None:
            name = f"{place}/current_decay"
            kept = decayed(emit, f"{place}/current", neurons.current_decay, form, name)
            arriving += [] if kept is None else [kept]
        span = current_span(population, drive, form)
        driven = []
        if arriving:
            total = emit.total(arriving, f"{place}/arriving")
            rule, name = form.current_overflow, f"{place}/current_limited"
            driven.append(in_register(emit, total, span, form, rule, name))
        if neurons.current_decay is not None:  # where nothing ever arrives, it stays zero
            state = f"{place}/current"
            self.handed_on[state] = driven[0] if driven else state
        if biases:
            total = emit.total(biases, f"{place}/biased")
            driven.append(emit.scaled(total, 1 << form.bias_shift, f"{place}/biased"))
        kept = decayed(emit, f"{place}/membrane", neurons.decay, form, f"{place}/decay")
        driven += [] if kept is None else [kept]
        span = limited(span, form, form.current_overflow) + (bias << form.bias_shift)
        span = membrane_span(population, span, form)
        total = emit.total(driven, f"{place}/driven")
        rule, name = form.membrane_overflow, f"{place}/membrane_limited"
        membrane = in_register(emit, total, span, form, rule, name)
        if isinstance(neurons, LIF):
            spikes, membrane = fired(emit, membrane, population, neurons, form)
            self.spikes[place] = self._now[place] = spikes
        self.handed_on[f"{place}/membrane"] = membrane

    def _incoming(self, population: Population) -> tuple[list[str], Span, list[str], Span]:
        """Currents and how far they get, then bias mantissas and how far they get."""
        arriving, biases = [], []
        drive, bias = NOTHING, span_of(population.neurons.bias)
        for projection in self.graph.incoming(population.name):
            value, span = self._projection(projection)
            if self.graph.on_host(projection):
                biases.append(value)
                bias += span
            else:
                arriving.append(value)
                drive += span
        if population.neurons.bias.any():
            own = parameter(self.emit, population.neurons.bias, f"{population.name}/bias")
            biases.append(own)
        return arriving, drive, biases, bias

    def _projection(self, projection: Projection) -> tuple[str, Span]:
        """What a projection adds, int64 [batch, *target shape]: a bias mantissa or a current."""
        emit, form, place = self.emit, self.form, projection.name
        on_host = self.graph.on_host(projection)
        synapses = projection.synapses
        step = 1 if on_host else form.weight_step
        digits = emit.stored.weights(
            f"{place}/weight", synapses.weight, step, matrix=isinstance(synapses, Dense)
        )
        constant = self.graph.is_constant(projection)
        differ = projection.shortest_delay < projection.longest_delay
        if isinstance(projection.delay, np.ndarray) and differ and not constant:
            delays = parameter(emit, projection.delay, f"{place}/delay")
            delays = emit.add("Transpose", [delays], f"{place}/delay_transposed", perm=(1, 0))
            values = [int(value) for value in np.unique(projection.delay)]
            shape = synapses.weight.shape[::-1]
            digits = delayed_weights(emit, digits, delays, values, shape, place)
            source = self._arrived(projection, values)
            rows = emit.reshaped(source.name, (-1,), f"{place}/arrived")
            source = replace(source, name=rows, shape=(len(values) * shape[0],))
        else:
            source = self._arrived(projection, 0 if constant else projection.longest_delay)
        if projection.pool is not None:
            source = pooled(emit, source, projection.pool, place)
        span = sum_span(projection, source.span)
        if on_host:
            total = weighted_sum(emit, source, synapses, digits, step, place)
            shift = -projection.exponent
            half = (1 << shift) >> 1
            bounds = Span(span.low + half >> shift, span.high + half >> shift)
            return rounded(emit, total, shift, f"{place}/rounded"), bounds
        shift = projection.exponent + form.fraction_bits
        bits = projection.sum_bits
        if bits is None or span.fits(bits):
            return weighted_sum(emit, source, synapses, digits, step << shift, place), span << shift
        total = weighted_sum(emit, source, synapses, digits, step, place)
        total = wrapped(emit, total, bits, f"{place}/turned")
        return emit.scaled(total, 1 << shift, f"{place}/turned"), register(bits) << shift

    def _arrived(self, projection: Projection, delay: int | list[int]) -> Source:
        """What was sent ``delay`` timesteps ago; of several delays, along an axis 1."""
        emit, name = self.emit, projection.source
        source = self._sources[name]
        if delay == 0:
            return replace(source, name=self._now[name])
        history = f"{name}/history"
        if np.min(delay) == 0:
            one = emit.constant((1,))
            now = emit.add("Unsqueeze", [self._now[name], one], f"{projection.name}/now")
            history = emit.add("Concat", [now, history], f"{projection.name}/history", axis=1)
        else:
            delay = delay - 1 if isinstance(delay, int) else [value - 1 for value in delay]
        places = emit.constant(delay if isinstance(delay, int) else tuple(delay))
        found = emit.add("Gather", [history, places], f"{projection.name}/arrived", axis=1)
        return replace(source, name=found)


def _encoded_span(spec: InputSpec) -> Span:
    """What an input may send, silence included."""
    if spec.kind == "spikes":
        return Span(0, 1)
    ends = [spec.encode(np.asarray(end)) for end in (spec.low, spec.high)]
    return span_of(np.concatenate([end.reshape(-1) for end in ends]))


def _longest_delays(graph: Graph) -> dict[str, int]:
    """Per input or population whose spikes or values wait, the longest time."""
    found: dict[str, int] = {}
    for projection in graph.projections:
        if not graph.is_constant(projection) and projection.longest_delay > 0:
            longest = max(projection.longest_delay, found.get(projection.source, 0))
            found[projection.source] = longest
    return found
