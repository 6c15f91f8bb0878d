"""Single layers of the event engine at many rates, beside torch.

Random 8-bit weights and independent spikes, T=4, one thread. Ours is all the engine does, from a
recording of 0 and 1 to spikes and counts; torch's is the float32 sums of the same spikes in its
faster layout, without neurons, and does not depend on the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.in_torch import InPlace, TorchNet, as_torch, calibrate, same_spikes
from benchmarks.measuring import Options, Work, interleaved, milliseconds
from benchmarks.networks import Feed, Network, Ours, Unit, accumulates

STEPS = 4
RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
OWN_RATE = 0.1  # at which layers fire when a tenth of their input does
FEW_RATES = (0.02, 0.1, 0.3)


@dataclass(frozen=True)
class LayerSize:
    """A layer, and how many samples make one measurement; kernel 0: dense."""

    source: tuple[int, ...]
    targets: int
    samples: int
    kernel: int = 3

    def network(self) -> Network:
        """The layer alone, with thresholds at which it fires now and then."""
        rng = np.random.default_rng(0)
        if self.kernel:
            shape: tuple[int, ...] = (self.targets, *self.source[1:])
            size: tuple[int, ...] = (self.targets, self.source[0], self.kernel, self.kernel)
        else:
            shape, size = (self.targets,), (self.targets, int(np.prod(self.source)))
        unit = Unit("p", shape, (Feed("in", 2 * rng.integers(-128, 128, size)),))
        network = Network("layer", self.source, False, STEPS, True, (unit,))
        calibrate(network, network.draw(1, OWN_RATE, seed=2), OWN_RATE)
        return network


LAYERS = {
    "64x32x32 to 64, 3x3": LayerSize((64, 32, 32), 64, 4),
    "128x16x16 to 128, 3x3": LayerSize((128, 16, 16), 128, 8),
    "256x8x8 to 256, 3x3": LayerSize((256, 8, 8), 256, 8),
    "512x4x4 to 512, 3x3": LayerSize((512, 4, 4), 512, 16),
    "dense 4096 to 4096": LayerSize((4096,), 4096, 64, kernel=0),
}
AGAINST_RATE = ("128x16x16 to 128, 3x3", "dense 4096 to 4096")


def synapses_in_torch(network: Network, data: NDArray[Any]) -> dict[str, Work]:
    """The layer's sums in float32, in each layout."""
    values, kernel = as_torch(data), torch.from_numpy(network.units[0].feeds[0].weight).float()
    if kernel.ndim == 2:
        return {"linear": partial(functional.linear, values, kernel)}
    return {
        str(layout): partial(
            functional.conv2d,
            values.to(memory_format=layout),
            kernel.to(memory_format=layout),
            padding=kernel.shape[2] // 2,
        )
        for layout in (torch.contiguous_format, torch.channels_last)
    }


def at_rate(name: str, rate: float, options: Options) -> dict[str, Any]:
    """One layer at one rate: milliseconds per sample of ours and of torch, in one run."""
    size = LAYERS[name]
    network = size.network()
    data = network.draw(size.samples, rate)
    ours = Ours(network)
    model = TorchNet(network, InPlace)
    same_spikes(f"{name} at {rate:.0%}", ours(data, trace=True), model, as_torch(data))
    sums = synapses_in_torch(network, data)
    with torch.inference_mode():
        times = interleaved({"ours": lambda: ours(data)} | sums, min(options.rounds, 5))
    mine = times.pop("ours")
    added = accumulates(ours, ours(data))
    return {
        "layer": name,
        "rate": rate,
        "ours_ms": milliseconds(mine, size.samples),
        "torch_ms": min(milliseconds(taken, size.samples) for taken in times.values()),
        "gadd_per_s": float(1e-9 * added / np.median(mine)),
    }


def measure(options: Options) -> dict[str, list[dict[str, Any]]]:
    """Two layers against the rate, and all layers at three rates."""
    sweep = RATES[::3] if options.quick else RATES
    return {
        "against_rate": [at_rate(name, rate, options) for name in AGAINST_RATE for rate in sweep],
        "layers": [at_rate(name, rate, options) for name in LAYERS for rate in FEW_RATES],
    }
