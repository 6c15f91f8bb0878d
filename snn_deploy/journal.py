"""A journal of finished work: what an interrupted run goes on from.

A file of records, each appended whole: its length and CRC-32, then its content. The first says
what the work is; each later one holds arrays. A process that dies while it writes leaves a torn
record at the end, which is not believed, and overwritten by the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.packets import cannot_write, npy_header, npz_bytes, write_atomically

Array = NDArray[Any]
Identity = Mapping[str, str | int | None]

_MAGIC = b"snn-deploy journal 1\n"
_HEAD = struct.Struct("<QI")  # length and CRC-32 of a record's content


class Journal:
    """A journal that is open, alone; a context manager.

    Attributes
    ----------
    path : the file.
    """

    def __init__(self, path: Path, stream: IO[bytes], end: int) -> None:
        self.path = path
        self._stream = stream
        self._begin = self._end = end  # of the first record of work, and behind the last whole one

    @staticmethod
    def begin(path: str | os.PathLike[str], identity: Identity) -> Journal:
        """A new journal of the work that ``identity`` names.

        Raises
        ------
        SnnDeployError
            SD102 where it cannot be written, SD104 where there is one already.
        """
        path = Path(path)
        Journal.require_none(path)
        write_atomically(path, _MAGIC + _record(json.dumps(dict(identity)).encode()))
        return Journal.resume(path, identity)

    @staticmethod
    def require_none(path: Path) -> None:
        """Raise SD104 where there is a journal already: hours of work may be in it."""
        if path.exists():
            raise SnnDeployError(
                "SD104",
                "an interrupted run is in the way",
                where=str(path),
                fix="go on with it (--resume), or delete the file",
            )

    @staticmethod
    def resume(path: str | os.PathLike[str], identity: Identity) -> Journal:
        """The journal of an interrupted run of the same work.

        Raises
        ------
        SnnDeployError
            SD101 where there is none, SD102 where it is in use or cannot be written, SD104 where it
            is of other work, SD401 where it is no journal.
        """
        path = Path(path)
        try:
            stream = path.open("r+b")
        except FileNotFoundError:
            raise SnnDeployError("SD101", "no interrupted run", where=str(path)) from None
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            _lock(stream, path)
            found = _read_record(stream) if stream.read(len(_MAGIC)) == _MAGIC else None
            if found is None:
                raise damaged(path, "it does not begin as a journal does")
            _require_same(_identity(found, path), identity, path)
            return Journal(path, stream, stream.tell())
        except BaseException:
            stream.close()
            raise

    def parts(self) -> Iterator[dict[str, Array]]:
        """The arrays of every whole record, in order; what is torn at the end is left out.

        Raises
        ------
        SnnDeployError
            SD401 where a whole record does not hold plain arrays.
        """
        self._end = self._begin
        self._stream.seek(self._begin)
        while (content := _read_record(self._stream)) is not None:
            self._end = self._stream.tell()
            yield _arrays(content, self.path)
            self._stream.seek(self._end)

    def append(self, arrays: dict[str, Array]) -> None:
        """Add a record behind the last whole one.

        Raises
        ------
        SnnDeployError
            SD102 where the disk is full.
        """
        record = _record(npz_bytes(arrays))
        try:
            self._stream.seek(self._end)
            self._stream.truncate()
            self._stream.write(record)
            self._stream.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._end += len(record)

    def delete(self) -> None:
        """Remove the file: the work is done."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def digest(value: Any) -> str:
    """SHA-256, in hexadecimal, of a value made of dataclasses, arrays, numbers and texts.

    Equal values have equal digests; types of arrays and names of classes count.
    """
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if is_dataclass(part) and not isinstance(part, type):
            found.update(f"{type(part).__name__}(".encode())
            for field in fields(part):
                found.update(f"{field.name}=".encode())
                add(getattr(part, field.name))
            found.update(b")")
        elif isinstance(part, np.ndarray):
            found.update(f"array {part.dtype.str} {part.shape} ".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, Mapping):
            add(sorted(part.items()))
        elif isinstance(part, tuple | list):
            found.update(f"{len(part)}[".encode())
            for item in part:
                add(item)
            found.update(b"]")
        elif part is None or isinstance(part, str | int | float | np.generic):
            found.update(f"{type(part).__name__} {part!r},".encode())
        else:
            raise TypeError(f"no digest of a {type(part).__name__}")

    add(value)
    return found.hexdigest()


def _record(content: bytes) -> bytes:
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def _read_record(stream: IO[bytes]) -> bytes | None:
    """The content of the next record, None where there is no whole one."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    place = stream.tell()
    if length > stream.seek(0, os.SEEK_END) - place:
        return None
    stream.seek(place)
    content = stream.read(length)
    return content if len(content) == length and zlib.crc32(content) == checksum else None


def _arrays(content: bytes, path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                npy_header(archive, member, str(path))
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except SnnDeployError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise damaged(path, str(error) or type(error).__name__) from None


def _identity(content: bytes, path: Path) -> dict[str, Any]:
    try:
        identity = json.loads(content)
    except ValueError:
        identity = None
    if not isinstance(identity, dict):
        raise damaged(path, "it does not say what it is of")
    return identity


def _require_same(found: Mapping[str, Any], wanted: Identity, path: Path) -> None:
    differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if differing:
        raise SnnDeployError(
            "SD104",
            f"the interrupted run was of another {', '.join(differing)}",
            where=str(path),
            fix="finish it as it was begun, or delete the file and start anew",
        )


def _lock(stream: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SnnDeployError(
            "SD102", "another process is at this run", where=str(path), fix="wait for it"
        ) from None


def damaged(path: Path, why: str) -> SnnDeployError:
    """The error of a journal that cannot be read."""
    return SnnDeployError(
        "SD401",
        "the interrupted run cannot be read",
        where=str(path),
        why=why.splitlines()[0],
        fix="delete the file and start anew",
    )
