"""The certificate of a range proof: what an exported folder claims, and a check without the prover.

:func:`certificate` puts the proved bounds beside a digest of the integer network that they hold
for. :func:`check_certificate` believes none of it: it takes the bounds as a claim about every state
and takes one timestep from them. If currents and membranes stay inside for every input, the claim
holds for any number of timesteps (it is inductive). Where it is not, since states grow as long as
the run lasts, the check follows them from silence for as many timesteps as the network runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, ResetSubtract
from snn_deploy.numerics import NumberFormat, decayed, rounding_shift_right, spikes_fired
from snn_deploy.quantization.ranges import Range
from snn_deploy.quantization.sums import arrivals, sent, signed_bits, sum_range, with_silence
from snn_deploy.sim.reference import largest_sum

Integers = NDArray[np.int64]
Bounds = tuple[Integers, Integers]
Span = tuple[int, int]


def certificate(graph: Graph, ranges: dict[str, Range]) -> dict[str, Any]:
    """What is claimed of a network, as data for JSON.

    ``network`` is the digest of :func:`network_digest`; ``timesteps`` and ``inputs`` (encoded
    values) are what the claim assumes; ``populations`` holds the bounds in membrane units (biases
    in mantissas), the widths needed and there, and the sums of every projection in mantissas.
    """
    number_format = _format(graph)
    populations = {}
    for population in graph.populations:
        found = ranges[population.name]
        populations[population.name] = {
            "current": list(found.current),
            "membrane": list(found.membrane),
            "host_bias": list(found.host_bias),
            "bits": {"needed": found.bits, "declared": number_format.membrane_bits},
            "accumulators": {
                p.name: asdict(found.accumulators[p.name]) | {"declared": p.sum_bits}
                for p in graph.incoming(population.name)
            },
        }
    return {
        "network": network_digest(graph),
        "timesteps": graph.timesteps,
        "inputs": _assumed(graph),
        "populations": populations,
    }


def check_certificate(graph: Graph, claimed: Any) -> None:
    """Check what a certificate claims of a network.

    Raises
    ------
    SnnDeployError
        SD409 naming the population whose bounds do not hold, or saying that the certificate is of
        another network or assumes another input.
    """
    try:
        fault = next(_faults(graph, claimed), None)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        fault = (None, f"the certificate is not readable: {error!r}")
    if fault is not None:
        raise SnnDeployError(
            "SD409",
            fault[1],
            where=fault[0],
            why="the proof that no register overflows does not hold for this network",
            fix="export again",
        )


def network_digest(graph: Graph) -> str:
    """SHA-256 of all that a graph's integer arithmetic depends on, in hexadecimal.

    Names, geometry, integers as int64 in full shape, number format and input encoding; neither the
    order in which populations are listed nor how narrow their arrays are stored.
    """
    digest = hashlib.sha256()

    def add(*parts: Any) -> None:
        digest.update(json.dumps(parts, sort_keys=True, default=_plain).encode() + b"\n")

    def array(name: str, value: Any, shape: tuple[int, ...]) -> None:
        digest.update(f"{name} {shape} ".encode())
        digest.update(np.broadcast_to(value, shape).astype("<i8").tobytes())

    add("format", asdict(_format(graph)), graph.timesteps, sorted(graph.outputs))
    for spec in sorted(graph.inputs, key=lambda spec: spec.name):
        add("input", asdict(spec))
    for population in sorted(graph.populations, key=lambda population: population.name):
        neurons = population.neurons
        add("population", population.name, type(neurons).__name__, population.max_spikes)
        for name in ("decay", "current_decay", "threshold", "bias"):
            value = getattr(neurons, name, None)
            if value is not None:
                array(name, value, population.shape)
        if isinstance(neurons, LIF):
            add("reset", type(neurons.reset).__name__, asdict(neurons.reset))
        add("readout", neurons.readout)
    for projection in sorted(graph.projections, key=lambda projection: projection.name):
        synapses = {k: v for k, v in asdict(projection.synapses).items() if k != "weight"}
        pool = None if projection.pool is None else asdict(projection.pool)
        add("projection", projection.name, type(projection.synapses).__name__, synapses, pool)
        add(projection.exponent, projection.sum_bits)
        array("weight", projection.synapses.weight, projection.synapses.weight.shape)
        array("delay", projection.delay, projection.synapses.weight.shape)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON does not know: arrays and numpy's numbers."""
    return value.tolist()


