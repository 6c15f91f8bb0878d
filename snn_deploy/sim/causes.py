"""The words of a comparison: the causes for which two runs part, and what they rest on."""

from __future__ import annotations

from typing import Any, Literal

Cause = Literal[
    "comparator",
    "rounding",
    "decay",
    "overflow",
    "reset",
    "delay",
    "order",
    "bias",
    "scale",
    "weights",
    "threshold",
    "input",
    "freeze",
]

CAUSES: dict[Cause, str] = {
    "comparator": "comparator tie: a membrane on the threshold, or as near as rounding gets",
    "rounding": "rounding of weights or biases: no more than a step of the mantissa",
    "decay": "decay: another decay field, or what its product was cut to",
    "overflow": "overflow: a register saturated or wrapped on one side",
    "reset": "reset: equal membranes fired and were left unequal",
    "delay": "delay: equal synapses, whose spikes arrive at other timesteps",
    "order": "order of inputs: the same weights, applied to other neurons",
    "bias": "bias: missing, or off by more than rounding",
    "scale": "scale: all sums differ by one factor, as by a pool's",
    "weights": "weights: they differ by more than rounding",
    "threshold": "threshold: equal membranes, unequal thresholds",
    "input": "input: it is normalised or quantized otherwise",
    "freeze": "freezing: the module does not spike as its frozen graph computes",
}

# A cause, and the measurements that speak for it.
Verdict = tuple[Cause, tuple[str, ...]]
# Sample, timestep, and the neuron's place in its population.
At = tuple[int, ...]


def number(value: Any) -> str:
    """A number as facts show it."""
    return f"{float(value):.6g}"
