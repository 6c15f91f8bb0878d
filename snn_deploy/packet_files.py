"""Recordings that stay in their file and are read piece by piece, in bounded memory.

The members of an ``.npz`` archive are streams: pieces in the order of samples and timesteps are
read, and decompressed, on the way forward. A piece further back begins at the front again.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from snn_deploy.packet_layout import bit_packed, by_input, require_labels, unpack_bits
from snn_deploy.packets import NpyHeader, Recording, npy_header, reading, require_loadable
from snn_deploy.synapses import Shape

Array = NDArray[Any]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StoredArray:
    """An array [N, T, ...] or [N, ...] in a file.

    Attributes
    ----------
    path : the file.
    stream : the archive's member, open.
    offset : byte of the member at which the data begin.
    stored_shape, stored_dtype : of what the file holds.
    packed : shape of the neurons whose spikes are stored as one bit each, else None.
    """

    path: Path
    stream: IO[bytes]
    offset: int
    stored_shape: tuple[int, ...]
    stored_dtype: np.dtype[Any]
    packed: Shape | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, one number per neuron."""
        return self.stored_shape if self.packed is None else self.stored_shape[:-1] + self.packed

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array's numbers."""
        return self.stored_dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def alone(self) -> StoredArray:
        """The array of one sample, [1, ...]."""
        return replace(self, stored_shape=(1, *self.stored_shape))

    def read(self, samples: slice, steps: slice | None = None) -> Array:
        """A piece: samples, and timesteps (the second axis; None: all there is) of each.

        Raises
        ------
        SnnDeployError
            SD401 where the file ends early or is damaged.
        """
        start, stop, _ = samples.indices(self.stored_shape[0])
        count, rest = max(0, stop - start), self.stored_shape[1:]
        with reading(self.path):
            if steps is None:
                found = self._block(start * math.prod(rest), (count, *rest))
            else:
                first, last, _ = steps.indices(rest[0])
                length, row = max(0, last - first), math.prod(rest[1:])
                found = np.empty((count, length, *rest[1:]), self.stored_dtype)
                for index in range(count):
                    place = ((start + index) * rest[0] + first) * row
                    found[index] = self._block(place, (length, *rest[1:]))
            return found if self.packed is None else unpack_bits(found, self.packed, str(self.path))

    def _block(self, place: int, shape: tuple[int, ...]) -> Array:
        """Consecutive numbers, the first of which is the array's ``place``-th."""
        found = np.empty(shape, self.stored_dtype)
        if not found.size:
            return found
        self.stream.seek(self.offset + place * self.stored_dtype.itemsize)
        room = memoryview(found.reshape(-1).view(np.uint8).data)
        done = 0
        while done < len(room):
            chunk = self.stream.read(min(_CHUNK_BYTES, len(room) - done))
            if not chunk:
                raise EOFError("the file ends early")
            room[done : done + len(chunk)] = chunk
            done += len(chunk)
        return found


class StoredRecording:
    """A recording in a file, with the attributes of :class:`snn_deploy.packets.Recording`.

    Its arrays are :class:`StoredArray` where they have more than one axis. What they hold is
    checked when it is read. A context manager, which closes the file. Made by
    :func:`open_recording`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        where = str(path)
        with reading(path), ExitStack() as opened:
            archive = opened.enter_context(zipfile.ZipFile(path))
            arrays: dict[str, Array | StoredArray] = {}
            for member in archive.infolist():
                header = npy_header(archive, member, where)
                _require_undamaged(archive, member)
                stream = opened.enter_context(archive.open(member))
                arrays[member.filename.removesuffix(".npy")] = _array(path, stream, header)
            for name, shape in bit_packed(arrays, where).items():
                packed = arrays.pop(f"{name}.packed")
                if isinstance(packed, StoredArray):
                    arrays[name] = replace(packed, packed=shape)
                else:
                    arrays[name] = unpack_bits(packed, shape, where)
            self.spikes, self.values = by_input(arrays, where)
            first = next(iter([*self.spikes.values(), *self.values.values()]))
            self.labels: NDArray[np.int64] | None = None
            if "labels" in arrays:
                require_labels(arrays["labels"], first.shape, where)
                self.labels = read_piece(arrays["labels"], slice(None)).astype(np.int64)
            self._opened = opened.pop_all()

    @property
    def samples(self) -> int:
        """Number of samples; arrays must have a sample axis."""
        return next(iter([*self.values.values(), *self.spikes.values()])).shape[0]

    def arrays(self) -> dict[str, Array | StoredArray]:
        """The arrays under the names they have in a file, whatever their packing."""
        found: dict[str, Array | StoredArray] = {}
        for kind, inputs in (("spikes", self.spikes), ("values", self.values)):
            for name, value in inputs.items():
                found[f"{name}.{kind}" if name else kind] = value
        if self.labels is not None:
            found["labels"] = self.labels
        return found

    def part(self, start: int, stop: int) -> Recording:
        """Samples ``start`` to ``stop``, read; arrays must have a sample axis."""

        def read(arrays: dict[str, Array | StoredArray]) -> dict[str, Array]:
            return {name: read_piece(a, slice(start, stop)) for name, a in arrays.items()}

        labels = None if self.labels is None else self.labels[start:stop]
        return Recording(spikes=read(self.spikes), values=read(self.values), labels=labels)

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        digest = hashlib.sha256()
        with reading(self.path), self.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._opened.close()

    def __enter__(self) -> StoredRecording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_recording(path: str | os.PathLike[str]) -> StoredRecording:
    """Open a recording of any length, to be read piece by piece.

    The checksums of the whole file are compared first, in bounded memory, so that a damaged file
    does not come to light after hours.

    Raises
    ------
    SnnDeployError
        As :func:`snn_deploy.packets.read_recording`; SD402 only where labels, or an array in
        Fortran order, would have to be loaded and are too large.
    """
    return StoredRecording(Path(path))


def read_piece(array: Array | StoredArray, samples: slice, steps: slice | None = None) -> Array:
    """A piece of an array, wherever it is; see :meth:`StoredArray.read`."""
    if isinstance(array, StoredArray):
        return array.read(samples, steps)
    return array[samples] if steps is None else array[samples, steps]


def _array(path: Path, stream: IO[bytes], header: NpyHeader) -> Array | StoredArray:
    """An array to read from; loaded where it is small, or not in the order of its samples."""
    if len(header.shape) > 1 and not header.fortran_order:
        return StoredArray(
            path=path,
            stream=stream,
            offset=header.offset,
            stored_shape=header.shape,
            stored_dtype=header.dtype,
        )
    require_loadable(header.dtype.itemsize * math.prod(header.shape), str(path))
    return np.asarray(npy.read_array(stream, allow_pickle=False))


def _require_undamaged(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise unless the member is as long as it claims and has its checksum."""
    length = 0
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK_BYTES):  # the last one compares the checksum
            length += len(chunk)
    if length != member.file_size:
        raise EOFError(f"{member.filename} ends early")
