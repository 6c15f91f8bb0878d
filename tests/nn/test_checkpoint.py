"""Checkpoints: what is read back, and the files that must not be believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_deploy.errors import Exit, SnnDeployError
from snn_deploy.nn.architecture import Architecture
from snn_deploy.nn.checkpoint import FORMAT, load, load_checkpoint, save, to_bytes
from snn_deploy.nn.models import SpikingNet
from snn_deploy.packets import Recording
from tests.helpers.spiking import (
    LIF,
    architecture,
    as_tensor,
    every_kind,
    linear,
    random_input,
    settled,
)

Content = dict[str, Any]

SMALL = architecture([linear(4), LIF, linear(3)], (5,))
WEIGHT = "layers.2.module.weight"


@pytest.fixture
def small() -> SpikingNet:
    return settled(SMALL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.pt"


def content(net: SpikingNet, **changes: Any) -> Content:
    """What ``save`` puts into a file, with entries changed."""
    described = json.dumps(net.architecture.to_data())
    return {"format": FORMAT, "architecture": described, "state": net.state_dict(), **changes}


def state_with(net: SpikingNet, change: Callable[[Tensor], Any]) -> Content:
    return content(net, state={k: change(v) for k, v in net.state_dict().items()})


def refuse(path: Path, code: str, text: str = "") -> SnnDeployError:
    """Loading must fail with this code, and say which file it was."""
    with pytest.raises(SnnDeployError) as caught:
        load_checkpoint(path)
    assert caught.value.code == code
    assert text in str(caught.value)
    assert caught.value.where == str(path)
    assert caught.value.exit == (Exit.USAGE if code.startswith("SD1") else Exit.INTEGRITY)
    return caught.value


def test_a_network_is_read_back(path: Path) -> None:
    net = every_kind()
    save(net, path)
    found = load(path)
    assert found.architecture == net.architecture
    assert not found.training
    state = net.state_dict()
    assert state.keys() == found.state_dict().keys()
    for name, value in found.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.dtype == state[name].dtype
    x = as_tensor(net.architecture, random_input(net.architecture, np.random.default_rng(0), 5))
    assert torch.equal(found(x), net(x))


def test_saving_changes_nothing_and_is_repeatable(small: SpikingNet, path: Path) -> None:
    small.train()
    save(small, path)
    first = path.read_bytes()
    save(small, path)
    assert path.read_bytes() == first
    assert small.training


def test_an_example_travels_along(small: SpikingNet, path: Path) -> None:
    values = np.arange(10, dtype=np.float32).reshape(2, 5) / 10
    save(small, path, Recording(values={"": values}, labels=np.array([2, 1])))
    example = load_checkpoint(path).example
    assert example is not None
    assert np.array_equal(example.values[""], values)
    assert example.labels is not None
    assert example.labels.tolist() == [2, 1]
    spikes = np.ones((2, 3, 5), np.uint8)
    save(small, path, Recording(spikes={"": spikes}))
    example = load_checkpoint(path).example
    assert example is not None
    assert np.array_equal(example.spikes[""], spikes)
    save(small, path)
    assert load_checkpoint(path).example is None


def test_a_failed_save_leaves_the_old_file(
    small: SpikingNet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(small, path)
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SnnDeployError) as caught:
        save(settled(SMALL, seed=1), path)
    assert caught.value.code == "SD102"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_missing(small: SpikingNet, tmp_path: Path) -> None:
    with pytest.raises(SnnDeployError) as caught:
        save(small, tmp_path / "none" / "net.pt")
    assert (caught.value.code, caught.value.exit) == ("SD102", Exit.USAGE)


def test_a_file_cut_short_anywhere(small: SpikingNet, path: Path) -> None:
    save(small, path)
    whole = path.read_bytes()
    for length in sorted({*range(0, len(whole), 97), *range(len(whole) - 40, len(whole))}):
        path.write_bytes(whole[:length])
        refuse(path, "SD401")


def test_one_flipped_bit_is_noticed(small: SpikingNet, path: Path) -> None:
    """A checkpoint with a flipped bit is refused, or (between its parts) still the same network."""
    save(small, path)
    whole = path.read_bytes()
    state = small.state_dict()
    rng = random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = load(path)
        except SnnDeployError as error:
            assert error.exit == Exit.INTEGRITY  # noqa: PT017
            continue
        assert found.architecture == small.architecture
        for name, value in found.state_dict().items():
            assert torch.equal(value, state[name])


def test_a_pickle_of_rubbish_is_refused(small: SpikingNet, path: Path) -> None:
    """Whatever stands in the pickle of an otherwise sound file, the error is one of ours."""
    with zipfile.ZipFile(io.BytesIO(to_bytes(content(small)))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [n for n in parts if n.endswith("data.pkl")]
    rng = random.Random(0)
    for _ in range(400):
        changed = bytearray(parts[name])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(changed))
            changed[at : at + 1] = rng.choice((b"", bytes([rng.randrange(256)])))
        write_zip(path, {**parts, name: bytes(changed)})
        try:
            load_checkpoint(path)
        except SnnDeployError as error:
            assert error.where == str(path)  # noqa: PT017


def write_zip(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_files_that_are_none(path: Path, tmp_path: Path) -> None:
    refuse(path, "SD101", "no such file")
    path.write_bytes(b"")
    refuse(path, "SD401")
    path.write_text("epochs = 3\n")
    refuse(path, "SD401")
    refuse(tmp_path, "SD101", "folder")
    np.savez(tmp_path / "values.npz", values=np.zeros(3))
    refuse(tmp_path / "values.npz", "SD401")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(small: SpikingNet, path: Path) -> None:
    save(small, path)
    path.chmod(0)
    refuse(path, "SD101", "permission")


class Exploit:
    """Unpickling this creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_bare_pickle_is_not_run(path: Path, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    path.write_bytes(pickle.dumps({"format": FORMAT, "state": Exploit(mark)}, protocol))
    refuse(path, "SD402" if protocol else "SD401")
    assert not mark.exists()


def test_code_in_the_old_format_of_torch_is_not_run(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"state": Exploit(mark)}, path, _use_new_zipfile_serialization=False)
    refuse(path, "SD402")
    assert not mark.exists()


