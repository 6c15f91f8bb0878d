"""What arrives at the synapses of a projection, as rows that a weight matrix multiplies.

A row holds what one neuron's synapses receive in one timestep: for a convolution a patch, so that
the synaptic sum of a channel is its kernel, flattened, times the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Projection
from snn_deploy.packets import Recording
from snn_deploy.sim import Trace, simulate_batches
from snn_deploy.sim.plan import plan, steps_of, with_sample_axis
from snn_deploy.synapses import Conv2d, Shape, as_map, pooled_shape

Array = NDArray[Any]
Floats = NDArray[np.float64]

# Values of one batch of rows, roughly.
_BATCH_VALUES = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some samples of a run.

    ``sent``: per input and spiking population, what it sends: [samples, steps, *shape], float64;
    a constant input the same in every step. ``trace``: the run itself.
    """

    sent: dict[str, Floats]
    trace: Trace


def run_batches(graph: Graph, recording: Recording) -> Iterator[Batch]:
    """Run a float or integer graph over a recording, a few samples at a time."""
    recording = with_sample_axis(graph, recording)
    steps = steps_of(graph, recording, None)
    rows = max(_row_values(graph, p) for p in graph.projections)
    size = max(1, _BATCH_VALUES // (steps * rows))
    engine = "reference" if graph.number_format is None else "event"
    runs = simulate_batches(graph, recording, engine=engine, trace=True, batch=size)  # type: ignore[arg-type]
    for number, trace in enumerate(runs):
        part = recording.part(number * size, (number + 1) * size)
        given = plan(graph, part, steps=steps, timing="zero_delay", trace=False)
        sent = {name: values.astype(np.float64) for name, values in trace.spikes.items()}
        for spec in graph.inputs:
            values = given.inputs[spec.name].astype(np.float64)
            if spec.kind == "constant":
                values = np.repeat(values, steps, axis=1)
            sent[spec.name] = values
        yield Batch(sent, trace)


def _row_values(graph: Graph, projection: Projection) -> int:
    """Values of all rows of one sample in one timestep."""
    shape = graph.shape_of(projection.target)
    positions = int(np.prod(as_map(shape)[1:]))
    weight = projection.synapses.weight
    groups = projection.synapses.groups if isinstance(projection.synapses, Conv2d) else 1
    return positions * groups * int(np.prod(weight.shape[1:]))


def arriving(graph: Graph, projection: Projection, batch: Batch) -> Floats:
    """Rows that arrive at a projection's synapses.

    Returns
    -------
    float64 [samples, steps, positions, groups, synapses per neuron]
        Positions are those of the target, row by row; silent before the delay has passed. A
        constant input is in force from the first step on, whatever the delay.

    Raises
    ------
    SnnDeployError
        SD104 for delays per synapse: there is no one time of arrival.
    """
    constant = graph.is_constant(projection)
    if not constant and projection.shortest_delay != projection.longest_delay:
        raise SnnDeployError(
            "SD104",
            "synapses with delays of their own cannot be calibrated",
            where=projection.name,
            fix="quantize without a calibration",
        )
    sent, delay = batch.sent[projection.source], 0 if constant else projection.longest_delay
    samples, steps = sent.shape[:2]
    late = np.zeros_like(sent)
    late[:, delay:] = sent[:, : max(steps - delay, 0)]
    shape = graph.shape_of(projection.source)
    rows = synaptic_rows(projection, shape, late.reshape(samples * steps, *shape))
    return rows.reshape(samples, steps, *rows.shape[1:])


def synaptic_rows(projection: Projection, shape: Shape, source: Floats) -> Floats:
    """Patches of [N, *shape]: [N, positions, groups, synapses per neuron]."""
    pool, synapses = projection.pool, projection.synapses
    if pool is not None:
        windows = sliding_window_view(source, pool.kernel, axis=(2, 3))
        source = windows[:, :, :: pool.stride[0], :: pool.stride[1]].sum(axis=(4, 5))
    if not isinstance(synapses, Conv2d):
        return source.reshape(len(source), 1, 1, -1)
    seen = pooled_shape(shape, pool)
    values = source.reshape(len(source), *as_map(seen))
    (pad_y, pad_x), (step_y, step_x) = synapses.padding, synapses.stride
    dilation_y, dilation_x = synapses.dilation
    kernel_y, kernel_x = synapses.weight.shape[2:]
    padded = np.pad(values, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    span = (dilation_y * (kernel_y - 1) + 1, dilation_x * (kernel_x - 1) + 1)
    windows = sliding_window_view(padded, span, axis=(2, 3))
    patches = windows[:, :, ::step_y, ::step_x, ::dilation_y, ::dilation_x]
    count, channels, height, width = patches.shape[:4]
    ordered = patches.transpose(0, 2, 3, 1, 4, 5)
    per_group = channels // synapses.groups * kernel_y * kernel_x
    return ordered.reshape(count, height * width, synapses.groups, per_group)
