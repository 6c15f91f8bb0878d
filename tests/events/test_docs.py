"""The example of docs/recordings.md prints what the page says."""

from __future__ import annotations

import contextlib
import io
import lzma
import textwrap
from pathlib import Path

import pytest

from snn_deploy.cli import run
from tests.helpers.strangers import data

PAGE = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text("utf-8")


def blocks() -> list[str]:
    """Indented pieces of the page, without their margin."""
    found, piece = [], ""
    for line in [*PAGE.splitlines(keepends=True), "\n"]:
        if line.startswith("    "):
            piece += line
        elif piece:
            found.append(textwrap.dedent(piece))
            piece = ""
    return found


def test_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, printed, code = blocks()
    packed = data("event_recordings/nmnist_sample.bin.xz").read_bytes()
    (tmp_path / "00001.bin").write_bytes(lzma.decompress(packed))
    monkeypatch.chdir(tmp_path)
    program, *arguments = command.split()
    assert program == "snn-deploy"
    assert run(arguments) == 0
    assert capsys.readouterr().out == printed
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "docs/recordings.md", "exec"), {})
    assert "'merged': 1462" in shown.getvalue()
