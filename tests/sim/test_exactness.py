"""All engines and kernels give the reference's numbers, on layers at the edges of what they do."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_deploy.checks import check_integer
from snn_deploy.graph import Graph
from snn_deploy.numerics import NumberFormat
from snn_deploy.sim import EngineName, Trace
from snn_deploy.sim.event import PLAIN
from snn_deploy.sim.plan import Timing
from snn_deploy.synapses import Conv2d, Dense
from tests.helpers.brute_force import stages_of
from tests.helpers.graphs import GENERIC, Case
from tests.helpers.layers import (
    CHANNELS,
    LAYERS,
    RATES,
    SHIPPED,
    WEIGHTS,
    examples,
    features,
    net_cases,
    tuned,
    weights_of,
)
from tests.helpers.nets import fed_with_spikes, lif, one_layer, spike_input
from tests.property.test_engines import assert_same

# An engine, and whether it is left with its plain kernels.
WAYS: tuple[tuple[EngineName, str], ...] = (("event", ""), ("event", "1"), ("dense", ""))

# Of a net that fails everything is shown, however large.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


@contextmanager
def kernels(plain: str) -> Iterator[None]:
    """With ``plain`` not empty: without vector kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLAIN, plain)
        yield


def agreed(case: Case, timing: Timing = "zero_delay", batch: int = 1, threads: int = 1) -> Trace:
    """The trace that is the same in all engines, in batches and untraced as well."""
    check_integer(case.graph)
    reference = case.run("reference", timing)
    for engine, plain in WAYS:
        with kernels(plain):
            assert_same(reference, case.run(engine, timing, batch=batch, threads=threads))
            for size, number in ((None, threads), (batch, 1)):
                quiet = case.run(engine, timing, batch=size, threads=number, trace=False)
                assert quiet.record.difference(reference.record) == 0
                assert quiet.output.keys() == reference.output.keys()
                for name, output in quiet.output.items():
                    np.testing.assert_array_equal(output, reference.output[name])
    return reference


def fires_sometimes(trace: Trace) -> bool:
    """Whether some neurons, but not all of their population, fire at some timestep."""
    return any(spikes.any() and not spikes.all() for spikes in trace.spikes.values())


@settings(max_examples=examples(120))
@given(
    case=net_cases(),
    batch=st.sampled_from((1, 2, 5)),
    threads=st.sampled_from((1, 1, 2, 3)),
    timing=st.sampled_from(("zero_delay", "zero_delay", "pipelined")),
)
def test_nets(case: Case, batch: int, threads: int, timing: Timing) -> None:
    if stages_of(case.graph, timing) is None:
        timing = "zero_delay"
    trace = agreed(case, timing, batch, threads)
    event("fires sometimes" if fires_sometimes(trace) else "never, or always")


def test_nets_are_of_every_kind_and_fire() -> None:
    """Of the nets above; else their agreement would say little."""
    met: Counter[str] = Counter()

    @settings(max_examples=120)
    @given(case=net_cases())
    def look(case: Case) -> None:
        trace = case.run("reference")
        met.update(set(features(case.graph)))
        met["spiking"] += bool(trace.spikes)
        met["fires sometimes"] += fires_sometimes(trace)
        met[repr(case.graph.number_format)] += 1

    look()
    assert met["spiking"] > 60
    assert met["fires sometimes"] > 0.7 * met["spiking"]
    kinds = {*LAYERS, *map(str, CHANNELS), *map(repr, SHIPPED)}
    kinds |= {"one to one", "padded along one axis", "pooled", "delayed", "recurrent", "in a loop"}
    kinds |= {"constant", "graded", "several into one"}
    assert {kind: met[kind] for kind in kinds if met[kind] < 3} == {}


def layer(weight: NDArray[Any], *source: int, form: NumberFormat = GENERIC) -> Graph:
    """Neurons behind a dense layer or a convolution that keeps the map's size."""
    synapses: Dense | Conv2d = Dense(weight)
    if weight.ndim == 4:
        synapses = Conv2d(weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
    return one_layer(synapses, spike_input(*source), lif(decay=2000), number_format=form)


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_pair_of_numbers_of_channels(channels: int) -> None:
    """With all weights in turn and all rates, in the formats of all targets."""
    rng = np.random.default_rng(channels)
    turn = itertools.cycle(WEIGHTS)
    fires = 0
    for targets, form in itertools.product(CHANNELS, SHIPPED):
        limits = form.weight_min, form.weight_max, form.weight_step
        weight = weights_of(next(turn), (targets, channels, 3, 3), limits, rng)
        rates = np.reshape(rng.permutation(RATES), (-1, 1, 1, 1))
        spikes = rng.random((3, len(RATES), channels, 2, 3)) < rates
        case = tuned(fed_with_spikes(layer(weight, channels, 2, 3, form=form), spikes), 0.3)
        fires += fires_sometimes(agreed(case, batch=2))
    assert fires > len(CHANNELS)  # of twice as many nets, in which all weights may be negative


FAN_IN = 100_000


@pytest.mark.parametrize("kind", ["lowest", "highest", "alternating", "random", "16 bits"])
@pytest.mark.parametrize("shape", [(3, FAN_IN), (65, FAN_IN), (3, FAN_IN, 1, 1)])
def test_fan_in_of_a_hundred_thousand(shape: tuple[int, ...], kind: str) -> None:
    """Sums of up to 12.8 million; the two of 16 bits are those of random, and all largest, ones."""
    rng = np.random.default_rng(0)
    weight = weights_of(kind, shape, (GENERIC.weight_min, GENERIC.weight_max, 1), rng)
    if kind == "16 bits":
        weight[0] = GENERIC.weight_max
    source = (FAN_IN, 1, 2) if len(shape) == 4 else (FAN_IN,)
    rates = np.reshape([1.0, 0.5, 0.0, 0.01], (-1, *([1] * len(source))))
    spikes = rng.random((1, 4, *source)) < rates
    trace = agreed(fed_with_spikes(layer(weight.astype(np.int16), *source), spikes))
    sums = (weight.reshape(len(weight), FAN_IN).sum(axis=1) << 6).tolist()
    wrapped = [total - (1 << 32) * (total >= 1 << 31) for total in sums]  # once
    found = trace.current["p"][0, 0].reshape(len(weight), -1)
    assert found.T.tolist() == [wrapped] * found.shape[1]
