"""``snn-deploy check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snn_deploy.cli.common import json_option, print_json, reading_options, show
from snn_deploy.errors import Exit

if TYPE_CHECKING:
    from snn_deploy.checking import Broken, Check, Placed
    from snn_deploy.exporters import ReadOptions


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--target", "to", required=True, help="Target: see `snn-deploy targets`.")
@click.option(
    "--model",
    "factory",
    metavar="MODULE:FUNCTION",
    help="Function that makes the module of bare weights, and says what it is fed.",
)
@reading_options
@json_option
def command(model: str, to: str, factory: str | None, reading: ReadOptions, as_json: bool) -> int:
    """Hold a network against a chip's rules, and place it on the chip's cores. Writes nothing.

    MODEL is a checkpoint, an exported folder, a .nir or a .net file. A rule is broken where the
    number format or a wall of the chip does not take the network; then the exit code is 3. A
    budget that is exceeded is said, and passes. Limits that the profile does not state are not
    checked.

    Example: snn-deploy check model.pt --target loihi2
    """
    from snn_deploy.checking import check

    result = check(model, to, factory=factory, reading=reading)
    if as_json:
        print_json({**_plain(result), "passed": result.passed})
    else:
        show(*_tables(result), *_lines(result))
    return Exit.OK if result.passed else Exit.UNSUPPORTED


def _plain(result: Check) -> dict[str, Any]:
    from snn_deploy.reporting import plain

    found: dict[str, Any] = plain(result)
    return found


def _tables(result: Check) -> list[Any]:
    if result.placed is None:
        return []
    from snn_deploy.reporting.tables import table

    placed = result.placed
    populations = table(
        f"Placement on {result.target}: {_size(placed)}",
        ("population", "neurons", "cores"),
        [(p.population, f"{p.neurons:,}", f"{p.cores:,}") for p in placed.populations],
    )
    resources = table(
        "Use of a core",
        ("limit", "of a core", "mean", "highest", "cores at least"),
        [
            (
                r.name,
                f"{r.capacity:,}",
                f"{r.mean:.1%}",
                f"{r.highest:.1%}",
                "-" if r.least_cores is None else f"{r.least_cores:,}",
            )
            for r in placed.resources
        ],
    )
    return [populations, resources]


def _size(placed: Placed) -> str:
    return f"{_count(placed.cores, 'core')} on {_count(placed.chips, 'chip')}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _lines(result: Check) -> list[str]:
    lines = [line for broken in result.broken for line in _said(broken)]
    lines += [f"note: {note}" for note in result.notes]
    looked = f"{_count(len(result.rules), 'rule')} looked at, {result.network} network"
    walls = sum(b.kind != "budget" for b in result.broken)
    verdict = "no rule is broken" if result.passed else f"broken in {_count(walls, 'place')}"
    return [*lines, f"{looked}: {verdict}"]


def _said(broken: Broken) -> list[str]:
    lines = [f"{broken.code} {broken.where}: {broken.message}"]
    if broken.why:
        lines.append(f"  = why: {broken.why}")
    return [*lines, f"  = fix: {broken.fix}"]
