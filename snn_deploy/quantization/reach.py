"""How near to its proved range an input gets: the witness beside the range proof.

For a population that only the graph's inputs feed, an input is searched that drives one neuron's
membrane (before the reset) or current as far as it goes. The result is an input, not a claim: run
it in ``reference``. What deeper populations do depends on others; :func:`observed` reports what a
recording makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, InputSpec, Population
from snn_deploy.numerics import NumberFormat, decayed, rounding_shift_right
from snn_deploy.packets import Recording
from snn_deploy.quantization.drive import Drive
from snn_deploy.quantization.edges import current_edges, membrane_edges
from snn_deploy.quantization.ranges import ENDLESS, NeuronRanges, neuron_ranges
from snn_deploy.quantization.search import SIDES, Found, Side, furthest
from snn_deploy.sim import EngineName, simulate_batches
from snn_deploy.sim.plan import with_sample_axis
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import as_map, axis_reach

Integers = NDArray[np.int64]
# Timesteps of an input where the graph leaves their number open.
_STEPS = 64
# Neurons of a population that are looked at, and how near to the bound is near enough.
_LOOKED_AT, _NEAR = 32, 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """One side of one population: what is proved, and what an input reaches.

    Attributes
    ----------
    neuron : in C, H, W order.
    proved : the range proof's bound, in membrane units, over all neurons.
    bound : no run from silence in zero-delay timing gets further; never beyond ``proved``, which
        also holds for what comes late, and if neurons are cleared on the way.
    reached : what ``recording`` drives the neuron to, in registers that are wide enough.
    recording : one sample.
    """

    neuron: int
    proved: int
    bound: int
    reached: int
    recording: Recording


@dataclass(frozen=True, slots=True)
class Observed:
    """Smallest and largest current, and membrane before the reset, in membrane units."""

    current: tuple[int, int]
    membrane: tuple[int, int]


def is_free(graph: Graph, population: str) -> bool:
    """Whether only the graph's inputs feed a population."""
    return all(graph.is_input(p.source) for p in graph.incoming(population))


def worst_input(
    graph: Graph,
    population: str,
    neuron: int | None = None,
    side: Side = "membrane+",
    *,
    steps: int | None = None,
) -> Recording:
    """An input that drives a population as far as its inputs can; see :func:`reach`.

    Returns
    -------
    Recording
        One sample: spikes uint8 [1, T, *shape], values float64 [1, (T,) *shape].
    """
    return reach(graph, population, neuron, side, steps=steps).recording


def reach(
    graph: Graph,
    population: str,
    neuron: int | None = None,
    side: Side = "membrane+",
    *,
    steps: int | None = None,
) -> Reach:
    """What is proved of one side of a population's registers, and what an input reaches.

    Parameters
    ----------
    graph : integer graph; its ranges need not be proved.
    population : one that only inputs feed.
    neuron : in C, H, W order; default: whichever gets furthest.
    side : ``membrane`` is before the reset, without the register's limit.
    steps : length of the input where the graph leaves it open; default 64.

    Raises
    ------
    SnnDeployError
        SD104 if other populations feed this one, SD105 for an unknown population or side.
    """
    form = graph.number_format
    if form is None:
        raise ValueError("ranges are proved of integer graphs")
    if side not in SIDES or all(p.name != population for p in graph.populations):
        raise SnnDeployError("SD105", f"no {side!r} of a population {population!r}")
    if not is_free(graph, population):
        raise SnnDeployError(
            "SD104",
            "an input is built for populations that only inputs feed",
            where=population,
            why="what other populations can send at once is not known",
            fix="compare the proved range with `observed` on a recording",
        )
    one = graph.population(population)
    ranges = neuron_ranges(graph, one, graph.incoming(population), form)
    proved = _ends(ranges, side)
    up = side.endswith("+")
    length = graph.timesteps or steps or _STEPS
    order = np.array([neuron])
    if neuron is None:
        order = np.argsort(-proved if up else proved, kind="stable")
        order = order[np.sort(np.unique(_kinds(graph, one)[order], return_index=True)[1])]
    best: tuple[int, int, Recording] | None = None
    bound = 0
    for looked_at, place in enumerate(int(place) for place in order):
        rest = int(proved[place])
        near = best is not None and abs(best[1]) >= _NEAR * abs(rest)
        if near or looked_at == _LOOKED_AT:
            bound = max(bound, rest) if up else min(bound, rest)
            break
        drive = Drive.of(graph, one, place, form)
        found = furthest(drive, length)[side]
        edge = found.value
        if not found.complete or graph.timesteps is None:
            edge = _sharp(graph, drive, ranges, place, side)
        bound = max(bound, edge) if up else min(bound, edge)
        if best is None or (found.value > best[1] if up else found.value < best[1]):
            best = place, found.value, _recording(graph, drive, found, length)
    if best is None:
        raise ValueError("a population has neurons")
    extreme = proved.max() if up else proved.min()
    return Reach(best[0], int(extreme if neuron is None else proved[neuron]), bound, *best[1:])


