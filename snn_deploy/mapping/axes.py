"""An axis of a population, cut every so many places, for all steps at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Something of each step of an axis: of the blocks as long as the step, and of what is left.

    ``largest``: of the largest block of either kind; ``total``: summed over all blocks.
    """

    largest: tuple[Floats, Floats]
    total: Floats


class Axis:
    """The steps that an axis may be cut by."""

    def __init__(self, size: int, steps: NDArray[np.int64]) -> None:
        self.size, self.steps = size, steps
        self.length = (steps.astype(np.float64), (size % steps).astype(np.float64))
        self.count = ((size // steps).astype(np.float64), (size % steps > 0).astype(np.float64))

    def _measured(self, blocks: list[NDArray[np.int64]]) -> Measure:
        """From what every block of every step has."""
        whole, rest, total = (np.zeros(len(self.steps)) for _ in range(3))
        for index, (step, counts) in enumerate(zip(self.steps, blocks, strict=True)):
            full = self.size // step
            whole[index] = counts[:full].max()
            rest[index] = counts[full:].max(initial=0)
            total[index] = counts.sum()
        return Measure((whole, rest), total)

    def sums(self, values: NDArray[np.int64]) -> Measure:
        """Of values at each place along the axis: their sum within a block."""
        return self._measured(
            [np.add.reduceat(values, np.arange(0, self.size, step)) for step in self.steps]
        )

    def union(self, reach: NDArray[np.bool_]) -> Measure:
        """Of sources that reach each place: how many distinct ones reach a block."""
        starts = (np.arange(0, self.size, step) for step in self.steps)
        return self._measured(
            [np.logical_or.reduceat(reach, at, axis=0).sum(axis=1) for at in starts]
        )

    def spans(self, group_targets: int, group_sources: int) -> Measure:
        """Source channels of blocks of channels in groups."""
        blocks = []
        for step in self.steps:
            first = np.arange(0, self.size, step)
            last = np.minimum(first + step, self.size) - 1
            blocks.append((last // group_targets - first // group_targets + 1) * group_sources)
        return self._measured(blocks)


def outer(axes: list[Floats]) -> Floats:
    """The products of three axes: an array over steps of channels, of rows and of columns."""
    channels, rows, columns = axes
    return channels[:, None, None] * rows[None, :, None] * columns[None, None, :]
