"""No graph and no recording makes the event engine touch memory that is not its own.

Child processes run it while numpy puts every array next to a protected page
(:mod:`tests.helpers.fence`), and end with a signal where such a page is touched.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import signal
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from snn_deploy.exporters.nir.metadata import from_data, to_data

from snn_deploy.checks import check_integer
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.packet_files import StoredRecording, open_recording
from snn_deploy.packet_layout import pack_bits
from snn_deploy.packets import Recording, npz_bytes, read_recording
from snn_deploy.sim import Trace, program, simulator, vectors
from snn_deploy.sim.vectors import LANES
from tests.helpers.changes import changed_array, changed_bytes, changed_tree
from tests.helpers.fence import Fence
from tests.helpers.graphs import Case, integer_cases
from tests.helpers.layers import SIZES, examples, net_cases
from tests.property.test_engines import assert_same
from tests.sim.test_exactness import kernels

ROOT = Path(__file__).parents[2]
# What reading a description may end with; the reader of files makes one message of them.
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="protects pages with mprotect")


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This module in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sim.test_fuzz", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )


def counted(*arguments: str) -> Counter[str]:
    """What a child counted that has to live."""
    done = child(*arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def fenced(fence: Fence, case: Case, **more: Any) -> Trace:
    """A run of one thread, as numpy's handler is that of a thread."""
    with fence:
        trace = case.run("event", threads=1, **more)
    assert any(fence.holds(updates) for updates in trace.record.updates.values())
    return trace


def tighten() -> None:
    """Make room for kernels without the slack that brings it to the start of a cache line."""
    wide = vectors.room
    modules = [m for n, m in sys.modules.items() if n.startswith("snn_deploy.sim.")]
    users = [module for module in modules if vars(module).get("room") is wide]
    assert len(users) > 1  # and the module that it is from
    for module in users:
        module.room = np.empty  # type: ignore[attr-defined]


def all_firing(case: Case) -> Case:
    """The case with every input spiking at every timestep, which makes the longest lists."""
    assert isinstance(case.recording, Recording)
    spikes = {name: np.ones_like(array) for name, array in case.recording.spikes.items()}
    return replace(case, recording=replace(case.recording, spikes=spikes))


layers = net_cases(replace(SIZES, populations=1)).map(all_firing)
cheaply = settings(max_examples=examples(80), derandomize=True, database=None, deadline=None)
fences = st.builds(Fence, at_end=st.sampled_from((True, True, False)))


@contextmanager
def memory(*, scant: bool) -> Iterator[None]:
    """Where it is scant, pieces are short, and lists as long as there is room for."""
    with pytest.MonkeyPatch.context() as patch:
        if scant:
            patch.setattr(simulator, "_BATCH_BYTES", 5000)
            patch.setattr(program, "_LISTED_BYTES", 0)
            patch.setattr(program, "_FEW_ROWS", 0)
        yield


def graphs(spare: str = "") -> Counter[str]:
    """Run all sorts of graphs, with vector kernels mostly; or with lists that have none to spare.

    Kernels list and copy more inputs at a time than there may be.
    """
    seen: Counter[str] = Counter()
    if spare == "none":
        program.LISTED = program.COPIED = 0

    @cheaply
    @given(
        case=st.one_of(net_cases(), *(layers, layers), integer_cases()),
        fence=fences,
        batch=st.sampled_from((None, 1, 2)),
        plain=st.sampled_from(("", "", "", "1")),
        little=st.sampled_from((True, False)),
    )
    def stay_within(case: Case, fence: Fence, batch: int | None, plain: str, little: bool) -> None:
        with kernels(plain), memory(scant=little):
            fenced(fence, case, batch=batch, trace=False)
            assert_same(case.run("reference"), fenced(fence, case, batch=batch))
        seen["plain" if plain else "vectors"] += 1
        seen["at the end" if fence.at_end else "at the beginning"] += 1
        seen["scant" if little else "ample"] += 1

    stay_within()
    return seen


def test_the_engine_stays_within_its_arrays() -> None:
    seen = counted("graphs")
    assert seen["vectors"] + seen["plain"] >= 80
    assert min(seen.values()) >= 8
    assert len(seen) == 6


def test_without_spare_it_does_not() -> None:
    assert child("graphs", "none").returncode == -signal.SIGSEGV