def _format(graph: Graph) -> NumberFormat:
    if graph.number_format is None:
        raise ValueError("ranges are proved of integer graphs")
    return graph.number_format


def _assumed(graph: Graph) -> dict[str, Any]:
    """Per input, the kind and the range of its encoded values."""
    found = {}
    for spec in graph.inputs:
        low, high = spec.encoded_range()
        found[spec.name] = {"kind": spec.kind, "low": int(low.min()), "high": int(high.max())}
    return found


# The check.


def _faults(graph: Graph, claimed: Any) -> Iterator[tuple[str | None, str]]:
    """What of a certificate does not hold: where, and what."""
    if claimed["network"] != network_digest(graph):
        yield None, "the range proof is of another network"
    if claimed["timesteps"] != graph.timesteps or claimed["inputs"] != _assumed(graph):
        yield None, "the range proof assumes another input"
    if claimed["populations"].keys() != {p.name for p in graph.populations}:
        yield None, "the range proof leaves populations out"
    for population in graph.populations:
        name, bounds = population.name, claimed["populations"][population.name]
        for fault in _faults_of_sums(graph, population, bounds["accumulators"]):
            yield name, fault
        for fault in _faults_of_states(graph, population, bounds):
            yield name, fault


def _span(value: Any) -> Span:
    """An interval around 0, as a certificate holds it."""
    low, high = value
    if type(low) is not int or type(high) is not int or not -(1 << 40) < low <= 0 <= high < 1 << 40:
        raise ValueError(f"{value!r} is no interval around 0")
    return low, high


def _faults_of_sums(graph: Graph, population: Population, claimed: Any) -> Iterator[str]:
    incoming = graph.incoming(population.name)
    if claimed.keys() != {p.name for p in incoming}:
        yield "sums of its projections are missing"
        return
    for projection in incoming:
        sums = claimed[projection.name]
        low, high = sums["low"], sums["high"]
        least, most = sum_range(graph, projection, with_silence(*sent(graph, projection)))
        if least.min() < low or most.max() > high or signed_bits(low, high) > sums["bits"]:
            yield f"the sum of {projection.name} does not stay within {low} to {high}"
        if projection.sum_bits is not None and sums["bits"] > projection.sum_bits:
            least, most = sum_range(graph, projection)  # what is added up in the end
            if signed_bits(int(least.min()), int(most.max())) > projection.sum_bits:
                yield f"the sum of {projection.name} does not fit its register"


def _faults_of_states(graph: Graph, population: Population, bounds: Any) -> Iterator[str]:
    number_format = _format(graph)
    current, membrane = _span(bounds["current"]), _span(bounds["membrane"])
    host_low, host_high = bounds["host_bias"]
    largest = max(map(abs, (*current, *membrane)))
    if largest >> (bounds["bits"]["needed"] - 1) or largest > number_format.membrane_limit:
        yield "its bounds do not fit its registers"
    if bounds["bits"]["declared"] != number_format.membrane_bits:
        yield "its registers are of another width"
    if max(-host_low, host_high) > number_format.bias_limit:
        yield "its bias does not fit its register"
    bias = _bias(graph, population)
    if bias[0].min() < host_low or bias[1].max() > host_high:
        yield "its bias leaves its bounds"
    step = _Step(graph, population, bias)
    if step.stays(current, membrane):
        return
    if not step.stays_for(graph.timesteps, current, membrane):
        yield "its current or membrane leaves its bounds"


def _bias(graph: Graph, population: Population) -> Bounds:
    """Bounds of the bias mantissas, what the host adds included."""
    own = np.broadcast_to(population.neurons.bias.astype(np.int64), population.shape)
    low = high = own
    for projection in graph.incoming(population.name):
        if graph.on_host(projection):
            least, most = sum_range(graph, projection)
            low = low + rounding_shift_right(least, -projection.exponent)
            high = high + rounding_shift_right(most, -projection.exponent)
    return low, high


