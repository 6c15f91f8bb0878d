"""What the elements of a tensor are: labels that say form, sample and feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_deploy.freezing.forms import Form
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.synapses import Shape

Integers = np.ndarray[Any, np.dtype[np.int64]]

# Samples in the made-up input: two, so that mixing samples shows.
SAMPLES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What the elements of a tensor are.

    ``labels`` has the tensor's shape: ``starts[k] + sample * size_k + feature`` for the form k,
    whose size is the number of its features; -1 for an element that is always zero.
    """

    labels: Tensor
    forms: tuple[Form, ...]
    starts: tuple[int, ...]

    @staticmethod
    def of(forms: Sequence[Form], lead: tuple[int, ...], shape: Shape) -> Meaning:
        """Forms one after the other: a tensor [*lead, *shape].

        ``lead`` is (samples,) of one form, or (forms, samples).
        """
        size = int(np.prod(shape))
        labels = torch.arange(len(forms) * SAMPLES * size).reshape(*lead, *shape)
        return Meaning(labels, tuple(forms), tuple(k * SAMPLES * size for k in range(len(forms))))

    @staticmethod
    def joined(
        meanings: Sequence[Meaning],
    ) -> tuple[list[Tensor], tuple[Form, ...], tuple[int, ...]]:
        """Labels of several, each over the forms of all."""
        labels: list[Tensor] = []
        forms: list[Form] = []
        starts: list[int] = []
        end = 0
        for meaning in meanings:
            labels.append(torch.where(meaning.labels < 0, meaning.labels, meaning.labels + end))
            forms.extend(meaning.forms)
            starts.extend(start + end for start in meaning.starts)
            end += sum(SAMPLES * int(np.prod(form.shape)) for form in meaning.forms)
        return labels, tuple(forms), tuple(starts)

    def items(self, lead: int) -> list[Item]:
        """The tensor as items over its first ``lead`` axes: what each is made of."""
        flat = self.labels.reshape(int(np.prod(self.labels.shape[:lead])), -1).numpy()
        starts = np.array(self.starts)
        found = []
        for row in flat:
            real = row >= 0
            which = np.where(real, np.searchsorted(starts, row, side="right") - 1, -1)
            parts = []
            sample = None
            for k in dict.fromkeys(which[real].tolist()):
                places = np.flatnonzero(which == k)
                size = int(np.prod(self.forms[k].shape))
                local = row[places] - starts[k]
                samples = np.unique(local // size)
                if len(samples) > 1 or sample not in (None, int(samples[0])):
                    raise UnfoldableError(
                        "it mixes the samples of a batch", "treat every sample by itself"
                    )
                sample = int(samples[0])
                parts.append(Part(k, places, local % size))
            found.append(Item(sample, tuple(parts), len(row)))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Features of one form, and the places of an item where they stand."""

    form: int
    places: Integers
    features: Integers


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One sample at one timestep: ``size`` places, of which parts of forms fill some."""

    sample: int | None
    parts: tuple[Part, ...]
    size: int

    def whole(self, forms: Sequence[Form]) -> int | None:
        """The form that this item is, all of it in order; None if it is another arrangement."""
        if len(self.parts) != 1:
            return None
        (part,) = self.parts
        size = int(np.prod(forms[part.form].shape))
        if size != self.size or not np.array_equal(part.features, np.arange(size)):
            return None
        return part.form


def placed(
    forms: Sequence[Form], which: Integers, local: Integers, shape: torch.Size | Shape
) -> Meaning:
    """A meaning from the form of every element, and its place in it (sample and feature).

    ``which`` and ``local`` are [elements]; a local place below 0 is an element that is zero.
    """
    starts, end = [], 0
    for form in forms:
        starts.append(end)
        end += SAMPLES * int(np.prod(form.shape))
    labels = np.where(local < 0, -1, np.array([*starts, 0])[which] + local)
    return Meaning(torch.from_numpy(labels).reshape(tuple(shape)), tuple(forms), tuple(starts))
