"""Files of ours: tensors for other simulators, the graph itself in the metadata.

The reader rebuilds the tensors from the graph, in the dialect that the file names, and refuses a
file in which they differ, so that what others simulate and what we simulate cannot drift apart.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from snn_deploy.exporters.nir.encoding import Encoded, encode, node_names
from snn_deploy.exporters.nir.file import NirFile
from snn_deploy.exporters.nir.metadata import from_data, to_data
from snn_deploy.exporters.nir.neurons import DialectName, dialect_named
from snn_deploy.exporters.nir.writing import file_bytes, written

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.hdf5 import Content
from snn_deploy.packets import write_atomically
from snn_deploy.quantization import prove_ranges

KEY = "snn_deploy"
ARRAYS = "snn_deploy_arrays"
ENCODING = "snn_deploy_encoding"


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


def read(file: NirFile) -> Graph:
    """Make the graph, and check that the file's tensors are its tensors.

    Raises
    ------
    SnnDeployError
        SD204 for a file of others, SD401 for a description that is none, SD405 for other tensors.
    """
    where = file.path
    text, arrays = file.metadata.get(KEY), file.metadata.get(ARRAYS)
    if text is None or not isinstance(arrays, dict):
        raise SnnDeployError(
            "SD204",
            "the file carries no network of snn-deploy",
            where=where,
            why="only files written by `snn-deploy export` can be simulated",
        )
    try:
        listed = [np.asarray(arrays[str(i)]) for i in range(len(arrays))]
        how = file.metadata[ENCODING]
        dialect = dialect_named(json.loads(how)["dialect"])
        graph = from_data(text, listed)
        # what the description claims must be in the file before anything is made of it
        difference = _shape_difference(graph, dialect, file)
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
            encoded = encode(graph, dialect, most=_weights(file))
            difference = _difference(written(file_bytes(encoded.graph)), file.content)
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


def _shape_difference(graph: Graph, dialect: DialectName, file: NirFile) -> str | None:
    """The first input or population whose shape the file's nodes do not have."""
    for name, node in node_names(graph, dialect).items():
        if node not in file.nodes or file.nodes[node].shape != graph.shape_of(name):
            return f"nodes.{node}"
    return None


def _weights(file: NirFile) -> int:
    """How many weights the file may need while its tensors are made again."""
    return 4 * sum(value.size for value in file.content.values() if isinstance(value, np.ndarray))


def _difference(expected: dict[str, Content], found: dict[str, Content]) -> str | None:
    """The first part in which two files differ, the graph's metadata aside."""
    parts = {name for name in expected.keys() | found.keys() if name.split("/")[1] != "metadata"}
    for name in sorted(parts):
        mine, theirs = expected.get(name), found.get(name)
        same = name in expected and name in found
        if same and isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
            if name == "node/edges":  # in any order
                mine, theirs = (np.array(sorted(map(tuple, edges))) for edges in (mine, theirs))
            same = mine.shape == theirs.shape and bool((mine == theirs).all())
        elif same:
            same = isinstance(mine, str) and isinstance(theirs, str) and mine == theirs
        if not same:
            return ".".join(name.split("/")[1:])
    return None