@pytest.mark.parametrize("place", ["format", "architecture", "state", "example", "more"])
def test_code_in_a_checkpoint_is_not_run(
    small: SpikingNet, path: Path, tmp_path: Path, place: str
) -> None:
    mark = tmp_path / "mark"
    path.write_bytes(to_bytes(content(small, **{place: Exploit(mark)})))
    assert "not" in str(refuse(path, "SD402").fix)
    assert not mark.exists()


def test_a_whole_module_is_not_loaded(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)
    refuse(path, "SD402", "Linear")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(small: SpikingNet, path: Path, value: float) -> None:
    with torch.no_grad():
        small.get_parameter(WEIGHT)[1, 2] = value
    save(small, path)
    refuse(path, "SD403", WEIGHT)


def test_batch_statistics_that_are_not_finite(path: Path) -> None:
    net = every_kind()
    net.get_buffer("layers.1.module.running_var")[0] = float("nan")
    save(net, path)
    refuse(path, "SD403", "running_var")


def test_weights_that_overflow_where_they_are_put(small: SpikingNet, path: Path) -> None:
    path.write_bytes(to_bytes(state_with(small, lambda v: v.double() * 1e300)))
    with pytest.raises(SnnDeployError) as caught:
        load(path)
    assert caught.value.where == str(path)


