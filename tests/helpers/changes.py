"""Random changes to what files hold: to descriptions, to arrays, and to bytes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INTEGERS = (-(1 << 63), -65, -1, 0, 1, 2, 3, 63, 64, 65, 255, 256, 1 << 15, 1 << 31, 1 << 62)
OTHERS = (None, True, "", "in", "spikes", 0.5, -1e300, float("nan"), float("inf"), [], [1, 1], {})
TYPES = ("i1", "u1", "i2", "i4", "u4", "i8", "u8", "f4", "f8", "?", "c8", "U2", ">i8")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every item below a tree of lists and dicts, as where it is kept and its key there."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _another(value: Any, rng: np.random.Generator) -> Any:
    """A number a little, or much, larger or smaller; or something else."""
    how = rng.integers(4)
    if how < 2 and type(value) in (int, float):
        return value + int(rng.choice((-1, 1))) * (1 if how == 0 else int(rng.integers(1, 70)))
    return INTEGERS[rng.integers(len(INTEGERS))] if how < 3 else OTHERS[rng.integers(len(OTHERS))]


def changed_tree(tree: Any, rng: np.random.Generator) -> Any:
    """A copy in which an item is another, missing, or what some other item is."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    held, key = places[rng.integers(len(places))]
    how = rng.integers(8)
    if how == 0:
        del held[key]
    elif how == 1:
        other, place = places[rng.integers(len(places))]
        held[key] = copy.deepcopy(other[place])
    else:
        held[key] = _another(held[key], rng)
    return tree


def changed_array(array: Array, rng: np.random.Generator) -> Array:
    """An array with another value, type, length or axis."""
    how = rng.integers(6)
    if how < 3 and array.size and array.dtype.kind in "biuf":
        values = array.copy()
        limits = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
        ends = [0, 1, 2, 0.5, -1] if limits is None else [0, 1, 2, limits.min, limits.max]
        values.reshape(-1)[rng.integers(values.size)] = ends[rng.integers(5)]
        return values
    if how == 3:
        with np.errstate(all="ignore"):
            return array.astype(TYPES[rng.integers(len(TYPES))])
    if how == 4 and array.size:
        return np.resize(array, max(0, array.size + int(rng.integers(-2, 3))))
    return array.swapaxes(0, -1) if array.ndim > 1 and rng.integers(2) else array[None]


def changed_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A file cut short, or with a few bytes changed, put in or taken out."""
    changed = bytearray(content)
    how = rng.integers(4)
    place = int(rng.integers(len(changed)))
    if how == 0:
        del changed[place:]
    elif how == 1:
        changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
    elif how == 2:
        del changed[place : place + int(rng.integers(1, 9))]
    else:
        for spot in rng.integers(len(changed), size=rng.integers(1, 6)):
            changed[spot] = rng.integers(256)
    return bytes(changed)
