"""Chips that are made up: a few limits, and what they can express."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from snn_deploy.hardware import Limit, Structure, Target
from snn_deploy.mapping.cores import RESOURCES


def limit(value: int, kind: str = "wall", per_core: tuple[int, ...] = ()) -> Limit:
    return Limit(value=value, kind=kind, source="made up", evidence="vendor", per_core=per_core)


def chip(structure: dict[str, bool] | None = None, **limits: int | Limit) -> Target:
    """A chip with these limits, walls where they are plain numbers."""
    stated = {n: v if isinstance(v, Limit) else limit(v) for n, v in limits.items()}
    return Target(
        id="made-up",
        name="made up",
        vendor="none",
        summary="made up",
        notes=(),
        energy={},
        number_format=None,
        limits=stated,
        structure=Structure(source="made up", **(structure or {})),
    )


@st.composite
def chips(draw: st.DrawFn) -> Target:
    """Chips on which small networks need several cores, or do not fit."""
    ranges = {
        "neurons_per_core": (1, 12),
        "axons_in_per_core": (15, 150),
        "axons_out_per_core": (8, 80),
        "synapses_per_core": (60, 800),
        "synapse_bits_per_core": (500, 8000),
        "fan_in": (10, 120),
        "fan_out": (10, 120),
        "cores_per_tile": (1, 3),
        "cores_per_chip": (2, 12),
        "chips": (1, 60),
    }
    limits: dict[str, Any] = {}
    for name, (low, high) in ranges.items():
        if draw(st.integers(0, 2)) == 0:
            kind = draw(st.sampled_from(("wall", "wall", "budget")))
            limits[name] = limit(draw(st.integers(low, high)), kind)
    if not any(name in RESOURCES for name in limits) or draw(st.booleans()):
        limits["neurons_per_core"] = limit(draw(st.integers(1, 12)))
    shares, graded = draw(st.booleans()), draw(st.integers(0, 5)) > 0
    return chip({"shares_weights": shares, "graded_input": graded}, **limits)
