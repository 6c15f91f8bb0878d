"""Random NIR graphs of any of its nodes, and what they do: all numbers dyadic, all sums exact."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tests.helpers.nir_interpreter import Simulator

Array = NDArray[Any]
Shape = tuple[int, ...]
DT = 1e-4


class AnySimulator(Simulator):
    """Runs all nodes of NIR, whoever wrote them, as its equations read in Euler steps."""

    def compute(self, name: str, node: nir.NIRNode, step: int) -> Array:
        known = nir.Affine | nir.Linear | nir.Scale | nir.Conv1d | nir.Conv2d
        known |= nir.SumPool2d | nir.AvgPool2d | nir.Flatten | nir.Threshold
        if not isinstance(node, known):
            return super().compute(name, node, step)
        arriving = [self.value(source, step) for source in self.sources[name]]
        x = np.sum(np.broadcast_arrays(*arriving), axis=0)
        return stateless(node, x)


def stateless(node: nir.NIRNode, x: Array) -> Array:
    """A node without state, by torch."""
    if isinstance(node, nir.Threshold):
        return np.asarray(x > node.threshold, np.float64)
    if isinstance(node, nir.Scale):
        return np.asarray(x * node.scale)
    if isinstance(node, nir.Flatten):
        end = node.end_dim % x.ndim + 1
        start = node.start_dim % x.ndim
        return x.reshape(*x.shape[:start], -1, *x.shape[end:])
    batch = torch.from_numpy(np.ascontiguousarray(x, np.float64))[None]
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        window, stride, padding = (
            tuple(int(n) for n in v) for v in (node.kernel_size, node.stride, node.padding)
        )
        divisor = 1 if isinstance(node, nir.SumPool2d) else window[0] * window[1]
        padded = functional.pad(batch, (padding[1], padding[1], padding[0], padding[0]))
        pooled = functional.avg_pool2d(padded, window, stride, divisor_override=divisor)
        return np.asarray(pooled[0].numpy())
    weight = torch.from_numpy(node.weight.astype(np.float64))
    bias = None
    if not isinstance(node, nir.Linear):
        bias = torch.from_numpy(node.bias.astype(np.float64))
    if isinstance(node, nir.Affine | nir.Linear):
        return np.asarray(functional.linear(batch, weight, bias)[0].numpy())
    convolve = functional.conv1d if isinstance(node, nir.Conv1d) else functional.conv2d
    pairs = [_plain(node.stride), 0 if isinstance(node.padding, str) else _plain(node.padding)]
    if isinstance(node.padding, str) and node.padding == "same":  # torch warns of what is odd
        around = [n - 1 for n in reversed(node.weight.shape[2:])]
        batch = functional.pad(batch, [side for n in around for side in (n // 2, n - n // 2)])
    found = convolve(batch, weight, bias, *pairs, _plain(node.dilation), int(node.groups))  # type: ignore[operator]
    return np.asarray(found[0].numpy())


def _plain(value: Any) -> Any:
    return int(value) if np.ndim(value) == 0 else tuple(int(n) for n in value)


class Builder:
    """Grows a graph of random nodes.

    ``bounded``: no state survives in which dyadic sums could outgrow float64 within a short run.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []

    def pick(self, *values: Any) -> Any:
        return values[self.random.integers(len(values))]

    def dyadic(self, shape: Shape | int, low: int = -8, high: int = 9, unit: float = 0.25) -> Array:
        return np.asarray(self.random.integers(low, high, shape) * unit, np.float64)

    def add(self, node: nir.NIRNode, *sources: str) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    # ---- nodes without state ----

    def linear(self, source: str, shape: Shape, size: int | None = None) -> tuple[str, Shape]:
        """One node that takes a shape; dense of ``size`` if that is given."""
        kinds = ["scale", "delay", "dense", "dense"]
        if len(shape) == 3:
            kinds = ["conv", "conv", "pool", "pool", "scale", "delay", "flatten", "nothing"]
        if len(shape) == 2:
            kinds = ["conv1d", "conv1d", "scale", "delay", "flatten"]
        kind = self.pick(*kinds) if size is None else "dense"
        if kind == "dense":
            if len(shape) > 1:
                source, shape = self.flatten(source, shape)
            made = size or int(self.random.integers(2, 6))
            weight = self.dyadic((made, shape[0]))
            if self.pick(True, False):
                return self.add(nir.Linear(weight), source), (made,)
            return self.add(nir.Affine(weight, self.dyadic(made, -1, 2)), source), (made,)
        if kind == "scale":
            return self.add(nir.Scale(self.scale(shape)), source), shape
        if kind == "delay":
            waits = self.random.integers(0, 3, shape)
            if self.pick(True, False):
                waits = np.full(shape, self.random.integers(0, 3))
            return self.add(nir.Delay(waits * DT), source), shape
        if kind == "flatten":
            return self.flatten(source, shape)
        if kind == "nothing":
            return source, shape
        return self.window(kind, source, shape)

    def scale(self, shape: Shape) -> Array:
        """Factors for all, per channel or per neuron."""
        per = self.pick((), (shape[0], *[1] * (len(shape) - 1)), shape)
        return np.broadcast_to(self.random.choice([0.5, 1, 2, -1], per), shape).copy()

    def flatten(self, source: str, shape: Shape) -> tuple[str, Shape]:
        node = nir.Flatten({"input": np.array(shape)}, -len(shape), -1)
        return self.add(node, source), (int(np.prod(shape)),)

    def window(self, kind: str, source: str, shape: Shape) -> tuple[str, Shape]:
        """A convolution or pool that fits."""
        sizes = shape[1:]
        kernel = tuple(int(self.random.integers(1, min(3, n) + 1)) for n in sizes)
        stride = tuple(int(self.random.integers(1, 3)) for _ in sizes)
        padding = tuple(int(self.random.integers(0, 2)) for _ in sizes)
        if kind == "pool":
            padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
            node = self.pick(nir.SumPool2d, nir.AvgPool2d)
            if node is nir.AvgPool2d:  # so that means stay dyadic
                kernel = tuple(1 if k == 3 else k for k in kernel)
                padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
            made: nir.NIRNode = node(np.array(kernel), np.array(stride), np.array(padding))
        else:
            groups = self.pick(1, 1, shape[0])
            channels = groups * int(self.random.integers(1, 3))
            weight = self.dyadic((channels, shape[0] // groups, *kernel), -4, 5)
            bias = self.dyadic(channels, -1, 2)
            said: Any = padding
            if self.pick(True, False, False):
                said = self.pick("same", "valid")
                stride = tuple(1 for _ in sizes) if said == "same" else stride
            if kind == "conv1d":
                said = said if isinstance(said, str) else said[0]
                made = nir.Conv1d(sizes[0], weight, stride[0], said, 1, groups, bias)
            else:
                dilation = tuple(1 for _ in sizes)
                made = nir.Conv2d(sizes, weight, stride, said, dilation, groups, bias)
        if isinstance(made, nir.Conv2d) and made.padding not in ("same", "valid"):
            made.padding = np.array(made.padding)
        shape = stateless(made, np.zeros(shape)).shape
        made.output_type = {"output": np.array(shape)}  # pools do not know
        return self.add(made, source), shape

    # ---- neurons ----

    def neurons(self, shape: Shape, *sources: str, kind: str | None = None) -> str:
        """Neurons of a kind; parameters for all or per neuron."""
        kind = kind or self.pick("LIF", "IF", "CubaLIF", "Threshold")

        def each(*values: float) -> Array:
            one = self.random.choice(values, shape)
            return one if self.pick(True, False) else np.full(shape, one.flat[0])

        zero, one = np.zeros(shape), np.ones(shape)
        tau, tau_syn = DT * each(1, 2, 4), DT * each(1, 2, 4)
        threshold, reset = each(0.5, 1, 2), np.full(shape, self.pick(0, 0, 0.25, -0.5))
        leak = self.pick(zero, zero, each(0, 0.25))
        r = self.pick(one, tau / DT, each(1, 2))
        made: nir.NIRNode
        if kind == "LIF":
            made = nir.LIF(tau, r, leak, threshold, reset)
        elif kind == "IF":
            made = nir.IF(each(1, 0.5) / DT, threshold, reset)
        elif kind == "CubaLIF":
            made = nir.CubaLIF(
                tau_syn, tau, r, leak, threshold, reset, self.pick(one, tau_syn / DT)
            )
        elif kind == "Threshold":
            made = nir.Threshold(threshold)
        elif kind == "LI":
            made = nir.LI(tau, r, leak)
        elif kind == "I":
            made = nir.I(each(1, 0.5) / DT)
        else:
            made = nir.CubaLI(tau_syn, tau, r, leak, one)
        return self.add(made, *sources)

    # ---- graphs ----

    def between(self, source: str, shape: Shape) -> tuple[str, Shape]:
        """A few nodes without state."""
        for _ in range(int(self.random.integers(1, 4))):
            source, shape = self.linear(source, shape)
        return source, shape

    def graph(self) -> nir.NIRGraph:
        """One input, one to three layers with joins and loops, one output."""
        shape: Shape = self.pick((4,), (2, 6), (2, 5, 6), (1, 4, 4))
        last = "input"
        self.nodes["input"] = nir.Input({"input": np.array(shape)})
        for _ in range(int(self.random.integers(1, 4))):
            before, size = last, shape
            source, shape = self.between(last, shape)
            sources = [source]
            if self.pick(True, False, False) and shape == size and source != before:
                sources.append(before)
            elif self.pick(True, False, False) and len(shape) == 1:
                sources.append(self.linear(before, size, shape[0])[0])
            last = self.neurons(shape, *sources)
            if self.pick(True, False, False):
                self.loop(last, shape)
        end = self.pick("spikes", "current", "LI", "I", "CubaLI")
        if end != "spikes":
            last, shape = self.linear(last, shape, 3)
        if end not in ("spikes", "current"):
            last = self.neurons(shape, last, kind=end)
        self.nodes["output"] = nir.Output({"output": np.array(shape)})
        self.edges.append((last, "output"))
        order = self.random.permutation(len(self.edges))
        return nir.NIRGraph(self.nodes, [self.edges[i] for i in order], type_check=False)

    def loop(self, name: str, shape: Shape) -> None:
        """Synapses from neurons to themselves; what says no delay takes a timestep."""
        source = name
        if len(shape) > 1:
            if self.pick(True, False):
                self.edges.append((self.add(nir.Scale(self.scale(shape)), source), name))
            return
        if self.pick(True, False, False):
            source = self.add(nir.Delay(np.full(shape, DT * self.pick(1, 2))), source)
        weight = self.dyadic((shape[0], shape[0]), -2, 3)
        node = self.pick(nir.Linear(weight), nir.Affine(weight, self.dyadic(shape[0], -1, 2)))
        self.edges.append((self.add(node, source), name))
