"""Everything a user can get wrong: one message, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snn_deploy.cli import run
from tests.cli.workspace import SCRIPT, contents, make_workspace, recipe, snn_deploy

# By the second digit of the code, as docs/design.md has it.
EXITS = {"1": 2, "2": 3, "3": 1, "4": 4, "5": 5}
USAGE = "usage"
COMPILING = re.compile(r"compiling kernels, once on this machine \.\.\.|kernels compiled in \S+ s")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    make_workspace(folder)
    return folder


CASES = {
    # train
    "train none.toml -o new.pt": "SD101",
    "train build -o new.pt": "SD101",
    "train broken.toml -o new.pt": "SD104",
    "train spam.toml -o new.pt": "SD104",
    "train features.toml -o new.pt": "SD104",
    "train milestones.toml -o new.pt": "SD104",
    "train stages.toml -o new.pt": "SD104",
    "train mnist.toml -o new.pt": "SD101",
    "train initial.toml -o new.pt": "SD101",
    "train other.toml -o new.pt": "SD104",
    "train images.npz -o new.pt": "SD104",
    "train recipe.toml -o /proc/nothing/new.pt": "SD102",
    "train recipe.toml -o none/new.pt": "SD102",
    "train recipe.toml -o file.txt/new.pt": "SD102",
    "train recipe.toml -o build": "SD102",
    "train recipe.toml -o .": "SD102",
    "train recipe.toml -o digits-test.npz": "SD102",
    "train recipe.toml -o blocked.pt": "SD102",
    "train recipe.toml -o new.pt --plot none/plot.svg": "SD102",
    "train recipe.toml -o new.pt --plot build": "SD102",
    "train recipe.toml -o new.pt --plot new.pt": "SD102",
    "train recipe.toml -o new.pt --plot": USAGE,
    "train recipe.toml -o stale.pt": "SD401",
    "train recipe.toml": USAGE,
    "train -o new.pt": USAGE,
    "train recipe.toml -o new.pt --spam": USAGE,
    # export
    "export none.pt --target loihi2 -o new": "SD101",
    "export build --target loihi2 -o new": "SD104",
    "export cut.pt --target loihi2 -o new": "SD401",
    "export text.pt --target loihi2 -o new": "SD401",
    "export state.pt --target loihi2 -o new": "SD401",
    "export images.npz --target loihi2 -o new": "SD105",
    "export code.pt --target loihi2 -o new": "SD402",
    "export pickle.pt --target loihi2 -o new": "SD402",
    "export nan.pt --target loihi2 -o new": "SD403",
    "export huge.pt --target loihi2 -o new": "SD203",
    "export model.pt --target spam -o new": "SD105",
    "export model.pt --target cmos45 -o new": "SD201",
    "export model.pt --target none.toml -o new": "SD101",
    "export model.pt --target broken.toml -o new": "SD104",
    "export model.pt --target loihi2 -o /proc/nothing/new": "SD102",
    "export model.pt --target loihi2 -o none/new": "SD102",
    "export model.pt --target loihi2 -o file.txt": "SD102",
    "export model.pt --target loihi2 -o file.txt/new": "SD102",
    "export model.pt --target loihi2": USAGE,
    "export model.pt -o new": USAGE,
    "export --target loihi2 -o new": USAGE,
    "export model.pt --target loihi2 -o new --spam": USAGE,
    # sim
    "sim none --input images.npz": "SD101",
    "sim none.nir --input images.npz": "SD101",
    "sim empty --input images.npz": "SD404",
    "sim spoilt --input images.npz": "SD404",
    "sim file.txt --input images.npz": "SD105",
    "sim cut.nir --input images.npz": "SD401",
    "sim build --input none.npz": "SD101",
    "sim build --input build": "SD101",
    "sim build --input cut.npz": "SD401",
    "sim build --input text.npz": "SD401",
    "sim build --input model.pt": "SD401",
    "sim build --input code.npz": "SD402",
    "sim build --input nan.npz": "SD403",
    "sim build --input large.npz": "SD106",
    "sim build --input shape.npz": "SD103",
    "sim build --input spikes.npz": "SD103",
    "sim build --input labels.npz": "SD103",
    "sim build --input nothing.npz": "SD103",
    "sim build --input images.npz --trace /proc/nothing/t.npz": "SD102",
    "sim build --input images.npz --trace none/t.npz": "SD102",
    "sim build --input images.npz --trace empty": "SD102",
    "sim build --input images.npz --trace t.npz --output file.txt/p.csv": "SD102",
    "sim build --input packed.npz": "SD103",
    "sim build --input images.npz --output none/p.csv": "SD102",
    "sim build --input images.npz --resume": "SD104",
    "sim build --input images.npz --output stale.csv": "SD104",
    "sim build --input images.npz --output stale.csv --resume": "SD401",
    "sim build --input images.npz --output empty --resume": "SD102",
    "sim build --input images.npz --engine spam": USAGE,
    "sim build --input images.npz --threads 0": USAGE,
    "sim build --input images.npz --batch 0": USAGE,
    "sim build": USAGE,
    "sim --input images.npz": USAGE,
    "sim build --input images.npz --spam": USAGE,
    # energy
    "energy none --input images.npz --profile cmos45": "SD101",
    "energy spoilt --input images.npz --profile cmos45": "SD404",
    "energy build --input none.npz --profile cmos45": "SD101",
    "energy build --input cut.npz --profile cmos45": "SD401",
    "energy build --input shape.npz --profile cmos45": "SD103",
    "energy build --input nan.npz --profile cmos45": "SD403",
    "energy build --input large.npz --profile cmos45": "SD106",
    "energy build --input images.npz --profile spam": "SD105",
    "energy build --input images.npz --profile cmos45 --host-profile spam": "SD105",
    "energy build --input images.npz --profile loihi2 --proxy spam": "SD105",
    "energy build --input images.npz --profile broken.toml": "SD104",
    "energy build --input images.npz --profile none.toml": "SD101",
    "energy build --input images.npz --profile cmos45 --proxy cmos45": "SD104",
    "energy build --input images.npz --profile loihi2 --proxy generic": "SD206",
    "energy build --input images.npz --profile cmos45 --host-profile loihi2": "SD206",
    "energy build --input images.npz --profile cmos45 --first-layer spam": USAGE,
    "energy build --input images.npz": USAGE,
    "energy build --profile cmos45": USAGE,
    # verify
    "verify none": "SD101",
    "verify empty": "SD404",
    "verify spoilt": "SD404",
    "verify build/model.nir": "SD104",
    "verify build --model model.pt": "SD104",
    "verify build --input images.npz": "SD104",
    "verify build --max-accuracy-drop 1": "SD104",
    "verify build --model none.pt --input images.npz": "SD101",
    "verify build --model other.pt --input images.npz": "SD404",
    "verify build --model cut.pt --input images.npz": "SD404",
    "verify build --model model.pt --input none.npz": "SD101",
    "verify build --model model.pt --input cut.npz": "SD401",
    "verify build --model model.pt --input shape.npz": "SD103",
    "verify build --model model.pt --input nan.npz": "SD403",
    "verify build --model model.pt --input large.npz": "SD106",
    "verify build --model model.pt --input plain.npz --max-accuracy-drop 1": "SD103",
    "verify build --model model.pt --input images.npz --max-accuracy-drop 101": USAGE,
    "verify build --model model.pt --input images.npz --max-accuracy-drop spam": USAGE,
    "verify build --model model.pt --input images.npz --max-accuracy-drop nan": "SD104",
    "verify": USAGE,
    # targets, and no verb at all
    "targets spam": "SD105",
    "targets none.toml": "SD101",
    "targets loihi2 cut.toml --json": "SD101",
    "targets --spam": USAGE,
    "spam": USAGE,
    "--spam": USAGE,
}


def check(code: str, exit_code: int, out: str, err: str) -> None:
    assert out == ""
    assert "Traceback" not in err
    ours = [line for line in err.splitlines() if line.startswith("error[")]
    clicks = [line for line in err.splitlines() if line.startswith("Error:")]
    if code == USAGE:
        assert (exit_code, len(ours), len(clicks)) == (2, 0, 1)
    else:
        assert [line[6:11] for line in ours] == [code]
        assert (exit_code, clicks) == (EXITS[code[2]], [])


@pytest.mark.parametrize("command", CASES)
def test_one_message_and_nothing_left_behind(
    command: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workspace)
    before = contents(workspace)
    exit_code = run(command.split())
    check(CASES[command], exit_code, *capsys.readouterr())
    assert contents(workspace) == before


def test_a_wrong_recipe_is_named_with_its_line(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    for name, key in (("milestones", "noise"), ("stages", "{ epoch = 1"), ("spam", "name")):
        lines = Path(f"{name}.toml").read_text().splitlines()
        (number,) = (n for n, line in enumerate(lines, 1) if line.strip().startswith(key))
        assert run(["train", f"{name}.toml", "-o", "new.pt"]) == 2
        assert f"  --> {name}.toml:{number}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "train none.toml -o new.pt",
        "export code.pt --target loihi2 -o new",
        "export model.pt --target cmos45 -o new",
        "sim build --input code.npz",
        "energy build --input images.npz --profile spam",
        "verify spoilt",
        "targets --spam",
    ],
)
def test_as_installed(command: str, workspace: Path) -> None:
    before = contents(workspace)
    done = snn_deploy(*command.split(), cwd=workspace)
    check(CASES[command], done.returncode, done.stdout, done.stderr)
    assert contents(workspace) == before


def test_traceback_on_request(workspace: Path) -> None:
    done = snn_deploy("--debug", "verify", "none", cwd=workspace)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "error[SD101]" in done.stderr


def test_failed_gate_comes_with_its_report(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    command = "verify build --model model.pt --input images.npz --max-accuracy-drop -100"
    assert run(command.split()) == 1
    out, err = capsys.readouterr()
    assert out.rstrip().endswith("FAILED")
    assert err.startswith("error[SD301]: accuracy dropped by")


# --- full disks, closed pipes, Ctrl-C -------------------------------------------------------------


def small_files_only() -> None:
    """No file may grow beyond 2 kB: a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.parametrize(
    "command",
    [
        "sim build --input images.npz --trace plain.npz",
        "export model.pt --target generic -o build",
        "export model.pt --target generic -o new",
    ],
)
def test_full_disk_leaves_what_was_there(command: str, workspace: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(workspace, tmp_path / "workspace"))
    done = snn_deploy(*command.split(), cwd=copy, preexec_fn=small_files_only)
    check("SD102", done.returncode, done.stdout, done.stderr)
    assert contents(copy) == contents(workspace)


