"""The options of a data set: what a recipe's ``[data]`` may say, checked before files are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snn_deploy.errors import SnnDeployError

MAX_COUNT = 1 << 30
MAX_EXTENT = 1 << 16
MAX_MILLISECONDS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """The ``[data]`` of a recipe, except its augmentation.

    Attributes
    ----------
    name : one of :data:`snn_deploy.nn.datasets.READERS`.
    path : folder or file, relative to the current folder; None: ``$SNN_DEPLOY_DATA/NAME``.
    validation : samples held out of the training split; see
        :func:`snn_deploy.nn.datasets.hold_out`.
    train, test : only the first so many samples of a split; None: all.
    window : milliseconds per timestep, to the microsecond; later events are left out.
    duration : milliseconds that are divided into all timesteps, instead of ``window``. With
        neither, every sample's own duration is, unless the data set knows one.
    scale : integer that x and y are divided by, rounded down.
    size : height and width (or the one number of inputs) that x and y are mapped to instead, by
        floor(x · size / sensor).
    polarity : "both" keeps ON and OFF events apart, "merge" does not.
    random_start : training samples start at a random time; test and validation samples at 0.
    sensor : size of the sensor, [W], [H, W] or [polarities, H, W], where the file does not say it.
    """

    name: str
    path: str | None = None
    validation: int = 200
    train: int | None = None
    test: int | None = None
    window: float | None = None
    duration: float | None = None
    scale: int | None = None
    size: tuple[int, ...] | None = None
    polarity: str | None = None
    random_start: bool = False
    sensor: tuple[int, ...] | None = None

    def to_data(self) -> dict[str, Any]:
        """Every option by name, in plain types."""
        data = {name: getattr(self, name) for name in self.__slots__}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


def check_options(
    table: Any, known: dict[str, frozenset[str]], where: str, common: frozenset[str]
) -> DataOptions:
    """The options in a ``[data]`` table.

    Parameters
    ----------
    table : the table; a key ``augment`` in it is somebody else's.
    known : data set -> options that it has beyond the common ones.
    where : the recipe, for messages.
    common : options that every data set has.

    Raises
    ------
    SnnDeployError
        SD104; the message begins with the key.
    """
    if not isinstance(table, dict):
        raise _wrong("[data]: a table is needed", where, f"[data] name = {next(iter(known))!r}")
    name = table.get("name")
    if not isinstance(name, str) or name not in known:
        raise _wrong(
            f"[data] name: unknown data set {name!r}", where, f"choose one of: {', '.join(known)}"
        )
    allowed = common | known[name]
    checked: dict[str, Any] = {}
    for key, value in table.items():
        if key == "augment":
            continue
        if key == "shift":
            raise _wrong(
                "[data] shift: is an augmentation",
                where,
                'augment = [{ type = "shift", pixels = 1 }]',
            )
        if key not in _CHECKS:
            raise _wrong(
                f"[data] {key}: unknown key", where, f"known keys: {', '.join(sorted(allowed))}"
            )
        if key not in allowed:
            raise _wrong(
                f"[data] {key}: the data set {name} does not have this option",
                where,
                f"its options: {', '.join(sorted(allowed))}",
            )
        check, wanted = _CHECKS[key]
        if not check(value):
            raise _wrong(f"[data] {key}: {value!r} must be {wanted}", where, f"write {wanted}")
        checked[key] = value
    for key in ("size", "sensor"):
        if key in checked:
            value = checked[key]
            checked[key] = tuple(value) if isinstance(value, list) else (value,)
    for key in ("window", "duration"):
        if key in checked:
            checked[key] = float(checked[key])
    _check_together(checked, where)
    return DataOptions(**checked)


def _check_together(checked: dict[str, Any], where: str) -> None:
    for one, other in (("window", "duration"), ("scale", "size")):
        if one in checked and other in checked:
            raise _wrong(f"[data] {other}: {one} is set, too", where, "keep one of them")
    timed = "window" in checked or "duration" in checked
    if checked.get("random_start") and not timed:
        raise _wrong(
            "[data] random_start: without a window all of a sample is used", where, "set window"
        )


def _count(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _milliseconds(value: Any) -> bool:
    if type(value) not in (int, float) or not math.isfinite(value):
        return False
    microseconds = value * 1000
    whole = abs(microseconds - round(microseconds)) <= 1e-6 * max(1.0, microseconds)
    return bool(0.001 <= value <= MAX_MILLISECONDS and whole)


def _extents(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= most
        and all(_count(extent, 1, MAX_EXTENT) for extent in value)
    )


_TIME = "milliseconds above 0, whole to the microsecond"
_COUNT = "a whole number of at least 1"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: isinstance(v, str), "a name"),
    "path": (lambda v: isinstance(v, str) and bool(v) and "\0" not in v, "a path"),
    "validation": (lambda v: _count(v, 1, MAX_COUNT), _COUNT),
    "train": (lambda v: _count(v, 1, MAX_COUNT), _COUNT),
    "test": (lambda v: _count(v, 1, MAX_COUNT), _COUNT),
    "window": (_milliseconds, _TIME),
    "duration": (_milliseconds, _TIME),
    "scale": (lambda v: _count(v, 1, MAX_EXTENT), _COUNT),
    "size": (
        lambda v: _extents(v, 2) or _count(v, 1, MAX_EXTENT),
        "[height, width], or one number",
    ),
    "polarity": (lambda v: v in ("both", "merge"), '"both" or "merge"'),
    "random_start": (lambda v: type(v) is bool, "true or false"),
    "sensor": (lambda v: _extents(v, 3), "[W], [H, W] or [polarities, H, W]"),
}


def _wrong(message: str, where: str, fix: str) -> SnnDeployError:
    return SnnDeployError("SD104", message, where=where, fix=fix)
