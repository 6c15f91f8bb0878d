"""Where a figure comes from: every product of a report, as count times figure, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snn_deploy.energy_model.pricing import Range, Status, each
from snn_deploy.energy_model.report import Cost, EnergyReport, StaticEnergy
from snn_deploy.hardware import EnergyRow

# What is counted under the name of an operation.
MEANING: Mapping[str, str] = {
    "synaptic_operation": "a spike added through a weight",
    "multiply_accumulate": "a value multiplied by a weight and added",
    "neuron_update_active": "a neuron and timestep in which its membrane changed or it fired",
    "neuron_update_inactive": "any other neuron and timestep",
    "spike_out": "a neuron that fired",
    "message_out": "a neuron that fired and a core that hears of it, at the sender",
    "message_in": "the same, at the receiver",
    "spike_within_tile": "a message that stays in its tile",
    "hop_east_west": "a message's step to the next tile of its row",
    "hop_north_south": "a message's step to the next tile of its column",
    "packet": "a spike packet through a router",
    "memory_read": "a word read",
    "memory_write": "a word written",
    "static": "a second of a chip or core that is powered",
}


@dataclass(frozen=True, slots=True)
class Product:
    """One summand of a total.

    Attributes
    ----------
    layer : population or input; ``chip`` or ``core`` for static energy.
    what : what it is done for, as in :class:`snn_deploy.energy_model.report.Cost`.
    operation : a name in :data:`MEANING`.
    count : per inference.
    figure : pJ for one, None if unset or inside an all-in figure.
    profile : whose figure it is.
    source, evidence : of the figure; where sources disagree, all of them.
    status : as in :class:`snn_deploy.energy_model.report.Cost`.
    product : count times figure, pJ.
    """

    layer: str
    what: str
    operation: str
    count: float
    figure: Range | None
    profile: str
    source: str
    evidence: str
    status: Status
    product: Range | None

    @property
    def cited(self) -> str:
        """Whose figure it is, of what, and where it comes from."""
        return f"{self.profile}, {self.operation.replace('_', ' ')}: {self.source}"


def products(report: EnergyReport) -> tuple[Product, ...]:
    """Every product of a report whose count is not zero.

    The priced ones sum up to ``report.total_picojoules``, those of the host to ``report.host``.
    """
    layers = (
        _product(report, layer.name, cost)
        for layer in report.layers
        for cost in layer.costs
        if cost.count
    )
    return (*layers, *(_static(report, static) for static in report.static))


def _product(report: EnergyReport, layer: str, cost: Cost) -> Product:
    host = cost.status == "host"
    row = report.host_figure if host else report.figures.get(cost.operation)
    return Product(
        layer=layer,
        what=cost.what,
        operation=cost.operation,
        count=cost.count,
        figure=None if row is None else each(row),
        profile=(report.host_profile if host else report.proxy) or report.profile,
        source="" if row is None else provenance(row),
        evidence="" if row is None else row.evidence,
        status=cost.status,
        product=cost.picojoules,
    )


def provenance(row: EnergyRow) -> str:
    """Where a figure comes from: its source, its arithmetic if it is derived, and its ends."""
    said = [row.source]
    if row.derived is not None and row.inputs is not None:
        inputs = ", ".join(f"{name} = {value:.9g}" for name, value in row.inputs.items())
        said.append(f"{row.derived} with {inputs}")
    for end, value, source in (
        ("low", row.low, row.low_source),
        ("high", row.high, row.high_source),
    ):
        if value is not None:
            said.append(f"{end} {value:.9g}: {source}")
    return "; ".join(said)


def _static(report: EnergyReport, static: StaticEnergy) -> Product:
    second = static.watts * 1e12  # pJ
    return Product(
        layer=static.per,
        what=f"{static.number} for {static.seconds:.9g} s",
        operation="static",
        count=static.number * static.seconds,
        figure=Range(second, second, second),
        profile=report.proxy or report.profile,
        source=f"{static.source}; time of a timestep: {static.time_source}",
        evidence=static.evidence,
        status="priced",
        product=static.range,
    )
