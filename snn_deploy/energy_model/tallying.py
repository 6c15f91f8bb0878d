"""From counts to a report: what occurred in every layer, times what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from snn_deploy.counting import Counts, PopulationCount
from snn_deploy.energy_model.pricing import PART_OF, PARTS, Part, Prices, Range, total
from snn_deploy.energy_model.report import Cost, EnergyReport, LayerEnergy, Twin
from snn_deploy.energy_model.static import static_energy
from snn_deploy.hardware import OPERATIONS

AC, MAC = PARTS["synaptic"]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Operations before they are priced; ``values``: values through weights, maybe the host's."""

    what: str
    operation: str
    number: float
    values: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """What a placement on cores adds to the counts.

    Attributes
    ----------
    cores, chips : used.
    messages : operations of routing per sending population or input, summed over all samples.
    inputs : sizes of the inputs that send.
    """

    cores: int
    chips: int
    messages: Mapping[str, Mapping[str, int]]
    inputs: Mapping[str, int]


def tally(
    counts: Counts,
    prices: Prices,
    placed: Placed | None = None,
    seconds_per_step: float | None = None,
) -> EnergyReport:
    """The report of one chip.

    Parameters
    ----------
    counts : what was counted, over all samples.
    prices : who prices it.
    placed : where the neurons are, if they were placed.
    seconds_per_step : time of a timestep; default: what the profile says, if it does.

    Raises
    ------
    ValueError
        For messages of a sender that is neither a population nor an input.
    """
    layers = _layers(counts, prices, placed)
    costs = [cost for layer in layers for cost in layer.costs]
    unset = {c.operation for c in costs if c.count and c.status == "unset"}
    counted = {AC, MAC, *(c.operation for c in costs)}
    parts = {part: total(layer.parts[part] for layer in layers) for part in PARTS}
    dynamic = total(parts.values())
    chips, cores = (None, None) if placed is None else (placed.chips, placed.cores)
    static = static_energy(prices, counts.timesteps, chips, cores, seconds_per_step)
    host = _host(counts, prices)
    proxy_notes = () if prices.proxy is None else prices.proxy.notes
    return EnergyReport(
        profile=prices.chip.id,
        proxy=None if prices.proxy is None else prices.proxy.id,
        host_profile=None if prices.host is None else prices.host.id,
        convention=counts.convention,
        switches=counts.convention.switches(),
        samples=counts.samples,
        timesteps=counts.timesteps,
        rate=_rate(counts.populations, counts.samples * counts.timesteps),
        cores=cores,
        chips=chips,
        layers=layers,
        parts=parts,
        static=static,
        dynamic_picojoules=dynamic,
        total_picojoules=(
            None if dynamic is None else sum((s.range for s in static), start=dynamic)
        ),
        host=host,
        unpriced=tuple(name for name in OPERATIONS if name in unset),
        uncounted=tuple(name for name in prices.figures.energy if name not in counted),
        twin=_twin(layers, dynamic),
        figures=dict(prices.figures.energy),
        host_figure=prices.host.energy[MAC]
        if prices.host is not None and host is not None
        else None,
        notes=(*counts.remarks, *prices.chip.notes, *proxy_notes),
    )


def _layers(counts: Counts, prices: Prices, placed: Placed | None) -> tuple[LayerEnergy, ...]:
    messages: Mapping[str, Mapping[str, int]] = {} if placed is None else placed.messages
    inputs: Mapping[str, int] = {} if placed is None else placed.inputs
    unknown = messages.keys() - inputs.keys() - {p.name for p in counts.populations}
    if unknown:
        raise ValueError(f"messages of unknown senders {sorted(unknown)}")

    def sent(name: str) -> Iterator[_Counted]:
        return (_Counted("messages", op, n) for op, n in messages.get(name, {}).items())

    slots = counts.samples * counts.timesteps
    senders = [
        _layer(name, size, None, _costs(sent(name), counts.samples, prices), ())
        for name, size in inputs.items()
    ]
    populations = [
        _layer(
            p.name,
            p.neurons,
            _rate([p], slots),
            _costs([*_occurred(counts, p), *sent(p.name)], counts.samples, prices),
            _costs(_twin_does(counts, p.name), 1, prices),
        )
        for p in counts.populations
    ]
    return (*senders, *populations)


