"""How a recording is laid out in a file: names of arrays, and spikes of one bit each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.synapses import Shape

Array = NDArray[Any]


class _Shaped(Protocol):
    """An array, or one that stays in its file."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


_Held = TypeVar("_Held", bound=_Shaped)


def by_input(arrays: Mapping[str, _Held], where: str) -> tuple[dict[str, _Held], dict[str, _Held]]:
    """The spikes and the values among a file's arrays, by the name of their input.

    Raises
    ------
    SnnDeployError
        SD103 where there are neither.
    """
    found: dict[str, dict[str, _Held]] = {"spikes": {}, "values": {}}
    for key, array in arrays.items():
        name, _, kind = key.rpartition(".")
        if kind in found:
            found[kind][name] = array
    if not found["spikes"] and not found["values"]:
        raise SnnDeployError(
            "SD103",
            f"the file holds neither `spikes` nor `values`, only {sorted(arrays) or 'nothing'}",
            where=where,
            fix="numpy.savez(path, values=images, labels=labels)",
        )
    return found["spikes"], found["values"]


def require_labels(labels: _Shaped, shape: tuple[int, ...], where: str) -> None:
    """Raise SD103 unless there is one integer per sample; ``shape`` is the first input's."""
    samples = shape[0] if shape else 0
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise SnnDeployError(
            "SD103",
            f"labels of shape {labels.shape} and type {labels.dtype}: one integer per sample "
            f"is needed, {samples} in all",
            where=where,
        )


def bit_packed(arrays: Mapping[str, _Held], where: str) -> dict[str, Shape]:
    """Shapes of the neurons whose spikes are bit-packed, by the arrays' names without packing.

    Raises
    ------
    SnnDeployError
        SD103 where ``NAME.packed`` comes without a ``NAME.shape`` that fits it, or with ``NAME``.
    """
    found: dict[str, Shape] = {}
    for key, packed in arrays.items():
        name, _, kind = key.rpartition(".")
        if kind != "packed" or name.rpartition(".")[2] != "spikes":
            continue
        told = arrays.get(f"{name}.shape")
        shape: Shape = ()
        if isinstance(told, np.ndarray) and told.ndim == 1 and told.dtype.kind in "iu":
            shape = tuple(int(extent) for extent in told)
        fits = len(packed.shape) in (2, 3) and packed.dtype == np.uint8
        if not fits or min(shape, default=0) < 1 or packed.shape[-1] != -(-math.prod(shape) // 8):
            raise SnnDeployError(
                "SD103",
                f"{key} has shape {packed.shape} and type {packed.dtype}, {name}.shape is "
                f"{'missing' if told is None else shape}: uint8 [N, T, ceil(n / 8)] and the shape "
                "of the n neurons are needed",
                where=where,
            )
        if name in arrays:
            raise SnnDeployError("SD103", f"the file holds both {name} and {key}", where=where)
        found[name] = shape
    return found


def pack_bits(spikes: Array, axes: int) -> dict[str, Array]:
    """0/1 spikes whose last ``axes`` axes are the neurons, as a file holds them bit-packed.

    Returns
    -------
    dict
        ``packed`` uint8 [..., ceil(n / 8)] and ``shape`` int64 [axes].
    """
    lead, shape = spikes.shape[: spikes.ndim - axes], spikes.shape[spikes.ndim - axes :]
    bits = np.packbits(spikes.reshape(*lead, math.prod(shape)) != 0, axis=-1, bitorder="little")
    return {"packed": bits, "shape": np.array(shape, np.int64)}


def unpack_bits(packed: Array, shape: Shape, where: str) -> NDArray[np.uint8]:
    """0/1 uint8 [..., *shape] of the spikes that :func:`pack_bits` packed.

    Raises
    ------
    SnnDeployError
        SD401 where a bit beyond the last neuron is set.
    """
    neurons = math.prod(shape)
    spare = 8 * packed.shape[-1] - neurons
    if spare and (packed[..., -1] >> (8 - spare)).any():
        raise SnnDeployError(
            "SD401", f"bits are set beyond the last of {neurons} neurons", where=where
        )
    bits = np.unpackbits(packed, axis=-1, count=neurons, bitorder="little")
    return bits.reshape(*packed.shape[:-1], *shape)
