"""How far an integer graph may stray from the float graph it was rounded from, on equal spikes.

Rounding moves a weight by less than a step, up or down; a bias and a quantized input by at most
half a unit, a decay by half its last bit; and a decayed state is cut by less than a unit. Carried
along the update these make a bound per slot: a difference within it is rounding, a difference
beyond it is something else: a clipped weight, a corrected bias, or a fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Population, Projection, ResetSubtract
from snn_deploy.numerics import NumberFormat, kept_share
from snn_deploy.sim.ledger import Ledger, arriving, sent_by
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import with_weights

Array = NDArray[Any]
Floats = NDArray[np.float64]

# The bounds are sums of a few thousand products in float64: what those round to is far below this.
_SLACK = 1 + 2.0**-20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Allowance:
    """What rounding may explain of a difference, [samples, steps, *shape], network units.

    ``sums`` per projection, ``current`` behind the synaptic filter, ``before`` and ``after`` as in
    :class:`snn_deploy.sim.ledger.Ledger`, ``bias`` broadcastable to the population. ``tie``,
    broadcastable to all slots, is how near to the threshold a membrane is as good as on it: a
    membrane unit, or the rounding error of float32.
    """

    sums: dict[str, Floats]
    current: Floats
    bias: Floats
    before: Floats
    after: Floats
    tie: Floats

    def plus(self, other: Allowance) -> Allowance:
        """What the rounding of both sides may explain together."""
        none = np.zeros(())
        names = self.sums.keys() | other.sums.keys()
        return Allowance(
            sums={n: self.sums.get(n, none) + other.sums.get(n, none) for n in names},
            current=self.current + other.current,
            bias=self.bias + other.bias,
            before=self.before + other.before,
            after=self.after + other.after,
            tie=self.tie + other.tie,
        )


def nothing(books: Ledger) -> Allowance:
    """No rounding at all: integers of one grid, or doubles."""
    zero, none = np.zeros_like(books.before), np.zeros(())
    return Allowance(
        sums=dict.fromkeys(books.sums, zero), current=zero, bias=none, before=zero, after=zero,
        tie=none,
    )  # fmt: skip


def allowed(
    graph: Graph, population: Population, plan: Plan, trace: Trace, books: Ledger, unit: Floats
) -> Allowance:
    """What one integer graph's rounding may explain; ``unit`` is that of its books."""
    form = graph.number_format
    if form is None:
        return nothing(books)
    neurons = population.neurons
    bias_unit = 0.5 * unit * (1 << form.bias_shift)
    sums: dict[str, Floats] = {}
    entering: Any = np.zeros_like(books.before)
    handed: Any = np.zeros_like(books.before)
    for projection in graph.incoming(population.name):
        sent = sent_by(plan, trace, projection.source)
        moved = moved_by_rounding(graph, projection, plan, sent, unit) * _SLACK
        if graph.on_host(projection):
            moved = moved + bias_unit
            handed = handed + moved
        else:
            entering = entering + moved
        sums[projection.name] = moved
    current = entering
    if neurons.current_decay is not None:
        share, lost = _decay_error(neurons.current_decay, form)
        current = np.empty_like(books.before)
        carried: Any = 0.0
        for step in range(plan.steps):
            earlier = np.abs(books.current[:, step - 1]) if step else 0.0
            cut = unit if step else 0.0
            carried = (share + lost) * carried + lost * earlier + cut + entering[:, step]
            current[:, step] = carried
    share, lost = _decay_error(neurons.decay, form)
    before, after = np.empty_like(books.before), np.empty_like(books.before)
    carried = 0.0
    for step in range(plan.steps):
        earlier = np.abs(books.after[:, step - 1]) if step else 0.0
        cut = unit if step else 0.0
        left = (share + lost) * carried + lost * earlier + cut
        before[:, step] = left + current[:, step] + handed[:, step] + bias_unit
        carried = before[:, step]
        if isinstance(neurons, LIF):
            fired = books.spikes[:, step]
            if isinstance(neurons.reset, ResetSubtract):
                carried = carried + fired * 0.5 * unit
            else:
                carried = np.where(fired > 0, 0.5 * unit, carried)
        after[:, step] = carried
    return Allowance(
        sums=sums, current=current + handed, bias=np.asarray(bias_unit), before=before, after=after,
        tie=unit,
    )  # fmt: skip


def mantissa_unit(graph: Graph, projection: Projection, unit: Floats) -> Floats:
    """What a weight mantissa of 1 adds per arriving spike or value, network units.

    ``unit`` is the membrane's; 1 in a float graph. Shape (), or broadcastable to the population.
    """
    form = graph.number_format
    if form is None:
        return np.ones(())
    shift = form.bias_shift if graph.on_host(projection) else form.fraction_bits
    return np.asarray(unit * 2.0 ** (projection.exponent + shift))


def weight_step(graph: Graph, projection: Projection, unit: Floats) -> Floats:
    """What one step of a weight adds per arriving spike or value; 0 in a float graph."""
    form = graph.number_format
    if form is None:
        return np.zeros(())
    whole = 1 if graph.on_host(projection) else form.weight_step
    return whole * mantissa_unit(graph, projection, unit)


def moved_by_rounding(
    graph: Graph, projection: Projection, plan: Plan, sent: Array, unit: Floats
) -> Floats:
    """How far a projection's sums may lie from those of unrounded weights and values.

    A step for every spike that arrives. For values x of weight w, rounded by dx and dw:
    ``|dw|*(|x| + |dx|) + |w|*|dx|`` with dw less than a step and dx at most half of one.
    """
    form = graph.number_format
    if form is None:
        return np.zeros((plan.samples, plan.steps, *graph.shape_of(projection.target)))
    step = weight_step(graph, projection, unit)
    weight = projection.synapses.weight

    def weighed(by: Array, values: Array) -> Array:
        synapses = with_weights(projection.synapses, by)
        return arriving(graph, replace(projection, synapses=synapses), plan, values)

    moved = step * weighed(np.ones_like(weight), np.abs(sent))
    if graph.carries_values(projection):
        one = np.ones_like(sent)
        magnitudes = weighed(np.abs(weight.astype(np.int64)), one)
        own = mantissa_unit(graph, projection, unit)
        moved = moved + 0.5 * (step * weighed(np.ones_like(weight), one) + own * magnitudes)
    return np.asarray(moved, np.float64)


def _decay_error(decay: Array, form: NumberFormat) -> tuple[Floats, Floats]:
    """The share that a decay field keeps, and how far it may lie from the share that was meant."""
    share = kept_share(decay.astype(np.int64), form.decay_rule, form.decay_bits)
    if form.decay_rule == "shift_subtract":  # fields are powers of two: see `decay_mantissa`
        return share, 0.5 * (1 - share)
    return share, np.full_like(share, 2.0 ** -(form.decay_bits + 1))
