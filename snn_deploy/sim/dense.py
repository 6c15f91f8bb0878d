"""The dense engine: whole layers in torch, every synapse multiplied, exactly.

Populations are run one after another over all timesteps, loops step by step; some samples and
timesteps at a time, so that sums and states stay near the processor. Only spikes are kept for
later: one byte per neuron and timestep. Integer graphs only; identical to
:mod:`snn_deploy.sim.reference` in spikes, membranes, currents and counts.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Projection
from snn_deploy.sim.dense_blocks import Block, Kept, Synapses, proof_of
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.trace import Record, Trace
from snn_deploy.synapses import Shape, as_map

Array = NDArray[Any]

# Spikes that are kept at a time.
_KEPT_BYTES = 256 << 20
# Neurons stepped at a time, so that their states stay in the second cache, and sums held for them.
_NEURONS = 1 << 16
_SUMS = 1 << 20


class DenseEngine:
    """A graph's weights as tensors on a device, made once, run on any number of batches.

    Parameters
    ----------
    graph : an integer graph.
    device : as torch names it. Only CPUs are tested.
    threads : that share the work on a CPU; default: as many as torch has.

    Raises
    ------
    SnnDeployError
        SD105 if torch has no such device here.
    """

    def __init__(self, graph: Graph, device: str = "cpu", threads: int | None = None) -> None:
        if graph.number_format is None:
            raise ValueError("the dense engine runs integer graphs only")
        self.graph, self.threads = graph, threads
        self.synapses = Synapses(graph, _device(device))
        self.fan_out = {p.name: graph.fan_out(p).reshape(-1) for p in graph.projections}

    def run(self, plan: Plan) -> Trace:
        """Run one batch."""
        places = sum(p.size for p in self.graph.populations)
        places += sum(int(np.prod(spec.shape)) for spec in self.graph.inputs)
        samples = max(1, _KEPT_BYTES // (plan.steps * places))
        with torch.inference_mode(), _exact_products():
            return Trace.joined(
                _Run(self, plan.part(start, min(start + samples, plan.samples))).trace()
                for start in range(0, plan.samples, samples)
            )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SnnDeployError(
            "SD105",
            f"torch cannot compute on a device {name!r} here",
            why=str(error).partition(". ")[0],
            fix="use `cpu`",
        ) from None
    return device


def _share(
    work: Callable[[int], None], each: range, device: torch.device, threads: int | None
) -> None:
    """Do ``work`` on each; on a CPU in so many threads, or torch's, every one by itself.

    Were every operation of a block shared instead, threads would wait for each other at each.
    """
    before = torch.get_num_threads()
    threads = threads or before
    try:
        if min(threads, len(each)) == 1 or device.type != "cpu":
            torch.set_num_threads(threads)
            for first in each:
                work(first)
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, each):
                pass
    finally:
        torch.set_num_threads(before)


@contextmanager
def _exact_products() -> Iterator[None]:
    """No short floats in matrix products, and oneDNN only where it convolves directly."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with warnings.catch_warnings():
            # some builds of torch warn here of a setting for GPUs, which is not touched
            warnings.simplefilter("ignore")
            with (
                torch.backends.mkldnn.flags(enabled=platform.machine() in ("x86_64", "AMD64")),
                torch.backends.nnpack.flags(enabled=False),
            ):
                yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Run:
    """Samples that are run at the same time."""

    def __init__(self, engine: DenseEngine, plan: Plan) -> None:
        self.engine, self.plan, self.graph = engine, plan, engine.graph
        self.device, self.kept = engine.synapses.device, Kept()
        for name, values in plan.inputs.items():
            largest = max(int(values.max(initial=0)), -int(values.min(initial=0)))
            self.kept.largest[name] = largest
            dtype = next(t for t in (np.int8, np.int32, np.int64) if largest <= np.iinfo(t).max)
            maps = values.reshape(*values.shape[:2], *as_map(self.graph.shape_of(name)))
            moved = np.ascontiguousarray(maps.transpose(1, 0, 3, 4, 2), dtype)
            self.kept.sent[name] = torch.from_numpy(moved).to(self.device)

    def trace(self) -> Trace:
        """Run all populations."""
        for group in self.graph.order:
            self._group(group)
        record, every = self._record()
        kept, trace = self.kept, self.plan.trace
        read = {
            name: self._restored(values[None], name)[:, 0] for name, values in kept.read.items()
        }
        spikes = {}
        if trace:
            for population in self.graph.spiking():
                found = self._restored(kept.sent[population.name], population.name)
                spikes[population.name] = found if population.max_spikes > 1 else found.astype(bool)
        return Trace(
            output={
                name: read[name] if name in read else every[name] for name in self.graph.outputs
            },
            record=record,
            spikes=spikes,
            membrane={name: self._restored(v, name) for name, v in kept.membrane.items()},
            current={name: self._restored(v, name) for name, v in kept.current.items()},
        )

    def _group(self, group: tuple[str, ...]) -> None:
        """Populations that form a loop, or one that forms none."""
        plan, kept, size = self.plan, self.kept, 0
        for population in map(self.graph.population, group):
            name, shape = population.name, population.shape
            size += population.size
            kept.sent[name] = self._empty(plan.steps, shape, torch.uint8)
            kept.largest[name] = population.max_spikes
            kept.updates[name] = torch.zeros(plan.samples, dtype=torch.int64, device=self.device)
            if name in self.graph.outputs and population.neurons.readout is not None:
                kept.read[name] = self._empty(1, shape, torch.int64)[0]
            if plan.trace:
                kept.membrane[name] = self._empty(plan.steps, shape, torch.int64)
                kept.current[name] = self._empty(plan.steps, shape, torch.int64)
        synapses = self.engine.synapses
        proofs = {n: proof_of(self.graph.population(n), synapses, plan, kept) for n in group}
        samples = min(max(1, _NEURONS // size), plan.samples)
        steps = max(1, _SUMS // (size * samples))

        def advance(first: int) -> None:
            with torch.inference_mode():  # which every thread has for itself
                block = Block(group, proofs, synapses, plan, kept, slice(first, first + samples))
                for start in range(0, plan.steps, steps):
                    block.advance(start, min(start + steps, plan.steps))

        _share(advance, range(0, plan.samples, samples), self.device, self.engine.threads)

    def _empty(self, steps: int, shape: Shape, dtype: torch.dtype) -> Tensor:
        channels, height, width = as_map(shape)
        size = (steps, self.plan.samples, height, width, channels)
        return torch.empty(size, dtype=dtype, device=self.device)

    def _record(self) -> tuple[Record, dict[str, Array]]:
        """The counts; and events of every neuron, int64 [samples, *shape]."""
        graph, plan = self.graph, self.plan
        every = {name: self._per_neuron(name, plan.steps) for name in self.kept.sent}
        spiking = [p.name for p in graph.spiking()]
        record = Record(
            samples=plan.samples,
            timesteps=plan.steps,
            spikes={n: every[n].sum(axis=0) for n in spiking},
            sample_spikes={n: every[n].reshape(plan.samples, -1).sum(axis=1) for n in spiking},
            inputs={spec.name: every[spec.name].sum(axis=0) for spec in graph.inputs},
            events={p.name: self._events(p, every) for p in graph.projections},
            updates={name: updates.cpu().numpy() for name, updates in self.kept.updates.items()},
        )
        return record, every

    def _per_neuron(self, name: str, steps: int) -> Array:
        """Spikes, or values that are not zero, within the first steps: int64 [samples, *shape]."""
        seen = self.kept.sent[name][:steps]
        if self.graph.is_input(name):
            seen = seen != 0
        total = torch.zeros(seen.shape[1:], dtype=torch.int32, device=self.device)
        for spikes in seen:  # several times faster than torch's sum over the first axis
            total += spikes
        return self._restored(total[None], name)[:, 0].astype(np.int64)

    def _events(self, projection: Projection, every: dict[str, Array]) -> Array:
        """Pairs of something sent and a target neuron it reached within the run, [samples].

        What is sent later than the last step minus the delay never arrives.
        """
        plan, name = self.plan, projection.source
        delay, found = plan.delays[projection.name], np.zeros(plan.samples, np.int64)
        for value in np.unique(delay):
            fan_out = self.engine.fan_out[projection.name]
            if isinstance(delay, np.ndarray):
                shape = projection.synapses.weight.shape
                fan_out = np.broadcast_to(delay == value, shape).sum(axis=0)
            arrived = every[name]
            if value > 0:
                arrived = self._per_neuron(name, max(plan.steps - int(value), 0))
            found += arrived.reshape(plan.samples, -1) @ fan_out
        return found

    def _restored(self, values: Tensor, name: str) -> Array:
        """[samples, timesteps, *shape], as the rest of the package has it."""
        found = np.ascontiguousarray(values.permute(1, 0, 4, 2, 3).cpu().numpy())
        return found.reshape(*found.shape[:2], *self.graph.shape_of(name))
