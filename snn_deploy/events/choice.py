"""What is asked of a recording that is made from events, in words and in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

from snn_deploy.errors import SnnDeployError
from snn_deploy.events.binning import MAX_TIMESTEPS
from snn_deploy.synapses import Shape

Polarity = Literal["both", "on", "off"]
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How events become spikes; made by :func:`choose`.

    Attributes
    ----------
    shape : of the sensor: (C, H, W) with C = 2 for a channel OFF and a channel ON, or (N,).
    step : microseconds of a timestep; None where ``steps`` divides the time of each sample.
    steps : timesteps; None where the longest sample says it.
    scale : pixels along each axis that become one.
    polarity : which events count.
    from_first : time begins at the first event of each sample, not at 0.
    flat : neurons are numbered, channel by channel and row by row.
    """

    shape: Shape
    step: int | None
    steps: int | None
    scale: int
    polarity: Polarity
    from_first: bool
    flat: bool

    @property
    def sensor(self) -> tuple[int, ...]:
        """(H, W), or (N,)."""
        return self.shape[1:] or self.shape

    @property
    def size(self) -> tuple[int, ...]:
        """The sensor after scaling; pixels that are left over at an end make one more."""
        return tuple(-(-extent // self.scale) for extent in self.sensor)

    @property
    def channels(self) -> int:
        """Of the spikes: 2 only where both polarities are kept apart."""
        return self.shape[0] if len(self.shape) == 3 and self.polarity == "both" else 1

    @property
    def made(self) -> Shape:
        """Shape of the spikes of a timestep."""
        apart = (self.channels, *self.size) if len(self.shape) == 3 else self.size
        return (math.prod(apart),) if self.flat else apart

    def words(self) -> str:
        """One line for people."""
        if self.step is None:
            time = f"the time of each sample, up to its last event, in {self.steps} timesteps"
        else:
            time = f"timesteps of {self.step} microseconds"
            time += "" if self.steps is None else f", the first {self.steps} of them"
        parts = [time, f"from {'the first event' if self.from_first else '0'} of each sample"]
        if self.scale > 1:
            parts.append(f"{self.scale} pixels along each axis become one")
        if self.polarity != "both":
            parts.append(f"{self.polarity.upper()} events only")
        elif self.channels == 2:
            parts.append("channel 0 OFF, channel 1 ON")
        else:
            parts.append("polarities not told apart")
        return "; ".join(parts)


def choose(
    shape: Sequence[int],
    step: str | None = None,
    steps: int | None = None,
    scale: str = "1",
    polarity: str = "both",
    from_first: bool = False,
    flat: bool = False,
) -> Choice:
    """Check what is asked for; see :func:`snn_deploy.events.recording.record`.

    Raises
    ------
    SnnDeployError
        SD104.
    """
    extents = tuple(int(extent) for extent in shape)
    if len(extents) not in (1, 3) or min(extents) < 1 or (len(extents) == 3 and extents[0] > 2):
        raise _invalid("shape", list(extents), "2,H,W (OFF and ON), 1,H,W or N")
    if step is None and steps is None:
        raise _invalid("step", None, "a length, as 10ms, or a number of timesteps, or both")
    if steps is not None and not (steps >= 1 and (step is not None or steps <= MAX_TIMESTEPS)):
        raise _invalid("steps", steps, f"at least 1, at most {MAX_TIMESTEPS} without a step")
    if polarity not in ("both", "on", "off"):
        raise _invalid("polarity", polarity, "both, on or off")
    return Choice(
        shape=extents,
        step=None if step is None else _microseconds(step),
        steps=steps,
        scale=_divisor(scale),
        polarity=cast(Any, polarity),
        from_first=from_first,
        flat=flat,
    )


def _microseconds(text: str) -> int:
    for unit in ("us", "ms", "s"):
        if not text.endswith(unit):
            continue
        try:
            number = float(text.removesuffix(unit))
            exact = Fraction(text.removesuffix(unit)) * _UNITS[unit]
        except ValueError:
            break
        if math.isfinite(number) and exact.denominator == 1 and 1 <= exact < 1 << 50:
            return int(exact)
        break
    raise _invalid("step", text, "a whole number of microseconds, as 10ms, 0.5ms, 250us or 1s")


def _divisor(text: str) -> int:
    try:
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        scale = Fraction(0)
    if scale.numerator != 1 or scale.denominator > 1 << 16:
        raise _invalid("scale", text, "1, 1/2, 1/3 and so on")
    return scale.denominator


def _invalid(name: str, value: object, wanted: str) -> SnnDeployError:
    return SnnDeployError(
        "SD104", f"{name}: {value!r}" if value is not None else f"no {name}", fix=f"give {wanted}"
    )
