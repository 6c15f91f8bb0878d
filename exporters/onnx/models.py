"""A network as an ONNX model in one of two forms, with what the network is in its metadata."""

from __future__ import annotations

import hashlib
import json
import math

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper
from onnx.shape_inference import infer_shapes
from snn_deploy.exporters.nir.metadata import to_data
from snn_deploy.exporters.onnx.emission import Emitter
from snn_deploy.exporters.onnx.forms import Form, Known, sequence_graph, step_graph

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.synapses import Shape

# The oldest that have the bitwise operators; onnxruntime 1.14 was the first to run them.
OPSET, IR_VERSION = 18, 8
# Of this way of writing a network: a reader compares a file with what it would write itself.
VERSION = "1"

NETWORK, ARRAYS, FORM, DIGEST = (
    f"snn_deploy.{key}" for key in ("network", "arrays", "form", "network_sha256")
)


# What a network may be, so that reading a file takes seconds and no more than a few times its size:
# inputs and populations, projections, neurons in all, and the letters of a description.
MAX_POPULATIONS = 500
MAX_PROJECTIONS = 2000
MAX_NEURONS = 1 << 24
MAX_TEXT = 8 << 20


def check_size(shapes: list[Shape], projections: int) -> None:
    """Raise SD204 for a network too large for a file; ``shapes`` of inputs and populations."""
    for count, most, what in (
        (len(shapes), MAX_POPULATIONS, "populations"),
        (projections, MAX_PROJECTIONS, "projections"),
        (sum(math.prod(shape) for shape in shapes), MAX_NEURONS, "neurons"),
    ):
        if count > most:
            raise SnnDeployError("SD204", f"{count} {what}, ONNX files hold {most}", where="graph")


def network_digest(graph: Graph) -> str:
    """SHA-256 of the integer network itself, whatever file holds it, in hexadecimal."""
    text, arrays = to_data(graph)
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(f"\n{array.dtype.name} {array.size}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def model(graph: Graph, form: Form) -> ModelProto:
    """A checked integer graph as an ONNX model; the same graph gives the same bytes.

    Raises
    ------
    SnnDeployError
        SD204 for what the operators or the file cannot hold.
    """
    emit = Emitter()
    made = step_graph(graph, emit)
    # A loop hides from ONNX what is constant in it: the shapes are those of the other form.
    inferred = infer_shapes(_model(graph, made, emit, "step"), strict_mode=True, data_prop=True)
    known = {info.name: info for info in inferred.graph.value_info}
    if form == "step":
        made.value_info.extend(_inside(made, known))
    else:
        emit = Emitter()
        made = sequence_graph(graph, emit, known)
        made.value_info.extend(_inside(made, known))
        (body,) = (node.attribute[0].g for node in made.node if node.op_type == "Scan")
        body.value_info.extend(_inside(body, known))
    return _model(graph, made, emit, form)


def _inside(graph: GraphProto, known: Known) -> list[ValueInfoProto]:
    """Type and shape of every value inside a graph; its inputs and outputs say their own."""
    results = {info.name for info in graph.output}
    return [known[name] for node in graph.node for name in node.output if name not in results]


def _model(graph: Graph, made: GraphProto, emit: Emitter, form: Form) -> ModelProto:
    """The model around a graph of ONNX: tensors, versions, and what the network is."""
    text, arrays = to_data(graph)
    references = [emit.stored.reference(array) for array in arrays]
    listed = json.dumps(references, sort_keys=True)
    if len(text) + len(listed) > MAX_TEXT:
        raise SnnDeployError("SD204", "a description too long for an ONNX file", where="graph")
    used = sorted(_referred(made) & emit.stored.tensors.keys())
    del made.initializer[:]
    made.initializer.extend(emit.stored.tensors[name] for name in used)
    found = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="snn-deploy",
        producer_version=VERSION,
    )
    properties = {
        FORM: form,
        DIGEST: network_digest(graph),
        NETWORK: text,
        ARRAYS: listed,
    }
    helper.set_model_props(found, properties)
    return found


def _referred(graph: GraphProto) -> set[str]:
    """Names that an operator takes, in the loop or outside it."""
    nodes: list[NodeProto] = list(graph.node)
    found: set[str] = set()
    while nodes:
        node = nodes.pop()
        found.update(node.input)
        nodes += [inner for attribute in node.attribute for inner in attribute.g.node]
    return found
