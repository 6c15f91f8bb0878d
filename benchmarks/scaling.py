"""How the engine's time and memory grow with the number of neurons.

    python -m benchmarks.scaling NEURONS

One map with a fan-in of 72 (3x3x8), T=4, input at a rate of 5%, in a process of its own that loads
nothing else: its peak of resident memory is read when all is done. The time is that of the second
run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.measuring import Options
from benchmarks.networks import Feed, Network, Ours, Unit, accumulates

CHANNELS = 8
STEPS = 4
RATE = 0.05
# Of the input's sum at that rate, a bit more than its standard deviation.
THRESHOLD = 350


def network(neurons: int) -> Network:
    """A map of about so many neurons."""
    side = max(1, round((neurons / CHANNELS) ** 0.5))
    weight = 2 * np.random.default_rng(0).integers(-128, 128, (CHANNELS, CHANNELS, 3, 3))
    shape = (CHANNELS, side, side)
    unit = Unit("p", shape, (Feed("in", weight),))
    return Network("map", shape, False, STEPS, True, (unit,), {"p": THRESHOLD})


def run(neurons: int) -> dict[str, float]:
    """Time and peak memory of one map, in this process."""
    one = network(neurons)
    data = np.empty((1, STEPS, *one.input_shape), np.uint8)
    for step in range(STEPS):  # one by one: the random numbers should not be the peak of memory
        drawn = np.random.default_rng(step).random(one.input_shape, np.float32)
        data[0, step] = drawn < RATE
    del drawn
    ours = Ours(one)
    ours(data)
    began = time.thread_time()
    trace = ours(data)
    taken = time.thread_time() - began
    return {
        "neurons": float(np.prod(one.units[0].shape)),
        "ms": 1e3 * taken,
        "million_accumulates": 1e-6 * accumulates(ours, trace),
        "peak_mb": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """The most resident memory that this process has had, in MB of 10^6 bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024e-6


def measure(options: Options) -> list[dict[str, float]]:
    """Maps of 10^3 to 10^7 neurons, a fresh process each."""
    found = []
    for power in range(3, 7 if options.quick else 8):
        command = [sys.executable, "-m", "benchmarks.scaling", str(10**power)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        found.append(json.loads(done.stdout))
    return found


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]))))
