"""``snn-deploy check``: rules with codes, both numbers, the exit code; and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from snn_deploy import check, save
from snn_deploy.checking import Broken
from snn_deploy.cli import run
from snn_deploy.reporting import plain
from tests.cli.workspace import Code, contents
from tests.helpers.deploy import make_files, small_net

CHIP = """
[chip]
id = "small"
name = "small"
vendor = "none"
summary = "a few neurons a core"

[limits.neurons_per_core]
value = 20
kind = "wall"
source = "made up"
evidence = "vendor"

[limits.cores_per_chip]
value = 3
kind = "wall"
source = "made up"
evidence = "vendor"

[limits.chips]
value = 2
kind = "{kind}"
source = "the board's manual"
evidence = "vendor"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.pt`` is conv 4x6x6, pool, conv 5x2x2, linear 3; ``build`` is its export."""
    folder = tmp_path_factory.mktemp("check")
    make_files(folder)
    (folder / "wall.toml").write_text(CHIP.format(kind="wall"))
    (folder / "budget.toml").write_text(CHIP.format(kind="budget"))
    whole = (folder / "model.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"format": "snn-deploy checkpoint 1", "state": Code()}, folder / "code.pt")
    net = small_net()
    with torch.no_grad():
        net.get_parameter("layers.1.module.bias")[0] = 1e9
    save(net, folder / "huge.pt")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def said(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(command.split())
    out, err = capsys.readouterr()
    return code, out, err


def test_a_network_that_fits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(here)
    code, out, err = said("check model.pt --target generic", capsys)
    assert (code, err) == (0, "")
    assert "no rule is broken" in out
    assert "what a core of generic holds is not known: nothing was placed" in out
    assert contents(here) == before


def test_a_rule_of_the_number_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three timesteps, and Loihi resets every power of two."""
    before = contents(here)
    for what in ("model.pt", "build", "build/model.nir"):
        code, out, _ = said(f"check {what} --target loihi2", capsys)
        assert code == 3
        assert "DR10 timesteps: windows of 3 timesteps" in out
        assert "train with 4 timesteps" in out
        assert "1 core on 1 chip" in out
        assert "broken in 1 place" in out
    assert contents(here) == before


def test_a_wall_has_both_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """167 neurons at 20 a core are 9 cores, 3 chips of 3."""
    code, out, _ = said("check model.pt --target wall.toml", capsys)
    assert code == 3
    assert "DR22 network: it needs 3 chips (9 cores), there are 2 (wall)" in out
    assert "why: chips: the board's manual" in out
    assert "Placement" not in out
    code, out, _ = said("check model.pt --target wall.toml --json", capsys)
    assert code == 3
    found = json.loads(out)
    (broken,) = found["broken"]
    assert (found["passed"], found["network"], found["placed"]) == (False, "float", None)
    assert [broken[k] for k in ("code", "kind", "limit", "needed", "most")] == [
        "DR22", "wall", "chips", 3, 2,
    ]  # fmt: skip


def test_a_budget_passes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said("check model.pt --target budget.toml", capsys)
    assert code == 0
    assert "it needs 3 chips (9 cores), there are 2 (budget)" in out
    assert "9 cores on 3 chips" in out
    assert "no rule is broken" in out


def test_as_json_says_what_the_library_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said("check build --target loihi1-sanafe --json", capsys)
    result = check("build", "loihi1-sanafe")
    found = json.loads(out)
    assert (code, found.pop("passed")) == (0, True)
    assert found == json.loads(json.dumps(plain(result)))
    assert result.network == "integer"
    assert result.placed is not None
    assert [(p.neurons, p.cores) for p in result.placed.populations] == [(144, 1), (20, 1), (3, 1)]
    resource = {r.name: r for r in result.placed.resources}["neurons_per_core"]
    assert (resource.capacity, resource.mean, resource.least_cores) == (1024, 167 / 1024, 1)


def test_what_cannot_be_quantized_is_a_broken_rule(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said("check huge.pt --target loihi2", capsys)
    assert code == 3
    assert "SD203" in out or "SD202" in out
    (broken, *_) = check("huge.pt", "loihi2").broken
    assert isinstance(broken, Broken)
    assert broken.code in ("SD202", "SD203")
    assert broken.fix


REFUSALS: dict[str, tuple[int, str]] = {
    "check none.pt --target loihi2": (2, "SD101"),
    "check none --target loihi2": (2, "SD101"),
    "check cut.pt --target loihi2": (4, "SD401"),
    "check code.pt --target loihi2": (4, "SD402"),
    "check model.pt --target spam": (2, "SD105"),
    "check model.pt --target cmos45": (3, "SD209"),
    "check build --target loihi2 --model some.module:function": (2, "SD104"),
    "check wall.toml --target loihi2": (2, "SD105"),
}


@pytest.mark.parametrize("command", REFUSALS)
def test_refusals(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(here)
    code, out, err = said(command, capsys)
    assert (code, out) == (REFUSALS[command][0], "")
    assert err.startswith(f"error[{REFUSALS[command][1]}]: ")
    assert "Traceback" not in err
    assert contents(here) == before


def test_usage(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said("check model.pt", capsys)[0] == 2
    assert said("check", capsys)[0] == 2


def test_what_was_looked_at(here: Path) -> None:
    """Rules of limits that a profile leaves unset were not looked at."""
    rules: dict[str, Any] = check("model.pt", "wall.toml").rules
    assert list(rules) == ["DR21", "DR22"]
    assert {"DR01", "DR10", "DR21"} <= check("model.pt", "loihi2").rules.keys()
