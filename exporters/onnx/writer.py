"""Both forms of a network, as files."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from snn_deploy.exporters import Written
from snn_deploy.exporters.onnx.forms import Form
from snn_deploy.exporters.onnx.models import IR_VERSION, OPSET, check_size, model, network_digest

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packets import write_atomically


def export(graph: Graph, folder: Path, *, sequence: str, step: str) -> Written:
    """Write both forms into a folder, under these names."""
    forms: dict[str, Form] = {sequence: "sequence", step: "step"}
    content = {name: serialised(graph, form) for name, form in forms.items()}
    for name, made in content.items():
        write_atomically(folder / name, made)
    facts = {
        "network_sha256": network_digest(graph),
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "onnx": version("onnx"),
    }
    return Written(tuple(forms), facts)


def serialised(graph: Graph, form: Form) -> bytes:
    """The bytes of one form of an integer graph."""
    if not graph.fed:
        raise SnnDeployError("SD204", "a network that is fed nothing", where="graph")
    shapes = [spec.shape for spec in graph.inputs] + [p.shape for p in graph.populations]
    check_size(shapes, len(graph.projections))
    checks.check_integer(graph)
    return bytes(model(graph, form).SerializeToString(deterministic=True))
