"""The vector kernels compiled for lesser processors: other instructions, the same numbers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKED = (
    "tests/sim/test_gather.py::test_many_lists_wait_and_none_is_lost",
    "tests/sim/test_gather.py::test_sums_of_the_largest_weights[128-32767-252]",
    "tests/sim/test_lanes.py::test_lanes_are_the_norm",
)
# Runs the tests, then looks for registers the processor has not in what was compiled.
SCRIPT = """
import sys, pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]])
from snn_deploy.sim.sweep import sweep
found = [sweep.inspect_asm(signature) for signature in sweep.signatures]
assert found
assert not any(f"%{register}" in text for text in found for register in sys.argv[1].split())
sys.exit(code)
"""


def supports(flag: str) -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and flag in path.read_text().split()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
@pytest.mark.parametrize(
    ("name", "flag", "missing"), [("x86-64", "sse2", "ymm0 zmm0"), ("haswell", "avx2", "zmm0")]
)
def test_kernels_for(name: str, flag: str, missing: str, tmp_path: Path) -> None:
    if not supports(flag):
        pytest.skip(f"this processor has no {flag}")
    env = {
        **os.environ,
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, missing, *CHECKED],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
