"""How far a population's numbers can grow: in which integers the dense engine may step it.

Bounds follow from the largest synaptic sum, bias and host sum, from the decays and the number of
timesteps, or from a register that limits what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Population, ResetSubtract
from snn_deploy.numerics import NumberFormat, OverflowRule, firing_level

Array = NDArray[Any]

_LIMIT = 1 << 31
# The lower part of a split state times a decay needs twice as many bits.
_SPLIT_BITS = 15


@dataclass(frozen=True, slots=True)
class Proof:
    """What the growth of one population's states allows.

    ``narrow``: every number on the way fits in 32 bits; ``current`` and ``membrane``: whether these
    may leave their registers; ``largest``: bound on either after a step, where narrow.
    """

    narrow: bool
    current: bool
    membrane: bool
    largest: int


NOTHING_PROVED = Proof(narrow=False, current=True, membrane=True, largest=0)


def proved(
    form: NumberFormat, population: Population, *, arriving: int, drive: int, steps: int
) -> Proof:
    """The proof for one population.

    Parameters
    ----------
    arriving : bound on the synaptic current that arrives in a timestep, in membrane units, and on
        the sums it is made of.
    drive : bound on bias and host sum together, in membrane units.
    steps : timesteps of the run.
    """
    neurons = population.neurons
    shifts = form.decay_rule == "shift_subtract"
    most = 31 if shifts else 1 << form.decay_bits
    memory = neurons.decay if neurons.current_decay is None else neurons.current_decay
    if any(int(d.min()) < 0 or int(d.max()) > most for d in (neurons.decay, memory)):
        return NOTHING_PROVED
    reset = level = 0
    if isinstance(neurons, LIF):
        level = int(np.abs(firing_level(form, neurons.threshold.astype(np.int64))).max())
        if isinstance(neurons.reset, ResetSubtract):
            reset = level + int(neurons.reset.amount)  # a neuron that fires was above the level
        else:
            reset = abs(int(neurons.reset.value))
    repeats = 1 if neurons.current_decay is None else _repeats(form, memory, steps)
    current = _Growth.of(form, form.current_overflow, arriving, 0, repeats)
    repeats = _repeats(form, neurons.decay, steps)
    membrane = _Growth.of(form, form.membrane_overflow, current.state + drive, reset, repeats)
    # the level is subtracted to compare, the turn of a register to bring a value back
    turn = 1 << form.membrane_bits if current.limited or membrane.limited else 0
    widest = max(current.before, membrane.before) + max(level + reset, turn)
    if widest >= _LIMIT or (form.decay_bits > _SPLIT_BITS and not shifts):
        return NOTHING_PROVED
    largest = max(current.state, membrane.state)
    return Proof(True, current.limited, membrane.limited, largest)


@dataclass(frozen=True, slots=True)
class _Growth:
    """Bounds on a state: after a step, before its register limits it, and whether that may act."""

    state: int
    before: int
    limited: bool

    @staticmethod
    def of(form: NumberFormat, rule: OverflowRule, added: int, reset: int, repeats: int) -> _Growth:
        """Of a state to which up to ``added`` is added, or that is set to ``reset`` at most.

        What is added at every step adds up to ``repeats`` times as much.
        """
        half, word = 1 << (form.membrane_bits - 1), 1 << (form.word_bits - 1)
        # one more for a product that is cut downward, away from zero
        free = reset + (added + 1) * repeats
        if free < min(half, word):
            return _Growth(free, free, limited=False)

        def after(value: int) -> int:
            """A word that wrap_once brings back by one turn may still be beyond the register."""
            return max(reset, half, min(value, word) - 2 * half if rule == "wrap_once" else 0)

        if repeats == 1:  # nothing is left of a state when the next step comes
            return _Growth(after(added), added, limited=True)
        kept = after(0)
        if after(kept + added) > kept:
            kept = max(reset, word)
        return _Growth(kept, kept + added, limited=True)


def _repeats(form: NumberFormat, decay: Array, steps: int) -> int:
    """The sum of what is left of one after 0, 1, 2, ... timesteps, at most."""
    slowest = int(decay.max())
    if form.decay_rule == "shift_subtract":
        return min(steps, 1 << slowest)
    whole = 1 << form.decay_bits
    return steps if slowest >= whole else min(steps, -(-whole // (whole - slowest)))
