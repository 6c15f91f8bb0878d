"""Every network of the zoo is frozen and spikes as it does: narrower, and in full by `make slow`.

Batch statistics are those of a few passes in training mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snn_deploy.freezing import freeze, prove_freeze
from snn_deploy.nn.architecture import Architecture, parse
from snn_deploy.nn.zoo import ZOO
from snn_deploy.quantization import quantize
from snn_deploy.sim import simulate
from tests.helpers.spiking import random_input, settled
from tests.nn.test_zoo import INPUTS

NARROWER = 16


def narrowed(layers: list[dict[str, Any]], by: int) -> list[dict[str, Any]]:
    """Layers with fewer channels and features; the kernels, ways and pools stay."""
    found = []
    for layer in layers:
        layer = dict(layer)
        for key in ("channels", "features"):
            if key in layer:
                layer[key] = max(layer[key] // by, 4)
        for key in ("layers", "shortcut"):
            if key in layer:
                layer[key] = narrowed(layer[key], by)
        found.append(layer)
    return found


def described(name: str, by: int, timesteps: int) -> Architecture:
    shape, kind, _ = INPUTS[name]
    decays = {"decay": 0.9, "current_decay": 0.8} if name == "medlydb" else {}
    data = {
        "timesteps": timesteps,
        "input": {"kind": kind, "shape": list(shape), "mean": [0.45], "std": [0.25]},
        "lif": decays,
        "layers": narrowed(ZOO[name](), by),
    }
    return parse(data, "a test")


def prove(name: str, by: int, timesteps: int, samples: int) -> None:
    architecture = described(name, by, timesteps)
    net = settled(architecture, 1, passes=2)
    recording = random_input(architecture, np.random.default_rng(1), samples)
    proof = prove_freeze(net, recording)
    assert proof.holds
    assert sum(proof.flips.values()) == proof.ties + proof.downstream
    graph = freeze(net)
    integer = quantize(graph, "generic")
    one, other = (
        simulate(integer, recording, engine=engine, trace=True) for engine in ("reference", "event")
    )
    for kind in ("spikes", "membrane", "current", "output"):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    assert sum(int(s.sum()) for s in one.spikes.values()) > 0


@pytest.mark.parametrize("name", ZOO)
def test_a_narrower_one_spikes_as_it_is_trained(name: str) -> None:
    prove(name, NARROWER, 2, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ZOO)
def test_the_full_one_spikes_as_it_is_trained(name: str) -> None:
    prove(name, 1, 4, 2)
