"""ONNX: the integer network in standard integer operators, exact in onnxruntime.

``model.onnx`` runs a whole sequence per call, ``step.onnx`` one timestep. Reading and writing needs
the package ``onnx``, which is loaded when it is used.
"""

from __future__ import annotations

from pathlib import Path

from snn_deploy.exporters import Opened, ReadOptions, Written

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph

SEQUENCE, STEP = "model.onnx", "step.onnx"


class OnnxExporter:
    """Writes both forms of a network, and reads files of ours of either form."""

    suffix = ".onnx"

    def export(self, graph: Graph, folder: Path) -> Written:
        """Write ``model.onnx`` and ``step.onnx``.

        Raises
        ------
        SnnDeployError
            SD107 without the package onnx, SD204 for what ONNX cannot hold.
        """
        _require_onnx()
        from snn_deploy.exporters.onnx import writer

        return writer.export(graph, folder, sequence=SEQUENCE, step=STEP)

    def open(self, path: Path, options: ReadOptions) -> Opened:
        """Read the integer graph; a file of ours leaves nothing unsaid."""
        if options != ReadOptions():
            raise SnnDeployError(
                "SD104", "the file says itself what its input is", where=str(path),
                fix="leave out the options for the input",
            )  # fmt: skip
        _require_onnx()
        from snn_deploy.exporters.onnx import reader

        return Opened(reader.read(path))


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise SnnDeployError(
            "SD107",
            "ONNX files need the package onnx",
            fix='pip install "snn-deploy[onnx]"',
        ) from None


exporter = OnnxExporter()
