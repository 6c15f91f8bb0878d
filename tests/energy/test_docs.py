"""The example of docs/energy.md runs, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from click import Option

from snn_deploy.cli.energy import command
from snn_deploy.counting import conventions
from snn_deploy.energy_model.pricing import PARTS

PAGE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text("utf-8")
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def test_the_example_prints_what_the_page_says() -> None:
    ((code, expected),) = EXAMPLE.findall(PAGE)
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/energy.md", "exec"), names)
    assert printed.getvalue() == expected


def test_the_page_names_every_part_option_and_convention() -> None:
    for part, operations in PARTS.items():
        (row,) = re.findall(rf"\| {part} \|(.*)", PAGE)
        assert set(re.findall(r"`(\w+)`", row.split("|")[0])) == set(operations)
    (row,) = re.findall(r"\| `--convention NAME` \|(.*)", PAGE)
    assert set(re.findall(r"`([\w-]+)`", row)) == set(conventions())
    flags = {flag for p in command.params if isinstance(p, Option) for flag in p.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= flags
