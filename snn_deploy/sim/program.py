"""What the compiled pass of ``sweep`` is told of a network, and how its work is cut."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.sim.batch import Written
from snn_deploy.sim.depthwise import Depthwise
from snn_deploy.sim.gather import COPIED, LISTED, ROWS_AT_ONCE
from snn_deploy.sim.lanes import RULES, pixels_at_once
from snn_deploy.sim.panels import Panels
from snn_deploy.sim.sweep import ARRIVAL, DEPTHWISE, GROUP, INT16, POPULATION, UINT8, sweep
from snn_deploy.sim.vectors import LANES, address, room

Array = NDArray[Any]

# Weights up to this size stay in the cache while all samples pass: tiles are small, and their sums
# stay in the fastest cache. Of larger ones, many sums are made of each part that is brought in.
_CACHED_WEIGHTS = 512 << 10
_TILE_BYTES, _BLOCK_BYTES = 32 << 10, 1 << 20
_FEW_ROWS, _MANY_ROWS = 1 << 11, 1 << 16
_LISTS = 1 << 10
# Neurons times steps from which on threads may share a group.
_WORTH = 1 << 16
# Active inputs of a block of samples and steps.
_LISTED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arrival:
    """What reaches a population through one projection.

    ``words`` [samples, steps, pixels, words], ``delay`` timesteps late; ``events`` int64 [samples]
    is added to. ``inner``: from a population of the same group.
    """

    table: Panels | Depthwise
    words: NDArray[np.uint64]
    delay: int
    events: NDArray[np.int64]
    inner: bool

    @property
    def inputs(self) -> int:
        """Number of source neurons that are listed."""
        return 0 if isinstance(self.table, Depthwise) else math.prod(self.table.source)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stage:
    """A population in one batch.

    ``clears``: whether all neurons are cleared before a step, bool [steps]; ``windows`` int64
    [steps]; ``rules``, ``parameters`` and ``drive`` as ``lanes.update_tile`` reads them;
    ``constant``: sums of constant input, int32 [samples, windows, pixels * lanes], or None;
    ``states`` kept between runs, int32 [samples, 2, pixels * lanes], or None.
    """

    arrivals: tuple[Arrival, ...]
    channels: int
    pixels: int
    clears: NDArray[np.bool_]
    windows: NDArray[np.int64]
    rules: NDArray[np.int32]
    parameters: NDArray[np.int32]
    drive: NDArray[np.int32]
    constant: NDArray[np.int32] | None
    states: NDArray[np.int32] | None
    written: Written

    @property
    def width(self) -> int:
        """Channels in whole words."""
        return -(-self.channels // LANES) * LANES


@dataclass(frozen=True, slots=True)
class _Cut:
    """Samples and steps of a group's blocks, pixels of each population's tiles."""

    samples: int
    steps: int
    tiles: tuple[int, ...]
    heavy: bool


def _cut(stages: tuple[Stage, ...], samples: int, steps: int, *, looped: bool) -> _Cut:
    """Cut a group's work so that what is needed next is near."""
    weights = sum(a.table.weights.nbytes for stage in stages for a in stage.arrivals)
    heavy = weights > _CACHED_WEIGHTS
    budget = (_BLOCK_BYTES if heavy else _TILE_BYTES) // 4
    listed = max(1, *(sum(a.inputs for a in stage.arrivals) for stage in stages))
    most = max(1, _LISTED_BYTES // (4 * listed))  # samples times steps
    widest = max(stage.width for stage in stages)
    together = 1
    whole = sum(stage.width * stage.pixels for stage in stages)
    block = max(1, min(steps, most, budget // (whole if heavy or looped else widest)))
    if heavy:
        together = max(1, min(samples, most // block, budget // (whole * block)))
    if looped:
        return _Cut(together, block, tuple(stage.pixels for stage in stages), heavy)
    tiles = tuple(max(1, min(s.pixels, budget // (s.width * block * together))) for s in stages)
    return _Cut(together, block, tiles, heavy)


class Workspace:
    """Working memory of one thread, and of those it starts, used by one run after another."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._others: list[Workspace] = []

    def among(self, threads: int) -> list[Workspace]:
        """One for each of so many threads, this one among them."""
        while len(self._others) < threads - 1:
            self._others.append(Workspace())
        return [self, *self._others[: threads - 1]]

    def of(self, name: str, size: int, dtype: Any) -> Array:
        """At least so many elements, uncleared."""
        held = self._arrays.get(name)
        if held is None or len(held) < size:
            held = self._arrays[name] = room((size,), dtype)
        return held


class Program:
    """Groups of populations, to be run one after another in one call.

    Raises
    ------
    ValueError
        If an array is not of the extents that the compiled pass will take it to have.
    """

    def __init__(self, samples: int, first: int, last: int) -> None:
        self.samples, self.first, self.last = samples, first, last
        self._groups: list[tuple[int, ...]] = []
        self._populations: list[tuple[int, ...]] = []
        self._arrivals: list[tuple[int, ...]] = []
        self._active = self._begins = self._silent = self._rows = self._sums = 0
        self._counts: list[tuple[NDArray[np.int32], Stage]] = []
        self._events: list[NDArray[np.int64]] = []
        self._shared: list[bool] = []  # whether a group's tiles are worth several threads
        self._kept: list[Any] = []  # arrays whose addresses are known to the tables only

    def add(self, stages: tuple[Stage, ...], *, looped: bool) -> None:
        """Add a group."""
        steps = self.last - self.first
        cut = _cut(stages, self.samples, steps, looped=looped)
        if len(stages) > 1 and not looped:
            raise ValueError("populations that are not in a loop are groups of their own")
        begin, sums = len(self._populations), 0
        for stage, tile in zip(stages, cut.tiles, strict=True):
            at_once = cut.steps >= steps and not looped
            self._add_population(stage, tile, cut, sums, at_once=at_once)
            sums += cut.samples * tile * cut.steps * stage.width
        self._sums = max(self._sums, sums)
        self._groups.append((begin, len(self._populations), cut.samples, cut.steps, looped))
        work = stages[0].pixels * stages[0].width * steps * self.samples
        self._shared.append(not looped and stages[0].pixels > 1 and work >= _WORTH)

    def _add_population(
        self, stage: Stage, tile: int, cut: _Cut, sums: int, *, at_once: bool
    ) -> None:
        lanes, samples, steps = stage.pixels * stage.width, self.samples, self.last
        states, written = stage.states, stage.written
        if states is not None:
            _check(states, (samples, 2, lanes))
        else:
            block = pixels_at_once(stage.width // LANES) * stage.width
            kept = (1, 2, min(block, lanes)) if at_once else (cut.samples, 2, lanes)
            states = room(kept, np.int32)
        counts = room((lanes,), np.int32)
        counts[:] = 0
        self._counts.append((counts, stage))
        begin = len(self._arrivals)
        active = begins = silent = 0
        block = cut.samples * cut.steps
        inner = begin + len(stage.arrivals)
        for arrival in sorted(stage.arrivals, key=lambda a: a.inner):
            if arrival.inner:
                inner = min(inner, len(self._arrivals))
            self._events.append(arrival.events)
            told = (active, begins, silent)
            self._arrivals.append(self._told(arrival, stage, cut.heavy) + told)
            if isinstance(arrival.table, Panels):
                active += block * (arrival.inputs // 2)  # or the silent ones, if they are fewer
                begins += block * (arrival.table.source_pixels + 1)
                silent += block
        self._active, self._begins = max(self._active, active), max(self._begins, begins)
        self._silent = max(self._silent, silent)
        spiking = (samples, steps, stage.pixels)
        extents: tuple[tuple[Array, tuple[int, ...], bool], ...] = (
            (stage.windows, (steps,), False),
            (stage.clears, (steps,), False),
            (stage.rules, (len(RULES),), False),
            (written.spikes, (stage.pixels, stage.channels), False),
            (written.words, (*spiking, stage.width // LANES), False),
            (written.sent, (*spiking, stage.channels), True),
            (written.sample_spikes, (samples,), False),
            (written.updates, (samples,), False),
            (written.membrane_trace, (*spiking, stage.channels), True),
            (written.current_trace, (*spiking, stage.channels), True),
        )
        for array, shape, may_lack in extents:
            _check(array, shape, may_lack=may_lack)
        constants = 0
        if stage.constant is not None:
            constants = stage.constant.shape[1]
            _check(stage.constant, (samples, constants, lanes))
            if stage.windows.max(initial=0) >= constants:
                raise ValueError(f"constant input for {constants} windows only")
        if stage.windows.min(initial=0) < 0:
            raise ValueError("windows count from zero")
        number, _, driven = stage.drive.shape
        parameters, told = stage.parameters.shape
        if {driven, told} - {stage.width, lanes} or parameters != 3 or number not in (1, samples):
            raise ValueError(f"bias of {stage.drive.shape}, parameters of {stage.parameters.shape}")
        self._kept += [states, counts, stage]
        self._populations.append(
            (
                begin, inner, len(self._arrivals), sums,
                stage.pixels, stage.channels, stage.width, tile,
                address(stage.windows), address(stage.clears), address(stage.rules),
                address(stage.drive), *stage.drive.shape, address(stage.parameters),
                stage.parameters.shape[1],
                address(states), states.shape[0], states.shape[2], address(counts),
                address(written.words), address(written.sent), address(written.sample_spikes),
                address(written.updates), address(written.membrane_trace),
                address(written.current_trace), address(stage.constant), constants,
            )
        )  # fmt: skip

    def _told(self, arrival: Arrival, stage: Stage, heavy: bool) -> tuple[int, ...]:
        """A row of ``ARRIVAL``, but for where its lists are."""
        table = arrival.table
        if table.targets != (stage.pixels, stage.channels) or arrival.delay < 0:
            raise ValueError(f"synapses to {table.targets}, delay {arrival.delay}")
        pixels, channels = table.source
        _check(arrival.words, (self.samples, self.last, pixels, -(-channels // LANES)))
        _check(arrival.events, (self.samples,))
        shared = (address(arrival.words), arrival.delay, pixels, channels, address(arrival.events))
        capacity = _MANY_ROWS if heavy else _FEW_ROWS
        if isinstance(table, Depthwise):
            return (DEPTHWISE, *shared, capacity, *table.addresses)
        self._rows = max(self._rows, capacity + table.longest + ROWS_AT_ONCE + COPIED)
        kind = UINT8 if table.weights.dtype == np.uint8 else INT16
        return (kind, *shared, capacity, *table.addresses, 0, 0)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self._groups)

    def begin(self) -> None:
        """Forget the spikes of the run before."""
        for counts, _ in self._counts:
            counts[:] = 0

    def run(self, workspace: Workspace | None = None, threads: int = 1) -> None:
        """Run all groups; with a workspace, in memory that earlier runs have used.

        Several threads share the tiles of one group after another.
        """
        groups = np.array(self._groups, GROUP)
        populations = np.array(self._populations, POPULATION)
        arrivals = np.array(self._arrivals, ARRIVAL)
        space = workspace or Workspace()
        if threads == 1 or not any(self._shared):
            self._sweep(groups, populations, arrivals, space, 0, 1)
        else:
            parts = [_Part(self, populations, arrivals, first=k == 0) for k in range(threads)]
            spaces = space.among(threads)
            with ThreadPoolExecutor(threads) as pool:
                for index, shared in enumerate(self._shared):
                    group, number = groups[index : index + 1], threads if shared else 1
                    made = [
                        pool.submit(
                            self._sweep, group, part.populations, part.arrivals, space, k, number
                        )
                        for k, (part, space) in enumerate(zip(parts, spaces, strict=True))
                        if k < number
                    ]
                    for future in made:
                        future.result()
            for part in parts[1:]:
                part.add_up()
        for counts, stage in self._counts:
            spikes = stage.written.spikes
            spikes += counts.reshape(stage.pixels, -1)[:, : stage.channels]

    def _sweep(
        self, groups: Array, populations: Array, arrivals: Array, space: Workspace, part: int,
        parts: int,
    ) -> None:  # fmt: skip
        sweep(
            groups, populations, arrivals, self.samples, self.first, self.last, part, parts,
            space.of("active", self._active + max(LISTED, COPIED), np.uint32),
            space.of("begins", self._begins, np.uint32), space.of("silent", self._silent, np.uint8),
            space.of("rows", self._rows, np.uint32),
            space.of("lists", 4 * _LISTS, np.int64).reshape(-1, 4),
            space.of("sums", self._sums, np.int32),
        )  # fmt: skip


class _Part:
    """A program's tables for one of several threads, which must not add to the same counts.

    Nor use the same states, where a few pixels' serve all in turn.
    """

    def __init__(
        self, program: Program, populations: Array, arrivals: Array, *, first: bool
    ) -> None:
        self.program = program
        self.populations, self.arrivals = populations.copy(), arrivals.copy()
        if first:
            return
        samples = program.samples
        self.spikes, self.updates = np.zeros((2, len(populations), samples), np.int64)
        self.events = np.zeros((len(arrivals), samples), np.int64)
        self.states = []
        for index, told in enumerate(self.populations):
            told["sample_spikes"] = address(self.spikes[index])
            told["updates"] = address(self.updates[index])
            if told["states_samples"] == 1:
                self.states.append(room((2, int(told["states_lanes"])), np.int32))
                told["states"] = address(self.states[-1])
        for index, told in enumerate(self.arrivals):
            told["events"] = address(self.events[index])

    def add_up(self) -> None:
        """Add what this thread has counted to what the first has."""
        for index, (_, stage) in enumerate(self.program._counts):
            for total, mine in (
                (stage.written.sample_spikes, self.spikes), (stage.written.updates, self.updates)
            ):  # fmt: skip
                total += mine[index]
        for index, events in enumerate(self.program._events):
            events += self.events[index]


def _check(array: Array, shape: tuple[int, ...], *, may_lack: bool = False) -> None:
    if array.shape != shape and not (may_lack and not array.size):
        raise ValueError(f"an array of {array.shape}, where {shape} is wanted")
