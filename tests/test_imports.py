"""Imports go from the command line down to the errors, never back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from snn_deploy.toml import tomllib

# The order of docs/design.md. Parts of one rank do not import each other.
RANKS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("scale", "reporting", "parity"),
    ("energy_model", "inspection", "diffing", "checking"),
    ("counting",),
    ("artefacts",),
    ("exporters",),
    ("mapping",),
    ("quantization",),
    ("freezing",),
    ("nn",),
    ("sim",),
    ("packet_files", "journal", "events"),
    ("packets", "hardware", "hdf5"),
    ("hdf5_child", "packet_layout", "profile_tables"),
    ("checks", "biases"),
    ("graph",),
    ("synapses",),
    ("numerics", "toml_tables"),
    ("errors", "toml", "profile_rows"),
    ("hw_profiles",),
)
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
TORCH = (
    "nn",
    "freezing",
    "quantization",
    "sim.dense",
    "sim.dense_blocks",
    "sim.dense_neurons",
    "sim.dense_sums",
)
ROOT = Path(__file__).resolve().parents[1]


def modules() -> dict[str, Path]:
    """All modules of the package by dotted name, without ``snn_deploy``; it itself is exempt."""
    folders = {"": ROOT / "snn_deploy", "exporters": ROOT / "exporters"}
    folders["hw_profiles"] = ROOT / "hw_profiles"
    found = {}
    for prefix, folder in folders.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join(p for p in (prefix, *parts) if p and p != "__init__")
            if name:
                found[name] = path
    return found


MODULES = modules()
PARTS = {name.partition(".")[0] for name in MODULES} | RANK.keys()


def imported(name: str, path: Path) -> Iterator[str]:
    """Absolute names of what a module imports, wherever in it the import stands."""
    package = ["snn_deploy", *name.split(".")]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_imported(name: str, path: Path) -> set[str]:
    """Parts of the package that a module imports; "" for a name of its public interface."""
    found = set()
    for target in imported(name, path):
        head, _, rest = target.partition(".")
        if head == "snn_deploy" and not rest.startswith("__"):
            part = rest.partition(".")[0]
            found.add(part if part in PARTS else "")
    return found


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    part = name.partition(".")[0]
    assert part in RANK, f"{part} has no place in the order of docs/design.md"
    for target in parts_imported(name, MODULES[name]) - {part}:
        if not target:
            assert part in ("cli", "__main__"), f"{name} imports the public interface"
            continue
        assert target in RANK, f"{target} has no place in the order of docs/design.md"
        assert RANK[target] > RANK[part], f"{name} imports {target}, which comes before it"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_torch_stays_on_the_training_side(name: str) -> None:
    heads = {target.partition(".")[0] for target in imported(name, MODULES[name])}
    if "torch" in heads or "torchvision" in heads:
        assert any(name == part or name.startswith(f"{part}.") for part in TORCH)


def test_the_scan_sees_every_kind_of_import(tmp_path: Path) -> None:
    path = tmp_path / "event.py"
    path.write_text(
        "import snn_deploy.graph as g\n"
        "from . import kernels\n"
        "from .. import cli\n"
        "from ..nn.models import net\n"
        "def f():\n"
        "    from snn_deploy import checks, simulate\n"
        "    import torch.nn\n"
    )
    assert set(imported("sim.event", path)) == {
        "snn_deploy.graph",
        "snn_deploy.sim.kernels",
        "snn_deploy.cli",
        "snn_deploy.nn.models.net",
        "snn_deploy.checks",
        "snn_deploy.simulate",
        "torch.nn",
    }
    found = parts_imported("sim.event", path)
    assert found == {"graph", "sim", "cli", "nn", "checks", ""}


@pytest.mark.parametrize("module", ["sim", "sim.event", "artefacts"])
def test_simulating_does_not_load_torch(module: str) -> None:
    if find_spec(f"snn_deploy.{module}") is None:
        pytest.skip(f"there is no {module}")
    code = f"import sys, snn_deploy.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_every_package_is_in_the_wheel() -> None:
    """Folders of the package and of those mapped into it are named in pyproject.toml."""
    root = Path(__file__).parents[1]
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = set()
    for top, name in (("snn_deploy", "snn_deploy"), ("exporters", "snn_deploy.exporters"),
                      ("hw_profiles", "snn_deploy.hw_profiles")):  # fmt: skip
        for module in (root / top).rglob("__init__.py"):
            inner = module.parent.relative_to(root / top).parts
            found.add(".".join((name, *inner)))
    assert found <= set(listed), found - set(listed)