def _ends(ranges: NeuronRanges, side: Side) -> Integers:
    """Proved bound of every neuron, flat."""
    bounds = ranges.membrane if side.startswith("membrane") else ranges.current
    return np.asarray(bounds[side.endswith("+")].reshape(-1))


def _sharp(graph: Graph, drive: Drive, ranges: NeuronRanges, place: int, side: Side) -> int:
    """The tighter of what is proved of a neuron and what its edges are."""
    proved = int(_ends(ranges, side)[place])
    low, high = (int(bound.reshape(-1)[place]) for bound in ranges.current)
    if max(-low, high) >= ENDLESS or ranges.most_arriving >= ENDLESS:
        return proved
    edges: tuple[int, int] | None
    if side.startswith("membrane"):
        edges = membrane_edges(drive, graph.timesteps, (low, high))
    else:
        edges = None if graph.timesteps is None else current_edges(drive, graph.timesteps)
    if edges is None:
        return proved
    return min(proved, edges[1]) if side.endswith("+") else max(proved, edges[0])


def _kinds(graph: Graph, population: Population) -> Integers:
    """A number for every neuron, the same only for neurons that can do the same, flat.

    They have the same parameters, and lie in one channel where its kernel meets as much of the
    source: inside the border of a map, all are alike.
    """
    neurons, shape = population.neurons, as_map(population.shape)
    parts = [np.arange(shape[0]).reshape(-1, 1, 1)]
    values = (neurons.decay, neurons.bias, neurons.current_decay, _threshold(population))
    parts += [
        np.broadcast_to(value, population.shape).reshape(shape)
        for value in values
        if value is not None
    ]
    for projection in graph.incoming(population.name):
        source = graph.shape_of(projection.source)
        axes = axis_reach(projection.synapses, projection.pool, source)
        for axis, place in zip(axes, ((1, -1, 1), (1, 1, -1)), strict=True):
            met = [tuple(taps for _, taps in row) for row in axis.taps]
            number = {pattern: index for index, pattern in enumerate(dict.fromkeys(met))}
            parts.append(np.array([number[pattern] for pattern in met]).reshape(place))
    table = np.stack([np.broadcast_to(part, shape).reshape(-1) for part in parts], axis=1)
    return np.asarray(np.unique(table, axis=0, return_inverse=True)[1].reshape(-1))


def _threshold(population: Population) -> Integers | None:
    return population.neurons.threshold if isinstance(population.neurons, LIF) else None


# From sums to a recording.