def _rate(populations: Iterable[PopulationCount], steps: int) -> float | None:
    """Spikes per neuron and timestep; None where nothing spikes."""
    spiking = [p for p in populations if p.spiking]
    slots = sum(p.neurons for p in spiking) * steps
    return sum(p.spikes for p in spiking) / slots if slots else None


def _occurred(counts: Counts, population: PopulationCount) -> Iterator[_Counted]:
    """Operations of a population and of the projections that end at it, all samples.

    A convention that makes neurons' work arithmetic leaves no updates to be priced beside it.
    """
    for p in counts.projections:
        if p.target == population.name:
            products = p.multiply_accumulates
            operation, number = (MAC, products) if products else (AC, p.accumulates)
            yield _Counted(p.name, operation, number, values=operation == MAC)
    for term in counts.terms:
        if term.population == population.name and not term.twin:
            yield _Counted(term.name, term.operation, term.count)
    if counts.convention.count_neuron == "no":
        yield _Counted("neurons", "neuron_update_active", population.active_updates)
        yield _Counted("neurons", "neuron_update_inactive", population.inactive_updates)
    if population.spiking:
        yield _Counted("neurons", "spike_out", population.spikes)


def _twin_does(counts: Counts, population: str) -> Iterator[_Counted]:
    """Operations of a layer of the twin, one inference."""
    for p in counts.projections:
        if p.target == population:
            yield _Counted(p.name, MAC, p.twin)
    for term in counts.terms:
        if term.population == population and term.twin:
            yield _Counted(term.name, term.operation, term.count)


def _costs(counted: Iterable[_Counted], samples: int, prices: Prices) -> tuple[Cost, ...]:
    return tuple(
        Cost(
            what=c.what,
            operation=c.operation,
            count=c.number / samples,
            status=prices.status(c.operation, values=c.values),
            picojoules=prices.energy(c.operation, c.number / samples, values=c.values),
        )
        for c in counted
    )


def _layer(
    name: str, neurons: int, rate: float | None, costs: tuple[Cost, ...], twin: tuple[Cost, ...]
) -> LayerEnergy:
    parts: dict[Part, Range | None] = {
        part: total(
            c.picojoules for c in costs if c.status == "priced" and PART_OF[c.operation] == part
        )
        for part in PARTS
    }
    return LayerEnergy(
        name=name,
        neurons=neurons,
        rate=rate,
        operations=_summed(costs, {AC: 0.0, MAC: 0.0}),
        costs=costs,
        parts=parts,
        total_picojoules=total(parts.values()),
        twin=twin,
        twin_picojoules=total(c.picojoules for c in twin),
    )


def _summed(costs: Iterable[Cost], start: Mapping[str, float]) -> dict[str, float]:
    found = dict(start)
    for cost in costs:
        found[cost.operation] = found.get(cost.operation, 0.0) + cost.count
    return found


def _twin(layers: tuple[LayerEnergy, ...], dynamic: Range | None) -> Twin:
    twin = [cost for layer in layers for cost in layer.twin]
    energy = total(layer.twin_picojoules for layer in layers)
    both = [*twin, *(cost for layer in layers for cost in layer.costs)]
    arithmetic = [c.status for c in both if c.count and c.operation in (AC, MAC)]
    ratio = None
    if dynamic is not None and energy is not None and energy.nominal > 0:
        ratio = dynamic.nominal / energy.nominal if set(arithmetic) == {"priced"} else None
    return Twin(_summed(twin, {MAC: 0.0}), energy, ratio)


def _host(counts: Counts, prices: Prices) -> Cost | None:
    """Values through weights, where the chip has no figure for them."""
    products = sum(p.multiply_accumulates for p in counts.projections)
    if not products or MAC in prices.figures.energy:
        return None
    values = _Counted("values through weights", MAC, products, values=True)
    (cost,) = _costs([values], counts.samples, prices)
    return cost
