"""Run networks on Intel's Lava, in the Python that ``make peers`` makes for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.netx_files import write_netx
from tests.helpers.numbers import Array

RUNNER = Path(__file__).parents[2] / "exporters" / "lava" / "runner" / "run.py"
# How many random networks are compared: make peers-full asks for more.
RANDOM_NETS = int(os.environ.get("SNN_DEPLOY_PEER_NETS", "40"))


@dataclass(frozen=True)
class Lava:
    """The runner, with a folder for what goes in and out."""

    python: str
    folder: Path

    @staticmethod
    def found(folder: Path) -> Lava:
        """The Lava of this environment; without one, tests of Lava fail and are not skipped."""
        python = os.environ.get("SNN_DEPLOY_LAVA_PYTHON")
        if not python:
            pytest.fail("SNN_DEPLOY_LAVA_PYTHON is not set: run these tests with `make peers`")
        return Lava(python, folder)

    def command(self, *arguments: object) -> list[str]:
        """A command line of the runner."""
        return [self.python, str(RUNNER), *(str(a) for a in arguments)]

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Call the runner and wait for it."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=250, check=False
        )

    def net(
        self, layers: Sequence[Mapping[str, Any]], *options: object, **given: Any
    ) -> dict[str, Array]:
        """What a netx file does, where ``given`` is spikes or bias."""
        network, fed, output = (self.folder / name for name in ("a.net", "in.npz", "out.npz"))
        write_netx(network, layers)
        np.savez(fed, **given)
        done = self.call("net", network, fed, output, *options)
        assert done.returncode == 0, done.stderr
        return read(output)

    def batch(self, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The lines that a batch prints, one for each job."""
        path = self.folder / "jobs.json"
        path.write_text(json.dumps(jobs, default=str))
        done = self.call("batch", path)
        assert done.returncode in (0, 1), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def read(path: Path) -> dict[str, Array]:
    """All arrays of an output file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
