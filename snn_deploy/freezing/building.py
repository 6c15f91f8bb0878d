"""Build the populations and projections of a graph, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from snn_deploy.biases import Biases
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.feeding import alike, every_step
from snn_deploy.freezing.following import Followed
from snn_deploy.freezing.forms import Floats, Pattern, channel_values, one_each
from snn_deploy.freezing.neurons import FrozenNeurons
from snn_deploy.freezing.refusal import UnfoldableError, refuse
from snn_deploy.graph import LIF, InputSpec, Integrator, Population, Projection
from snn_deploy.synapses import Conv2d, Dense, Shape, Synapses, with_weights


def _refused(population: Followed, what: str, fix: str | None = None) -> SnnDeployError:
    kind = "Neurons" if not population.path else population.path
    message = f"{kind} {what} cannot be frozen"
    return SnnDeployError("SD205", message, where=population.path, fix=fix)


class Builder:
    """Populations and projections, one after the other."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.magnitude: dict[str, Floats] = {}
        self.relays: dict[str, str] = {}  # by source
        self.biases = Biases()
        self._normal: Pattern | None = None

    def add(self, followed: Followed) -> None:
        """A population of neurons with its projections."""
        fed, frozen = every_step(followed), followed.frozen
        bias, magnitude = fed.bias, fed.magnitude
        if frozen.recurrent_bias is not None:
            bias = bias + frozen.recurrent_bias
            magnitude = magnitude + np.abs(frozen.recurrent_bias)
        bias = spread(followed.shape, bias * frozen.gain + frozen.neurons.bias)
        magnitude = spread(
            followed.shape,
            (magnitude + np.abs(frozen.offset)) * np.abs(frozen.gain) + np.abs(frozen.neurons.bias),
        )
        if frozen.neurons.current_decay is not None:  # the filter stands before the membrane
            own = spread(followed.shape, frozen.neurons.bias)
            before = np.broadcast_to(bias - own, followed.shape).reshape(-1)
            self.biases.add(followed.name, frozen.delay, before)
            bias = own
        if frozen.delay and any(lag is None for _, lag in fed.terms):
            # a constant input is there from the first timestep on, in every engine
            raise _refused(
                followed,
                "fed by a constant input, without a LIF layer between,",
                "put a LIF layer before it, or let the input be spikes",
            )
        neurons = replace(_fitted(followed), bias=bias)
        self.close(followed.name, followed.shape, neurons, magnitude)
        for (pattern, lag), weight in fed.terms.items():
            self.project(pattern, followed, weight, frozen.gain, (lag or 0) + frozen.delay)
        if frozen.recurrent is not None:
            self.projections.append(
                Projection(
                    source=followed.name,
                    target=followed.name,
                    synapses=_to_itself(followed, frozen.recurrent, frozen.gain),
                    delay=1 + frozen.delay,
                )
            )

    def close(self, name: str, shape: Shape, neurons: Any, magnitude: Floats) -> None:
        """A population that is complete; ``magnitude`` is what was summed into its bias."""
        self.populations.append(Population(name=name, shape=shape, neurons=neurons))
        self.magnitude[name] = magnitude

    def project(
        self, pattern: Pattern, target: Followed, weight: float, gain: Floats, delay: int
    ) -> None:
        """A projection that feeds a population as a pattern says."""
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
            self.close(name, shape, FrozenNeurons.any_spike().neurons, spread(shape, 0.0))
            one = one_each(shape)
            self.projections.append(Projection(source=source, target=name, synapses=one))
        return replace(projection, source=self.relays[source])

    def _normalise(self, pattern: Pattern) -> None:
        """Take over the normalisation of the input; there is one."""
        known = self._normal
        if known is not None and not (
            alike(known.mean, pattern.mean) and alike(known.std, pattern.std)
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
        assert mean is not None
        assert std is not None
        return replace(self.spec, mean=mean.copy(), std=std.copy())


def _fitted(followed: Followed) -> LIF | Integrator:
    """The neurons of a population, with parameters of shapes that a graph has."""
    neurons = followed.frozen.neurons

    def fitted(value: Floats) -> Floats:
        return spread(followed.shape, value) if value.ndim else value

    try:
        if isinstance(neurons, LIF):
            neurons = replace(neurons, threshold=fitted(neurons.threshold))
        if neurons.current_decay is not None:
            neurons = replace(neurons, current_decay=fitted(neurons.current_decay))
        return replace(neurons, decay=fitted(neurons.decay))
    except ValueError:
        raise _refused(followed, "with parameters of another shape than its neurons") from None


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


def spread(shape: Shape, values: Any) -> Floats:
    """[C, 1, 1] or [N] where all neurons of a channel have the same, else the full shape."""
    values = np.asarray(values, np.float64)
    channels = channel_values(values, shape)
    if channels is None:
        return np.broadcast_to(values, shape).copy()
    return channels.reshape(-1, *([1] * (len(shape) - 1)))
