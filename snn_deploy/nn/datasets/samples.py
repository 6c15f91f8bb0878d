"""What a data set is to the training: samples taken in batches, their labels, and two splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError

Array = NDArray[Any]
Indices = NDArray[np.int64]


class Samples(Protocol):
    """Raw samples of one split, in a fixed order.

    Values that are constant over time come as [n, *shape], uint8 or float32, as they are stored:
    nothing is normalised. Spikes come as [n, T, *shape], uint8, 0 or 1.
    """

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(self, indices: Indices) -> Array:
        """The samples at these places, in this order, as a new array."""
        ...

    def take(self, indices: Indices) -> Samples:
        """The samples at these places; what they are made of is shared, not copied."""
        ...

    def steady(self) -> Samples:
        """The same samples without anything random: what networks are judged on."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ArraySamples:
    """Samples that lie in an array [N, ...], or at some places of it.

    Attributes
    ----------
    array : uint8 or float32 [N, *shape], or uint8 0/1 [N, T, *shape].
    places : int64 [n], which samples of the array these are; None for all.
    """

    array: Array
    places: Indices | None = None

    def __len__(self) -> int:
        return len(self.array) if self.places is None else len(self.places)

    def batch(self, indices: Indices) -> Array:
        """See :class:`Samples`."""
        return self.array[self._at(indices)]  # an index array copies

    def take(self, indices: Indices) -> ArraySamples:
        """See :class:`Samples`."""
        return ArraySamples(self.array, self._at(indices))

    def steady(self) -> ArraySamples:
        """See :class:`Samples`."""
        return self

    def _at(self, indices: Indices) -> Indices:
        chosen = np.asarray(indices, np.int64)
        return chosen if self.places is None else self.places[chosen]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples and their labels, int64 [N]."""

    samples: Samples
    labels: NDArray[np.int64]

    def take(self, indices: Indices) -> Split:
        """The samples at these places, and their labels."""
        return Split(self.samples.take(indices), self.labels[indices])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset:
    """A data set, split once and for all.

    Attributes
    ----------
    train, test : the splits; ``test`` chooses nothing.
    classes : labels are 0 to ``classes - 1``.
    kind : "constant" (values that hold for all timesteps) or "spikes".
    shape : of a sample, without time.
    low, high : range of the raw values; 0 and 1 for spikes.
    """

    train: Split
    test: Split
    classes: int
    kind: Literal["constant", "spikes"]
    shape: tuple[int, ...]
    low: float
    high: float


def hold_out(split: Split, validation: int) -> tuple[Split, Split]:
    """What to train on, and ``validation`` samples held out of it to choose a checkpoint by.

    Which samples those are is a permutation that depends on the size of the split and on nothing
    else. They are steady: a random start in time is for training.

    Raises
    ------
    SnnDeployError
        SD104 if fewer than two samples would be left.
    """
    count = len(split.samples)
    if validation >= count - 1:
        raise SnnDeployError(
            "SD104",
            f"[data] validation: {validation} leaves nothing of {count} to train",
            fix="lower it",
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    held = split.take(order[:validation])
    return split.take(order[validation:]), Split(held.samples.steady(), held.labels)
