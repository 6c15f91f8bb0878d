"""The nodes and edges of a NIR file in the making."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

import nir

from snn_deploy.errors import SnnDeployError

Edge = tuple[str, str]


@dataclass(slots=True)
class Assembly:
    """Nodes by name, and edges.

    ``late`` edges arrive a timestep later, or close a loop that holds a Delay; ``first`` edges are
    to be listed before others of their source. ``most``: how many weights may be made.
    """

    most: int | None = None
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    edges: list[Edge] = field(default_factory=list)
    late: set[Edge] = field(default_factory=set)
    first: set[Edge] = field(default_factory=set)
    made: int = 0

    def add(self, wanted: str, node: nir.NIRNode) -> str:
        """Add a node under a name like the wanted one; see :meth:`reserve`."""
        name = self.reserve(wanted)
        self.nodes[name] = node
        return name

    def reserve(self, wanted: str) -> str:
        """A name like the wanted one that no other node has, of letters, digits and _ only.

        Readers make attributes of names: a dot or a dash would make two names one.
        """
        base = re.sub(r"[^A-Za-z0-9_]", "_", wanted)
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name)
        return name

    def make_room(self, *shape: int) -> None:
        """Count weights before they are made.

        Raises
        ------
        SnnDeployError
            SD405 if there are more than there may be: what a file claims needs more than it holds.
        """
        self.made += math.prod(shape)
        if self.most is not None and self.made > self.most:
            raise SnnDeployError("SD405", "more weights than the file holds")

    def sorted_edges(self) -> list[Edge]:
        """Edges in an order that serves readers who follow them depth first.

        They run a node when they first meet it: of one source, what loops back comes first, then
        the longer way before the shorter.
        """
        before: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            if (source, target) not in self.late:
                before[target].append(source)
        place = {name: i for i, name in enumerate(TopologicalSorter(before).static_order())}
        return sorted(self.edges, key=lambda e: (place[e[0]], e not in self.first, place[e[1]]))
