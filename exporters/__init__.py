"""Exporters: graph to file and back. Found through the entry points ``snn_deploy.exporters``.

Third parties add a format by declaring an entry point of that group that names an
:class:`Exporter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.synapses import Shape

GROUP = "snn_deploy.exporters"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a file may leave unsaid.

    Attributes
    ----------
    input_bits : 0: the input is spikes; else it is integers of up to so many bits per timestep.
    input_shape : (C, H, W) or (N,) of the input.
    input_kind : ``spikes``, or values: ``constant`` over time or ``graded``, one per timestep.
    input_range : smallest and largest value that may arrive; default: anything, which can be
        simulated but not quantized.
    readout : of outputs that are no spikes.
    timesteps : for how long the network runs; default: as long as its input.
    dt : length of a timestep in the file's unit of time.
    dialect : whose reading of the file is meant, a name that the exporter knows.
    reset : what a spike does to the membrane: ``zero`` or ``subtract``.
    """

    input_bits: int = 0
    input_shape: Shape | None = None
    input_kind: Literal["spikes", "constant", "graded"] | None = None
    input_range: tuple[float, float] | None = None
    readout: Literal["sum", "mean", "last", "max"] | None = None
    timesteps: int | None = None
    dt: float | None = None
    dialect: str | None = None
    reset: Literal["zero", "subtract"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A graph from a file.

    ``notes`` say what acts otherwise than the file reads, ``target`` the chip it was written for.
    """

    graph: Graph
    notes: tuple[str, ...] = ()
    target: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What an exporter left in a folder: files, and what one must know to run them."""

    files: tuple[str, ...]
    facts: dict[str, Any]


class Exporter(Protocol):
    """One file format."""

    suffix: str

    def export(self, graph: Graph, folder: Path) -> Written:
        """Write an integer graph; the same graph gives the same bytes. Raises SD204."""

    def open(self, path: Path, options: ReadOptions) -> Opened:
        """Read a file. Raises SD101, SD401, SD402, SD405, or SD104 for options of no use here."""


@runtime_checkable
class Polyglot(Exporter, Protocol):
    """A file format that readers understand in several ways, and can be written for each."""

    def with_dialect(self, name: str) -> Exporter:
        """The exporter that writes for these readers. Raises SD105 for an unknown name."""


def exporter(name: str) -> Exporter:
    """The exporter of this name.

    Raises
    ------
    SnnDeployError
        SD105 if no installed package declares it.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise SnnDeployError(
            "SD105",
            f"no exporter {name!r}",
            fix=f"installed: {', '.join(sorted(found)) or 'none'}; reinstall snn-deploy",
        )
    loaded: Exporter = found[name].load()
    return loaded


def exporter_of(path: Path) -> Exporter:
    """The exporter that reads files of this suffix.

    Raises
    ------
    SnnDeployError
        SD105 if there is none.
    """
    known = []
    for point in entry_points(group=GROUP):
        loaded: Exporter = point.load()
        if path.suffix == loaded.suffix:
            return loaded
        known.append(loaded.suffix)
    raise SnnDeployError(
        "SD105",
        f"no reader for files of type {path.suffix or 'none'!r}",
        where=str(path),
        fix=f"give an exported folder, or a file of type {', '.join(sorted(known))}",
    )
