"""When kernels are compiled: once on a machine, which takes a while and should be said."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def compilation(begun: Callable[[], None], done: Callable[[float], None]) -> Iterator[None]:
    """Watch for kernels that Numba compiles in the block, rather than loads from its cache.

    Parameters
    ----------
    begun : called when the first of them is about to be compiled.
    done : called at the end of the block, if there were any, with the seconds they took together.
    """
    if "numba" not in sys.modules:  # nothing in this process has kernels, or needs its import
        yield
        return
    from numba.core import event

    class Watch(event.Listener):  # type: ignore[misc, unused-ignore]
        """Times compilations; those inside another count with it."""

        depth, since, seconds, any = 0, 0.0, 0.0, False

        def on_start(self, _: object) -> None:
            if self.depth == 0:
                self.since = time.monotonic()
            self.depth += 1
            if not self.any:
                self.any = True
                begun()

        def on_end(self, _: object) -> None:
            self.depth -= 1
            if self.depth == 0:
                self.seconds += time.monotonic() - self.since

    watch = Watch()
    with event.install_listener("numba:compile", watch):
        yield
    if watch.any:
        done(watch.seconds)
