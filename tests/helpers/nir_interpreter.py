"""A small simulator of NIR graphs, independent of what wrote them: float64, step by step.

An edge that closes a loop hands over what its source sent a timestep ago, unless a Delay lies in
the loop. How a spike resets is read from the node's metadata where the format has no place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from snn_deploy.exporters.nir.encoding import encode
from snn_deploy.exporters.nir.neurons import DialectName
from torch.nn.functional import avg_pool2d, conv2d

from snn_deploy.graph import LIF, Graph, InputSpec
from snn_deploy.numerics import firing_level
from tests.helpers.graphs import Case

Array = NDArray[Any]
Fires = Callable[[Array, Array], Array]


class Simulator:
    """Runs a graph of one dialect over inputs [T, ...] by the name of their node."""

    def __init__(self, graph: nir.NIRGraph, dialect: str, fires: Fires = np.greater_equal) -> None:
        self.graph, self.fires = graph, fires
        self.exponential = dialect == "sinabs"
        self.dt = 1.0 if self.exponential else 1e-4
        self.sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What every node sends at every timestep, [T, ...]."""
        self.inputs, self.state = inputs, {name: {} for name in self.graph.nodes}
        self.sent: dict[tuple[str, int], Array] = {}
        self.busy: set[tuple[str, int]] = set()
        steps = len(next(iter(inputs.values())))
        return {
            name: np.stack([self.value(name, t) for t in range(steps)]) for name in self.graph.nodes
        }

    def value(self, name: str, step: int) -> Array:
        node = self.graph.nodes[name]
        if (name, step) in self.busy:  # the loop closes here
            return self.value(name, step - 1)
        if step < 0:
            shape = node.output_type["output"]
            return np.zeros(tuple(int(n) for n in np.ravel(shape)))
        if (name, step) not in self.sent:
            self.busy.add((name, step))
            self.sent[name, step] = self.compute(name, node, step)
            self.busy.remove((name, step))
        return self.sent[name, step]

    def compute(self, name: str, node: nir.NIRNode, step: int) -> Array:
        if isinstance(node, nir.Input):
            return np.asarray(self.inputs[name][step], np.float64)
        if isinstance(node, nir.Delay):
            (source,) = self.sources[name]
            waits = np.rint(node.delay / self.dt).astype(int)
            assert np.allclose(waits * self.dt, node.delay)
            found = np.zeros(waits.shape)
            for wait in np.unique(waits):
                found = np.where(waits == wait, self.value(source, step - int(wait)), found)
            return found
        if isinstance(node, nir.LIF | nir.IF | nir.CubaLIF | nir.LI | nir.I | nir.CubaLI):
            for earlier in range(step):  # states follow each other
                self.value(name, earlier)
        arriving = [self.value(source, step) for source in self.sources[name]]
        x = arriving[0]
        for more in arriving[1:]:
            assert more.shape == x.shape
            x = x + more
        if isinstance(node, nir.Output):
            return x
        if isinstance(node, nir.Affine | nir.Conv2d | nir.SumPool2d | nir.Flatten):
            return stateless(node, x)
        return self.neurons(node, x, self.state[name])

    def neurons(self, node: nir.NIRNode, x: Array, state: dict[str, Array]) -> Array:
        v = state.get("v", np.zeros(x.shape))
        if isinstance(node, nir.CubaLIF | nir.CubaLI):
            assert not self.exponential
            i = state.get("i", np.zeros(x.shape))
            i = i + self.dt / node.tau_syn * (node.w_in * x - i)
            state["i"] = i
            v = v + self.dt / node.tau_mem * (node.v_leak - v + node.r * i)
        elif isinstance(node, nir.IF | nir.I):
            assert not self.exponential
            v = v + self.dt * node.r * x
        elif self.exponential:
            assert (node.v_leak == 0).all()
            assert (node.r == 1).all()
            with np.errstate(divide="ignore"):
                v = v * np.exp(-1 / node.tau) + x
        else:
            v = v + self.dt / node.tau * (node.v_leak - v + node.r * x)
        if isinstance(node, nir.LI | nir.I | nir.CubaLI):
            state["v"] = v
            return v
        fired = np.asarray(self.fires(v, node.v_threshold), np.float64)
        if node.metadata.get("reset") == "subtract":
            amount, most = node.metadata["reset_amount"], node.metadata.get("max_spikes", 1)
            left = v - fired * amount
            while most > 1 and (again := fired * self.fires(left, node.v_threshold)).any():
                more = np.where(fired < most, again > 0, 0)
                if not more.any():
                    break
                fired, left = fired + more, left - more * amount
            state["v"] = left
        else:
            state["v"] = np.where(fired > 0, node.v_reset, v)
        return fired


