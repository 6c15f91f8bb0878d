"""The values of a profile as rows of SOURCES.md, and derived values computed again."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import NamedTuple

from snn_deploy.hardware import EnergyRow, Figure, Limit, Static, Target
from snn_deploy.reporting.target_tables import structure_answers

# How far a source was followed: see SOURCES.md.
FOLLOWED = ("opened", "quoted", "cited")
COMPUTED = tuple(f"computed, {how}" for how in FOLLOWED)


class Row(NamedTuple):
    """One value: where it stands in the profile, what it is, and who says so."""

    key: str
    value: str
    evidence: str
    source: str

    def line(self, followed: str) -> str:
        return f"| {' | '.join((*self, followed))} |"


def rows(chip: Target) -> Iterator[Row]:
    """Every value of a profile but its number format."""
    for name, row in chip.energy.items():
        key = f"energy.{name}"
        yield Row(key, f"{row.value!r} {row.unit}", _evidence(row), row.source)
        for end in ("low", "high"):
            value, source = getattr(row, end), getattr(row, f"{end}_source")
            if value is not None:
                yield Row(f"{key} {end}", f"{value!r} {row.unit}", "-", source)
    for name, figure in static_figures(chip).items():
        yield Row(f"static.{name}", f"{figure.value!r} {figure.unit}", figure.evidence,
                  figure.source)  # fmt: skip
    for name, limit in chip.limits.items():
        value = ", ".join(str(n) for n in limit.per_core or (limit.value,))
        yield Row(f"limits.{name}", f"{value} ({limit.kind})", limit.evidence, limit.source)
    if chip.structure is not None:
        answers = structure_answers(chip.structure).items()
        said = ", ".join(f"{name}: {answer}" for name, answer in answers if answer)
        yield Row("structure", said, "-", chip.structure.source)


def static_figures(chip: Target) -> dict[str, Figure]:
    found = {f.name: getattr(chip.static, f.name, None) for f in fields(Static)}
    return {name: figure for name, figure in found.items() if figure is not None}


def sourced(chip: Target) -> Iterator[tuple[str, EnergyRow | Figure | Limit]]:
    """Everything that states how it was obtained."""
    yield from ((f"energy.{name}", row) for name, row in chip.energy.items())
    yield from ((f"static.{name}", figure) for name, figure in static_figures(chip).items())
    yield from ((f"limits.{name}", limit) for name, limit in chip.limits.items())


def _evidence(row: EnergyRow) -> str:
    parts = (row.evidence, row.scope.replace("_", "-"), row.extremum, row.voltage)
    return ", ".join(part for part in parts if part and part != "per-term")


_BINARY: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def computed(expression: str, inputs: Mapping[str, float]) -> float:
    """``+ - * /`` over numbers and named inputs, all of which are used."""
    used = set()

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return _BINARY[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Name):
            used.add(node.id)
            return inputs[node.id]
        assert isinstance(node, ast.Constant), ast.dump(node)
        assert type(node.value) in (int, float)
        return float(node.value)  # type: ignore[arg-type]

    result = value(ast.parse(expression, mode="eval").body)
    assert used == inputs.keys()
    return result
