"""What netx and Lava make of the dense weights in a file.

netx looks for a shift and a number of bits (lava-dl 0.6.0, ``netx/utils.py``); Lava's Dense clips
the shifted weights to the chip's sign mode, cuts them to these bits (lava-nc 0.10.0,
``utils/weightutils.py``) and shifts the sum of a timestep back. For most matrices nothing changes;
some one-sided ones act differently from what is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError

Integers = NDArray[np.int64]

_BITS = 8
_MIXED_RANGE = (-256, 254)


@dataclass(frozen=True, slots=True, eq=False)
class Effective:
    """Dense weights as they act.

    Attributes
    ----------
    weight : int64 (N_out, N_in), in weight units: what one spike adds.
    recurrent : the same for the recurrent weights of a ``dense_rec`` layer, else None.
    shift : bits by which Lava keeps the weights shifted to the left.
    notes : in words, what acts differently from the file.
    """

    weight: Integers
    recurrent: Integers | None
    shift: int
    notes: tuple[str, ...]


def effective_weights(
    weight: NDArray[Any], recurrent: NDArray[Any] | None = None, *, where: str | None = None
) -> Effective:
    """The weights that Lava applies for those of a file.

    Parameters
    ----------
    weight : (N_out, N_in), as in the file; fractions are cut toward zero.
    recurrent : (N_out, N_out) of a ``dense_rec`` layer: netx finds one shift for both matrices,
        Lava a sign mode for each.
    where : file and layer, for messages.

    Raises
    ------
    SnnDeployError
        SD204 for matrices on which netx fails, SD403 for numbers that are not finite.
    """
    parts = [weight] if recurrent is None else [weight, recurrent]
    for part in parts:
        if not np.isfinite(part).all():
            raise SnnDeployError("SD403", "weights hold NaN or infinity", where=where)
        if max(-part.min().item(), part.max().item()) >= 1 << 31:
            raise SnnDeployError("SD204", "weights reach beyond 32 bits", where=where)
    whole = [np.trunc(part).astype(np.int64) for part in parts]
    joined = np.concatenate([part.reshape(-1) for part in whole])
    clipped = _clipped(joined)
    if not clipped.any():
        raise SnnDeployError(
            "SD204", "all weights are zero", where=where, why="netx fails on such a matrix"
        )
    shift, bits = _shift_and_bits(clipped)
    acting = []
    start = 0
    for part in whole:
        if shift < 0:  # numpy's shift by less than nothing leaves nothing
            acting.append(np.zeros_like(part))
            continue
        stored = _stored(clipped[start : start + part.size].reshape(part.shape) << shift, bits)
        if (stored % (1 << shift)).any():
            raise SnnDeployError(
                "SD204",
                "weights of which Lava keeps a fraction, and cuts it from their sum",
                where=where,
                why="no weight is positive, one is odd, and the least is a power of two",
                fix="write the file with weights of both signs",
            )
        acting.append(stored >> shift)
        start += part.size
    notes = [
        note
        for name, part, acts in zip(("weights", "recurrent weights"), parts, acting, strict=False)
        for note in _notes(name, part, acts)
    ]
    return Effective(acting[0], acting[1] if recurrent is not None else None, shift, tuple(notes))


def _clipped(weight: Integers) -> Integers:
    """Clip matrices of both signs to what the chip holds, one end after the other, as netx does."""
    if weight.max() > _MIXED_RANGE[1] and weight.min() < 0:
        weight = np.clip(weight, *_MIXED_RANGE)
    if weight.min() < _MIXED_RANGE[0] and weight.max() > 0:
        weight = np.clip(weight, *_MIXED_RANGE)
    return weight


def _shift_and_bits(weight: Integers) -> tuple[int, int]:
    """The shift to the left with which netx fills the chip's weights, and the bits it needs."""
    least, most = int(weight.min()), int(weight.max())
    mixed = least < 0 <= most
    if mixed:
        scale = min(127 / most if most else np.inf, 128 / -least)
    elif most < 0:
        scale = 256 / -least
    else:
        scale = 255 / most
    shift = int(np.floor(np.log2(scale))) + mixed
    common = 0  # factors of two that all weights share
    while common < _BITS and not (weight % (1 << (common + 1))).any():
        common += 1
    return shift, _BITS - shift - (common - mixed)


def _stored(weight: Integers, bits: int) -> Integers:
    """Lava's Dense: clipped to its sign mode, and cut to so many bits (magnitudes if one-sided)."""
    mixed = bool(weight.min() < 0 < weight.max())
    sign = -1 if weight.max() <= 0 and weight.min() < 0 else 1
    magnitude = sign * weight
    low = -(1 << _BITS) if mixed else 0
    magnitude = np.clip(magnitude, low, (1 << _BITS) - 1)
    cut = _BITS - bits + mixed
    if cut < 0:  # as above
        return np.zeros_like(weight)
    return sign * (magnitude >> cut << cut)


def _notes(name: str, written: NDArray[Any], acting: Integers) -> list[str]:
    """What differs, with the most frequent example."""
    differs = written != acting
    count = int(differs.sum())
    if not count:
        return []
    values, times = np.unique(written[differs], return_counts=True)
    example = values[times.argmax()]
    acts = acting[differs][written[differs] == example][0]
    return [f"{count} of {written.size} {name} act differently: {example:g} acts as {acts}"]
