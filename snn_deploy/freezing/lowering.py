"""Build the float graph of a network from what following it found."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import normalisation
from snn_deploy.freezing.following import Emitted, Followed, Result, as_population, follow
from snn_deploy.freezing.forms import Form, Moment, Pattern, channel_values, one_each
from snn_deploy.freezing.merging import merged
from snn_deploy.freezing.neurons import FrozenNeurons
from snn_deploy.freezing.refusal import UnfoldableError, refuse
from snn_deploy.graph import LIF, Graph, InputSpec, Integrator, Population, Projection, Readout
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording
from snn_deploy.synapses import Conv2d, Dense, Shape, Synapses, with_weights

Floats = NDArray[np.float64]

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A float graph, and what the freeze proof needs to know of the module behind it.

    Attributes
    ----------
    graph : the float graph.
    emitted : the population and timesteps of the spikes of every call of a leaf, in order.
    magnitude : per population, the magnitudes that were summed into its bias (broadcastable).
    pools : populations that are maxima over spikes, not neurons of the module.
    factor : what the module returns per unit of the graph's output, above 0.
    shape : of the module's input, without batch and time.
    time_first : the module is fed [T, B, *shape].
    """

    graph: Graph
    emitted: tuple[Emitted, ...]
    magnitude: dict[str, Floats]
    pools: frozenset[str]
    factor: float
    shape: Shape
    time_first: bool

    def as_population(self, recording: Recording) -> Recording:
        """A recording of the module's own input, of the shape that the graph's input has."""
        wanted = self.graph.inputs[0].shape
        if self.shape == wanted:
            return recording

        def shaped(held: dict[str, Any]) -> dict[str, Any]:
            return {
                name: value.reshape(*value.shape[: value.ndim - len(self.shape)], *wanted)
                if value.shape[-len(self.shape) :] == self.shape
                else value
                for name, value in held.items()
            }

        return replace(recording, spikes=shaped(recording.spikes), values=shaped(recording.values))


def lower(
    model: nn.Module,
    spec: InputSpec | None = None,
    *,
    timesteps: int | None = None,
    time_first: bool = False,
    fold_normalisation: bool = False,
) -> Lowered:
    """Build the graph of a network; see :func:`snn_deploy.freeze`."""
    lowered = _lower(model, spec, timesteps, time_first)
    if not fold_normalisation:
        return lowered
    graph, magnitude = normalisation.fold_normalisation(lowered.graph, lowered.magnitude)
    return replace(lowered, graph=graph, magnitude=magnitude)


def _lower(
    model: nn.Module, spec: InputSpec | None, timesteps: int | None, time_first: bool
) -> Lowered:
    if isinstance(model, SpikingNet):
        return _lower_described(model)
    if spec is None:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen without knowing its input",
            fix="freeze(model, InputSpec(name='input', kind='spikes', shape=(700,)), "
            "timesteps=100)",
        )
    if spec.kind != "constant" and timesteps is None:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} is fed over time: its number of timesteps is needed",
            fix="freeze(model, spec, timesteps=T)",
        )
    followed = follow(_copy(model), spec, timesteps, time_first, lambda path, form: path)
    if timesteps is not None and followed.steps != timesteps:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} runs for {followed.steps} timesteps, not {timesteps}",
            fix="give the number of timesteps of its loop",
        )
    return _assembled(followed, spec, followed.steps, time_first)


# Timesteps that show what a network described by an architecture does at any number of them.
_DESCRIBED_STEPS = 2


def _lower_described(model: SpikingNet) -> Lowered:
    architecture = model.architecture
    spec = InputSpec(
        name=INPUT,
        kind="constant" if architecture.input_kind == "constant" else "spikes",
        shape=architecture.input_shape,
        low=architecture.low,
        high=architecture.high,
    )
    twin = _copy(model)
    twin.timesteps = _DESCRIBED_STEPS
    return _assembled(
        follow(twin, spec, _DESCRIBED_STEPS, False, _after_synapses), spec, model.timesteps, False
    )


