"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from snn_deploy.counting import PopulationCount
from snn_deploy.inspection import Inspection, Span
from snn_deploy.reporting import percent, quantity


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
