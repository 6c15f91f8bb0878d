"""Biases that a neuron cannot hold: behind a synaptic current, or beginning at a later timestep.

An input that fires at every timestep carries them, through synapses of that weight and delay: what
neuromorphic chips call a bias neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import InputSpec, Population, Projection
from snn_deploy.synapses import Conv2d, Dense

Floats = NDArray[np.float64]

NAME = "always_on"


class UnbiasableError(Exception):
    """A bias that no input can carry, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Biases:
    """Biases by population and by the timestep that they begin in, flat."""

    held: dict[str, dict[int, Floats]] = field(default_factory=dict)

    def add(self, population: str, since: int, value: Floats) -> None:
        """One more; what is zero is nothing."""
        if value.any():
            held = self.held.setdefault(population, {})
            held[since] = held[since] + value if since in held else value

    def inputs(
        self, populations: dict[str, Population]
    ) -> tuple[list[InputSpec], list[Projection]]:
        """Inputs that always fire, and their synapses.

        Populations that are vectors share one, with a neuron per beginning; maps of one size share
        a map.

        Raises
        ------
        UnbiasableError
            For a map with more than one bias per channel, or with several beginnings.
        """
        specs: dict[str, InputSpec] = {}
        projections = []
        vectors = [held for name, held in self.held.items() if len(populations[name].shape) == 1]
        width = max(map(len, vectors), default=0)
        for name, held in self.held.items():
            population = populations[name]
            if len(population.shape) == 1:
                spec = _always(NAME, (width,))
                weight, since = np.zeros((population.size, width)), np.zeros((1, width), np.int64)
                for place, (begin, value) in enumerate(held.items()):
                    weight[:, place], since[0, place] = value, begin
                synapses: Dense | Conv2d = Dense(weight)
            else:
                channels, height, wide = population.shape
                spec = _always(f"{NAME}_{height}x{wide}", (1, height, wide))
                ((begin, value),) = held.items() if len(held) == 1 else [(0, np.zeros(0))]
                rows = value.reshape(channels, -1)
                if rows.size == 0 or (rows != rows[:, :1]).any():
                    raise UnbiasableError(
                        "a bias behind a synaptic current, or with a delay, that differs within a "
                        "channel or over time"
                    )
                synapses, since = Conv2d(rows[:, :1].reshape(-1, 1, 1, 1)), np.array(begin)
            specs[spec.name] = spec
            same = len(np.unique(since)) == 1
            projections.append(
                Projection(
                    source=spec.name,
                    target=population.name,
                    synapses=synapses,
                    delay=int(since.flat[0]) if same else since,
                )
            )
        return list(specs.values()), projections


def _always(name: str, shape: tuple[int, ...]) -> InputSpec:
    return InputSpec(name=name, kind="spikes", shape=shape, low=1.0, high=1.0)
