"""Walk a network from input to readout and build its float graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.batchnorm import fold_batchnorm
from snn_deploy.freezing.current import Current, identity_current, open_current
from snn_deploy.freezing.neurons import FrozenNeurons, freeze_neurons
from snn_deploy.freezing.pooling import fold_average_pool
from snn_deploy.graph import Graph, InputSpec, Integrator, Population, Projection
from snn_deploy.nn.layers import BatchNormOverTime, OverTime, Residual
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.neurons import Neuron
from snn_deploy.synapses import Dense, Shape, SumPool, pooled_shape, with_weights

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A float graph, and what the freeze proof needs to know of the module behind it.

    Attributes
    ----------
    graph : the float graph.
    modules : the neuron module of each spiking population.
    magnitude : per population, the magnitudes that were summed into its bias (broadcastable).
    """

    graph: Graph
    modules: dict[str, nn.Module]
    magnitude: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class _Way:
    """A place between layers: the population behind, and what waits to be closed by neurons.

    ``pool`` and ``factor`` are of average pooling that the next synapses will carry; ``currents``
    are added up by the next neurons; ``label`` names those after their last synaptic layer.
    """

    source: str
    shape: Shape
    pool: SumPool | None = None
    factor: float = 1.0
    currents: tuple[Current, ...] = ()
    label: str = ""

    def target_shape(self) -> Shape:
        """Shape of the neurons that the currents would flow into."""
        if not self.currents:
            raise ValueError("without synapses before it")
        first = self.currents[0]
        return first.synapses.target_shape(pooled_shape(self.shape, first.pool))


@dataclass(slots=True)
class _Walk:
    """What has been built so far; ``constant``: whether the input is the same at all timesteps."""

    constant: bool
    populations: list[Population] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    magnitude: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def chain(self, layers: Iterable[tuple[str, nn.Module]], way: _Way, path: str) -> _Way:
        """Fold layers one after the other; ``path`` is the module's that holds them."""
        for name, layer in layers:
            where = f"{path}.{name}"
            if isinstance(layer, Residual):
                way = self._residual(layer, way, where)
                continue
            try:
                way = self._step(layer, way)
            except ValueError as error:
                module = layer.module if isinstance(layer, OverTime | BatchNormOverTime) else layer
                raise SnnDeployError(
                    "SD205", f"{type(module).__name__} {error} cannot be frozen", where=where
                ) from None
        return way

    def _residual(self, layer: Residual, way: _Way, where: str) -> _Way:
        """Both ways from the same spikes; their currents wait together."""
        main = self.chain(layer.layers.named_children(), way, f"{where}.layers")
        short = self.chain(layer.shortcut.named_children(), way, f"{where}.shortcut")
        currents = short.currents
        if not list(layer.shortcut.children()):
            currents = (identity_current(way.source, way.shape[0]),)
        return replace(main, currents=(*main.currents, *currents))

    def _step(self, layer: nn.Module, way: _Way) -> _Way:
        """Fold one layer."""
        module = layer.module if isinstance(layer, OverTime) else layer
        if isinstance(module, nn.Conv2d | nn.Linear):
            kind = "conv" if isinstance(module, nn.Conv2d) else "linear"
            if way.currents:
                raise ValueError("without neurons before it")
            current = open_current(module, way.source, way.pool, way.factor)
            self.counts[kind] = self.counts.get(kind, 0) + 1
            return replace(way, currents=(current,), label=f"{kind}{self.counts[kind]}")
        if isinstance(module, BatchNormOverTime):
            if not isinstance(module.module, nn.BatchNorm1d | nn.BatchNorm2d):
                raise ValueError("of an unknown kind")  # noqa: TRY004
            if len(way.currents) != 1:
                raise ValueError("without synapses before it")
            return replace(way, currents=(fold_batchnorm(way.currents[0], module),))
        if isinstance(module, nn.AvgPool2d):
            if way.currents or way.pool is not None:
                raise ValueError("without neurons before it")
            pool, factor = fold_average_pool(module)
            return replace(way, pool=pool, factor=factor)
        if isinstance(module, Neuron):
            frozen = freeze_neurons(module)
            self.modules[way.label] = module
            return self.close(way, way.label, frozen)
        if not isinstance(module, nn.Flatten):
            raise ValueError("of an unknown kind")  # noqa: TRY004
        return way

    def close(self, way: _Way, name: str, frozen: FrozenNeurons | Integrator) -> _Way:
        """End the waiting currents in a population."""
        shape = way.target_shape()
        per_channel = (-1, *([1] * (len(shape) - 1)))
        bias = sum((c.bias for c in way.currents), np.zeros(())).reshape(per_channel)
        magnitude = sum((c.magnitude for c in way.currents), np.zeros(())).reshape(per_channel)
        gain, delay, recurrent = 1.0, 0, None
        if isinstance(frozen, FrozenNeurons):
            gain, delay, recurrent = frozen.gain, frozen.delay, frozen.recurrent
            if bias.any() and frozen.neurons.current_decay is not None:
                raise ValueError("with a synaptic filter behind a bias or batch normalisation")
        if delay and self.constant and any(c.source == INPUT for c in way.currents):
            # a constant input is there from the first timestep on, in every engine
            raise ValueError("fed by a constant input, without a LIF layer between,")
        neurons: Any = frozen.neurons if isinstance(frozen, FrozenNeurons) else frozen
        self.populations.append(
            Population(name=name, shape=shape, neurons=replace(neurons, bias=bias))
        )
        for current in way.currents:
            self.projections.append(
                Projection(
                    source=current.source,
                    target=name,
                    synapses=with_weights(current.synapses, current.synapses.weight * gain),
                    pool=current.pool,
                    delay=delay,
                )
            )
        if recurrent is not None:
            self.projections.append(
                Projection(source=name, target=name, synapses=Dense(recurrent), delay=1)
            )
        self.magnitude[name] = magnitude
        return _Way(name, shape)


def lower(model: nn.Module) -> Lowered:
    """Build the graph of a network; see :func:`snn_deploy.freeze`."""
    if not isinstance(model, SpikingNet):
        raise SnnDeployError(
            "SD205",
            f"{type(model).__name__} cannot be frozen",
            why="only networks described by an architecture can",
            fix="build it from a recipe: see examples/digits.toml",
        )
    architecture = model.architecture
    spec = InputSpec(
        name=INPUT,
        kind="constant" if architecture.input_kind == "constant" else "spikes",
        shape=architecture.input_shape,
        low=architecture.low,
        high=architecture.high,
        mean=np.array(architecture.mean),
        std=np.array(architecture.std),
    )
    walk = _Walk(spec.kind == "constant")
    way = walk.chain(model.layers.named_children(), _Way(INPUT, architecture.input_shape), "layers")
    readout = Integrator(decay=np.array(0.0), bias=np.array(0.0), readout="mean")
    walk.close(way, OUTPUT, readout)
    graph = Graph(
        inputs=(spec,),
        populations=tuple(walk.populations),
        projections=tuple(walk.projections),
        outputs=(OUTPUT,),
        timesteps=model.timesteps,
    )
    checks.check_float(graph)
    return Lowered(graph, walk.modules, walk.magnitude)
