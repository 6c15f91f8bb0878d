"""Both engines equal Intel's Lava at every step; see make_lava_goldens.py for the recordings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snn_deploy.checks import check_integer
from snn_deploy.graph import Graph, Population, Projection
from snn_deploy.packets import Recording, read_npz
from snn_deploy.sim import EngineName, simulate
from snn_deploy.synapses import Conv2d, Dense, Synapses
from tests.helpers.graphs import LOIHI2
from tests.helpers.nets import lif, spike_input


def _synapses(lava: dict[str, NDArray[Any]], layer: int) -> Synapses:
    weight = lava[f"weight_{layer}"]
    if lava[f"kind_{layer}"] == "dense":
        return Dense(weight)
    stride, padding = (lava[f"{key}_{layer}"].tolist() for key in ("stride", "padding"))
    return Conv2d(weight, stride=tuple(stride), padding=tuple(padding))


def _network(lava: dict[str, NDArray[Any]], layers: int) -> Graph:
    populations = []
    for layer in range(layers):
        shape = lava[f"s_{layer}"].shape[1:]
        neurons = lif(
            decay=4096 - lava[f"v_decay_{layer}"],
            threshold=lava[f"threshold_{layer}"],
            bias=lava[f"bias_{layer}"].reshape(-1, *([1] * (len(shape) - 1))),
        )
        populations.append(Population(name=str(layer), shape=shape, neurons=neurons, scale=1.0))
    names = ["in", *(p.name for p in populations)]
    return Graph(
        inputs=(spike_input(*lava["input"].shape[1:]),),
        populations=tuple(populations),
        projections=tuple(
            Projection(source=source, target=target, synapses=_synapses(lava, layer))
            for layer, (source, target) in enumerate(pairwise(names))
        ),
        outputs=(names[-1],),
        number_format=LOIHI2,
    )


@pytest.mark.parametrize("engine", ["reference", "event"])
@pytest.mark.parametrize(("name", "layers"), [("lava_dense", 2), ("lava_conv", 3)])
def test_equals_lava(name: str, layers: int, engine: EngineName) -> None:
    lava = read_npz(Path(__file__).with_name(f"{name}.npz"))
    graph = _network(lava, layers)
    check_integer(graph)
    recording = Recording(spikes={"": lava["input"]})
    trace = simulate(graph, recording, engine=engine, timing="pipelined", trace=True)
    for layer in range(layers):
        for key, found in (("s", trace.spikes), ("u", trace.current), ("v", trace.membrane)):
            expected = lava[f"{key}_{layer}"]
            np.testing.assert_array_equal(found[str(layer)][0], expected, f"{key}_{layer}")
