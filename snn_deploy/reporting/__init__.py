"""Results as plain data, and the words and units in which people read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

_SMALL = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))


def plain(value: Any) -> Any:
    """Dataclasses, arrays and paths as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def joules(picojoules: float | None) -> str:
    """An energy with three significant digits and a unit; ``unset`` where there is none."""
    if picojoules is None:
        return "unset"
    if picojoules == 0:
        return "0 pJ"
    if picojoules >= 999.5e12:
        return f"{picojoules / 1e12:,.0f} J"
    for size, unit in _SMALL:
        if round_to(picojoules / size, 3) >= 1 or unit == "pJ":
            return f"{round_to(picojoules / size, 3):#.3g} {unit}".replace(". ", " ")
    raise AssertionError("unreachable")


def round_to(value: float, digits: int) -> float:
    """A number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def quantity(value: float) -> str:
    """A mean count: thousands separated, one decimal if it is small and not whole."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.1f}"


def percent(fraction: float | None) -> str:
    """A fraction in percent, or a dash."""
    return "-" if fraction is None else f"{100 * fraction:.2f}%"
