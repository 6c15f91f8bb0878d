"""Walk a network from input to readout and build its float graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.batchnorm import fold_batchnorm
from snn_deploy.freezing.current import Current, open_current
from snn_deploy.freezing.pooling import fold_average_pool
from snn_deploy.graph import (
    LIF,
    Graph,
    InputSpec,
    Integrator,
    Neurons,
    Population,
    Projection,
)
from snn_deploy.nn import neurons as training_neurons
from snn_deploy.nn.models import OverTime, SpikingNet
from snn_deploy.synapses import Shape, SumPool, pooled_shape

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A float graph, and what the freeze proof needs to know of the module behind it.

    Attributes
    ----------
    graph : the float graph.
    modules : the LIF module of each spiking population.
    magnitude : per population, the magnitudes that were summed into its bias (broadcastable).
    """

    graph: Graph
    modules: dict[str, nn.Module]
    magnitude: dict[str, NDArray[np.float64]]


@dataclass(slots=True)
class _Walk:
    """State of the walk: what has been built, and what waits to be closed by neurons."""

    source: str
    shape: Shape
    pool: SumPool | None = None
    factor: float = 1.0
    current: Current | None = None
    populations: list[Population] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    magnitude: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def close(self, name: str, make: type[LIF] | type[Integrator], **options: object) -> None:
        """End the waiting current in a population."""
        current = self.current
        if current is None:
            raise ValueError("without synapses before it")
        synapses = current.synapses()
        shape = synapses.target_shape(pooled_shape(self.shape, current.pool))
        per_channel = (-1, *([1] * (len(shape) - 1)))
        bias = current.bias.reshape(per_channel)
        neurons: Neurons = make(bias=bias, **options)  # type: ignore[arg-type]
        self.populations.append(Population(name=name, shape=shape, neurons=neurons))
        self.projections.append(
            Projection(source=self.source, target=name, synapses=synapses, pool=current.pool)
        )
        self.magnitude[name] = current.magnitude.reshape(per_channel)
        self.source, self.shape = name, shape
        self.pool, self.factor, self.current = None, 1.0, None


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
    walk = _Walk(INPUT, architecture.input_shape)
    for index, layer in enumerate(model.layers):
        try:
            _step(walk, layer)
        except ValueError as error:
            module = layer.module if isinstance(layer, OverTime) else layer
            raise SnnDeployError(
                "SD205",
                f"{type(module).__name__} {error} cannot be frozen",
                where=f"layers.{index}",
            ) from None
    walk.close(OUTPUT, Integrator, decay=np.array(0.0), readout="mean")
    graph = Graph(
        inputs=(spec,),
        populations=tuple(walk.populations),
        projections=tuple(walk.projections),
        outputs=(OUTPUT,),
        timesteps=architecture.timesteps,
    )
    checks.check_float(graph)
    return Lowered(graph, walk.modules, walk.magnitude)


def _step(walk: _Walk, layer: nn.Module) -> None:
    """Fold one layer."""
    module = layer.module if isinstance(layer, OverTime) else layer
    if isinstance(module, nn.Conv2d | nn.Linear):
        kind = "conv" if isinstance(module, nn.Conv2d) else "linear"
        walk.counts[kind] = walk.counts.get(kind, 0) + 1
        walk.current = open_current(module, walk.source, walk.pool, walk.factor)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        if walk.current is None:
            raise ValueError("without synapses before it")
        walk.current = fold_batchnorm(walk.current, module)
    elif isinstance(module, nn.AvgPool2d):
        walk.pool, walk.factor = fold_average_pool(module)
    elif isinstance(module, training_neurons.LIF):
        kind = "linear" if walk.current and walk.current.weight.ndim == 2 else "conv"
        name = f"{kind}{walk.counts.get(kind, 0)}"
        walk.close(name, LIF, decay=np.array(module.decay), threshold=np.array(module.threshold))
        walk.modules[name] = module
    elif not isinstance(module, nn.Flatten):
        raise ValueError("of an unknown kind")  # noqa: TRY004
