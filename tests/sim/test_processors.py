"""The vector kernels compiled for other processors: other instructions, the same numbers.

A child process runs tests with kernels compiled anew, for an older processor than this one, and
looks at what they were compiled to. Code for 64-bit ARM is generated and looked at, not run.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.helpers.compiled import aarch64, compiled_for, kernels, missing

ROOT = Path(__file__).parents[2]
CHECKED = (
    "tests/sim/test_gather.py",
    "tests/sim/test_lanes.py",
    "tests/sim/test_exactness.py::test_nets",
    "tests/sim/test_exactness.py::test_every_pair_of_numbers_of_channels[65]",
    "tests/sim/test_exactness.py::test_fan_in_of_a_hundred_thousand[shape0-lowest]",
)
# Weights summed in 16 bits, 16 bits added to sums of 32; membranes multiplied and compared.
NEON = (
    r"(add|usra|[su]addw)\tv\d+\.8h",
    r"[su]addw2?\tv\d+\.4s, v\d+\.4s, v\d+\.[48]h",
    r"mul\tv\d+\.4s",
    r"cmg[te]\tv\d+\.4s",
)


def supports(flag: str) -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and flag in path.read_text().split()


@cache
def looked_at(processor: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """The child for an x86 processor, and its kernels' assembly there and for 64-bit ARM."""
    with TemporaryDirectory() as folder:
        env = {
            **os.environ,
            "NUMBA_CPU_NAME": processor,
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": folder,
            "SNN_DEPLOY_EXAMPLES": "60",
        }
        written = Path(folder, "assembly.json")
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim.test_processors", str(written), *CHECKED],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return done, json.loads(written.read_text()) if written.exists() else {}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
@pytest.mark.parametrize(
    ("name", "flag", "has", "lacks"),
    [("x86-64", "sse2", "xmm", "[yz]mm"), ("haswell", "avx2", "ymm", "zmm")],
)
def test_kernels_for(name: str, flag: str, has: str, lacks: str) -> None:
    if not supports(flag):
        pytest.skip(f"this processor has no {flag}")
    done, assembly = looked_at(name)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    x86 = {kernel: text for kernel, text in assembly.items() if not kernel.startswith("aarch64 ")}
    assert any(re.search(f"%{has}[0-9]", text) for text in x86.values())
    assert [kernel for kernel, text in x86.items() if re.search(f"%{lacks}[0-9]", text)] == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
@pytest.mark.skipif(aarch64() is None, reason="this LLVM generates no code for 64-bit ARM")
def test_code_for_64_bit_arm_is_generated() -> None:
    """With NEON's instructions for the two kernels that were written for vectors."""
    done, assembly = looked_at("x86-64")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    arm = {kernel: text for kernel, text in assembly.items() if kernel.startswith("aarch64 ")}
    assert len(arm) > 5
    assert {kernel: missing(text) for kernel, text in arm.items() if missing(text)} == {}
    whole = "\n".join(arm.values())
    for instruction in NEON:
        assert re.search(instruction, whole), instruction
    assert missing("f:\n\tbl\tg\n\tbl\tf\n\tbl\tmemset\n") == {"g"}


if __name__ == "__main__":
    code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]])
    texts = {}
    arm = aarch64()
    for name, kernel in kernels():
        for number, signature in enumerate(kernel.signatures):
            texts[f"{name} {number}"] = kernel.inspect_asm(signature)
            if arm is not None:
                ir = kernel.inspect_llvm(signature)
                texts[f"aarch64 {name} {number}"] = compiled_for(arm, ir)
    Path(sys.argv[1]).write_text(json.dumps(texts))
    sys.exit(code)