def stateless(node: nir.NIRNode, x: Array) -> Array:
    if isinstance(node, nir.Flatten):
        assert (node.start_dim, node.end_dim) == (-x.ndim, -1)
        return x.reshape(-1)
    if isinstance(node, nir.Affine):
        return np.asarray(node.weight.astype(np.float64) @ x + node.bias.astype(np.float64))
    batch = torch.from_numpy(x[None])
    if isinstance(node, nir.SumPool2d):
        assert (node.padding == 0).all()
        window, stride = (tuple(v.tolist()) for v in (node.kernel_size, node.stride))
        return np.asarray(avg_pool2d(batch, window, stride, divisor_override=1).numpy()[0])
    assert isinstance(node, nir.Conv2d)
    assert node.groups == 1
    assert node.weight.shape[2] == node.weight.shape[3]
    weight, bias = (torch.from_numpy(v.astype(np.float64)) for v in (node.weight, node.bias))
    pairs = (tuple(int(n) for n in p) for p in (node.stride, node.padding, node.dilation))
    return np.asarray(conv2d(batch, weight, bias, *pairs).numpy()[0])


# --- against our own simulator ------------------------------------------------------------------


def given_values(spec: InputSpec, case: Case, steps: int) -> Array:
    """What the file's input is fed, [N, T, ...]: spikes, or normalised values on the grid."""
    if spec.always_fires:
        return np.ones((case.recording.samples, steps, *spec.shape))
    single = len(case.graph.fed) == 1
    held = case.recording.spikes if spec.kind == "spikes" else case.recording.values
    raw = held[""] if single and "" in held else held[spec.name]
    if spec.kind == "spikes":
        found = raw.astype(np.float64)
    else:
        found = spec.encode(raw) * (spec.scale or 1.0)
    if spec.kind == "constant":
        found = np.repeat(found[:, None], steps, axis=1)
    missing = max(0, steps - found.shape[1])
    return np.pad(found, [(0, 0), (0, missing), *[(0, 0)] * (found.ndim - 2)])[:, :steps]


def unit_of(graph: Graph) -> float:
    return 1.0 if graph.number_format is None else 2.0**graph.number_format.fraction_bits


def nearly_fires(case: Case) -> bool:
    """Whether a membrane stays so little below its threshold that a margin for ties bridges it."""
    form, trace = case.graph.number_format, case.run("reference")
    for population in case.graph.spiking():
        neurons = population.neurons
        assert isinstance(neurons, LIF)
        level = neurons.threshold
        if form is not None:
            level = firing_level(form, level.astype(np.int64))
        silent = trace.spikes[population.name] == 0
        short = (level - trace.membrane[population.name])[silent]
        margin = 2.0**-21 * np.maximum(np.abs(level), 1)
        if ((short > 0) & (short < np.broadcast_to(margin, silent.shape)[silent])).any():
            return True
    return False


def assert_said(
    case: Case, dialect: DialectName = "portable", fires: Fires = np.greater_equal
) -> None:
    """Every spike, and every membrane of a readout, is the same in the simulator of NIR."""
    graph = case.graph
    encoded = encode(graph, dialect)
    trace = case.run("reference")
    simulator = Simulator(encoded.graph, dialect, fires)
    fed = {
        encoded.nodes[spec.name]: given_values(spec, case, case.steps)
        for spec in graph.inputs
        if spec.name in encoded.nodes
    }
    samples = len(next(iter(trace.membrane.values())))
    for sample in range(samples):
        found = simulator.run({name: x[sample] for name, x in fed.items()})
        for population in graph.populations:
            name = population.name
            sent = found[encoded.nodes[name]]
            if isinstance(population.neurons, LIF):
                np.testing.assert_array_equal(sent, trace.spikes[name][sample], err_msg=name)
            else:
                expected = trace.membrane[name][sample] / unit_of(graph)
                np.testing.assert_allclose(sent, expected, rtol=1e-9, atol=1e-9, err_msg=name)
