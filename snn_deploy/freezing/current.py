"""The current that flows into the next neurons, while a network is being folded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy.synapses import Conv2d, Dense, SumPool, Synapses

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Current:
    """Synapses not yet closed by neurons, their bias [C_out], and where they come from.

    ``magnitude`` [C_out] bounds the sum of the absolute values that were added up to the bias: the
    rounding error of the module's own arithmetic is proportional to it.
    """

    source: str
    pool: SumPool | None
    synapses: Synapses
    bias: Floats
    magnitude: Floats

    def scaled(self, factor: Floats, bias: Floats, magnitude: Floats) -> Current:
        """The same synapses with weights multiplied per output, and another bias."""
        weight = self.synapses.weight
        per_output = factor.reshape(-1, *([1] * (weight.ndim - 1)))
        return replace(
            self,
            synapses=replace(self.synapses, weight=weight * per_output),
            bias=bias,
            magnitude=magnitude,
        )


def open_current(
    module: nn.Conv2d | nn.Linear, source: str, pool: SumPool | None, factor: float
) -> Current:
    """The current of a convolution or linear layer, its weights multiplied by ``factor``."""
    weight = module.weight.detach().double().numpy() * factor
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().double().numpy()
    return Current(
        source=source,
        pool=pool,
        synapses=_synapses(module, weight),
        bias=bias.copy(),
        magnitude=np.abs(bias),
    )


def identity_current(source: str, channels: int) -> Current:
    """The current of an identity shortcut: one synapse of weight 1 per neuron."""
    return Current(
        source=source,
        pool=None,
        synapses=Conv2d(np.ones((channels, 1, 1, 1)), groups=channels),
        bias=np.zeros(channels),
        magnitude=np.zeros(channels),
    )


def _synapses(module: nn.Conv2d | nn.Linear, weight: Any) -> Synapses:
    if isinstance(module, nn.Linear):
        return Dense(weight)

    def pair(value: tuple[int, ...]) -> tuple[int, int]:
        return value[0], value[1]

    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros":
        raise ValueError("with padding other than a number of zeros")
    return Conv2d(
        weight,
        stride=pair(module.stride),
        padding=pair(padding),
        dilation=pair(module.dilation),
        groups=module.groups,
    )
