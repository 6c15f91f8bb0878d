"""Why two graphs part at one neuron and timestep, with the facts that say so.

Up to there both have seen the same spikes, so the cause lies in the rules of this one population.
The books are read in the order in which an update happens: sums, synaptic filter, bias, decay,
registers, comparator, reset; the first entry that differs by more than rounding explains names the
kind of fault. Where nothing does, roundings of many timesteps have added up to a spike: then the
largest part names it.
"""

from __future__ import annotations

import numpy as np

from snn_deploy.graph import LIF, ResetSubtract
from snn_deploy.numerics import kept_share
from snn_deploy.sim.causes import At, Cause, Verdict, number
from snn_deploy.sim.ledger import Side
from snn_deploy.sim.probing import cause_of_sums
from snn_deploy.sim.rounding import Allowance

# Two units in doubles, compared.
_SAME = 1e-9


def cause_of_state(a: Side, b: Side, allowance: Allowance, at: At, quantity: str) -> Verdict:
    """Why a sum, current, membrane or reset differs at ``at`` (sample, timestep, neuron...)."""
    here = at[2:]
    if quantity == "sum":
        return cause_of_sums(a, b, allowance, at)
    if quantity == "reset":
        return "reset", (
            f"both membranes were {number(a.books.before[at])} and {number(b.books.before[at])} "
            f"before the reset, and are {number(a.books.after[at])} and "
            f"{number(b.books.after[at])} after it",
            f"{a.label} {_reset(a)}, {b.label} {_reset(b)}",
        )
    free = "free_current" if quantity == "current" else "free_before"
    limits = allowance.current if quantity == "current" else allowance.before
    handed = [float(getattr(s.books, free)[at]) for s in (a, b)]
    if abs(handed[0] - handed[1]) <= float(limits[at]):
        return "overflow", tuple(_register(s, v) for s, v in zip((a, b), handed, strict=True))
    bias = [float(np.broadcast_to(s.books.bias, s.population.shape)[here]) for s in (a, b)]
    limit = float(np.broadcast_to(allowance.bias, a.population.shape)[here])
    if quantity == "membrane" and abs(bias[0] - bias[1]) > limit:
        return _of_bias(a, b, here, bias)
    what = "synaptic current" if quantity == "current" else "membrane"
    fields = [_decays(s, quantity, here) for s in (a, b)]
    before = [_earlier(s, quantity, at) for s in (a, b)]
    return "decay", (
        f"what entered is equal, what decay left of the {what} is not: of "
        f"{number(before[0])} and {number(before[1])} one timestep earlier",
        f"{a.label} keeps {fields[0]}, {b.label} keeps {fields[1]}",
    )


def cause_of_spike(a: Side, b: Side, allowance: Allowance, at: At, *, trained: bool) -> Verdict:
    """Why only one side fires at ``at``, where no state differs by more than rounding.

    ``trained``: one side's spikes are a module's, whose membranes are known up to ``allowance``.
    """
    here = at[2:]
    u = [float(s.books.before[at]) for s in (a, b)]
    level = [float(s.books.level[here]) for s in (a, b)]
    margin = [u[0] - level[0], u[1] - level[1]]
    near = float(np.broadcast_to(allowance.tie, a.books.before.shape)[at])
    facts = [
        f"{s.label} {'fires' if s.books.spikes[at] else 'does not fire'}: membrane {number(v)}, "
        f"{m:+.3g} from the {number(least)} that fires"
        for s, v, m, least in zip((a, b), u, margin, level, strict=True)
    ]
    if a.population.max_spikes != b.population.max_spikes:
        facts.append(
            f"neurons may fire {a.population.max_spikes} and {b.population.max_spikes} times"
        )
        return "comparator", tuple(facts)
    if max(map(abs, margin)) <= near:
        facts.append(f"both within {number(near)} of the threshold, where rounding decides")
        return "comparator", tuple(facts)
    if u[0] == u[1] and level[0] != level[1]:
        return _of_threshold(a, b, here, facts)
    if u[0] == u[1] and a.books.spikes[at] and b.books.spikes[at]:
        facts.append(
            f"how often depends on the reset: {a.label} {_reset(a)}, {b.label} {_reset(b)}"
        )
        return "reset", tuple(facts)
    if trained and (margin[0] >= 0) == (margin[1] >= 0):
        facts.append(
            f"the module's own spike is not what its frozen graph computes, and {number(near)} is "
            "all that float32 may be off"
        )
        return "freeze", tuple(facts)
    shares = contributions(a, b, at)
    shares["threshold"] = level[0] - level[1]
    pushing = max(shares, key=lambda n: shares[n] * np.sign(margin[1] - margin[0]))
    listed = ", ".join(
        f"{n} {v:+.3g}" for n, v in shares.items() if abs(v) > _SAME * abs(shares[pushing])
    )
    facts.append(
        f"{b.label}'s membrane less {a.label}'s is {u[1] - u[0]:+.3g}, within the "
        f"{number(allowance.before[at])} that rounding explains; by cause: {listed}"
    )
    causes: dict[str, Cause] = {"decay": "decay", "overflow": "overflow", "reset": "reset"}
    causes["threshold"] = "threshold"
    return causes.get(pushing, "rounding"), tuple(facts)


