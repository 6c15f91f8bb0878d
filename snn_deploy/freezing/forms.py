"""The algebra of folding: what a tensor of the module means, as linear forms over spikes.

A :class:`Pattern` is a linear map from one source (an input, or the spikes of a population) to the
features of a tensor, at one timestep: nothing yet but pooling, or one layer of synapses. A
:class:`Form` is a weighted sum of patterns, each at its own timestep. Operations of the module act
on patterns; each is folded once and remembered, so that the forms of all timesteps of a loop share
their patterns, and that they are the same network at every timestep can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.freezing.pooling import averaged, joined
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.graph import Projection
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.synapses import Conv2d, Dense, Shape, SumPool, Synapses, with_weights

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pattern:
    """A linear map from one source to features of ``shape``, or a constant.

    Attributes
    ----------
    source : name of an input or population; None: this is a constant.
    shape : (N,), (C, 1, L) or (C, H, W).
    pool : sum over windows of the source, before the synapses.
    synapses : None while these are the source's own values, pooled or not.
    constant : float64, broadcastable to the shape; only without a source.
    magnitude : the absolute values that were added up to the constant, as the constant.
    mean, std : of an input of values: ``(value - mean) / std``, broadcastable to the input.
    values : the source is an input of values, not of spikes.
    membrane : the source's membranes instead of its spikes.
    scale : factor per channel of the source [C], before pool and synapses; None: 1.
    hidden : a state of the source that is neither, such as its synaptic currents.
    largest : the largest membrane over time; the form names all timesteps.
    label : of the synapses, for names: ``conv1``.
    origin : path of the module that made it.
    """

    shape: Shape
    source: str | None = None
    pool: SumPool | None = None
    synapses: Synapses | None = None
    constant: Floats = field(default_factory=lambda: np.zeros(()))
    magnitude: Floats = field(default_factory=lambda: np.zeros(()))
    mean: Floats = field(default_factory=lambda: np.zeros(()))
    std: Floats = field(default_factory=lambda: np.ones(()))
    values: bool = False
    membrane: bool = False
    scale: Floats | None = None
    hidden: bool = False
    largest: bool = False
    label: str = ""
    origin: str = ""

    @property
    def own_values(self) -> bool:
        """Whether these are values of the source itself: spikes, or an input."""
        own = self.source is not None and self.synapses is None and self.scale is None
        return own and not self.membrane


# A pattern at a timestep; None: at all timesteps alike.
Moment = tuple[Pattern, "int | None"]


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A weighted sum of patterns at timesteps, all of one shape."""

    shape: Shape
    terms: dict[Moment, float]

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Its patterns with their timesteps, in the order in which they were added."""
        return tuple(self.terms)

    def single(self) -> tuple[Pattern, int | None, float] | None:
        """Its only pattern with timestep and weight; None if there are several."""
        if len(self.terms) != 1:
            return None
        (((pattern, time), weight),) = self.terms.items()
        return pattern, time, weight

    def plus(self, other: Form, factor: float = 1.0) -> Form:
        """The sum with ``factor`` times another form."""
        terms = dict(self.terms)
        for moment, weight in other.terms.items():
            terms[moment] = terms.get(moment, 0.0) + factor * weight
        return Form(self.shape, terms)

    def times(self, factor: float) -> Form:
        """All of it multiplied."""
        return Form(self.shape, {m: w * factor for m, w in self.terms.items()})


class Folding:
    """Operations on forms. Each operation on each pattern is carried out once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Form] = {}
        self._held: list[Pattern] = []  # keeps the patterns alive that keys identify
        self._labels: dict[str, dict[Hashable, int]] = {}

    def constant(self, value: Floats, shape: Shape, magnitude: Floats | None = None) -> Form:
        """A constant; equal ones are one pattern. Nothing at all where it is zero."""
        value = np.asarray(value, np.float64)
        magnitude = np.abs(value) if magnitude is None else magnitude
        if not value.any() and not magnitude.any():
            return Form(shape, {})
        key = ("constant", shape, value.shape, value.tobytes(), magnitude.tobytes())
        pattern = Pattern(shape=shape, constant=value, magnitude=magnitude)
        return self.once(key, lambda: Form(shape, {(pattern, None): 1.0}))

    def apply(
        self,
        form: Form,
        key: tuple[Hashable, ...],
        fold: Callable[[Pattern], Form],
        shape: Shape,
        absorb: bool = False,
    ) -> Form:
        """A linear operation on every pattern of a form.

        ``key`` tells operations apart. With ``absorb`` the weights of the patterns go into the new
        synapses: what is left outside are the weights of timesteps.
        """
        found = Form(shape, {})
        for (pattern, time), weight in form.terms.items():
            inside, weight = (weight, 1.0) if absorb else (1.0, weight)

            def make(pattern: Pattern = pattern, inside: float = inside) -> Form:
                return _absorbed(fold(pattern), inside)

            one = self.once((*key, id(pattern), inside), make)
            self._held.append(pattern)
            for (result, _), inner in one.terms.items():
                moment = (result, None if result.source is None else time)
                found.terms[moment] = found.terms.get(moment, 0.0) + weight * inner
        return found

    def label(self, kind: str, key: Hashable) -> str:
        """The name of synapses: the next of their kind, or the one they have."""
        names = self._labels.setdefault(kind, {})
        return f"{kind}{names.setdefault(key, len(names) + 1)}"

    def once(self, key: Hashable, make: Callable[[], Form]) -> Form:
        """What was made for this key, or what ``make`` makes now."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def _absorbed(form: Form, factor: float) -> Form:
    """A form of synapses with their weights multiplied."""
    if factor == 1.0:
        return form
    terms: dict[Moment, float] = {}
    for (pattern, time), weight in form.terms.items():
        synapses = pattern.synapses
        assert synapses is not None or pattern.source is None
        if synapses is None:
            terms[pattern, time] = weight * factor
        else:
            scaled_weights = with_weights(synapses, synapses.weight * factor)
            terms[replace(pattern, synapses=scaled_weights), time] = weight
    return Form(form.shape, terms)


def alone(pattern: Pattern, weight: float = 1.0) -> Form:
    """A form of one pattern, whose timestep is that of what it was folded from."""
    return Form(pattern.shape, {(pattern, None): weight})


def synaptic(pattern: Pattern, synapses: Synapses, label: str, origin: str) -> Form:
    """Synapses behind a pattern.

    Raises
    ------
    UnfoldableError
        Where there are synapses already, or a constant meets zero padding.
    """
    seen = pattern.shape
    shape = synapses.target_shape(seen)
    if pattern.source is None:
        return _of_constant(pattern, synapses, shape)
    if pattern.hidden:
        raise UnfoldableError(
            "it weighs synaptic currents, or spikes of neurons without reset",
            "let neurons that others are fed by have a reset, and weigh their spikes",
        )
    if pattern.membrane:
        raise UnfoldableError(
            "it weighs membranes, which no synapse can read", "weigh spikes instead"
        )
    if pattern.synapses is not None:
        raise UnfoldableError(
            "it weighs the currents of other synapses, with no neurons between",
            "put neurons between, or make one layer of the two",
        )
    if pattern.scale is not None:
        synapses = with_weights(synapses, synapses.weight * per_input(synapses, pattern.scale))
    return alone(
        replace(pattern, synapses=synapses, scale=None, shape=shape, label=label, origin=origin)
    )


def per_input(synapses: Synapses, values: Floats) -> Floats:
    """Values per channel of a source [C], as factors of the weights that see the channel."""
    weight = synapses.weight
    if isinstance(synapses, Dense):
        return np.repeat(values, weight.shape[1] // len(values))
    within = len(values) // synapses.groups
    group = np.arange(len(weight)) // (len(weight) // synapses.groups)
    seen = values[(group * within)[:, None] + np.arange(within)]
    return np.asarray(seen[:, :, None, None])


def _of_constant(pattern: Pattern, synapses: Synapses, shape: Shape) -> Form:
    if isinstance(synapses, Conv2d) and synapses.padding != (0, 0):
        raise UnfoldableError(
            "it pads a sum with zeros that is not zero where spikes are: something was added to "
            "the spikes before",
            "add it as the bias of this layer, or use no padding",
        )
    weight = synapses.weight
    sums = []
    for values, weights in (
        (pattern.constant, weight),
        (pattern.magnitude, np.abs(weight)),
    ):
        spread = np.broadcast_to(values, pattern.shape).astype(np.float64)
        sums.append(synaptic_sum(_bare(with_weights(synapses, weights)), pattern.shape, spread))
    made = replace(pattern, constant=sums[0], magnitude=sums[1], shape=shape)
    return alone(made)


def _bare(synapses: Synapses) -> Projection:
    return Projection(source="constant", target="constant", synapses=synapses)


def scaled(pattern: Pattern, factor: Floats) -> Form:
    """A pattern multiplied per feature; ``factor`` is float64, broadcastable to the shape.

    Raises
    ------
    UnfoldableError
        Where the factor differs between neurons that share weights.
    """
    if factor.size == 1:
        return alone(pattern, float(factor.item()))
    if pattern.source is None:
        return alone(
            replace(
                pattern,
                constant=pattern.constant * factor,
                magnitude=pattern.magnitude * np.abs(factor),
            )
        )
    if pattern.membrane:
        raise UnfoldableError("it scales membranes by several factors", "use one factor")
    channels = channel_values(factor, pattern.shape)
    if channels is None:
        raise UnfoldableError(
            "it multiplies places of a map by factors of their own, where kernels share weights",
            "use one factor per channel",
        )
    if pattern.synapses is not None:
        weight = pattern.synapses.weight
        rows = channels.reshape(-1, *([1] * (weight.ndim - 1)))
        return alone(replace(pattern, synapses=with_weights(pattern.synapses, weight * rows)))
    return alone(
        replace(pattern, scale=channels if pattern.scale is None else pattern.scale * channels)
    )


def channel_values(values: Floats, shape: Shape) -> Floats | None:
    """[C] if all neurons of a channel have the same value, else None. NaN counts as a value."""
    rows = np.broadcast_to(values, shape).reshape(shape[0], -1)
    first = rows[:, :1]
    alike = (rows == first) | (np.isnan(rows) & np.isnan(first))
    return np.ascontiguousarray(first[:, 0]) if alike.all() else None


def one_each(shape: Shape, weight: Floats | float = 1.0) -> Conv2d:
    """One synapse from every neuron to the one in its place, of float weights per channel."""
    spread = np.broadcast_to(np.asarray(weight, np.float64), (shape[0],))
    return Conv2d(spread.reshape(-1, 1, 1, 1).copy(), groups=shape[0])


def average_pooled(pattern: Pattern, pool: SumPool) -> Form:
    """Averages over windows: summed spikes whose next weights are smaller, or wider kernels.

    Raises
    ------
    UnfoldableError
        Where two pools do not make one.
    """
    share = 1.0 / (pool.kernel[0] * pool.kernel[1])
    shape = pool.output_shape(pattern.shape)
    if pattern.source is None:
        values, magnitude = (_pooled(x, pattern.shape, pool) for x in
                             (pattern.constant, pattern.magnitude))  # fmt: skip
        return alone(replace(pattern, constant=values, magnitude=magnitude, shape=shape))
    if pattern.membrane:
        raise UnfoldableError("it pools membranes", "pool spikes instead")
    if pattern.synapses is None:
        both = pool if pattern.pool is None else joined(pattern.pool, pool)
        return alone(replace(pattern, pool=both, shape=shape), share)
    if isinstance(pattern.synapses, Dense):
        raise UnfoldableError(
            "it pools the currents of a dense layer as a map", "pool before the layer"
        )
    return alone(replace(pattern, synapses=averaged(pattern.synapses, pool), shape=shape))


def _pooled(values: Floats, shape: Shape, pool: SumPool) -> Floats:
    """The mean over windows of a constant."""
    if values.size in (1, shape[0]) and values.shape[1:] in ((), (1, 1)):
        return values
    full = np.broadcast_to(values, shape)
    _, rows, columns = pool.output_shape(shape)
    found = np.zeros((shape[0], rows, columns))
    for y in range(pool.kernel[0]):
        for x in range(pool.kernel[1]):
            last = y + pool.stride[0] * (rows - 1) + 1, x + pool.stride[1] * (columns - 1) + 1
            found += full[:, y : last[0] : pool.stride[0], x : last[1] : pool.stride[1]]
    return found / (pool.kernel[0] * pool.kernel[1])


def gathered(pattern: Pattern, weight: Floats, features: NDArray[np.int64], label: str,
             origin: str) -> Form:  # fmt: skip
    """Dense synapses [N_out, n] behind chosen features [n] of a pattern, in any order."""
    columns = np.zeros((int(np.prod(pattern.shape)), len(weight)))
    np.add.at(columns, features, weight.T)  # a feature may be seen more than once
    return synaptic(pattern, Dense(columns.T.copy()), label, origin)
