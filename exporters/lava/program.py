"""A runnable Lava program for graphs that netx cannot say: residual and other branching networks.

Two files: a Python module that builds the network of ``lava.proc`` processes, and its weights
beside it. Paths of unequal length are balanced with relays and delayed synapses, so that every
window of timesteps is what the zero-delay graph does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.lava.netx_file import DELAY_MAX
from snn_deploy.exporters.lava.writer import (
    lava_parameters,
    lower,
    require_silent_readouts,
    require_small_geometry,
)

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.mapping import insert_relays
from snn_deploy.packets import npz_bytes, write_atomically
from snn_deploy.sim.timing import Schedule, pipelined
from snn_deploy.synapses import Conv2d

Array = NDArray[Any]

_HEADER = '''\
"""{title}

Built of Lava's processes (lava-nc 0.10, fixed_pt models); weights are read from the .npz file of
the same name. Arrays in and out of Lava are [W, H, C] with time last. Example:

    network = build(steps=..., inputs={{...}}, reset_interval=...)
    network.run_process.run(RunSteps(num_steps=...), Loihi2SimCfg(select_tag="fixed_pt"))

inputs: {inputs}
{relays}
What Lava's simulator accepts and Loihi 2 may not: thresholds and decays per neuron, weights of a
convolution beyond 8 bits, reset intervals that are no power of two.
"""

from pathlib import Path

import numpy as np
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIF, LIFReset
from lava.utils.weightutils import SignMode

# Timesteps by which each population runs behind the network without hops.
STAGES = {stages}


class Network:
    """The processes: populations by name, and any of them to call run on."""

    def __init__(self, populations, biased):
        self.populations = populations
        self.run_process = next(iter(populations.values()))
        # Population whose bias_mant takes the input; None if spikes drive the network.
        self.biased = populations.get(biased)


def build(steps, inputs, reset_interval=None, reset_offset=None):
    """Build the network for so many timesteps.

    inputs: arrays [time, C, H, W] or [time, N] of spikes or payloads by input; for a network driven
    by biases "bias" [1, C, H, W] or [1, N]. reset_interval: clear all neurons every so many
    timesteps, each population when its next window begins, or from reset_offset on (counted from 0
    for the first population).
    """
    arrays = np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False)
    first = min(STAGES.values())

    def population(name, shape, **parameters):
        kind = LIF
        if reset_interval is not None:
            begin = STAGES[name] if reset_offset is None else reset_offset + STAGES[name] - first
            # Lava counts timesteps from 1.
            parameters["reset_interval"] = reset_interval
            parameters["reset_offset"] = (begin + 1) % reset_interval
            kind = LIFReset
        return kind(shape=shape, bias_exp=6, **parameters)

    def source(name, shape):
        given = np.asarray(inputs[name])
        if given.ndim == 4:
            given = given.transpose(0, 3, 2, 1)
        data = np.zeros((*shape, steps), np.int32)
        rows = min(steps, len(given))
        data[..., :rows] = np.moveaxis(given[:rows], 0, -1)
        return RingBuffer(data=data)

    def connect(out, synapses, target):
        out.connect(synapses.s_in)
        synapses.a_out.connect(target.a_in)

    nodes = {{}}
    populations = {{}}
'''

_FOOTER = """\
    return Network(populations, {biased!r})