def contributions(a: Side, b: Side, at: At) -> dict[str, float]:
    """What the difference of two membranes at ``at`` is made of; the parts sum up to it.

    A difference that enters is carried along by the decay of ``a``; what decay leaves otherwise
    (another decay, or another cut) counts as its own.
    """
    sample, last, *here = at
    parts = dict.fromkeys(("weights", "bias", "decay", "overflow", "reset"), 0.0)
    filtered = dict.fromkeys(("weights", "decay", "overflow"), 0.0)
    membrane, current = (_share(a, which, tuple(here)) for which in ("decay", "current_decay"))

    def apart(name: str, step: int) -> float:
        place = (sample, step, *here)
        return float(getattr(b.books, name)[place] - getattr(a.books, name)[place])

    def turned(step: int, name: str) -> bool:
        place = (sample, step, *here)
        return any(
            getattr(s.books, name)[place] != getattr(s.books, f"free_{name}")[place] for s in (a, b)
        )

    bias = [float(np.broadcast_to(s.books.bias, s.population.shape)[tuple(here)]) for s in (a, b)]
    for step in range(last + 1):
        place = (sample, step, *here)
        filtered = {n: v * current for n, v in filtered.items()}
        arrived = [sum(float(v[place]) for v in s.books.sums.values()) for s in (a, b)]
        filtered["weights"] += arrived[1] - arrived[0]
        rest = apart("current", step) - sum(filtered.values())
        filtered["overflow" if turned(step, "current") else "decay"] += rest
        for name in parts:
            parts[name] = parts[name] * membrane + filtered.get(name, 0.0)
        parts["bias"] += bias[1] - bias[0]
        rest = apart("before", step) - sum(parts.values())
        parts["overflow" if turned(step, "before") else "decay"] += rest
        if step < last and (a.books.spikes[place] or b.books.spikes[place]):
            resets = [s.population.neurons for s in (a, b)]
            hard = any(isinstance(n, LIF) and not isinstance(n.reset, ResetSubtract)
                       for n in resets)  # fmt: skip
            if hard:
                parts = dict.fromkeys(parts, 0.0)
            parts["reset"] += apart("after", step) - sum(parts.values())
    return parts


def _share(side: Side, which: str, here: At) -> float:
    """The share of its membrane or current that a neuron keeps per timestep."""
    field = getattr(side.population.neurons, which)
    if field is None:
        return 0.0
    one = np.broadcast_to(field, side.population.shape)[here]
    form = side.graph.number_format
    if form is None:
        return float(one)
    return float(kept_share(np.asarray(one, np.int64), form.decay_rule, form.decay_bits))


def _decays(side: Side, quantity: str, here: At) -> str:
    which = "current_decay" if quantity == "current" else "decay"
    form = side.graph.number_format
    rule = "" if form is None else f" ({form.decay_rule})"
    return f"{number(_share(side, which, here))}{rule}"


def _earlier(side: Side, quantity: str, at: At) -> float:
    state = side.books.current if quantity == "current" else side.books.after
    return float(state[(at[0], at[1] - 1, *at[2:])]) if at[1] else 0.0


def _reset(side: Side) -> str:
    reset = getattr(side.population.neurons, "reset", None)
    if isinstance(reset, ResetSubtract):
        return f"subtracts {number(reset.amount * np.max(side.unit))}"
    return "has none" if reset is None else f"resets to {number(reset.value * np.max(side.unit))}"


def _register(side: Side, handed: float) -> str:
    form = side.graph.number_format
    if form is None:
        return f"{side.label} holds the {number(handed)} that it is handed: doubles have no width"
    rules = {form.current_overflow, form.membrane_overflow}
    return (
        f"{side.label} is handed {number(handed)}, for a register of {form.membrane_bits} bits in "
        f"words of {form.word_bits} ({', '.join(sorted(rules))})"
    )


def _of_threshold(a: Side, b: Side, here: At, facts: list[str]) -> Verdict:
    thresholds = [s.population.neurons for s in (a, b)]
    raw = [
        float(np.broadcast_to(n.threshold, s.population.shape)[here]) if isinstance(n, LIF) else 0
        for n, s in zip(thresholds, (a, b), strict=True)
    ]
    rules = [s.graph.number_format for s in (a, b)]
    words = [">=" if form is None else form.comparator for form in rules]
    if words[0] != words[1]:
        facts.append(
            f"equal membranes at the threshold: {a.label} fires where it is {words[0]} "
            f"{number(raw[0])}, {b.label} where it is {words[1]} {number(raw[1])}"
        )
        return "comparator", tuple(facts)
    facts.append(f"equal membranes, thresholds {number(raw[0])} and {number(raw[1])}")
    return "threshold", tuple(facts)


def _of_bias(a: Side, b: Side, here: At, bias: list[float]) -> Verdict:
    """A missing bias is zero everywhere; one that differs by a unit was rounded otherwise."""
    facts = [f"the sums are equal; bias {number(bias[0])} in {a.label}, {number(bias[1])} in "
             f"{b.label}, at every timestep"]  # fmt: skip
    apart = b.books.bias - a.books.bias
    if np.ptp(apart) == 0:
        facts.append(f"a constant {number(apart.flat[0])} over all neurons")
    else:
        facts.append(f"from {number(apart.min())} to {number(apart.max())} over the neurons")
    for side, other in ((a, b), (b, a)):
        if not side.books.bias.any() and other.books.bias.any():
            facts.append(f"{side.label} has no bias at all")
            return "bias", tuple(facts)
    units = [
        float(np.max(s.unit)) * (1 << s.graph.number_format.bias_shift)
        for s in (a, b)
        if s.graph.number_format is not None
    ]
    one = max(units, default=0.0) * (1 + _SAME)
    return ("rounding" if np.abs(apart).max() <= one else "bias"), tuple(facts)
