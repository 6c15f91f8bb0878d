"""NIR: the canonical artefact, and the files of others.

A file of ours carries the graph in its metadata (:mod:`own`); what others wrote is read as its
writer means it.
"""

from __future__ import annotations

from pathlib import Path

from snn_deploy.exporters import Opened, ReadOptions, Written
from snn_deploy.exporters.nir import own
from snn_deploy.exporters.nir.file import read_file
from snn_deploy.exporters.nir.foreign import open_foreign

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph


class NirExporter:
    """Reads and writes ``.nir`` files."""

    suffix = ".nir"

    def export(self, graph: Graph, folder: Path) -> Written:
        """Write ``model.nir``."""
        self.write(graph, folder / "model.nir")
        return Written(("model.nir",), {})

    def write(self, graph: Graph, path: Path) -> None:
        """Write a graph."""
        own.write(graph, path)

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
        return Opened(self.read(path))

    def read(self, path: Path) -> Graph:
        """Read the graph of a file of ours."""
        return own.read(path)


exporter = NirExporter()
