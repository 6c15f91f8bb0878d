"""Blocks on cores: bin packing in several resources.

Best fit by decreasing size fills one bin after another. It does not mix well: blocks that are many
neurons end up with their like, blocks that are much memory with theirs. So a number of bins is
opened at once, too, and every block put where the resources it needs are least in use; halving
finds how few bins will do. What two blocks of one bin have in common (sources that reach both,
kernels that both use) is counted twice at first, and once where that is what makes room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EPSILON = 1e-9
# How many of the fullest bins are looked at more closely before another one is taken.
_CLOSER = 4
# How near the fewest bins that will do is near enough.
_CLOSE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What is to be packed.

    Attributes
    ----------
    demand : [items, resources], each item's part of a bin, at most 1.
    common : [resources], whether items may use a part of a resource in common.
    kin : per item, names; only items with a name in common use anything in common.
    jointly : what several items take of one bin together, [resources]; at most their sum.
    """

    demand: Floats
    common: NDArray[np.bool_]
    kin: Sequence[frozenset[str]]
    jointly: Callable[[Sequence[int]], Floats]

    def pack(self, enough: int) -> list[list[int]]:
        """Items of every bin, in as few bins as can be found, or ``enough``.

        Every item is in one bin, and no bin is empty.
        """
        best = _Bins(self).fill(opened=0, most=len(self.demand))
        assert best is not None  # a bin for each item would do
        alone = self.demand[:, ~self.common].sum(axis=0)
        low, high = max([enough, *np.ceil(alone - _EPSILON).astype(int).tolist()]), len(best) - 1
        while high - low >= int(low * _CLOSE):
            middle = (low + high) // 2
            found = _Bins(self).fill(opened=middle, most=middle)
            if found is None:
                low = middle + 1
            else:
                best, high = found, len(found) - 1
        return best


class _Bins:
    """Bins that are filled one item after another, the largest first."""

    def __init__(self, items: Items) -> None:
        self.items, self.alone = items, ~items.common
        self.held: list[list[int]] = []
        self.names: list[set[str]] = []
        self.room = np.ones_like(items.demand)  # of the bins there are, and of those that may come
        self.open = np.zeros(len(items.demand), np.bool_)

    def fill(self, opened: int, most: int) -> list[list[int]] | None:
        """Every item into the bin that it fits best; None if ``most`` bins do not do.

        With bins ``opened`` at once that is the one where what the item needs is least in use, else
        the one that has least room left.
        """
        demand = self.items.demand
        least = demand.min(axis=0, initial=1)[self.alone]
        for _ in range(opened):
            self._open_one()
        for item in np.argsort(-demand.max(axis=1, initial=0), kind="stable").tolist():
            at = np.flatnonzero(self.open)
            chosen = self._fitting(item, at, spread=opened > 0)
            if chosen is None:
                chosen = self._fitting_jointly(item, at)
            if chosen is None:
                if len(self.held) == most:
                    return None
                chosen = self._open_one()
                self.room[chosen] -= demand[item]
            self.held[chosen].append(item)
            self.names[chosen] |= self.items.kin[item]
            if (self.room[chosen, self.alone] < least - _EPSILON).any():
                self.open[chosen] = False
        return [held for held in self.held if held]

    def _open_one(self) -> int:
        self.held.append([])
        self.names.append(set())
        self.open[len(self.held) - 1] = True
        return len(self.held) - 1

    def _fitting(self, item: int, at: NDArray[np.intp], *, spread: bool) -> int | None:
        """A bin with room for an item even if it uses nothing in common."""
        need, left = self.items.demand[item], self.room[at]
        fits = (left >= need - _EPSILON).all(axis=1)
        if not fits.any():
            return None
        score = left @ need if spread else -left.sum(axis=1)
        chosen = int(at[np.argmax(np.where(fits, score, -np.inf))])
        self.room[chosen] -= need
        return chosen

    def _fitting_jointly(self, item: int, at: NDArray[np.intp]) -> int | None:
        """A bin with room for an item because of what it has in common with those in it."""
        need, kin = self.items.demand[item], self.items.kin[item]
        fits = (self.room[at][:, self.alone] >= need[self.alone] - _EPSILON).all(axis=1)
        related = [b for b in at[fits].tolist() if self.names[b] & kin]
        related.sort(key=lambda b: float(self.room[b].sum()))
        for chosen in related[:_CLOSER]:
            together = self.items.jointly([*self.held[chosen], item])
            if (together <= 1 + _EPSILON).all():
                self.room[chosen] = 1 - together
                return int(chosen)
        return None
