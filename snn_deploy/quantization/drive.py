"""One neuron by itself: which input neurons drive it, and which sums they can bring about.

Sums of spikes are subset sums of the weights. All of them are listed while they are few; beyond
that the list is thinned, evenly over its range, its ends kept; every entry remains a sum
that can be had: each remembers the inputs that make it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Integrator, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, decayed, rounding_shift_right, spikes_fired
from snn_deploy.synapses import Conv2d, Dense, as_map, axis_reach, pooled_shape

Integers = NDArray[np.int64]

# Values that are tried of an input neuron that carries numbers, at least.
_LEVELS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """The input neurons that reach one neuron, one entry each; arrays are int64 [entries].

    ``source`` is an input's name and ``index`` a place in it (C, H, W order); ``low`` and ``high``
    bound the encoded value; ``weight`` is in units of 2^-(negative exponent) bias mantissas where
    the host multiplies, else in membrane units.
    """

    source: NDArray[np.str_]
    index: Integers
    weight: Integers
    delay: Integers
    low: Integers
    high: Integers

    def where(self, chosen: NDArray[np.bool_]) -> Taps:
        """Some of the entries."""
        parts = (self.source, self.index, self.weight, self.delay, self.low, self.high)
        return Taps(*(part[chosen] for part in parts))  # type: ignore[arg-type]

    @staticmethod
    def joined(parts: list[Taps]) -> Taps:
        """The entries of several projections."""
        if not parts:
            empty = np.zeros(0, np.int64)
            return Taps(np.zeros(0, np.str_), empty, empty, empty, empty, empty)
        names = ("source", "index", "weight", "delay", "low", "high")
        return Taps(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def taps_of(graph: Graph, projection: Projection, neuron: int, shift: int = 0) -> Taps:
    """Input neurons that a projection from an input leads to one target neuron, by the geometry.

    ``shift``: left shift of the weights.
    """
    spec, synapses = graph.input(projection.source), projection.synapses
    shape = as_map(spec.shape)
    vertical, horizontal = axis_reach(synapses, projection.pool, spec.shape)
    target = np.unravel_index(neuron, as_map(graph.shape_of(projection.target)))
    channel, row, column = (int(place) for place in target)
    kernel, first = synapses.weight[channel].astype(np.int64), 0
    if isinstance(synapses, Dense):
        kernel = kernel.reshape(as_map(pooled_shape(spec.shape, projection.pool)))
    elif isinstance(synapses, Conv2d):
        first = channel // (len(synapses.weight) // synapses.groups) * kernel.shape[0]
    channels = np.arange(first, first + kernel.shape[0])
    indices, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for y, rows in vertical.taps[row]:
        for x, columns in horizontal.taps[column]:
            indices.append((channels * shape[1] + y) * shape[2] + x)
            weights.append(kernel[:, list(rows)][:, :, list(columns)].sum(axis=(1, 2)))
    index, weight = np.concatenate(indices), np.concatenate(weights) << shift
    delay = np.broadcast_to(projection.delay, synapses.weight.shape[:2])
    delays = np.full(len(index), int(delay.flat[0]), np.int64)
    if isinstance(projection.delay, np.ndarray):  # dense, without pool: columns are source neurons
        delays = delay[neuron][index].astype(np.int64)
    low, high = (bound.astype(np.int64).reshape(-1)[index] for bound in spec.encoded_range())
    return Taps(np.full(len(index), spec.name), index, weight, delays, low, high)


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """Sums that inputs can bring about, and the inputs that do; see :func:`choices`.

    ``complete``: there are no others.
    """

    sums: Integers
    rest: Integers
    history: list[tuple[int, Integers, Integers]] = field(repr=False)
    complete: bool

    def inputs(self, place: int) -> Integers:
        """Encoded value of every entry that makes ``sums[place]``."""
        values = self.rest.copy()
        for entry, parents, chosen in reversed(self.history):
            values[entry], place = chosen[place], int(parents[place])
        return values

    def at(self, places: Integers) -> Choices:
        """Some of the sums, in another order."""
        if not self.history:
            return Choices(self.sums[places], self.rest, [], complete=self.complete)
        *before, (entry, parents, chosen) = self.history
        last = (entry, parents[places], chosen[places])
        return Choices(self.sums[places], self.rest, [*before, last], complete=self.complete)


def choices(taps: Taps, most: int) -> Choices:
    """List sums of weight times value over the entries of ``taps``, at most ``most`` of them.

    Heavy entries first, so that light ones fill the gaps that thinning leaves.
    """
    rest = np.clip(0, taps.low, taps.high)
    span = np.abs(taps.weight) * (taps.high - taps.low)
    sums = np.array([int((taps.weight * rest)[span == 0].sum())], np.int64)
    history, complete = [], True
    for entry in np.argsort(-span, kind="stable")[: int((span > 0).sum())]:
        low, high = int(taps.low[entry]), int(taps.high[entry])
        count = min(high - low + 1, max(_LEVELS, most // len(sums)))
        levels = np.unique(np.rint(np.linspace(low, high, count)).astype(np.int64))
        made = (sums[:, None] + taps.weight[entry] * levels).reshape(-1)
        sums, places = np.unique(made, return_index=True)
        kept = thinned(sums, most)
        complete &= len(kept) == len(sums) and len(levels) == high - low + 1
        sums, places = sums[kept], places[kept]
        history.append((int(entry), places // len(levels), levels[places % len(levels)]))
    return Choices(sums, rest, history, complete)


def thinned(ascending: Integers, most: int) -> Integers:
    """Places of at most ``most`` values of an ascending array: first and last of equal bins."""
    if len(ascending) <= most:
        return np.arange(len(ascending))
    first, last = int(ascending[0]), int(ascending[-1])
    bins = (ascending - first) * (most // 2) // (last - first + 1)
    edges = np.flatnonzero(np.diff(bins)) + 1
    return np.unique(np.concatenate([[0], edges - 1, edges, [len(ascending) - 1]]))


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """One neuron of a population that only inputs feed.

    Attributes
    ----------
    population : the neuron by itself, of shape (1,); what the host adds is in ``host``.
    timed : entries whose values are free in every timestep, in membrane units.
    constant : entries that hold one value for all timesteps and join the current, membrane units.
    host : per projection that the host computes: its exponent, and its entries.
    """

    population: Population
    number_format: NumberFormat
    timed: Taps
    constant: Taps
    host: tuple[tuple[int, Taps], ...]

    @staticmethod
    def of(graph: Graph, population: Population, neuron: int, form: NumberFormat) -> Drive:
        """The drive of one neuron."""
        timed: list[Taps] = []
        constant: list[Taps] = []
        host: list[tuple[int, Taps]] = []
        for projection in graph.incoming(population.name):
            if graph.on_host(projection):
                host.append((projection.exponent, taps_of(graph, projection, neuron)))
                continue
            shift = projection.exponent + form.fraction_bits
            found = taps_of(graph, projection, neuron, shift)
            (constant if graph.is_constant(projection) else timed).append(found)
        return Drive(
            _alone(population, neuron), form, Taps.joined(timed), Taps.joined(constant), tuple(host)
        )

    @property
    def remembers(self) -> bool:
        """Whether the current has a memory, and anything to remember."""
        joins = len(self.timed.weight) + len(self.constant.weight)
        return self.population.neurons.current_decay is not None and joins > 0

    @property
    def bias(self) -> int:
        """The neuron's own bias, as a mantissa."""
        return int(self.population.neurons.bias[0])

    def decay(self, state: Integers) -> Integers:
        """What is left of a membrane."""
        return self._left(state, self.population.neurons.decay)

    def decay_current(self, state: Integers) -> Integers:
        """What is left of a current; nothing where it has no memory."""
        memory = self.population.neurons.current_decay
        return np.zeros_like(state) if memory is None else self._left(state, memory)

    def _left(self, state: Integers, decay: Integers) -> Integers:
        form = self.number_format
        return decayed(state, decay.astype(np.int64), form.decay_rule, form.decay_bits)

    def settle(self, membrane: Integers) -> Integers:
        """Membranes after the comparison and the reset."""
        neurons, form = self.population.neurons, self.number_format
        if not isinstance(neurons, LIF):
            return membrane
        threshold = neurons.threshold.astype(np.int64) << form.threshold_shift
        if not isinstance(neurons.reset, ResetSubtract):
            fired = spikes_fired(membrane, threshold, 1, 1, form.comparator)
            return np.where(fired > 0, int(neurons.reset.value), membrane)
        amount, most = int(neurons.reset.amount), self.population.max_spikes
        fired = spikes_fired(membrane, threshold, amount, most, form.comparator)
        return np.asarray(membrane - fired * amount)

    def constants(self, most: int) -> tuple[Integers, Integers, list[Choices]]:
        """What constant inputs can add: to the current, and as bias (membrane units), and how.

        Returns two arrays [choices], and per projection on the host, or for all that join the
        current, the list whose entries make them: all lists have as many entries.
        """
        own = self.bias << self.number_format.bias_shift
        if not self.host:
            found = choices(self.constant, most)
            return found.sums, np.full(len(found.sums), own), [found]
        lists = [choices(taps, most) for _, taps in self.host]
        # several host projections: entries that stand at the same share of their lists
        count = max(len(found.sums) for found in lists)
        total, picked = np.zeros(count, np.int64), []
        for found, (exponent, _) in zip(lists, self.host, strict=True):
            places = np.rint(np.linspace(0, len(found.sums) - 1, count)).astype(np.int64)
            total += rounding_shift_right(found.sums[places], -exponent)
            picked.append(found.at(places))
        bias = (total << self.number_format.bias_shift) + own
        return np.zeros(count, np.int64), bias, picked


def _alone(population: Population, neuron: int) -> Population:
    """One neuron of a population, as a population of shape (1,)."""

    def own(value: Integers) -> Integers:
        return np.broadcast_to(value, population.shape).reshape(-1)[neuron : neuron + 1]

    neurons = population.neurons
    memory = None if neurons.current_decay is None else own(neurons.current_decay)
    if isinstance(neurons, Integrator):
        one = replace(
            neurons, decay=own(neurons.decay), bias=own(neurons.bias), current_decay=memory
        )
        return replace(population, shape=(1,), neurons=one)
    spiking = replace(
        neurons,
        decay=own(neurons.decay),
        threshold=own(neurons.threshold),
        bias=own(neurons.bias),
        current_decay=memory,
    )
    return replace(population, shape=(1,), neurons=spiking)
