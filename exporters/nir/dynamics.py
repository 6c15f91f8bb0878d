"""Neurons as a file's writer runs them: one timestep, by dialect.

NIR holds differential equations. It says neither how long a timestep is, nor how they become steps,
nor what a spike does to the membrane; every writer has answers of its own (release in brackets):

- ``euler``: ``v += dt/tau*(v_leak - v + r*x)`` from 0 on, spike at ``v > v_threshold``, then
  ``v = v_reset``; a synaptic current first, ``i += dt/tau_syn*(w_in*x - i)``.
- ``snntorch`` [1.0]: the same with dt = 1e-4. A reset may have been by subtraction, a step later:
  the file does not say.
- ``norse`` [1.1]: from v_leak on; ``i += x`` as it is, ``r`` and ``v_reset`` have no effect, and
  the time constants in the file are dt times too small (norse#411).
- ``spikingjelly`` [2.0]: from v_reset on, and a spike at ``v >= v_threshold``.
- ``sinabs`` [3.1]: ``v = a*v + x`` with ``a = exp(-1/tau)``, tau in timesteps; as many spikes as
  thresholds in v, each subtracts one (or, with reset ``zero``, one at v >= threshold: MembraneReset
  and SingleSpike). ``sinabs-norm``: ``v = a*v + (1 - a)*x`` where a neuron fires
  (norm_input).
- ``rockpool`` [3.1]: likewise with ``exp(-dt/tau)``, and ``i = exp(-dt/tau_syn)*(i + x)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.file import Node

Array = NDArray[Any]
Floats = NDArray[np.float64]
ResetName = Literal["zero", "subtract"]

NEURONS = ("CubaLI", "CubaLIF", "I", "IF", "LI", "LIF", "Threshold")
SPIKING = ("CubaLIF", "IF", "LIF", "Threshold")
DIALECTS = ("euler", "snntorch", "norse", "spikingjelly", "sinabs", "sinabs-norm", "rockpool")

# The timestep that a dialect's writer has built in, in seconds (sinabs counts in timesteps).
_FIXED = {"snntorch": 1e-4, "sinabs": 1.0, "sinabs-norm": 1.0}
_SEVERAL_SPIKES = ("sinabs", "sinabs-norm", "rockpool")
# As many as a graph's neuron can fire in one timestep.
MOST_SPIKES = 255
# What float32 leaves of a quotient that was 1.
_CLOSE = 1e-5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dynamics:
    """One step of neurons, counted from where their membrane starts.

    ``i = current_decay*i + gain*x`` (None: ``i = gain*x``), ``v = decay*v + i + drift``; a spike
    where v reaches ``threshold`` (``strict``: exceeds; None: never); then ``v = reset_to``, or less
    ``subtracted``. Each array has one value, or one per neuron in the node's own shape.
    """

    decay: Floats
    gain: Floats
    drift: Floats
    current_decay: Floats | None = None
    threshold: Floats | None = None
    strict: bool = False
    reset_to: Floats | None = None
    subtracted: Floats | None = None
    max_spikes: int = 1


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is read.

    ``dt`` is in the file's unit of time. The reset ``zero`` is to the file's v_reset, if it has one
    that the writer heeds.
    """

    name: str
    dt: float
    reset: ResetName

    def step(self, node: Node) -> Dynamics:
        """The step of a neuron's node.

        Raises
        ------
        SnnDeployError
            SD401 and SD403 for parameters, SD204 for time constants shorter than a timestep and
            for what the writer has not.
        """
        if node.kind == "Threshold":
            one = np.ones(())
            return Dynamics(
                decay=0 * one,
                gain=one,
                drift=0 * one,
                threshold=node.numbers("threshold"),
                strict=True,
                reset_to=0 * one,
            )
        decay, gain, leak, current_decay = _subthreshold(node, self.name, self.dt)
        start = np.zeros(())
        if self.name == "norse":
            start = leak
        elif self.name == "spikingjelly" and node.has("v_reset"):
            start = node.numbers("v_reset")
        dynamics = Dynamics(
            decay=decay, gain=gain, drift=(1 - decay) * (leak - start), current_decay=current_decay
        )
        if node.kind not in SPIKING:
            if start.any():
                raise node.refuse("a membrane that does not start at 0, and is read")
            return dynamics
        return _firing(node, self, dynamics, start)


