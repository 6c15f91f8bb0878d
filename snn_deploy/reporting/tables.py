"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from snn_deploy.counting import PopulationCount
from snn_deploy.energy_model import EnergyReport
from snn_deploy.hardware import Target
from snn_deploy.inspection import Inspection, Span
from snn_deploy.reporting import joules, percent, quantity


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1
) -> Table:
    """A table whose first columns are text and whose others are numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        text = index < text_columns
        made.add_column(column, justify="left" if text else "right", no_wrap=not text or not index)
    for row in rows:
        made.add_row(*row)
    return made


def activity_table(populations: Sequence[PopulationCount], samples: int, timesteps: int) -> Table:
    """Spikes and updates of every population, per sample."""
    rows = []
    for p in populations:
        slots = p.neurons * samples * timesteps
        rows.append(
            (
                p.name,
                f"{p.neurons:,}",
                quantity(p.spikes / samples) if p.spiking else "-",
                percent(p.spikes / slots if p.spiking else None),
                quantity(p.active_updates / samples),
            )
        )
    return table(
        f"Activity per sample ({samples} samples, {timesteps} timesteps)",
        ("population", "neurons", "spikes", "rate", "active updates"),
        rows,
    )


def energy_table(report: EnergyReport) -> Table:
    """Counts and energy of every population, per inference."""
    rows = []
    for layer in report.layers:
        updates = (
            layer.picojoules["neuron_update_active"],
            layer.picojoules["neuron_update_inactive"],
        )
        known = [v for v in updates if v is not None]
        rows.append(
            (
                layer.name,
                f"{layer.neurons:,}",
                percent(layer.rate),
                quantity(layer.operations["synaptic_operation"]),
                quantity(layer.operations["multiply_accumulate"]),
                joules(layer.picojoules["synaptic_operation"])
                if layer.operations["synaptic_operation"]
                else "-",
                joules(layer.picojoules["multiply_accumulate"])
                if layer.operations["multiply_accumulate"]
                else "-",
                joules(sum(known) if known else None),
            )
        )
    priced = f" at {report.proxy}'s figures (proxy)" if report.proxy else ""
    return table(
        f"Energy per inference on {report.profile}{priced}",
        (
            "population",
            "neurons",
            "rate",
            "AC",
            "MAC",
            "AC energy",
            "MAC energy",
            "update energy",
        ),
        rows,
    )


def energy_lines(report: EnergyReport) -> list[str]:
    """The totals in words, host and chip apart, and what must be said with them."""
    kind = "estimate, " if report.proxy else ""
    lines = [f"chip total   {joules(report.total_picojoules)} ({kind}priced operations only)"]
    if report.host_operations:
        by = f"at {report.host_profile}" if report.host_profile else "no --host-profile given"
        lines.append(
            f"host         {joules(report.host_picojoules)} for "
            f"{quantity(report.host_operations)} MAC of the first layer ({by}; not in the total)"
        )
    lines.append(
        f"ANN twin     {report.twin_operations:,} MAC, {joules(report.twin_picojoules)}"
        + _ratio(report)
    )
    lines.append(f"counted by   {report.convention.switches()}")
    if report.unpriced:
        lines.append(f"not priced   {', '.join(n.replace('_', ' ') for n in report.unpriced)}")
    lines += [f"source       {name.replace('_', ' ')}: {s}" for name, s in report.sources.items()]
    lines += [f"note         {note}" for note in report.notes]
    return lines


def _ratio(report: EnergyReport) -> str:
    if report.twin_picojoules is None or report.total_picojoules is None:
        return ""
    if report.host_operations:
        return ""
    return f"; the SNN takes {percent(report.total_picojoules / report.twin_picojoules)} of it"


def target_table(targets: Sequence[Target]) -> Table:
    """The targets and profiles, and what each is good for."""
    return table(
        "Targets and energy profiles",
        ("name", "export", "energy", "what"),
        [
            (
                t.id,
                "yes" if t.number_format is not None else "-",
                f"{len(t.energy)} figures" if t.energy else "unset",
                t.summary,
            )
            for t in targets
        ],
        text_columns=4,
    )


def inspection_tables(inspection: Inspection) -> list[Table]:
    """Populations and projections of a network."""
    populations = table(
        f"Populations of {inspection.path}",
        ("population", "model", "shape", "neurons", "current decay", "decay", "threshold", "bias",
         "stage"),
        [
            (
                p.name,
                p.model,
                "x".join(str(n) for n in p.shape),
                f"{p.neurons:,}",
                _span(p.current_decay),
                _span(p.decay),
                _span(p.threshold),
                _span(p.bias),
                "-" if p.stage is None else str(p.stage),
            )
            for p in inspection.populations
        ],
        text_columns=2,
    )  # fmt: skip
    projections = table(
        "Projections",
        ("projection", "kind", "weights", "range", "exponent", "delay", "synapses"),
        [
            (
                p.name,
                p.kind,
                f"{p.weights:,}",
                _span(p.weight),
                str(p.exponent),
                _span(p.delay),
                f"{p.synapses:,}",
            )
            for p in inspection.projections
        ],
        text_columns=2,
    )
    return [populations, projections]


def inspection_lines(inspection: Inspection) -> list[str]:
    """Inputs, outputs and oddities, below the tables."""
    lines = [
        f"input {i.name}: {i.kind}, {'x'.join(str(n) for n in i.shape)}" for i in inspection.inputs
    ]
    time = "as the input" if inspection.timesteps is None else str(inspection.timesteps)
    lines.append(f"output {', '.join(inspection.outputs)}; timesteps: {time}")
    lines += [f"note: {note}" for note in inspection.notes]
    return lines + [f"{f.code} {f.where}: {f.message} ({f.fix})" for f in inspection.design_rules]


def _span(span: Span | None) -> str:
    if span is None:
        return "-"
    low, high = (f"{end:.6g}" if isinstance(end, float) else str(end) for end in span)
    return low if low == high else f"{low}..{high}"
