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
    """Synapses not yet closed by neurons: weights, bias [C_out], and where they come from.

    ``magnitude`` [C_out] bounds the sum of the absolute values that were added up to the bias: the
    rounding error of the module's own arithmetic is proportional to it.
    """

    source: str
    pool: SumPool | None
    weight: Floats
    bias: Floats
    magnitude: Floats
    module: nn.Conv2d | nn.Linear

    def replaced(self, **changes: Any) -> Current:
        """A copy with other weights or bias."""
        return replace(self, **changes)

    def synapses(self) -> Synapses:
        """The synapses of the projection."""
        if isinstance(self.module, nn.Linear):
            return Dense(self.weight)

        def pair(value: tuple[int, ...]) -> tuple[int, int]:
            return value[0], value[1]

        padding = self.module.padding
        if isinstance(padding, str) or self.module.padding_mode != "zeros":
            raise ValueError("with padding other than a number of zeros")
        return Conv2d(
            self.weight,
            stride=pair(self.module.stride),
            padding=pair(padding),
            dilation=pair(self.module.dilation),
            groups=self.module.groups,
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
        weight=weight,
        bias=bias.copy(),
        magnitude=np.abs(bias),
        module=module,
    )
