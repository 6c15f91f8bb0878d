"""Random counts, chips and placements, whose products floating point holds exactly.

Figures are eighths of a pJ, samples powers of two, timesteps of 2^-10 s: every sum of a report is a
number of few bits, so that tests compare with rational arithmetic and not within a tolerance.
"""

from __future__ import annotations

from hypothesis import strategies as st

from snn_deploy.counting import Counts, PopulationCount, ProjectionCount, Term, asgl
from snn_deploy.energy_model import Placed
from snn_deploy.energy_model.pricing import PARTS
from snn_deploy.hardware import OPERATIONS, EnergyRow, Figure, Static, Target

NUMBERS = st.integers(0, 5000)
STEP = 2.0**-10
ROUTING, MEMORY = PARTS["routing"], PARTS["memory"]


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    """One to four populations, each with one or two projections; and terms of a convention."""
    populations, projections = [], []
    senders = ["in"]
    for index in range(draw(st.integers(1, 4))):
        name, spiking = f"p{index}", draw(st.booleans())
        populations.append(
            PopulationCount(
                name=name,
                neurons=draw(st.integers(1, 50)),
                spiking=spiking,
                spikes=draw(NUMBERS) if spiking else 0,
                active_updates=draw(NUMBERS),
                inactive_updates=draw(NUMBERS),
            )
        )
        for source in draw(st.lists(st.sampled_from(senders), min_size=1, max_size=2, unique=True)):
            values = source == "in" and draw(st.booleans())
            projections.append(
                ProjectionCount(
                    name=f"{source}->{name}",
                    source=source,
                    target=name,
                    accumulates=0 if values else draw(NUMBERS),
                    multiply_accumulates=draw(NUMBERS) if values else 0,
                    twin=draw(NUMBERS),
                )
            )
        senders.append(name)
    extras = st.builds(
        Term,
        name=st.sampled_from(("bias", "weights", "leak")),
        population=st.sampled_from([p.name for p in populations]),
        operation=st.sampled_from((*PARTS["synaptic"], *MEMORY)),
        count=NUMBERS,
        twin=st.booleans(),
    )
    return Counts(
        convention=asgl(),
        samples=draw(st.sampled_from((1, 2, 8))),
        timesteps=draw(st.integers(1, 9)),
        projections=tuple(projections),
        populations=tuple(populations),
        terms=tuple(draw(st.lists(extras, max_size=4))),
    )


@st.composite
def rows(draw: st.DrawFn, scope: str = "per_term") -> EnergyRow:
    """A figure, with a lower and a higher one or without."""
    eighths = draw(st.integers(1, 400))
    low = draw(st.none() | st.integers(1, eighths))
    high = draw(st.none() | st.integers(eighths, 800))
    return EnergyRow(
        value=eighths / 8,
        unit="pJ",
        source="drawn",
        evidence="measured",
        scope=scope,
        low=None if low is None else low / 8,
        low_source=None if low is None else "drawn low",
        high=None if high is None else high / 8,
        high_source=None if high is None else "drawn high",
    )


def chip(energy: dict[str, EnergyRow], static: Static | None = None, name: str = "chip") -> Target:
    return Target(
        id=name,
        name=name,
        vendor="nobody",
        summary="drawn",
        notes=(),
        energy=energy,
        number_format=None,
        static=static,
    )


def figure(value: float, unit: str) -> Figure:
    return Figure(value=value, unit=unit, source=f"drawn {unit}", evidence="measured")


@st.composite
def statics(draw: st.DrawFn) -> Static:
    watts = st.none() | st.integers(1, 64).map(lambda n: figure(n / 64, "W"))
    return Static(
        watts_per_chip=draw(watts),
        watts_per_core=draw(watts),
        timestep_seconds=draw(st.none() | st.just(figure(STEP, "s"))),
    )


@st.composite
def chips(draw: st.DrawFn) -> Target:
    """A chip that prices some operations, each for itself."""
    priced = draw(st.sets(st.sampled_from(OPERATIONS)))
    energy = {name: draw(rows()) for name in OPERATIONS if name in priced}
    return chip(energy, draw(st.none() | statics()))


@st.composite
def placements(draw: st.DrawFn, counted: Counts) -> Placed:
    """Messages of the input and of every population."""
    names = ["in", *(p.name for p in counted.populations)]
    messages = {
        name: {operation: draw(NUMBERS) for operation in draw(st.sets(st.sampled_from(ROUTING)))}
        for name in draw(st.lists(st.sampled_from(names), unique=True))
    }
    inputs = {"in": 7} if "in" in messages else {}
    return Placed(draw(st.integers(1, 40)), draw(st.integers(1, 4)), messages, inputs)
