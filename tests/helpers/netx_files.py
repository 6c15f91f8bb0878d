"""Write netx files as they are told to be, also such that nothing can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.helpers.numbers import Array


def write_netx(path: Path, layers: Sequence[Mapping[str, Any]]) -> Path:
    """Write one group for each layer; what is a mapping in it becomes a group again."""
    with h5py.File(path, "w") as file:
        group = file.create_group("layer")
        for number, layer in enumerate(layers):
            _write(group.create_group(str(number)), layer)
    return path


def _write(group: h5py.Group, items: Mapping[str, Any]) -> None:
    for name, value in items.items():
        if isinstance(value, Mapping):
            _write(group.create_group(name), value)
        elif isinstance(value, str):
            group.create_dataset(name, (1,), "S10", [value.encode("ascii")])
        else:
            group[name] = value


def neuron(
    *, current_decay: Any = 4096, membrane_decay: Any = 4096, threshold: Any = 64, **more: Any
) -> dict[str, Any]:
    """Parameters of neurons; decays are what is lost in a step, of 4096."""
    given = {"iDecay": current_decay, "vDecay": membrane_decay, "vThMant": threshold}
    return {"type": "CUBA", **given, **more}


def dense(weight: Any, **more: Any) -> dict[str, Any]:
    """A dense layer; ``more`` adds datasets and replaces those that it would have."""
    weight = np.asarray(weight)
    given = {"type": "dense", "shape": (len(weight),), "weight": weight, "neuron": neuron()}
    return given | more


def conv(weight: Array, image: tuple[int, int], **more: Any) -> dict[str, Any]:
    """A conv layer over images of a height and width; the shape is worked out from ``more``."""
    given: dict[str, Any] = {
        "type": "conv",
        "weight": weight,
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
        "neuron": neuron(),
    }
    given |= more
    kernel, padding, dilation, stride = (
        np.asarray(a)
        for a in (weight.shape[2:], given["padding"], given["dilation"], given["stride"])
    )
    size = (np.asarray(image) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return {"shape": (len(weight), *size.tolist()), **given}


def neurons_only(shape: tuple[int, ...], **parameters: Any) -> dict[str, Any]:
    """An input layer that is a population, driven by its bias."""
    return {"type": "input", "shape": shape, "neuron": neuron(**parameters)}
