"""The layers of a netx ``.net`` file as on the disk, checked for what Lava would stumble on.

Format and traps: lava-dl 0.6.0, ``netx/hdf5.py`` and ``netx/blocks/process.py``. What Lava rejects,
waits for for ever, or silently takes for something else is refused here, by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.hdf5 import Content, read_hdf5
from snn_deploy.synapses import Pair, Shape

Array = NDArray[Any]

_LAYERS = ("input", "conv", "dense", "dense_rec", "flatten")
_NOT_IMPLEMENTED = ("pool", "average", "concat", "convT", "unpool")

# Decays are out of 4096; the longest delay of netx and Loihi 2, in timesteps.
WHOLE = 4096
DELAY_MAX = 62
# The largest threshold of 17 bits, for neurons that shall not fire; a membrane has 63 values beyond
# it. Of 131072, netx' default, it has none.
NEVER_FIRES = (1 << 17) - 1
# Lava keeps strides, paddings, dilations, groups and kernel sizes in int8.
MOST_8_BITS = 127
_INT32 = (-(1 << 31), (1 << 31) - 1)
# A shape is a claim that costs nothing: more neurons in one layer than any chip has in all.
_MOST_NEURONS = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One member of ``/layer``: its datasets by name, those of its neuron as ``neuron/...``."""

    index: int
    kind: str
    data: dict[str, Content]
    file: str

    @property
    def where(self) -> str:
        """File and layer, for messages; words of a stranger are not repeated."""
        kind = f" ({self.kind})" if self.kind in (*_LAYERS, *_NOT_IMPLEMENTED) else ""
        return f"{self.file}: layer {self.index}{kind}"

    @property
    def has_neuron(self) -> bool:
        """Whether the file describes a neuron for this layer."""
        return any(name.split("/")[0] == "neuron" for name in self.data)

    def refuse(
        self, message: str, *, why: str | None = None, code: str = "SD204"
    ) -> SnnDeployError:
        """An error about this layer."""
        return SnnDeployError(code, message, where=self.where, why=why)

    def numbers(self, name: str) -> Array | None:
        """A dataset of finite numbers, None if there is none of this name."""
        value = self.data.get(name)
        if name not in self.data:
            return None
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"`{name}` holds no numbers", code="SD401")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise self.refuse(f"`{name}` holds NaN or infinity", code="SD403")
        return value

    def needed(self, name: str) -> Array:
        """A dataset that netx cannot do without."""
        value = self.numbers(name)
        if value is None:
            raise self.refuse(f"`{name}` is missing", why="netx needs it", code="SD401")
        return value

    def cast(self, name: str) -> NDArray[np.int64] | None:
        """Numbers as netx makes integers of them: cut toward zero."""
        value = self.numbers(name)
        if value is None:
            return None
        if value.size == 0:
            raise self.refuse(f"`{name}` is empty", code="SD401")
        if value.min().item() < _INT32[0] or value.max().item() > _INT32[1]:
            raise self.refuse(f"`{name}` reaches beyond 32 bits", why="Lava's integers end there")
        return value.astype(np.int64)

    def shape(self) -> Shape:
        """(C, H, W) or (N,) of the layer."""
        value = self.needed("shape")
        extents = tuple(int(n) for n in value.reshape(-1))
        if value.dtype.kind not in "iu" or value.ndim != 1 or len(extents) not in (1, 3):
            raise self.refuse(f"a shape of {value.tolist()}: (C, H, W) or (N,) is needed")
        if min(extents) < 1:
            raise self.refuse(f"a shape of {value.tolist()}", code="SD401")
        if math.prod(extents) > _MOST_NEURONS:
            raise self.refuse(
                f"a shape of {value.tolist()}: more than {_MOST_NEURONS} neurons", code="SD402"
            )
        return extents

    def pair(self, name: str) -> Pair:
        """Two integers, vertical and horizontal, or one for both; netx keeps them in 8 bits."""
        value = self.needed(name)
        if value.dtype.kind not in "iu" or value.shape not in ((), (2,)):
            raise self.refuse(
                f"`{name}` of shape {value.shape} and type {value.dtype}",
                why="netx takes one integer, or two",
            )
        vertical, horizontal = (int(n) for n in np.broadcast_to(value, (2,)))
        if not 0 <= min(vertical, horizontal) <= max(vertical, horizontal) <= MOST_8_BITS:
            raise self.refuse(f"`{name}` {value.tolist()}", why="Lava keeps it in 8 bits, signed")
        return vertical, horizontal

    def groups(self) -> int:
        """Number of groups of a convolution."""
        value = self.needed("groups")
        if value.dtype.kind not in "iu" or value.shape != ():
            raise self.refuse("`groups` must be one plain integer", why="netx fails on arrays")
        if not 1 <= int(value) <= MOST_8_BITS:
            raise self.refuse(f"{int(value)} groups", why="Lava keeps the number in 8 bits, signed")
        return int(value)


def read_layers(path: Path) -> list[Layer]:
    """The layers of a file, in order.

    Raises
    ------
    SnnDeployError
        SD101, SD401 or SD402 for the file, SD204 for layers of which Lava makes no network, or
        another one than the file describes.
    """
    content = read_hdf5(path, "layer")
    layers: dict[str, dict[str, Content]] = {}
    for name, value in content.items():
        _, member, *rest = name.split("/", 2)
        if not rest:
            raise SnnDeployError(
                "SD204",
                f"`/layer` holds something that is no layer: {member[:40]!r}",
                where=str(path),
                why="netx counts the members of /layer, and looks for one more than there is",
            )
        texts = isinstance(value, np.ndarray) and value.dtype == object
        layers.setdefault(member, {})[rest[0]] = None if texts else value  # netx takes no lists
    if not layers:
        raise SnnDeployError("SD401", "the file holds no layers", where=str(path))
    if set(layers) != {str(index) for index in range(len(layers))}:
        raise SnnDeployError(
            "SD204",
            f"layers are not numbered 0 to {len(layers) - 1}: {sorted(layers)[:8]}",
            where=str(path),
            why="netx reads as many as there are, by number",
        )
    found = []
    for index in range(len(layers)):
        data = layers[str(index)]
        kind = data.get("type")
        if not isinstance(kind, str):
            raise SnnDeployError("SD401", "a layer without `type`", where=f"{path}: layer {index}")
        layer = Layer(index, kind, data, str(path))
        if kind in _NOT_IMPLEMENTED:
            raise layer.refuse(f"netx does not implement layers of type {kind!r}")
        if kind not in _LAYERS:
            raise layer.refuse(
                f"layers of type {kind[:40]!r} are unknown to us",
                why="netx silently leaves out types that it does not know",
            )
        found.append(layer)
    return found
