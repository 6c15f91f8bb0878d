"""Reading plain data with defaults, and saying where a wrong entry stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from snn_deploy.errors import SnnDeployError

# More than this is no network but a broken file, or an attack on memory.
MAX_EXTENT = 1 << 20

REQUIRED = object()


class Reader:
    """Reads options with defaults, and says where a wrong one stands."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, path: str, message: str, fix: str | None = None) -> SnnDeployError:
        """The error for what stands at ``path``."""
        return SnnDeployError("SD104", f"{path}: {message}", where=self.where, fix=fix)

    def table(self, data: Any, path: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The known keys of a table, after defaults; ``REQUIRED`` ones must be there."""
        if not isinstance(data, Mapping):
            raise self.fail(path, "a table is needed")
        for key in data:
            if key not in defaults:
                known = ", ".join(sorted(defaults)) or "none"
                raise self.fail(path, f"unknown key {key!r}", f"known keys: {known}")
        for key, default in defaults.items():
            if default is REQUIRED and key not in data:
                raise self.fail(path, f"`{key}` is missing")
        return {key: data.get(key, default) for key, default in defaults.items()}

    def integer(self, value: Any, path: str, least: int, most: int = MAX_EXTENT) -> int:
        """An integer from ``least`` to ``most``."""
        if type(value) is not int or not least <= value <= most:
            raise self.fail(path, f"{value!r} must be an integer from {least} to {most}")
        return value

    def within(self, value: Any, path: str, least: float, most: float) -> float:
        """A number from ``least`` to ``most``."""
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.fail(path, f"{str(value)[:40]!r} must lie in [{least:g}, {most:g}]")
        return float(value)

    def number(self, value: Any, path: str) -> float:
        """A finite number."""
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fail(path, f"{str(value)[:40]!r} must be a finite number")
        return number

    def boolean(self, value: Any, path: str) -> bool:
        """True or false."""
        if type(value) is not bool:
            raise self.fail(path, f"{value!r} must be true or false")
        return value

    def choice(self, value: Any, path: str, choices: tuple[str, ...]) -> str:
        """One of these names."""
        if not isinstance(value, str) or value not in choices:
            raise self.fail(path, f"unknown name {value!r}", f"choose one of: {', '.join(choices)}")
        return value

    def sequence(self, value: Any, path: str) -> list[Any]:
        """A list that is not empty."""
        if not isinstance(value, list | tuple) or not value:
            raise self.fail(path, "a list is needed")
        return list(value)
