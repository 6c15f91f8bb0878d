"""Quantization with a calibration recording: layer by layer, against what the float network does.

For one population after another, inputs come from the integer network as far as it is done, wanted
currents from the float network; so what earlier layers got wrong is seen, and can be made up for.
Learned rounding chooses between the two grid points around each weight. Correction takes the mean
error that is left into the bias; where thresholds are per neuron, it then moves each channel's to
where fewest slots differ from the float network's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from snn_deploy.graph import LIF, Graph, Neurons, Projection
from snn_deploy.packets import Recording
from snn_deploy.quantization.inputs import Batch, arriving, run_batches
from snn_deploy.quantization.isolation import feed, isolated
from snn_deploy.quantization.rounding import learned_rounding
from snn_deploy.quantization.scales import along_channels, float_weights, narrow
from snn_deploy.quantization.scheme import Grid, Scheme, weight_grid
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import steps_of, with_sample_axis
from snn_deploy.synapses import Conv2d, with_weights

Floats = NDArray[np.float64]

_THRESHOLD_STEPS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What a population receives in the integer network, and what it should make of it.

    Columns are all its synapses' sources, projection by projection and group by group; values in
    units of the float network, means over samples, timesteps and positions.

    Attributes
    ----------
    gram : E[s s^T], [columns, columns].
    cross : E[t s], [channels, columns]; t is the float network's current with bias, less the
        integer network's bias.
    mean : E[s], [columns].
    wanted : E[t], [channels].
    """

    gram: Floats
    cross: Floats
    mean: Floats
    wanted: Floats

    def centred(self) -> Statistics:
        """Of the deviations from the means: what is left where a bias takes the mean error."""
        return Statistics(
            self.gram - np.outer(self.mean, self.mean),
            self.cross - np.outer(self.wanted, self.mean),
            self.mean,
            self.wanted,
        )


def calibrate(graph: Graph, integer: Graph, recording: Recording, scheme: Scheme) -> Graph:
    """Refine an integer graph: learned rounding and correction, as the scheme says.

    Parameters
    ----------
    graph, integer : the float graph, and what nearest rounding made of it.
    recording : inputs.

    Raises
    ------
    SnnDeployError
        SD103 or SD106 if the recording does not fit, SD104 for delays per synapse.
    """
    for name in (name for group in integer.order for name in group):
        seen = statistics(graph, integer, name, recording)
        if scheme.rounding == "learned":
            integer = _rounded(graph, integer, name, seen, scheme)
        if scheme.correction:
            integer = _corrected(integer, name, seen)
            form = integer.number_format
            neurons = integer.population(name).neurons
            if isinstance(neurons, LIF) and form is not None and not form.threshold_per_population:
                most = form.threshold_limit
                integer = _threshold_corrected(graph, integer, name, neurons, most, recording)
    return integer


def statistics(graph: Graph, integer: Graph, name: str, recording: Recording) -> Statistics:
    """What arrives at population ``name`` in the integer graph, and what should come of it."""
    population = graph.population(name)
    difference = population.neurons.bias - _float_bias(integer, name)
    constant = np.broadcast_to(difference, population.shape).reshape(population.shape[0], -1).T
    sums: list[Floats] = []
    rows = 0
    runs = zip(run_batches(graph, recording), run_batches(integer, recording), strict=True)
    for exact, rounded in runs:
        current = constant + _currents(graph, name, exact)
        columns = _columns(integer, name, rounded)
        s = columns.reshape(-1, columns.shape[-1])
        t = current.reshape(-1, current.shape[-1])
        found = [s.T @ s, t.T @ s, s.sum(axis=0), t.sum(axis=0)]
        sums = found if not sums else [a + b for a, b in zip(sums, found, strict=True)]
        rows += len(s)
    gram, cross, mean, total = (part / rows for part in sums)
    return Statistics(gram, cross, mean, total)


def _float_bias(integer: Graph, name: str) -> Floats:
    """An integer population's bias in units of the float network."""
    population, form = integer.population(name), integer.number_format
    if form is None or population.scale is None:
        raise ValueError("an integer graph is calibrated")
    unit = 2.0 ** (form.bias_shift - form.fraction_bits) * np.asarray(population.scale)
    return np.asarray(population.neurons.bias * unit)


def _groups(projection: Projection) -> int:
    return projection.synapses.groups if isinstance(projection.synapses, Conv2d) else 1


def _currents(graph: Graph, name: str, batch: Batch) -> Floats:
    """Synaptic sums of a float graph: [samples, steps, positions, channels]."""
    total: Floats = np.zeros(())
    for projection in graph.incoming(name):
        rows, groups = arriving(graph, projection, batch), _groups(projection)
        weight = projection.synapses.weight.reshape(groups, -1, rows.shape[-1])
        sums = np.einsum("nspgk,gck->nspgc", rows, weight, optimize=True)
        total = total + sums.reshape(*sums.shape[:3], -1)
    return total


def _columns(integer: Graph, name: str, batch: Batch) -> Floats:
    """What arrives in an integer graph, in float units: [samples, steps, positions, columns]."""
    parts = []
    for projection in integer.incoming(name):
        rows = arriving(integer, projection, batch)
        if integer.carries_values(projection):
            rows = rows * (integer.input(projection.source).scale or 1.0)
        parts.append(rows.reshape(*rows.shape[:3], -1))
    return np.concatenate(parts, axis=3)


