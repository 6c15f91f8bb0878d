"""Bare weights and the factory of their module, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from snn_deploy.cli import run
from snn_deploy.errors import SnnDeployError
from snn_deploy.freezing import freeze
from snn_deploy.freezing.factory import open_network
from snn_deploy.graph import LIF
from snn_deploy.nn.models import SpikingNet
from tests.helpers.spiking import every_kind

NETWORK = """
from torch import nn

from snn_deploy.graph import InputSpec
from snn_deploy.nn.neurons import LIF
from snn_deploy.nn.spikes import SurrogateGradient

THRESHOLD = 0.5


class Net(nn.Module):
    def __init__(self, hidden=8):
        super().__init__()
        self.fc = nn.Linear(6, hidden)
        self.lif = LIF(THRESHOLD, 0.5, SurrogateGradient())
        self.out = nn.Linear(hidden, 3)

    def forward(self, x):
        return self.out(self.lif(self.fc(x.transpose(0, 1)))).mean(0)


OPTIONS = {"spec": InputSpec(name="input", kind="spikes", shape=(6,)), "timesteps": 5}


def network():
    return Net(), OPTIONS


def wider():
    return Net(9), OPTIONS


def silent():
    return Net()


def misspelt():
    return Net(), {**OPTIONS, "time": 5}


def number():
    return 3


def fails():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module and weights for it."""
    (tmp_path / "usersnet.py").write_text(NETWORK)
    (tmp_path / "broken_users_net.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model, _ = open_made("usersnet:network")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    return tmp_path


def open_made(factory: str) -> tuple[torch.nn.Module, dict[str, object]]:
    from snn_deploy.freezing.factory import _made

    return _made(factory)


def test_weights_go_into_the_module_that_the_factory_makes(folder: Path) -> None:
    source = open_network("weights.pt", "usersnet:network")
    assert not source.model.training
    graph = freeze(source.model, **source.options)
    weight = torch.load("weights.pt", weights_only=True)["fc.weight"].double().numpy()
    assert np.array_equal(graph.incoming("lif")[0].synapses.weight, weight)
    assert graph.timesteps == 5


def test_a_described_network_needs_no_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "described_users_net.py").write_text(
        "from tests.helpers.spiking import every_kind as network\n"
    )
    monkeypatch.chdir(tmp_path)
    net = every_kind(3)
    torch.save(net.state_dict(), "weights.pt")
    source = open_network("weights.pt", "described_users_net:network")
    assert isinstance(source.model, SpikingNet)
    mine, theirs = freeze(net), freeze(source.model, **source.options)
    for one, other in zip(mine.projections, theirs.projections, strict=True):
        assert np.array_equal(one.synapses.weight, other.synapses.weight)


@pytest.mark.parametrize(
    ("weights", "factory", "code", "text"),
    [
        ("weights.pt", "usersnet", "SD104", "names no factory"),
        ("weights.pt", "usersnet:a b", "SD104", "names no factory"),
        ("weights.pt", "nobody_made_this:network", "SD105", "no module nobody_made_this"),
        ("weights.pt", "broken_users_net:network", "SD104", "nothing_of_this_name"),
        ("weights.pt", "usersnet:nothing", "SD105", "no function nothing"),
        ("weights.pt", "usersnet:THRESHOLD", "SD105", "functions there: fails, misspelt"),
        ("weights.pt", "usersnet:fails", "SD104", "no such luck"),
        ("weights.pt", "usersnet:number", "SD104", "returns int"),
        ("weights.pt", "usersnet:misspelt", "SD104", "does not have: time"),
        ("weights.pt", "usersnet:silent", "SD104", "InputSpec"),
        ("weights.pt", "usersnet:wider", "SD104", "size mismatch for fc.weight"),
        ("list.pt", "usersnet:network", "SD104", "no state_dict"),
        ("none.pt", "usersnet:network", "SD101", "no such file"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, weights: str, factory: str, code: str, text: str
) -> None:
    with pytest.raises(SnnDeployError, match=text) as caught:
        open_network(weights, factory)
    assert caught.value.code == code


def test_it_is_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "export weights.pt --target generic -o build --json --model usersnet:network"
    assert run(command.split()) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["configuration"]["factory"] == "usersnet:network"
    assert manifest["proof"]["freeze"]["violations"] == 0
    from snn_deploy.artefacts import open_artefact

    opened = open_artefact(folder / "build").graph
    assert isinstance(opened.population("lif").neurons, LIF)
    assert run(["export", "weights.pt", "--target", "generic", "-o", "other"]) == 4
    assert "SD401" in capsys.readouterr().err
    assert not (folder / "other").exists()
