"""Event engine against Intel's Lava on the same netx files.

Lava runs its fixed-point CPU models at their best: compiled and started before anything is timed,
fed by a source, recorded by nothing; our engine has made its tables before, too. Wall time, because
Lava works in many processes, we in one thread. Before that, every spike, current and membrane of
both is compared. Lava lives in an environment of its own (``make .peers/lava/.made``).

The networks have random weights, and thresholds at which populations fire at some per cent: a
perceptron of 784-128-10, three convolutions on 32x32, and one of the shape of lava-dl's PilotNet.
Inputs fire at random in 10 % of timesteps.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from benchmarks.measuring import NotThereError, Options, Row, milliseconds, ratio
from snn_deploy import Recording, exporters, open_artefact
from snn_deploy.sim.event import EventEngine
from snn_deploy.sim.plan import plan

INPUT_RATE = 0.1
MEMBRANE_DECAY = 1024  # of 4096 lost in a timestep
# Where `make .peers/lava/.made` puts it.
_MADE = Path(__file__).parents[1] / ".peers" / "lava" / "bin" / "python"
RUNNER = Path(next(iter(exporters.__path__))) / "lava" / "runner"

# Input shape, timesteps in a round, layers: dense (outputs), or conv (channels, kernel, stride,
# padding).
Layers = list[tuple[Any, ...]]
NETWORKS: dict[str, tuple[tuple[int, ...], int, Layers]] = {
    "784-128-10": ((784,), 1000, [(128,), (10,)]),
    "3 conv 32x32": ((3, 32, 32), 24, [(32, 3, (1, 1), (1, 1)), *[(64, 3, (1, 1), (1, 1))] * 2]),
    "PilotNet": (
        (3, 66, 200),
        24,
        [
            (24, 3, (2, 2), (0, 0)),
            (36, 3, (2, 2), (0, 0)),
            (48, 3, (2, 2), (0, 0)),
            (64, 3, (2, 1), (1, 0)),
            (64, 3, (1, 1), (0, 0)),
            (100,),
            (50,),
            (10,),
            (1,),
        ],
    ),
}

GOAL_NETWORKS = ("784-128-10", "3 conv 32x32")


def write_network(path: Path, shape: tuple[int, ...], layers: Layers) -> None:
    """A netx file of random even weights."""
    rng = np.random.default_rng(0)
    entries: list[dict[str, Any]] = []
    if len(shape) == 3:
        entries.append({"type": b"input", "shape": np.array(shape)})
    for layer in layers:
        if len(layer) == 1 and len(shape) == 3:
            entries.append({"type": b"flatten"})
            shape = (int(np.prod(shape)),)
        if len(layer) == 1:
            kind, size, target = b"dense", (layer[0], *shape), tuple(layer)
        else:
            channels, kernel, stride, padding = layer
            kind, size = b"conv", (channels, shape[0], kernel, kernel)
            rows, columns = (
                (n + 2 * p - kernel) // s + 1
                for n, p, s in zip(shape[1:], padding, stride, strict=True)
            )
            target = (channels, rows, columns)
        weight = 2 * rng.integers(-20, 20, size, endpoint=True)
        # One sixth more than the membrane's standard deviation while a tenth of the inputs fire.
        memory = (1 - (1 - MEMBRANE_DECAY / 4096) ** 2) ** -0.5
        threshold = weight.std() * np.sqrt(INPUT_RATE * np.prod(size[1:])) * memory * 7 / 6
        entry: dict[str, Any] = {
            "type": kind,
            "shape": np.array(target),
            "weight": weight,
            "neuron/type": b"CUBA",
            "neuron/iDecay": 4096,
            "neuron/vDecay": MEMBRANE_DECAY,
            "neuron/vThMant": int(threshold),
        }
        if kind == b"conv":
            entry |= {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": 1}
        entries.append(entry)
        shape = target
    with h5py.File(path, "w") as file:
        for index, entry in enumerate(entries):
            for name, value in entry.items():
                file[f"layer/{index}/{name}"] = value


def differing(python: str, network: Path, spikes: Path, steps: int, trace: Any) -> int:
    """How many spikes, currents and membranes of Lava are not those of a traced run."""
    output = network.with_suffix(".out.npz")
    parts = (RUNNER / "run.py", "net", network, spikes, output, "--steps", steps)
    command = [python, *map(str, parts)]
    subprocess.run(command, check=True)
    with np.load(output) as recorded:
        return sum(
            int((recorded[f"{name}.{part}"] != values[0]).sum())
            for part in ("spikes", "current", "membrane")
            for name, values in getattr(trace, part).items()
        )


@contextmanager
def lava(python: str, network: Path, spikes: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Lava, compiled and running: a line in, and seconds come out."""
    parts = (Path(__file__).with_name("lava_side.py"), RUNNER, network, spikes)
    command = [python, *map(str, parts)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, bufsize=1, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise SystemExit("Lava did not start")
            yield process.stdin, process.stdout
        except BaseException:  # Lava's processes would wait for each other for ever
            os.killpg(process.pid, signal.SIGKILL)
            raise


def measure(name: str, python: str, folder: Path, options: Options) -> Row:
    """The row of one network."""
    shape, steps, layers = NETWORKS[name]
    path, spikes_path = folder / f"{name}.net", folder / "spikes.npz"
    write_network(path, shape, layers)
    spikes = (np.random.default_rng(1).random((1, steps, *shape)) < INPUT_RATE).astype(np.uint8)
    np.savez(spikes_path, spikes=spikes[0])
    graph = open_artefact(path).graph
    engine = EventEngine(graph)
    recording = Recording(spikes={graph.inputs[0].name: spikes})

    def run(trace: bool = False) -> Any:
        ready = plan(graph, recording, steps=steps, timing="pipelined", trace=trace)
        return engine.run(ready)

    trace = run(trace=True)
    if differing(python, path, spikes_path, steps, trace):
        raise SystemExit(f"{name}: the simulators differ")
    run()
    ours, theirs = [], []
    with lava(python, path, spikes_path) as (ask, answer):
        for _ in range(options.rounds):
            ask.write("\n")
            theirs.append(float(answer.readline()))
            start = time.perf_counter()
            run()
            ours.append(time.perf_counter() - start)
    fired = sum(int(count.sum()) for count in trace.record.spikes.values())
    neurons = sum(p.size for p in graph.populations)
    wanted = name in GOAL_NETWORKS
    return Row(
        work=f"{name} from .net, {steps} timesteps",
        against="Lava's CPU simulator",
        **ratio(theirs, ours),
        goal=100 if wanted else None,
        stretch=300 if wanted else None,
        ours_ms=milliseconds(ours, steps),
        theirs_ms=milliseconds(theirs, steps),
        note=f"wall clock per timestep; {neurons} neurons fire at {fired / (steps * neurons):.1%}",
        details={"Lava's best round": min(theirs) / milliseconds(ours) * 1e3},
    )


def rows(options: Options) -> list[Row]:
    """All rows against Lava."""
    python = os.environ.get("SNN_DEPLOY_LAVA_PYTHON", str(_MADE))
    if not Path(python).exists():
        raise NotThereError("no environment with Lava: `make .peers/lava/.made`")
    names = GOAL_NETWORKS if options.quick else NETWORKS
    with tempfile.TemporaryDirectory() as folder:
        return [measure(name, python, Path(folder), options) for name in names]
