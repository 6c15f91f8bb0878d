"""The arrays of a graph as ONNX tensors of few bytes, and back.

Every array is stored once. The description of the graph refers to the tensors that the operators
use; an array that no operator uses is written out in the description.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from snn_deploy.errors import SnnDeployError

Array = NDArray[Any]
Reference = dict[str, Any]

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_DTYPES = (*_INTEGERS, "float64")
# The largest file.
MAX_BYTES = 128 << 20
# The zero of an unsigned byte that stands for a signed one.
ZERO = 128


@dataclass(frozen=True, slots=True)
class Digit:
    """One byte of every weight: a tensor of values around ``zero``, worth ``256**place``."""

    tensor: str
    place: int
    zero: int


class Stored:
    """Tensors by name, and by what array they hold."""

    def __init__(self) -> None:
        self.tensors: dict[str, TensorProto] = {}
        self._bytes = 0
        self._references: dict[tuple[str, bytes], Reference] = {}

    def tensor(self, name: str, value: Array) -> str:
        """Store a tensor as it is; returns its name."""
        self._bytes += value.nbytes if name not in self.tensors else 0
        if self._bytes > MAX_BYTES:
            raise SnnDeployError(
                "SD204", f"more than {MAX_BYTES >> 20} MiB of weights and parameters", where=name
            )
        self.tensors[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def array(self, name: str, value: Array) -> str:
        """Store an integer array of the graph in the narrowest signed type that holds it."""
        narrow = np.min_scalar_type(min(int(value.min()), -int(value.max()) - 1))
        self._references[_key(value)] = {"tensor": name, "dtype": value.dtype.name}
        return self.tensor(name, value.astype(narrow))

    def weights(self, name: str, weight: Array, step: int, *, matrix: bool) -> tuple[Digit, ...]:
        """Store weights, multiples of ``step``, as bytes: as many per weight as the largest needs.

        The highest byte is signed. A ``matrix`` is stored with its rows as columns, which is what
        MatMulInteger takes. Kernels hold unsigned bytes around 128, which onnxruntime multiplies
        several times faster than signed ones.
        """
        mantissas = weight.astype(np.int64) // step
        if matrix:
            mantissas = mantissas.T
        reach = max(int(mantissas.max()), -int(mantissas.min()) - 1)
        count = reach.bit_length() // 8 + 1
        digits = []
        for place in range(count):
            byte, top = mantissas >> 8 * place, place == count - 1
            zero = ZERO if top and not matrix else 0
            kind = np.int8 if top and matrix else np.uint8
            where = name if count == 1 else f"{name}_{place}"
            self.tensor(where, (byte + zero if top else byte & 255).astype(kind))
            digits.append(Digit(where, place, zero))
        self._references[_key(weight)] = {
            "digits": [d.tensor for d in digits],
            "zero": digits[-1].zero,
            "step": step,
            "transposed": matrix,
            "dtype": weight.dtype.name,
        }
        return tuple(digits)

    def reference(self, value: Array) -> Reference:
        """Where an array of the graph is to be found."""
        found = self._references.get(_key(value))
        if found is not None:
            return found
        return {"values": value.reshape(-1).tolist(), "dtype": value.dtype.name}


def _key(value: Array) -> tuple[str, bytes]:
    return value.dtype.name, hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()


def restored(reference: Reference, tensors: Mapping[str, Array]) -> Array:
    """The array, flat, that a reference stands for.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError, OverflowError
        If it is no such reference.
    """
    if reference["dtype"] not in _DTYPES:
        raise ValueError(f"no arrays of {reference['dtype']!r} in a network")
    dtype = np.dtype(reference["dtype"])
    if "values" in reference:
        return np.array(reference["values"], dtype).reshape(-1)
    if "tensor" in reference:
        return tensors[reference["tensor"]].astype(dtype).reshape(-1)
    if not 1 <= len(reference["digits"]) <= 8:
        raise ValueError("weights of no bytes, or of too many")
    digits = [tensors[name].astype(np.int64) for name in reference["digits"]]
    total = digits[-1] - int(reference["zero"]) << 8 * (len(digits) - 1)
    for place, digit in enumerate(digits[:-1]):
        total = total + (digit << 8 * place)
    if reference["transposed"]:
        total = total.T
    return (total * int(reference["step"])).astype(dtype).reshape(-1)
