"""A NIR graph as the bytes of a file, in the layout of nir 1.0.

Differs from ``nir.write`` in one thing: a ``v_reset`` of zeros is left out. Releases before 1.0.6
refuse the field, later ones take zeros for it.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import h5py
import nir
import numpy as np

from snn_deploy import hdf5_child
from snn_deploy.hdf5 import Content, text_array


def file_bytes(graph: nir.NIRGraph) -> bytes:
    """The file; the same graph gives the same bytes."""
    content = io.BytesIO()  # HDF5 ends the process if a disk is full: another writes the bytes
    with h5py.File(content, "w") as file:
        file.create_dataset("version", data=nir.version, dtype=h5py.string_dtype())
        _fill(file.create_group("node"), graph.to_dict())
    return content.getvalue()


def written(content: bytes) -> dict[str, Content]:
    """What a file of ours holds below ``node``, as :func:`snn_deploy.hdf5.read_hdf5` reads it."""
    with h5py.File(io.BytesIO(content), "r") as file:
        found, _ = hdf5_child.walk(file, "node", len(content), sys.maxsize)
        return {name: _content(item, len(content)) for name, item in found.items()}


def _content(item: h5py.Dataset | None, size: int) -> Content:
    value = None if item is None else hdf5_child.content(item, size)
    if item is not None and isinstance(value, list):
        return text_array(value, item.shape)
    return value


def _fill(group: h5py.Group, items: dict[str, Any]) -> None:
    for name, value in items.items():
        if name == "metadata" and not value:
            continue
        if name == "v_reset" and not value.any():
            continue
        if isinstance(value, dict):
            _fill(group.create_group(name), value)
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray):
            group.create_dataset(name, data=value, compression="gzip")
        else:
            group.create_dataset(name, data=value)
