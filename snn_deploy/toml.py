"""The TOML parser of the standard library (Python 3.10 has none yet), and where a key stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["located", "tomllib"]

_PATH = re.compile(r"(?:unknown table )?\[([\w-]+)\](?: ([\w.\[\]-]+))?")
_UNKNOWN = re.compile(r"unknown key '([^']+)'")
_TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
_HEADER = re.compile(r"^[ \t]*(\[\[?)([^\[\]\n=]+)\]\]?[ \t]*$", re.MULTILINE)


class _Span(NamedTuple):
    """A table or value: where its key stands, and the text that it holds."""

    key: int
    start: int
    end: int


def located(text: str, message: str, where: str) -> str:
    """``where:line`` of the key that a message begins with, as ``[model] layers[2].kernel: ...``.

    The line of the deepest part that is found; ``where`` alone if none is.
    """
    match = _PATH.match(message)
    if match is None:
        return where
    unknown = _UNKNOWN.search(message)
    parts = re.findall(r"[\w-]+", match[2] or "") + ([unknown[1]] if unknown else [])
    bare = _TEXT.sub(lambda found: _blank(text, found), text)
    place = _deepest(bare, [match[1], *parts])
    return where if place is None else f"{where}:{text.count(chr(10), 0, place) + 1}"


def _blank(text: str, found: re.Match[str]) -> str:
    """Spaces in place of strings and comments, except for a key in quotes."""
    if re.compile(r"[ \t]*[=.]").match(text, found.end()):
        return f" {found[0][1:-1]} "
    return re.sub(r"[^\n]", " ", found[0])


def _deepest(bare: str, path: list[str]) -> int | None:
    """Where the deepest part of a path that is there begins."""
    tables = _tables(bare)
    # the longest header that leads there, then keys within it; else inline from the top
    for length in range(len(path), 0, -1):
        for names, span in tables:
            if names == path[:length]:
                return _within(bare, span, path[length:])
    found = _key(bare, _Span(0, 0, tables[0][1].key if tables else len(bare)), path[0])
    return None if found is None else _within(bare, found, path[1:])


def _tables(bare: str) -> list[tuple[list[str], _Span]]:
    """Every ``[a.b]``, and every ``[[a.b]]`` with its number, as the path that it begins."""
    headers = [h for h in _HEADER.finditer(bare) if _is_header(bare, h.start())]
    counts: dict[tuple[str, ...], int] = {}
    found = []
    for number, header in enumerate(headers):
        end = headers[number + 1].start() if number + 1 < len(headers) else len(bare)
        names = [name.strip() for name in header[2].split(".")]
        if header[1] == "[[":
            entry = counts.get(tuple(names), 0)
            counts[tuple(names)] = entry + 1
            names.append(str(entry))
        found.append((names, _Span(header.start(1), header.end(), end)))
    return found


def _is_header(bare: str, place: int) -> bool:
    """Whether no array is open at a place, which would make ``[true]`` on a line an entry."""
    before = bare[:place]
    return before.count("[") == before.count("]")


def _within(bare: str, span: _Span, parts: list[str]) -> int:
    for part in parts:
        found = _entry(bare, span, int(part)) if part.isdigit() else _key(bare, span, part)
        if found is None:
            break
        span = found
    return span.key


def _depths(bare: str, span: _Span) -> Iterator[tuple[int, int]]:
    """Every place in a span, and how many brackets are open there."""
    depth = 0
    for place in range(span.start, span.end):
        depth -= bare[place] in "]}"
        if depth < 0:
            return
        yield place, depth
        depth += bare[place] in "[{"


def _key(bare: str, span: _Span, key: str) -> _Span | None:
    """What is assigned to a key, directly within a table."""
    pattern = re.compile(rf"(?<![\w.-]){re.escape(key)}\s*([=.])")
    for place, depth in _depths(bare, span):
        match = pattern.match(bare, place, span.end) if depth == 0 else None
        if match is None:
            continue
        start = match.end()
        if match[1] == ".":  # the rest of a dotted key is a table of one entry
            return _Span(place, start, span.end)
        while start < span.end and bare[start] in " \t":
            start += 1
        if start < span.end and bare[start] in "[{":
            return _Span(place, start + 1, span.end)
        return _Span(place, start, start)
    return None


def _entry(bare: str, span: _Span, index: int) -> _Span | None:
    """Table ``index`` of the array whose content is the span."""
    for place, depth in _depths(bare, span):
        if depth == 0 and bare[place] == "{":
            if index == 0:
                return _Span(place, place + 1, span.end)
            index -= 1
    return None
