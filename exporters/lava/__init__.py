"""Lava: Intel's framework for Loihi. netx files (``.net``), and programs for what they cannot say."""

from __future__ import annotations

from pathlib import Path

from snn_deploy.exporters import Opened, ReadOptions
from snn_deploy.exporters.lava import reader, writer

from snn_deploy.graph import Graph


class NetxExporter:
    """Reads and writes the HDF5 files of lava-dl's netx."""

    suffix = ".net"

    def write(self, graph: Graph, path: Path) -> None:
        """Write a chain of populations in Loihi's arithmetic."""
        writer.write(graph, path)

    def open(self, path: Path, options: ReadOptions) -> Opened:
        """Read a file of anyone, as Lava runs it."""
        return reader.read(path, input_bits=options.input_bits, input_shape=options.input_shape)


netx = NetxExporter()