def dt_of(name: str, given: float | None) -> float | None:
    """The timestep of a dialect: built in, or as given; None if neither."""
    return _FIXED.get(name, given)


def _ratio(dt: float, tau: Array) -> Array:
    """Dt / tau in the precision of the file, so that its writer's numbers come out again.

    Where writers compute in float32, a decay of 0.5 must not come back as 0.49999998: spikes hang
    on it wherever a membrane meets the threshold exactly.
    """
    return np.asarray(np.asarray(dt, tau.dtype) / tau)


def _of_norse(dt: float, tau: Array) -> Array:
    """Dt / time constant, which Norse multiplies by dt once more: exact until it is rounded."""
    step = np.asarray(dt, tau.dtype).astype(np.float64)
    return np.asarray(step * step / tau.astype(np.float64)).astype(tau.dtype)


def _exp(dt: float, tau: Array) -> Floats:
    """exp(-dt / tau), rounded to the file's precision; 0 of a tau of 0."""
    with np.errstate(divide="ignore"):
        kept = np.exp(-dt / tau.astype(np.float64))
    return np.asarray(kept).astype(tau.dtype).astype(np.float64)


def _near_one(value: Array) -> Floats:
    """1 where rounding alone kept a quotient from it."""
    numbers = value.astype(np.float64)
    return np.asarray(np.where(np.abs(numbers - 1) < _CLOSE, 1.0, numbers))


def _time_constant(node: Node, name: str, dialect: str) -> Array:
    """A time constant: infinite where nothing is lost, 0 where an exponential leaves nothing."""
    tau = node.array(name, infinite=True)
    if tau.min() < 0 or (dialect not in _SEVERAL_SPIKES and tau.min() == 0):
        raise node.refuse(f"`{name}` from {tau.min():g} on: time constants are above 0")
    return tau


def _gain(node: Node, lost: Array, factor: str) -> Floats:
    """What arrives, times ``dt/tau`` and the node's own factor; writers put tau/dt there.

    That is 1 for neurons without leak as well, where the one is 0 and the other infinite.
    """
    own = node.array(factor, infinite=True)
    lost, own = np.broadcast_arrays(lost, own)
    endless = (lost == 0) & np.isinf(own)
    if (np.isinf(own) & ~endless).any() or (own == -np.inf).any():
        raise node.refuse(f"`{factor}` holds NaN or infinity", code="SD403")
    return _near_one(np.where(endless, 1, lost * np.where(endless, 1, own)))


def _subthreshold(
    node: Node, dialect: str, dt: float
) -> tuple[Floats, Floats, Floats, Floats | None]:
    """Decay, gain, leak potential and decay of the synaptic current."""
    zero, one = np.zeros(()), np.ones(())
    if node.kind in ("IF", "I"):
        if dialect in ("norse", "sinabs", "sinabs-norm"):
            return one, one, zero, None
        if dialect == "rockpool":
            raise node.refuse("rockpool has no neurons without leak", fix="choose its own dialect")
        return one, _near_one(node.array("r") * np.asarray(dt, node.array("r").dtype)), zero, None
    cuba = node.kind in ("CubaLIF", "CubaLI")
    tau = _time_constant(node, "tau_mem" if cuba else "tau", dialect)
    leak = node.numbers("v_leak")
    if dialect in _SEVERAL_SPIKES:
        return _exponential(node, dialect, dt, tau, cuba)
    lost = _lost(node, dialect, dt, tau)
    gain = lost if dialect == "norse" else _gain(node, lost, "r")
    current_decay = None
    if cuba:
        tau_syn = _time_constant(node, "tau_syn", dialect)
        lost_current = _lost(node, dialect, dt, tau_syn)
        if dialect != "norse":
            gain = gain * _gain(node, lost_current, "w_in")
        current_decay = (1 - lost_current).astype(np.float64)
    return (1 - lost).astype(np.float64), gain.astype(np.float64), leak, current_decay


