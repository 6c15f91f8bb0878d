"""Neurons of snnTorch (Eshraghian et al., Proc. IEEE 111, 2023), as release 1.0 computes them.

Its membrane is what was compared, before any reset; a reset is drawn from it at the next step.
``Leaky`` with reset by subtraction is ``U[t] = b*U[t-1] + I[t] - S[t-1]*theta``: here ``theta / b``
is subtracted at once, ``b*(U[t-1] - S[t-1]*theta/b) + I[t]``. Reset to zero acts before the decay
in ``Leaky``; in all others it takes the input of the next step with it, which the graph cannot do,
unless ``reset_delay`` is False. Spikes are ``U > theta``.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from torch import Tensor, nn, zeros

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
from snn_deploy.synapses import Conv2d, Dense, Synapses

# Neurons that the graph has, and what they are given after their input and keep.
_STATES = {
    "Leaky": ("mem",),
    "Lapicque": ("mem",),
    "Synaptic": ("syn", "mem"),
    "RLeaky": ("spk", "mem"),
    "RSynaptic": ("spk", "syn", "mem"),
}
_KINDS: dict[str, Kind] = {"spk": "spikes", "syn": "hidden", "mem": "membrane"}
_RESETS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}


class SnnTorch:
    """The neurons of ``snntorch``."""

    def __init__(self) -> None:
        self._snn: Any = importlib.import_module("snntorch")

    def knows(self, module: nn.Module) -> bool:
        """Any of its spiking neurons; those the graph has not are refused by name."""
        return isinstance(module, self._snn.SpikingNeuron)

    def entries(self, module: nn.Module) -> tuple[str, ...]:
        """One timestep at a time."""
        return ("forward",)

    def read(self, module: nn.Module, entry: str, args: Any, options: dict[str, Any]) -> Call:
        """``lif(input, mem)``; what is not given, it takes from its last call."""
        names = _states(module)
        given = dict(zip(("input_", *names), args, strict=False)) | options
        state = {
            _KINDS[name]: getattr(module, name) if given.get(name) is None else given[name]
            for name in names
        }
        return Call(given["input_"], 1, False, state)

    def spikes(self, entry: str, out: Any) -> Tensor:
        """First of what is returned."""
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]

    def marked(self, module: nn.Module, call: Call, out: Any, mark: Mark) -> Any:
        """Spikes, or spikes and states."""
        if not isinstance(out, tuple):
            return mark("spikes", out)
        names = ["spk", *(name for name in _states(module) if name != "spk")]
        return tuple(mark(_KINDS[n], one) for n, one in zip(names, out, strict=True))

    def kept(self, module: nn.Module) -> dict[str, Kind]:
        """All states, even where they are handed over too."""
        return {name: _KINDS[name] for name in _states(module)}

    def forget(self, module: nn.Module) -> None:
        """As it was made: what does not fit its input is taken for zero."""
        for name in _states(module):
            setattr(module, name, zeros(0))

    def freeze(self, module: Any) -> FrozenNeurons:
        """Leaky, Lapicque, Synaptic, RLeaky and RSynaptic.

        Raises
        ------
        UnfoldableError
            For other kinds and for what the graph has not: lateral inhibition, quantized states,
            graded spikes, and the resets named above.
        """
        kind = type(module).__name__
        if kind not in _STATES or type(module) is not getattr(self._snn, kind):
            raise UnfoldableError(
                "a graph has no such neurons, or they are of a class of your own",
                f"use snntorch's {', '.join(_STATES)} as they are",
            )
        _refuse_options(module)
        reset = _RESETS[module.state_function.__name__]
        if reset != module.reset_mechanism or reset != _by_number(module):
            raise UnfoldableError(
                "its reset_mechanism was changed after it was made, which it follows in part only",
                "give reset_mechanism where it is made",
            )
        decay, gain = _decay_and_gain(module, kind)
        current_decay = None
        if "syn" in _STATES[kind]:
            current_decay = parameter(module.alpha.clamp(0, 1))
        recurrent, recurrent_bias = _recurrence(module, kind)
        zero = np.zeros(())
        if reset == "none":
            if recurrent is not None:
                raise UnfoldableError(
                    "it is recurrent and without reset", "use reset_mechanism='subtract'"
                )
            return FrozenNeurons(
                Integrator(decay=decay, bias=zero, current_decay=current_decay), gain=gain
            )
        theta = parameter(module.threshold)
        fires = threshold(theta, fires_at_threshold(module.spike_grad))
        how, unit = self._reset(module, kind, reset, theta, decay)
        if unit.ndim:
            fires = np.nextafter(theta / unit, np.inf)
        return FrozenNeurons(
            LIF(decay=decay, threshold=fires, bias=zero, reset=how, current_decay=current_decay),
            gain=gain / unit,
            recurrent=recurrent,
            recurrent_bias=recurrent_bias,
        )

    def _reset(
        self, module: Any, kind: str, reset: str, theta: Floats, decay: Floats
    ) -> tuple[Any, Floats]:
        delayed = getattr(module, "reset_delay", True)
        if kind == "RSynaptic" and not delayed:
            raise UnfoldableError("it has reset_delay=False", "use reset_delay=True")
        if reset == "zero":
            if delayed and kind != "Leaky":
                raise UnfoldableError(
                    "its reset to zero takes the next timestep's input with it",
                    "use reset_mechanism='subtract', or reset_delay=False where it has that",
                )
            return resetting_to(np.zeros(()))
        if not delayed:
            # what is left above the threshold would raise the next comparison by a threshold
            raise UnfoldableError(
                "it resets by subtraction with reset_delay=False: a membrane above twice its "
                "threshold raises the next comparison",
                "use reset_delay=True, or reset_mechanism='zero'",
            )
        if (decay == 0).any():
            raise UnfoldableError(
                "it resets by subtraction, a timestep later, with a decay of 0",
                "use reset_mechanism='zero', or a decay above 0",
            )
        return subtracting(theta / decay)


def _states(module: nn.Module) -> tuple[str, ...]:
    return _STATES.get(type(module).__name__, ())


def _by_number(module: Any) -> str:
    names: list[str] = list(module.reset_dict)
    return names[int(module.reset_mechanism_val)]


def _refuse_options(module: Any) -> None:
    if module.inhibition:
        raise UnfoldableError("it has inhibition", "use inhibition=False")
    if module.state_quant:
        raise UnfoldableError(
            "it has state_quant: states are quantized for a chip by snn_deploy.quantize",
            "use state_quant=False",
        )
    if (parameter(module.graded_spikes_factor) != 1).any():
        raise UnfoldableError(
            "it has graded spikes", "put graded_spikes_factor into the next layer's weights"
        )


def _decay_and_gain(module: Any, kind: str) -> tuple[Floats, Floats]:
    if kind != "Lapicque":
        return parameter(module.beta.clamp(0, 1)), np.ones(())
    resistance, capacity, step = module.R, module.C, module.time_step
    decay = parameter(1 - step / (resistance * capacity))
    gain = parameter(resistance * (1 / (resistance * capacity)) * step)
    return fraction(decay, "decay"), gain


def _recurrence(module: Any, kind: str) -> tuple[Synapses | Floats | None, Floats | None]:
    if not kind.startswith("R"):
        return None, None
    layer = module.recurrent
    if not module.all_to_all:
        return parameter(layer.V), None
    weight = np.array(layer.weight.detach().double().numpy())
    bias = None if layer.bias is None else np.array(layer.bias.detach().double().numpy())
    if isinstance(layer, nn.Conv2d):
        conv = Conv2d(weight, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
        return conv, None if bias is None else bias.reshape(-1, 1, 1)
    return Dense(weight), bias