def _after_synapses(path: str, form: Form) -> str:
    """Neurons called after the first synapses that feed them: ``conv1``."""
    return next((p.label for p, _ in form.moments if p.label), path)


def copy_of(model: nn.Module) -> Any:
    """A copy of a network that is ours to change.

    Raises
    ------
    SnnDeployError
        SD205 where it holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the objects in it raise
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen: it holds something that cannot be copied",
            why=f"{type(error).__name__}: {error}",
            fix="let go of what it keeps of earlier calls, such as states with gradients",
        ) from error


def _copy(model: nn.Module) -> Any:
    """A copy in evaluation and float64, for learned parameters evaluated exactly."""
    return copy_of(model).double().eval()


# ---- what feeds a population ----


@dataclass(frozen=True, slots=True, eq=False)
class _Fed:
    """What feeds a population at every timestep: patterns with their delays, and a constant."""

    terms: dict[Moment, float]  # with the lag in place of the timestep; None: constant over time
    bias: Floats
    magnitude: Floats


def _fed(form: Form, step: int) -> _Fed:
    terms: dict[Moment, float] = {}
    bias, magnitude = np.zeros(()), np.zeros(())
    for (pattern, time), weight in form.terms.items():
        if pattern.source is None:
            bias = bias + weight * pattern.constant
            magnitude = magnitude + abs(weight) * pattern.magnitude
        elif weight != 0:
            terms[pattern, None if time is None else step - time] = weight
    return _Fed(terms, bias, magnitude)


def _every_step(population: Followed) -> _Fed:
    """What feeds a population at every timestep, checked to be the same at all of them.

    What comes with a delay is missing at the first timesteps, as nothing was sent before them.
    """
    last = len(population.forms) - 1
    steady = _fed(population.forms[-1], last)
    for step, form in enumerate(population.forms[:-1]):
        found = _fed(form, step)
        expected = {m: w for m, w in steady.terms.items() if m[1] is None or m[1] <= step}
        if found.terms != expected or not _alike(found.bias, steady.bias, steady.magnitude):
            origins = {p.origin for p, _ in (*found.terms, *expected) if p.origin}
            raise SnnDeployError(
                "SD205",
                f"it is fed otherwise at timestep {step} than at timestep {last}",
                where=population.path,
                why="a chip has one set of weights for all timesteps"
                + (f"; this comes from {', '.join(sorted(origins))}" if origins else ""),
                fix="use the same layers, and one batch normalisation, at every timestep",
            )
    if any(lag is not None and lag < 0 for _, lag in steady.terms):
        raise SnnDeployError("SD205", "it is fed by a later timestep", where=population.path)
    return steady


# Sums of the same constants in another order differ by a few roundings of float64.
_SAME = 2.0**-44


def _alike(one: Floats, other: Floats, magnitude: Floats | None = None) -> bool:
    """Whether constants are equal, up to the rounding of sums of this magnitude. NaN is NaN."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    allowed = 0.0 if magnitude is None else _SAME * magnitude
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return bool((same | (apart <= allowed)).all())


def _refused(population: Followed, what: str, fix: str | None = None) -> SnnDeployError:
    kind = "Neurons" if not population.path else population.path
    message = f"{kind} {what} cannot be frozen"
    return SnnDeployError("SD205", message, where=population.path, fix=fix)


# ---- the graph ----


def _assembled(result: Result, spec: InputSpec, timesteps: int, time_first: bool) -> Lowered:
    builder = _Builder(replace(spec, shape=as_population(spec.shape)))
    for population in result.populations:
        builder.add(population)
    factor = builder.read_out(result)
    projections = merged(builder.projections, builder.relayed)
    graph = Graph(
        inputs=(builder.input(),),
        populations=tuple(builder.populations),
        projections=projections,
        outputs=(builder.output,),
        timesteps=timesteps,
    )
    checks.check_float(graph)
    pools = frozenset(p.name for p in result.populations if p.pooled) | set(builder.relays.values())
    return Lowered(graph, result.emitted, builder.magnitude, pools, factor, spec.shape, time_first)


