"""Files of ours, read within bounds: the network, and that the operators are those of the network.

Whatever a file says is compared with the model that we would write of its network, so that what
others run and what we simulate cannot drift apart.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from snn_deploy.exporters.nir.metadata import from_data
from snn_deploy.exporters.onnx import wire
from snn_deploy.exporters.onnx.forms import FORMS
from snn_deploy.exporters.onnx.models import (
    ARRAYS,
    FORM,
    MAX_TEXT,
    NETWORK,
    VERSION,
    check_size,
    model,
)
from snn_deploy.exporters.onnx.stored import MAX_BYTES, restored

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph

Array = NDArray[Any]

# Arrays as the network has them, which may be wider than the tensors.
_MAX_ARRAYS = 8 * MAX_BYTES
_KINDS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.INT32,
          TensorProto.INT64)  # fmt: skip


def read(path: Path) -> Graph:
    """Read the integer graph of a file of ours, of either form.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD204 (not ours), SD401 (damaged), SD402 (unsafe) or SD405 (its operators
        are not those of its network).
    """
    where = str(path)
    found = _parsed(_content(path), where)
    properties = {p.key: p.value for p in found.metadata_props}
    if NETWORK not in properties or ARRAYS not in properties:
        raise SnnDeployError(
            "SD204", "the file carries no integer network of snn-deploy", where=where,
            why="only files written by `snn-deploy export` can be read",
        )  # fmt: skip
    if found.producer_version != VERSION:
        raise SnnDeployError(
            "SD204", f"a network written in way {found.producer_version!r}, not {VERSION}",
            where=where, fix="export again with this version of snn-deploy",
        )  # fmt: skip
    try:
        form = FORMS[FORMS.index(properties[FORM])]
        tensors = {t.name: _array(t, where) for t in found.graph.initializer}
        network = properties[NETWORK]
        _check_size(network)
        graph = from_data(network, _arrays(properties[ARRAYS], tensors))
        checks.check_integer(graph)
        expected = model(graph, form)
    except (
        ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise SnnDeployError(
            "SD401", "the integer network in the file is not readable", where=where, why=str(error)
        ) from None
    except SnnDeployError as error:
        if error.code == "SD402":
            raise
        raise SnnDeployError(
            "SD401", f"the integer network in the file is not legal: {error.message}",
            where=f"{where}: {error.where}" if error.where else where,
        ) from None  # fmt: skip
    if _bytes(found) != _bytes(expected):
        raise SnnDeployError(
            "SD405", f"{_difference(expected, found)} is not what the integer network says",
            where=where, why="the file was changed after it was exported", fix="export again",
        )  # fmt: skip
    return graph


def _content(path: Path) -> bytes:
    """The bytes of a file of modest size."""
    where = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SnnDeployError("SD101", "not a file", where=where)
        if status.st_size > MAX_BYTES:
            raise SnnDeployError("SD402", f"a file of more than {MAX_BYTES >> 20} MiB", where=where)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise SnnDeployError("SD101", "no such file", where=where) from None
    except OSError as error:
        raise SnnDeployError("SD101", "cannot read", where=where, why=error.strerror) from None


def _parsed(content: bytes, where: str) -> ModelProto:
    try:
        wire.inspect(content, ModelProto.DESCRIPTOR)
        found = ModelProto()
        found.ParseFromString(content)
    except wire.UnsafeError as error:
        raise SnnDeployError("SD402", f"an ONNX file with {error}", where=where) from None
    except (wire.DamagedError, DecodeError) as error:
        raise SnnDeployError(
            "SD401", "not a readable ONNX file", where=where, why=str(error),
            fix="copy it again, or export again",
        ) from None  # fmt: skip
    return found


def _array(tensor: TensorProto, where: str) -> Array:
    """The values of a tensor, whose bytes must be in the file."""
    if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
        raise SnnDeployError("SD402", f"data kept in another file: {tensor.name}", where=where)
    if tensor.data_type not in _KINDS:
        raise ValueError(f"a tensor of type {tensor.data_type}: {tensor.name}")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    if min(tensor.dims, default=1) < 1 or math.prod(tensor.dims) * dtype.itemsize != len(
        tensor.raw_data
    ):
        raise ValueError(
            f"{len(tensor.raw_data)} bytes for a tensor of {list(tensor.dims)}: {tensor.name}"
        )
    return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))


def _check_size(network: str) -> None:
    """Refuse a network that is too large before it is made."""
    if len(network) > MAX_TEXT:
        raise ValueError("a description too long")
    data = json.loads(network)
    shapes = [part["shape"] for key in ("inputs", "populations") for part in data[key]]
    check_size(shapes, len(data["projections"]))


def _arrays(text: str, tensors: dict[str, Array]) -> list[Array]:
    """The arrays that a network refers to by number."""
    if len(text) > MAX_TEXT:
        raise ValueError("a list of arrays too long")
    found, total = [], 0
    for reference in json.loads(text):
        found.append(restored(reference, tensors))
        total += found[-1].nbytes
        if total > _MAX_ARRAYS:
            raise ValueError("the network refers to more than the file holds")
    return found


def _bytes(message: ModelProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _difference(expected: ModelProto, found: ModelProto) -> str:
    """The first tensor, else operator, else entry of the metadata in which two models differ."""
    for part in ("initializer", "node", "input", "output", "value_info"):
        mine, theirs = (list(getattr(m.graph, part)) for m in (expected, found))
        for one, other in zip(mine, theirs, strict=False):
            if one != other:
                return f"{part} {one.name}"
        if len(mine) != len(theirs):
            return f"the number of {part}s"
    for one, other in zip(expected.metadata_props, found.metadata_props, strict=False):
        if one != other:
            return str(one.key)
    return "the header"
