"""Files of ours: tensors for other simulators, the graph itself in the metadata.

The reader rebuilds the tensors from the integer graph and refuses a file in which they differ, so
that what others simulate and what we simulate cannot drift apart.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
from snn_deploy.exporters.nir.encoding import encode
from snn_deploy.exporters.nir.metadata import from_data, to_data

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packets import write_atomically
from snn_deploy.quantization import prove_ranges

KEY = "snn_deploy"
ARRAYS = "snn_deploy_arrays"

# What a file may make us read; a description cannot need more.
MAX_OBJECTS = 100_000
MAX_BYTES = 4 << 30
# gzip packs a run of zeros about a thousandfold; more is no array but an attack.
MAX_EXPANSION = 2000


def write(graph: Graph, path: Path) -> None:
    """Write an integer graph."""
    checks.check_integer(graph)
    prove_ranges(graph)
    encoded = encode(graph)
    text, arrays = to_data(graph)
    encoded.metadata = {KEY: text, ARRAYS: {str(i): a for i, a in enumerate(arrays)}}
    content = io.BytesIO()  # HDF5 ends the process if the disk is full: we write ourselves
    nir.write(content, encoded)
    write_atomically(path, content.getvalue())


def read(path: Path) -> Graph:
    """Read the integer graph, and check that the file's tensors are its tensors."""
    where = str(path)
    loaded = _load(path)
    metadata = loaded.metadata
    text, arrays = metadata.get(KEY), metadata.get(ARRAYS)
    if text is None or not isinstance(arrays, dict):
        raise SnnDeployError(
            "SD204",
            "the file carries no integer network of snn-deploy",
            where=where,
            why="only files written by `snn-deploy export` can be simulated",
        )
    try:
        listed = [np.asarray(arrays[str(i)]) for i in range(len(arrays))]
        decoded = text.decode("utf-8") if isinstance(text, bytes) else str(text)
        graph = from_data(decoded, listed)
        # what the description claims must be in the file before anything is made of it
        difference = _shape_difference(graph, loaded)
        if difference is None:
            checks.check_integer(graph)
            prove_ranges(graph)
    except (
        ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        raise SnnDeployError(
            "SD401",
            "the integer network in the file is not readable",
            where=where,
            why=str(error),
        ) from None
    except SnnDeployError as error:
        raise SnnDeployError(
            "SD401",
            f"the integer network in the file is not legal: {error.message}",
            where=f"{where}: {error.where}" if error.where else where,
        ) from None
    if difference is None:
        try:
            difference = _difference(encode(graph).to_dict(), loaded.to_dict(), "")
        except SnnDeployError as error:  # what NIR cannot say was never written to NIR
            difference = f"{error.where}: {error.message}"
    if difference is not None:
        raise SnnDeployError(
            "SD405",
            f"{difference} is not what the integer network says",
            where=where,
            why="the file was changed after it was exported",
            fix="export again",
        )
    return graph


def _load(path: Path) -> nir.NIRGraph:
    """Read a NIR file, bounded in size and without leaving the file."""
    where = str(path)
    try:
        size = path.stat().st_size
        with h5py.File(path, "r") as file:
            _inspect(file, size, where)
        loaded = nir.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise SnnDeployError("SD101", "no such file", where=where) from None
    except SnnDeployError:
        raise
    except Exception as error:  # h5py and nir raise many kinds on a broken file
        raise SnnDeployError(
            "SD401",
            "not a readable NIR file",
            where=where,
            why=(str(error).splitlines() or [type(error).__name__])[0],
            fix="copy it again, or export again",
        ) from None
    if not isinstance(loaded, nir.NIRGraph):
        raise SnnDeployError("SD401", "the NIR file holds no graph", where=where)
    return loaded


def _inspect(file: h5py.File, size: int, where: str) -> None:
    """Refuse links, cycles and sizes that a network file has no use for."""
    seen: set[Any] = set()
    waiting: list[h5py.Group] = [file]
    total = 0
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise SnnDeployError("SD402", f"a link out of its place: {name}", where=where)
            item = group[name]
            key = h5py.h5o.get_info(item.id).addr
            if key in seen or len(seen) >= MAX_OBJECTS:
                raise SnnDeployError("SD402", "a cycle, or too many objects", where=where)
            seen.add(key)
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise SnnDeployError("SD402", f"data kept in another file: {name}", where=where)
                total += _text_length(item, size, where) if item.dtype.hasobject else item.nbytes
    if total > min(MAX_BYTES, MAX_EXPANSION * max(size, 1)):
        raise SnnDeployError("SD402", f"{size} bytes that claim to unpack to {total}", where=where)


def _text_length(item: h5py.Dataset, size: int, where: str) -> int:
    """Bytes of a dataset of texts; few texts, and together no longer than the file."""
    total = 0
    if item.size is not None and item.size <= MAX_OBJECTS:
        for index in np.ndindex(item.shape):
            text = item[index]
            total += len(text) if isinstance(text, bytes | str) else size + 1
            if total > size:
                break
        else:
            return total
    raise SnnDeployError("SD402", f"texts longer than the file: {item.name}", where=where)


def _shape_difference(graph: Graph, loaded: nir.NIRGraph) -> str | None:
    """The first input or population whose shape the file's nodes do not have."""
    claimed = {"input": graph.inputs[0].shape, "output": graph.shape_of(graph.outputs[0])}
    claimed |= {f"{p.name}_neurons": p.shape for p in graph.spiking()}
    for name, shape in claimed.items():
        node = loaded.nodes.get(name)
        if isinstance(node, nir.Input | nir.Output):
            found = tuple(int(n) for n in np.ravel(next(iter(node.input_type.values()))))
        else:
            found = getattr(getattr(node, "v_threshold", None), "shape", ())
        if found != shape:
            return f"nodes.{name}"
    return None


def _difference(expected: Any, found: Any, path: str) -> str | None:
    """Path of the first part in which two descriptions differ, metadata aside."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return path
        ignored = {"metadata", "type_check"}
        for key in sorted((expected.keys() | found.keys()) - ignored):
            if key not in expected or key not in found:
                return f"{path}{key}"
            difference = _difference(expected[key], found[key], f"{path}{key}.")
            if difference is not None:
                return difference.rstrip(".")
        return None
    if isinstance(expected, list) and path == "edges.":
        same = sorted(map(tuple, expected)) == sorted(map(tuple, found))
    else:
        mine, theirs = np.asarray(expected), np.asarray(found)
        same = mine.shape == theirs.shape and bool((mine == theirs).all())
    return None if same else path.rstrip(".")
