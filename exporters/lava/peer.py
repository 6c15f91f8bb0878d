"""Run an exported network in Intel's Lava itself, and compare every spike, current and membrane."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from snn_deploy.exporters.lava import NET, PROGRAM, program, writer

from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.mapping import HostLayer
from snn_deploy.packets import Recording, read_npz, write_npz
from snn_deploy.sim import simulate
from snn_deploy.sim.plan import steps_of, with_sample_axis
from snn_deploy.sim.timing import Schedule, pipelined, repeatable

Array = NDArray[Any]
Progress = Callable[[int, int], None]

RUNNER = Path(__file__).parent / "runner" / "run.py"
# Samples per run of Lava where one follows the other; runs are what progress counts.
_SAMPLES_PER_RUN = 25
_SECONDS_PER_RUN = 600


@dataclass(frozen=True, slots=True)
class LavaCheck:
    """A run in Lava against the event engine.

    Attributes
    ----------
    file : what Lava ran.
    samples, timesteps : extent.
    values : spikes, currents and membranes compared.
    differing : per population, how many of them differ.
    versions : of Lava and what it runs on.
    """

    file: str
    samples: int
    timesteps: int
    values: int
    differing: dict[str, int]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A file in the folder as Lava runs it: graph, host part, and Lava's names of populations."""

    path: Path
    graph: Graph
    host: HostLayer | None
    names: dict[str, str]
    input_bits: int


def verify_in_lava(
    folder: Path,
    graph: Graph,
    recording: Recording,
    *,
    python: str | None = None,
    progress: Progress | None = None,
) -> LavaCheck:
    """Run a recording through the folder's ``.net`` or program in Lava, and compare.

    Feed-forward networks are run as a stream with resets, as on the chip; others sample by sample.

    Parameters
    ----------
    folder : exported folder, its hashes checked.
    graph : the folder's integer graph.
    recording : inputs.
    python : Python that has Lava; default: this one.
    progress : called with (samples done, samples in all).

    Raises
    ------
    SnnDeployError
        SD107 if there is no Lava, SD204 if the folder holds nothing for it, SD407 if Lava fails.
    """
    python = python or _own_python()
    form = _form(folder, graph)
    given = with_sample_axis(graph, recording)
    steps = steps_of(graph, given, None)
    samples = given.samples
    schedule = pipelined(form.graph)
    try:
        repeatable(form.graph)
        at_once = _SAMPLES_PER_RUN
    except SnnDeployError:
        at_once = 1
    differing = dict.fromkeys(form.names, 0)
    values, versions = 0, {}
    for start in range(0, samples, at_once):
        inputs = _inputs(form, given.part(start, min(start + at_once, samples)))
        stream = at_once > 1
        recorded = _run(python, form, schedule, inputs, steps, stream)
        versions = json.loads(str(recorded["meta"]))["versions"]
        for name, (differ, compared) in _compare(
            form, schedule, inputs, recorded, steps, stream
        ).items():
            differing[name] += differ
            values += compared
        if progress is not None:
            progress(min(start + at_once, samples), samples)
    return LavaCheck(form.path.name, samples, steps, values, differing, versions)


def _own_python() -> str:
    if importlib.util.find_spec("lava") is None:
        raise SnnDeployError(
            "SD107",
            "Lava is not installed in this Python",
            fix="on Python 3.10: pip install 'snn-deploy[lava]'; or name a Python that has it: "
            "--lava-python PATH",
        )
    return sys.executable


def _form(folder: Path, graph: Graph) -> _Form:
    if (folder / NET).is_file():
        said = writer.chain(graph)
        names = {name: str(index) for index, name in enumerate(said.names)}
        return _Form(folder / NET, said.graph, said.host, names, said.input_bits)
    if (folder / PROGRAM).is_file():
        made = program.Program(graph)
        names = {p.name: p.name for p in made.graph.populations}
        return _Form(folder / PROGRAM, made.graph, made.host, names, 0)
    raise SnnDeployError(
        "SD204",
        "the folder holds nothing that Lava runs",
        where=str(folder),
        fix="export for loihi2, with the format `lava`",
    )


def _inputs(form: _Form, part: Recording) -> Recording:
    """What the chip's graph is fed: the recording, or the host's biases."""
    if form.host is None:
        return part
    return Recording(values={"": form.host.biases(part)})


def _run(
    python: str, form: _Form, schedule: Schedule, inputs: Recording, steps: int, stream: bool
) -> dict[str, Array]:
    """One run of Lava; returns what its populations did in raw timesteps."""
    (spec,) = form.graph.inputs
    inputs = with_sample_axis(form.graph, inputs)
    held = inputs.spikes if spec.kind == "spikes" else inputs.values
    fed = spec.encode(held[spec.name]).astype(np.int32)
    length = len(fed) * steps + schedule.latency
    key = spec.name if form.path.suffix == ".py" else "spikes"
    options: list[Any] = ["--steps", length]
    if form.host is not None:
        key = "bias"
        options += ["--window", steps]
    else:
        fed = fed[:, :steps].reshape(-1, *spec.shape)
    if stream:
        options += ["--reset-interval", steps, "--reset-offset", min(schedule.stages.values())]
    if form.input_bits:
        options += ["--input-message-bits", form.input_bits]
    kind = "program" if form.path.suffix == ".py" else "net"
    with tempfile.TemporaryDirectory(prefix="snn-deploy-") as scratch:
        into, out = Path(scratch) / "in.npz", Path(scratch) / "out.npz"
        write_npz(into, {key: fed})
        command = [python, RUNNER, kind, form.path.resolve(), into, out, *options]
        command += ["--timeout", _SECONDS_PER_RUN]
        try:
            done = subprocess.run(
                [str(c) for c in command], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise SnnDeployError(
                "SD107", "cannot start Lava's Python", where=python, why=error.strerror
            ) from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise SnnDeployError(
                "SD407" if done.returncode == 1 else "SD107",
                "Lava does not run the exported file",
                where=str(form.path),
                why=lines[-1],
            )
        return read_npz(out)


def _compare(
    form: _Form,
    schedule: Schedule,
    inputs: Recording,
    recorded: dict[str, Array],
    steps: int,
    stream: bool,
) -> dict[str, tuple[int, int]]:
    """Per population: values that differ, and values compared."""
    length = len(recorded[f"{next(iter(form.names.values()))}.spikes"])
    if stream:
        trace = simulate(form.graph, inputs, steps=steps, trace=True)
    else:
        trace = simulate(form.graph, inputs, timing="pipelined", steps=length, trace=True)
    found = {}
    for name, theirs in form.names.items():
        stage = schedule.stages[name] if stream else 0
        differ = compared = 0
        for what, mine in (
            ("spikes", trace.spikes.get(name)),
            ("current", trace.current[name]),
            ("membrane", trace.membrane[name]),
        ):
            raw = recorded[f"{theirs}.{what}"]
            if stream:
                raw = raw[stage : length - schedule.latency + stage]
            raw = raw.reshape(-1, *(steps if stream else length, *raw.shape[1:]))
            expected = np.zeros_like(raw) if mine is None else mine
            differ += int((raw != expected).sum())
            compared += raw.size
        found[name] = (differ, compared)
    return found
