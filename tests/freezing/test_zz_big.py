"""Random user modules: their graphs spike as they do, and run alike in both engines."""

from __future__ import annotations

import copy

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import prove_freeze
from snn_deploy.freezing.lowering import lower
from snn_deploy.freezing.module_run import run_module
from snn_deploy.graph import LIF, InputSpec
from snn_deploy.quantization import quantize
from snn_deploy.sim import simulate
from tests.freezing.generated import user_modules
from tests.freezing.modules import example, recorded

NEAR = 1e-9  # far above the rounding of float64, far below any difference that means something

Drawn = tuple[nn.Module, InputSpec, int]


@given(drawn=user_modules(), seed=st.integers(0, 2**16))
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
def test_the_graph_of_a_users_module_spikes_as_it_does(drawn: Drawn, seed: int) -> None:
    model, spec, steps = drawn
    lowered = lower(model, spec, timesteps=steps)
    graph = lowered.graph
    values = example(spec, 4, steps, np.random.default_rng(seed))
    spikes, readout = run_module(copy.deepcopy(model).double(), lowered, values)
    recording = recorded(spec, values)
    trace = simulate(graph, recording, engine="reference", trace=True)
    assert spikes.keys() == trace.spikes.keys()
    order = [name for group in graph.order for name in group]
    flipped = [
        name for name in order if name in spikes and (spikes[name] != trace.spikes[name]).any()
    ]
    if flipped:  # nothing but a tie may begin it
        neurons = graph.population(flipped[0]).neurons
        assert isinstance(neurons, LIF)
        after = trace.membrane[flipped[0]]
        before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
        membrane = before * neurons.decay + trace.current[flipped[0]] + neurons.bias
        differ = spikes[flipped[0]] != trace.spikes[flipped[0]]
        assert np.abs(membrane - neurons.threshold)[differ].min() < NEAR
    else:
        out = trace.output[graph.outputs[0]].reshape(readout.shape) * lowered.factor
        assert np.allclose(out, readout, rtol=NEAR, atol=NEAR)
    proof = prove_freeze(model, recording, spec, timesteps=steps)
    assert proof.holds
    assert sum(proof.flips.values()) == proof.ties + proof.downstream


@given(drawn=user_modules(), seed=st.integers(0, 2**16))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_quantized_it_runs_alike_in_both_engines(drawn: Drawn, seed: int) -> None:
    model, spec, steps = drawn
    values = example(spec, 4, steps, np.random.default_rng(seed))
    try:
        integer = quantize(lower(model, spec, timesteps=steps).graph, "generic")
    except SnnDeployError as error:
        assert error.code == "SD203"  # noqa: PT017
        return
    one, other = (
        simulate(integer, recorded(spec, values), engine=engine, trace=True)
        for engine in ("reference", "event")
    )
    for kind in ("spikes", "membrane", "current", "output"):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
