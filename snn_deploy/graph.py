"""The one graph type: populations of neurons, and projections of synapses between them.

A graph is a value: frozen dataclasses over numpy arrays, checked when made for what holds at every
stage (names, shapes, no loop without delay). :mod:`snn_deploy.checks` says what more a float or an
integer graph must obey. There are no layers here: fan-in is summed as current, whatever it is from.

A graph whose ``number_format`` is None is a float graph (float64 arrays); with a number format it
is an integer graph, whose weights are mantissas and whose decays, thresholds and biases are in the
units that :class:`snn_deploy.numerics.NumberFormat` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.numerics import NumberFormat
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses, fan_out, pooled_shape

Array = NDArray[Any]
Readout = Literal["sum", "mean", "last", "max"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InputSpec:
    """What a graph is fed.

    Attributes
    ----------
    name : unique among inputs and populations.
    kind : ``spikes`` (0 or 1 per timestep), ``constant`` (one value for all timesteps, the current
        of a still image) or ``graded`` (one value per timestep).
    shape : (C, H, W) or (N,).
    low, high : range of the raw values that may arrive; the range proof relies on it. Spikes with
        ``low`` 1 come at every timestep (a bias neuron): no recording holds them.
    mean, std : per channel or one for all: the host feeds (raw - mean) / std. Shape (1,) or (C,).
    scale : integer graphs only: the value of one step of the quantized input, None in float graphs.
    """

    name: str
    kind: Literal["spikes", "constant", "graded"]
    shape: Shape
    low: float = 0.0
    high: float = 1.0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    std: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    scale: float | None = None

    @property
    def always_fires(self) -> bool:
        """Whether every neuron spikes at every timestep."""
        return self.kind == "spikes" and self.low == 1

    def _per_channel(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        return value.reshape(-1, *([1] * (len(self.shape) - 1)))

    def normalise(self, raw: Array) -> NDArray[np.float64]:
        """(raw - mean) / std in float64; ``raw`` ends with the axes of ``shape``."""
        values = np.asarray(raw, np.float64)
        normal = (values - self._per_channel(self.mean)) / self._per_channel(self.std)
        return np.asarray(normal, np.float64)

    def encode(self, raw: Array) -> Array:
        """What reaches the first synapses: spikes as they are, values normalised, then quantized.

        Returns float64 in a float graph, int64 in an integer graph: to nearest, ties to even.
        """
        if self.kind == "spikes":
            return np.asarray(raw)
        normal = self.normalise(raw)
        return normal if self.scale is None else np.rint(normal / self.scale).astype(np.int64)

    def encoded_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest encoded value of every input neuron, shape ``shape``, float64."""
        if self.kind == "spikes":
            return np.full(self.shape, float(self.always_fires)), np.ones(self.shape)
        bounds = (self.encode(np.full(self.shape, v)) for v in (self.low, self.high))
        low, high = (np.asarray(b, np.float64) for b in bounds)
        return low, high


@dataclass(frozen=True, slots=True, eq=False)
class ResetTo:
    """After a spike the membrane is set to ``value``."""

    value: float | int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ResetSubtract:
    """After a spike ``amount`` is subtracted from the membrane (membrane units, > 0)."""

    amount: float | int


Reset = ResetTo | ResetSubtract


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LIF:
    """Leaky integrate-and-fire neurons.

    ``i[t] = current_decay*i[t-1] + c[t]``, ``u[t] = decay*u[t-1] + i[t] + bias``; a spike where u
    reaches ``threshold``; then the reset of u (ASGL, ICML 2023, Eq. 1-4; with a ``current_decay``
    the current-based neuron of Eq. 28, called CubaLIF or CUBA elsewhere; None: i has no memory). i
    is never reset. Each parameter is broadcastable to the population: shape () for all, (C, 1, 1)
    per channel, or the full shape. In integer graphs a decay is the target's decay field (Lava's
    4096 - vDecay), ``threshold`` and ``bias`` are mantissas. An output is read out as its spike
    counts, or, with a ``readout``, from its membranes as an :class:`Integrator` is.
    """

    decay: Array
    threshold: Array
    bias: Array
    reset: Reset = field(default_factory=ResetTo)
    current_decay: Array | None = None
    readout: Readout | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Integrator:
    """A sink that emits its membrane: a :class:`LIF` that never fires, read out over time.

    ``decay`` 0 emits the current itself, so that ``mean`` is the mean current of ASGL's Eq. 5.
    The decision is the largest readout, ties to the lowest index. In integer graphs ``mean`` is
    read as the sum, exactly: the division by the number of timesteps changes no decision.
    """

    decay: Array
    bias: Array
    readout: Readout = "mean"
    current_decay: Array | None = None


