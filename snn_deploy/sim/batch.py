"""One batch of the event engine while it runs, and what is kept of it for the next."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Population
from snn_deploy.sim.plan import Plan
from snn_deploy.synapses import as_map

Array = NDArray[Any]

_NOTHING = np.zeros((0, 0, 0, 0), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What a population leaves, [samples, ...] but for ``spikes``, which blocks add to."""

    words: NDArray[np.uint64]  # [samples, steps, pixels, words]
    sent: NDArray[np.uint8]  # [samples, steps, pixels, channels]; empty unless read as numbers
    sample_spikes: NDArray[np.int64]
    updates: NDArray[np.int64]
    membrane_trace: NDArray[np.int64]  # [samples, steps, pixels, channels], or empty
    current_trace: NDArray[np.int64]
    spikes: NDArray[np.int64]  # [pixels, channels]

    def of(self, block: slice) -> Written:
        """Views of a block of samples."""
        views = {f.name: getattr(self, f.name) for f in fields(self)}
        return Written(**{n: v if n == "spikes" else v[block] for n, v in views.items()})


def written(
    population: Population, samples: int, steps: int, *, trace: bool, numeric: bool
) -> Written:
    """Room for what a population will leave."""
    channels, height, width = as_map(population.shape)
    shape = (samples, steps, height * width)
    traced = (shape if trace else (0, 0, 0)) + (channels,)
    return Written(
        words=np.zeros((*shape, -(-channels // 64)), np.uint64),
        sent=np.zeros((*shape, channels), np.uint8) if numeric else _NOTHING,
        sample_spikes=np.zeros(samples, np.int64),
        updates=np.zeros(samples, np.int64),
        membrane_trace=np.zeros(traced, np.int64),
        current_trace=np.zeros(traced, np.int64),
        spikes=np.zeros((height * width, channels), np.int64),
    )


@dataclass(slots=True, eq=False)
class Memory:
    """What a run that is continued needs of the one before.

    ``history``: how many timesteps the longest delay reaches back. ``words`` and ``values``: what
    every source sent in those, [samples, history, ...]. ``states``: of the neurons, by population.
    """

    samples: int
    steps: int
    history: int
    words: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)

    def after(self, sent: Array, before: dict[str, Array], name: str) -> Array:
        """What a source sends in this run, and what it sent just before."""
        if not self.history:
            return sent
        silence = np.zeros((len(sent), self.history, *sent.shape[2:]), sent.dtype)
        return np.concatenate([before.get(name, silence), sent], axis=1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """One batch while it runs; everything is by name.

    Time begins ``first`` steps before the run does, for what is still on its way, and ends with
    step ``last``. ``clears``: whether neurons are cleared before a step, ``windows``: which
    constant input is in force, [last]. ``threads`` may work on it.
    """

    plan: Plan
    memory: Memory | None
    threads: int
    first: int
    clears: dict[str, NDArray[np.bool_]]
    windows: dict[str, NDArray[np.int64]]
    events: dict[str, NDArray[np.int64]]  # per projection
    words: dict[str, NDArray[np.uint64]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)  # of sources that are read as numbers
    # bias mantissas set by the host, sums of constant input: [samples, windows, pixels, channels]
    host: dict[str, Array] = field(default_factory=dict)
    constant: dict[str, Array] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """End of the time axis."""
        return self.first + self.plan.steps

    @property
    def whole_steps(self) -> int:
        """Timesteps of the whole run, of which this may be a piece."""
        return self.plan.steps if self.memory is None else self.memory.steps

    @property
    def nbytes(self) -> int:
        """Size of all that is kept of spikes and membranes."""
        arrays = [getattr(w, f.name) for w in self.written.values() for f in fields(w)]
        return sum(a.nbytes for a in [*arrays, *self.words.values(), *self.values.values()])

    def begin(self, plan: Plan) -> None:
        """Make it as it was before it ran, but with these resets and windows; of a whole run."""
        for name, clears in self.clears.items():
            clears[...] = plan.resets[name]
            clears[0] = True
            self.windows[name][...] = plan.windows[name]
        for events in self.events.values():
            events[...] = 0
        for leaves in self.written.values():
            for counted in (leaves.sample_spikes, leaves.updates, leaves.spikes):
                counted[...] = 0

    def remember(self) -> None:
        """Keep what is on its way for the next piece of the run."""
        if self.memory is not None and self.first:
            for kept, sent in ((self.memory.words, self.words), (self.memory.values, self.values)):
                kept |= {name: array[:, -self.first :].copy() for name, array in sent.items()}


def batch(plan: Plan, projections: tuple[str, ...], memory: Memory | None, threads: int) -> Batch:
    """A batch at its beginning."""
    first = 0 if memory is None else memory.history

    def later(array: Array) -> Array:
        return np.concatenate([np.zeros(first, array.dtype), array])

    clears = {name: later(resets) for name, resets in plan.resets.items()}
    if memory is None or not memory.states:
        for cleared in clears.values():
            cleared[first] = True
    return Batch(
        plan=plan,
        memory=memory,
        threads=threads,
        first=first,
        clears=clears,
        windows={name: later(windows) for name, windows in plan.windows.items()},
        events={name: np.zeros(plan.samples, np.int64) for name in projections},
    )
