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
from snn_deploy.freezing.following import Emitted, Followed, Result, follow
from snn_deploy.freezing.forms import Form, Moment, Pattern, channel_values, one_each
from snn_deploy.freezing.merging import merged
from snn_deploy.graph import Graph, InputSpec, Integrator, Population, Projection, Readout
from snn_deploy.nn.models import SpikingNet
from snn_deploy.synapses import Dense, Shape, with_weights

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
    factor : what the module returns per unit of the graph's output.
    time_first : how the module is fed.
    """

    graph: Graph
    emitted: tuple[Emitted, ...]
    magnitude: dict[str, Floats]
    pools: frozenset[str]
    factor: float
    time_first: bool


def lower(
    model: nn.Module,
    spec: InputSpec | None = None,
    *,
    timesteps: int | None = None,
    time_first: bool = False,
) -> Lowered:
    """Build the graph of a network; see :func:`snn_deploy.freeze`."""
    if isinstance(model, SpikingNet):
        return _lower_described(model)
    if spec is None:
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen without knowing its input",
            fix="freeze(model, InputSpec(name='input', kind='spikes', shape=(700,)), timesteps=100)",
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


def _copy(model: nn.Module) -> Any:
    """A copy in evaluation and float64, for learned parameters evaluated exactly."""
    return copy.deepcopy(model).double().eval()


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
        biases = np.broadcast_arrays(found.bias, steady.bias)
        if found.terms != expected or not np.array_equal(*biases, equal_nan=True):
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


def _refused(population: Followed, what: str) -> SnnDeployError:
    kind = "Neurons" if not population.path else population.path
    return SnnDeployError("SD205", f"{kind} {what} cannot be frozen", where=population.path)


# ---- the graph ----


def _assembled(result: Result, spec: InputSpec, timesteps: int, time_first: bool) -> Lowered:
    builder = _Builder(spec)
    for population in result.populations:
        builder.add(population)
    factor = builder.read_out(result)
    graph = Graph(
        inputs=(builder.input(),),
        populations=tuple(builder.populations),
        projections=merged(builder.projections),
        outputs=(builder.output,),
        timesteps=timesteps,
    )
    checks.check_float(graph)
    pools = frozenset(p.name for p in result.populations if p.pooled)
    return Lowered(graph, result.emitted, builder.magnitude, pools, factor, time_first)


class _Builder:
    """Populations and projections, one after the other."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.output = OUTPUT
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.magnitude: dict[str, Floats] = {}
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
            followed.shape, magnitude * np.abs(frozen.gain) + np.abs(frozen.neurons.bias)
        )
        if (bias - frozen.neurons.bias).any() and frozen.neurons.current_decay is not None:
            raise _refused(followed, "with a synaptic filter behind a bias or batch normalisation")
        if frozen.delay and any(lag is None for _, lag in fed.terms):
            # a constant input is there from the first timestep on, in every engine
            raise _refused(followed, "fed by a constant input, without a LIF layer between,")
        self._close(followed.name, followed.shape, replace(frozen.neurons, bias=bias), magnitude)
        for (pattern, lag), weight in fed.terms.items():
            self._project(pattern, followed, weight, frozen.gain, (lag or 0) + frozen.delay)
        if frozen.recurrent is not None:
            rows = np.broadcast_to(frozen.gain, followed.shape).reshape(-1, 1)
            self.projections.append(
                Projection(
                    source=followed.name,
                    target=followed.name,
                    synapses=Dense(frozen.recurrent * rows),
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
            raise _refused(target, str(error)) from None

    def _projection(
        self, pattern: Pattern, target: str, weight: float, gain: Floats, delay: int
    ) -> Projection:
        if pattern.membrane:
            raise ValueError("fed by membranes")
        synapses = pattern.synapses
        if synapses is None:  # the source's own spikes, one synapse each
            synapses = one_each(pattern.shape)
        channels = channel_values(np.asarray(gain), pattern.shape)
        if channels is None:
            raise ValueError("with a factor per place of a map")
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

    def _normalise(self, pattern: Pattern) -> None:
        """Take over the normalisation of the input; there is one."""
        known = self._normal
        if known is not None and not (
            np.array_equal(*np.broadcast_arrays(known.mean, pattern.mean))
            and np.array_equal(*np.broadcast_arrays(known.std, pattern.std))
        ):
            raise ValueError("fed by the input under another normalisation than elsewhere")
        self._normal = pattern

    def input(self) -> InputSpec:
        """The input with the normalisation that the network applies to it."""
        if self._normal is None:
            return self.spec
        mean, std = self._normal.mean.reshape(-1), self._normal.std.reshape(-1)
        return replace(self.spec, mean=mean.copy(), std=std.copy())

    def read_out(self, result: Result) -> float:
        """End in what the network returns; returns what it returns per unit of the graph's output."""
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
        target = Followed(OUTPUT, "the result", form.shape, _sink(integrator))
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
        read, per_step = _reading([weights], result.steps)
        self.output = population.name
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


def _sink(integrator: Integrator) -> Any:
    from snn_deploy.freezing.neurons import FrozenNeurons

    return FrozenNeurons(integrator)


def _spread(shape: Shape, values: Any) -> Floats:
    """[C, 1, 1] or [N] where all neurons of a channel have the same, else the full shape."""
    values = np.asarray(values, np.float64)
    channels = channel_values(values, shape)
    if channels is None:
        return np.broadcast_to(values, shape).copy()
    return channels.reshape(-1, *([1] * (len(shape) - 1)))
