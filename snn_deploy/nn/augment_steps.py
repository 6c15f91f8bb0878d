"""The augmentations, each a function of a batch with its options.

They take [B, C, H, W] raw values or [B, T, C, H, W] spikes and draw from torch's global generator:
each sample for itself, the same for all timesteps of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
# Lowest and highest raw value, where it is known.
Span = tuple[float, float] | None


def shifted(images: Tensor, most: int) -> Tensor:
    """Each image [B, ..., H, W] moved by up to ``most`` pixels each way, zeros moving in."""
    if most == 0:
        return images
    planes = images.flatten(1, -3)
    count, channels, height, width = planes.shape
    padded = nn.functional.pad(planes, (most, most, most, most))
    offset = torch.randint(0, 2 * most + 1, (2, count, 1))
    rows = (offset[0] + torch.arange(height))[:, None, :, None]
    columns = (offset[1] + torch.arange(width))[:, None, None, :]
    sample = torch.arange(count)[:, None, None, None]
    moved = padded[sample, torch.arange(channels)[None, :, None, None], rows, columns]
    return moved.reshape(images.shape)


class Step(Protocol):
    """One augmentation; its fields are its options in a recipe."""

    type: ClassVar[str]

    def __call__(self, batch: Tensor) -> Tensor:
        """A batch [B, C, H, W] of values or [B, T, C, H, W] of spikes, augmented."""
        ...

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """Why such samples of shape (C, H, W) cannot be augmented so; None if they can."""
        ...


@dataclass(frozen=True, slots=True)
class Shift:
    """Moved by up to ``pixels`` each way, zeros moving in."""

    pixels: int
    type: ClassVar[str] = "shift"

    def __call__(self, batch: Tensor) -> Tensor:
        """See :class:`Step`."""
        return shifted(batch, self.pixels)

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """See :class:`Step`."""
        return _zeros_move_in(span)


@dataclass(frozen=True, slots=True)
class Crop:
    """Padded with ``padding`` zeros on all sides, and cut to the old size at a random place.

    That is a shift by up to ``padding`` pixels; it has the name under which it is published.
    """

    padding: int
    type: ClassVar[str] = "crop"

    def __call__(self, batch: Tensor) -> Tensor:
        """See :class:`Step`."""
        return shifted(batch, self.padding)

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """See :class:`Step`."""
        return _zeros_move_in(span)


@dataclass(frozen=True, slots=True)
class Flip:
    """Left and right exchanged, for one sample of two."""

    type: ClassVar[str] = "flip"

    def __call__(self, batch: Tensor) -> Tensor:
        """See :class:`Step`."""
        chosen = torch.rand(len(batch)) < 0.5
        mask = chosen.reshape(-1, *[1] * (batch.ndim - 1)).to(batch.device)
        return torch.where(mask, batch.flip(-1), batch)

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """See :class:`Step`."""
        return None


@dataclass(frozen=True, slots=True)
class Roll:
    """Moved by up to ``pixels`` each way; what leaves on one side comes in on the other."""

    pixels: int
    type: ClassVar[str] = "roll"

    def __call__(self, batch: Tensor) -> Tensor:
        """See :class:`Step`."""
        planes = batch.flatten(1, -3)
        count, channels, height, width = planes.shape
        offset = torch.randint(-self.pixels, self.pixels + 1, (2, count, 1))
        rows = ((torch.arange(height) - offset[0]) % height)[:, None, :, None]
        columns = ((torch.arange(width) - offset[1]) % width)[:, None, None, :]
        sample = torch.arange(count)[:, None, None, None]
        moved = planes[sample, torch.arange(channels)[None, :, None, None], rows, columns]
        return moved.reshape(batch.shape)

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """See :class:`Step`."""
        return None


@dataclass(frozen=True, slots=True)
class Cutout:
    """A square of raw value ``fill`` (one, or one for each channel), less what lies outside.

    Its middle is any pixel (DeVries and Taylor 2017). With the default of 0 it is black before the
    normalisation, as in the code released with ASGL, not the mean colour. In samples of integers
    ``fill`` is rounded.
    """

    size: int
    fill: tuple[float, ...] = (0.0,)
    type: ClassVar[str] = "cutout"

    def __call__(self, batch: Tensor) -> Tensor:
        """See :class:`Step`."""
        count, (height, width) = len(batch), batch.shape[-2:]
        top = torch.randint(height, (count, 1)) - self.size // 2
        left = torch.randint(width, (count, 1)) - self.size // 2
        rows, columns = torch.arange(height), torch.arange(width)
        inside = ((rows >= top) & (rows < top + self.size))[:, :, None]
        inside = inside & ((columns >= left) & (columns < left + self.size))[:, None, :]
        mask = inside.reshape(count, *[1] * (batch.ndim - 3), height, width).to(batch.device)
        fill = torch.tensor(self.fill, dtype=torch.float64)
        if not batch.dtype.is_floating_point:
            fill = fill.round()
        return torch.where(mask, fill.to(batch)[:, None, None], batch)

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """See :class:`Step`."""
        if len(self.fill) not in (1, shape[0]):
            return f"fill has {len(self.fill)} values for {shape[0]} channels"
        if kind == "spikes" and any(value not in (0, 1) for value in self.fill):
            return "fill must be 0 or 1 among spikes"
        for value in self.fill:
            if span is not None and not span[0] <= value <= span[1]:
                return f"fill {value:g} lies outside the raw values, {span[0]:g} to {span[1]:g}"
        return None


@dataclass(frozen=True, slots=True)
class AutoAugment:
    """The policy of AutoAugment for CIFAR-10 (see :mod:`snn_deploy.nn.autoaugment`)."""

    type: ClassVar[str] = "autoaugment"

    def __call__(self, batch: Tensor) -> Tensor:
        """See :class:`Step`."""
        from snn_deploy.nn.autoaugment import auto_augmented  # needs Pillow

        return auto_augmented(batch)

    def unfit(self, kind: str, shape: Shape, span: Span) -> str | None:
        """See :class:`Step`."""
        if kind != "constant" or shape[0] != 3:
            return "it is for RGB images"
        if span is not None and span != (0, 255):
            return f"it is for raw values from 0 to 255, these go from {span[0]:g} to {span[1]:g}"
        return None


def _zeros_move_in(span: Span) -> str | None:
    if span is not None and not span[0] <= 0 <= span[1]:
        return f"zeros move in, and the raw values go from {span[0]:g} to {span[1]:g}"
    return None
