"""``diff``: run two stages of one network on the same input, and say where they part first."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.artefacts import open_artefact
from snn_deploy.errors import SnnDeployError
from snn_deploy.exporters import ReadOptions
from snn_deploy.graph import LIF, Graph
from snn_deploy.packets import Recording, read_recording
from snn_deploy.quantization import quantize
from snn_deploy.sim import reference
from snn_deploy.sim.divergence import Comparison, Run
from snn_deploy.sim.findings import Difference, PopulationDivergence
from snn_deploy.sim.plan import plan, steps_of, with_sample_axis

if TYPE_CHECKING:
    from snn_deploy.freezing.module_run import ModuleRunner

Progress = Callable[[str, int, int], None]
# A path, a graph, or a torch module; torch itself is not imported here.
Network = str | os.PathLike[str] | Graph | Any

# One batch's working memory, roughly: traces and books of both sides.
_BATCH_BYTES = 64 << 20
_BYTES_PER_SLOT = 200


@dataclass(frozen=True, slots=True)
class Divergence:
    """What two stages of a network make of one recording.

    Attributes
    ----------
    a, b : what was compared.
    samples, timesteps : of the run.
    first_state : the earliest slot of equal history whose sum, current, membrane or reset differs
        by more than the rounding of one side to the other explains; None if there is none.
    first_spike : the earliest slot whose spikes differ, None if there is none. Its cause is None
        where a state of the same neuron differed before.
    populations : tallies in causal order.
    decisions_changed : samples that the two decide differently.
    notes : what acts otherwise than a file reads.
    """

    a: str
    b: str
    samples: int
    timesteps: int
    first_state: Difference | None
    first_spike: Difference | None
    populations: tuple[PopulationDivergence, ...]
    decisions_changed: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def first(self) -> Difference | None:
        """Where to look: a state beyond rounding if there is one, else the first spike."""
        return self.first_state or self.first_spike

    @property
    def slots(self) -> int:
        """Neurons that can fire, times timesteps, times samples."""
        return sum(p.slots for p in self.populations)

    @property
    def differing(self) -> int:
        """Slots whose spikes differ."""
        return sum(p.differing for p in self.populations)

    @property
    def percent(self) -> float:
        """Differing slots in percent of all; 0 where nothing can fire."""
        return 100 * self.differing / self.slots if self.slots else 0.0

    @property
    def identical(self) -> bool:
        """Whether nothing differs: no spike, no decision, no state beyond rounding."""
        return self.first is None and not self.decisions_changed


def diff(
    a: Network,
    b: Network,
    recording: str | os.PathLike[str] | Recording,
    *,
    steps: int | None = None,
    reading: ReadOptions | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Divergence:
    """Compare two stages of one network: where they part first, why, and how far it spreads.

    Parameters
    ----------
    a, b : two of: a checkpoint (``model.pt``: the trained module in its float32 evaluation), its
        frozen float graph (``model.pt@frozen``), its integer graph for a target
        (``model.pt@loihi2``, or the path of a target's ``.toml`` after the ``@``), an exported
        folder or a network file; or a module or graph itself.
    recording : inputs that fit both, or their file.
    steps : timesteps to run; default: the graphs', else the recording's. A module runs all.
    reading : what a file leaves unsaid.
    batch : samples at a time; default: as many as fit a modest amount of memory.
    progress : called with (what, samples done, samples in all).

    Returns
    -------
    Divergence
        Membranes and thresholds in units of the float network.

    Raises
    ------
    SnnDeployError
        SD108 where the two have not the same populations or timesteps; SD1xx, SD2xx and SD4xx where
        a stage cannot be opened or the recording does not fit it.
    """
    one, other = (_open(what, reading) for what in (a, b))
    other = _named_alike(one, other)
    _require_comparable(one, other)
    if not isinstance(recording, Recording):
        recording = read_recording(recording)
    recordings = [with_sample_axis(s.graph, recording) for s in (one, other)]
    stages = tuple(zip((one, other), recordings, strict=True))
    lengths = {steps_of(stage.graph, fitted, steps) for stage, fitted in stages}
    if len(lengths) != 1:
        raise SnnDeployError("SD108", f"one runs {min(lengths)} timesteps, one {max(lengths)}")
    length = lengths.pop()
    for stage, fitted in stages:
        if stage.module is not None and length != steps_of(stage.graph, fitted, None):
            raise SnnDeployError(
                "SD104", "a trained module runs all its timesteps", where=stage.label,
                fix="leave the number of steps out, or compare its frozen graph (@frozen)",
            )  # fmt: skip
    samples = recordings[0].samples
    if batch is None:
        slots = length * sum(p.size for p in one.graph.populations)
        batch = max(1, _BATCH_BYTES // (_BYTES_PER_SLOT * slots))
    comparison = Comparison(one.graph, other.graph)
    changed: list[int] = []
    for start in range(0, samples, batch):
        stop = min(start + batch, samples)
        runs = [stage.run(fitted.part(start, stop), length) for stage, fitted in stages]
        comparison.add(runs[0], runs[1], start)
        apart = np.logical_or.reduce([
            _decisions(runs[0], mine) != _decisions(runs[1], theirs)
            for mine, theirs in zip(one.graph.outputs, other.graph.outputs, strict=True)
        ])  # fmt: skip
        changed += (start + np.flatnonzero(apart)).tolist()
        if progress is not None:
            progress("compare", stop, samples)
    return Divergence(
        a=one.label,
        b=other.label,
        samples=samples,
        timesteps=length,
        first_state=comparison.first_state,
        first_spike=comparison.first_spike,
        populations=comparison.populations,
        decisions_changed=tuple(changed),
        notes=one.notes + other.notes,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """A network that can be run: a graph, or a module with its frozen graph."""

    label: str
    graph: Graph
    module: ModuleRunner | None = None
    notes: tuple[str, ...] = ()

    def run(self, part: Recording, steps: int) -> Run:
        """One batch, traced, in zero-delay timing."""
        ready = plan(self.graph, part, steps=steps, timing="zero_delay", trace=True)
        if self.module is not None:
            trace, bound = self.module.run(part, ready)
            return Run(graph=self.graph, plan=ready, trace=trace, bound=bound)
        if self.graph.number_format is None:
            return Run(graph=self.graph, plan=ready, trace=reference.run(self.graph, ready))
        from snn_deploy.sim.event import EventEngine  # numba takes a moment to import

        return Run(graph=self.graph, plan=ready, trace=EventEngine(self.graph).run(ready))


def _decisions(run: Run, output: str) -> NDArray[np.int64]:
    """Index of the largest readout per sample, ties to the lowest."""
    values: NDArray[Any] = run.trace.output[output]
    return np.asarray(values.reshape(len(values), -1).argmax(axis=1), np.int64)


def _open(what: Network, reading: ReadOptions | None) -> _Stage:
    if isinstance(what, Graph):
        return _Stage("graph", what)
    if not isinstance(what, str | os.PathLike):
        from snn_deploy.freezing.module_run import ModuleRunner

        runner = ModuleRunner(what)
        return _Stage("module", runner.graph, runner)
    label = os.fspath(what)
    name, stage = label, ""
    if "@" in label and not Path(label).exists():
        name, _, stage = label.rpartition("@")
    path = Path(name)
    if path.suffix != ".pt":
        if stage:
            raise SnnDeployError(
                "SD104", f"only a checkpoint has stages such as @{stage}", where=str(path),
                fix="name the folder or file alone",
            )  # fmt: skip
        artefact = open_artefact(path, None if path.is_dir() else reading)
        return _Stage(label, artefact.graph, notes=artefact.notes)
    from snn_deploy.freezing import freeze
    from snn_deploy.freezing.module_run import ModuleRunner
    from snn_deploy.nn.checkpoint import load

    model = load(path)
    if not stage:
        runner = ModuleRunner(model)
        return _Stage(label, runner.graph, runner)
    frozen = freeze(model)
    return _Stage(label, frozen if stage == "frozen" else quantize(frozen, stage))


def _named_alike(one: _Stage, other: _Stage) -> _Stage:
    """The other stage under the names of the first, where a file has numbered its populations.

    They are matched in causal order, if they have no name in common and all shapes agree.
    """
    orders = [[n for group in s.graph.order for n in group] for s in (one, other)]
    shapes = [[s.graph.shape_of(n) for n in o] for s, o in zip((one, other), orders, strict=True)]
    if set(orders[0]) & set(orders[1]) or shapes[0] != shapes[1]:
        return other
    names = dict(zip(orders[1], orders[0], strict=True))
    graph = other.graph
    inputs = {i.name: i.name for i in graph.inputs}
    renamed = replace(
        graph,
        populations=tuple(replace(p, name=names[p.name]) for p in graph.populations),
        projections=tuple(
            replace(p, source={**inputs, **names}[p.source], target=names[p.target])
            for p in graph.projections
        ),
        outputs=tuple(names[n] for n in graph.outputs),
    )
    note = f"populations {', '.join(names)} of {other.label} are taken for {', '.join(orders[0])}"
    return replace(other, graph=renamed, notes=(*other.notes, note))


def _require_comparable(one: _Stage, other: _Stage) -> None:
    """Raise unless both have the same populations, spiking or not, and the same outputs."""
    kinds = [
        {p.name: (p.shape, isinstance(p.neurons, LIF)) for p in s.graph.populations}
        for s in (one, other)
    ]
    faults = []
    for stage, mine, theirs in ((one, kinds[0], kinds[1]), (other, kinds[1], kinds[0])):
        missing = [name for name in theirs if name not in mine]
        if missing:
            faults.append(f"{stage.label} has no {', '.join(missing)}")
    for name in kinds[0].keys() & kinds[1].keys():
        (shape, fires), (theirs_shape, theirs_fires) = kinds[0][name], kinds[1][name]
        if shape != theirs_shape:
            faults.append(f"{name} has shape {shape} in {one.label}, {theirs_shape} in "
                          f"{other.label}")  # fmt: skip
        elif fires != theirs_fires:
            faults.append(f"{name} fires in only one of them")
    if not faults and one.graph.outputs != other.graph.outputs:
        faults.append(f"outputs {one.graph.outputs} and {other.graph.outputs}")
    if faults:
        raise SnnDeployError(
            "SD108",
            "the two have not the same populations",
            where=f"{one.label}, {other.label}",
            why="; ".join(sorted(faults)),
            fix="compare stages of one network, before relays are added or layers renamed",
        )