def _lost(node: Node, dialect: str, dt: float, tau: Array) -> Array:
    """Share that a timestep takes away."""
    lost = _of_norse(dt, tau) if dialect == "norse" else _ratio(dt, tau)
    if lost.max() > 1 + _CLOSE:
        raise node.refuse(
            f"a time constant of {tau.min():g} is shorter than a timestep of {dt:g}",
            fix="give the --dt and the --dialect that the file was written with",
        )
    return np.minimum(lost, np.ones((), lost.dtype))


def _exponential(
    node: Node, dialect: str, dt: float, tau: Array, cuba: bool
) -> tuple[Floats, Floats, Floats, Floats | None]:
    """Of sinabs and rockpool, which decay as the solution does."""
    decay = _exp(dt, tau)
    if node.numbers("v_leak").any():
        raise node.refuse(f"a `v_leak` other than 0, which {dialect} does not know")
    if dialect == "rockpool":
        _check_dt(node, tau, dt)
    if not cuba:
        if dialect == "sinabs-norm" and node.kind == "LIF":
            return decay, 1 - decay, np.zeros(()), None
        gain = decay if dialect == "rockpool" and node.kind == "LI" else np.ones(())
        return decay, gain, np.zeros(()), None
    if dialect != "rockpool":
        raise node.refuse("sinabs writes no synaptic currents", fix="choose its own dialect")
    current_decay = _exp(dt, _time_constant(node, "tau_syn", dialect))
    return decay, current_decay, np.zeros(()), current_decay


def _check_dt(node: Node, tau: Array, dt: float) -> None:
    """Rockpool writes r = tau/dt * exp(-dt/tau): that tells whether dt is right."""
    if tau.min() == 0 or np.isinf(tau).any():
        raise node.refuse("a time constant of 0 or without end, which rockpool has not")
    ratio = tau.astype(np.float64) / dt
    expected = ratio * np.exp(-1 / ratio)
    if not np.allclose(node.numbers("r"), expected, rtol=1e-3):
        raise node.refuse(
            f"`r` from {node.numbers('r').min():g} on does not go with a timestep of {dt:g}",
            why="rockpool writes r = tau/dt * exp(-dt/tau)",
            fix="give the --dt of the network that was exported, or the file's own dialect",
        )


def _firing(node: Node, dialect: Dialect, below: Dynamics, start: Floats) -> Dynamics:
    """Add threshold and reset."""
    threshold = node.numbers("v_threshold")
    reset_to: Floats | None = np.zeros(())
    subtracted: Floats | None = None
    if dialect.reset == "subtract":
        reset_to, subtracted = None, threshold
        if dialect.name == "snntorch":  # a step later, so that the decay has no part in it
            if (below.decay == 0).any():
                raise node.refuse("a reset by subtraction a timestep later, with a decay of 0")
            subtracted = threshold / below.decay
    elif dialect.name in ("euler", "spikingjelly") and node.has("v_reset"):
        reset_to = node.numbers("v_reset")
    several = dialect.name in _SEVERAL_SPIKES and dialect.reset == "subtract"
    return replace(
        below,
        threshold=threshold - start,
        strict=dialect.name not in ("spikingjelly", *_SEVERAL_SPIKES),
        reset_to=None if reset_to is None else reset_to - start,
        subtracted=subtracted,
        max_spikes=MOST_SPIKES if several else 1,
    )
