"""The Lava side of ``lava.py``: run a netx file in Lava when told to, and say how long it took.

    LAVA_PYTHON lava_side.py RUNNER_FOLDER NET SPIKES.npz

``SPIKES.npz`` holds ``spikes`` [T, N] or [T, C, H, W]. Lava compiles the net and starts its
processes in a first run of T timesteps. Then, for every line on stdin, T timesteps are run again
and their seconds printed. Nothing is recorded: no probes, no sinks, only a source of spikes, which
is as fast as Lava gets. After T timesteps the source begins anew by itself.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Load, compile, and run once for every line."""
    folder, net_path, spikes_path = (Path(argument) for argument in sys.argv[1:])
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Lava prints is no answer
    # Instead of this folder, whose lava.py would hide Lava; the runner's needs nothing but Lava.
    sys.path[0] = str(folder.parent)
    imports = importlib.import_module(f"{folder.name}.lava_imports")
    del sys.path[0]
    imports.import_lava()
    netx = importlib.import_module("lava.lib.dl.netx.hdf5")
    run_configs = importlib.import_module("lava.magma.core.run_configs")
    run_conditions = importlib.import_module("lava.magma.core.run_conditions")
    ring_buffer = importlib.import_module("lava.proc.io").source.RingBuffer

    with np.load(spikes_path) as file:
        spikes = file["spikes"].astype(np.int32)
    net = netx.Network(net_config=str(net_path))
    # Lava's maps are (W, H, C), and its time axis is the last.
    source = ring_buffer(data=np.ascontiguousarray(spikes.T))
    source.s_out.connect(net.inp)
    condition = run_conditions.RunSteps(num_steps=len(spikes))
    configuration = run_configs.Loihi2SimCfg(select_tag="fixed_pt")
    net.run(condition=condition, run_cfg=configuration)
    say.write("ready\n")
    for _ in sys.stdin:
        start = time.perf_counter()
        net.run(condition=condition, run_cfg=configuration)
        say.write(f"{time.perf_counter() - start}\n")
    net.stop()


if __name__ == "__main__":
    # Lava makes a process of every neuron population and synapse: threads would only be in the way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
