"""Neurons of Norse (Pehle and Pedersen, 2021), as release 1.1 computes them.

Euler steps: ``i += x``, ``v += dt*tau_mem_inv*(v_leak - v + i)``, ``i -= dt*tau_syn_inv*i``; a
spike where ``v > v_th``; then ``v = v_reset``. Counted from ``v_leak``, where it starts, this is a
LIF with decay ``1 - dt*tau_mem_inv``, a synaptic current of decay ``1 - dt*tau_syn_inv``, and all
input multiplied by ``dt*tau_mem_inv``. The box cells have no such current; IAF cells do not leak.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from snn_deploy.freezing.leaves import Call, Kind, Mark
from snn_deploy.freezing.libraries.common import (
    Floats,
    fires_at_threshold,
    fraction,
    parameter,
    resetting_to,
    subtracting,
    threshold,
)
from snn_deploy.freezing.neurons import FrozenNeurons
from snn_deploy.freezing.refusal import UnfoldableError
from snn_deploy.graph import LIF, Integrator, Reset
from snn_deploy.synapses import Dense

_CELLS = ("LIFCell", "LIFRecurrentCell", "LIFBoxCell", "IAFCell", "LICell", "LILinearCell",
          "LIBoxCell")  # fmt: skip
_SEQUENCES = ("LIF", "LIFRecurrent", "IAF", "LI")
_KINDS: dict[str, Kind] = {"z": "spikes", "v": "membrane", "i": "hidden"}


class Norse:
    """The neurons of ``norse.torch``."""

    def __init__(self) -> None:
        self._norse: Any = importlib.import_module("norse.torch")
        self._compare: Any = importlib.import_module("norse.torch.functional.threshold").threshold

    def knows(self, module: nn.Module) -> bool:
        """Any of its cells and sequences; those the graph has not are refused by name."""
        bases = ("SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell", *_CELLS, *_SEQUENCES)
        return any(
            kind.__module__.startswith("norse.torch.module.") and kind.__name__ in bases
            for kind in type(module).mro()
        )

    def entries(self, module: nn.Module) -> tuple[str, ...]:
        """A timestep of a cell, or a sequence."""
        return ("forward",)

    def read(self, module: Any, entry: str, args: Any, options: dict[str, Any]) -> Call:
        """``cell(input, state)``; some weigh their input themselves."""
        given = dict(zip(("input_tensor", "state"), args, strict=False)) | options
        current, state = given["input_tensor"], given.get("state")
        if hasattr(module, "input_weights"):
            current = functional.linear(current, module.input_weights)
        sequence = type(module).__name__ in _SEQUENCES
        steps = len(current) if sequence else 1
        if state is None:
            return Call(current, steps, sequence)
        tensors = {_KINDS[name]: getattr(state, name) for name in state._fields}
        return Call(current, steps, sequence, tensors, _rest(module))

    def spikes(self, entry: str, out: Any) -> Tensor:
        """First of what is returned."""
        return out[0]  # type: ignore[no-any-return]

    def marked(self, module: Any, call: Call, out: Any, mark: Mark) -> Any:
        """Spikes, or the membranes of an integrator, and the state."""
        emitted, state = out
        kind: Kind = "membrane" if type(module).__name__.startswith("LI") and not _fires(
            module) else "spikes"  # fmt: skip
        parts = {name: mark(_KINDS[name], getattr(state, name)) for name in state._fields}
        return mark(kind, emitted), type(state)(**parts)

    def kept(self, module: nn.Module) -> dict[str, Kind]:
        """Nothing: states are handed over."""
        return {}

    def forget(self, module: nn.Module) -> None:
        """Nothing is kept."""

    def freeze(self, module: Any) -> FrozenNeurons:
        """LIF, LIF box and IAF neurons, recurrent LIF neurons and leaky integrators.

        Raises
        ------
        UnfoldableError
            For other kinds, and for what the graph has not.
        """
        kind = type(module).__name__
        if kind not in (*_CELLS, *_SEQUENCES) or type(module) is not getattr(self._norse, kind):
            raise UnfoldableError(
                "a graph has no such neurons, or they are of a class of your own",
                f"use Norse's {', '.join((*_CELLS, *_SEQUENCES))} as they are",
            )
        p, zero = module.p, np.zeros(())
        rest = parameter(_rest(module))
        decay, gain, current_decay = np.ones(()), np.ones(()), None
        if hasattr(p, "tau_mem_inv"):
            gain = parameter(module.dt * p.tau_mem_inv)
            decay = fraction(1.0 - gain, "decay of its membrane")
        if hasattr(p, "tau_syn_inv"):
            leak = parameter(module.dt * p.tau_syn_inv)
            current_decay = fraction(1.0 - leak, "decay of its current")
        if not _fires(module):
            if rest.any():
                raise UnfoldableError(
                    "its v_leak is not 0, but its membrane is read", "use v_leak=0"
                )
            return FrozenNeurons(
                Integrator(decay=decay, bias=zero, current_decay=current_decay), gain=gain
            )
        reached = fires_at_threshold(lambda x: self._compare(x, p.method, p.alpha))
        theta = parameter(p.v_th)
        how, unit = _reset(p, theta, rest)
        recurrent = None
        if hasattr(module, "recurrent_weights"):
            recurrent = Dense(np.array(module.recurrent_weights.detach().double().numpy()))
        return FrozenNeurons(
            LIF(
                decay=decay,
                threshold=threshold((theta - rest) / unit, reached),
                bias=zero,
                reset=how,
                current_decay=current_decay,
            ),
            gain=gain / unit,
            recurrent=recurrent,
            offset=np.abs(rest),
        )


def _fires(module: Any) -> bool:
    return hasattr(module.p, "v_th")


def _rest(module: Any) -> Any:
    """Where a membrane starts."""
    return module.p.v_leak if hasattr(module.p, "v_leak") else module.p.v_reset


def _reset(p: Any, theta: Floats, rest: Floats) -> tuple[Reset, Floats]:
    method = getattr(p, "reset_method", None)
    name = "reset_value" if method is None else getattr(method, "__name__", "")
    if name == "reset_subtract":
        return subtracting(theta)
    if name != "reset_value":
        raise UnfoldableError(
            "it has a reset_method of your own", "use reset_value or reset_subtract"
        )
    return resetting_to(parameter(p.v_reset) - rest)
