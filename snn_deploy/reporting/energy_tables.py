"""Energy reports for a terminal: one chip by layer, several chips side by side, every product."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from snn_deploy.energy_model import MEANING, EnergyReport, Product, products
from snn_deploy.energy_model.pricing import Part, total
from snn_deploy.reporting import joules, percent, quantity
from snn_deploy.reporting.energy_words import (
    any_disagree,
    caveat,
    did,
    exact,
    more,
    nominal,
    part_cell,
    parts_of,
    placed,
    range_cells,
    said_of_total,
    shares,
    sourced,
    spread,
    static_words,
    total_columns,
    words,
)
from snn_deploy.reporting.tables import table


def energy_table(report: EnergyReport) -> Table:
    """Counts and energy of every layer, per inference."""
    parts = parts_of([report])
    disagree = any_disagree([report])
    rows = [
        (
            layer.name,
            f"{layer.neurons:,}",
            percent(layer.rate),
            quantity(layer.operations["synaptic_operation"]),
            quantity(layer.operations["multiply_accumulate"]),
            *(part_cell([layer], part, layer.parts[part]) for part in parts),
            *range_cells(layer.total_picojoules, disagree, joules, "unset"),
            nominal(layer.twin_picojoules) if layer.twin else "-",
        )
        for layer in report.layers
    ]
    priced = f" at {report.proxy}'s figures (proxy)" if report.proxy else ""
    return table(
        f"Energy per inference on {report.profile}{priced}",
        (
            "population",
            "neurons",
            "rate",
            "AC",
            "MAC",
            *parts,
            *total_columns(disagree),
            "ANN twin",
        ),
        rows,
    )


def energy_lines(report: EnergyReport) -> list[str]:
    """The totals in words, host and chip apart, and what must be said with them."""
    lines = [
        f"chip total   {more(report)}{spread(report.total_picojoules)} ({said_of_total(report)})"
    ]
    if report.total_picojoules is not None:
        lines.append(f"of which     {shares(report)}")
    lines += [f"static       {static_words(static)}" for static in report.static]
    if report.cores is not None:
        lines.append(f"placed on    {placed(report)}")
    if report.host is not None:
        by = f"at {report.host_profile}" if report.host_profile else "no --host-profile given"
        lines.append(
            f"host         {spread(report.host.picojoules)} for {quantity(report.host.count)} MAC "
            f"of the first layer ({by}; not in the total)"
        )
    twin = report.twin
    share = "" if twin.ratio is None else f"; the SNN takes {percent(twin.ratio)} of it"
    lines.append(f"ANN twin     {did(twin.operations)}, {spread(twin.picojoules)}{share}")
    if twin.ratio is not None:
        lines.append(f"caveat       {caveat(report)}")
    lines.append(f"counted by   {report.switches}")
    if report.unpriced:
        lines.append(f"not priced   {words(report.unpriced)}")
    if report.uncounted:
        lines.append(f"not counted  {words(report.uncounted)}")
    lines += [f"source       {sourced(name, row)}" for name, row in report.figures.items()]
    if report.host_figure is not None:
        lines.append(f"source       host {sourced('multiply_accumulate', report.host_figure)}")
    return lines + [f"note         {note}" for note in report.notes]


def chips_table(reports: Sequence[EnergyReport]) -> Table:
    """Several chips side by side, per inference."""
    parts, disagree = parts_of(reports), any_disagree(reports)
    static = any(r.static for r in reports)
    return table(
        "Energy per inference",
        (
            "profile",
            *parts,
            *(["static"] if static else []),
            *total_columns(disagree),
            "ANN twin",
            "SNN / ANN",
        ),
        [_chip(report, parts, static, disagree) for report in reports],
    )


def _chip(
    report: EnergyReport, parts: Sequence[Part], static: bool, disagree: bool
) -> tuple[str, ...]:
    def text(picojoules: float) -> str:
        return f"{more(report)}{joules(picojoules)}"

    return (
        report.profile,
        *(part_cell(report.layers, part, report.parts[part]) for part in parts),
        *([nominal(total(s.range for s in report.static))] if static else []),
        *range_cells(report.total_picojoules, disagree, text, "unset"),
        nominal(report.twin.picojoules),
        percent(report.twin.ratio),
    )


def chips_lines(reports: Sequence[EnergyReport]) -> list[str]:
    """What must be said with chips side by side."""
    lines = [f"counted by   {reports[0].switches}"]
    if any(r.twin.ratio is not None for r in reports):
        lines.append(f"caveat       {caveat(reports[0])}")
    for r in reports:
        if r.host is not None and r.host.picojoules is not None:
            lines.append(
                f"host         {r.profile}: {spread(r.host.picojoules)} for "
                f"{quantity(r.host.count)} MAC (not in the total)"
            )
        lines += [f"static       {r.profile}: {static_words(static)}" for static in r.static]
        if r.cores is not None:
            lines.append(f"placed on    {r.profile}: {placed(r)}")
        if r.unplaced is not None:
            lines.append(f"not placed   {r.profile}: {r.unplaced}")
        if r.unpriced:
            lines.append(f"not priced   {r.profile}: {words(r.unpriced)}")
        if r.uncounted:
            lines.append(f"not counted  {r.profile}: {words(r.uncounted)}")
    return lines


def products_table(report: EnergyReport) -> Table:
    """Every figure as what it was computed from: count times figure, with the figure's source."""
    found = products(report)
    cited = _cited(found)
    disagree = any(p.figure is not None and p.figure.disagrees for p in found)
    rows = [
        (
            p.layer,
            p.what,
            p.operation.replace("_", " "),
            exact(p.count),
            *range_cells(p.figure, disagree, exact, p.status),
            *range_cells(p.product, disagree, joules, "-"),
            p.evidence or "-",
            f"[{cited.index(p.cited) + 1}]" if p.source else "-",
        )
        for p in found
    ]
    made = table(
        f"Where the energy per inference on {report.profile} comes from",
        (
            "layer",
            "for",
            "operation",
            "count",
            *(("low", "pJ each", "high") if disagree else ("pJ each",)),
            *(("low", "energy", "high") if disagree else ("energy",)),
            "evidence",
            "source",
        ),
        rows,
        text_columns=3,
    )
    for column in made.columns:
        column.no_wrap = True
    return made


def products_lines(report: EnergyReport) -> list[str]:
    """Sums of :func:`products_table`, its sources, and what its operations mean."""
    found = products(report)
    lines = [f"sum on the chip  {spread(report.total_picojoules)}"]
    if report.host_figure is not None and report.host is not None:
        lines.append(f"sum on the host  {spread(report.host.picojoules)}")
    lines += [f"[{number}] {text}" for number, text in enumerate(_cited(found), 1)]
    names = dict.fromkeys(p.operation for p in found)
    return lines + [f"{words([name])}: {MEANING[name]}" for name in names]


def _cited(found: Sequence[Product]) -> list[str]:
    """The sources, each once."""
    return list(dict.fromkeys(p.cited for p in found if p.source))
