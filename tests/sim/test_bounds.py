"""The vector kernels read and write memory unchecked: every buffer is put next to a guard page.

A child process does it, which the kernel of the operating system ends where a page is touched.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snn_deploy.graph import Graph
from snn_deploy.sim.depthwise import depthwise
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.lanes import update_lanes
from snn_deploy.sim.neurons import lane_drive, lane_parameters, lanes_of, rules_in_32_bits
from snn_deploy.sim.packing import pack
from snn_deploy.sim.panels import Panels, panels
from snn_deploy.sim.vectors import LANES
from snn_deploy.synapses import Conv2d, Dense, SumPool, as_map
from tests.helpers.graphs import LOIHI2
from tests.helpers.nets import lif, one_layer, spike_input

Array = NDArray[Any]

ROOT = Path(__file__).parents[2]
PAGE = mmap.PAGESIZE
kept: list[mmap.mmap] = []  # what is freed may be mapped again, unguarded


def guarded(array: Array, *, at_end: bool) -> Array:
    """A copy that ends where a page begins that cannot be touched, or begins where one ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    pages = max(1, -(-array.nbytes // PAGE))
    room = mmap.mmap(-1, (pages + 2) * PAGE)
    kept.append(room)
    start = np.frombuffer(room, np.uint8).ctypes.data
    for page in (0, pages + 1):
        if libc.mprotect(start + page * PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (pages * PAGE - array.nbytes if at_end else 0)
    copy: Array = np.frombuffer(room, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def all_guarded(held: Any, *, at_end: bool) -> Any:
    """A dataclass with every array guarded."""
    arrays = {f.name: getattr(held, f.name) for f in fields(held)}
    return replace(
        held,
        **{n: guarded(a, at_end=at_end) for n, a in arrays.items() if isinstance(a, np.ndarray)},
    )


def graphs() -> list[Graph]:
    """Every shape of panel, of lists and of tables, with a rate of one the longest lists."""
    rng = np.random.default_rng(0)
    found = []
    for channels, targets in ((1, 1), (3, 65), (64, 64), (65, 128), (129, 63), (7, 256)):
        spec = spike_input(channels, 4, 5)
        weight = rng.integers(-128, 128, (targets, channels, 3, 3))
        found.append(one_layer(Conv2d(weight, padding=(1, 1)), spec))
        found.append(one_layer(Conv2d(weight * 200, (2, 2)), spec))  # int16
        found.append(one_layer(Conv2d(weight), spec, pool=SumPool((2, 2), (1, 1))))
        found.append(one_layer(Dense(weight.reshape(targets, -1)), spike_input(9 * channels)))
        own = rng.integers(-128, 128, (channels, 1, 3, 3))
        if channels > 1:
            found.append(one_layer(Conv2d(own, padding=(1, 1), groups=channels), spec))
    return found


def synapses(*, at_end: bool, short: bool) -> None:
    """All kernels of synapses between guard pages; ``short``: lists without room to spare."""
    for graph in graphs():
        table = EventEngine(graph).synapses["in->p"]
        spikes = np.ones((2, 3, *graph.inputs[0].shape), np.uint8)
        channels, height, width = as_map(graph.populations[0].shape)
        size = 6 * channels * height * width
        exact = isinstance(table, Panels)
        room = guarded(np.zeros(size + (0 if exact else LANES), np.int32), at_end=at_end)
        current = room[:size].reshape(2, 3, height * width, channels)
        events = guarded(np.zeros(2, np.int64), at_end=at_end)
        table = all_guarded(table, at_end=at_end)
        more = []
        if isinstance(table, Panels):
            space = table.room()
            if short:
                inputs = table.source_pixels * table.source_channels
                space = replace(space, active=space.active[:inputs])
            more.append(all_guarded(space, at_end=at_end))
        words = guarded(pack(spikes), at_end=at_end)
        table.add_spikes(words, 0, 3, 0, current, events, *more)
        assert events.all()


def neurons(*, at_end: bool) -> None:
    """The kernel of neurons between guard pages."""
    for channels, pixels in ((1, 3), (64, 1), (65, 4)):
        graph = one_layer(
            Dense(np.ones((channels, 1), int)),
            spike_input(1),
            lif(decay=2048),
            number_format=LOIHI2,
        )
        told = EventEngine(graph).neurons["p"]
        spread = {
            name: np.repeat(getattr(told, name), pixels, axis=0)
            for name in ("bias", "decay", "threshold")
        }
        told = replace(told, **spread)
        rules = rules_in_32_bits(LOIHI2, told, largest_sum=1 << 30, largest_drive=0, steps=2)
        assert rules is not None
        lanes = lanes_of(channels)
        host = np.zeros((1, 1, 1, 1), np.int64)
        room = guarded(np.zeros(2 * pixels * channels + LANES, np.int32), at_end=at_end)
        none = np.zeros((0, 0, 0, channels), np.int64)
        arrays = [
            np.zeros(2, np.int64), np.zeros(2, bool), rules, lane_drive(told, host, 6),
            lane_parameters(told), np.zeros((1, 2, pixels * lanes), np.int32),
            np.zeros(pixels * lanes, np.int32), np.zeros((1, 2, pixels, lanes // LANES), np.uint64),
            np.zeros((0, 0, 0, 0), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64),
        ]  # fmt: skip
        windows, resets, *others = (guarded(a, at_end=at_end) if a.size else a for a in arrays)
        current = room[:-LANES].reshape(1, 2, pixels, channels)
        update_lanes(current, windows, resets, 0, 2, *others, none, none)


@pytest.mark.skipif(sys.platform != "linux", reason="guards pages with mprotect")
@pytest.mark.parametrize(("place", "code"), [("begin", 0), ("end", 0), ("short", -signal.SIGSEGV)])
def test_nothing_is_touched_beyond_the_buffers(place: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.test_bounds", place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]


def test_tables_that_lead_out_are_refused() -> None:
    starts, weights = np.array([0, 2]), np.ones((2, 3, 4), np.int64)

    def entries(*values: int) -> NDArray[np.int32]:
        return np.array(values, np.int32)

    assert panels(starts, entries(0, 1), entries(0, 1), weights, 2) is not None
    assert depthwise(starts, entries(0, 1), entries(0, 1), weights[:, :, 0], 2) is not None
    for pixels, taps in (
        (entries(0, 2), entries(0, 1)),
        (entries(-1, 0), entries(0, 1)),
        (entries(0, 1), entries(0, 2)),
        (entries(0, 1), entries(-1, 0)),
    ):
        with pytest.raises(ValueError, match="leads out"):
            panels(starts, pixels, taps, weights, 2)
        with pytest.raises(ValueError, match="leads out"):
            depthwise(starts, pixels, taps, weights[:, :, 0], 2)


def test_runs_end_with_their_target() -> None:
    """Neighbouring pixels that go to neighbouring rows, but of two targets; then of one."""
    pixels = taps = np.array([0, 1], np.int32)
    weights = np.ones((2, 3, 4), np.int64)
    apart = panels(np.array([0, 1, 2]), pixels, taps, weights, 2)
    together = panels(np.array([0, 2]), pixels, taps, weights, 2)
    assert apart is not None
    assert together is not None
    assert (apart.starts.tolist(), apart.runs.tolist()) == ([0, 1, 2], [[0, 1, 0], [1, 2, 0]])
    assert (together.starts.tolist(), together.runs.tolist()) == ([0, 1], [[0, 2, 0]])


@pytest.mark.parametrize("groups", [1, 3])
def test_arrays_of_other_synapses_are_refused(groups: int) -> None:
    """Source (3, 4, 5) without padding, 3x3: targets (3, 2, 3)."""
    weight = np.ones((3, 3 // groups, 3, 3), int)
    graph = one_layer(Conv2d(weight, groups=groups), spike_input(3, 4, 5))
    table: Any = EventEngine(graph).synapses["in->p"]
    more = (table.room(),) if isinstance(table, Panels) else ()
    words = np.zeros((2, 4, 20, 1), np.uint64)
    current = np.zeros((2, 4, 6, 3), np.int64)
    events = np.zeros(2, np.int64)
    table.add_spikes(words, 0, 4, 1, current, events, *more)
    for changed in (
        {"words": words[:, :, :19].copy()},
        {"words": np.zeros((2, 4, 20, 2), np.uint64)},
        {"words": words[:1]},
        {"words": words[:, :3].copy()},
        {"words": words[:, :, ::-1]},
        {"current": current[..., :2].copy()},
        {"current": np.zeros((2, 4, 7, 3), np.int64)},
        {"delay": -1},
        {"first": -1, "last": 3},
    ):
        given: dict[str, Any] = {"words": words, "first": 0, "last": 4, "delay": 0}
        given |= {"current": current} | changed
        with pytest.raises(ValueError, match="not of synapses"):
            table.add_spikes(*given.values(), events, *more)


if __name__ == "__main__":
    synapses(at_end=sys.argv[1] != "begin", short=sys.argv[1] == "short")
    neurons(at_end=sys.argv[1] != "begin")
