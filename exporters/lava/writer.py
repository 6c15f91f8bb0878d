"""From an integer graph to a netx ``.net`` file: chains of convolutions and dense layers.

What is written is read again, and what Lava would make of it compared with what was meant.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.lava.encoding import effective_weights
from snn_deploy.exporters.lava.netx_file import MOST_8_BITS, NEVER_FIRES, WHOLE
from snn_deploy.exporters.lava.reader import read, simulator_format

from snn_deploy import checks
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import LIF, Graph, Population, Projection
from snn_deploy.mapping import HostLayer, accumulate_readout, fold_pools, split_host
from snn_deploy.numerics import NumberFormat
from snn_deploy.packets import cannot_write, require_writable, write_atomically
from snn_deploy.quantization import prove_ranges
from snn_deploy.synapses import Conv2d, Dense

Array = NDArray[Any]

# Arrays of more bytes than this are compressed.
_PLAIN_BYTES = 4096

# What may differ between two formats whose arithmetic is the same: the chip's limits.
_LIMITS = {
    "weight_min", "weight_max", "weight_step", "weight_exponent_max", "threshold_bits",
    "threshold_per_population", "bias_bits", "spikes_max", "delay_max", "first_layer_weight_bits",
    "input_bits",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A graph as netx can say it: populations in a row.

    Attributes
    ----------
    graph : what Lava runs; without pools, and behind what the host computes.
    host : what the host computes before, None if nothing.
    names : populations in the file's order: netx' layer i is ``names[i]``.
    input_bits : width of a graded input's payload, 0 for spikes and biases.
    """

    graph: Graph
    host: HostLayer | None
    names: tuple[str, ...]
    input_bits: int


def chain(graph: Graph) -> Chain:
    """Lower a graph to what netx can say.

    Raises
    ------
    SnnDeployError
        SD204 naming what netx cannot say, SD203 where a readout might reach the threshold.
    """
    chip, host = lower(graph)
    if len(chip.inputs) != 1 or len(chip.outputs) != 1:
        raise _unsaid("more than one input or output", "graph")
    (spec,) = chip.inputs
    names: list[str] = []
    before = spec.name
    while len(names) < len(chip.populations):
        following = [p.target for p in chip.projections if p.source == before != p.target]
        if len(following) != 1 or following[0] in names:
            raise _unsaid("anything but populations in a row (no branches)", before)
        name = following[0]
        others = [p for p in chip.incoming(name) if p.source not in (before, name)]
        if others:
            raise _unsaid("paths that join (residual connections)", others[0].name)
        names.append(name)
        before = name
    if chip.outputs[0] != names[-1]:
        raise _unsaid("an output that is not the last population", chip.outputs[0])
    require_silent_readouts(chip)
    input_bits = 0
    if spec.kind == "graded":
        least, most = spec.encoded_range()
        input_bits = max(1, int(max(-least.min(), most.max())).bit_length())
    return Chain(chip, host, tuple(names), input_bits)


def lower(graph: Graph) -> tuple[Graph, HostLayer | None]:
    """The graph as Lava's processes can run it, and what the host does before.

    Raises
    ------
    SnnDeployError
        SD204 naming what they cannot, SD202 or SD203 where integers do not fit any more.
    """
    checks.check_integer(graph)
    require_lava_arithmetic(graph.number_format)
    prove_ranges(graph)
    lowered = fold_pools(graph)
    checks.check_integer(lowered)
    return split_host(accumulate_readout(lowered))


def require_silent_readouts(graph: Graph) -> None:
    """Raise SD203 unless no readout can reach the largest threshold of 17 bits."""
    ranges = prove_ranges(graph)
    for population in graph.populations:
        highest = ranges[population.name].membrane[1]
        if not isinstance(population.neurons, LIF) and highest > NEVER_FIRES << 6:
            raise SnnDeployError(
                "SD203",
                f"the readout may reach {highest}, where Lava's neurons fire",
                where=population.name,
                fix="lower the weights of the readout",
            )


def require_lava_arithmetic(number_format: NumberFormat | None) -> None:
    """Raise SD204 unless a number format computes as Lava does, limits aside."""
    lava = simulator_format()
    differing = [
        f.name
        for f in fields(NumberFormat)
        if number_format is None
        or (f.name not in _LIMITS and getattr(number_format, f.name) != getattr(lava, f.name))
    ]
    if differing:
        raise _unsaid(f"arithmetic other than Loihi's (`{differing[0]}` differs)", "number format")


