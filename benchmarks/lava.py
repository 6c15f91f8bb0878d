"""Event engine against Intel's Lava on the same netx files, in one run.

    SNN_DEPLOY_LAVA_PYTHON=... python benchmarks/lava.py [--json]

Lava runs its fixed-point CPU models at their best: compiled and started before anything is timed,
fed by a source, recorded by nothing. Our time is that of all of ``simulate`` after the file was
loaded, with compiled kernels; it prepares its tables anew each time. Wall time, because Lava works
in many processes, we in one thread; medians of interleaved rounds. Before that, every spike,
current and membrane of both is compared.

The networks have random weights, and thresholds at which populations fire at some per cent: a
perceptron of 784-128-10, three convolutions on 32x32, and one of the shape of lava-dl's PilotNet.
Inputs fire at random in 10 % of timesteps.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from snn_deploy import Recording, exporters, open_artefact, simulate

ROUNDS = 5
INPUT_RATE = 0.1
MEMBRANE_DECAY = 1024  # of 4096 lost in a timestep
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
            kind, size, target = b"dense", (layer[0], *shape), layer
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
    command = [python, RUNNER / "run.py", "net", network, spikes, output, "--steps", str(steps)]
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
    command = [python, Path(__file__).with_name("lava_side.py"), RUNNER, network, spikes]
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


def measure(name: str, python: str, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    shape, steps, layers = NETWORKS[name]
    path, spikes_path = folder / f"{name}.net", folder / "spikes.npz"
    write_network(path, shape, layers)
    spikes = (np.random.default_rng(1).random((steps, *shape)) < INPUT_RATE).astype(np.uint8)
    np.savez(spikes_path, spikes=spikes)
    graph, recording = open_artefact(path).graph, Recording(spikes={"": spikes})
    trace = simulate(graph, recording, timing="pipelined", trace=True)  # compiles the kernels, too
    if differing(python, path, spikes_path, steps, trace):
        raise SystemExit(f"{name}: the simulators differ")
    ours, theirs = [], []
    with lava(python, path, spikes_path) as (ask, answer):
        for _ in range(ROUNDS):
            ask.write("\n")
            theirs.append(float(answer.readline()) / steps)
            start = time.perf_counter()
            simulate(graph, recording, timing="pipelined")
            ours.append((time.perf_counter() - start) / steps)
    record = trace.record
    neurons = sum(p.size for p in graph.populations)
    fired = sum(int(count.sum()) for count in record.spikes.values())
    events = sum(int(count.sum()) for count in record.events.values()) / steps
    return {
        "network": name,
        "neurons": neurons,
        "rate": fired / (steps * neurons),
        "events_per_step": events,
        "lava_ms_per_step": 1e3 * statistics.median(theirs),
        "lava_best_ms_per_step": 1e3 * min(theirs),
        "ours_ms_per_step": 1e3 * statistics.median(ours),
        "lava_over_ours": statistics.median(theirs) / statistics.median(ours),
        "lava_best_over_ours": min(theirs) / statistics.median(ours),
        "million_events_per_second": 1e-6 * events / statistics.median(ours),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    python = os.environ.get("SNN_DEPLOY_LAVA_PYTHON")
    if not python:
        print(
            "no comparison with Lava: `make .peers/lava/.made`, then "
            "`SNN_DEPLOY_LAVA_PYTHON=$PWD/.peers/lava/bin/python make bench`",
            file=sys.stderr,
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, python, Path(folder)) for name in NETWORKS]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        f"{'network':14} {'neurons':>8} {'rate':>6} {'events/step':>12} {'Lava ms/step':>13} "
        f"{'(best)':>8} {'ours ms/step':>13} {'ratio':>7} {'(best)':>7} {'Mevent/s':>9}"
    )
    for row in rows:
        print(
            f"{row['network']:14} {row['neurons']:8} {row['rate']:6.1%} "
            f"{row['events_per_step']:12.0f} {row['lava_ms_per_step']:13.2f} "
            f"{row['lava_best_ms_per_step']:8.2f} {row['ours_ms_per_step']:13.3f} "
            f"{row['lava_over_ours']:7.0f} {row['lava_best_over_ours']:7.0f} "
            f"{row['million_events_per_second']:9.0f}"
        )


if __name__ == "__main__":
    main()