def spread_weights(projection: Projection, weight: Floats) -> Floats:
    """A projection's weights as rows over all its groups' columns, zero beyond its own group."""
    groups, outputs = _groups(projection), len(weight)
    flat = weight.reshape(groups, outputs // groups, -1)
    full = np.zeros((groups, outputs // groups, groups, flat.shape[2]))
    full[np.arange(groups), :, np.arange(groups)] = flat
    return full.reshape(outputs, -1)


def gathered_weights(projection: Projection, full: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The inverse of :func:`spread_weights`, for marks: in the shape of the weights."""
    weight = projection.synapses.weight
    groups = _groups(projection)
    parts = full.reshape(groups, len(weight) // groups, groups, -1)
    return parts[np.arange(groups), :, np.arange(groups)].reshape(weight.shape)


def _rounded(graph: Graph, integer: Graph, name: str, seen: Statistics, scheme: Scheme) -> Graph:
    """Learned rounding of one population's weights; those of a host sum stay: they are finer."""
    if integer.number_format is None:
        raise ValueError("an integer graph is calibrated")
    grid = weight_grid(integer.number_format, scheme.bits)
    exact = {p.name: p for p in graph.incoming(name)}
    projections = integer.incoming(name)
    others = [
        p if integer.on_host(p) else _other_side(integer, p, exact[p.name], grid)
        for p in projections
    ]
    start, other = (
        np.concatenate([spread_weights(p, float_weights(integer, p)) for p in side], axis=1)
        for side in (projections, others)
    )
    matter = seen.centred() if scheme.correction else seen
    moved = learned_rounding(start, other, matter.gram, matter.cross)
    changed, first = {}, 0
    for projection, alternative in zip(projections, others, strict=True):
        last = first + _groups(projection) * int(np.prod(projection.synapses.weight.shape[1:]))
        marks = gathered_weights(projection, moved[:, first:last])
        weight = np.where(marks, alternative.synapses.weight, projection.synapses.weight)
        synapses = with_weights(projection.synapses, narrow(weight.astype(np.int64)))
        changed[projection.name] = replace(projection, synapses=synapses)
        first = last
    return replace(integer, projections=tuple(changed.get(p.name, p) for p in integer.projections))


def _other_side(
    integer: Graph, projection: Projection, exact: Projection, grid: Grid
) -> Projection:
    """The grid points on the other side of the float weights; the same where there are none."""
    weight = projection.synapses.weight.astype(np.int64)
    worth = float_weights(integer, projection)
    toward = np.sign(exact.synapses.weight - worth).astype(np.int64)
    other = np.clip(weight + grid.step * toward, grid.low, grid.high)
    return replace(projection, synapses=with_weights(projection.synapses, other))


def _corrected(integer: Graph, name: str, seen: Statistics) -> Graph:
    """The mean error of each channel's current, taken into its bias as far as that reaches."""
    form, population = integer.number_format, integer.population(name)
    if form is None or population.scale is None:
        raise ValueError("an integer graph is calibrated")
    weights = [spread_weights(p, float_weights(integer, p)) for p in integer.incoming(name)]
    missing = seen.wanted - np.concatenate(weights, axis=1) @ seen.mean
    step = 2.0 ** (form.bias_shift - form.fraction_bits) * np.asarray(population.scale)
    added = np.rint(along_channels(missing, population.shape) / step).astype(np.int64)
    bias = np.clip(population.neurons.bias + added, -form.bias_limit, form.bias_limit)
    return _with_neurons(integer, name, replace(population.neurons, bias=bias))


def _with_neurons(integer: Graph, name: str, neurons: Neurons) -> Graph:
    return replace(
        integer,
        populations=tuple(
            replace(p, neurons=neurons) if p.name == name else p for p in integer.populations
        ),
    )


def _threshold_corrected(
    graph: Graph, integer: Graph, name: str, neurons: LIF, most: int, recording: Recording
) -> Graph:
    """The threshold of each channel, moved to where fewest of its slots differ.

    Tried are steps of 1/64 of a threshold to both sides, with the inputs that the integer network
    gives; no move where none is better.
    """
    population = integer.population(name)
    ways = sorted(range(-_THRESHOLD_STEPS, _THRESHOLD_STEPS + 1), key=abs)
    moved = [np.minimum(neurons.threshold * (64 + way) // 64, most) for way in ways]
    alone = [
        isolated(_with_neurons(integer, name, replace(neurons, threshold=m)), name) for m in moved
    ]
    differing = np.zeros((len(ways), population.shape[0]), np.int64)
    recording = with_sample_axis(graph, recording)
    steps, done = steps_of(graph, recording, None), 0
    for exact, rounded in zip(
        run_batches(graph, recording), run_batches(integer, recording), strict=True
    ):
        samples = exact.trace.record.samples
        wanted = exact.trace.spikes[name]
        part = recording.part(done, done + samples)
        for way, one in enumerate(alone):
            fed = feed(one, part, rounded.trace.spikes)
            found = simulate(one, fed, steps=steps, trace=True).spikes[name]
            differing[way] += (found != wanted).sum(axis=(0, 1, *range(3, found.ndim)))
        done += samples
    best = along_channels(differing.argmin(axis=0).astype(np.float64), population.shape)
    full = np.broadcast_shapes(best.shape, neurons.threshold.shape)
    options = np.stack([np.broadcast_to(m, full) for m in moved])
    chosen = np.take_along_axis(
        options, np.broadcast_to(best.astype(np.int64), full)[None], axis=0
    )[0]
    return _with_neurons(integer, name, replace(neurons, threshold=chosen))
