"""A trained module's own run, as a trace of its frozen graph: what ``diff`` compares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy.freezing.lowering import Lowered, lower
from snn_deploy.freezing.proof import _membrane_and_bound, _module_run
from snn_deploy.graph import Graph
from snn_deploy.packets import Recording
from snn_deploy.sim.ledger import driven
from snn_deploy.sim.plan import Plan
from snn_deploy.sim.reference import run
from snn_deploy.sim.trace import Trace

Array = NDArray[Any]


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
        spikes, readout = _module_run(self._model, self._lowered, inputs)
        frozen = run(self.graph, plan)
        bound = {
            population.name: np.asarray(
                _membrane_and_bound(self.graph, self._lowered, population, part, frozen)[1]
            )
            for population in self.graph.populations
        }
        trace = driven(self.graph, plan, frozen, spikes)
        (output,) = self.graph.outputs
        return replace(trace, output={output: readout}), bound
