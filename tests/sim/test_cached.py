"""Compiled kernels are kept on disk where there is room, and run where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = """
import sys
import numpy as np
from snn_deploy.sim.cached import Kernel

@Kernel
def add(values):
    values[0] += 1

if sys.argv[1] == "full":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
values = np.zeros(1, np.int64)
add(values)
add(values)
print(values[0], sum(add.compiled.stats.cache_hits.values()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files with resource")
def test_a_full_disk_keeps_no_kernel_from_running(tmp_path: Path) -> None:
    script = tmp_path / "kernel.py"
    script.write_text(MODULE)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    for place, found in (("full", "2 0"), ("full", "2 0"), ("room", "2 0"), ("room", "2 1")):
        done = subprocess.run(
            [sys.executable, str(script), place], env=env, capture_output=True, text=True,
            timeout=120, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == found
