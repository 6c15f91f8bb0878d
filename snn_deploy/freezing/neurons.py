"""Training neurons as neurons of the graph."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Integrator, ResetSubtract, ResetTo
from snn_deploy.nn import neurons as training
from snn_deploy.synapses import Dense, Synapses

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FrozenNeurons:
    """Neurons of the graph, and what they ask of their synapses.

    Attributes
    ----------
    neurons : a LIF that spikes, or an integrator; its bias is what acts beside its input.
    gain : factor on all that it is fed, broadcastable to the population per channel.
    amplitude : what the module emits for a spike; it goes into the weights of whoever reads it.
    delay : timesteps by which their input comes later.
    recurrent : synapses of a projection to itself with delay 1, or None. An array instead: one
        synapse from each neuron to itself, broadcastable to the population per channel.
    recurrent_bias : of these synapses, broadcastable to the population.
    offset : what the module's arithmetic adds to its membrane and the graph's does not, such as a
        resting potential: it counts for rounding only. Broadcastable to the population.
    """

    neurons: LIF | Integrator
    gain: Floats = field(default_factory=lambda: np.ones(()))
    amplitude: float = 1.0
    delay: int = 0
    recurrent: Synapses | Floats | None = None
    recurrent_bias: Floats | None = None
    offset: Floats = field(default_factory=lambda: np.zeros(()))

    @property
    def spiking(self) -> bool:
        """Whether they spike."""
        return isinstance(self.neurons, LIF)

    @staticmethod
    def any_spike() -> FrozenNeurons:
        """Neurons without memory that fire where at least one spike arrives."""
        return FrozenNeurons(LIF(decay=np.array(0.0), threshold=np.array(1.0), bias=np.array(0.0)))


def freeze_neurons(module: training.Neuron) -> FrozenNeurons:
    """Take over decays, threshold and reset, in float64.

    C-LIF (ASGL, Eq. 27 with its misprint mended) becomes its equivalent LIF with a synaptic filter:
    input one timestep later and multiplied by ``(decay - current_decay) * u0``, reset by
    subtraction of threshold / decay.
    """
    zero = np.array(0.0)
    if isinstance(module, training.CLIF):
        return FrozenNeurons(
            LIF(
                decay=np.array(module.decay),
                threshold=np.array(module.threshold),
                bias=zero,
                reset=ResetSubtract(module.reset_amount),
                current_decay=np.array(module.current_decay),
            ),
            gain=np.array(module.gain),
            delay=1,
        )
    if not isinstance(module, training.LIF):
        raise ValueError("of an unknown kind")  # noqa: TRY004
    # learned parameters are evaluated in float64; what float32 makes of them is a rounding error
    exact = copy.deepcopy(module).double()
    threshold = exact.threshold.detach().numpy()
    recurrent = None
    if hasattr(module, "recurrent"):
        recurrent = Dense(module.recurrent.weight.detach().double().numpy().copy())
    return FrozenNeurons(
        LIF(
            decay=exact.decay.detach().numpy(),
            threshold=threshold,
            bias=zero,
            reset=ResetSubtract(float(threshold)) if module.reset == "subtract" else ResetTo(),
            current_decay=np.array(module.current_decay) if module.current_decay else None,
        ),
        amplitude=float(threshold) if module.emit == "threshold" else 1.0,
        recurrent=recurrent,
    )


def same_neurons(one: FrozenNeurons, other: FrozenNeurons) -> bool:
    """Whether all parameters are equal."""
    return _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return all(
            _equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    return type(one) is type(other) and np.array_equal(one, other)
