"""What one core of a chip holds, and what neurons and synapses take of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.hardware import Target
from snn_deploy.mapping.wiring import Wiring

# What fills a core up: names of limits, and what they are called in a message.
RESOURCES = {
    "neurons_per_core": "neurons",
    "axons_in_per_core": "axons in",
    "axons_out_per_core": "axons out",
    "synapses_per_core": "synapses",
    "synapse_bits_per_core": "bits of synaptic memory",
}
# Weights of a network that is not quantized yet are counted with the width that `export` takes.
_DEFAULT_WEIGHT_BITS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Cores:
    """A network in front of a chip's cores: capacities, and what its parts take of them.

    Attributes
    ----------
    capacity : per entry of :data:`RESOURCES` that the profile limits, what one core has.
    wiring : per projection, by name; those that the host computes take nothing of a core and are
        left out.
    per_chip : cores of a chip, None where that is not known.
    bits : per projection, by name, bits of a weight.
    """

    graph: Graph
    target: Target
    capacity: dict[str, int]
    wiring: dict[str, Wiring]
    per_chip: int | None
    bits: dict[str, int]

    @staticmethod
    def of(graph: Graph, target: Target) -> Cores:
        """A network in front of a target."""
        limits = target.limits
        capacity = {name: limits[name].value for name in RESOURCES if name in limits}
        per_chip = limits["cores_per_chip"].value if "cores_per_chip" in limits else None
        if "neurons_per_core" not in limits and "neurons_per_chip" in limits and per_chip is None:
            capacity["neurons_per_core"] = limits["neurons_per_chip"].value
            per_chip = 1  # nothing is known of cores: the chip is one
        on_chip = [p for p in graph.projections if not on_host(graph, p, target)]
        return Cores(
            graph=graph,
            target=target,
            capacity=capacity,
            wiring={p.name: Wiring.of(graph, p) for p in on_chip},
            per_chip=per_chip,
            bits={p.name: weight_bits(graph, p, target) for p in on_chip},
        )

    @property
    def limited(self) -> bool:
        """Whether anything is known of what a core holds."""
        return bool(self.capacity) or layerwise(self.target)

    def require_limits(self) -> None:
        """Raise SD209 if the target's profile states no limit of a core."""
        if not self.limited:
            raise SnnDeployError(
                "SD209",
                f"nothing is known of what a core of {self.target.id} holds",
                why="its profile states no limit of a core, and what is unset is not unlimited",
                fix="name a target with limits, or a profile of your own that states them",
            )

    def without(self, limit: str) -> Cores:
        """The same in front of cores that have no such limit."""
        return replace(self, capacity={n: m for n, m in self.capacity.items() if n != limit})

    def incoming(self, population: str) -> list[Wiring]:
        """Wiring that ends at a population."""
        return [w for w in self.wiring.values() if w.projection.target == population]

    def outgoing(self, source: str) -> list[Wiring]:
        """Wiring that begins at an input or population."""
        return [w for w in self.wiring.values() if w.projection.source == source]

    def shares(self, wiring: Wiring) -> bool:
        """Whether a core stores each weight of a convolution once for all pixels."""
        structure = self.target.structure
        return (
            wiring.kernel is not None and structure is not None and bool(structure.shares_weights)
        )

    @property
    def has_loops(self) -> bool:
        """Whether any population sends to itself, or back to one before it."""
        graph = self.graph
        return any(
            len(group) > 1 or any((p.source, p.target) == (name, name) for p in graph.projections)
            for group in graph.order
            for name in group
        )

    def counted(self, population: Population) -> bool:
        """Whether its neurons take of ``neurons_per_core``.

        Outputs of a chip that limits them by themselves have a place of their own.
        """
        apart = "output_neurons" in self.target.limits
        return not (apart and population.name in self.graph.outputs)


def layerwise(target: Target) -> bool:
    """Whether a core holds one whole population, in memories that differ between cores."""
    return "kernel_words_per_core" in target.limits


def on_host(graph: Graph, projection: Projection, target: Target) -> bool:
    """Whether the host computes a projection: constant values, on a chip that is sent spikes only.

    Where a chip has no number format and nothing is known of graded input, the host does.
    """
    if target.number_format is not None:
        return graph.is_constant(projection) and target.number_format.first_layer == "host_bias"
    graded = target.structure is not None and bool(target.structure.graded_input)
    return graph.is_constant(projection) and not graded


def weight_bits(graph: Graph, projection: Projection, target: Target) -> int:
    """Bits that each weight of a projection takes on a chip.

    Of an integer graph as many as its largest mantissa needs, in steps of its number format; of a
    float graph as many as an export would give it: 8, or what the chip has.
    """
    if graph.number_format is None:
        most = target.limits["weight_bits"].value if "weight_bits" in target.limits else 1 << 30
        return min(_DEFAULT_WEIGHT_BITS, most)
    step = 1 if graph.on_host(projection) else graph.number_format.weight_step
    weight = projection.synapses.weight
    low, high = int(np.min(weight)), int(np.max(weight))
    span = max(high // step, -(low // step) - 1, 0)  # two's complement
    return max(1, span.bit_length() + (low < 0))
