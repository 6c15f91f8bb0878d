"""The freeze proof: the frozen graph spikes as the trained module does, up to listed ties.

The module runs in its own float32 evaluation, the graph in the reference engine in float64. A
membrane within the rounding error of float32 of the threshold is a tie: there, and only there, the
two may differ. What follows from a tie, in the same neuron later or in neurons downstream, counts
as that tie's. The error bound is derived for every neuron and timestep from the magnitudes it sums
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: a sum of n products has a
relative error of at most n*u / (1 - n*u) of the sum of their absolute values).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing.leaves import Leaf, intercepted
from snn_deploy.freezing.lowering import Lowered, lower
from snn_deploy.graph import LIF, Graph, InputSpec, Population, Projection, ResetTo
from snn_deploy.packets import Recording
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import with_sample_axis
from snn_deploy.sim.reference import synaptic_sum
from snn_deploy.sim.trace import Trace
from snn_deploy.synapses import with_weights

Array = NDArray[Any]

# Unit roundoff of float32, and roundings per sum besides its products: normalisation of the input
# (4), pooling (2), batch normalisation (7) with tdBN's scale or the gain of a C-LIF (2), sums of
# residual ways (1 for each), rounded up.
_ROUNDOFF = 2.0**-24
_OTHER_OPERATIONS = 20
# Decays, thresholds and reset amounts are rounded to float32, learned ones after a sigmoid or an
# exponential of a few roundings; then come a product and a sum.
_PARAMETER_ROUNDINGS = 8
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
    graph: Graph | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FreezeProof:
    """Compare a module with its frozen graph on a recording.

    Parameters
    ----------
    model : the trained network.
    recording : inputs that fit it.
    spec, timesteps, time_first : of a network that no architecture describes, as for ``freeze``.
    graph : the float graph to compare; default: the one ``freeze`` makes.
    progress : called with (samples done, samples in all).
    """
    lowered = lower(model, spec, timesteps=timesteps, time_first=time_first)
    graph = lowered.graph if graph is None else graph
    recording = with_sample_axis(graph, recording)
    inputs = {**recording.values, **recording.spikes}[graph.inputs[0].name]
    totals = _Totals()
    for start in range(0, len(inputs), _BATCH):
        part = recording.part(start, start + _BATCH)
        spikes, readout = _module_run(model, lowered, inputs[start : start + _BATCH])
        trace = simulate(graph, part, engine="reference", trace=True)
        totals.add(graph, lowered, part, trace, spikes, readout, start)
        if progress is not None:
            progress(min(start + _BATCH, len(inputs)), len(inputs))
    return totals.proof(len(inputs))


def _module_run(
    model: nn.Module, lowered: Lowered, inputs: Array
) -> tuple[dict[str, Array], Array]:
    """Spikes [B, T, ...] of every spiking population in evaluation, and the readout."""
    graph, calls = lowered.graph, iter(lowered.emitted)
    spikes: dict[str, list[Array]] = {}

    def keep(leaf: Leaf, entry: str, original: Any, args: Any, options: dict[str, Any]) -> Any:
        call = leaf.library.read(leaf.module, entry, args, options)
        out = original(*args, **options)
        if leaf.library.freeze(leaf.module).spiking:
            emitted = leaf.library.spikes(entry, out).detach().numpy() != 0
            steps = emitted if call.sequence else emitted[None]
            spikes.setdefault(next(calls).population, []).extend(steps)
        return out

    training, threads = {m: m.training for m in model.modules()}, torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)  # so that the same ties are found on any number of cores
    x = torch.from_numpy(inputs.astype(np.float32))
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
            source = shaped[fed.source].astype(np.float64)
            shaped[population.name] = synaptic_sum(fed, graph.shape_of(fed.source), source) > 0
    return shaped, readout


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
            tainted = _tainted(graph, population, flips, trace.membrane[name].shape)
            membrane, bound = _membrane_and_bound(graph, lowered, population, part, trace)
            if name == graph.outputs[0]:
                self._readout(graph, lowered.factor, trace, readout, tainted, bound)
            if name not in flips:  # an integrator
                continue
            assert hasattr(population.neurons, "threshold")
            distance = np.abs(membrane - population.neurons.threshold)
            root = flips[name] & ~tainted
            tie = root & (distance <= bound)
            self.slots += flips[name].size
            self.flips[name] = self.flips.get(name, 0) + int(flips[name].sum())
            self.ties += int(tie.sum())
            self.violations += int((root & ~tie).sum())
            self.downstream += int((flips[name] & tainted).sum())
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
        tainted: Array,
        bound: Array,
    ) -> None:
        population = graph.population(graph.outputs[0])
        frozen = trace.output[population.name] * factor
        if population.neurons.readout is None:  # counts of spikes: exact, but for the factor
            allowed = 4 * _ROUNDOFF * np.abs(frozen)
        else:
            values = np.abs(trace.membrane[population.name])
            steps = values.shape[1]
            each = bound + (steps + 1) * _ROUNDOFF * values
            read = {"mean": each.mean(axis=1), "sum": each.sum(axis=1), "last": each[:, -1],
                    "max": each.max(axis=1)}  # fmt: skip
            allowed = abs(factor) * read[population.neurons.readout]
        frozen = frozen.reshape(readout.shape)
        apart = np.abs(readout - frozen) > allowed.reshape(readout.shape)
        blamed = tainted.any(axis=1).reshape(readout.shape)
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


def _weighing(projection: Projection, weight: Array) -> Projection:
    """The same projection with other weights."""
    return replace(projection, synapses=with_weights(projection.synapses, weight))


def _tainted(
    graph: Graph, population: Population, flips: dict[str, Array], shape: tuple[int, ...]
) -> Array:
    """Neurons and timesteps that an earlier flip may have changed: bool of ``shape`` [B, T, ...].

    A flip reaches the neurons it projects to in the step it arrives, and stays in their currents
    and membranes. A neuron's own flip stays in its membrane, through either reset.
    """
    reached = np.zeros(shape, bool)
    for projection in graph.incoming(population.name):
        if graph.is_input(projection.source) or not flips[projection.source].any():
            continue
        ones = _weighing(projection, np.ones_like(projection.synapses.weight))
        source = graph.shape_of(projection.source)
        arriving = synaptic_sum(ones, source, flips[projection.source].astype(float)) > 0
        delay = projection.longest_delay  # frozen graphs have one delay per projection
        reached[:, delay:] |= arriving[:, : max(arriving.shape[1] - delay, 0)]
    if population.name in flips:
        reached[:, 1:] |= flips[population.name][:, :-1]
    return np.asarray(np.logical_or.accumulate(reached, axis=1))


def _membrane_and_bound(
    graph: Graph, lowered: Lowered, population: Population, part: Recording, trace: Trace
) -> tuple[Array, Array]:
    """Membranes before the reset, and how far float32 may be from them: [B, T, *shape]."""
    name, neurons = population.name, population.neurons
    after = trace.membrane[name]
    before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
    membrane = before * neurons.decay + trace.current[name] + neurons.bias
    summed = np.zeros_like(after) + np.abs(lowered.magnitude[name])
    terms = 0
    for projection in graph.incoming(name):
        magnitudes = _weighing(projection, np.abs(projection.synapses.weight))
        arriving = synaptic_sum(
            magnitudes,
            graph.shape_of(projection.source),
            _source_magnitude(graph, projection, part, trace),
        )
        delay = projection.longest_delay
        summed[:, delay:] += arriving[:, : max(after.shape[1] - delay, 0)]
        window = 1 if projection.pool is None else int(np.prod(projection.pool.kernel))
        terms += projection.synapses.weight[0].size * window
    operations = (terms + _OTHER_OPERATIONS) * _ROUNDOFF
    fresh = operations / (1 - operations) * summed
    # What the parameters themselves are rounded by counts with the state that they multiply.
    update = _PARAMETER_ROUNDINGS * _ROUNDOFF
    current = np.zeros_like(fresh[:, 0])  # error of the synaptic current, where that has a memory
    carried = np.zeros_like(fresh[:, 0])
    bound = np.empty_like(fresh)
    for step in range(fresh.shape[1]):
        arriving = fresh[:, step]
        if neurons.current_decay is not None:
            now = np.abs(trace.current[name][:, step])
            earlier = np.abs(trace.current[name][:, max(step - 1, 0)])
            current = neurons.current_decay * current + arriving + update * (now + earlier)
            arriving = current
        state = np.abs(membrane[:, step]) + np.abs(before[:, step])
        bound[:, step] = neurons.decay * carried + arriving + update * state
        carried = bound[:, step]
        if name in trace.spikes and isinstance(neurons, LIF):
            # a hard reset leaves 0 in both; a subtraction leaves the error, and adds its rounding
            fired = trace.spikes[name][:, step]
            if isinstance(neurons.reset, ResetTo):
                carried = np.where(fired, 0.0, carried)
            else:
                carried = carried + fired * update * neurons.reset.amount
    return membrane, bound


def _source_magnitude(graph: Graph, projection: Projection, part: Recording, trace: Trace) -> Array:
    """Absolute values that a projection multiplies, [B, T or 1, *source shape], float64."""
    if not graph.is_input(projection.source):
        return trace.spikes[projection.source].astype(np.float64)
    spec = graph.input(projection.source)
    if spec.kind == "spikes":
        return part.spikes[spec.name].astype(np.float64)
    raw = np.abs(part.values[spec.name].astype(np.float64))
    per_channel = (-1, *([1] * (len(spec.shape) - 1)))
    magnitude = (raw + np.abs(spec.mean).reshape(per_channel)) / spec.std.reshape(per_channel)
    return magnitude[:, None]
