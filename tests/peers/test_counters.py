"""Our counts beside those of NeuroBench, SpikingJelly and syops: equal where they are right.

They look at the tensors that enter a layer. On binary spikes they find what a chip does; on spikes
of another height, averages of spikes and the borders of a map some of them do not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from snn_deploy.counting import Convention, asgl, conventions, count
from tests.helpers.counters import LAYERS, STEPS, Kind, Run, run
from tests.peers.counters import COUNTERS, Found
from tests.peers.counters_table import table

BINARY = [Kind("without padding"), Kind("with padding", padding=1)]
STILL = Kind("a still image", padding=1, input="constant")
ASGL = Kind("as ASGL's code", height=0.5, pool=True, padding=1)
SEEDS = range(3)


def ours(run: Run, convention: Convention) -> dict[str, Found]:
    """Per layer and sample."""
    counts = count(run.graph, run.trace.record, convention)
    return {
        name: Found(p.accumulates / counts.samples, p.multiply_accumulates / counts.samples)
        for name, p in zip(LAYERS, counts.projections, strict=True)
    }


def named(name: str) -> Convention:
    return conventions()[name]()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", BINARY, ids=lambda kind: kind.name)
def test_binary_spikes(kind: Kind, seed: int) -> None:
    """All three count what their convention says; SpikingJelly counts what ASGL's does."""
    ran = run(kind, seed)
    assert COUNTERS["NeuroBench"](ran) == ours(ran, named("neurobench"))
    assert COUNTERS["SpikingJelly"](ran) == ours(ran, asgl())
    for name, found in COUNTERS["syops-counter"](ran).items():
        assert found.products == 0
        # its rate is a mean in float64
        assert found.accumulates == pytest.approx(
            ours(ran, named("syops"))[name].accumulates, rel=1e-12
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_still_image(seed: int) -> None:
    """The first layer is multiplied at every timestep; who sees zeros and borders differs."""
    ran = run(STILL, seed)
    every_step = asgl("per_timestep")
    assert COUNTERS["NeuroBench"](ran) == ours(ran, named("neurobench"))
    first = {name: counter(ran)["conv1"].products for name, counter in COUNTERS.items()}
    padded = ours(ran, replace(every_step, fanout="padded"))["conv1"].products
    assert first["SpikingJelly"] == first["syops-counter"] == padded
    assert first["NeuroBench"] < ours(ran, every_step)["conv1"].products < padded
    assert ours(ran, asgl())["conv1"].products * STEPS == ours(ran, every_step)["conv1"].products


@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_of_another_height(seed: int) -> None:
    """One synaptic event is one addition, whatever a spike's height; the weights hold that."""
    ran = run(Kind("height", height=0.5, padding=1), seed)
    assert ours(ran, asgl()) == ours(run(Kind("plain", padding=1), seed), asgl())
    for name in ("conv2", "linear"):
        right = ours(ran, named("neurobench"))[name].accumulates
        # NeuroBench counts as many, as MACs
        assert COUNTERS["NeuroBench"](ran)[name] == Found(0, right)
        # SpikingJelly counts every place of every kernel
        dense = ours_dense(ran)[name]
        assert COUNTERS["SpikingJelly"](ran)[name] == Found(0, dense)
        # syops takes the height for a rate
        half = ours(ran, named("syops"))[name].accumulates / 2
        assert COUNTERS["syops-counter"](ran)[name].accumulates == pytest.approx(half, rel=1e-12)


def ours_dense(run: Run) -> dict[str, int]:
    """Multiplications of a layer that is evaluated at every timestep, padding included."""
    padded = replace(asgl(), fanout="padded")
    counts = count(run.graph, run.trace.record, padded)
    return {n: int(p.twin) * STEPS for n, p in zip(LAYERS, counts.projections, strict=True)}


@pytest.mark.parametrize("seed", SEEDS)
def test_pooled_spikes(seed: int) -> None:
    """Behind an average the map is of quarters: two spikes in one window are one value of 1/2."""
    ran = run(Kind("pool", pool=True, padding=1), seed)
    right = ours(ran, named("neurobench"))["conv2"].accumulates
    found = {name: counter(ran)["conv2"] for name, counter in COUNTERS.items()}
    assert 0 < found["NeuroBench"].products < right
    assert found["NeuroBench"].accumulates == 0
    assert found["SpikingJelly"] == Found(0, ours_dense(ran)["conv2"])
    assert found["syops-counter"].products > 0
    assert found["syops-counter"].accumulates < ours(ran, named("syops"))["conv2"].accumulates


@pytest.mark.parametrize("seed", SEEDS)
def test_all_of_it_at_once(seed: int) -> None:
    """Priced at 45 nm, what is behind the first neurons costs at least a MAC for an addition."""
    ran = run(ASGL, seed)

    def picojoules(layers: dict[str, Found]) -> float:
        return sum(
            0.9 * layers[name].accumulates + 4.6 * layers[name].products for name in LAYERS[1:]
        )

    right = picojoules(ours(ran, asgl()))
    found = {name: picojoules(counter(ran)) for name, counter in COUNTERS.items()}
    assert found["SpikingJelly"] > 4.6 / 0.9 * right
    assert found["NeuroBench"] > right
    assert found["syops-counter"] != pytest.approx(right, rel=0.1)


def test_the_page_shows_them_side_by_side() -> None:
    assert table() in Path("docs/counting.md").read_text("utf-8")
