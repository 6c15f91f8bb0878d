"""When a spike arrives: stages, physical delays, resets and windows of a pipelined chip.

In zero-delay timing a spike crosses a projection within its timestep, and delays are the graph's
own. On a pipelined chip (``hop_delay`` 1) every hop takes a timestep. Each population then has a
*stage* s: it does at timestep k + s what it does at timestep k of the zero-delay graph. A
projection whose stages differ by more than one hop needs synapses or relays that wait
(:mod:`snn_deploy.mapping` makes them); a loop gives back what its delays lend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Projection

Delay = int | NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Stages and physical delays of one graph.

    Attributes
    ----------
    stages : per population, timesteps it runs behind the zero-delay graph.
    delays : per projection, timesteps from a spike to its arrival: the graph's own delay and the
        difference of the stages; the same shape as the projection's delay. Constant inputs do not
        travel: they have 0.
    """

    stages: dict[str, int]
    delays: dict[str, Delay]

    @property
    def latency(self) -> int:
        """Timesteps by which the last population runs behind the zero-delay graph."""
        return max(self.stages.values())

    def index(self, population: str) -> int:
        """Stage counted from the first population, as netx counts the layers it creates."""
        return self.stages[population] - min(self.stages.values())


def zero_delay(graph: Graph) -> Schedule:
    """No hop takes time."""
    return Schedule(
        stages={p.name: 0 for p in graph.populations},
        delays={p.name: 0 if graph.is_constant(p) else _wide(p) for p in graph.projections},
    )


def pipelined(graph: Graph) -> Schedule:
    """Every hop takes the number format's ``hop_delay``.

    Between populations that no loop joins, every projection is at least one hop, whatever its
    delay. Inside a loop a delay may stand for the hop: recurrence with delay 1 is one hop.

    Raises
    ------
    SnnDeployError
        SD207 if the delays of a loop are shorter than its hops.
    """
    hop = 0 if graph.number_format is None else graph.number_format.hop_delay
    if hop == 0:
        return zero_delay(graph)
    loop = {name: index for index, group in enumerate(graph.order) for name in group}
    stages = {p.name: 0 for p in graph.populations}

    def least(projection: Projection) -> int:
        """Smallest stage of the target that this projection allows."""
        if graph.is_constant(projection):
            return 0
        if graph.is_input(projection.source):
            return hop
        joined = loop[projection.source] == loop[projection.target]
        own = projection.shortest_delay if joined else 0
        return stages[projection.source] + hop - own

    # The longest path: as many rounds as there are populations, or a loop lacks delay.
    for _ in range(len(graph.populations) + 1):
        late = [p for p in graph.projections if stages[p.target] < least(p)]
        for projection in late:
            stages[projection.target] = max(stages[projection.target], least(projection))
        if not late:
            break
    else:
        # What follows is late as well: the first group that is late on its own account is to blame.
        inside = [p for p in late if loop.get(p.source) == loop[p.target]]
        raise SnnDeployError(
            "SD207",
            "a loop whose delays are shorter than its hops",
            where=", ".join(graph.order[min(loop[p.target] for p in inside)]),
            why="on a pipelined chip every population of a loop adds a timestep",
            fix="train with a delay of one timestep per population in the loop, or simulate with "
            "zero-delay timing",
        )
    delays: dict[str, Delay] = {}
    for projection in graph.projections:
        if graph.is_constant(projection):
            delays[projection.name] = 0
        else:
            source = 0 if graph.is_input(projection.source) else stages[projection.source]
            delays[projection.name] = _wide(projection) + stages[projection.target] - source
    return Schedule(stages, delays)


def _wide(projection: Projection) -> Delay:
    """The delay in a type that holds the hops, too; files may hold delays in few bits."""
    delay = projection.delay
    return delay.astype(np.int64) if isinstance(delay, np.ndarray) else delay


def repeatable(graph: Graph) -> None:
    """Raise unless a reset of all neurons makes every window of timesteps start anew.

    Raises
    ------
    SnnDeployError
        SD207 naming the projection in which spikes of one window wait for the next.
    """
    for projection in graph.projections:
        if not graph.is_constant(projection) and projection.longest_delay > 0:
            raise SnnDeployError(
                "SD207",
                "spikes that wait in a delay or a recurrent synapse survive a reset",
                where=projection.name,
                why="the first timesteps of a sample would see the last spikes of the one before",
                fix="run every sample by itself",
            )