def write(graph: Graph, path: Path) -> Chain:
    """Write a ``.net`` file, and return what it says; the same graph gives the same bytes.

    Raises
    ------
    SnnDeployError
        SD204 or SD203 for what netx cannot say, SD407 if the file, read again, means something
        else.
    """
    said = chain(graph)
    content = io.BytesIO()  # HDF5 ends the process if the disk is full: we write ourselves
    with h5py.File(content, "w") as file:
        _write_layers(file, said)
    require_writable(path)
    trial = path.with_name(f".{path.name}.trial")
    try:
        write_atomically(trial, content.getvalue())
        difference = _difference(said, trial)
        if difference is not None:
            raise SnnDeployError(
                "SD407",
                f"Lava would not run what was meant: {difference}",
                where=str(path),
                fix="this is a fault of snn-deploy: please report it",
            )
        os.replace(trial, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        trial.unlink(missing_ok=True)
    return said


def _unsaid(what: str, where: str) -> SnnDeployError:
    return SnnDeployError(
        "SD204", f"netx cannot say {what}", where=where, fix="export a Lava program instead"
    )


def _write_layers(file: h5py.File, said: Chain) -> None:
    graph = said.graph
    (spec,) = graph.inputs
    layers: list[dict[str, Any]] = []
    shape = spec.shape
    if said.host is None and spec.kind != "constant" and len(shape) == 3:
        layers.append({"type": b"input", "shape": np.array(shape)})
    for index, name in enumerate(said.names):
        population = graph.population(name)
        incoming = {p.source: p for p in graph.incoming(name)}
        forward = incoming[spec.name if index == 0 else said.names[index - 1]]
        if graph.is_constant(forward):
            layers.append(
                {"type": b"input", "shape": np.array(population.shape), **_neuron(population)}
            )
            continue
        if isinstance(forward.synapses, Conv2d):
            if len(population.shape) == 1:
                raise _unsaid("a convolution over a vector", forward.name)
            if name in incoming:
                raise _unsaid("recurrent synapses behind a convolution", incoming[name].name)
            layers.append(_convolution(population, forward, forward.synapses))
        else:
            if len(graph.shape_of(forward.source)) == 3:
                layers.append({"type": b"flatten"})
            layers.append(_dense(population, forward, incoming.get(name)))
    for index, layer in enumerate(layers):
        group = file.create_group(f"layer/{index}")
        group.create_dataset("type", data=np.array([layer.pop("type")], "S10"))
        for key, value in layer.items():
            _put(group, key, value)
    provenance = {
        "populations": list(said.names),
        "scales": [graph.population(n).scale for n in said.names],
        "timesteps": graph.timesteps,
        "input_message_bits": said.input_bits,
    }
    file["snn_deploy"] = np.bytes_(json.dumps(provenance, sort_keys=True))


def _put(group: h5py.Group, key: str, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.nbytes > _PLAIN_BYTES:
        group.create_dataset(key, data=value, compression="gzip", shuffle=True)
    else:
        group.create_dataset(key, data=value)


def lava_parameters(population: Population) -> tuple[Array, Array, Array]:
    """Lava's ``iDecay``, ``vDecay`` (what is lost) and threshold; sinks do not reach theirs."""
    neurons = population.neurons
    threshold = neurons.threshold if isinstance(neurons, LIF) else np.array(NEVER_FIRES)
    memory = np.zeros((), np.int64) if neurons.current_decay is None else neurons.current_decay
    return WHOLE - memory, WHOLE - neurons.decay, threshold


def _neuron(population: Population) -> dict[str, Any]:
    current_decay, decay, threshold = lava_parameters(population)
    return {
        "neuron/type": np.bytes_("CUBA"),
        "neuron/iDecay": _parameter(current_decay, population, "current decays"),
        "neuron/vDecay": _parameter(decay, population, "decays"),
        "neuron/vThMant": _parameter(threshold, population, "thresholds"),
    }


def _parameter(value: Array, population: Population, what: str) -> Array:
    """One number, or one per neuron of a vector or per channel of a map."""
    flat = np.asarray(value, np.int64)
    if flat.size == 1:
        return flat.reshape(())
    if len(population.shape) == 1:
        return flat
    if flat.shape != (population.shape[0], 1, 1):
        raise _unsaid(f"{what} per neuron of a map", population.name)
    return flat.reshape(-1)


def _bias(population: Population) -> dict[str, Any]:
    bias = np.asarray(population.neurons.bias, np.int64)
    if not bias.any():
        return {}
    if len(population.shape) == 1:
        return {"bias": np.broadcast_to(bias, population.shape).astype(np.int32)}
    if bias.size == 1 or bias.shape == (population.shape[0], 1, 1):
        per_channel = np.broadcast_to(bias.reshape(-1), population.shape[:1])
        return {"bias": per_channel.astype(np.int32)}
    # Lava's order of a full map is W, H, C
    return {"bias": np.ascontiguousarray(bias.transpose(2, 1, 0)).astype(np.int32)}


def require_small_geometry(synapses: Conv2d, where: str) -> None:
    """Raise SD204 unless the numbers that Lava keeps in 8 bits fit them."""
    weight_shape = synapses.weight.shape
    pairs = {
        "stride": synapses.stride,
        "padding": synapses.padding,
        "dilation": synapses.dilation,
        "groups": (synapses.groups,),
        "kernel": (weight_shape[2], weight_shape[3]),
    }
    for name, pair in pairs.items():
        if max(pair) > MOST_8_BITS:
            raise _unsaid(f"a {name} of {max(pair)}: the most is {MOST_8_BITS}", where)


def _convolution(
    population: Population, projection: Projection, synapses: Conv2d
) -> dict[str, Any]:
    if projection.longest_delay:
        raise _unsaid("delays of a convolution (netx ignores them)", projection.name)
    require_small_geometry(synapses, projection.name)
    weight = synapses.weight.astype(np.int64) << projection.exponent
    return {
        "type": b"conv",
        "shape": np.array(population.shape),
        "inChannels": synapses.weight.shape[1] * synapses.groups,
        "outChannels": synapses.weight.shape[0],
        "kernelSize": np.array(synapses.weight.shape[2:]),
        "weight": weight.astype(np.int32),
        "stride": np.array(synapses.stride),
        "padding": np.array(synapses.padding),
        "dilation": np.array(synapses.dilation),
        "groups": synapses.groups,
        **_neuron(population),
        **_bias(population),
    }


def _dense(
    population: Population, projection: Projection, loop: Projection | None
) -> dict[str, Any]:
    weight = projection.synapses.weight.astype(np.int64) << projection.exponent
    layer: dict[str, Any] = {
        "type": b"dense",
        "shape": np.array(population.shape),
        "inFeatures": weight.shape[1],
        "outFeatures": weight.shape[0],
        "weight": weight.astype(np.int32),
    }
    recurrent = None
    if loop is not None:
        if not isinstance(loop.synapses, Dense) or loop.pool is not None:
            raise _unsaid("recurrent synapses other than dense ones", loop.name)
        if loop.longest_delay != 1 or loop.shortest_delay != 1:
            raise _unsaid("recurrence with a delay other than 1", loop.name)
        if projection.longest_delay:
            raise _unsaid("delays on a recurrent layer", projection.name)
        recurrent = loop.synapses.weight.astype(np.int64) << loop.exponent
        layer |= {"type": b"dense_rec", "weight_rec": recurrent.astype(np.int32)}
    elif projection.longest_delay:
        delay = np.asarray(projection.delay, np.int64)
        if delay.ndim == 2:
            # a vector would be read as per output neuron where the matrix is square
            delay = np.broadcast_to(delay, weight.shape).copy()
        layer["delay"] = delay
    effective = effective_weights(weight, recurrent, where=projection.name)
    same = np.array_equal(effective.weight, weight)
    if recurrent is not None and effective.recurrent is not None:
        same = same and np.array_equal(effective.recurrent, recurrent)
    if not same:
        raise SnnDeployError(
            "SD204",
            f"netx would change these weights: {'; '.join(effective.notes)}",
            where=projection.name,
            why="netx scales matrices whose weights have one sign to the chip's sign modes",
            fix="train with weights of both signs, or export a Lava program instead",
        )
    return layer | _neuron(population) | _bias(population)


def _difference(said: Chain, path: Path) -> str | None:
    """The first part in which the file, as Lava reads it, is not the graph that was meant."""
    graph = said.graph
    found = read(path, input_bits=said.input_bits).graph
    numbers = {name: str(index) for index, name in enumerate(said.names)}
    if len(found.populations) != len(said.names) or len(found.projections) != len(
        graph.projections
    ):
        return "the number of layers"
    for name, number in numbers.items():
        mine, theirs = graph.population(name), found.population(number)
        if mine.shape != theirs.shape:
            return f"the shape of {name}"
        expected = checks.parameters(mine)
        expected.setdefault("threshold", np.array(NEVER_FIRES))
        expected.setdefault("current_decay", np.zeros((), np.int64))
        read_back = checks.parameters(theirs)
        read_back.setdefault("current_decay", np.zeros((), np.int64))
        for key, value in expected.items():
            if not _same(value, read_back[key], mine.shape):
                return f"{key} of {name}"
    inputs = {graph.inputs[0].name: found.inputs[0].name}
    by_name = {p.name: p for p in found.projections}
    for projection in graph.projections:
        source = {**numbers, **inputs}[projection.source]
        other = by_name.get(f"{source}->{numbers[projection.target]}")
        if other is None:
            return projection.name
        weight = projection.synapses.weight.astype(np.int64) << projection.exponent
        if not _same(projection.delay, other.delay, weight.shape):
            return f"delays of {projection.name}"
        if not _same_synapses(replace(projection.synapses, weight=weight), other.synapses):
            return f"synapses of {projection.name}"
    return None


def _same(one: Array | int, other: Array | int, shape: tuple[int, ...]) -> bool:
    if np.ndim(one) == np.ndim(other) == 0:
        return bool(one == other)
    return np.array_equal(np.broadcast_to(one, shape), np.broadcast_to(other, shape))


def _same_synapses(one: Dense | Conv2d, other: Dense | Conv2d) -> bool:
    if isinstance(one, Conv2d) and isinstance(other, Conv2d):
        geometry = ("stride", "padding", "dilation", "groups")
        if any(getattr(one, g) != getattr(other, g) for g in geometry):
            return False
    return type(one) is type(other) and np.array_equal(one.weight, other.weight)
