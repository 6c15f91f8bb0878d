"""The measured figures as text, and as ``docs/performance.md`` with its plots.

The page is written by hand but for what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from benchmarks.plots import draw

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
Result = dict[str, Any]
Cells = list[list[str]]


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def times(row: dict[str, Any], key: str) -> str:
    """A ratio of a row, as a factor."""
    return "" if row[key] is None else f"{number(row[key])}×"


def goals(row: dict[str, Any]) -> str:
    """Goal and stretch."""
    if row["goal"] is None:
        return ""
    return f"{'≤' if row['at_most'] else '≥'} {row['goal']:g} / {row['stretch']:g}"


def table(result: Result) -> Cells:
    """The table of all rows, its head first."""
    cells = [["work", "against", "ratio", "spread", "goal", "", "ours ms", "theirs ms", "notes"]]
    for row in result["rows"]:
        spread = "" if row["low"] is None else f"{number(row['low'])}–{number(row['high'])}"
        took = ["" if row[k] is None else number(row[k]) for k in ("ours_ms", "theirs_ms")]
        details = [f"{name} {number(value)}×" for name, value in row["details"].items()]
        notes = "; ".join(filter(None, [row["note"], *details]))
        cells.append(
            [
                row["work"],
                row["against"],
                times(row, "ratio"),
                spread,
                goals(row),
                row["verdict"],
                *took,
                notes,
            ]
        )
    return cells


def layers(result: Result) -> Cells:
    """Single layers."""
    return [
        ["layer", "rate", "ours ms", "torch ms", "ratio", "Gadd/s"],
        *(
            [
                row["layer"],
                f"{row['rate']:.0%}",
                f"{row['ours_ms']:.3f}",
                f"{row['torch_ms']:.3f}",
                f"{number(row['torch_ms'] / row['ours_ms'])}×",
                number(row["gadd_per_s"]),
            ]
            for row in result["growth"]["layers"]
        ),
    ]


def neurons(result: Result) -> Cells:
    """Maps of many sizes."""
    return [
        ["neurons", "ms", "million accumulates", "peak MB"],
        *(
            [
                f"{row['neurons']:,.0f}",
                number(row["ms"]),
                number(row["million_accumulates"]),
                f"{row['peak_mb']:.0f}",
            ]
            for row in result["growth"]["neurons"]
        ),
    ]


TABLES = {"table": table, "layers": layers, "neurons": neurons}


def plain(cells: Cells) -> str:
    """A table for a terminal; the last column is as long as it is."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in cells
    )


def markdown(cells: Cells) -> str:
    """A table for a page."""
    head, *body = (f"| {' | '.join(line)} |" for line in cells)
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body])


def text(result: Result) -> str:
    """Everything for a terminal."""
    names = [name for name in TABLES if name == "table" or result["growth"]]
    return "\n\n".join(plain(TABLES[name](result)) for name in names)


def machine(result: Result) -> str:
    """What the figures were measured with."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{processor()}; Python {platform.python_version()}, {versions}; medians of "
        f"{result['rounds']} interleaved rounds."
    )


def processor() -> str:
    """The processor, in the words of the operating system where it has any."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return platform.machine()
    lines = told.read_text().splitlines()
    said = dict(line.split("\t", 1) for line in lines if "\t" in line)
    fields = {key.strip(): value.strip(" \t:") for key, value in said.items()}
    name = fields.get("model name", platform.machine())
    family = fields.get("cpu family")
    cores = sum(line.startswith("processor") for line in lines)
    return f"{name}{f' (family {family})' if family else ''}, {cores} cores"


def filled(page: str, result: Result) -> str:
    """The page with new figures."""
    parts = {name: markdown(cells(result)) for name, cells in TABLES.items()}
    parts["machine"] = machine(result)
    for name, part in parts.items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        found = len(place.findall(page))
        if found != 1:
            raise ValueError(f"{found} places for {name} in {PAGE.name}")
        page = place.sub((part + "\n").replace("\\", r"\\"), page)
    return page


def write(result: Result) -> None:
    """Write the page and its plots, of a result that is whole."""
    PAGE.write_text(filled(PAGE.read_text("utf-8"), result), "utf-8")
    draw(result["growth"], DOCS / "performance")
