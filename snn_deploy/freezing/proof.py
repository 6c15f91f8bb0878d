"""The freeze proof: the frozen graph spikes as the trained module does, up to listed ties.

The module runs in its own float32 evaluation, the graph in the reference engine in float64. A
membrane within the rounding error of float32 of the threshold is a tie: there, and only there, the
two may differ. What follows from a tie, in the same neuron later or in neurons downstream, counts
as that tie's. How large that error may be is derived in :mod:`snn_deploy.freezing.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.bounds import ROUNDOFF, membrane_and_bound, tainted
from snn_deploy.freezing.lowering import Lowered, lower
from snn_deploy.freezing.module_run import run_module
from snn_deploy.graph import Graph, InputSpec
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import with_sample_axis
from snn_deploy.sim.trace import Trace

Array = NDArray[Any]

_BATCH = 64
_LISTED = 100


@dataclass(frozen=True, slots=True)
class Tie:
    """A neuron whose spike hung on rounding: |u - threshold| = ``distance`` <= ``bound``."""

    population: str
    sample: int
    timestep: int
    neuron: int
    distance: float
    bound: float


@dataclass(frozen=True, slots=True)
class FreezeProof:
    """What the comparison found.

    Attributes
    ----------
    samples, slots : compared samples, and neuron-timesteps.
    flips : differing spikes per population.
    ties : flips that are ties; ``listed`` holds the first hundred.
    downstream : flips caused by an earlier flip.
    violations : flips that are neither. Must be 0.
    readout_violations : readouts that differ by more than their bound, with no flip to cause it.
        Must be 0.
    decisions_changed : samples that module and graph decide differently.
    decisions : the module's own decisions, [samples].
    """

    samples: int
    slots: int
    flips: dict[str, int]
    ties: int
    downstream: int
    violations: int
    readout_violations: int
    decisions_changed: int
    listed: tuple[Tie, ...]
    decisions: NDArray[np.int64] = field(compare=False, repr=False)

    @property
    def holds(self) -> bool:
        """Whether the graph may stand for the module."""
        return self.violations == 0 and self.readout_violations == 0

    def require(self, where: str) -> None:
        """Raise SD406 unless the proof holds; ``where`` names the network."""
        if not self.holds:
            raise SnnDeployError(
                "SD406",
                f"{self.violations} spikes and {self.readout_violations} readouts of the frozen "
                "network differ from the trained one's beyond rounding",
                where=where,
                fix="this is a fault of snn-deploy: please report it with the checkpoint",
            )


def prove_freeze(
    model: nn.Module,
    recording: Recording,
    spec: InputSpec | None = None,
    *,
    timesteps: int | None = None,
    time_first: bool = False,
    fold_normalisation: bool = False,
    graph: Graph | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FreezeProof:
    """Compare a module with its frozen graph on a recording.

    Parameters
    ----------
    model : the trained network.
    recording : inputs that fit it.
    spec, timesteps, time_first : of a network that no architecture describes, as for ``freeze``.
    fold_normalisation : as for ``freeze``.
    graph : the float graph to compare; default: the one ``freeze`` makes.
    progress : called with (samples done, samples in all).
    """
    lowered = lower(
        model, spec, timesteps=timesteps, time_first=time_first,
        fold_normalisation=fold_normalisation,
    )  # fmt: skip
    return compare(model, lowered, recording, graph=graph, progress=progress)


def compare(
    model: nn.Module,
    lowered: Lowered,
    recording: Recording,
    *,
    graph: Graph | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FreezeProof:
    """:func:`prove_freeze`, of a network that was lowered already."""
    graph = lowered.graph if graph is None else graph
    recording = with_sample_axis(graph, lowered.as_population(recording))
    inputs = {**recording.values, **recording.spikes}[graph.inputs[0].name]
    totals = _Totals()
    for start in range(0, len(inputs), _BATCH):
        part = recording.part(start, start + _BATCH)
        spikes, readout = run_module(model, lowered, inputs[start : start + _BATCH])
        trace = simulate(graph, part, engine="reference", trace=True)
        totals.add(graph, lowered, part, trace, spikes, readout, start)
        if progress is not None:
            progress(min(start + _BATCH, len(inputs)), len(inputs))
    return totals.proof(len(inputs))


class _Totals:
    """Sums over batches."""

    def __init__(self) -> None:
        self.slots = self.ties = self.downstream = self.violations = 0
        self.readout_violations = self.decisions_changed = 0
        self.flips: dict[str, int] = {}
        self.listed: list[Tie] = []
        self.decisions: list[Array] = []

    def add(
        self,
        graph: Graph,
        lowered: Lowered,
        part: Recording,
        trace: Trace,
        spikes: dict[str, Array],
        readout: Array,
        start: int,
    ) -> None:
        """Compare one batch."""
        flips = {name: spikes[name] != trace.spikes[name] for name in spikes}
        for name in (n for group in graph.order for n in group):
            population = graph.population(name)
            reached = tainted(graph, population, flips, trace.membrane[name].shape)
            membrane, bound = membrane_and_bound(graph, lowered, population, part, trace)
            if name == graph.outputs[0]:
                self._readout(graph, lowered.factor, trace, readout, reached, bound)
            if name not in flips:  # an integrator
                continue
            assert hasattr(population.neurons, "threshold")
            distance = np.abs(membrane - population.neurons.threshold)
            root = flips[name] & ~reached
            tie = root & (distance <= bound)
            self.slots += flips[name].size
            self.flips[name] = self.flips.get(name, 0) + int(flips[name].sum())
            self.ties += int(tie.sum())
            self.violations += int((root & ~tie).sum())
            self.downstream += int((flips[name] & reached).sum())
            for sample, step, *neuron in np.argwhere(tie)[: _LISTED - len(self.listed)]:
                at = (sample, step, *neuron)
                self.listed.append(
                    Tie(
                        name,
                        start + int(sample),
                        int(step),
                        int(np.ravel_multi_index(tuple(neuron), population.shape)),
                        float(distance[at]),
                        float(bound[at]),
                    )
                )

    def _readout(
        self,
        graph: Graph,
        factor: float,
        trace: Trace,
        readout: Array,
        reached: Array,
        bound: Array,
    ) -> None:
        population = graph.population(graph.outputs[0])
        frozen = trace.output[population.name] * factor
        if population.neurons.readout is None:  # counts of spikes: exact, but for the factor
            allowed = 4 * ROUNDOFF * np.abs(frozen)
        else:
            values = np.abs(trace.membrane[population.name])
            steps = values.shape[1]
            each = bound + (steps + 1) * ROUNDOFF * values
            read = {"mean": each.mean(axis=1), "sum": each.sum(axis=1), "last": each[:, -1],
                    "max": each.max(axis=1)}  # fmt: skip
            allowed = abs(factor) * read[population.neurons.readout]
        frozen = frozen.reshape(readout.shape)
        apart = np.abs(readout - frozen) > allowed.reshape(readout.shape)
        blamed = reached.any(axis=1).reshape(readout.shape)
        self.readout_violations += int((apart & ~blamed).sum())
        self.decisions.append(readout.argmax(1))
        self.decisions_changed += int((self.decisions[-1] != frozen.argmax(1)).sum())

    def proof(self, samples: int) -> FreezeProof:
        """The totals as a result."""
        return FreezeProof(
            samples=samples,
            slots=self.slots,
            flips=self.flips,
            ties=self.ties,
            downstream=self.downstream,
            violations=self.violations,
            readout_violations=self.readout_violations,
            decisions_changed=self.decisions_changed,
            listed=tuple(self.listed),
            decisions=np.concatenate(self.decisions).astype(np.int64),
        )
