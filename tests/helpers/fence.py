"""Arrays next to pages that must not be touched: whoever reads or writes there dies of it.

numpy takes the memory of every array from a handler that can be replaced (NEP 49). This one maps
each up against a protected page, behind or before it, and unmaps both when it is freed. It is
machine code, not Python, which cannot run while an exception is on its way.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numba import carray, cfunc, njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

PAGE = np.uintp(mmap.PAGESIZE)
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FAILED = np.uintp(np.iinfo(np.uintp).max)
_NONE, _ONE, _TWO = np.uintp(0), np.uintp(1), np.uintp(2)
# Place of PyDataMem_SetHandler in numpy's table of C functions, since 1.22.
_SET_HANDLER = 304

_word, _int = types.uintp, types.int32
_mmap = types.ExternalFunction("mmap", _word(_word, _word, _int, _int, _int, types.int64))
_munmap = types.ExternalFunction("munmap", _int(_word, _word))
_mprotect = types.ExternalFunction("mprotect", _int(_word, _word, _int))
_memcpy = types.ExternalFunction("memcpy", _word(_word, _word, _word))


@intrinsic  # type: ignore[misc]
def _pointer(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to a word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(_word)(_word), generate


@njit(cache=True)  # type: ignore[misc]
def _pages(size: Any) -> Any:
    """Bytes of the pages that a block takes."""
    return (size + PAGE - _ONE) // PAGE * PAGE


@njit(cache=True)  # type: ignore[misc]
def _mapped(size: Any, at_end: Any) -> Any:
    """A block of memory, zero, behind a page that says its size.

    The protected page is the last one, or comes before the block's own.
    """
    size = max(size, _ONE)
    inside = _pages(size)
    start = _mmap(_NONE, inside + _TWO * PAGE, _READ_WRITE, _PRIVATE, -1, 0)
    if start == _FAILED:
        return _NONE
    carray(_pointer(start), 1)[0] = size
    _mprotect(start + PAGE + (inside if at_end else _NONE), PAGE, 0)
    return start + PAGE + (inside - size if at_end else PAGE)


@njit(cache=True)  # type: ignore[misc]
def _start(place: Any, at_end: Any) -> Any:
    """Where the pages of a block begin."""
    return place // PAGE * PAGE - PAGE - (_NONE if at_end else PAGE)


@njit(cache=True)  # type: ignore[misc]
def _size(place: Any, at_end: Any) -> Any:
    return carray(_pointer(_start(place, at_end)), 1)[0]


@njit(cache=True)  # type: ignore[misc]
def _unmap(place: Any, at_end: Any) -> None:
    _munmap(_start(place, at_end), _pages(_size(place, at_end)) + _TWO * PAGE)


# malloc, calloc, realloc and free. The context says whether arrays lie at the end of their pages.
@cfunc(_word(_word, _word), cache=True)  # type: ignore[misc]
def _malloc(at_end: Any, size: Any) -> Any:
    return _mapped(size, at_end)


@cfunc(_word(_word, _word, _word), cache=True)  # type: ignore[misc]
def _calloc(at_end: Any, number: Any, size: Any) -> Any:
    return _mapped(number * size, at_end)


@cfunc(_word(_word, _word, _word), cache=True)  # type: ignore[misc]
def _realloc(at_end: Any, place: Any, size: Any) -> Any:
    new = _mapped(size, at_end)
    if place != _NONE and new != _NONE:
        _memcpy(new, place, min(size, _size(place, at_end)))
        _unmap(place, at_end)
    return new


@cfunc(types.void(_word, _word, _word), cache=True)  # type: ignore[misc]
def _free(at_end: Any, place: Any, size: Any) -> None:
    if place != _NONE:
        _unmap(place, at_end)


class _Handler(ctypes.Structure):
    """numpy's ``PyDataMem_Handler``."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        *((name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")),
    )


def _c_function(address: Any, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)(address)


_python, _any, _object = ctypes.pythonapi, ctypes.c_void_p, ctypes.py_object
_pointer_in = _c_function(("PyCapsule_GetPointer", _python), _any, _object, _any)
_capsule_of = _c_function(("PyCapsule_New", _python), _object, _any, ctypes.c_char_p, _any)
_numpy = (np._core if hasattr(np, "_core") else np.core).multiarray
_table = ctypes.cast(_pointer_in(_numpy._ARRAY_API, None), ctypes.POINTER(_any))
_set_handler = _c_function(_table[_SET_HANDLER], _object, _object)


_FUNCTIONS = [function.address for function in (_malloc, _calloc, _realloc, _free)]
# They are there for as long as the process, since arrays may outlive what made them.
_HANDLERS = {at_end: _Handler(b"fence", 1, at_end, *_FUNCTIONS) for at_end in (False, True)}


class Fence:
    """While it stands, new arrays end (or begin) where a protected page does."""

    def __init__(self, *, at_end: bool) -> None:
        self.at_end = at_end

    def __enter__(self) -> None:
        address = ctypes.addressof(_HANDLERS[self.at_end])
        self._before = _set_handler(_capsule_of(address, b"mem_handler", None))

    def __exit__(self, *_: object) -> None:
        _set_handler(self._before)

    def holds(self, array: NDArray[Any]) -> bool:
        """Whether an array lies up against a protected page."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        edge = array.ctypes.data + (array.nbytes if self.at_end else 0)
        return edge % int(PAGE) == 0