@njit  # type: ignore[misc]
def touch(array: Any, place: Any) -> None:
    array[place] += 1


def beyond(place: str) -> Counter[str]:
    """Touch the last (or first) of the sums that vectors may touch, then the one beyond it."""
    with Fence(at_end=place == "end"):
        room = np.zeros(300 + LANES, np.int32)
    sums, last, step = room[:300], *((len(room) - 1, 1) if place == "end" else (0, -1))
    touch(sums, np.uint64(last))
    print("alive", flush=True)
    # an index without sign is not taken from the end where it is below 0
    touch(sums, np.array([last + step]).astype(np.uint64)[0])
    return Counter()


@pytest.mark.parametrize("place", ["begin", "end"])
def test_one_element_beyond_is_fatal(place: str) -> None:
    done = child("beyond", place)
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGSEGV


# --- what somebody changed ------------------------------------------------------------------------


def outcome(fence: Fence, make: Callable[[], Case]) -> str:
    """How it ends: refused with a code, unreadable, or right as the reference says."""
    try:
        case = make()
    except SnnDeployError as error:
        return error.code
    except UNREADABLE:
        return "unreadable"
    try:
        found = fenced(fence, case)
    except SnnDeployError as error:
        return error.code
    assert_same(case.run("reference"), found)
    return "right"


def changed_graph(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph as the reader of NIR files of ours takes it, after one to three changes."""
    text, arrays = to_data(graph)
    tree = json.loads(text)
    for _ in range(rng.integers(1, 4)):
        if rng.integers(2):
            number = rng.integers(len(arrays))
            arrays[number] = changed_array(arrays[number], rng)
        else:
            tree = changed_tree(tree, rng)
    made = from_data(json.dumps(tree), arrays)
    check_integer(made)
    return made


def changed_recording(
    recording: Recording, rng: np.random.Generator, file: Path
) -> Recording | StoredRecording:
    """The recording as it is read, with an array changed, or bytes of an array or of the file."""
    arrays = recording.arrays()
    packed = [name for name in arrays if name.endswith("spikes") and rng.integers(2)]
    for name in packed:
        spikes = arrays.pop(name)
        bits = pack_bits(spikes, spikes.ndim - 2).items()
        arrays |= {f"{name}.{part}": array for part, array in bits}
    name = list(arrays)[rng.integers(len(arrays))]
    how = rng.integers(4)
    if how < 2:
        arrays[name] = changed_array(arrays[name], rng)
    content = npz_bytes(arrays)
    if how == 2:
        content = changed_bytes(content, rng)
    if how == 3:  # with checksums that are right
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for other, array in arrays.items():
                one = io.BytesIO()
                np.save(one, array)
                held = changed_bytes(one.getvalue(), rng) if other == name else one.getvalue()
                archive.writestr(f"{other}.npy", held)
        content = whole.getvalue()
    file.write_bytes(content)
    return open_recording(file) if rng.integers(2) else read_recording(file)


def changes(what: str) -> Counter[str]:
    """Run graphs, or recordings, after many changes to each of a few."""
    seen: Counter[str] = Counter()

    def changed(case: Case, rng: np.random.Generator) -> Case:
        if what == "graph":
            return Case(changed_graph(case.graph, rng), case.recording, case.steps)
        return Case(case.graph, changed_recording(case.recording, rng, file), case.steps)

    @settings(cheaply, max_examples=examples(80) // 5)
    @given(case=st.one_of(net_cases(), integer_cases()), fence=fences, seed=st.integers(0, 1 << 32))
    def survive(case: Case, fence: Fence, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            seen[outcome(fence, lambda: changed(case, rng))] += 1

    with TemporaryDirectory() as folder:
        file = Path(folder, "recording.npz")
        survive()
    return seen


@pytest.mark.parametrize("what", ["graph", "recording"])
def test_what_was_changed_is_refused_or_right(what: str) -> None:
    seen = counted("changes", what)
    tried = sum(seen.values())
    assert tried >= 300
    assert seen["right"] > tried // 10
    assert sum(number for how, number in seen.items() if how.startswith("SD")) > tried // 10


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("error")
    tighten()
    ways: dict[str, Any] = {"graphs": graphs, "beyond": beyond, "changes": changes}
    found = ways[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(found), flush=True)
    os._exit(0)
