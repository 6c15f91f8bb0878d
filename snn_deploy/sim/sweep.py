"""All populations of a stretch of a network in one compiled pass.

A feed-forward population takes all timesteps before the next one begins; those in a loop take them
one by one together, but for what reaches the loop from outside. Either way work is cut so that what
one part leaves is near when the next needs it: *blocks* of samples and steps, and in them *tiles*
of pixels, whose sums are added up, used and forgotten while they are in the cache. Counts come from
the same pass.

Arrays are handed over by address, in tables with a row for each group, population and projection
(:mod:`snn_deploy.sim.program`), since there are as many as the network has parts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]
from numba.core import types
from numba.extending import intrinsic

from snn_deploy.sim.cached import Kernel
from snn_deploy.sim.depthwise import depthwise_tile
from snn_deploy.sim.gather import gather_tile, list_active
from snn_deploy.sim.lanes import RULES, update_tile

# What the compiled pass is told; addresses are those of first elements, 0 where there is no array.
GROUP = np.dtype([(name, np.int64) for name in ("begin", "end", "samples", "steps", "loops")])
POPULATION = np.dtype(
    [
        (name, np.int64)
        for name in (
            "arrivals", "arrivals_inner", "arrivals_end", "sums",
            "pixels", "channels", "width", "tile",
            "windows", "clears", "rules", "drive", "drive_samples", "drive_windows", "drive_lanes",
            "parameters", "parameters_lanes",
            "states", "states_samples", "states_lanes", "counts", "words", "sent", "sample_spikes",
            "updates", "membrane_trace", "current_trace",
            "constant", "constant_windows",
        )
    ]
)  # fmt: skip
UINT8, INT16, DEPTHWISE = range(3)
ARRIVAL = np.dtype(
    [
        (name, np.int64)
        for name in (
            "kind", "words", "delay", "source_pixels", "source_channels", "events", "capacity",
            "starts", "runs", "runs_size", "weights", "weights_size", "panel_size", "lanes", "rows",
            "factor", "kinds", "totals", "totals_size", "fan_in",
            "sources", "taps",
            "active", "begins", "silent",
        )
    ]
)  # fmt: skip


def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


pointer: Any = intrinsic(_pointer)


@njit(nogil=True)
def _stretch(
    told: Any, part: int, parts: int, arrivals: Any, all_samples: int, all_steps: int, sample: int,
    samples: int, step: int, steps: int, active: Any, begins: Any, silent: Any, rows: Any,
    lists: Any, sums: Any,
) -> None:  # fmt: skip
    """A part of one population's pixels through one block, tile by tile."""
    for place in range(told.arrivals, told.arrivals_end):
        _list(arrivals[place], all_samples, all_steps, sample, samples, step, steps, active, begins,
              silent)  # fmt: skip
    stop = told.pixels * (part + 1) // parts
    for first in range(told.pixels * part // parts, stop, told.tile):
        pixels = min(told.tile, stop - first)
        _begin(told, all_samples, all_steps, sample, samples, step, steps, first, pixels, sums)
        for place in range(told.arrivals, told.arrivals_end):
            _arrive(arrivals[place], all_samples, all_steps, sample, samples, step, steps, first,
                    pixels, told.pixels, told.channels, told.width, active, begins, silent, rows,
                    lists, sums)  # fmt: skip
        _update(told, all_samples, all_steps, sample, samples, step, steps, first, pixels, sums)


@njit(nogil=True)
def _loop(
    begin: int, end: int, populations: Any, arrivals: Any, all_samples: int, all_steps: int,
    sample: int, samples: int, step: int, steps: int, active: Any, begins: Any, silent: Any,
    rows: Any, lists: Any, sums: Any,
) -> None:  # fmt: skip
    """Populations in a loop through one block: what comes from outside, then step by step."""
    for index in range(begin, end):
        told = populations[index]
        held = sums[told.sums :]
        for place in range(told.arrivals, told.arrivals_inner):
            _list(arrivals[place], all_samples, all_steps, sample, samples, step, steps, active,
                  begins, silent)  # fmt: skip
        _begin(told, all_samples, all_steps, sample, samples, step, steps, 0, told.pixels, held)
        for place in range(told.arrivals, told.arrivals_inner):
            _arrive(arrivals[place], all_samples, all_steps, sample, samples, step, steps, 0,
                    told.pixels, told.pixels, told.channels, told.width, active, begins, silent,
                    rows, lists, held)  # fmt: skip
    for ahead in range(steps):
        for index in range(begin, end):
            told = populations[index]
            held = sums[told.sums + ahead * samples * told.pixels * told.width :]
            for place in range(told.arrivals_inner, told.arrivals_end):
                _list(arrivals[place], all_samples, all_steps, sample, samples, step + ahead, 1,
                      active, begins, silent)  # fmt: skip
                _arrive(arrivals[place], all_samples, all_steps, sample, samples, step + ahead, 1,
                        0, told.pixels, told.pixels, told.channels, told.width, active, begins,
                        silent, rows, lists, held)  # fmt: skip
            _update(told, all_samples, all_steps, sample, samples, step + ahead, 1, 0, told.pixels,
                    held)  # fmt: skip


@njit(nogil=True)
def _update(
    told: Any, all_samples: int, all_steps: int, sample: int, samples: int, step: int, steps: int,
    first: int, pixels: int, sums: Any,
) -> None:  # fmt: skip
    """The neurons of a tile."""
    lanes, number, one = told.pixels * told.width, told.width >> 6, np.int64(1)
    shape = (all_steps, told.pixels, told.channels)
    sent_shape = (all_samples if told.sent else 0, *shape)
    trace_shape = (all_samples if told.membrane_trace else 0, *shape)
    update_tile(
        sums, sample, step, samples, steps, first, pixels, told.pixels, told.channels,
        carray(pointer(told.windows), (all_steps,), np.int64),
        carray(pointer(told.clears), (all_steps,), np.uint8),
        carray(pointer(told.rules), (one * len(RULES),), np.int32),
        carray(pointer(told.drive), (told.drive_samples, told.drive_windows, told.drive_lanes),
               np.int32),
        carray(pointer(told.parameters), (one * 3, told.parameters_lanes), np.int32),
        carray(pointer(told.states), (told.states_samples, one * 2, told.states_lanes), np.int32),
        carray(pointer(told.counts), (lanes,), np.int32),
        carray(pointer(told.words), (all_samples, all_steps, told.pixels, number), np.uint64),
        carray(pointer(told.sent), sent_shape, np.uint8),
        carray(pointer(told.sample_spikes), (all_samples,), np.int64),
        carray(pointer(told.updates), (all_samples,), np.int64),
        carray(pointer(told.membrane_trace), trace_shape, np.int64),
        carray(pointer(told.current_trace), trace_shape, np.int64),
    )  # fmt: skip


@njit(nogil=True)
def _list(
    told: Any, all_samples: int, all_steps: int, sample: int, samples: int, step: int,
    steps: int, active: Any, begins: Any, silent: Any,
) -> None:  # fmt: skip
    """List the active inputs of a block."""
    if told.kind == DEPTHWISE:
        return
    number = (told.source_channels + 63) >> 6
    row = told.source_pixels * number
    words = carray(pointer(told.words), (all_samples * all_steps * row,), np.uint64)
    place = told.active
    for index in range(samples):
        for ahead in range(steps):
            which = index * steps + ahead
            begin = told.begins + which * (told.source_pixels + 1)
            sent = step + ahead - told.delay
            if sent < 0:
                begins[begin : begin + told.source_pixels + 1] = place
                silent[told.silent + which] = False
            else:
                origin = ((sample + index) * all_steps + sent) * row
                silent[told.silent + which] = list_active(
                    words, origin, told.source_pixels, told.source_channels, active, place, begins,
                    begin,
                )  # fmt: skip
                place = np.int64(begins[begin + told.source_pixels])


@njit(nogil=True)
def _begin(
    told: Any, all_samples: int, all_steps: int, sample: int, samples: int, step: int, steps: int,
    first: int, pixels: int, sums: Any,
) -> None:  # fmt: skip
    """A tile's sums before anything arrives: of constant input, or zero."""
    width, lanes = told.width, told.pixels * told.width
    if told.constant_windows == 0:
        for lane in range(steps * samples * pixels * width):
            sums[lane] = 0
        return
    windows = carray(pointer(told.windows), (all_steps,), np.int64)
    constants = all_samples * told.constant_windows * lanes
    constant = carray(pointer(told.constant), (constants,), np.int32)
    for ahead in range(steps):
        for index in range(samples):
            window = (sample + index) * told.constant_windows + windows[step + ahead]
            held = window * lanes + first * width
            place = (ahead * samples + index) * pixels * width
            for lane in range(pixels * width):
                sums[place + lane] = constant[held + lane]


@njit(nogil=True)
def _arrive(
    told: Any, all_samples: int, all_steps: int, sample: int, samples: int, step: int,
    steps: int, first: int, pixels: int, all_pixels: int, channels: int, width: int,
    active: Any, begins: Any, silent: Any, rows: Any, lists: Any, sums: Any,
) -> None:  # fmt: skip
    """Add what reaches a tile through one projection."""
    events = carray(pointer(told.events), (all_samples,), np.int64)[sample:]
    starts = carray(pointer(told.starts), (all_pixels + 1,), np.int64)
    if told.kind == DEPTHWISE:
        row = told.source_pixels * ((told.source_channels + 63) >> 6)
        words = carray(pointer(told.words), (all_samples * all_steps * row,), np.uint64)
        depthwise_tile(
            words, sample, step - told.delay, all_steps, samples, steps, told.source_pixels,
            first, pixels, starts,
            carray(pointer(told.sources), (told.runs_size,), np.int32),
            carray(pointer(told.taps), (told.runs_size,), np.int32),
            carray(pointer(told.weights), (told.weights_size,), np.int32), width, sums, events,
        )  # fmt: skip
        return
    runs = carray(pointer(told.runs), (told.runs_size,), np.int64)
    kinds = carray(pointer(told.kinds), (all_pixels,), np.int32)
    totals = carray(pointer(told.totals), (told.totals_size,), np.int32)
    fan_in = carray(pointer(told.fan_in), (told.totals_size // width,), np.int64)
    lists_of = silent[told.silent :]
    if told.kind == UINT8:
        gather_tile(
            active, begins, told.begins, lists_of, samples, steps, told.source_pixels, first,
            pixels, starts, runs, kinds, totals, fan_in,
            carray(pointer(told.weights), (told.weights_size,), np.uint8), told.panel_size,
            told.lanes, told.rows, told.capacity, told.factor, channels, width, rows, lists, sums,
            events,
        )  # fmt: skip
    else:
        gather_tile(
            active, begins, told.begins, lists_of, samples, steps, told.source_pixels, first,
            pixels, starts, runs, kinds, totals, fan_in,
            carray(pointer(told.weights), (told.weights_size,), np.int16), told.panel_size,
            told.lanes, told.rows, told.capacity, told.factor, channels, width, rows, lists, sums,
            events,
        )  # fmt: skip


def _compiled(sources: int) -> Kernel:
    """The compiled pass; ``sources`` becomes part of what its cache on disk goes by."""

    @Kernel
    def sweep(
        groups: Any,  # GROUP, in the order in which they run
        populations: Any,  # POPULATION
        arrivals: Any,  # ARRIVAL
        samples: int,
        first: int,
        last: int,
        part: int,
        parts: int,
        active: Any,  # uint32, as are all that follow for use here
        begins: Any,  # uint32
        silent: Any,  # uint8
        rows: Any,  # uint32
        lists: Any,  # int64
        sums: Any,  # int32
    ) -> None:
        """Run groups one after another, each over all samples and steps ``first`` to ``last``.

        Of ``parts`` that share the pixels of populations that are in no loop this is one. Whatever
        has a time axis has it from step 0 to ``last``.
        """
        if sources == 0:
            return
        # bare views: arrays that count their users would do so at every call
        populations = carray(pointer(populations.ctypes.data), populations.shape, POPULATION)
        arrivals = carray(pointer(arrivals.ctypes.data), arrivals.shape, ARRIVAL)
        active = carray(pointer(active.ctypes.data), active.shape, np.uint32)
        begins = carray(pointer(begins.ctypes.data), begins.shape, np.uint32)
        silent = carray(pointer(silent.ctypes.data), silent.shape, np.uint8)
        rows = carray(pointer(rows.ctypes.data), rows.shape, np.uint32)
        lists = carray(pointer(lists.ctypes.data), lists.shape, np.int64)
        sums = carray(pointer(sums.ctypes.data), sums.shape, np.int32)
        for index in range(groups.shape[0]):
            group = groups[index]
            for sample in range(0, samples, group.samples):
                some = min(group.samples, samples - sample)
                for step in range(first, last, group.steps):
                    block = min(group.steps, last - step)
                    if group.loops:
                        _loop(group.begin, group.end, populations, arrivals, samples, last, sample,
                              some, step, block, active, begins, silent, rows, lists,
                              sums)  # fmt: skip
                    else:
                        _stretch(populations[group.begin], part, parts, arrivals, samples, last,
                                 sample, some, step, block, active, begins, silent, rows, lists,
                                 sums)  # fmt: skip

    return sweep


def _fingerprint() -> int:
    """Of all that is compiled into the pass: a cache looks at the file it is defined in only."""
    digest = hashlib.sha256()
    for name in ("vectors", "gather", "depthwise", "lanes", "sweep"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return 1 + int.from_bytes(digest.digest()[:6], "little")


sweep = _compiled(_fingerprint())
