"""Kernels that are compiled once on a machine and then loaded, where there is room to keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


class Kernel:
    """A kernel that Numba keeps on disk; it runs, too, where the disk is full.

    Numba compiles, then saves, then runs. What could not be saved has not run, but is compiled, so
    that a second call runs it. Kernels themselves raise no OSError.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.compiled = njit(cache=True, nogil=True)(function)

    def __call__(self, *arguments: Any) -> None:
        """Run it."""
        try:
            self.compiled(*arguments)
        except OSError:
            self.compiled(*arguments)