def _recording(graph: Graph, drive: Drive, found: Found, steps: int) -> Recording:
    """The input that makes the sums of a path; silent, or nearest to it, elsewhere."""
    encoded: dict[str, Integers] = {}
    for spec in graph.inputs:
        low, high = (bound.astype(np.int64).reshape(-1) for bound in spec.encoded_range())
        quiet = np.clip(0, low, high)
        encoded[spec.name] = quiet if spec.kind == "constant" else np.tile(quiet, (steps, 1))
    for step, (sums, taps, place) in enumerate(found.path):
        values = sums.inputs(place)
        for name in np.unique(taps.source):
            own = taps.source == name
            encoded[str(name)][step - taps.delay[own], taps.index[own]] = values[own]
    fixed = [taps for _, taps in drive.host] or [drive.constant]
    for taps, sums in zip(fixed, found.constants, strict=True):
        values = sums.inputs(found.constant)
        for name in np.unique(taps.source):
            own = taps.source == name
            encoded[str(name)][taps.index[own]] = values[own]
    spikes, values_of = {}, {}
    for spec in graph.inputs:
        lead = (1,) if spec.kind == "constant" else (1, steps)
        array = encoded[spec.name].reshape(*lead, *spec.shape)
        if spec.kind == "spikes":
            spikes[spec.name] = array.astype(np.uint8)
        else:
            values_of[spec.name] = _raw(spec, array)
    return Recording(spikes=spikes, values=values_of)


def _raw(spec: InputSpec, encoded: Integers) -> NDArray[np.float64]:
    """Raw values that are encoded as these integers."""
    per_channel = (-1, *([1] * (len(spec.shape) - 1)))
    mean, std = spec.mean.reshape(per_channel), spec.std.reshape(per_channel)
    raw = encoded * (spec.scale or 1.0) * std + mean
    clipped = np.clip(raw, spec.low, spec.high)
    if not np.array_equal(spec.encode(clipped), encoded):
        raise ValueError("an encoded value has no raw value inside the declared range")
    return np.asarray(clipped, np.float64)


# What a recording makes of every population.


def observed(
    graph: Graph, recording: Recording, *, engine: EngineName = "reference"
) -> dict[str, Observed]:
    """Smallest and largest currents and membranes of every population over a recording.

    Membranes are before the reset and before the register's limit: rebuilt from the traced
    membranes of the step before and the traced currents. A neuron begins at 0, which counts.

    Raises
    ------
    SnnDeployError
        SD103 or SD106 if the recording does not fit the graph.
    """
    form = graph.number_format
    if form is None:
        raise ValueError("ranges are observed of integer graphs")
    recording = with_sample_axis(graph, recording)
    found: dict[str, Observed] = {}
    done = 0
    for trace in simulate_batches(graph, recording, engine=engine, trace=True):
        count = trace.record.samples
        part = recording.part(done, done + count)
        done += count
        for population in graph.populations:
            name = population.name
            host = _host_bias(graph, population, part)
            current = trace.current[name]
            reached = _before_reset(population, trace.membrane[name], current, host, form)
            for values in _extremes(current, reached):
                found[name] = _joined(found.get(name), values)
    return found


def _extremes(current: Integers, membrane: Integers) -> Iterator[Observed]:
    yield Observed(
        (min(0, int(current.min())), max(0, int(current.max()))),
        (min(0, int(membrane.min())), max(0, int(membrane.max()))),
    )


def _joined(one: Observed | None, other: Observed) -> Observed:
    if one is None:
        return other
    return Observed(
        (min(one.current[0], other.current[0]), max(one.current[1], other.current[1])),
        (min(one.membrane[0], other.membrane[0]), max(one.membrane[1], other.membrane[1])),
    )


def _before_reset(
    population: Population, after: Integers, current: Integers, host: Integers, form: NumberFormat
) -> Integers:
    """Membranes before limit and reset, [samples, steps, *shape]."""
    neurons = population.neurons
    before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
    decay = np.broadcast_to(neurons.decay.astype(np.int64), population.shape)
    kept = decayed(before, decay, form.decay_rule, form.decay_bits)
    return np.asarray(kept + current + (host[:, None] << form.bias_shift))


def _host_bias(graph: Graph, population: Population, recording: Recording) -> Integers:
    """Bias mantissas, what the host adds included, [samples, *shape]."""
    own = population.neurons.bias.astype(np.int64)
    total = np.broadcast_to(own, (recording.samples, *population.shape))
    for projection in graph.incoming(population.name):
        if graph.on_host(projection):
            spec = graph.input(projection.source)
            sums = synaptic_sum(projection, spec.shape, spec.encode(recording.values[spec.name]))
            total = total + rounding_shift_right(sums, -projection.exponent)
    return np.asarray(total)
