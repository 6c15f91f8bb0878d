"""Files of others: what must be said to read one, and the graph that it is then."""

from __future__ import annotations

from dataclasses import replace

from snn_deploy.exporters import Opened, ReadOptions
from snn_deploy.exporters.nir.dynamics import DIALECTS, Dialect, ResetName, dt_of
from snn_deploy.exporters.nir.file import NirFile
from snn_deploy.exporters.nir.reading import read_graph

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import InputSpec
from snn_deploy.synapses import Shape

# Resets that a dialect leaves open (the first where none is asked for), and those it has.
_RESETS: dict[str, tuple[ResetName, ...]] = {
    "euler": ("zero", "subtract"),
    "norse": ("zero", "subtract"),
    "snntorch": ("subtract", "zero"),
    "spikingjelly": ("zero",),
    "sinabs": ("subtract", "zero"),
    "sinabs-norm": ("subtract", "zero"),
    "rockpool": ("subtract",),
}

# What a dialect's writer leaves out of its files, by the kind of node that it matters for.
_LOST: dict[str, dict[str, str]] = {
    "norse": {
        "LIF": "v_reset is taken for 0: Norse does not write it",
        "CubaLIF": "v_reset is taken for 0: Norse does not write it",
    },
    "snntorch": {
        "CubaLIF": "a reset to zero is taken to act at once (reset_delay=False)",
    },
    "sinabs": {
        "LIF": "norm_input is taken for False, tau_syn and min_v_mem for None: sinabs does not "
        "write them; read with dialect sinabs-norm if norm_input was True",
        "IF": "min_v_mem is taken for None: sinabs does not write it",
        "LI": "norm_input is taken for False and min_v_mem for None: sinabs does not write them",
    },
    "sinabs-norm": {
        "LIF": "tau_syn and min_v_mem are taken for None: sinabs does not write them",
        "IF": "min_v_mem is taken for None: sinabs does not write it",
        "LI": "norm_input is taken for False and min_v_mem for None: sinabs does not write them",
    },
    "rockpool": {
        "LIF": "the neurons' own bias is taken for 0: rockpool does not write it",
        "CubaLIF": "the neurons' own bias is taken for 0 and has_rec for False: rockpool does not "
        "write them",
    },
}


def open_foreign(file: NirFile, options: ReadOptions) -> Opened:
    """Read a file of others.

    Raises
    ------
    SnnDeployError
        SD104 naming the choices where the file leaves something open or an option makes no sense,
        SD105 for an unknown dialect, SD204 and SD401 for the file.
    """
    dialect = _dialect(file.path, options)
    graph = read_graph(
        file,
        dialect,
        lambda name, shape: _input(file.path, name, shape, options),
        options.readout or "mean",
    )
    if options.timesteps is not None:
        graph = replace(graph, timesteps=options.timesteps)
    kinds = {node.kind for node in file.nodes.values()}
    lost = dict.fromkeys(
        text
        for kind, text in _LOST.get(dialect.name, {}).items()
        if kind in kinds and not (dialect.name == "snntorch" and dialect.reset == "subtract")
    )
    return Opened(graph, notes=(*file.notes, *lost))


def _dialect(path: str, options: ReadOptions) -> Dialect:
    name = options.dialect
    if name is None:
        raise SnnDeployError(
            "SD104",
            "the file does not say how its neurons are stepped, and who wrote it",
            where=path,
            why="NIR holds differential equations; writers discretise and reset differently",
            fix=f"give --dialect: {', '.join(DIALECTS)}",
        )
    if name not in DIALECTS:
        raise SnnDeployError(
            "SD105", f"no dialect {name!r}", fix=f"choose one of {', '.join(DIALECTS)}"
        )
    dt = dt_of(name, options.dt)
    if dt is None:
        raise SnnDeployError(
            "SD104",
            f"the file does not say the length of a timestep, which dialect {name} needs",
            where=path,
            fix="give --dt in seconds; 1e-4 is what most writers take",
        )
    if options.dt is not None and options.dt != dt:
        raise SnnDeployError(
            "SD104", f"dialect {name} has a timestep of {dt:g}, not {options.dt:g}",
            where=path, fix="leave out --dt",
        )  # fmt: skip
    if not 0 < dt < 1e6:
        raise SnnDeployError("SD104", f"a timestep of {dt:g}", where=path)
    known = _RESETS[name]
    if options.reset is not None and options.reset not in known:
        raise SnnDeployError(
            "SD104", f"dialect {name} has no reset `{options.reset}`", where=path,
            fix=f"leave out --reset, or choose another dialect; {name} has {' and '.join(known)}",
        )  # fmt: skip
    if options.reset is None and name == "snntorch":
        raise SnnDeployError(
            "SD104",
            "the file does not say how its neurons reset",
            where=path,
            why="snnTorch writes neither reset_mechanism nor reset_delay",
            fix="give --reset subtract (snnTorch's default) or --reset zero",
        )
    return Dialect(name, dt, options.reset or known[0])


def _input(path: str, name: str, shape: Shape, options: ReadOptions) -> InputSpec:
    if options.input_shape is not None and options.input_shape != shape:
        raise SnnDeployError(
            "SD104", f"the input has shape {shape}, not {options.input_shape}", where=path
        )
    kind = options.input_kind or "spikes"
    if kind == "spikes":
        if options.input_range is not None:
            raise SnnDeployError(
                "SD104", "a range makes no sense for spikes", where=path,
                fix="give --input-kind graded or constant for values",
            )  # fmt: skip
        return InputSpec(name=name, kind="spikes", shape=shape)
    if options.input_range is None:
        raise SnnDeployError(
            "SD104",
            f"{kind} values need the range that they lie in",
            where=path,
            fix="give --input-range LOW,HIGH",
        )
    low, high = options.input_range
    return InputSpec(name=name, kind=kind, shape=shape, low=low, high=high)
