"""Neurons of SpikingJelly (Fang et al., Sci. Adv. 9, 2023), as release 2.0 computes them.

``h = v + (x - (v - v_reset))/tau`` or, where the input does not decay, ``h = v - (v -
v_reset)/tau + x``; a spike where ``h >= v_threshold``; then ``v = v_reset``, or ``h - v_threshold``
without one. Counted from ``v_reset``, where it also starts, this is a LIF with decay ``1 - 1/tau``.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
from snn_deploy.graph import LIF, Integrator

# Neurons that the graph has. The first start at v_reset, the others at 0.
_FROM_RESET = ("IFNode", "LIFNode", "ParametricLIFNode")
_FROM_ZERO = ("CUBALIFNode", "SimpleIFNode", "SimpleLIFNode")
_SILENT = ("NonSpikingIFNode", "NonSpikingLIFNode")


class SpikingJelly:
    """The neurons of ``spikingjelly.activation_based``."""

    def __init__(self) -> None:
        self._neuron: Any = importlib.import_module("spikingjelly.activation_based.neuron")

    def knows(self, module: nn.Module) -> bool:
        """Any of its neurons, or made from them; those the graph has not are refused by name."""
        return any(kind.__module__.startswith(self._neuron.__name__) for kind in type(module).mro())

    def entries(self, module: nn.Module) -> tuple[str, ...]:
        """A timestep or a sequence, as its step mode says."""
        return ("forward",)

    def read(self, module: Any, entry: str, args: Any, options: dict[str, Any]) -> Call:
        """``node(x)``; it keeps its state itself, and one that never spikes starts each time."""
        current = args[0] if args else next(iter(options.values()))
        if type(module).__name__ in _SILENT:
            return Call(current, len(current), True)
        sequence = module.step_mode == "m"
        state: dict[Kind, Any] = {"membrane": getattr(module, "v", 0.0)}
        if hasattr(module, "c"):
            state["hidden"] = module.c
        rest = getattr(module, "v_reset", None) or 0.0
        return Call(current, len(current) if sequence else 1, sequence, state, rest)

    def spikes(self, entry: str, out: Any) -> Tensor:
        """What is returned."""
        return out  # type: ignore[no-any-return]

    def marked(self, module: Any, call: Call, out: Any, mark: Mark) -> Any:
        """Spikes, or the membranes of one that never spikes, decoded as it does."""
        if type(module).__name__ not in _SILENT:
            return mark("spikes", out)
        values = torch.stack(out) if isinstance(out, list) else out.expand(call.steps, *out.shape)
        membranes = mark("membrane", values)
        if module.decode == "mean-mem":
            return membranes.mean(0)
        return membranes[-1] if module.decode == "last_mem" else list(membranes.unbind(0))

    def kept(self, module: Any) -> dict[str, Kind]:
        """The membrane, the membranes of a sequence where they are stored, the current."""
        found: dict[str, Kind] = {"v": "membrane"}
        if getattr(module, "store_v_seq", False):
            found["v_seq"] = "membrane"
        if hasattr(module, "c"):
            found["c"] = "hidden"
        return found

    def forget(self, module: Any) -> None:
        """As ``functional.reset_net`` does."""
        if hasattr(module, "reset"):
            module.reset()

    def freeze(self, module: Any) -> FrozenNeurons:
        """IF, LIF, parametric LIF and CUBA-LIF nodes, and those that never spike.

        Raises
        ------
        UnfoldableError
            For other kinds, and for what the graph has not.
        """
        kind = type(module).__name__
        known = (*_FROM_RESET, *_FROM_ZERO, *_SILENT)
        if kind not in known or type(module) is not getattr(self._neuron, kind):
            raise UnfoldableError(
                "a graph has no such neurons, or they are of a class of your own",
                f"use SpikingJelly's {', '.join(known)} as they are",
            )
        decay, gain = _decay_and_gain(module, kind)
        zero = np.zeros(())
        if kind in _SILENT:
            if module.decode not in (None, "mean-mem", "last_mem"):
                raise UnfoldableError(
                    f"it decodes by {module.decode!r}", "use decode=None, 'mean-mem' or 'last_mem'"
                )
            return FrozenNeurons(Integrator(decay=decay, bias=zero), gain=gain)
        if getattr(module, "store_v_seq", False) and module.step_mode == "s":
            raise UnfoldableError("it has store_v_seq in single steps", "use store_v_seq=False")
        current_decay = None
        if kind == "CUBALIFNode":
            current_decay = fraction(parameter(module.c_decay), "decay of its current")
        rest = parameter(0.0 if module.v_reset is None else module.v_reset)
        theta = parameter(module.v_threshold)
        never = bool((theta == np.inf).all())
        if rest and (kind in _FROM_ZERO or never):
            raise UnfoldableError(
                "its v_reset is not 0, where it starts" if not never else
                "its v_reset is not 0, though it never spikes", "use v_reset=0.0",
            )  # fmt: skip
        if never and module.v_reset is None:
            raise UnfoldableError(
                "its membrane is no number: 0 times an infinite threshold", "use v_reset=0.0"
            )
        if never:
            return FrozenNeurons(
                Integrator(decay=decay, bias=zero, current_decay=current_decay), gain=gain
            )
        reached = fires_at_threshold(module.surrogate_function)
        if module.v_reset is None:
            how, unit = subtracting(theta)
        else:
            how, unit = resetting_to(zero)
        return FrozenNeurons(
            LIF(
                decay=decay,
                threshold=threshold((theta - rest) / unit, reached),
                bias=zero,
                reset=how,
                current_decay=current_decay,
            ),
            gain=gain / unit,
            offset=np.abs(rest),
        )


def _decay_and_gain(module: Any, kind: str) -> tuple[Floats, Floats]:
    """What of the membrane is left after a step, and what of the input arrives."""
    one = np.ones(())
    if kind.endswith("CUBALIFNode"):
        return fraction(parameter(module.v_decay), "decay"), one
    if kind.endswith("ParametricLIFNode"):
        leak = parameter(module.w.sigmoid())
    elif kind.endswith("LIFNode"):
        leak = 1.0 / parameter(module.tau)
    else:
        return one, one
    decays = getattr(module, "decay_input", True)
    return fraction(1.0 - leak, "decay"), leak if decays else one
