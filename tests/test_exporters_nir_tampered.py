"""NIR files that were changed, cut off, or made to harm: refused with a code, fast and bounded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from snn_deploy.exporters.nir import exporter

from snn_deploy import quantize, simulate
from snn_deploy.errors import CODES, Exit
from snn_deploy.freezing import freeze
from tests.helpers.deploy import small_net, small_recording
from tests.helpers.refusals import refused

Change = Callable[[h5py.File], object]
Edit = Callable[[dict[str, Any]], object]

TEXT = "node/metadata/snn_deploy"
ARRAYS = "node/metadata/snn_deploy_arrays"
ENCODING = "node/metadata/snn_deploy_encoding"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nir") / "model.nir"
    exporter.write(quantize(freeze(small_net()), "loihi2"), path)
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "model.nir"))


def test_the_original_is_read(copy: Path) -> None:
    trace = simulate(exporter.read(copy), small_recording(), trace=True)
    assert all(0 < s.mean() < 1 for s in trace.spikes.values())


# --- changed --------------------------------------------------------------------------------------


def add(name: str, amount: float) -> Change:
    """Change the last element of a dataset."""

    def change(file: h5py.File) -> None:
        value = np.atleast_1d(file[name][()])
        value[(-1,) * value.ndim] += amount
        file[name][...] = value.reshape(file[name].shape)

    return change


def put(name: str, value: Any) -> Change:
    """Replace a dataset."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def new(name: str, value: Any) -> Change:
    return lambda file: file.__setitem__(name, value)


def drop(name: str) -> Change:
    return lambda file: file.__delitem__(name)


def edit_edges(file: h5py.File, order: slice, *more: tuple[str, str]) -> None:
    edges = [*file["node/edges"][()].tolist()[order], *more]
    del file["node/edges"]
    file.create_dataset("node/edges", data=edges, dtype=h5py.string_dtype())


def said(key: str, value: Any) -> Change:
    """Change one entry of how the tensors are to be read."""

    def change(file: h5py.File) -> None:
        put(ENCODING, json.dumps(json.loads(file[ENCODING][()]) | {key: value}))(file)

    return change


def second_name(file: h5py.File) -> None:
    file["node/nodes/output_synapses/more"] = file["node/nodes/output_synapses/weight"]


