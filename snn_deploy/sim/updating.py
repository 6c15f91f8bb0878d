"""One population of the event engine while it runs: what it leaves, and its neurons' states."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import Population
from snn_deploy.numerics import NumberFormat
from snn_deploy.sim import kernels
from snn_deploy.sim.lanes import pixels_at_once, update_lanes
from snn_deploy.sim.neurons import Parameters, lanes_of
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.vectors import LANES
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


def written(population: Population, plan: Plan, *, trace: bool, numeric: bool) -> Written:
    """Room for what a population will leave."""
    channels, height, width = as_map(population.shape)
    shape = (plan.samples, plan.steps, height * width)
    traced = (shape if trace else (0, 0, 0)) + (channels,)
    return Written(
        words=np.zeros((*shape, -(-channels // 64)), np.uint64),
        sent=np.zeros((*shape, channels), np.uint8) if numeric else _NOTHING,
        sample_spikes=np.zeros(plan.samples, np.int64),
        updates=np.zeros(plan.samples, np.int64),
        membrane_trace=np.zeros(traced, np.int64),
        current_trace=np.zeros(traced, np.int64),
        spikes=np.zeros((height * width, channels), np.int64),
    )


class WideNeurons:
    """Neurons in 64 bits: whatever the number format says.

    ``host``: bias mantissas set by the host, int64 [samples, windows, pixels, channels]. States are
    those of a block of so many ``samples``, and begin anew with each.
    """

    def __init__(
        self, form: NumberFormat, neurons: Parameters, host: Array, samples: int, most: int
    ) -> None:
        self.form, self.neurons, self.host, self.most = form, neurons, host, most
        shape = neurons.bias.shape
        self.membrane = np.empty((samples, *shape), np.int64)
        self.memory = np.empty((samples if neurons.remembers else 0, *shape), np.int64)

    def update(
        self, current: Array, plan: Plan, name: str, first: int, last: int, block: slice,
        written: Written,
    ) -> None:  # fmt: skip
        """Advance a block of samples through these steps."""
        neurons, form = self.neurons, self.form
        kernels.update_neurons(
            current, self.host[block], plan.windows[name], plan.resets[name], first, last,
            form.fraction_bits, 64 - form.word_bits, 1 << (form.membrane_bits - 1),
            kernels.OVERFLOW_RULES[form.current_overflow],
            kernels.OVERFLOW_RULES[form.membrane_overflow],
            kernels.DECAY_RULES[form.decay_rule], form.decay_bits,
            neurons.bias, form.bias_shift, neurons.decay, neurons.current_decay,
            neurons.threshold, neurons.subtracts, neurons.reset, self.most,
            self.membrane, self.memory, written.words, written.sent, written.spikes,
            written.sample_spikes, written.updates,
            written.membrane_trace, written.current_trace,
        )  # fmt: skip

    def finish(self, spikes: NDArray[np.int64]) -> None:
        """They are counted already."""


class LaneNeurons:
    """Neurons in 32 bits, 64 at a time.

    ``rules``, ``told`` and ``drive`` (of all samples, or the same for all) as ``update_lanes``
    reads them. A few pixels have states at a time where all steps are taken ``at_once``.
    """

    def __init__(
        self, rules: Array, told: Array, drive: Array, samples: int, channels: int, *, at_once: bool
    ) -> None:
        self.rules, self.told, self.drive = rules, told, drive
        self.counts = np.zeros(told.shape[1], np.int32)
        lanes = lanes_of(channels)
        block = min(pixels_at_once(lanes // LANES) * lanes, told.shape[1])
        kept = (1, 2, block) if at_once else (samples, 2, told.shape[1])
        self.states = np.empty(kept, np.int32)

    def update(
        self, current: Array, plan: Plan, name: str, first: int, last: int, block: slice,
        written: Written,
    ) -> None:  # fmt: skip
        """Advance a block of samples through these steps."""
        drive = self.drive if len(self.drive) == 1 else self.drive[block]
        update_lanes(
            current, plan.windows[name], plan.resets[name], first, last, self.rules, drive,
            self.told, self.states, self.counts, written.words, written.sent,
            written.sample_spikes, written.updates, written.membrane_trace, written.current_trace,
        )  # fmt: skip

    def finish(self, spikes: NDArray[np.int64]) -> None:
        """Hand over the spikes that were counted."""
        pixels, channels = spikes.shape
        spikes += self.counts.reshape(pixels, -1)[:, :channels]
