"""NIR: the canonical artefact, and the files of others.

A file of ours carries the graph in its metadata (:mod:`own`); what others wrote is read as its
writer means it.
"""

from __future__ import annotations

from pathlib import Path

from snn_deploy.exporters import Opened, ReadOptions, Written
from snn_deploy.exporters.nir import own
from snn_deploy.exporters.nir.compatibility import facts
from snn_deploy.exporters.nir.file import read_file
from snn_deploy.exporters.nir.foreign import open_foreign
from snn_deploy.exporters.nir.neurons import DialectName, dialect_named

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph


class NirExporter:
    """Reads and writes ``.nir`` files; ``dialect`` is whose words the tensors are in."""

    suffix = ".nir"

    def __init__(self, dialect: DialectName = "portable") -> None:
        self.dialect = dialect

    def with_dialect(self, name: str) -> NirExporter:
        """The exporter that writes this dialect. Raises SD105 for one that is not known."""
        return NirExporter(dialect_named(name))

    def export(self, graph: Graph, folder: Path) -> Written:
        """Write ``model.nir``; the facts say which libraries run it as the network runs."""
        self.write(graph, folder / "model.nir", self.dialect)
        return Written(("model.nir",), facts(graph, self.dialect))

    def write(self, graph: Graph, path: Path, dialect: DialectName = "portable") -> None:
        """Write a graph, float or integer. Raises SD203, SD204, and SD4xx for illegal graphs."""
        own.write(graph, path, dialect)

    def open(self, path: Path, options: ReadOptions) -> Opened:
        """Read a file: as it says itself if it is ours, else in the dialect asked for.

        With a dialect, the tensors of a file of ours are read too, as another program reads them.
        """
        file = read_file(path)
        if own.KEY not in file.metadata or options.dialect is not None:
            return open_foreign(file, options)
        if options != ReadOptions():
            raise SnnDeployError(
                "SD104", "the file says itself how it is read", where=str(path),
                fix="leave out the options for reading, or give --dialect to read its tensors",
            )  # fmt: skip
        return Opened(own.read(file))

    def read(self, path: Path) -> Graph:
        """Read the graph of a file of ours."""
        return own.read(read_file(path))


exporter = NirExporter()
