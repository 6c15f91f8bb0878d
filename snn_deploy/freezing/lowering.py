"""Build the float graph of a network from what following it found."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy import checks
from snn_deploy.biases import UnbiasableError
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import normalisation
from snn_deploy.freezing.building import Builder
from snn_deploy.freezing.following import Emitted, Result, as_population, follow
from snn_deploy.freezing.forms import Form
from snn_deploy.freezing.merging import merged
from snn_deploy.freezing.readout import read_out
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording
from snn_deploy.synapses import Shape

Floats = NDArray[np.float64]

INPUT = "input"


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A float graph, and what the freeze proof needs to know of the module behind it.

    Attributes
    ----------
    graph : the float graph.
    emitted : the population and timesteps of the spikes of every call of a leaf, in order.
    magnitude : per population, the magnitudes that were summed into its bias (broadcastable).
    pools : populations that are maxima over spikes or relays, not neurons of the module.
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


def _assembled(result: Result, spec: InputSpec, timesteps: int, time_first: bool) -> Lowered:
    builder = Builder(replace(spec, shape=as_population(spec.shape)))
    for population in result.populations:
        builder.add(population)
    output, factor = read_out(builder, result)
    projections = merged(builder.projections, builder.relayed)
    try:
        always, filtered = builder.biases.inputs({p.name: p for p in builder.populations})
    except UnbiasableError as error:
        raise SnnDeployError("SD205", f"{error} cannot be frozen") from None
    graph = Graph(
        inputs=(builder.input(), *always),
        populations=tuple(builder.populations),
        projections=(*projections, *filtered),
        outputs=(output,),
        timesteps=timesteps,
    )
    checks.check_float(graph)
    pools = frozenset(p.name for p in result.populations if p.pooled) | set(builder.relays.values())
    return Lowered(graph, result.emitted, builder.magnitude, pools, factor, spec.shape, time_first)
