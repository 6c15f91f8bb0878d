"""Counts times a chip's figures. A figure that is missing stays missing: it is never zero."""

from __future__ import annotations

import math

from snn_deploy.counting import Convention, asgl, count
from snn_deploy.energy_model.explaining import MEANING, Product, products, provenance
from snn_deploy.energy_model.pricing import Prices, Range, price, prices
from snn_deploy.energy_model.report import (
    CAVEAT,
    Cost,
    EnergyReport,
    LayerEnergy,
    StaticEnergy,
    Twin,
    gate_failure,
)
from snn_deploy.energy_model.tallying import Placed, tally
from snn_deploy.errors import SnnDeployError
from snn_deploy.graph import Graph
from snn_deploy.hardware import Target
from snn_deploy.mapping import Placement
from snn_deploy.sim import Record

__all__ = [
    "CAVEAT",
    "MEANING",
    "Cost",
    "EnergyReport",
    "LayerEnergy",
    "Placed",
    "Prices",
    "Product",
    "Range",
    "StaticEnergy",
    "Twin",
    "energy",
    "gate_failure",
    "price",
    "prices",
    "products",
    "provenance",
    "tally",
]


def energy(
    graph: Graph,
    record: Record,
    profile: Target | str,
    *,
    convention: Convention | None = None,
    host_profile: Target | str | None = None,
    proxy: Target | str | None = None,
    placement: Placement | None = None,
    seconds_per_step: float | None = None,
) -> EnergyReport:
    """Energy per inference, per layer.

    Parameters
    ----------
    graph, record : what ran, and its record.
    profile : chip, by name or as a target.
    convention : how to count; default :func:`snn_deploy.counting.asgl`.
    host_profile : prices the multiply-accumulates of values where the chip has no figure for them,
        on a line of their own.
    proxy : chip whose figures stand in for a profile that publishes none.
    placement : of the graph on the chip's cores; without it, routing is not counted, and static
        power is that of one chip.
    seconds_per_step : time of a timestep, for static energy; default: the profile's, if it has one.

    Raises
    ------
    SnnDeployError
        SD105 for an unknown profile, SD104 for a proxy where figures exist or a time that is none,
        SD206 where a host or proxy has no figure either.
    """
    by = prices(profile, proxy, host_profile)
    if seconds_per_step is not None and not 0 < seconds_per_step < math.inf:
        raise SnnDeployError("SD104", f"a timestep of {seconds_per_step} seconds is none")
    placed = None
    if placement is not None:
        messages = placement.messages(record)
        inputs = {i.name: math.prod(i.shape) for i in graph.inputs if i.name in messages}
        placed = Placed(placement.cores, placement.chips, messages, inputs)
    return tally(count(graph, record, convention or asgl()), by, placed, seconds_per_step)