"""


class Program:
    """A graph as Lava's processes.

    Parameters
    ----------
    graph : integer graph in Loihi's arithmetic.

    Raises
    ------
    SnnDeployError
        SD203, SD204 or SD207 for what Lava's processes cannot do.

    Attributes
    ----------
    graph : what Lava runs, relays included.
    host : what the host computes before, None if nothing.
    relays : names of the populations that only wait.
    """

    def __init__(self, graph: Graph) -> None:
        lowered, self.host = lower(graph)
        self.graph, self.relays = insert_relays(lowered)
        require_silent_readouts(self.graph)
        self.schedule: Schedule = pipelined(self.graph)
        self._stored: dict[str, Array] = {}
        self._lines = self._body()

    def write(self, path: Path) -> None:
        """Write the module, and the weights beside it; the same graph gives the same bytes."""
        write_atomically(path.with_suffix(".npz"), self.arrays())
        write_atomically(path, self.text().encode())

    def text(self) -> str:
        """The module."""
        spec = ", ".join(
            f"{i.name} ({'bias' if i.kind == 'constant' else i.kind}) of shape {i.shape}"
            for i in self.graph.inputs
        )
        relays = f"Relays, which only wait: {', '.join(self.relays)}." if self.relays else ""
        head = _HEADER.format(
            title=f"A spiking network of {len(self.graph.populations)} populations on Lava.",
            inputs=spec,
            relays=relays,
            stages=repr({p.name: self.schedule.stages[p.name] for p in self.graph.populations}),
        )
        biased = None if self.host is None else self.host.population
        return head + "".join(self._lines) + _FOOTER.format(biased=biased)

    def arrays(self) -> bytes:
        """The weights and parameters, as an ``.npz`` file."""
        return npz_bytes(self._stored)

    def _keep(self, value: Array) -> str:
        """Store an array; returns the expression that loads it."""
        name = f"a{len(self._stored)}"
        self._stored[name] = value
        return f'arrays["{name}"]'

    def _body(self) -> list[str]:
        lines = []
        for spec in self.graph.inputs:
            if spec.kind != "constant":
                shape = spec.shape[::-1]
                lines.append(f"    nodes[{spec.name!r}] = source({spec.name!r}, {shape!r})\n")
        lines += [self._population(p) for p in self.graph.populations]
        lines += [
            self._projection(p) for p in self.graph.projections if not self.graph.is_constant(p)
        ]
        return lines

    def _population(self, population: Population) -> str:
        current_decay, decay, threshold = lava_parameters(population)
        parameters = {
            "du": self._parameter(current_decay - 1, population),  # Lava adds one
            "dv": self._parameter(decay, population),
            "vth": self._parameter(threshold, population),
            "bias_mant": self._parameter(population.neurons.bias, population),
        }
        if self.host is not None and self.host.population == population.name:
            (spec,) = (i for i in self.graph.inputs if i.kind == "constant")
            given = f"np.asarray(inputs[{spec.name!r}])[0]"
            parameters["bias_mant"] = f"{given}.T.astype(np.int32)"
        written = "".join(f"\n        {key}={value}," for key, value in parameters.items())
        name, shape = population.name, population.shape[::-1]
        return (
            f"    nodes[{name!r}] = populations[{name!r}] = population(\n"
            f"        {name!r},\n        {shape!r},{written}\n    )\n"
        )

    def _parameter(self, value: Array, population: Population) -> str:
        """A number as it is, an array in Lava's order: W, H, C."""
        integers = np.asarray(value, np.int64)
        if integers.size == 1:
            return str(int(integers.reshape(())))
        full = np.broadcast_to(integers, population.shape).astype(np.int32)
        return self._keep(np.ascontiguousarray(full.T))

    def _projection(self, projection: Projection) -> str:
        graph = self.graph
        name = projection.source
        shape = graph.shape_of(name)
        graded = graph.is_input(name) and graph.input(name).kind == "graded"
        bits = 24 if graded else 0
        delay = np.asarray(self.schedule.delays[projection.name]) - 1
        out = f"nodes[{name!r}].s_out"
        if isinstance(projection.synapses, Conv2d) and len(shape) == 3:
            if delay.any():
                raise SnnDeployError(
                    "SD204", "Lava's convolutions have no delays", where=projection.name
                )
            require_small_geometry(projection.synapses, projection.name)
            synapses = self._convolution(projection.synapses, projection.exponent, shape, bits)
        else:
            if len(shape) == 3:
                out += ".flatten()"
            synapses = self._dense(projection, shape, delay, bits)
        target = f"nodes[{projection.target!r}]"
        return f"    connect(\n        {out},\n{synapses}        {target},\n    )\n"

    def _convolution(
        self, synapses: Conv2d, exponent: int, shape: tuple[int, ...], bits: int
    ) -> str:
        # Lava convolves where PyTorch correlates, in W, H order; its model knows no exponent.
        weight = (synapses.weight.astype(np.int64) << exponent)[:, :, ::-1, ::-1]
        kept = self._keep(np.ascontiguousarray(weight.transpose(0, 3, 2, 1)).astype(np.int32))
        return (
            "        Conv(\n"
            f"            weight={kept},\n"
            f"            input_shape={shape[::-1]!r},\n"
            f"            stride={synapses.stride[::-1]!r},\n"
            f"            padding={synapses.padding[::-1]!r},\n"
            f"            dilation={synapses.dilation[::-1]!r},\n"
            f"            groups={synapses.groups},\n"
            f"            num_message_bits={bits},\n"
            "        ),\n"
        )

    def _dense(
        self, projection: Projection, shape: tuple[int, ...], delay: Array, bits: int
    ) -> str:
        weight = projection.synapses.weight.astype(np.int64)
        if isinstance(projection.synapses, Conv2d):  # over a vector
            weight = _dense_of(projection.synapses, shape[0])
        if weight.min() < -256 or weight.max() > 255:
            raise SnnDeployError(
                "SD204",
                f"dense weights from {weight.min()} to {weight.max()}: Lava clips them to "
                "[-256, 255]",
                where=projection.name,
            )
        order = np.arange(weight.shape[1])
        if len(shape) == 3:  # columns in the order in which Lava flattens: W, H, C
            order = order.reshape(shape).T.reshape(-1)
        kept = self._keep(weight[:, order].astype(np.int32))
        delayed = ""
        kind = "Dense"  # of nine bits, sign included: eight would cut odd weights
        if delay.any():
            if delay.max() > DELAY_MAX:
                raise SnnDeployError(
                    "SD204",
                    f"a spike would have to wait {delay.max()} timesteps, Lava's delays end at "
                    f"{DELAY_MAX}",
                    where=projection.name,
                )
            full = np.broadcast_to(delay, weight.shape)[:, order].astype(np.int64)
            delayed = f"            delays={self._keep(full)},\n"
            kind = "DelayDense"
        return (
            f"        {kind}(\n"
            f"            weights={kept},\n{delayed}"
            f"            weight_exp={projection.exponent},\n"
            "            num_weight_bits=9,\n"
            "            sign_mode=SignMode.MIXED,\n"
            f"            num_message_bits={bits},\n"
            "        ),\n"
        )


def _dense_of(synapses: Conv2d, channels: int) -> NDArray[np.int64]:
    """The matrix of a convolution over a vector: of the weights that lie on its one pixel."""
    out, per_group = synapses.weight.shape[:2]
    matrix = np.zeros((out, channels), np.int64)
    steps = [divmod(p, d) for p, d in zip(synapses.padding, synapses.dilation, strict=True)]
    (y, rest_y), (x, rest_x) = steps
    if rest_y or rest_x or y >= synapses.weight.shape[2] or x >= synapses.weight.shape[3]:
        return matrix  # all lie on the padding
    rows = out // synapses.groups
    for group in range(synapses.groups):
        columns = slice(group * per_group, (group + 1) * per_group)
        part = slice(group * rows, (group + 1) * rows)
        matrix[part, columns] = synapses.weight[part, :, y, x]
    return matrix