class _Step:
    """One timestep of a population's neurons, from bounds of their states to bounds of the next."""

    def __init__(self, graph: Graph, population: Population, bias: Bounds) -> None:
        self.population, self.format = population, _format(graph)
        self.bias = bias[0] << self.format.bias_shift, bias[1] << self.format.bias_shift
        zero = np.zeros(population.shape, np.int64)
        self.arriving: list[tuple[int, Bounds]] = [(0, (zero, zero))]
        room = 1 << 62  # what sums in 64 bits may come to
        for projection in graph.incoming(population.name):
            if graph.on_host(projection):
                continue
            factor = 1 << (projection.exponent + self.format.fraction_bits)
            room -= factor * largest_sum(projection, _largest(sent(graph, projection)))
            for delay, (low, high) in arrivals(graph, projection).items():
                self.arriving.append((delay, (low * factor, high * factor)))
        if room <= 0:
            raise OverflowError("sums beyond 64 bits")

    def _added(self, step: int | None) -> Bounds:
        """What may arrive in a step; None: in any step."""
        ends = [bounds for delay, bounds in self.arriving if step is None or delay <= step]
        low, high = (np.sum(end, axis=0) for end in zip(*ends, strict=True))
        return low, high

    def _left(self, states: Bounds, decay: NDArray[Any] | None) -> Bounds:
        if decay is None:
            return np.zeros_like(states[0]), np.zeros_like(states[1])
        rule, bits = self.format.decay_rule, self.format.decay_bits
        low, high = (decayed(s, decay.astype(np.int64), rule, bits) for s in states)
        return low, high

    def _next(self, current: Bounds, after: Bounds, step: int | None) -> tuple[Bounds, Bounds]:
        """Bounds of the current, and of the membrane before the reset."""
        neurons, added = self.population.neurons, self._added(step)
        kept = self._left(current, neurons.current_decay)
        low, high = kept[0] + added[0], kept[1] + added[1]
        left = self._left(after, neurons.decay)
        return (low, high), (left[0] + low + self.bias[0], left[1] + high + self.bias[1])

    def stays(self, current: Span, membrane: Span) -> bool:
        """Whether no step leads out of these bounds, whatever the state in them."""
        shape = self.population.shape
        spread = [np.full(shape, end, np.int64) for end in (*current, *membrane)]
        after = self._after(spread[2], spread[3])
        made = self._next((spread[0], spread[1]), after, None)
        return _inside(made[0], current) and _inside(made[1], membrane)

    def stays_for(self, steps: int | None, current: Span, membrane: Span) -> bool:
        """Whether no run from silence, begun at any time, leaves these bounds in so many steps.

        None: in any number, which is decided once nothing changes any more.
        """
        zero = np.zeros(self.population.shape, np.int64)
        states, after = (zero, zero), (zero, zero)
        for step in count():
            if step == steps:
                break
            made, reached = self._next(states, after, step)
            if not (_inside(made, current) and _inside(reached, membrane)):
                return False
            earlier = *states, *after
            states, after = _joined(states, made), _joined(after, self._after(*reached))
            settled = all((a == b).all() for a, b in zip(earlier, (*states, *after), strict=True))
            if settled and step >= max(delay for delay, _ in self.arriving):
                break
        return True

    def _after(self, low: Integers, high: Integers) -> Bounds:
        """Bounds after comparison and reset, 0 included.

        They change course only where one spike more begins: there, one below, and the ends are all
        that need be looked at.
        """
        neurons, most = self.population.neurons, self.population.max_spikes
        if not isinstance(neurons, LIF):
            return np.minimum(low, 0), np.maximum(high, 0)
        threshold = neurons.threshold.astype(np.int64) << self.format.threshold_shift
        subtracts = isinstance(neurons.reset, ResetSubtract)
        amount = int(neurons.reset.amount) if isinstance(neurons.reset, ResetSubtract) else 1
        fires = threshold + (self.format.comparator == ">")  # the lowest that does
        least, largest = np.zeros_like(low), np.zeros_like(high)
        turns = (fires + k * amount for k in range(most if subtracts else 1))
        for place in (low, high, *(turn + d for turn in turns for d in (-1, 0))):
            state = np.clip(place, low, high)
            fired = spikes_fired(state, threshold, amount, most, self.format.comparator)
            if isinstance(neurons.reset, ResetSubtract):
                state = state - fired * amount
            else:
                state = np.where(fired > 0, int(neurons.reset.value), state)
            least, largest = np.minimum(least, state), np.maximum(largest, state)
        return least, largest


def _largest(bounds: Bounds) -> int:
    return max(int(np.abs(bound).max()) for bound in bounds)


def _joined(one: Bounds, other: Bounds) -> Bounds:
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])


def _inside(made: Bounds, span: Span) -> bool:
    return bool(made[0].min() >= span[0] and made[1].max() <= span[1])
