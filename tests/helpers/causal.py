"""The first slot at which two runs part, by brute force: every quantity, neuron by neuron."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

from snn_deploy.graph import LIF, Graph, Population, ResetSubtract
from snn_deploy.sim import reference
from snn_deploy.sim.divergence import Run
from snn_deploy.sim.plan import plan, with_sample_axis
from tests.helpers.brute_force import Number, Simulation, Step, neurons_of
from tests.helpers.graphs import Case

# Timestep, rank of the population, quantity, sample, neuron.
Key = tuple[int, int, str, int, int]


def without_resets(case: Case) -> Case:
    return replace(case, reset_interval=None, reset_offset=None)


def run_of(case: Case, graph: Graph | None = None) -> Run:
    """One traced batch of the reference engine."""
    graph = graph or case.graph
    fitted = with_sample_axis(graph, case.recording)
    ready = plan(graph, fitted, steps=case.steps, timing="zero_delay", trace=True)
    return Run(graph=graph, plan=ready, trace=reference.run(graph, ready))


class Watched(Simulation):
    """Notes the membranes that were compared with thresholds."""

    def __init__(self, case: Case, sample: int) -> None:
        super().__init__(case, "zero_delay", sample)
        self.compared: list[Number] = []
        self.membranes: dict[tuple[str, int], list[Number]] = {}

    def _fires(self, membrane: Number, threshold: Number) -> bool:
        self.compared.append(membrane)
        return super()._fires(membrane, threshold)

    def _step(self, population: Population, step: int) -> Step:
        done = super()._step(population, step)  # steps it depends on have taken theirs
        compared, self.compared = self.compared, []
        if not isinstance(population.neurons, LIF):
            compared = list(done.membrane)
        elif isinstance(population.neurons.reset, ResetSubtract):
            amount = population.neurons.reset.amount
            compared = [u + n * amount for u, n in zip(done.membrane, done.fired, strict=True)]
        self.membranes[population.name, step] = compared
        return done

    def sums(self, name: str, step: int) -> list[list[Number]]:
        """What every projection brings, by name, per neuron."""
        found = []
        for projection in sorted(self.graph.incoming(name), key=lambda p: p.name):
            totals: list[Number] = []
            for neuron in neurons_of(self.graph.shape_of(name)):
                total = sum(
                    weight * self.sent(projection.source, step - delay).get(source, 0)
                    for source, weight, delay in self.synapses[projection.name][neuron]
                )
                if self._on_host(projection):
                    total = floor(Fraction(total) / 2**-projection.exponent + Fraction(1, 2))
                    totals.append(total)
                else:
                    totals.append(self._weighed(total, projection))
            found.append(totals)
        return found


def first_difference(one: Case, graph: Graph) -> Key | None:
    """The first slot at which ``graph`` does otherwise than the case's, None if it never does.

    In causal order: timestep, population, then sums, currents, membranes before the comparison,
    spikes and membranes after the reset; then sample and neuron.
    """
    other = Case(graph, one.recording, one.steps)
    held = [*one.recording.spikes.values(), *one.recording.values.values()][0]
    pairs = [(Watched(one, n), Watched(other, n)) for n in range(len(held))]
    for step in range(one.steps):
        for rank, name in enumerate(n for group in one.graph.order for n in group):
            for quantity in ("sum", "current", "membrane", "spike", "reset"):
                for sample, pair in enumerate(pairs):
                    values = [_quantity(s, quantity, name, step) for s in pair]
                    neurons = [i for i, (x, y) in enumerate(zip(*values, strict=True)) if x != y]
                    if neurons:
                        return step, rank, quantity, sample, neurons[0]
    return None


def _quantity(run: Watched, quantity: str, name: str, step: int) -> list[Any]:
    done = run.step(name, step)
    if quantity == "sum":
        return list(zip(*run.sums(name, step), strict=True))
    if quantity == "current":
        return list(done.current)
    if quantity == "membrane":
        return list(run.membranes[name, step])
    return list(done.fired if quantity == "spike" else done.membrane)