def said(err: str) -> list[str]:
    """What is on stderr, but for the word that kernels are compiled on a machine new to them."""
    return [line for line in err.splitlines() if not COMPILING.fullmatch(line)]


def test_reader_that_has_gone(workspace: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [str(SCRIPT), "energy", "build", "--input", "images.npz", "--profile", "cmos45"]
    done = subprocess.run(
        command, cwd=workspace, stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(writer)
    assert (done.returncode, said(done.stderr.decode())) == (0, [])


def test_interrupted_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(recipe(epochs=20))
    arguments = ["train", "recipe.toml", "-o", "model.pt"]
    training = subprocess.Popen(
        [str(SCRIPT), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert training.stderr is not None
    while not training.stderr.readline().startswith("epoch   1/"):
        assert training.poll() is None
    training.send_signal(signal.SIGINT)
    out, err = training.communicate(timeout=60)
    assert (training.returncode, out) == (130, "")
    assert err.rstrip().endswith("interrupted")
    assert "Traceback" not in err
    left = {"recipe.toml", "model.pt.partial", "model.pt.metrics.jsonl"}
    assert contents(tmp_path).keys() == left

    done = snn_deploy(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "(resumed after epoch " in done.stdout
    assert "epoch   1/" not in done.stderr
    assert "epoch  20/20" in done.stderr
    written = {"recipe.toml", "model.pt", "model.pt.metrics.jsonl", "digits-test.npz"}
    assert contents(tmp_path).keys() == written


# --- without packages -----------------------------------------------------------------------------

WITHOUT = """
import sys
missing = set(sys.argv[1].split(","))
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from snn_deploy.cli import run
code = run(sys.argv[2].split())
assert not missing & sys.modules.keys()
sys.exit(code)
"""


def without(missing: str, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "sim build --input images.npz",
        "energy build --input images.npz --profile cmos45",
        "verify build",
    ],
)
def test_an_exported_network_runs_without_torch(command: str, workspace: Path) -> None:
    done = without("torch,sklearn", command, workspace)
    assert (done.returncode, said(done.stderr)) == (0, [])
    assert done.stdout


@pytest.mark.parametrize("command", ["--help", "--version", "sim --help", "train --help"])
def test_help_loads_nothing_heavy(command: str, workspace: Path) -> None:
    done = without("torch,sklearn,numba,rich,h5py,nir", command, workspace)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("torch", "train recipe.toml -o new.pt"),
        ("sklearn", "train recipe.toml -o new.pt"),
        ("matplotlib", "train recipe.toml -o new.pt --plot plot.svg"),
        ("torch", "export model.pt --target loihi2 -o new"),
        ("torch", "verify build --model model.pt --input images.npz"),
    ],
)
def test_missing_package_is_named(missing: str, command: str, workspace: Path) -> None:
    before = contents(workspace)
    done = without(missing, command, workspace)
    check("SD107", done.returncode, done.stdout, done.stderr)
    assert "pip install" in done.stderr
    assert contents(workspace) == before
