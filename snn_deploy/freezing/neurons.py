"""Training neurons as neurons of the graph."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Integrator, ResetSubtract, ResetTo
from snn_deploy.nn import neurons as training

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FrozenNeurons:
    """Neurons of the graph, and what they ask of their synapses.

    Attributes
    ----------
    neurons : a LIF that spikes, or an integrator; its bias is what acts beside its input.
    gain : factor on all that it is fed, broadcastable to the population per channel.
    delay : timesteps by which their input comes later.
    recurrent : weights [N, N] of a projection to itself with delay 1, or None.
    recurrent_bias : [N], of these synapses.
    """

    neurons: LIF | Integrator
    gain: Floats = field(default_factory=lambda: np.ones(()))
    delay: int = 0
    recurrent: Floats | None = None
    recurrent_bias: Floats | None = None

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
        recurrent = module.recurrent.weight.detach().double().numpy().copy()
    return FrozenNeurons(
        LIF(
            decay=exact.decay.detach().numpy(),
            threshold=threshold,
            bias=zero,
            reset=ResetSubtract(float(threshold)) if module.reset == "subtract" else ResetTo(),
            current_decay=np.array(module.current_decay) if module.current_decay else None,
        ),
        recurrent=recurrent,
    )
