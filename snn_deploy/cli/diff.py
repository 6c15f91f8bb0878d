"""``snn-deploy diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snn_deploy.cli.common import (
    input_option,
    json_option,
    print_json,
    reading_options,
    show,
    steps_option,
    talk,
)
from snn_deploy.cli.progress import progress
from snn_deploy.errors import Exit

if TYPE_CHECKING:
    from snn_deploy.diffing import Divergence
    from snn_deploy.exporters import ReadOptions
    from snn_deploy.sim.findings import Difference, PopulationDivergence


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@input_option
@steps_option
@reading_options
@click.option(
    "--max-slots-percent",
    type=click.FloatRange(0, 100),
    metavar="P",
    help="Gate: fail only if spikes differ in more than P percent of all slots (a neuron at a "
    "timestep); default: if anything differs.",
)
@json_option
def command(
    a: str,
    b: str,
    recording: str,
    steps: int | None,
    reading: ReadOptions,
    max_slots_percent: float | None,
    as_json: bool,
) -> int:
    """Say where two stages of one network part first, and why.

    A and B are two of: model.pt (the trained module itself), model.pt@frozen (its float graph),
    model.pt@TARGET (its integer graph for a target, as it would be exported), an exported folder,
    a .nir or a .net file. They must have the same populations.

    Differing spikes are roots, where everything that could have led to them was equal, or
    cascaded. Currents and membranes are compared where their history is equal: exactly between
    integers of one format, else beyond what rounding explains.

    Exits with 0 if nothing differs, with 1 if something does, as diff(1).

    Example: snn-deploy diff model.pt@frozen build/ --input digits-test.npz
    """
    from snn_deploy.diffing import diff

    with progress() as bar:
        result = diff(
            a,
            b,
            recording,
            steps=steps,
            reading=reading,
            progress=bar,
        )
    for note in result.notes:
        talk(f"note: {note}")
    differ = not result.identical
    if max_slots_percent is not None:
        differ = result.percent > max_slots_percent
    if as_json:
        sums = {n: getattr(result, n) for n in ("slots", "differing", "percent", "identical")}
        print_json({"divergence": result, **sums, "passed": not differ})
    else:
        _show(result, max_slots_percent, differ=differ)
    return Exit.GATE if differ else Exit.OK


def _show(result: Divergence, gate: float | None, *, differ: bool) -> None:
    lines = [
        f"A  {result.a}",
        f"B  {result.b}",
        f"   {result.samples} samples, {result.timesteps} timesteps",
    ]
    if result.first_state is not None:
        lines += ["", "first state that differs beyond rounding", *_place(result.first_state)]
    if result.first_spike is not None:
        lines += ["", "first spike that differs", *_place(result.first_spike)]
    show(*lines, "", _table(result.populations))
    changed = len(result.decisions_changed)
    lines = [f"{changed} of {result.samples} decisions differ"]
    spikes = f"{result.differing:,} of {result.slots:,} slots differ ({result.percent:.3g}%)"
    first = result.first
    if gate is not None:
        lines.append(f"{'FAILED' if differ else 'PASSED'}: {spikes}, {gate:g}% are allowed")
    elif first is not None:
        cause = f", {first.cause}" if first.cause else ""
        lines.append(
            f"DIFFER from {first.population}, timestep {first.timestep} on{cause}; {spikes}"
        )
    else:
        lines.append("DIFFER in decisions only" if differ else f"IDENTICAL: {spikes}")
    show(*lines)


def _place(found: Difference) -> list[str]:
    from snn_deploy.sim.causes import CAUSES

    position = ", ".join(map(str, found.position))
    lines = [
        f"  {found.population}, timestep {found.timestep}, sample {found.sample}, neuron "
        f"{found.neuron} ({position}): {found.quantity}",
        f"  {'':12}{'A':>14}{'B':>14}",
    ]
    rows: dict[str, tuple[Any, Any]] = {
        "current": (found.a.current, found.b.current),
        "bias": (found.a.bias, found.b.bias),
        "membrane": (found.a.membrane, found.b.membrane),
        "fires from": (found.a.threshold, found.b.threshold),
        "spikes": (found.a.spikes, found.b.spikes),
    }
    for name, pair in rows.items():
        shown = ["-" if value is None else f"{value:.7g}" for value in pair]
        lines.append(f"  {name:12}{shown[0]:>14}{shown[1]:>14}")
    if found.cause is None:
        return [*lines, "  follows from a state of this neuron that differs"]
    return [*lines, f"  {CAUSES[found.cause]}", *(f"    {fact}" for fact in found.facts)]


def _table(populations: tuple[PopulationDivergence, ...]) -> Any:
    from snn_deploy.reporting import percent
    from snn_deploy.reporting.tables import table

    rows = []
    for p in populations:
        of_slots = percent(p.differing / p.slots if p.slots else None)
        of_spikes = percent(p.differing / p.spikes if p.spikes else None)
        counts = [f"{n:,}" if p.slots else "-" for n in (p.differing, p.roots, p.cascaded)]
        rows.append(
            (
                p.population,
                f"{p.slots:,}" if p.slots else "-",
                f"{p.spikes:,}" if p.slots else "-",
                counts[0],
                of_slots,
                of_spikes,
                *counts[1:],
                "-" if p.first_timestep is None else str(p.first_timestep),
                f"{p.states:,}",
                f"{p.membrane_apart:.3g}{'' if p.exact else ' ~'}",
            )
        )
    return table(
        "Spikes that differ; states that do on equal history, and how far membranes are apart "
        "(~: up to rounding)",
        (
            "population",
            "slots",
            "spikes",
            "differ",
            "/slots",
            "/spikes",
            "roots",
            "cascaded",
            "first",
            "states",
            "apart",
        ),
        rows,
    )
