"""The TOML parser of the standard library (Python 3.10 has none yet), and where a key stands."""

from __future__ import annotations

import re
import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["located", "tomllib"]

_PATH = re.compile(r"(?:unknown table )?\[(\w+)\](?: ([\w.\[\]]+))?")


def located(text: str, message: str, where: str) -> str:
    """``where:line`` of the key that a message begins with, as in ``[model] layers[2].kernel: ...``.

    The line of the deepest part that is found; ``where`` alone if none is.
    """
    match = _PATH.match(message)
    if match is None:
        return where
    lines = text.splitlines()
    line = _header(lines, match[1])
    if line is None:
        return where
    unknown = re.search(r"unknown key '(\w+)'", message)
    parts = re.findall(r"\w+", match[2] or "") + ([unknown[1]] if unknown else [])
    for part in parts:
        found = _entry(lines, line, int(part)) if part.isdigit() else _key(lines, line, part)
        if found is None:
            break
        line = found
    return f"{where}:{line + 1}"


def _header(lines: list[str], table: str) -> int | None:
    for number, line in enumerate(lines):
        if re.match(rf"\s*\[\s*{table}\s*\]", line):
            return number
    return None


def _key(lines: list[str], start: int, key: str) -> int | None:
    """The first line from ``start`` on, within the table, where the key is assigned."""
    for number in range(start, len(lines)):
        if number > start and re.match(r"\s*\[\s*[A-Za-z]", lines[number]):
            return None
        if re.search(rf"(^|[{{,\s.])[\"']?{key}[\"']?\s*=", lines[number]):
            return number
    return None


def _entry(lines: list[str], start: int, index: int) -> int | None:
    """The line where table ``index`` of the array that begins at ``start`` opens."""
    depth = -1
    for number in range(start, len(lines)):
        line = lines[number] if number > start else lines[number].partition("=")[2]
        for character in re.sub(r"#.*|\"[^\"]*\"|'[^']*'", "", line):
            if character in "[{":
                depth += 1
                if character == "{" and depth == 1:
                    if index == 0:
                        return number
                    index -= 1
            elif character in "]}":
                depth -= 1
                if depth < 0:
                    return None
    return None
