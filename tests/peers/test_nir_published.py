"""The graphs of the NIR paper (neuromorphs/NIR, folder paper), with the figures that it gives.

The input of its task 01 is in paper/01_lif/lif_norse.ipynb, the spikes of every platform in the
files lif_*.csv beside it. Of task 03 (Braille letters) we have the training and validation samples.
"""

from __future__ import annotations

import numpy as np
import pytest
from snn_deploy.exporters import Opened, ReadOptions, exporter

from snn_deploy import simulate
from snn_deploy.packets import Recording
from tests.helpers.strangers import data

# Timesteps of 0.1 ms at which a spike arrives, divided by ten, of 100.
ARRIVALS = [6, 22, 27, 31, 32, 35, 37, 40, 41, *range(43, 54), *range(67, 79), 84, 85]


def opened(name: str, options: ReadOptions) -> Opened:
    return exporter("nir").open(data(f"models/{name}.nir"), options)


@pytest.mark.parametrize(
    ("name", "dialect", "expected"),
    [
        # exact solution, Norse, snnTorch, Nengo, SpiNNaker 2
        ("nir_lif_norse", "euler", [460, 510, 710, 760]),
        # rockpool, sinabs
        ("nir_lif_rockpool", "rockpool", [450, 500, 710, 760]),
    ],
)
def test_one_neuron(name: str, dialect: str, expected: list[int]) -> None:
    graph = opened(name, ReadOptions(dialect=dialect, dt=1e-4)).graph
    spikes = np.zeros((1, 1000, 1), np.uint8)
    spikes[0, 10 * np.array(ARRIVALS)] = 1
    trace = simulate(graph, Recording(spikes={"": spikes}), engine="reference", trace=True)
    (found,) = trace.spikes.values()
    assert np.flatnonzero(found).tolist() == expected


@pytest.mark.parametrize("form", ["", "_subgraph"])
def test_braille_letters(form: str) -> None:
    """1,116 of 1,158; the recurrent bias acts from the first timestep on, as in snnTorch.

    The file with a subgraph names a node in its edges that it lacks, which the reader says.
    """
    file = opened(
        f"nir_braille_noDelay_bias_zero{form}", ReadOptions(dialect="snntorch", reset="zero")
    )
    assert any("'lif', which is no node" in note for note in file.notes) == bool(form)
    with np.load(data("braille/braille7_th1_or.npz")) as kept:
        spikes, labels = kept["spikes"], kept["label"]
    assert len(labels) == 1158
    trace = simulate(file.graph, Recording(spikes={"": spikes}), engine="reference")
    assert int((trace.decisions() == labels).sum()) == 1116
