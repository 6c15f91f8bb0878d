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
from snn_deploy.sim import program
from snn_deploy.sim.batch import Written, written
from snn_deploy.sim.depthwise import depthwise
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.gather import COPIED
from snn_deploy.sim.lanes import RULES
from snn_deploy.sim.neurons import lane_drive, lane_parameters, lanes_of, rules_in_32_bits
from snn_deploy.sim.packing import pack
from snn_deploy.sim.panels import panels
from snn_deploy.synapses import Conv2d, Dense, SumPool
from tests.helpers.graphs import LOIHI2
from tests.helpers.nets import one_layer, spike_input

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


def run(*, at_end: bool, short: bool) -> None:
    """The compiled pass with all that it touches between guard pages.

    ``short``: lists without room to spare.
    """

    def room(shape: tuple[int, ...], dtype: Any) -> Array:
        spare = COPIED if short and dtype == np.uint32 else 0
        array = np.zeros(shape, dtype)
        return guarded(array[: len(array) - spare], at_end=at_end) if array.size else array

    def guard(array: Array) -> Array:
        return guarded(array, at_end=at_end) if array.size else array

    program.room = room  # type: ignore[attr-defined]
    for graph, looped in ((g, looped) for g in graphs() for looped in (False, True)):
        table: Any = EventEngine(graph).synapses["in->p"]
        if looped and table.source != table.targets:
            continue
        for rate in (1.0, 0.5, 0.0):
            spikes = np.random.default_rng(0).random((2, 3, *graph.inputs[0].shape)) < rate
            population = graph.populations[0]
            (pixels, channels), lanes = table.targets, lanes_of(table.targets[1])
            told = EventEngine(graph).neurons["p"]
            rules = rules_in_32_bits(LOIHI2, told, largest_sum=1 << 30, largest_drive=0, steps=3)
            assert rules is not None
            leaves = written(population, 2, 3, trace=looped, numeric=looped)
            host = np.zeros((1, 1, pixels if looped else 1, 1), np.int64)
            words = guard(pack(spikes.astype(np.uint8)))
            leaves = Written(**{f.name: guard(getattr(leaves, f.name)) for f in fields(leaves)})
            events = guard(np.zeros(2, np.int64))
            arrivals = [(words, 0, False)] + ([(leaves.words, 1, True)] if looped else [])
            stage = program.Stage(
                arrivals=tuple(
                    program.Arrival(
                        table=all_guarded(table, at_end=at_end), words=sent, delay=delay,
                        events=events, inner=inner,
                    )
                    for sent, delay, inner in arrivals
                ),
                channels=channels,
                pixels=pixels,
                clears=guard(np.array([True, False, True])),
                windows=guard(np.zeros(3, np.int64)),
                rules=guard(rules),
                parameters=guard(lane_parameters(told)),
                drive=guard(lane_drive(told, host, 6)),
                constant=guard(np.zeros((2, 1, pixels * lanes), np.int32)) if looped else None,
                states=guard(np.zeros((2, 2, pixels * lanes), np.int32)) if looped else None,
                written=leaves,
            )  # fmt: skip
            made = program.Program(2, 0, 3)
            made.add((stage,), looped=looped)
            made.run()
            assert looped or events.all() == (rate > 0)


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
def test_arrays_of_other_populations_are_refused(groups: int) -> None:
    """Source (3, 4, 5) without padding, 3x3: targets (3, 2, 3)."""
    weight = np.ones((3, 3 // groups, 3, 3), int)
    graph = one_layer(Conv2d(weight, groups=groups), spike_input(3, 4, 5))
    table: Any = EventEngine(graph).synapses["in->p"]
    leaves = written(graph.populations[0], 2, 4, trace=True, numeric=True)
    lanes = 64

    def program_of(**changed: Any) -> None:
        arrival = {
            "table": table, "words": np.zeros((2, 4, 20, 1), np.uint64), "delay": 1,
            "events": np.zeros(2, np.int64), "inner": False,
        }  # fmt: skip
        given: dict[str, Any] = {
            "channels": 3, "pixels": 6, "clears": np.ones(4, bool),
            "windows": np.zeros(4, np.int64), "rules": np.zeros(len(RULES), np.int32),
            "parameters": np.zeros((3, lanes), np.int32),
            "drive": np.zeros((1, 1, 6 * lanes), np.int32),
            "constant": np.zeros((2, 1, 6 * lanes), np.int32),
            "states": np.zeros((2, 2, 6 * lanes), np.int32), "written": leaves,
        }  # fmt: skip
        arrival |= {name: value for name, value in changed.items() if name in arrival}
        given |= {name: value for name, value in changed.items() if name not in arrival}
        stage = program.Stage(arrivals=(program.Arrival(**arrival),), **given)
        program.Program(2, 0, 4).add((stage,), looped=False)

    program_of()
    for name, value in (
        ("words", np.zeros((2, 4, 19, 1), np.uint64)),
        ("words", np.zeros((2, 4, 20, 2), np.uint64)),
        ("words", np.zeros((1, 4, 20, 1), np.uint64)),
        ("words", np.zeros((2, 3, 20, 1), np.uint64)),
        ("words", np.zeros((2, 4, 20, 1), np.uint64)[:, :, ::-1]),
        ("events", np.zeros(1, np.int64)),
        ("delay", -1),
        ("pixels", 7),
        ("channels", 2),
        ("clears", np.ones(3, bool)),
        ("windows", np.zeros(3, np.int64)),
        ("windows", np.full(4, 1)),  # constant input of one window only
        ("windows", np.full(4, -1)),
        ("rules", np.zeros(len(RULES) - 1, np.int32)),
        ("parameters", np.zeros((3, 2 * lanes), np.int32)),
        ("parameters", np.zeros((2, lanes), np.int32)),
        ("drive", np.zeros((3, 1, lanes), np.int32)),
        ("drive", np.zeros((1, 1, 2 * lanes), np.int32)),
        ("constant", np.zeros((1, 1, 6 * lanes), np.int32)),
        ("states", np.zeros((1, 2, 6 * lanes), np.int32)),
        *(
            ("written", replace(leaves, **{f.name: getattr(leaves, f.name)[:1]}))
            for f in fields(leaves)
        ),
    ):
        with pytest.raises(ValueError, match=r"array|synapses|bias|windows"):
            program_of(**{name: value})


if __name__ == "__main__":
    run(at_end=sys.argv[1] != "begin", short=sys.argv[1] == "short")
