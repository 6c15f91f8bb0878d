"""Recordings: spikes or values that are fed to a graph, and their labels.

``.npz`` files hold ``spikes`` (0/1, [N, T, ...] or [T, ...]) or ``values`` ([N, ...] constant over
time, or [N, T, ...]), and optionally ``labels`` [N]. Graphs with several inputs use
``NAME.spikes`` and ``NAME.values``. Long recordings hold their spikes as one bit each:
``spikes.packed`` uint8 [N, T, ceil(n / 8)] or [T, ceil(n / 8)], the first neuron in the lowest bit,
and ``spikes.shape``, the shape of the n neurons (:mod:`snn_deploy.packet_layout`). Here files are
read whole; :mod:`snn_deploy.packet_files` reads them piece by piece.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import InputSpec
from snn_deploy.packet_layout import bit_packed, by_input, require_labels, unpack_bits

Array = NDArray[Any]

# A file says how large its arrays are; nothing larger than this is believed.
MAX_UNPACKED_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Recording:
    """Inputs by name ("" where the file does not name them), and labels.

    Attributes
    ----------
    spikes : name -> 0/1 array [N, T, ...] or [T, ...].
    values : name -> numbers [N, ...] or [N, T, ...].
    labels : int64 [N], or None.
    """

    spikes: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None

    @property
    def samples(self) -> int:
        """Number of samples; arrays must have a sample axis."""
        return len(next(iter([*self.values.values(), *self.spikes.values()])))

    def head(self, samples: int) -> Recording:
        """The first samples only."""
        return self.part(0, samples)

    def part(self, start: int, stop: int) -> Recording:
        """Samples ``start`` to ``stop``; arrays must have a sample axis."""
        return Recording(
            spikes={k: v[start:stop] for k, v in self.spikes.items()},
            values={k: v[start:stop] for k, v in self.values.items()},
            labels=None if self.labels is None else self.labels[start:stop],
        )

    def arrays(self) -> dict[str, Array]:
        """The arrays under the names they have in a file."""
        found: dict[str, Array] = {}
        for kind, inputs in (("spikes", self.spikes), ("values", self.values)):
            for name, value in inputs.items():
                found[f"{name}.{kind}" if name else kind] = value
        if self.labels is not None:
            found["labels"] = self.labels
        return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what zipfile, zlib, numpy and the file system raise on a bad file into errors of ours.

    Raises
    ------
    SnnDeployError
        SD101 (not there) or SD401 (truncated, damaged, not an npz).
    """
    where = str(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise SnnDeployError("SD101", "no such file", where=where) from None
    except IsADirectoryError:
        raise SnnDeployError("SD101", "this is a folder, not a recording", where=where) from None
    except PermissionError:
        raise SnnDeployError("SD101", "no permission to read", where=where) from None
    except (SnnDeployError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib, numpy and the parser raise many kinds
        raise SnnDeployError(
            "SD401",
            "not a readable .npz file",
            where=where,
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="write it again with numpy.savez or `snn-deploy train`",
        ) from None


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file, without pickles, bounded by what the file really holds.

    Raises
    ------
    SnnDeployError
        SD101 (not there), SD401 (truncated, not an npz) or SD402 (pickled or oversized content).
    """
    with reading(path):
        with zipfile.ZipFile(path) as archive:
            total = 0
            for member in archive.infolist():
                total += member.file_size
                require_loadable(total, str(path))
                npy_header(archive, member, str(path))
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}


def require_loadable(size: int, where: str) -> None:
    """Refuse (SD402) more bytes than are ever loaded from one file."""
    if size > MAX_UNPACKED_BYTES:
        raise SnnDeployError(
            "SD402",
            f"the file unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB",
            where=where,
            fix="split the recording",
        )


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What an ``.npy`` member says of itself; its data begin at byte ``offset``."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int


def npy_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NpyHeader:
    """The header of an array; pickles and claimed sizes that the archive does not hold are refused.

    Raises
    ------
    SnnDeployError
        SD401 or SD402.
    """
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise SnnDeployError(
            "SD402",
            f"{member.filename} holds pickled objects, which are never loaded",
            where=where,
            fix="save plain numeric arrays",
        )
    if min(shape, default=0) < 0 or dtype.itemsize * math.prod(shape) + offset != member.file_size:
        raise SnnDeployError(
            "SD401", f"{member.filename} is not as long as its header says", where=where
        )
    return NpyHeader(shape, fortran_order, dtype, offset)


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording from ``.npz``.

    Raises
    ------
    SnnDeployError
        SD101, SD401, SD402 for the file, SD103 where it holds neither spikes nor values.
    """
    path = Path(path)
    arrays = read_npz(path)
    for name, shape in bit_packed(arrays, str(path)).items():
        packed = arrays.pop(f"{name}.packed")
        require_loadable(8 * packed.size, str(path))
        arrays[name] = unpack_bits(packed, shape, str(path))
    spikes, values = by_input(arrays, str(path))
    first = next(iter([*spikes.values(), *values.values()]))
    labels = arrays.get("labels")
    if labels is not None:
        require_labels(labels, first.shape, str(path))
        labels = labels.astype(np.int64)
    return Recording(spikes=spikes, values=values, labels=labels)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A stream whose content appears at ``path`` whole, when the block ends, or not at all.

    Raises
    ------
    SnnDeployError
        SD102 if the folder is missing, cannot be written, or its disk is full.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all; see :func:`atomic_file`."""
    with atomic_file(path) as stream:
        stream.write(content)


def _save_npz(stream: IO[bytes], arrays: dict[str, Array]) -> None:
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name} holds objects")
    # numpy's own switch against pickles is younger than the oldest numpy that is supported, which
    # would write it as an array
    np.savez_compressed(stream, **cast(Any, arrays))


def npz_bytes(arrays: dict[str, Array]) -> bytes:
    """A compressed ``.npz`` file in memory; the same arrays give the same bytes."""
    content = io.BytesIO()
    _save_npz(content, arrays)
    return content.getvalue()


def write_npz(path: str | os.PathLike[str], arrays: dict[str, Array]) -> None:
    """Write a compressed ``.npz``, whole or not at all; the same arrays give the same bytes."""
    with atomic_file(path) as stream:
        _save_npz(stream, arrays)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise SD102 now if ``path`` could not be written after long work."""
    path = Path(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise cannot_write(path, error) from None
    if path.is_dir():
        raise SnnDeployError("SD102", "the output is a folder", where=str(path), fix="name a file")


def cannot_write(path: Path, error: OSError) -> SnnDeployError:
    """The error of an output that cannot be written."""
    return SnnDeployError(
        "SD102",
        "cannot write the output",
        where=str(path),
        why=error.strerror or str(error),
        fix="choose a folder that exists and that you may write to, with room on its disk",
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def made_up(
    spec: InputSpec, steps: int, samples: int, rate: float, random: np.random.Generator
) -> NDArray[Any]:
    """Values that fill the declared range, float32, or spikes at a rate, uint8.

    Returns
    -------
    [samples, *shape] for a constant input, else [samples, steps, *shape].
    """
    if spec.kind == "spikes":
        return (random.random((samples, steps, *spec.shape)) < rate).astype(np.uint8)
    lead = (samples,) if spec.kind == "constant" else (samples, steps)
    values = random.uniform(spec.low, spec.high, (*lead, *spec.shape)).astype(np.float32)
    # float32 may round a value out of the range it was drawn from
    return values.clip(np.float32(spec.low), np.float32(spec.high))