class _Builder:
    """Populations and projections, one after the other."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.output = OUTPUT
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.magnitude: dict[str, Floats] = {}
        self.relays: dict[str, str] = {}  # by source
        self._normal: Pattern | None = None

    def add(self, followed: Followed) -> None:
        """A population of neurons with its projections."""
        fed, frozen = _every_step(followed), followed.frozen
        bias, magnitude = fed.bias, fed.magnitude
        if frozen.recurrent_bias is not None:
            bias = bias + frozen.recurrent_bias
            magnitude = magnitude + np.abs(frozen.recurrent_bias)
        bias = _spread(followed.shape, bias * frozen.gain + frozen.neurons.bias)
        magnitude = _spread(
            followed.shape,
            (magnitude + np.abs(frozen.offset)) * np.abs(frozen.gain) + np.abs(frozen.neurons.bias),
        )
        if (bias - frozen.neurons.bias).any() and frozen.neurons.current_decay is not None:
            raise _refused(
                followed,
                "with a synaptic filter behind a bias or batch normalisation",
                "give the layers that feed it bias=False, and no batch normalisation that shifts",
            )
        if frozen.delay and any(lag is None for _, lag in fed.terms):
            # a constant input is there from the first timestep on, in every engine
            raise _refused(followed, "fed by a constant input, without a LIF layer between,")
        neurons = replace(_fitted(followed), bias=bias)
        self._close(followed.name, followed.shape, neurons, magnitude)
        for (pattern, lag), weight in fed.terms.items():
            self._project(pattern, followed, weight, frozen.gain, (lag or 0) + frozen.delay)
        if frozen.recurrent is not None:
            self.projections.append(
                Projection(
                    source=followed.name,
                    target=followed.name,
                    synapses=_to_itself(followed, frozen.recurrent, frozen.gain),
                    delay=1 + frozen.delay,
                )
            )

    def _close(self, name: str, shape: Shape, neurons: Any, magnitude: Floats) -> None:
        self.populations.append(Population(name=name, shape=shape, neurons=neurons))
        self.magnitude[name] = magnitude

    def _project(
        self, pattern: Pattern, target: Followed, weight: float, gain: Floats, delay: int
    ) -> None:
        try:
            self.projections.append(self._projection(pattern, target.name, weight, gain, delay))
        except ValueError as error:
            refuse("Neurons", error, target.path)

    def _projection(
        self, pattern: Pattern, target: str, weight: float, gain: Floats, delay: int
    ) -> Projection:
        if pattern.membrane:
            hidden = "synaptic currents or by spikes of neurons without reset"
            raise UnfoldableError(
                f"they are fed by {hidden if pattern.hidden else 'membranes'}",
                "feed neurons with weighted spikes",
            )
        synapses = pattern.synapses
        if synapses is None:  # the source's own spikes, one synapse each
            scale = 1.0 if pattern.scale is None else pattern.scale
            synapses = one_each(pattern.shape, scale)
        channels = channel_values(np.asarray(gain), pattern.shape)
        if channels is None:
            raise UnfoldableError(
                "their input is multiplied by a factor per place of a map",
                "use one factor per channel",
            )
        rows = channels * weight
        scaled = synapses.weight * rows.reshape(-1, *([1] * (synapses.weight.ndim - 1)))
        if pattern.values:
            self._normalise(pattern)
        assert pattern.source is not None
        return Projection(
            source=pattern.source,
            target=target,
            synapses=with_weights(synapses, scaled),
            pool=pattern.pool,
            delay=delay,
        )

    def relayed(self, projection: Projection) -> Projection:
        """The same synapses from neurons that spike at once where the source does."""
        source = projection.source
        neurons = {p.name: p for p in self.populations}
        if source not in neurons and self.spec.kind != "spikes":
            raise SnnDeployError(
                "SD205",
                "two ways of the input into the same neurons that differ in pool or stride cannot "
                "be frozen",
                where=projection.name,
                fix="let both have the same stride and pool, or put neurons into one of them",
            )
        if source not in self.relays:
            name = f"{source}_relay"
            while name in neurons:
                name += "_"
            self.relays[source] = name
            shape = neurons[source].shape if source in neurons else self.spec.shape
            self._close(name, shape, FrozenNeurons.any_spike().neurons, _spread(shape, 0.0))
            one = one_each(shape)
            self.projections.append(Projection(source=source, target=name, synapses=one))
        return replace(projection, source=self.relays[source])

    def _normalise(self, pattern: Pattern) -> None:
        """Take over the normalisation of the input; there is one."""
        known = self._normal
        if known is not None and not (
            _alike(known.mean, pattern.mean) and _alike(known.std, pattern.std)
        ):
            raise UnfoldableError(
                "they are fed by the input under another normalisation than elsewhere",
                "normalise the input once, before everything",
            )
        if any(channel_values(x, self.spec.shape) is None for x in (pattern.mean, pattern.std)):
            raise UnfoldableError(
                "they are fed by an input that is normalised by a mean or std per place",
                "use one mean and std per channel, or normalise before the module",
            )
        self._normal = pattern

    def input(self) -> InputSpec:
        """The input with the normalisation that the network applies to it."""
        if self._normal is None:
            return self.spec
        mean, std = (
            channel_values(x, self.spec.shape) if x.size > 1 else x.reshape(1)
            for x in (self._normal.mean, self._normal.std)
        )
        assert mean is not None and std is not None
        return replace(self.spec, mean=mean.copy(), std=std.copy())

    def read_out(self, result: Result) -> float:
        """End in what the network returns.

        Returns what that is per unit of the graph's output.
        """
        direct = self._populations_own(result)
        if direct is not None:
            return direct
        form, steps = result.output, result.steps
        times: dict[Pattern, dict[int | None, float]] = {}
        bias, magnitude = np.zeros(()), np.zeros(())
        for (pattern, time), weight in form.terms.items():
            if pattern.source is None:
                bias = bias + weight * pattern.constant
                magnitude = magnitude + abs(weight) * pattern.magnitude
            elif weight != 0:
                times.setdefault(pattern, {})[time] = weight
        read, per_step = _reading([one for one in times.values() if None not in one], steps)
        # what is the same at all timesteps was added up over them
        share = 1.0 / steps if read == "sum" else 1.0
        integrator = Integrator(decay=np.array(0.0), bias=np.array(0.0), readout=read)
        target = Followed(OUTPUT, "the result", form.shape, FrozenNeurons(integrator))
        self._close(
            OUTPUT, form.shape, replace(integrator, bias=_spread(form.shape, bias * share)),
            _spread(form.shape, magnitude * share),
        )  # fmt: skip
        for pattern, weights in times.items():
            weight = weights[None] * share if None in weights else per_step
            self._project(pattern, target, weight, np.ones(()), 0)
        return 1.0

    def _populations_own(self, result: Result) -> float | None:
        """Read out the last population itself: its spike counts, or an integrator's membranes."""
        patterns = {p for p, _ in result.output.terms}
        if len(patterns) != 1:
            return None
        (pattern,) = patterns
        if not (pattern.membrane or (pattern.own_values and pattern.pool is None)):
            return None
        if pattern.source == self.spec.name:
            return None
        place = next(k for k, p in enumerate(self.populations) if p.name == pattern.source)
        population = self.populations[place]
        weights = {time: w for (_, time), w in result.output.terms.items()}
        if max(weights.values()) <= 0:
            raise SnnDeployError(
                "SD205",
                "a result whose largest value is of the neurons that fire least cannot be frozen",
                where=pattern.origin,
                fix="return counts of spikes with a positive factor, or weigh them with a layer",
            )
        read, per_step = _reading([weights], result.steps)
        if pattern.largest:
            if set(weights) != set(range(result.steps)):
                raise SnnDeployError(
                    "SD205", "the largest of some of the timesteps cannot be frozen",
                    where=pattern.origin, fix="take it over all timesteps",
                )  # fmt: skip
            read, per_step = "max", weights[0]
        self.output = population.name
        if pattern.hidden:
            raise SnnDeployError(
                "SD205",
                "a result read from synaptic currents, or from spikes of neurons without reset, "
                "cannot be frozen",
                where=pattern.origin,
                fix="read membranes of neurons without reset, or spikes of neurons with one",
            )
        if pattern.membrane:
            if not isinstance(population.neurons, Integrator):
                raise SnnDeployError(
                    "SD205",
                    "a result read from the membranes of neurons that are reset cannot be frozen",
                    where=pattern.origin,
                    fix="count their spikes, or let the last neurons have no reset",
                )
            self.populations[place] = replace(
                population, neurons=replace(population.neurons, readout=read)
            )
            return per_step
        if read == "last":
            raise SnnDeployError(
                "SD205", "a result of the last timestep's spikes alone cannot be frozen",
                where=pattern.origin, fix="count spikes over all timesteps",
            )  # fmt: skip
        return per_step / result.steps if read == "mean" else per_step


