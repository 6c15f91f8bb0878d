"""Lava, Intel's framework for Loihi: netx files (``.net``), and programs where they fall short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snn_deploy.exporters import Opened, ReadOptions, Written
from snn_deploy.exporters.lava import program, reader, writer

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph, Integrator
from snn_deploy.sim.timing import pipelined

NET, PROGRAM = "model.net", "model_lava.py"


class LavaExporter:
    """Writes what Lava runs, and reads the HDF5 files of lava-dl's netx."""

    suffix = ".net"

    def export(self, graph: Graph, folder: Path) -> Written:
        """Write ``model.net``, or ``model_lava.py`` and its weights where netx cannot say it.

        Raises
        ------
        SnnDeployError
            SD203, SD204 or SD207 for what neither can say.
        """
        try:
            said = writer.write(graph, folder / NET)
        except SnnDeployError as error:
            if error.code != "SD204":
                raise
            made = program.Program(graph)
            made.write(folder / PROGRAM)
            files = (PROGRAM, str(Path(PROGRAM).with_suffix(".npz")))
            why = f"{error.where}: {error.message}"
            facts: dict[str, Any] = {"form": "program", "why": why, "relays": made.relays}
            return Written(files, facts | _facts(made.graph, graph))
        bits = said.input_bits
        facts = {"form": "netx", "layers": said.names, "input_message_bits": bits}
        return Written((NET,), facts | _facts(said.graph, graph))

    def write(self, graph: Graph, path: Path) -> None:
        """Write a chain of populations as a netx file."""
        writer.write(graph, path)

    def open(self, path: Path, options: ReadOptions) -> Opened:
        """Read a netx file of anyone, as Lava runs it."""
        return reader.read(path, input_bits=options.input_bits, input_shape=options.input_shape)


def _facts(chip: Graph, graph: Graph) -> dict[str, Any]:
    """How to feed the file, when its output comes, and where it is read."""
    schedule = pipelined(chip)
    readouts = {}
    for name in graph.outputs:
        neurons, given = chip.population(name).neurons, graph.population(name).neurons
        if not isinstance(neurons, Integrator):
            readouts[name] = "spike counts"
        elif neurons.readout == "last":
            readouts[name] = "membrane after the last timestep"
        else:
            readouts[name] = f"{given.readout} of the membrane over the timesteps, on the host"
    return {
        "driven_by": {i.name: "bias" if i.kind == "constant" else i.kind for i in chip.inputs},
        "reset_interval": graph.timesteps,
        "reset_offset": min(schedule.stages.values()),
        "stages": schedule.stages,
        "latency": schedule.latency,
        "readout": readouts,
    }


exporter = LavaExporter()
netx = exporter
