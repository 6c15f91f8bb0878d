"""What a NIR file says: its nodes and edges, subgraphs set into the graph that holds them.

The layout is that of nir 1.0: a group per node with its ``type`` and one dataset per parameter,
``nodes`` and ``edges`` for a graph. It is read as data, in a process of its own, so that a damaged
or hostile file ends in a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.hdf5 import Content, read_hdf5

Array = NDArray[Any]
Tree = dict[str, Any]

# A graph in a graph in a graph ...: no net is nested deeper.
MAX_DEPTH = 32
# Following them takes a time that grows with the square of their number.
MAX_NODES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node: its name in the flat graph, its type, its parameters.

    The name of a node of a subgraph is the subgraph's, a dot, and its own.
    """

    name: str
    kind: str
    parameters: dict[str, Content]
    file: str

    @property
    def where(self) -> str:
        """File and node, for messages."""
        return f"{self.file}: node {self.name} ({self.kind})"

    def refuse(
        self, message: str, *, code: str = "SD204", why: str | None = None, fix: str | None = None
    ) -> SnnDeployError:
        """An error about this node."""
        return SnnDeployError(code, message, where=self.where, why=why, fix=fix)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an input, an output, or of the parameters of neurons; () if there is none."""
        if self.kind in ("Input", "Output"):
            return self.integers("shape")
        arrays = [v.shape for v in self.parameters.values() if isinstance(v, np.ndarray)]
        return max(arrays, key=len, default=())

    def has(self, name: str) -> bool:
        """Whether the file gives this parameter."""
        return self.parameters.get(name) is not None

    @property
    def groups(self) -> int:
        """Groups of a convolution."""
        return self.one("groups", 1) if self.has("groups") else 1

    def array(self, name: str, *, infinite: bool = False) -> Array:
        """A parameter of numbers: float32 where the file has it so, else float64.

        ``infinite``: they may be without end.

        Raises
        ------
        SnnDeployError
            SD401 if it is missing or holds no numbers, SD403 for NaN and infinity.
        """
        value = self.parameters.get(name)
        if not isinstance(value, np.ndarray) or value.dtype == object or value.size == 0:
            raise self.refuse(f"`{name}` is missing or holds no numbers", code="SD401")
        numbers = value if value.dtype == np.float32 else value.astype(np.float64)
        if np.isnan(numbers).any() or not (infinite or np.isfinite(numbers).all()):
            raise self.refuse(f"`{name}` holds NaN or infinity", code="SD403")
        return numbers

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A parameter of finite numbers, as float64; raises as :meth:`array`."""
        return self.array(name).astype(np.float64)

    def one(self, name: str, least: int) -> int:
        """One integer."""
        value = self.integers(name)
        if len(value) != 1 or value[0] < least:
            raise self.refuse(f"`{name}` = {list(value)[:8]}: one number from {least} on")
        return value[0]

    def integers(self, name: str) -> tuple[int, ...]:
        """A parameter of integers, flat."""
        value = self.array(name).reshape(-1)
        if (value != np.rint(value)).any() or np.abs(value).max() > 1 << 31:
            raise self.refuse(f"`{name}` = {value.tolist()[:8]} are no integers", code="SD401")
        return tuple(int(n) for n in value)

    def pair(self, name: str, least: int) -> tuple[int, int]:
        """One integer for both axes, or one for each (vertical, horizontal)."""
        value = self.integers(name)
        if len(value) not in (1, 2) or min(value) < least:
            raise self.refuse(f"`{name}` = {list(value)[:8]}: one or two numbers from {least} on")
        return value[0], value[-1]


