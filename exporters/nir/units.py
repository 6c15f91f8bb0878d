"""Neurons of a graph, of a file's step: which unit its membrane is counted in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.nir.dynamics import Dynamics
from snn_deploy.exporters.nir.file import Node

from snn_deploy.graph import LIF, Integrator, Neurons, Readout, ResetSubtract, ResetTo
from snn_deploy.synapses import Shape

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Step:
    """A step in the graph's units: ``i = current_decay*i + factor*x``, ``u = decay*u + i + drift``.

    A spike where u reaches ``threshold`` (None: never), then u = ``reset_to``, or less
    ``subtracted``: one value for all.
    """

    decay: Floats
    factor: Floats
    drift: Floats
    current_decay: Floats | None
    threshold: Floats | None
    reset_to: float
    subtracted: float | None
    max_spikes: int


def step_in_units(node: Node, dynamics: Dynamics) -> Step:
    """Choose the unit of a membrane.

    In units of the gain, weights stay as the file has them, except where membranes are read.
    Another unit is needed where what a reset leaves or takes would differ between the neurons of a
    population.

    Raises
    ------
    SnnDeployError
        SD204 where no unit makes resets the same.
    """
    unit = _unit(node, dynamics)
    level, subtracted, reset_to = dynamics.threshold, dynamics.subtracted, dynamics.reset_to
    if level is not None:
        level = level / unit
        if dynamics.strict:  # what must be exceeded: reaching the next number is that
            level = np.nextafter(level, np.inf)
    return Step(
        decay=dynamics.decay,
        factor=np.asarray(dynamics.gain / unit),
        drift=np.asarray(dynamics.drift / unit),
        current_decay=dynamics.current_decay,
        threshold=level,
        reset_to=0.0 if reset_to is None else float((reset_to / unit).flat[0]),
        subtracted=None if subtracted is None else float((subtracted / unit).flat[0]),
        max_spikes=dynamics.max_spikes,
    )


def _unit(node: Node, dynamics: Dynamics) -> Floats:
    gain, left = dynamics.gain, dynamics.subtracted
    if dynamics.threshold is None:  # the membrane is what is read
        return np.ones(())
    if left is not None and left.min() <= 0:
        raise node.refuse("a reset that subtracts nothing, or less")
    if left is None:
        left = np.zeros(()) if dynamics.reset_to is None else dynamics.reset_to
    if gain.min() > 0 and len(np.unique(left / gain)) == 1:
        return gain
    if len(np.unique(left)) == 1:
        return np.ones(())
    if left.min() * left.max() <= 0:
        raise node.refuse("resets to values of different sign in one population")
    return np.abs(left)


def neurons_of(node: Node, step: Step, bias: Floats, shape: Shape, readout: Readout) -> Neurons:
    """Neurons of a population of this shape; ``bias`` is that of what arrives."""

    def parameter(value: Array) -> Floats:
        return compact(in_shape(node, value, shape))

    decay = parameter(step.decay)
    memory = None if step.current_decay is None else parameter(step.current_decay)
    bias = parameter(bias + in_shape(node, step.drift, shape))
    if step.threshold is None:
        return Integrator(decay=decay, bias=bias, readout=readout, current_decay=memory)
    taken = step.subtracted
    return LIF(
        decay=decay,
        threshold=parameter(step.threshold),
        bias=bias,
        reset=ResetTo(step.reset_to) if taken is None else ResetSubtract(taken),
        current_decay=memory,
    )


def in_shape(node: Node, value: Array, shape: Shape) -> Floats:
    """One value for all, or one per neuron in the population's shape."""
    numbers = np.asarray(value, np.float64)
    if numbers.size == 1:
        return numbers.reshape(())
    if numbers.size != int(np.prod(shape)):
        raise node.refuse(f"a parameter of shape {numbers.shape} for neurons of shape {shape}")
    return numbers.reshape(shape)


def compact(value: Floats) -> Floats:
    """One value for all, or one per channel, where that says as much."""
    if value.ndim == 0 or (value == value.flat[0]).all():
        return np.array(value.flat[0])
    rows = value.reshape(len(value), -1)
    if (rows == rows[:, :1]).all():
        return rows[:, 0].reshape(-1, *[1] * (value.ndim - 1)).copy()
    return value
