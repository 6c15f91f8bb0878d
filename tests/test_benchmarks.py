"""The benchmarks compare what they say they compare; how fast anything is, is not tested."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import documents, layers, limit, scaling, start
from benchmarks.in_torch import (
    InPlace,
    Plain,
    TorchNet,
    as_torch,
    calibrate,
    compile_neurons,
    same_spikes,
)
from benchmarks.measuring import Row, fastest, interleaved, ratio
from benchmarks.networks import (
    Network,
    Ours,
    accumulates,
    perceptron,
    rates,
    recurrent,
    resnet18,
)
from snn_deploy import Recording, simulate

NETWORKS = {
    "resnet": (lambda: resnet18(4), 0.2),
    "perceptron": (perceptron, 0.1),
    "recurrent": (recurrent, 0.05),
}


def ready(name: str, samples: int = 2) -> tuple[Network, Any]:
    """A network with thresholds and its input."""
    make, rate = NETWORKS[name]
    network = make()
    calibrate(network, network.draw(2, rate, seed=2), rate)
    return network, network.draw(samples, rate)


@pytest.mark.parametrize("name", NETWORKS)
def test_everyone_makes_the_same_spikes(name: str) -> None:
    network, data = ready(name)
    ours = Ours(network)
    trace = ours(data, trace=True)
    assert all(0.01 < rate < 0.5 for rate in rates(ours, trace).values())
    for neurons in (Plain, InPlace):
        for channels_last in (False, True):
            model = TorchNet(network, neurons, channels_last=channels_last)
            same_spikes(name, trace, model, as_torch(data))
    in_blocks = TorchNet(network, Plain, block=3)
    same_spikes(name, trace, in_blocks, as_torch(data))
    fed = {"in": data}
    recording = Recording(values=fed) if network.constant else Recording(spikes=fed)
    reference = simulate(ours.graph, recording, engine="reference", trace=True)
    for population, spikes in reference.spikes.items():
        np.testing.assert_array_equal(spikes, trace.spikes[population])


@pytest.mark.parametrize("name", NETWORKS)
def test_other_spikes_stop_the_benchmark(name: str) -> None:
    network, data = ready(name)
    trace = Ours(network)(data, trace=True)
    model: Any = TorchNet(network, Plain)
    model.layers[-1].threshold.fill_(1e9)
    with pytest.raises(SystemExit, match="spikes differ"):
        same_spikes(name, trace, model, as_torch(data))


def test_accumulates_are_spikes_times_fan_out() -> None:
    network, data = ready("perceptron")
    ours = Ours(network)
    trace = ours(data, trace=True)
    hidden = int(trace.spikes["hidden"].sum())
    assert accumulates(ours, trace) == int(data.sum()) * 128 + hidden * 10


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = ready("perceptron")
    model = TorchNet(network, Plain)

    def compile_(self: Any, **options: Any) -> None:
        def fail(*given: Any) -> None:
            raise RuntimeError("no C++ compiler")

        self.forward = fail

    monkeypatch.setattr(Plain, "compile", compile_)
    assert compile_neurons(model, as_torch(data)) == "not compiled: RuntimeError"


def test_a_part_of_the_batch_is_the_batch() -> None:
    network, data = ready("resnet", samples=3)
    with torch.inference_mode():
        model = TorchNet(network, InPlace)
        whole = model(as_torch(data)).unflatten(0, (network.steps, 3))
        parts = [model(part) for part in as_torch(data).split(1)]
    np.testing.assert_array_equal(whole, np.stack(parts, 1))


@pytest.mark.parametrize("name", layers.LAYERS)
def test_layers_sum_what_torch_sums(name: str) -> None:
    size = replace(layers.LAYERS[name], samples=1)
    network = replace(size.network(), steps=1)
    data = network.draw(1, 0.3)
    (unit,) = network.units
    summed = {work().numpy().tobytes() for work in layers.synapses_in_torch(network, data).values()}
    wanted = TorchNet(network, Plain).current(unit, {"in": as_torch(data)})
    assert summed == {wanted.numpy().tobytes()}


def test_the_limit_is_measured() -> None:
    for name, work in limit.works().items():  # which compares the sums
        rows, count, total, times = work.args
        assert len(rows) == limit.BUFFERS[name]
        assert times * count * limit.LANES == limit.ADDITIONS
        before = total.copy()
        work()
        summed = rows.reshape(-1, limit.LANES).sum(0, dtype=np.int64) * times
        np.testing.assert_array_equal(total, (before + summed).astype(np.int16))


def test_a_map_grows() -> None:
    small, large = (scaling.run(neurons) for neurons in (800, 8000))
    assert (small["neurons"], large["neurons"]) == (800, 8192)
    assert small["million_accumulates"] < large["million_accumulates"]
    assert large["peak_mb"] > 10


def test_a_process_is_timed() -> None:
    cpu, wall, said = start.process(["import sys, math; print(sys.argv[1])", "there"])
    assert said == "there\n"
    assert cpu > 0
    assert wall > 0


def test_contenders_take_turns() -> None:
    said: list[str] = []
    clock = iter(range(10**6))  # every reading of this clock is a second later
    times = interleaved(
        {"a": lambda: said.append("a"), "b": lambda: said.append("b")}, 3, lambda: next(clock)
    )
    assert said == ["a", "b"] * 4
    assert times == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_ratios_are_taken_within_a_round() -> None:
    slow = [2.0, 40.0, 9.0]  # a round in which everything was ten times as slow changes nothing
    fast = [1.0, 10.0, 3.0]
    assert ratio(slow, fast) == {"ratio": 3.0, "low": 2.0, "high": 4.0}
    assert fastest({"slow": slow, "fast": fast}) == "fast"


@given(st.floats(0.1, 1000), st.floats(0.1, 1000), st.booleans())
@settings(max_examples=30)
def test_verdicts(measured: float, goal: float, at_most: bool) -> None:
    stretch = goal / 2 if at_most else goal * 2
    row = Row(work="", against="", ratio=measured, goal=goal, stretch=stretch, at_most=at_most)
    factor = goal / measured if at_most else measured / goal
    wanted = "missed" if factor < 1 else "stretch reached" if factor >= 2 else "reached"
    assert row.verdict == wanted


def test_verdicts_without_a_goal_or_a_figure() -> None:
    assert Row(work="", against="", ratio=3).verdict == ""
    assert Row(work="", against="", goal=3).verdict == "not measured"


def result() -> dict[str, Any]:
    """Figures that nobody measured."""
    rows = [
        Row(work="w", against="x", ratio=12.34, low=11, high=13, goal=11, stretch=16,
            ours_ms=0.01234, theirs_ms=250.2, details={"y": 2}),
        Row(work="v", against="x", ratio=0.5, low=0.4, high=0.6, goal=1, stretch=0.4, at_most=True),
        Row(work="u", against="", note="not installed"),
    ]  # fmt: skip
    layer = {"layer": "l", "rate": 0.1, "ours_ms": 1.0, "torch_ms": 8.0, "gadd_per_s": 50.0}
    size = {"neurons": 1000.0, "ms": 1.0, "million_accumulates": 0.5, "peak_mb": 100.0}
    return {
        "versions": {"torch": "2"},
        "rounds": 5,
        "rows": [row.record() for row in rows],
        "growth": {"layers": [layer], "against_rate": [layer], "neurons": [size]},
    }


def test_the_page_has_a_place_for_every_figure() -> None:
    page = documents.PAGE.read_text("utf-8")
    once = documents.filled(page, result())
    assert "| w | x | 12.3× | 11.0–13.0 | ≥ 11 / 16 | reached | 0.0123 | 250 | y 2.00× |" in once
    assert "| v | x | 0.500× | 0.400–0.600 | ≤ 1 / 0.4 | reached |" in once
    assert "| u |  |  |  |  | not measured |  |  | not installed |" in once
    assert "| 1,000 | 1.00 | 0.500 | 100 |" in once
    assert documents.filled(once, result()) == once
    for name in (*documents.TABLES, "machine"):  # a place that is gone is not passed over
        without = page.replace(f"<!-- {name} -->", "")
        with pytest.raises(ValueError, match=f"0 places for {name}"):
            documents.filled(without, result())


def test_the_same_figures_are_printed() -> None:
    text = documents.text(result())
    assert re.search(
        r"^w +x +12\.3× +11\.0–13\.0 +≥ 11 / 16 +reached +0\.0123 +250 +y 2", text, re.M
    )
    assert "not installed" in documents.text(result() | {"growth": None})
