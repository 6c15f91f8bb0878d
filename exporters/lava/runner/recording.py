"""Run a Lava process for some timesteps and record its populations."""

from __future__ import annotations

import importlib
import json
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .supervision import RunError

Array = NDArray[Any]

# How often Lava's processes are looked after while they run.
LOOK_SECONDS = 0.2


def record(
    process: Any, populations: Mapping[str, Any], steps: int, folder: Path
) -> dict[str, Array]:
    """Spikes, current and membrane of every population after every timestep.

    Parameters
    ----------
    process : what to call ``run`` on.
    populations : name -> LIF-like process, of [N] or of images, which in Lava are [W, H, C].
    steps : timesteps to run.
    folder : for scratch files.

    Returns
    -------
    name -> array
        ``NAME.spikes`` (bool if all are 0 or 1), ``NAME.current``, ``NAME.membrane``: [steps, N] or
        [steps, C, H, W]; row k is Lava's timestep k + 1. ``meta``: JSON, what was run and how long.
    """
    probe = importlib.import_module(".probes.probe", __package__)
    run_conditions = importlib.import_module("lava.magma.core.run_conditions")
    run_configs = importlib.import_module("lava.magma.core.run_configs")
    files = [folder / f"recorded_{number}.npy" for number in range(len(populations))]
    for path, neurons in zip(files, populations.values(), strict=True):
        _create(path, (3, steps, *map(int, neurons.u.shape)))
        probe.Probe(neurons, str(path))  # connected, it runs and lives with what it is connected to

    start = time.perf_counter()
    # Without the tag Lava runs its float models, and says nothing.
    configuration = run_configs.Loihi2SimCfg(select_tag="fixed_pt")
    with _failures_of(process):
        process.run(condition=run_conditions.RunSteps(num_steps=steps), run_cfg=configuration)
    seconds = time.perf_counter() - start
    process.stop()

    arrays: dict[str, Array] = {"meta": np.array(json.dumps(_meta(steps, seconds)))}
    for name, path in zip(populations, files, strict=True):
        spikes, current, membrane = (channels_first(a) for a in np.load(path, mmap_mode="r"))
        binary = spikes.size == 0 or (spikes.min() >= 0 and spikes.max() <= 1)
        arrays[f"{name}.spikes"] = spikes.astype(bool) if binary else spikes
        arrays[f"{name}.current"] = current
        arrays[f"{name}.membrane"] = membrane
    return arrays


@contextmanager
def _failures_of(process: Any) -> Iterator[None]:
    """Raise what was raised in one of Lava's processes; Lava itself would wait for it for ever."""

    def look(*_: object) -> None:
        infrastructure = getattr(process.runtime, "_messaging_infrastructure", None)
        for actor in getattr(infrastructure, "actors", ()):  # none while Lava still compiles
            if actor.exception:
                error = actor.exception[0]
                raise RunError(f"a process of Lava raised {type(error).__name__}: {error}")

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def channels_first(array: Array) -> Array:
    """[steps, W, H, C] as [steps, C, H, W], and back; [steps, N] stays."""
    return array.transpose(0, 3, 2, 1) if array.ndim == 4 else array


def _create(path: Path, shape: tuple[int, ...]) -> None:
    """An .npy file of zeros, which takes no room before something is written."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=shape).flush()


def _meta(steps: int, seconds: float) -> dict[str, Any]:
    names = ("lava-nc", "lava-dl", "numpy")
    found = {name: version(name) for name in names} | {"python": platform.python_version()}
    return {"versions": found, "steps": steps, "seconds": round(seconds, 3)}
