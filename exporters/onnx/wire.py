"""A look at the bytes of a protocol buffer before they are parsed.

A parser makes an object of every two bytes that a hostile file spends on an empty message, and
eight bytes of every one in a packed list. Here both are counted first, and nothing is made.
"""

from __future__ import annotations

from typing import Any

# Messages, numbers and texts that a file may hold: 100 times those of a network of 50 populations.
MAX_PARTS = 1 << 20
MAX_DEPTH = 32

_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}
_MESSAGE, _TEXTS = 11, (9, 12)  # descriptor types: message; string and bytes


class DamagedError(Exception):
    """The bytes are no such message."""


class UnsafeError(Exception):
    """The bytes would unpack to more than any network needs."""


def inspect(data: bytes, descriptor: Any) -> None:
    """Walk through a serialised message of this protobuf descriptor.

    Raises
    ------
    DamagedError, UnsafeError
    """
    _message(data, 0, len(data), descriptor, 0, 0)


def _message(data: bytes, place: int, end: int, descriptor: Any, depth: int, parts: int) -> int:
    """Walk through a message between two places; returns the parts counted so far."""
    if depth > MAX_DEPTH:
        raise UnsafeError(f"messages nested more than {MAX_DEPTH} deep")
    fields = descriptor.fields_by_number
    while place < end:
        parts += 1
        tag, place = _varint(data, place, end)
        form, size = tag & 7, 0
        if form == _VARINT:
            _, place = _varint(data, place, end)
        elif form in _FIXED:
            size = _FIXED[form]
        elif form == _LENGTH:
            size, place = _varint(data, place, end)
        else:
            raise DamagedError("a field of no known form")
        if place + size > end:
            raise DamagedError("a field that is longer than what holds it")
        field = fields.get(tag >> 3)
        if form == _LENGTH and field is not None:
            if field.type == _MESSAGE:
                inner = field.message_type
                parts = _message(data, place, place + size, inner, depth + 1, parts)
            elif field.type not in _TEXTS:  # a packed list of numbers
                parts += size
        if parts > MAX_PARTS:
            raise UnsafeError(f"more than {MAX_PARTS} messages and numbers")
        place += size
    return parts


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of 7 bits per byte, and where it ends."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise DamagedError("a number that does not end")