def _reading(weights: Iterable[dict[int | None, float]], steps: int) -> tuple[Readout, float]:
    """How terms are read over time, and the factor that is left at each timestep."""
    found: set[tuple[str, float]] = set()
    for one in weights:
        values = set(one.values())
        if len(values) != 1:
            raise SnnDeployError(
                "SD205",
                "a result that weighs timesteps differently cannot be frozen",
                fix="return the sum or mean over time",
            )
        (weight,) = values
        if set(one) == set(range(steps)):
            mean = abs(weight * steps - 1) < 1e-12
            found.add(("mean", 1.0) if mean else ("sum", weight))
        elif set(one) == {steps - 1}:
            found.add(("last", weight))
        else:
            raise SnnDeployError(
                "SD205",
                "a result of some of the timesteps cannot be frozen",
                fix="return the sum or mean over all timesteps, or the last",
            )
    if not found:
        return "mean", 1.0
    if len(found) != 1:
        raise SnnDeployError("SD205", "a result read in two ways at once cannot be frozen")
    ((read, weight),) = found
    return read, weight  # type: ignore[return-value]


def _fitted(followed: Followed) -> LIF | Integrator:
    """The neurons of a population, with parameters of shapes that a graph has."""
    neurons = followed.frozen.neurons
    values = {"decay": neurons.decay, "current_decay": neurons.current_decay}
    if isinstance(neurons, LIF):
        values["threshold"] = neurons.threshold
    try:
        several = {k: _spread(followed.shape, v) for k, v in values.items() if np.ndim(v)}
    except ValueError:
        raise _refused(followed, "with parameters of another shape than its neurons") from None
    return replace(neurons, **several)


def _to_itself(followed: Followed, synapses: Synapses | Floats, gain: Floats) -> Synapses:
    """The recurrent synapses of a population, multiplied by its gain."""
    values = channel_values(np.asarray(gain), followed.shape)
    if values is None:
        raise _refused(followed, "with recurrence and a factor per place of a map")
    if not isinstance(synapses, Dense | Conv2d):
        weights = channel_values(synapses, followed.shape)
        if weights is None:
            raise _refused(followed, "with a recurrent weight per place of a map")
        synapses = one_each(followed.shape, weights)
    rows = values if len(values) == len(synapses.weight) else np.repeat(
        values, len(synapses.weight) // len(values)
    )  # fmt: skip
    spread = rows.reshape(-1, *([1] * (synapses.weight.ndim - 1)))
    return with_weights(synapses, synapses.weight * spread)




def _spread(shape: Shape, values: Any) -> Floats:
    """[C, 1, 1] or [N] where all neurons of a channel have the same, else the full shape."""
    values = np.asarray(values, np.float64)
    channels = channel_values(values, shape)
    if channels is None:
        return np.broadcast_to(values, shape).copy()
    return channels.reshape(-1, *([1] * (len(shape) - 1)))