Neurons = LIF | Integrator


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Population:
    """Neurons of one shape and one model.

    ``scale`` (integer graphs): value of one weight unit in the float network; one for all, or
    float64 (C, 1, 1) or (N,), one per channel. ``max_spikes``: how often a neuron may fire in one
    timestep, each time its membrane, less what the reset subtracts, still reaches the threshold.
    """

    name: str
    shape: Shape
    neurons: Neurons
    scale: float | NDArray[np.float64] | None = None
    max_spikes: int = 1

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Projection:
    """Synapses from an input or population to a population.

    ``pool`` sums windows of the source first; ``delay`` is in timesteps: one for all, or integers
    broadcastable to the weight of a Dense without pool: (N_out, 1), (1, N_in) or (N_out, N_in).
    In integer graphs a weight is ``mantissa * 2**exponent`` weight units; only a host sum may have
    a negative exponent, and is rounded once per neuron. ``sum_bits``: width of a register in which
    the synaptic sum wraps before the exponent is applied, None where it cannot overflow.
    """

    source: str
    target: str
    synapses: Synapses
    pool: SumPool | None = None
    delay: int | NDArray[np.int64] = 0
    exponent: int = 0
    sum_bits: int | None = None

    @property
    def shortest_delay(self) -> int:
        """Smallest delay of any synapse, in timesteps."""
        return int(np.min(self.delay))

    @property
    def longest_delay(self) -> int:
        """Largest delay of any synapse, in timesteps."""
        return int(np.max(self.delay))

    @property
    def name(self) -> str:
        """``source->target``, unique in a graph."""
        return f"{self.source}->{self.target}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Graph:
    """Inputs, populations and projections; ``timesteps`` None: as many as the input has."""

    inputs: tuple[InputSpec, ...]
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    outputs: tuple[str, ...]
    timesteps: int | None = None
    number_format: NumberFormat | None = None
    order: tuple[tuple[str, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        _check_names(self)
        for projection in self.projections:
            _check_projection(self, projection)
        object.__setattr__(self, "order", _components(self))

    def input(self, name: str) -> InputSpec:
        """The input of this name."""
        return next(i for i in self.inputs if i.name == name)

    def population(self, name: str) -> Population:
        """The population of this name."""
        return next(p for p in self.populations if p.name == name)

    def is_input(self, name: str) -> bool:
        """Whether the name is an input's."""
        return any(i.name == name for i in self.inputs)

    @property
    def fed(self) -> tuple[InputSpec, ...]:
        """The inputs that a recording holds: all but those that always fire."""
        return tuple(spec for spec in self.inputs if not spec.always_fires)

    def shape_of(self, name: str) -> Shape:
        """Shape of an input or population."""
        return self.input(name).shape if self.is_input(name) else self.population(name).shape

    def incoming(self, name: str) -> tuple[Projection, ...]:
        """Projections that end at a population."""
        return tuple(p for p in self.projections if p.target == name)

    def carries_values(self, projection: Projection) -> bool:
        """Whether the source sends values (multiplied, a MAC) rather than spikes (added, an AC)."""
        return self.is_input(projection.source) and self.input(projection.source).kind != "spikes"

    def is_binary(self, projection: Projection) -> bool:
        """Whether the source sends 0 or 1: no values, and at most one spike per timestep."""
        if self.is_input(projection.source):
            return not self.carries_values(projection)
        return self.population(projection.source).max_spikes == 1

    def is_constant(self, projection: Projection) -> bool:
        """Whether the source sends one value for all timesteps."""
        return self.is_input(projection.source) and (
            self.input(projection.source).kind == "constant"
        )

    def on_host(self, projection: Projection) -> bool:
        """Whether the host computes this projection and hands its sum over as a bias."""
        return (
            self.is_constant(projection)
            and self.number_format is not None
            and self.number_format.first_layer == "host_bias"
        )

    def fan_out(self, projection: Projection) -> NDArray[np.int64]:
        """Distinct targets of each source neuron, shape of the source."""
        return fan_out(projection.synapses, projection.pool, self.shape_of(projection.source))

    def spiking(self) -> Iterator[Population]:
        """The populations that spike."""
        return (p for p in self.populations if isinstance(p.neurons, LIF))


def _malformed(message: str, where: str | None = None) -> SnnDeployError:
    return SnnDeployError("SD408", message, where=where)


def _check_names(graph: Graph) -> None:
    names = [i.name for i in graph.inputs] + [p.name for p in graph.populations]
    for name in names:
        if not _NAME.match(name):
            raise _malformed(f"{name!r} is not a name: use letters, digits, _ . -")
    if len(set(names)) != len(names):
        raise _malformed("two inputs or populations have the same name")
    if not graph.inputs or not graph.populations or not graph.outputs:
        raise _malformed("a graph needs an input, a population and an output")
    if graph.timesteps is not None and graph.timesteps < 1:
        raise _malformed(f"timesteps must be at least 1, not {graph.timesteps}")
    populations = {p.name for p in graph.populations}
    for output in graph.outputs:
        if output not in populations:
            raise _malformed(f"output {output!r} is no population")
    seen = set()
    for projection in graph.projections:
        if projection.source not in names:
            raise _malformed(f"no input or population {projection.source!r}", projection.name)
        if projection.target not in populations:
            raise _malformed(f"no population {projection.target!r}", projection.name)
        if projection.name in seen:
            raise _malformed("two projections join the same pair", projection.name)
        seen.add(projection.name)
        source = next((p for p in graph.populations if p.name == projection.source), None)
        if source is not None and isinstance(source.neurons, Integrator):
            raise _malformed("an integrator is a sink: it cannot feed a population", source.name)
    for population in graph.populations:
        if not any(p.target == population.name for p in graph.projections):
            raise _malformed("a population without input", population.name)
        if not 1 <= population.max_spikes <= 255:
            raise _malformed(
                f"max_spikes must be 1 to 255, not {population.max_spikes}", population.name
            )
        neurons = population.neurons
        if population.max_spikes > 1 and not (
            isinstance(neurons, LIF) and isinstance(neurons.reset, ResetSubtract)
        ):
            raise _malformed(
                "several spikes per timestep need a reset by subtraction", population.name
            )


def _check_delay(projection: Projection) -> None:
    delay, weight = projection.delay, projection.synapses.weight
    if isinstance(delay, np.ndarray):
        if not isinstance(projection.synapses, Dense) or projection.pool is not None:
            raise _malformed("delays per synapse need dense synapses without pool", projection.name)
        fits = delay.ndim == 2 and all(
            n in (1, m) for n, m in zip(delay.shape, weight.shape, strict=True)
        )
        if not fits or not np.issubdtype(delay.dtype, np.integer):
            raise _malformed(
                f"delays of shape {delay.shape} and type {delay.dtype} do not fit weights of shape "
                f"{weight.shape}",
                projection.name,
            )
    if projection.shortest_delay < 0:
        raise _malformed(
            f"a delay must not be negative: {projection.shortest_delay}", projection.name
        )


def _check_projection(graph: Graph, projection: Projection) -> None:
    dimensions = 2 if isinstance(projection.synapses, Dense) else 4
    if projection.synapses.weight.ndim != dimensions or 0 in projection.synapses.weight.shape:
        raise _malformed(f"weights of shape {projection.synapses.weight.shape}", projection.name)
    _check_delay(projection)
    if projection.sum_bits is not None and not 1 <= projection.sum_bits <= 64:
        raise _malformed(f"a sum of {projection.sum_bits} bits", projection.name)
    pairs: list[tuple[str, tuple[int, int], int]] = []
    if isinstance(projection.synapses, Conv2d):
        synapses = projection.synapses
        pairs = [
            ("stride", synapses.stride, 1),
            ("padding", synapses.padding, 0),
            ("dilation", synapses.dilation, 1),
        ]
    if projection.pool is not None:
        pairs += [
            ("pool kernel", projection.pool.kernel, 1),
            ("pool stride", projection.pool.stride, 1),
        ]
    for what, pair, least in pairs:
        if len(pair) != 2 or min(pair) < least:
            raise _malformed(
                f"{what} {pair} must be two numbers of at least {least}", projection.name
            )
    try:
        seen = pooled_shape(graph.shape_of(projection.source), projection.pool)
        shape = projection.synapses.target_shape(seen)
    except SnnDeployError as error:
        raise _malformed(error.message, projection.name) from None
    target = graph.shape_of(projection.target)
    if shape != target:
        raise _malformed(
            f"synapses make a shape of {shape}, the population has {target}", projection.name
        )


def _components(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Populations in order of evaluation, grouped into loops.

    A group of one is feed-forward (unless it projects to itself); a group of several is joined by a
    loop. Inside a group, a projection with delay 0 goes from earlier to later. Raises if a loop has
    no delay.
    """
    names = [p.name for p in graph.populations]
    successors: dict[str, set[str]] = {name: set() for name in names}
    immediate: dict[str, set[str]] = {name: set() for name in names}
    for projection in graph.projections:
        if projection.source in successors:
            successors[projection.source].add(projection.target)
            if projection.shortest_delay == 0:
                immediate[projection.source].add(projection.target)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for name in successors[waiting.pop()]:
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    reach = {name: reachable(name) for name in names}
    order: list[str] = []
    waiting = list(names)
    while waiting:
        ready = next((n for n in waiting if not any(n in immediate[m] for m in waiting)), None)
        if ready is None:
            raise _malformed(
                "a loop without delay: " + ", ".join(waiting), "give one of its projections a delay"
            )
        order.append(ready)
        waiting.remove(ready)
    groups: list[tuple[str, ...]] = []
    placed: set[str] = set()
    loops = {
        n: tuple(m for m in order if m == n or (m in reach[n] and n in reach[m])) for n in order
    }
    while len(placed) < len(order):
        for name in order:
            group = loops[name]
            if name in placed or any(
                m not in placed and m not in group and any(g in reach[m] for g in group)
                for m in order
            ):
                continue
            groups.append(group)
            placed.update(group)
    return tuple(groups)
