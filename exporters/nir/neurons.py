"""The NIR nodes of a population, by dialect.

``portable`` (snnTorch, Norse and SpikingJelly, told dt = 1e-4 s) is Euler's method, which all three
use: ``tau = dt / (1 - kept)``. A LIF with ``r = 1`` then holds our membrane times (1 - kept), which
all of them read alike; where the membranes of a population decay at several rates, or at once, or
where a current has a memory, a CubaLIF with ``r = tau_mem / dt`` and ``w_in = tau_syn / dt`` holds
the membrane itself. They compare with ``>`` or ``>=``: the threshold lies 2^-22 below ours, so that
both fire on a tie and nothing else is met in float32.

``sinabs`` (3.1) multiplies by ``exp(-1/tau)``, tau in timesteps, ignores ``r`` and fires where the
membrane divided by the threshold, cut to an integer, is not zero: no margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import nir
import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.values import Dynamics, Float

from snn_deploy.errors import SnnDeployError

DialectName = Literal["portable", "sinabs"]
DIALECTS: tuple[DialectName, ...] = get_args(DialectName)

# Length of a timestep in the unit of a file's time constants: seconds, or timesteps.
TIMESTEP: dict[DialectName, float] = {"portable": 1e-4, "sinabs": 1.0}

TIE_MARGIN = 2.0**-22

# What never decays, in timesteps: 1 - 2^-60 is 1 in float64, and 2^60 times a weight a float32.
LOSSLESS = 2.0**60

Array = NDArray[Any]


def dialect_named(name: str) -> DialectName:
    """The dialect of this name.

    Raises
    ------
    SnnDeployError
        SD105 for any other.
    """
    for known in DIALECTS:
        if name == known:
            return known
    raise SnnDeployError(
        "SD105", f"no dialect {name!r} of NIR files", fix=f"known: {', '.join(DIALECTS)}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """What a population becomes.

    ``current`` filters the synaptic current where that is a node of its own; ``body`` holds the
    membranes. Both are None where the current itself is the output.
    """

    current: nir.NIRNode | None
    body: nir.NIRNode | None


def nodes_of(
    neurons: Dynamics, drive: Float | None, dialect: DialectName, *, apart: bool, where: str
) -> Nodes:
    """The nodes of a population.

    Parameters
    ----------
    drive : a constant current into the membrane that no synapse carries, of the population's shape.
    apart : something bypasses the filter of the current, which then is a node of its own.
    where : the population's name.

    Raises
    ------
    SnnDeployError
        SD204 for a drive in sinabs' dialect.
    """
    if dialect == "portable":
        return _portable(neurons, drive, apart=apart)
    if drive is not None:
        raise SnnDeployError(
            "SD204",
            "sinabs cannot say a bias per neuron here",
            where=where,
            fix="write the dialect `portable`",
        )
    return _sinabs(neurons)


def _portable(neurons: Dynamics, drive: Float | None, *, apart: bool) -> Nodes:
    dt, zero = TIMESTEP["portable"], np.zeros(neurons.kept.shape)
    push = zero if drive is None else drive
    tau, current, tau_syn = _tau(neurons.kept, dt), None, None
    if neurons.current_kept is not None:
        tau_syn = _tau(neurons.current_kept, dt)
        if apart:
            current = nir.LI(tau=tau_syn, r=tau_syn / dt, v_leak=zero)
            tau_syn = None
    if neurons.threshold is None:
        if tau_syn is not None:
            return Nodes(
                None,
                nir.CubaLI(
                    tau_syn=tau_syn,
                    tau_mem=tau,
                    r=tau / dt,
                    v_leak=push * (tau / dt),
                    w_in=tau_syn / dt,
                ),
            )
        if drive is None and (neurons.kept == 0).all():
            return Nodes(current, None)
        if drive is None and (neurons.kept == 1).all():
            return Nodes(current, nir.I(r=zero + 1 / dt))
        return Nodes(current, nir.LI(tau=tau, r=tau / dt, v_leak=push * (tau / dt)))
    level = neurons.threshold
    level = level - TIE_MARGIN * np.where(level == 0, 1, np.abs(level))
    kept = float(neurons.kept.flat[0])
    alike = tau_syn is None and bool((neurons.kept == kept).all())
    lost = 1.0
    if alike and kept == 1 and drive is None:
        body: nir.NIRNode = nir.IF(r=zero + 1 / dt, v_threshold=level, v_reset=zero + neurons.reset)
    elif alike and 0 < kept < 1:
        lost = 1 - kept
        body = nir.LIF(
            tau=tau,
            r=zero + 1,
            v_leak=push,
            v_threshold=lost * level,
            v_reset=zero + lost * neurons.reset,
        )
    else:
        tau_syn = zero + dt if tau_syn is None else tau_syn
        body = nir.CubaLIF(
            tau_syn=tau_syn,
            tau_mem=tau,
            r=tau / dt,
            v_leak=push * (tau / dt),
            v_threshold=level,
            v_reset=zero + neurons.reset,
            w_in=tau_syn / dt,
        )
    body.metadata = _unsaid(neurons, lost)
    return Nodes(current, body)


def _tau(kept: Float, dt: float) -> Float:
    """The time constant of what Euler's method keeps; finite for what never decays, too."""
    lost = 1 - kept
    return np.asarray(dt / np.where(lost == 0, 1 / LOSSLESS, lost))


def _sinabs(neurons: Dynamics) -> Nodes:
    zero, one = np.zeros(neurons.kept.shape), np.ones(neurons.kept.shape)
    current = None
    if neurons.current_kept is not None:
        current = nir.LI(tau=_steps(neurons.current_kept), r=one, v_leak=zero)
    tau = _steps(neurons.kept)
    if neurons.threshold is None:
        forgets = bool((neurons.kept == 0).all())
        return Nodes(current, None if forgets else nir.LI(tau=tau, r=one, v_leak=zero))
    body = nir.LIF(
        tau=tau,
        r=one,
        v_leak=zero,
        v_threshold=neurons.threshold,
        v_reset=zero + neurons.reset,
        metadata=_unsaid(neurons, 1.0),
    )
    return Nodes(current, body)


def _steps(kept: Float) -> Float:
    """The time constant, in timesteps, of which exp(-1/tau) is kept: 0 to infinity."""
    with np.errstate(divide="ignore"):
        return np.where(kept == 1, np.inf, -1 / np.log(np.where(kept == 1, 0.5, kept)))


def _unsaid(neurons: Dynamics, unit: float) -> dict[str, Any]:
    """What the format has no place for, as metadata of the node; amounts in the node's units."""
    if neurons.amount is None:
        return {}
    said = {"reset": "subtract", "reset_amount": neurons.amount * unit}
    return said | ({"max_spikes": neurons.max_spikes} if neurons.max_spikes > 1 else {})
