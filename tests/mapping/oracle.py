"""Placements counted one synapse at a time, in plain Python, from the definition of each thing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from snn_deploy.graph import Graph, Projection
from snn_deploy.mapping.placement import Placement
from snn_deploy.mapping.routing import columns
from snn_deploy.synapses import Dense

Neuron = tuple[str, int]  # population or input, index in C, H, W order
Counts = dict[str, int]

MESSAGES = (
    "message_out", "message_in", "spike_within_tile", "hop_east_west", "hop_north_south", "packet",
)  # fmt: skip


def pairs(graph: Graph, projection: Projection) -> set[tuple[int, int]]:
    """(source, target) of every synapse of a projection, each pair once."""
    shape, target = graph.shape_of(projection.source), graph.shape_of(projection.target)
    channels, height, width = (*shape, 1, 1)[:3]
    pool = projection.pool
    (kernel_y, kernel_x), (step_y, step_x) = (
        ((1, 1), (1, 1)) if pool is None else (pool.kernel, pool.stride)
    )
    rows, columns = (height - kernel_y) // step_y + 1, (width - kernel_x) // step_x + 1

    def window(channel: int, row: int, column: int) -> list[int]:
        """Source neurons behind one place of the pooled map."""
        return [
            (channel * height + row * step_y + y) * width + column * step_x + x
            for y in range(kernel_y)
            for x in range(kernel_x)
        ]

    found = set()
    synapses = projection.synapses
    if isinstance(synapses, Dense):
        for place in product(range(channels), range(rows), range(columns)):
            for source in window(*place):
                found |= {(source, t) for t in range(target[0])}
        return found
    outputs, inside, taps_y, taps_x = synapses.weight.shape
    _, out_rows, out_columns = (*target, 1, 1)[:3]
    per_group = outputs // synapses.groups
    for out, row, column in product(range(outputs), range(out_rows), range(out_columns)):
        neuron = (out * out_rows + row) * out_columns + column
        for channel, y, x in product(range(inside), range(taps_y), range(taps_x)):
            at_y = row * synapses.stride[0] - synapses.padding[0] + y * synapses.dilation[0]
            at_x = column * synapses.stride[1] - synapses.padding[1] + x * synapses.dilation[1]
            if 0 <= at_y < rows and 0 <= at_x < columns:
                behind = window(out // per_group * inside + channel, at_y, at_x)
                found |= {(source, neuron) for source in behind}
    return found


@dataclass
class Enumeration:
    """Everything about a placement that a test compares."""

    usage: list[dict[str, int]]
    messages: dict[str, Counts]


def wired(graph: Graph, on_chip: set[str]) -> list[tuple[Projection, set[tuple[int, int]]]]:
    """The projections that take room on a core, with their synapses."""
    return [(p, pairs(graph, p)) for p in graph.projections if p.name in on_chip]


def enumerate_placement(
    placement: Placement,
    on_chip: set[str],
    *,
    shares: bool,
    bits: dict[str, int],
    events: dict[str, Any],
    apart: set[str],
) -> Enumeration:
    """Usage of every core and messages of every source.

    Parameters
    ----------
    shares : whether kernels are stored once per core.
    bits : per projection, bits of a weight.
    events : per input and population, how often each neuron fired.
    apart : populations whose neurons do not count.
    """
    graph = placement.graph
    home: dict[Neuron, int] = {
        (name, index): int(core)
        for name, cores in placement.homes.items()
        for index, core in enumerate(cores.ravel())
    }
    hears: list[set[Neuron]] = [set() for _ in range(placement.cores)]
    weights: list[dict[str, set[Any]]] = [defaultdict(set) for _ in range(placement.cores)]
    for projection, synapses in wired(graph, on_chip):
        for source, target in synapses:
            core = home[projection.target, target]
            hears[core].add((projection.source, source))
            weights[core][projection.name].add((source, target))
        if shares and not isinstance(projection.synapses, Dense):
            kernel = projection.synapses.weight.shape
            size = int(np.prod(graph.shape_of(projection.target)[1:]))
            for core in range(placement.cores):
                weights[core].pop(projection.name, None)
            for target in range(size * kernel[0]):
                core = home[projection.target, target]
                places = product(range(kernel[1]), range(kernel[2]), range(kernel[3]))
                weights[core][projection.name] |= {(target // size, *place) for place in places}
    usage = []
    for core in range(placement.cores):
        stored = {name: len(found) for name, found in weights[core].items()}
        usage.append(
            {
                "neurons_per_core": sum(
                    c == core for (name, _), c in home.items() if name not in apart
                ),
                "axons_in_per_core": len(hears[core]),
                "axons_out_per_core": sum(
                    home.get(neuron) == core for heard in hears for neuron in heard
                ),
                "synapses_per_core": sum(stored.values()),
                "synapse_bits_per_core": sum(n * bits[name] for name, n in stored.items()),
            }
        )
    messages: dict[str, Counts] = {
        p.source: dict.fromkeys(MESSAGES, 0) for p, _ in wired(graph, on_chip)
    }
    for core, heard in enumerate(hears):
        for neuron in heard:
            times = int(events[neuron[0]].ravel()[neuron[1]])
            counts = messages[neuron[0]]
            counts["message_in"] += times
            if neuron in home:
                counts["message_out"] += times
                _route(placement, home[neuron], core, times, counts)
    return Enumeration(usage, messages)


def _route(placement: Placement, sender: int, receiver: int, times: int, counts: Counts) -> None:
    """Walk a message from tile to tile: first along the row, then along the column."""
    x, y = tile_of(placement, sender)
    end_x, end_y = tile_of(placement, receiver)
    counts["packet"] += times
    if (x, y) == (end_x, end_y):
        counts["spike_within_tile"] += times
    while x != end_x:
        x += 1 if end_x > x else -1
        counts["hop_east_west"] += times
        counts["packet"] += times
    while y != end_y:
        y += 1 if end_y > y else -1
        counts["hop_north_south"] += times
        counts["packet"] += times


def tile_of(placement: Placement, core: int) -> tuple[int, int]:
    """Column and row of a core's tile, counted off chip by chip and tile by tile."""
    mesh = placement.mesh
    tile = int(placement.slots[core]) // mesh.cores_per_tile
    chip = 0
    while tile >= mesh.tiles_per_chip:
        chip, tile = chip + 1, tile - mesh.tiles_per_chip
    width, abreast = columns(mesh.tiles_per_chip), columns(mesh.chips)
    x, y = walk(tile, width)
    chip_x, chip_y = walk(chip, abreast)
    height = max(walk(t, width)[1] for t in range(mesh.tiles_per_chip)) + 1
    return chip_x * width + x, chip_y * height + y


def walk(steps: int, width: int) -> tuple[int, int]:
    """Where one is after so many steps along rows that turn back at each end."""
    x, y, forward = 0, 0, True
    for _ in range(steps):
        if (forward and x == width - 1) or (not forward and x == 0):
            y, forward = y + 1, not forward
        else:
            x += 1 if forward else -1
    return x, y
