"""Packing blocks on cores, and cores on a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_deploy.hardware import target
from snn_deploy.mapping.packing import Floats, Items
from snn_deploy.mapping.routing import Mesh, columns


def items(demand: Floats) -> Items:
    """Items that have nothing in common."""

    def jointly(chosen: Sequence[int]) -> Floats:
        return np.asarray(demand[list(chosen)].sum(axis=0))

    return Items(
        demand=demand,
        common=np.zeros(demand.shape[1], np.bool_),
        kin=[frozenset[str]()] * len(demand),
        jointly=jointly,
    )


def fewest_bins(demand: Floats) -> int:
    """The fewest bins there are, by trying everything."""

    def fits(bins: list[Floats], index: int) -> bool:
        if index == len(demand):
            return True
        for at, held in enumerate(bins):
            if (held + demand[index] <= 1 + 1e-9).all():
                bins[at] = held + demand[index]
                if fits(bins, index + 1):
                    return True
                bins[at] = held
            if not held.any():  # empty bins are alike
                break
        return False

    return next(
        n
        for n in range(1, len(demand) + 1)
        if fits([np.zeros(demand.shape[1]) for _ in range(n)], 0)
    )


@settings(max_examples=100)
@given(
    demand=st.integers(1, 3).flatmap(
        lambda resources: st.lists(
            st.lists(st.integers(1, 20), min_size=resources, max_size=resources),
            min_size=1,
            max_size=7,
        )
    )
)
def test_packing_is_legal_and_near_the_best(demand: list[list[int]]) -> None:
    parts = np.array(demand) / 20
    bins = items(parts).pack(enough=1)
    assert sorted(i for held in bins for i in held) == list(range(len(parts)))
    for held in bins:
        assert (parts[held].sum(axis=0) <= 1 + 1e-9).all()
    assert fewest_bins(parts) <= len(bins) <= fewest_bins(parts) + 1


def test_items_mix() -> None:
    """20 items of neurons and 20 of memory: 10 bins, where filling one after another takes 15."""
    demand = np.array([(0.5, 0.04), (0.4, 0.04)] * 10 + [(0.04, 0.5), (0.04, 0.4)] * 10)
    assert len(items(demand).pack(enough=1)) == 10


def test_items_that_use_things_in_common() -> None:
    """Three that need the same 60%."""
    made = Items(
        demand=np.full((3, 1), 0.6),
        common=np.array([True]),
        kin=[frozenset({"a"})] * 3,
        jointly=lambda chosen: np.array([0.6]),
    )
    assert made.pack(enough=1) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("tiles", "width"), [(1, 1), (2, 2), (32, 8), (12, 4), (4096, 64), (13, 4), (152, 19)]
)
def test_a_mesh_is_as_square_as_it_can_be(tiles: int, width: int) -> None:
    assert columns(tiles) == width


@settings(max_examples=60)
@given(tiles=st.integers(1, 60), per_tile=st.integers(1, 5), chips=st.integers(1, 6))
def test_neighbours_in_number_are_neighbours_in_place(
    tiles: int, per_tile: int, chips: int
) -> None:
    mesh = Mesh(per_tile, tiles, chips)
    tile, column, row = mesh.positions(np.arange(tiles * per_tile * chips))
    places = list(dict.fromkeys(zip(column.tolist(), row.tolist(), strict=True)))
    assert len(places) == tiles * chips
    assert (np.bincount(tile) == per_tile).all()
    for chip in range(chips):
        there = places[chip * tiles : (chip + 1) * tiles]
        wide, high = (max(v) - min(v) for v in zip(*there, strict=True))
        assert wide < columns(tiles)
        assert high < -(-tiles // columns(tiles))
        for (x, y), (next_x, next_y) in pairwise(there):
            assert abs(x - next_x) + abs(y - next_y) == 1


def test_loihi_has_eight_columns_of_tiles() -> None:
    """Davies et al. 2018: 128 cores in tiles of four (SANA-FE's description: 8 x 4 tiles)."""
    limits = target("loihi1-davies2018").limits
    per_tile = limits["cores_per_tile"].value
    assert columns(limits["cores_per_chip"].value // per_tile) == 8