DEFECTS: dict[str, Callable[[SpikingNet], Any]] = {
    "a list": lambda net: [1, 2],
    "a tensor": lambda net: torch.zeros(3),
    "nothing": lambda net: {},
    "another format": lambda net: content(net, format="snn-deploy checkpoint 99"),
    "format a tensor": lambda net: content(net, format=torch.zeros(2)),
    "a foreign state_dict": lambda net: net.state_dict(),
    "a state_dict in a table": lambda net: {"state_dict": net.state_dict(), "epoch": 3},
    "no state": lambda net: content(net, state=None),
    "state a list": lambda net: content(net, state=[1]),
    "architecture a table": lambda net: content(net, architecture=net.architecture.to_data()),
    "architecture no JSON": lambda net: content(net, architecture="{"),
    "architecture too deep": lambda net: content(net, architecture="[" * 100_000),
    "weights missing": lambda net: content(net, state={}),
    "weights transposed": lambda net: state_with(
        net, lambda v: v.mT.contiguous() if v.ndim == 2 else v
    ),
    "a weight too many": lambda net: content(
        net, state={**net.state_dict(), "more": torch.zeros(1)}
    ),
    "weights by number": lambda net: content(net, state={1: torch.zeros(1), "b": torch.zeros(1)}),
    "weights of another network": lambda net: content(
        net, state=settled(architecture([linear(7), LIF, linear(3)], (5,))).state_dict()
    ),
    "weights as lists": lambda net: state_with(net, lambda v: v.tolist()),
    "weights sparse": lambda net: state_with(net, lambda v: v.to_sparse()),
    "weights nowhere": lambda net: state_with(net, lambda v: v.to("meta")),
    "weights nowhere, integers": lambda net: state_with(net, lambda v: v.int().to("meta")),
    "weights of whole numbers": lambda net: state_with(net, lambda v: v.int()),
    "weights complex": lambda net: state_with(net, lambda v: v.to(torch.complex64)),
    "example a list": lambda net: content(net, example=[1]),
    "example half precise": lambda net: content(
        net, example={"values": torch.zeros(1, 5, dtype=torch.bfloat16)}
    ),
    "example nowhere": lambda net: content(
        net, example={"values": torch.zeros(1, 5, device="meta")}
    ),
    "example with a gradient": lambda net: content(
        net, example={"values": torch.zeros(1, 5, requires_grad=True)}
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_checkpoint_that_is_none_of_ours(small: SpikingNet, path: Path, name: str) -> None:
    path.write_bytes(to_bytes(DEFECTS[name](small)))
    with pytest.raises(SnnDeployError) as caught:
        load_checkpoint(path)
    assert caught.value.exit == Exit.INTEGRITY
    assert caught.value.where == str(path)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_weights_compressed_in_rows(small: SpikingNet, path: Path) -> None:
    """A kind of tensor that knows no strides."""
    state = {k: v.to_sparse_csr() if v.ndim == 2 else v for k, v in small.state_dict().items()}
    path.write_bytes(to_bytes(content(small, state=state)))
    refuse(path, "SD401")


def test_a_wrong_architecture_names_the_file(small: SpikingNet, path: Path) -> None:
    data = small.architecture.to_data()
    data["lif"]["decay"] = 2.0
    path.write_bytes(to_bytes(content(small, architecture=json.dumps(data))))
    with pytest.raises(SnnDeployError, match=r"lif.*\n.*net\.pt"):
        load(path)


def test_a_compressed_file_is_refused(small: SpikingNet, path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(to_bytes(content(small)))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    write_zip(path, parts)
    load(path)
    write_zip(path, parts, zipfile.ZIP_DEFLATED)
    refuse(path, "SD402", "compressed")


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """Let this process grow by no more than this many bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    allowed = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (allowed, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def claiming(described: Architecture, tensor: Callable[[torch.Size], Tensor]) -> Content:
    """A checkpoint of this architecture with tensors that only claim to be as large."""
    with torch.device("meta"):
        net = SpikingNet(described)
    return content(net, state={k: tensor(v.shape) for k, v in net.state_dict().items()})


def expanded(shape: torch.Size) -> Tensor:
    return torch.zeros(()).expand(shape)


HUGE = architecture([linear(1 << 20), LIF, linear(2)], (1 << 20,))
LARGE = architecture([linear(1 << 14), LIF, linear(2)], (1 << 14,))  # 1 GiB
DEEP = architecture([linear(1024, bias=False), LIF] * 200 + [linear(2, bias=False)], (1024,))
BEYOND = {
    **SMALL.to_data(),
    "input": {"kind": "constant", "shape": [64, 1, 1]},
    "layers": [
        {"type": "conv", "channels": 1 << 20, "kernel": 1 << 20, "stride": 1 << 20,
         "padding": 1 << 20},
        LIF,
        {"type": "flatten"},
        linear(2),
    ],
}  # fmt: skip
SQUARE = torch.zeros(1024, 1024)

CLAIMS: dict[str, Callable[[SpikingNet], Content]] = {
    "expanded": lambda net: claiming(HUGE, expanded),
    "expanded, large": lambda net: claiming(LARGE, expanded),
    "too small": lambda net: claiming(HUGE, lambda shape: torch.zeros(1)),
    "nowhere": lambda net: claiming(LARGE, lambda shape: torch.empty(shape, device="meta")),
    "nowhere, integers": lambda net: claiming(
        LARGE, lambda shape: torch.empty(shape, dtype=torch.int32, device="meta")
    ),
    "one storage many times": lambda net: claiming(
        DEEP, lambda shape: SQUARE if shape == SQUARE.shape else torch.zeros(shape)
    ),
    "beyond what can be counted": lambda net: content(net, architecture=json.dumps(BEYOND)),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_no_memory_is_spent_on_claims(small: SpikingNet, path: Path, name: str) -> None:
    """Files of a few megabytes that describe networks of gigabytes and more."""
    path.write_bytes(to_bytes(CLAIMS[name](small)))
    assert path.stat().st_size < 5 << 20
    with little_memory(400 << 20), pytest.raises(SnnDeployError) as caught:
        load(path)
    assert caught.value.where == str(path)
    assert caught.value.code in ("SD104", "SD401", "SD402")
