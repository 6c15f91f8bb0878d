"""`snn-deploy completion`: shells ask the installed script and are answered."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.workspace import SCRIPT

ENVIRONMENT = {**os.environ, "PATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"}
SHELLS = ("bash", "zsh", "fish")


def completion(shell: str) -> str:
    done = subprocess.run(
        [SCRIPT, "completion", shell], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tar"], ["targets"]),
        (["comp"], ["completion"]),
        (["completion", "f"], ["fish"]),
        (["energy", "--host"], ["--host-profile"]),
        (["sim", "build", "--engine", "ref"], ["reference"]),
        (["targets", "--spam"], []),
    ],
)
def test_bash_completes(words: list[str], expected: list[str], tmp_path: Path) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(completion("bash"))
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        'complete -p snn-deploy >&2; _snn_deploy_completion snn-deploy; echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", script, "snn-deploy", *words],
        capture_output=True, text=True, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.stdout.split() == expected
    assert "_snn_deploy_completion snn-deploy" in done.stderr  # bash knows whom to ask


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_script_asks_is_answered(shell: str) -> None:
    """The shell's own part is click's; that the script asks what we answer is ours."""
    script = completion(shell)
    (request,) = set(re.findall(rf"(_\w+)={shell}_complete", script))
    word = "tar" if shell == "fish" else "1"
    asked = {request: f"{shell}_complete", "COMP_WORDS": "snn-deploy tar", "COMP_CWORD": word}
    done = subprocess.run(
        [SCRIPT], capture_output=True, text=True, check=True, env={**ENVIRONMENT, **asked}
    )
    assert "targets" in done.stdout
    assert "energy" not in done.stdout


def test_another_shell_is_refused() -> None:
    done = subprocess.run([SCRIPT, "completion", "tcsh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
