"""A module's own run in float32: its spikes and readout; as a trace, what ``diff`` compares."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.bounds import membrane_and_bound
from snn_deploy.freezing.leaves import Leaf, intercepted
from snn_deploy.freezing.lowering import Lowered, lower
from snn_deploy.graph import Graph
from snn_deploy.packets import Recording
from snn_deploy.sim.ledger import driven
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import run, synaptic_sum
from snn_deploy.sim.trace import Trace

Array = NDArray[Any]


def run_module(model: nn.Module, lowered: Lowered, inputs: Array) -> tuple[dict[str, Array], Array]:
    """Spikes [B, T, ...] of every spiking population in evaluation, and the readout."""
    graph, calls = lowered.graph, iter(lowered.emitted)
    spikes: dict[str, list[Array]] = {}
    spiking: dict[int, bool] = {}

    def keep(leaf: Leaf, entry: str, original: Any, args: Any, options: dict[str, Any]) -> Any:
        call = leaf.library.read(leaf.module, entry, args, options)
        out = original(*args, **options)
        if id(leaf.module) not in spiking:
            spiking[id(leaf.module)] = leaf.library.freeze(leaf.module).spiking
        if spiking[id(leaf.module)]:
            emitted = leaf.library.spikes(entry, out).detach().numpy() != 0
            steps = emitted if call.sequence else emitted[None]
            known = next(calls, None)
            if known is None:
                raise SnnDeployError(
                    "SD205",
                    f"{type(model).__name__} runs its neurons more often than when it was frozen",
                    where=leaf.path,
                    fix="run as many timesteps for every input",
                )
            spikes.setdefault(known.population, []).extend(steps)
        return out

    training, threads = {m: m.training for m in model.modules()}, torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)  # so that the same ties are found on any number of cores
    x = torch.from_numpy(inputs.astype(np.float32))
    x = x.reshape(*x.shape[: x.ndim - len(graph.inputs[0].shape)], *lowered.shape)
    x = x.to(next((p.dtype for p in model.parameters()), x.dtype))
    if lowered.time_first:
        x = x.transpose(0, 1)
    try:
        # The bound holds for plain sums of products, not for Winograd's algorithm. Entering the
        # contexts makes some builds of torch warn of a setting for GPUs, which is not touched.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with (
                torch.inference_mode(),
                torch.backends.mkldnn.flags(enabled=False),
                torch.backends.nnpack.flags(enabled=False),
                intercepted(model, keep),
            ):
                out = model(x)
                readout = (out[0] if isinstance(out, tuple) else out).numpy()
    finally:
        for module, before in training.items():
            module.training = before
        torch.set_num_threads(threads)
    shaped = {
        name: np.stack(steps, axis=1).reshape(len(inputs), -1, *graph.shape_of(name))
        for name, steps in spikes.items()
    }
    for population in graph.populations:
        if population.name in lowered.pools:
            (fed,) = graph.incoming(population.name)
            source = np.asarray(shaped.get(fed.source, inputs), np.float64)
            shaped[population.name] = synaptic_sum(fed, graph.shape_of(fed.source), source) > 0
    return shaped, readout


class ModuleRunner:
    """Runs a module in its float32 evaluation.

    Attributes
    ----------
    graph : the module's frozen graph.

    Raises
    ------
    SnnDeployError
        SD205 for a module that cannot be frozen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._lowered: Lowered = lower(model)
        self.graph: Graph = self._lowered.graph

    def run(self, part: Recording, plan: Plan) -> tuple[Trace, dict[str, Array]]:
        """One batch: a trace, and how far float32 may be off.

        Spikes and readout are the module's. A module does not show its membranes: those of the
        trace are what its frozen graph computes, in float64, where neurons fire as the module's.

        Returns
        -------
        trace : of the run.
        bound : per population, by how much a membrane of the module may differ from the frozen
            graph's before any spike does, [samples, steps, *shape]; see the freeze proof.
        """
        inputs = {**part.values, **part.spikes}[self.graph.inputs[0].name]
        spikes, readout = run_module(self._model, self._lowered, inputs)
        frozen = run(self.graph, plan)
        bound = {
            population.name: np.asarray(
                membrane_and_bound(self.graph, self._lowered, population, part, frozen)[1]
            )
            for population in self.graph.populations
        }
        trace = driven(self.graph, plan, frozen, spikes)
        (output,) = self.graph.outputs
        return replace(trace, output={output: readout}), bound