@dataclass(frozen=True, slots=True, eq=False)
class NirFile:
    """Nodes by name, in the order of the file, and edges between them; no subgraphs.

    ``inputs`` and ``outputs`` are those of the whole graph, ``notes`` say what was mended;
    ``content`` is all that the file holds, by its path in it.
    """

    path: str
    nodes: dict[str, Node]
    edges: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Tree
    notes: tuple[str, ...]
    content: dict[str, Content]

    def neighbours(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """By node: those with an edge to it, and those with an edge from it."""
        before: dict[str, list[str]] = {name: [] for name in self.nodes}
        after: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            before[target].append(source)
            after[source].append(target)
        return before, after


def read_file(path: Path) -> NirFile:
    """Read a ``.nir`` file.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD401 (no NIR file, or damaged), SD402 (unsafe).
    """
    where = str(path)
    tree: Tree = {}
    content = read_hdf5(path, "node")
    for name, value in content.items():
        *groups, last = name.split("/")[1:]
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = {} if value is None and last in ("nodes", "metadata") else value
    if _kind(tree, where) != "NIRGraph":
        raise SnnDeployError("SD401", "the NIR file holds no graph", where=where)
    reading = _Reading(where, {}, {}, [])
    inputs, outputs = reading.inline(tree, "", 0)
    return NirFile(
        path=where,
        nodes=reading.nodes,
        edges=tuple(reading.edges),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        metadata=tree.get("metadata") or {},
        notes=tuple(reading.notes),
        content=content,
    )


def _kind(tree: Any, where: str) -> str:
    kind = tree.get("type") if isinstance(tree, dict) else None
    if not isinstance(kind, str):
        raise SnnDeployError("SD401", "a node without `type`", where=where)
    return kind


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """The flat graph as it grows."""

    path: str
    nodes: dict[str, Node]
    edges: dict[tuple[str, str], None]
    notes: list[str]

    def inline(self, tree: Tree, prefix: str, depth: int) -> tuple[list[str], list[str]]:
        """Add a graph's nodes and edges; return the names of its inputs and outputs.

        The input and output nodes of a subgraph hand on what they get.
        """
        where = f"{self.path}: graph {prefix.rstrip('.')}" if prefix else self.path
        if depth > MAX_DEPTH:
            raise SnnDeployError("SD402", "graphs nested too deep", where=where)
        members = tree.get("nodes")
        if not isinstance(members, dict) or not members:
            raise SnnDeployError("SD401", "a graph without nodes", where=where)
        # where edges to and from a member lead
        entries: dict[str, list[str]] = {}
        exits: dict[str, list[str]] = {}
        inputs: list[str] = []
        outputs: list[str] = []
        for name, member in members.items():
            full, kind = f"{prefix}{name}", _kind(member, f"{where}: node {name}")
            if kind == "NIRGraph":
                entries[name], exits[name] = self.inline(member, f"{full}.", depth + 1)
                continue
            given = {k: v for k, v in member.items() if k not in ("type", "metadata")}
            if full in self.nodes or any(isinstance(value, dict) for value in given.values()):
                raise SnnDeployError("SD401", "a node that is no node", where=f"{where}: {name}")
            if len(self.nodes) == MAX_NODES:
                raise SnnDeployError("SD402", f"more than {MAX_NODES} nodes", where=self.path)
            self.nodes[full] = Node(full, kind, given, self.path)
            entries[name] = exits[name] = [full]
            if kind in ("Input", "Output"):
                (inputs if kind == "Input" else outputs).append(full)
        for source, target in self._mended(_edges(tree, where), list(members), where):
            for first in exits[source]:
                for second in entries[target]:
                    if (first, second) in self.edges:
                        raise SnnDeployError(
                            "SD401", f"the edge {first} to {second} is there twice", where=where
                        )
                    self.edges[first, second] = None
        return inputs, outputs

    def _mended(
        self, edges: list[tuple[str, str]], members: list[str], where: str
    ) -> list[tuple[str, str]]:
        """Edges between members; a lone wrong name stands for the lone member without edges.

        A graph published with the NIR paper is written so.
        """
        named = dict.fromkeys(end for edge in edges for end in edge)
        strangers = [name for name in named if name not in members]
        alone = [name for name in members if name not in named]
        if not strangers:
            return edges
        if len(strangers) > 1 or len(alone) != 1:
            raise SnnDeployError("SD401", f"an edge to no node: {strangers[0][:60]!r}", where=where)
        self.notes.append(
            f"{where}: edges name {strangers[0][:60]!r}, which is no node: taken for {alone[0]!r}, "
            "the only node without edges"
        )
        right = {strangers[0]: alone[0]}
        return [(right.get(a, a), right.get(b, b)) for a, b in edges]


def _edges(tree: Tree, where: str) -> list[tuple[str, str]]:
    edges = tree.get("edges")
    if not isinstance(edges, np.ndarray):
        raise SnnDeployError("SD401", "a graph without edges", where=where)
    if edges.size == 0:
        return []
    if edges.dtype != object or edges.ndim != 2 or edges.shape[1] != 2:
        raise SnnDeployError("SD401", "edges that are no pairs of names", where=where)
    return [(str(source), str(target)) for source, target in edges]
