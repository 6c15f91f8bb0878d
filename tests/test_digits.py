"""The whole chain on real digits: a small network is trained, frozen, quantized and simulated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.freezing import FreezeProof, freeze, prove_freeze
from snn_deploy.graph import Graph
from snn_deploy.nn.checkpoint import load
from snn_deploy.nn.models import SpikingNet
from snn_deploy.nn.recipe import parse_recipe
from snn_deploy.nn.trainer import TrainingResult, train
from snn_deploy.packets import Recording, read_recording
from snn_deploy.parity import compare_engines
from snn_deploy.quantization import prove_ranges, quantize
from snn_deploy.sim import simulate
from tests.helpers.spiking import BATCHNORM, FLATTEN, LIF, avgpool, conv, linear

RECIPE = {
    "data": {"name": "digits"},
    "model": {
        "timesteps": 4,
        "input": {"kind": "constant", "shape": [1, 8, 8], "high": 16, "std": [16.0]},
        "layers": [
            conv(16, padding=1),
            BATCHNORM,
            LIF,
            conv(16, padding=1),
            BATCHNORM,
            LIF,
            avgpool(),
            conv(32, padding=1),
            BATCHNORM,
            LIF,
            avgpool(),
            FLATTEN,
            linear(10),
        ],
    },
    "training": {"epochs": 8, "batch": 32, "learning_rate": 0.05},
}


@dataclass(frozen=True)
class Trained:
    """The trained network, what training says of it, and its test split."""

    result: TrainingResult
    net: SpikingNet
    graph: Graph
    proof: FreezeProof
    recording: Recording
    labels: np.ndarray


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder: Path = tmp_path_factory.mktemp("digits")
    result = train(parse_recipe(RECIPE, "a test"), folder / "net.pt")
    recording = read_recording(result.recording)
    assert recording.labels is not None
    net = load(result.checkpoint)
    return Trained(
        result, net, freeze(net), prove_freeze(net, recording), recording, recording.labels
    )


def accuracy(decisions: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float((decisions == labels).mean())


def test_the_network_has_learned(trained: Trained) -> None:
    assert len(trained.labels) == 500
    assert trained.result.test_accuracy > 90


def test_the_frozen_graph_is_the_network(trained: Trained) -> None:
    proof = trained.proof
    assert proof.holds
    assert (proof.violations, proof.readout_violations) == (0, 0)
    assert proof.slots == 500 * 4 * (2 * 16 * 64 + 32 * 16)
    assert sum(proof.flips.values()) == proof.ties + proof.downstream
    assert proof.ties < 1e-5 * proof.slots
    found = accuracy(proof.decisions, trained.labels)
    assert found == pytest.approx(trained.result.test_accuracy, rel=1e-12)
    frozen = simulate(trained.graph, trained.recording, engine="reference")
    assert (frozen.decisions() != proof.decisions).sum() == proof.decisions_changed
    assert proof.decisions_changed <= proof.ties + proof.downstream


@pytest.mark.parametrize("chip", ["loihi2", "generic"])
def test_the_engines_agree_on_every_bit_and_the_integers_decide_as_well(
    trained: Trained, chip: str
) -> None:
    integer = quantize(trained.graph, chip)
    form = integer.number_format
    assert form is not None
    assert max(found.bits for found in prove_ranges(integer).values()) <= form.membrane_bits
    differences, decisions = compare_engines(integer, trained.recording)
    assert differences == 0
    drop = trained.result.test_accuracy - accuracy(decisions, trained.labels)
    assert drop <= 0.5 + 1e-9
