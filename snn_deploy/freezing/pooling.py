"""Turn average pooling of spikes into a sum pool and smaller weights."""

from __future__ import annotations

from torch import nn

from snn_deploy.synapses import SumPool


def fold_average_pool(pool: nn.AvgPool2d) -> tuple[SumPool, float]:
    """The sum over the same windows, and the factor 1/k^2 that the next weights must carry."""

    def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    kernel, stride = pair(pool.kernel_size), pair(pool.stride)
    if pair(pool.padding) != (0, 0) or pool.ceil_mode or pool.divisor_override is not None:
        raise ValueError("with padding, ceil_mode or a divisor of its own")
    return SumPool(kernel, stride), 1.0 / (kernel[0] * kernel[1])
