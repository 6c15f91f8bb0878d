"""Files of ours: tensors for other simulators, the graph itself in the metadata.

The reader rebuilds the tensors from the graph, in the dialect that the file names, and refuses a
file in which they differ, so that what others simulate and what we simulate cannot drift apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
from snn_deploy.exporters.nir.encoding import Encoded, encode, node_names
from snn_deploy.exporters.nir.metadata import from_data, to_data
from snn_deploy.exporters.nir.neurons import DialectName, dialect_named
from snn_deploy.exporters.nir.writing import file_bytes

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packets import write_atomically
from snn_deploy.quantization import prove_ranges

KEY = "snn_deploy"
ARRAYS = "snn_deploy_arrays"
ENCODING = "snn_deploy_encoding"

# What a file may make us read; a description cannot need more.
MAX_OBJECTS = 100_000
MAX_BYTES = 4 << 30
# gzip packs a run of zeros about a thousandfold; more is no array but an attack.
MAX_EXPANSION = 2000


def write(graph: Graph, path: Path, dialect: DialectName = "portable") -> None:
    """Write a graph, float or integer.

    Raises
    ------
    SnnDeployError
        SD2xx and SD4xx for what is not legal, SD203 for registers that may overflow, SD204 naming
        the place that NIR or the dialect cannot say, SD102 for the path.
    """
    _check(graph)
    encoded = encode(graph, dialect)
    text, arrays = to_data(graph)
    encoded.graph.metadata = {
        KEY: text,
        ARRAYS: {str(i): a for i, a in enumerate(arrays)},
        ENCODING: _described(graph, encoded),
    }
    write_atomically(path, file_bytes(encoded.graph))


def _check(graph: Graph) -> None:
    if graph.number_format is None:
        checks.check_float(graph)
    else:
        checks.check_integer(graph)
        prove_ranges(graph)


def _described(graph: Graph, encoded: Encoded) -> str:
    """How to read the tensors, as JSON.

    The dialect, a timestep in its unit, the nodes of inputs and populations, and how outputs that
    are no spike counts are read out over time. (Readers before 1.0.5 know no metadata of an
    Output.)
    """
    kinds = {name: graph.population(name).neurons.readout for name in graph.outputs}
    how = {
        "dialect": encoded.dialect,
        "dt": encoded.dt,
        "nodes": encoded.nodes,
        "readouts": {name: kind for name, kind in kinds.items() if kind is not None},
    }
    return json.dumps(how, sort_keys=True, allow_nan=False)


def read(path: Path) -> Graph:
    """Read the graph, and check that the file's tensors are its tensors."""
    where = str(path)
    loaded = _load(path)
    metadata = loaded.metadata
    text, arrays = metadata.get(KEY), metadata.get(ARRAYS)
    if text is None or not isinstance(arrays, dict):
        raise SnnDeployError(
            "SD204",
            "the file carries no network of snn-deploy",
            where=where,
            why="only files written by `snn-deploy export` can be simulated",
        )
    try:
        listed = [np.asarray(arrays[str(i)]) for i in range(len(arrays))]
        how = metadata[ENCODING]
        dialect = dialect_named(json.loads(how)["dialect"])
        graph = from_data(text, listed)
        # what the description claims must be in the file before anything is made of it
        difference = _shape_difference(graph, dialect, loaded)
        if difference is None:
            _check(graph)
    except (
        ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        raise SnnDeployError(
            "SD401",
            "the network in the file is not readable",
            where=where,
            why=str(error),
        ) from None
    except SnnDeployError as error:
        raise SnnDeployError(
            "SD401",
            f"the network in the file is not legal: {error.message}",
            where=f"{where}: {error.where}" if error.where else where,
        ) from None
    if difference is None:
        try:
            encoded = encode(graph, dialect, most=_weights(loaded))
            difference = _difference(encoded.graph.to_dict(), loaded.to_dict(), "")
            if difference is None and _described(graph, encoded) != how:
                difference = f"metadata.{ENCODING}"
        except SnnDeployError as error:  # what NIR cannot say was never written to NIR
            difference = f"{error.where or 'graph'}: {error.message}"
    if difference is not None:
        raise SnnDeployError(
            "SD405",
            f"{difference} is not what the network says",
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


def _shape_difference(graph: Graph, dialect: DialectName, loaded: nir.NIRGraph) -> str | None:
    """The first input or population whose shape the file's nodes do not have."""
    for name, node in node_names(graph, dialect).items():
        found = loaded.nodes.get(node)
        if found is None or tuple(np.ravel(found.input_type["input"])) != graph.shape_of(name):
            return f"nodes.{node}"
    return None


def _weights(loaded: nir.NIRGraph) -> int:
    """How many weights the file may need while its tensors are made again."""
    held = sum(
        array.size
        for node in loaded.nodes.values()
        for array in vars(node).values()
        if isinstance(array, np.ndarray)
    )
    return 4 * held


def _difference(expected: Any, found: Any, path: str) -> str | None:
    """Path of the first part in which two descriptions differ, the graph's metadata aside."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return path
        ignored = {"metadata", "type_check"} if path == "" else set()
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
