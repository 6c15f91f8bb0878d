"""Augmentation: what is done to batches of raw samples at random, in training only.

.. code-block:: toml

    [data]
    augment = [
      { type = "crop", padding = 4 },
      { type = "flip" },
      { type = "autoaugment" },
      { type = "cutout", size = 16 },
    ]

All randomness is drawn from torch's global generator, so that an interrupted run goes on exactly.
The others are ``{ type = "shift", pixels = 1 }`` and ``{ type = "roll", pixels = 5 }``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from snn_deploy.errors import SnnDeployError
from snn_deploy.nn.augment_steps import (
    AutoAugment,
    Crop,
    Cutout,
    Flip,
    Roll,
    Shift,
    Step,
    shifted,
)

__all__ = ["Augment", "parse_augment", "shifted"]

MAX_PIXELS = 1024
STEPS: dict[str, type[Any]] = {
    step.type: step for step in (Shift, Crop, Flip, AutoAugment, Cutout, Roll)
}


@dataclass(frozen=True, slots=True)
class Augment:
    """Augmentations in the order in which they are applied; none at all is one, too."""

    steps: tuple[Step, ...] = ()

    def __call__(self, batch: Tensor) -> Tensor:
        """A batch [B, C, H, W] of raw values or [B, T, C, H, W] of spikes, augmented.

        Type and shape stay; the batch that is given is not changed.
        """
        for step in self.steps:
            batch = step(batch)
        return batch

    def to_data(self) -> list[dict[str, Any]]:
        """As a recipe says it, with all defaults."""
        data = []
        for step in self.steps:
            entry: dict[str, Any] = {"type": step.type}
            for option in fields(step):  # type: ignore[arg-type]
                value = getattr(step, option.name)
                entry[option.name] = list(value) if isinstance(value, tuple) else value
            data.append(entry)
        return data

    def require(
        self,
        kind: str,
        shape: tuple[int, ...],
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """Refuse what does not suit the samples.

        Parameters
        ----------
        kind : "constant" or "spikes".
        shape : of a sample without time.
        low, high : range of the raw values, where it is known.

        Raises
        ------
        SnnDeployError
            SD104.
        """
        span = None if low is None or high is None else (float(low), float(high))
        for number, step in enumerate(self.steps):
            if len(shape) != 3:
                why: str | None = f"it is for [C, H, W], the samples are {list(shape)}"
            else:
                why = step.unfit(kind, shape, span)
            if why is not None:
                raise SnnDeployError(
                    "SD104",
                    f"[data] augment[{number}]: {step.type}: {why}",
                    fix="leave it out, or choose another augmentation",
                )


def parse_augment(data: Any, where: str) -> Augment:
    """The ``augment`` of a recipe's ``[data]``: a list of tables, or one table; None for nothing.

    Raises
    ------
    SnnDeployError
        SD104, beginning with the key, as in ``[data] augment[1].pixels: ...``; SD107 if
        ``autoaugment`` is named and Pillow is not installed.
    """
    entries = [] if data is None else [data] if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise _wrong("[data] augment: a list of tables is needed", where, _EXAMPLE)
    return Augment(tuple(_step(entry, f"augment[{n}]", where) for n, entry in enumerate(entries)))


_EXAMPLE = 'augment = [{ type = "flip" }]'


def _step(entry: Any, place: str, where: str) -> Step:
    if not isinstance(entry, dict):
        raise _wrong(f"[data] {place}: {entry!r} is not a table", where, _EXAMPLE)
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in STEPS:
        raise _wrong(
            f"[data] {place}.type: unknown augmentation {kind!r}",
            where,
            f"choose one of: {', '.join(STEPS)}",
        )
    options = [option.name for option in fields(STEPS[kind])]
    for key in entry:
        if key != "type" and key not in options:
            raise _wrong(
                f"[data] {place}.{key}: {kind} has no such option",
                where,
                f"its options: {', '.join(options) or 'none'}",
            )
    if kind == "autoaugment" and find_spec("PIL") is None:
        raise SnnDeployError(
            "SD107",
            f"[data] {place}: autoaugment needs Pillow",
            where=where,
            fix="pip install -c constraints.txt 'snn-deploy[augment]'",
        )
    chosen: dict[str, Any] = {}
    for key in options:
        if key == "fill":
            if key in entry:
                chosen[key] = _fill(entry[key], f"{place}.{key}", where)
            continue
        value = entry.get(key)
        if type(value) is not int or not 1 <= value <= MAX_PIXELS:
            raise _wrong(
                f"[data] {place}.{key}: {value!r} must be an integer in [1, {MAX_PIXELS}]",
                where,
                f"{key} = 4",
            )
        chosen[key] = value
    step: Step = STEPS[kind](**chosen)
    return step


def _fill(value: Any, place: str, where: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        raise _wrong(
            f"[data] {place}: {value!r} must be a number, or one for each channel",
            where,
            "fill = 0",
        )
    return tuple(float(n) for n in numbers)


def _wrong(message: str, where: str, fix: str) -> SnnDeployError:
    return SnnDeployError("SD104", message, where=where, fix=fix)
