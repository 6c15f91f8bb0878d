"""Neurons of the training side, over whole sequences [T, B, ...] or step by step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snn_deploy.nn import recurrence
from snn_deploy.nn.noise import draw_seed
from snn_deploy.nn.recurrence import Parameters
from snn_deploy.nn.spikes import LSG, SpikeFunction


class NeuronState(NamedTuple):
    """What a neuron carries from one timestep to the next."""

    state: recurrence.State
    seed: int
    timestep: int
    arriving: Tensor | None = None  # C-LIF: a current that takes effect one step later


class Neuron(nn.Module):
    """Common part: parameters, whole sequences, single steps.

    In evaluation, spikes are Heaviside's and carry no gradient.
    """

    def __init__(self, spike: SpikeFunction) -> None:
        super().__init__()
        self.spike = spike

    def parameters_now(self) -> Parameters:
        """The present parameters of the recurrence."""
        raise NotImplementedError

    def forward(self, current: Tensor, timesteps: int | None = None) -> Tensor:
        """Spikes [T, B, ...] of a current [T, B, ...].

        With ``timesteps`` the current may be [1, B, ...], the same at every timestep.
        """
        steps = len(current) if timesteps is None else timesteps
        return self._run(_full(current), steps, None)[0]

    def step(self, current: Tensor, state: NeuronState | None = None) -> tuple[Tensor, NeuronState]:
        """Spikes [B, ...] of one timestep's current [B, ...], and the state for the next.

        Steps from ``None`` on make the same spikes as the whole sequence at once.
        """
        spikes, state = self._run(_full(current)[None], 1, state)
        return spikes[0], state

    def _run(
        self, current: Tensor, steps: int, state: NeuronState | None
    ) -> tuple[Tensor, NeuronState]:
        emission = self.spike.emission
        if state is None:
            seed = draw_seed() if emission.probability < 1 else 0
            state = NeuronState(recurrence.silence(current), seed, 0)
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            spikes, after = recurrence.run(
                current,
                steps,
                self.parameters_now(),
                emission,
                state.seed,
                state.state,
                state.timestep,
            )
        return spikes, NeuronState(after, state.seed, state.timestep + steps)


class LIF(Neuron):
    """Leaky integrate-and-fire (ASGL, ICML 2023, Eq. 1-4), with options.

    ``u[t] = decay * u[t-1] * (1 - s[t-1]) + c[t]``, ``s[t] = spike(u[t] - threshold)``; the state
    is zero before the first step. The reset path carries gradient (Eq. 6), and in training it uses
    the spike function's own, possibly smooth, output. With a ``current_decay`` the synaptic current
    has a memory, ``i[t] = current_decay * i[t-1] + c[t]`` (CubaLIF); with ``recurrent`` neurons the
    layer feeds back to itself through weights V, ``c[t] += V s[t-1]`` (Eq. 28).

    Parameters
    ----------
    threshold : > 0.
    decay, current_decay : in [0, 1).
    spike : the spike function.
    reset : ``zero`` (hard), or ``subtract`` the threshold.
    learn_decay : train the decay, as sigmoid of a parameter.
    learn_threshold : train the threshold, one per layer, as exponential of a parameter.
    emit : what a spike is to the next layer: 1 (``spike``), or the ``threshold``, as in the papers'
        released code. Reset and recurrent weights see the spike either way.
    shape : of a learned decay: () for one per layer, (C, 1, 1), or the neurons' shape.
    recurrent : number of neurons of a recurrent layer; 0: none.
    """

    def __init__(
        self,
        threshold: float,
        decay: float,
        spike: SpikeFunction,
        *,
        reset: str = "zero",
        current_decay: float = 0.0,
        learn_decay: bool = False,
        learn_threshold: bool = False,
        emit: str = "spike",
        shape: tuple[int, ...] = (),
        recurrent: int = 0,
    ) -> None:
        super().__init__(spike)
        if not 0 < threshold < math.inf or not 0 <= decay < 1:
            raise ValueError(f"threshold {threshold} must be > 0 and decay {decay} in [0, 1)")
        if not 0 <= current_decay < 1:
            raise ValueError(f"current_decay {current_decay} must be in [0, 1)")
        if reset not in ("zero", "subtract"):
            raise ValueError(f"reset {reset!r} must be 'zero' or 'subtract'")
        if emit not in ("spike", "threshold"):
            raise ValueError(f"emit {emit!r} must be 'spike' or 'threshold'")
        if learn_decay and decay == 0:
            raise ValueError("a decay of 0 cannot be learned: start above it")
        self.reset = reset
        self.emit = emit
        self.current_decay = current_decay
        self.fixed_threshold = threshold
        self.fixed_decay = decay
        if learn_threshold:
            self.log_threshold = nn.Parameter(torch.tensor(math.log(threshold)))
        if learn_decay:
            start = math.log(decay / (1 - decay))
            self.decay_logit = nn.Parameter(torch.full(shape, start))
        if recurrent:
            self.recurrent = nn.Linear(recurrent, recurrent, bias=False)

    @property
    def threshold(self) -> Tensor:
        """The threshold, a scalar tensor in float64 unless it is learned."""
        if hasattr(self, "log_threshold"):
            return self.log_threshold.exp()
        return torch.tensor(self.fixed_threshold, dtype=torch.float64)

    @property
    def decay(self) -> Tensor:
        """The decay of the membrane; in float64 unless it is learned."""
        if hasattr(self, "decay_logit"):
            return torch.sigmoid(self.decay_logit)
        return torch.tensor(self.fixed_decay, dtype=torch.float64)

    def parameters_now(self) -> Parameters:
        """The present parameters of the recurrence."""
        threshold, decay = self.threshold, self.decay
        device = self.spike.log_width.device
        return Parameters(
            theta=threshold.to(device),
            decay=decay.to(device),
            width=self.spike.width_for(threshold, decay),
            alpha=torch.tensor(self.current_decay, dtype=torch.float64, device=device)
            if self.current_decay
            else None,
            amount=threshold.to(device) if self.reset == "subtract" else None,
            recurrent=self.recurrent.weight if hasattr(self, "recurrent") else None,
        )

    def _run(
        self, current: Tensor, steps: int, state: NeuronState | None
    ) -> tuple[Tensor, NeuronState]:
        spikes, after = super()._run(current, steps, state)
        if self.emit == "threshold":
            spikes = spikes * self.threshold.to(spikes)
        return spikes, after


class CLIF(Neuron):
    """The three-state neuron of ASGL's Eq. 27 ("C-LIF"), with its misprint mended.

    Per timestep, for weighted input W s::

        c = u0 * W s;  p = current_decay * p + c;  m = decay * m + c
        e[t] = decay * e[t-1] + threshold * s[t-1];  u = m - p - e;  s = spike(u - threshold)

    (printed with ``decay * m[t-1]`` in e, it never fires: then u = -current_decay * p[t-1] -
    threshold * s[t-1]). u0 = 1 / max_n(decay^n - current_decay^n) makes a single input's potential
    peak at its weight. As d = m - e obeys ``d = decay * d + c - threshold * s[t-1]``, this is a LIF
    with synaptic filter whose input ``(decay - current_decay) * u0 * W s`` arrives one step later
    and whose reset subtracts ``threshold / decay``; that is how it is run, and frozen.

    Parameters
    ----------
    threshold : > 0.
    decay, current_decay : of membrane and synapse, exp(-1/tau); 0 <= current_decay < decay < 1.
    spike : the spike function.
    """

    def __init__(
        self, threshold: float, decay: float, current_decay: float, spike: SpikeFunction
    ) -> None:
        super().__init__(spike)
        if not 0 < threshold < math.inf or not 0 <= current_decay < decay < 1:
            raise ValueError(
                f"threshold {threshold} must be > 0, decays 0 <= {current_decay} < {decay} < 1"
            )
        if isinstance(spike, LSG):
            raise ValueError("LSG takes its width from a decay that is learned: use LIF")  # noqa: TRY004
        self.threshold = threshold
        self.decay = decay
        self.current_decay = current_decay

    @property
    def gain(self) -> float:
        """``(decay - current_decay) * u0``, by which the input is multiplied."""
        return (self.decay - self.current_decay) * postsynaptic_scale(
            self.decay, self.current_decay
        )

    @property
    def reset_amount(self) -> float:
        """What a spike subtracts from the membrane: threshold / decay."""
        return self.threshold / self.decay

    def parameters_now(self) -> Parameters:
        """The present parameters of the recurrence."""

        def fixed(value: float) -> Tensor:
            return torch.tensor(value, dtype=torch.float64, device=self.spike.log_width.device)

        return Parameters(
            theta=fixed(self.threshold),
            decay=fixed(self.decay),
            width=self.spike.width,
            alpha=fixed(self.current_decay),
            amount=fixed(self.reset_amount),
        )

    def _run(
        self, current: Tensor, steps: int, state: NeuronState | None
    ) -> tuple[Tensor, NeuronState]:
        current = current.expand(steps, *current.shape[1:]) * self.gain
        before = torch.zeros_like(current[:1])
        if state is not None and state.arriving is not None:
            before = state.arriving
        late = torch.cat([before, current[:-1]])
        spikes, after = super()._run(late, steps, state)
        return spikes, after._replace(arriving=current[-1:])


def postsynaptic_scale(decay: float, current_decay: float) -> float:
    """``u0 = 1 / max_n(decay^n - current_decay^n)``: a single input's potential peaks at 1."""
    peak, n = 0.0, 1
    while True:
        height = decay**n - current_decay**n
        if height <= peak:
            return 1.0 / peak
        peak, n = height, n + 1


def _full(current: Tensor) -> Tensor:
    """Half-precision currents in float32: membranes are never kept in less."""
    return current.float() if current.dtype in (torch.float16, torch.bfloat16) else current


def neurons(module: nn.Module) -> list[Neuron]:
    """All neurons of a network, in order."""
    found: list[Any] = [m for m in module.modules() if isinstance(m, Neuron)]
    return found
