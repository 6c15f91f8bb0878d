"""What a comparison finds: one slot in full, and the tally of a population."""

from __future__ import annotations

from dataclasses import dataclass

from snn_deploy.sim.causes import Cause


@dataclass(frozen=True, slots=True)
class Reading:
    """What one side has at a slot, in units of the float network.

    ``current`` is all that arrives, without bias; ``membrane`` is before the comparison;
    ``threshold`` is the least membrane that fires, None where neurons never do.
    """

    current: float
    bias: float
    membrane: float
    threshold: float | None
    spikes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One slot at which the sides differ.

    Attributes
    ----------
    quantity : the first that differs there: ``sum``, ``current``, ``membrane``, ``spike``, or
        ``reset`` (the membrane after it).
    population, timestep, sample : which; timesteps and samples count from 0.
    neuron, position : index in C, H, W order, and (c, y, x) or (n,).
    a, b : what both sides have there.
    cause : one word, see :data:`snn_deploy.sim.causes.CAUSES`; None for a spike of a
        neuron whose states differed before.
    facts : the measurements that the cause rests on.
    """

    quantity: str
    population: str
    timestep: int
    sample: int
    neuron: int
    position: tuple[int, ...]
    a: Reading
    b: Reading
    cause: Cause | None
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PopulationDivergence:
    """What differs in one population.

    Attributes
    ----------
    exact : whether states are compared exactly, rather than up to rounding.
    slots : neurons times timesteps times samples; 0 where neurons never fire.
    spikes : spikes of the first side.
    differing : slots whose spikes differ; ``roots`` of them with an equal history, ``cascaded``
        after earlier differences.
    first_timestep : earliest of them, None if there is none.
    states : slots of equal history whose sums, currents or membranes differ beyond rounding.
    membrane_apart : largest difference of membranes before the comparison, over slots of equal
        history, in units of the float network.
    threshold_apart : largest difference of the membranes from which neurons fire, in those units.
    """

    population: str
    exact: bool
    slots: int
    spikes: int
    differing: int
    roots: int
    cascaded: int
    first_timestep: int | None
    states: int
    membrane_apart: float
    threshold_apart: float


def joined(
    before: PopulationDivergence | None, found: PopulationDivergence
) -> PopulationDivergence:
    """The tally of two batches of one population; ``before`` None: there was no batch yet."""
    if before is None:
        return found
    times = [t for t in (before.first_timestep, found.first_timestep) if t is not None]
    return PopulationDivergence(
        population=found.population,
        exact=found.exact,
        slots=before.slots + found.slots,
        spikes=before.spikes + found.spikes,
        differing=before.differing + found.differing,
        roots=before.roots + found.roots,
        cascaded=before.cascaded + found.cascaded,
        first_timestep=min(times, default=None),
        states=before.states + found.states,
        membrane_apart=max(before.membrane_apart, found.membrane_apart),
        threshold_apart=found.threshold_apart,
    )