NODES = "node/nodes"
CHANGES: dict[str, tuple[str, Change]] = {
    # the tensors
    "weight of a convolution": ("SD405", add(f"{NODES}/conv1_synapses/weight", 1e-3)),
    "bias": ("SD405", add(f"{NODES}/conv1_synapses/bias", 1)),
    "bias of another shape": ("SD405", put(f"{NODES}/conv1_synapses/bias", np.zeros(1))),
    "weight": ("SD405", add(f"{NODES}/output_synapses/weight", 1)),
    "weight, infinite": ("SD405", add(f"{NODES}/output_synapses/weight", np.inf)),
    "weight, not a number": ("SD405", add(f"{NODES}/output_synapses/weight", np.nan)),
    "threshold": ("SD405", add(f"{NODES}/conv1_neurons/v_threshold", 1e-9)),
    "reset": ("SD405", new(f"{NODES}/conv1_neurons/v_reset", np.ones((4, 6, 6)))),
    "reset by subtraction": ("SD405", new(f"{NODES}/conv1_neurons/metadata/reset", "subtract")),
    "encoding gone": ("SD401", drop(ENCODING)),
    "dialect unknown": ("SD401", put(ENCODING, '{"dialect": "spam"}')),
    "another dialect": ("SD405", said("dialect", "sinabs")),
    "another timestep": ("SD405", said("dt", 1e-3)),
    "another node": ("SD405", said("nodes", {})),
    "another readout": ("SD405", said("readouts", {"output": "last"})),
    "time constant": ("SD405", add(f"{NODES}/conv1_neurons/tau", 1e-9)),
    "resistance": ("SD405", add(f"{NODES}/conv1_neurons/r", 1)),
    "leak": ("SD405", add(f"{NODES}/conv2_neurons/v_leak", 1)),
    "padding": ("SD405", add(f"{NODES}/conv2_synapses/padding", 1)),
    "pool": ("SD405", add(f"{NODES}/conv2_pool/kernel_size", 1)),
    "weights gone": ("SD405", drop(f"{NODES}/output_synapses/weight")),
    "node gone": ("SD401", drop(f"{NODES}/conv2_pool")),
    "one node more": ("SD405", lambda f: f.copy(f"{NODES}/conv2_pool", f"{NODES}/pool")),
    "node of another type": ("SD405", put(f"{NODES}/conv2_pool/type", "AvgPool2d")),
    "node of no type": ("SD405", put(f"{NODES}/conv2_pool/type", "Spam")),
    "edge gone": ("SD405", lambda f: edit_edges(f, np.s_[1:])),
    "edge more": (
        "SD405",
        lambda f: edit_edges(f, np.s_[:], ("conv1_neurons", "conv1_neurons")),
    ),
    "a dataset of two names": ("SD405", second_name),
    "edges gone": ("SD401", drop("node/edges")),
    "no graph": ("SD401", put("node/type", "Affine")),
    "no node": ("SD401", lambda f: f.move("node", "other")),
    # the integer network
    "mantissa": ("SD405", add(f"{ARRAYS}/10", 2)),
    "mantissa off the grid": ("SD401", add(f"{ARRAYS}/10", 1)),
    "threshold mantissa": ("SD405", add(f"{ARRAYS}/2", 1)),
    "decay": ("SD405", add(f"{ARRAYS}/0", 1)),
    "array gone": ("SD401", drop(f"{ARRAYS}/0")),
    "arrays out of order": ("SD401", lambda f: f.move(f"{ARRAYS}/0", f"{ARRAYS}/20")),
    "array of text": ("SD401", put(f"{ARRAYS}/0", "seven")),
    "arrays all gone": ("SD204", drop(ARRAYS)),
    "text gone": ("SD204", drop(TEXT)),
    "text no JSON": ("SD401", put(TEXT, "{")),
    "text no text": ("SD401", put(TEXT, 7)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_file_is_refused(what: str, copy: Path) -> None:
    code, change = CHANGES[what]
    with h5py.File(copy, "r+") as file:
        change(file)
    with refused(code, f"--> {copy}"):
        exporter.read(copy)


def test_order_of_edges_is_free(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        edit_edges(file, np.s_[::-1])
    exporter.read(copy)


def edit_text(path: Path, edit: Edit | str) -> None:
    """Change the description of the integer network."""
    with h5py.File(path, "r+") as file:
        if callable(edit):
            data = json.loads(file[TEXT][()])
            edit(data)
            edit = json.dumps(data)
        put(TEXT, edit)(file)


def entry(*path: str | int, value: Any) -> Edit:
    """Set one entry of the description."""

    def edit(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return edit


FORMAT = "number_format"
FIRST = ("populations", 0, "neurons")
EDITS: dict[str, tuple[str, Edit | str]] = {
    "version": ("SD401", entry("version", value=1)),
    "later version": ("SD401", entry("version", value=3)),
    "no version": ("SD401", lambda d: d.pop("version")),
    "no populations": ("SD401", entry("populations", value=[])),
    "neurons": ("SD401", entry(*FIRST, "model", value="spam")),
    "synapses": ("SD401", entry("projections", 0, "synapses", "kind", value="spam")),
    "array from behind": ("SD401", entry(*FIRST, "decay", "array", value=-11)),
    "array True": ("SD401", entry(*FIRST, "bias", "array", value=True)),
    "array out of range": ("SD401", entry(*FIRST, "decay", "array", value=99)),
    "shape": ("SD401", entry(*FIRST, "decay", "shape", value=[2])),
    "population's shape": ("SD401", entry("populations", 0, "shape", value=[4, 6, 5])),
    "name": ("SD401", entry("populations", 0, "name", value="input")),
    "no text": ("SD401", entry("outputs", value=[7])),
    "list": ("SD401", "[]"),
    "width": ("SD401", entry(FORMAT, "membrane_bits", value=12)),
    "width in words": ("SD401", entry(FORMAT, "membrane_bits", value="24")),
    "format's key gone": ("SD401", lambda d: d[FORMAT].pop("hop_delay")),
    "format's key unknown": ("SD401", entry(FORMAT, "spam", value=1)),
    "comparator": ("SD405", entry(FORMAT, "comparator", value=">=")),
    "step of the input": ("SD405", entry("inputs", 0, "scale", value=0.0040)),
    "not a number": ("SD401", entry("inputs", 0, "scale", value=float("nan"))),
    "exponent": ("SD405", entry("projections", 0, "exponent", value=-14)),
    "stride 0": ("SD401", entry("projections", 0, "synapses", "stride", value=[0, 1])),
    "loop": ("SD401", entry("projections", 0, "source", value="conv2")),
    "rule of the format": ("SD401", entry(FORMAT, "decay_rule", value="spam")),
    "hop delay": ("SD401", entry(FORMAT, "hop_delay", value=-3)),
    "no step": ("SD401", entry(FORMAT, "weight_step", value=0)),
    "width beyond 64 bits": ("SD401", entry(FORMAT, "membrane_bits", value=10**6)),
    "width beyond all": ("SD401", entry(FORMAT, "fraction_bits", value=10**9)),
    "number beyond float64": ("SD401", entry("inputs", 0, "low", value=-(10**400))),
    "mean beyond float64": ("SD401", entry("inputs", 0, "mean", value=[10**400])),
    "too deep": ("SD401", "[" * 100_000),
    # what the tensors would say otherwise
    "delay": ("SD405", entry("projections", 1, "delay", value=1)),
    "current": (
        "SD405",
        entry("populations", 1, "neurons", "current_decay", value={"array": 0, "shape": []}),
    ),
    "several spikes": ("SD401", entry("populations", 0, "max_spikes", value=2)),
    "true spikes": ("SD401", entry("populations", 0, "max_spikes", value=True)),
    "delay per synapse": (
        "SD401",
        entry("projections", 0, "delay", value={"array": 0, "shape": []}),
    ),
    "delay in words": ("SD401", entry("projections", 0, "delay", value="1")),
    "delay that is no whole number": ("SD401", entry("projections", 0, "delay", value=0.5)),
    "register of a sum": ("SD401", entry("projections", 1, "sum_bits", value=0)),
    "register of a sum that overflows": ("SD401", entry("projections", 1, "sum_bits", value=4)),
    "register of a sum in words": ("SD401", entry("projections", 1, "sum_bits", value="16")),
    "readout": ("SD405", entry("populations", 2, "neurons", "readout", value="last")),
    "second output": ("SD405", entry("outputs", value=["output", "conv1"])),
}


def test_what_was_changed_exits_with_4() -> None:
    codes = {code for code, _ in [*CHANGES.values(), *EDITS.values()]} - {"SD204"}
    assert {CODES[code].exit for code in codes} == {Exit.INTEGRITY} == {4}


@pytest.mark.parametrize("what", EDITS)
def test_changed_description_is_refused(what: str, copy: Path) -> None:
    code, edit = EDITS[what]
    edit_text(copy, edit)
    with refused(code, f"--> {copy}"):
        exporter.read(copy)


# --- cut off, or something else -------------------------------------------------------------------


def test_truncated_file_is_refused(copy: Path) -> None:
    whole = copy.read_bytes()
    for length in (*range(0, 200, 9), *range(200, len(whole), 4001), len(whole) - 1):
        copy.write_bytes(whole[:length])
        with refused("SD401", f"--> {copy}"):
            exporter.read(copy)


@pytest.mark.parametrize("content", [b"", b"not HDF5\n", b"\x89HDF\r\n\x1a\n", bytes(5000)])
def test_other_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.nir"
    path.write_bytes(content)
    with refused("SD401"):
        exporter.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with refused("SD101"):
        exporter.read(tmp_path / "model.nir")


def test_empty_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.nir"
    h5py.File(path, "w").close()
    with refused("SD401"):
        exporter.read(path)


def test_network_of_others_is_refused(tmp_path: Path) -> None:
    """A valid NIR file that carries no integer network."""
    path = tmp_path / "model.nir"
    shape = np.array([2])
    nodes = {
        "input": nir.Input({"input": shape}),
        "affine": nir.Affine(np.eye(2), np.zeros(2)),
        "output": nir.Output({"output": shape}),
    }
    nir.write(path, nir.NIRGraph(nodes, [("input", "affine"), ("affine", "output")]))
    with refused("SD204", "no network of snn-deploy"):
        exporter.read(path)


# --- made to harm ---------------------------------------------------------------------------------


def external(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(8))
    file.create_dataset("node/secret", (1,), np.float64, external=[(str(secret), 0, 8)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((1,), np.float64)
    layout[:] = h5py.VirtualSource(file.filename + ".other", "x", (1,))
    file.create_virtual_dataset("node/x", layout)


def cycle(file: h5py.File) -> None:
    file["node/nodes/again"] = file["node"]


def unwritten(file: h5py.File) -> None:
    """A dataset that claims 8 GiB, of which nothing is in the file."""
    file.create_dataset("node/x", (1 << 30,), np.float64, chunks=(1 << 20,), compression="gzip")


def bomb(file: h5py.File) -> None:
    """8 GiB of zeros in 8 MiB."""
    made = file.create_dataset("y", (1 << 26,), np.int8, chunks=(1 << 26,), compression="gzip")
    made[:] = 0
    _, packed = made.id.read_direct_chunk((0,))
    x = file.create_dataset("node/x", (1 << 33,), np.int8, chunks=(1 << 26,), compression="gzip")
    for start in range(0, 1 << 33, 1 << 26):
        x.id.write_direct_chunk((start,), packed)


HARMS: dict[str, Change] = {
    "soft link": lambda f: f.__setitem__("node/nodes/x", h5py.SoftLink("/node/nodes/input")),
    "dangling link": lambda f: f.__setitem__("node/nodes/x", h5py.SoftLink("/nowhere")),
    "external link": lambda f: f.__setitem__("node/x", h5py.ExternalLink("/etc/passwd", "/")),
    "external data": external,
    "virtual data": virtual,
    "cycle": cycle,
    "cycle through the root": lambda f: f.__setitem__("node/x", f["/"]),
    "unwritten": unwritten,
    "bomb": bomb,
}


@pytest.mark.parametrize("what", HARMS)
def test_harmful_file_is_refused_at_once(what: str, copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        HARMS[what](file)
    assert measured(lambda: refuse(copy, "SD402")) < 16 << 20


def refuse(path: Path, code: str) -> None:
    with refused(code, f"--> {path}"):
        exporter.read(path)


def measured(work: Callable[[], None]) -> int:
    """Peak memory of numpy and Python in bytes; fails if the work takes seconds."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert time.monotonic() - began < 5


def test_description_of_a_huge_network_is_refused_at_once(copy: Path) -> None:
    """Shapes in a description cost nothing: they must not be believed before they are compared."""

    def edit(data: Any) -> None:
        data["inputs"][0]["shape"] = [1, 600, 600]
        data["populations"] = data["populations"][:1]
        data["populations"][0]["shape"] = [4, 600, 600]
        data["projections"] = data["projections"][:1]
        data["outputs"] = ["conv1"]

    edit_text(copy, edit)
    assert measured(lambda: refuse(copy, "SD405")) < 16 << 20


def test_text_bomb_is_refused_at_once(copy: Path) -> None:
    """One text of 60 kB, referred to 2000 times."""
    with h5py.File(copy, "r+") as file:
        one = file.create_dataset("y", (1,), h5py.string_dtype(), chunks=(1,))
        one[0] = "x" * 60_000
        file.flush()
        _, reference = one.id.read_direct_chunk((0,))
        size = (2000,)
        many = file.create_dataset("node/x", size, h5py.string_dtype(), chunks=size, compression=9)
        many.id.write_direct_chunk((0,), zlib.compress(reference * 2000))
    assert measured(lambda: refuse(copy, "SD402")) < 16 << 20


def test_length_of_a_text_is_not_believed(copy: Path) -> None:
    """A reference to a text begins with its length; here it claims 256 MiB."""
    with h5py.File(copy) as file:
        offset = file["node/type"].id.get_offset()
    with copy.open("r+b") as stream:
        stream.seek(offset)
        stream.write((1 << 28).to_bytes(4, "little"))
    code = (
        "import sys; from pathlib import Path; from contextlib import suppress\n"
        "from snn_deploy import SnnDeployError; from snn_deploy.exporters.nir import exporter\n"
        "with suppress(SnnDeployError): exporter.read(Path(sys.argv[1]))\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    command = [sys.executable, "-c", code, str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200_000  # kilobytes
