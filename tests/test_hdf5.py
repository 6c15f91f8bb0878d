"""Foreign HDF5 files: read within bounds, or refused with one error, whatever is in them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snn_deploy.exporters.lava.reader import read

from snn_deploy import hdf5, hdf5_child
from snn_deploy.errors import SnnDeployError
from snn_deploy.hdf5 import read_hdf5
from tests.helpers.netx_files import conv, dense, neuron, write_netx
from tests.helpers.refusals import refused

GIB = 1 << 30


def small_net(path: Path) -> Path:
    """A file with text, numbers, packed data and groups within groups."""
    layers = [
        {"type": "input", "shape": (1, 4, 4)},
        conv(np.arange(-9, 9).reshape(2, 1, 3, 3), (4, 4), bias=[1, 2]),
        {"type": "flatten"},
        dense(np.arange(-12, 12).reshape(3, 8), neuron=neuron(threshold=np.array([1, 2, 3]))),
    ]
    write_netx(path, layers)
    with h5py.File(path, "r+") as file:
        weight = file["layer/3/weight"][()]
        del file["layer/3/weight"], file["layer/0/type"]
        file.create_dataset("layer/3/weight", data=weight, compression="gzip", chunks=(2, 8))
        file["layer/0/type"] = "input"  # of variable length: in the file's global heap
    return path


# --- read -----------------------------------------------------------------------------------------


def test_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["top/number"] = 3
        file["top/big endian"] = np.arange(3, dtype=">i4")
        file["top/packed"] = 5
        file["top/true"] = [True, False]
        file["top/below/none"] = np.zeros((2, 0, 3), np.float32)
        file["top/below/text"] = "été"
        file["top/below/bytes"] = np.array([b"dense"], "S10")
        file["top/below/complex"] = 1j
        texts = np.array([["a"], ["bé"]], object)
        file["top/below"].create_dataset("several texts", data=texts, dtype=h5py.string_dtype())
        file["top/below/nothing"] = h5py.Empty("f8")
        file["top/below/not text"] = np.bytes_(b"\xff")[:0]
        file.create_group("top/empty")
        file["top/type"] = np.dtype("i4")
        file["top/same"] = file["top/number"]
        file["beside"] = 1
        file["top/below"].create_dataset("packed", data=np.arange(1000), compression="gzip")
        file["top"].attrs["note"] = "not read"
    found = read_hdf5(path, "top")
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    expected = {
        "top/number": np.array(3),
        "top/same": np.array(3),
        "top/big endian": np.arange(3, dtype=np.int32),
        "top/packed": np.array(5),
        "top/true": np.array([True, False]),
        "top/below/none": np.zeros((2, 0, 3), np.float32),
        "top/below/packed": np.arange(1000),
        "top/below/several texts": np.array([["a"], ["bé"]], object),
    }
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert (arrays[name].dtype, arrays[name].shape) == (value.dtype, value.shape)
        assert arrays[name].dtype.isnative
    others = {name: value for name, value in found.items() if name not in arrays}
    assert others == {
        "top/below/text": "été",
        "top/below/bytes": "dense",
        "top/below/not text": "",
        "top/below/complex": None,
        "top/below/nothing": None,
        "top/empty": None,
        "top/type": None,
    }


def test_an_empty_group(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("layer")
    assert read_hdf5(tmp_path / "a.h5", "layer") == {}


# --- no file, or none of HDF5 ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("missing.net", "SD101", "no such file"),
        ("file/a.net", "SD101", "no such file"),
        ("folder", "SD101", "Is a directory"),
        ("pipe", "SD101", "not a file"),
        ("empty", "SD401", "not a readable HDF5 file"),
        ("file", "SD401", "not a readable HDF5 file"),
        ("magic", "SD401", "not a readable HDF5 file"),
        ("other", "SD401", "no group 'layer'"),
        ("data", "SD401", "'layer' is not a group"),
    ],
)
def test_what_is_no_file_of_ours(name: str, code: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "file").write_text("text\n" * 1000)
    (tmp_path / "magic").write_bytes(b"\x89HDF\r\n\x1a\n" * 100)
    os.mkfifo(tmp_path / "pipe")
    for other, member in (("other", "spam"), ("data", "layer")):
        with h5py.File(tmp_path / other, "w") as file:
            file[member] = [1, 2]
    path = tmp_path / name
    with refused(code, f"(?s){text}.*|--> {path}"):
        read_hdf5(path, "layer")
    with pytest.raises(SnnDeployError, match=text) as caught:
        read(path)
    assert (caught.value.code, caught.value.where) == (code, str(path))


def test_a_name_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_net(tmp_path / "-c.net")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("-c.net")).graph.populations) == 2


@pytest.mark.parametrize("name", ["numpy.py", "h5py.py", "json.py"])
def test_modules_beside_the_file_are_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    read(small_net(tmp_path / "a.net"))
    assert not (tmp_path / "ran").exists()


# --- hostile structures ---------------------------------------------------------------------------


def giant(file: h5py.Group, shape: tuple[int, ...], **options: object) -> None:
    file.create_dataset("weight", shape, np.float64, **options)


def virtual(file: h5py.Group) -> None:
    layout = h5py.VirtualLayout((4,), np.int64)
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (4,))
    file.create_virtual_dataset("weight", layout)


def packed_twice(file: h5py.Group) -> None:
    """Zeros, packed, and packed again: 512 MiB in a few kilobytes."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1 << 26,))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((1 << 26,))
    made = h5py.h5d.create(file.id, b"weight", h5py.h5t.NATIVE_INT64, space, properties)
    once = zlib.compress(bytes(1 << 20), 9)
    made.write_direct_chunk((0,), zlib.compress(once, 9))


HOSTILE: dict[str, tuple[Callable[[h5py.Group], object], str]] = {
    # what is done to layer 0 -> what is told
    "soft link": (lambda g: g.__setitem__("weight", h5py.SoftLink("/layer/0/shape")), "link out"),
    "soft link to nothing": (lambda g: g.__setitem__("a", h5py.SoftLink("/none")), "link out"),
    "external link": (
        lambda g: g.__setitem__("weight", h5py.ExternalLink("/etc/passwd", "/")), "link out",
    ),
    "link among the layers": (
        lambda g: g.parent.__setitem__("1", h5py.SoftLink("/layer/0")), "link out of its place",
    ),
    "link to the layers": (
        lambda g: (g.file.move("layer", "l"), g.file.__setitem__("layer", h5py.SoftLink("/l"))),
        "link out of its place: layer",
    ),
    "loop": (lambda g: g.__setitem__("again", g.parent), "group in two places: layer/0/again"),
    "loop through the root": (lambda g: g.__setitem__("again", g.file["/"]), "group in two places"),
    "giant of zeros": (lambda g: giant(g, (1 << 40,)), "claim to unpack to"),
    "giant in chunks": (lambda g: giant(g, (1 << 40,), chunks=(1 << 10,)), "claim to unpack to"),
    "giant that turns over in 64 bits": (
        lambda g: giant(g, (1 << 33, 1 << 31), chunks=(1, 8)), f"unpack to {1 << 67} or more",
    ),
    "giant chunk of little data": (
        lambda g: giant(g, (4,), maxshape=(None,), chunks=(1 << 28,), compression="gzip"),
        f"claim to unpack to {1 << 31} or more",
    ),
    "giant text": (
        lambda g: g.create_dataset("a", (2,), f"S{1 << 30}", chunks=(1,)), "claim to unpack to",
    ),
    "zeros packed twice": (packed_twice, f"claim to unpack to {1 << 29}"),
    "many arrays": (
        lambda g: [g.create_dataset(f"a{i}", (1 << 20,), "i8", chunks=(1 << 17,))
                   for i in range(30)],
        "claim to unpack to",
    ),
    "virtual data": (virtual, "data kept in another file: layer/0/weight"),
    "external data": (
        lambda g: g.create_dataset("weight", (4,), "i8", external="/etc/passwd"),
        "data kept in another file: layer/0/weight",
    ),
}  # fmt: skip


def hostile(path: Path, edit: Callable[[h5py.Group], object]) -> Path:
    write_netx(path, [dense([[4, -2]])])
    with h5py.File(path, "r+") as file:
        del file["layer/0/weight"]
        edit(file["layer/0"])
    return path


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_structures_are_refused(what: str, tmp_path: Path) -> None:
    edit, text = HOSTILE[what]
    path = hostile(tmp_path / "a.net", edit)
    assert path.stat().st_size < 1 << 20
    start = time.monotonic()
    for attempt in (lambda: read_hdf5(path, "layer"), lambda: read(path)):
        with pytest.raises(SnnDeployError, match=text) as caught:
            attempt()
        assert (caught.value.code, caught.value.where) == ("SD402", str(path))
    assert time.monotonic() - start < 10


def test_an_external_file_is_not_touched(tmp_path: Path) -> None:
    """A file that takes part of its data from another one never makes us open that."""
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # who opens it waits for ever
    with refused("SD402", "another file"):
        path = tmp_path / "a.net"
        read(hostile(path, lambda g: g.create_dataset("weight", (4,), "i8", external=str(secret))))
    link = h5py.ExternalLink(str(secret), "/")
    with refused("SD402", "link out"):
        read(hostile(tmp_path / "b.net", lambda g: g.__setitem__("weight", link)))


def test_too_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_child, "MAX_OBJECTS", 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for index in range(16):
            file[f"layer/a{index}"] = index
        for index in range(4):
            file[f"layer/b/c{index}"] = index
        with pytest.raises(hdf5_child.RefusedError, match="more than 20 objects"):
            hdf5_child.walk(file, "layer", 1 << 20, GIB)
        del file["layer/b/c0"]
        found, _ = hdf5_child.walk(file, "layer", 1 << 20, GIB)
        assert len(found) == 19


def test_a_hundred_thousand_links(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.net", "w", libver="latest") as file:
        group = file.create_group("layer")
        group["0"] = 1
        target = group["0"].id
        for index in range(1, hdf5_child.MAX_OBJECTS + 1):
            group.id.links.create_hard(b"%d" % index, group.id, b"0")
        assert target.valid
    with refused("SD402", "more than 100000 objects"):
        read(tmp_path / "a.net")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        (b"\x1b[2J\n", "SD204", r"no layer: '\\x1b\[2J\\n'"),
        (b"\xff", "SD401", "codec can't decode"),
    ],
)
def test_names_that_are_not_for_printing(name: bytes, code: str, text: str, tmp_path: Path) -> None:
    path = write_netx(tmp_path / "a.net", [dense([[4, -2]])])
    with h5py.File(path, "r+") as file:
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5d.create(file["layer"].id, name, h5py.h5t.NATIVE_INT8, space)
    with refused(code, text):
        read(path)


def test_names_in_what_is_told(tmp_path: Path) -> None:
    link = h5py.SoftLink("/none")
    path = hostile(tmp_path / "a.net", lambda g: g.__setitem__("\x1b[2J\n", link))
    with refused("SD402", r"layer/0/\\x1b\[2J\\n\n"):
        read(path)


# --- damaged bytes --------------------------------------------------------------------------------


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes that occur once."""
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


def heap_of(content: bytes) -> tuple[int, bytes]:
    """Where the global heap lies, and the reference to its first object, "input"."""
    heap = content.index(b"GCOL")
    return heap, struct.pack("<IQI", len("input"), heap, 1)


HEAPS: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    # the file's heap address -> old bytes and new ones
    "text of 4 GiB": lambda heap: (
        struct.pack("<IQI", 5, heap, 1), struct.pack("<IQI", (1 << 32) - 1, heap, 1),
    ),
    "text beyond the file": lambda heap: (
        struct.pack("<IQI", 5, heap, 1), struct.pack("<IQI", 5, heap + (1 << 30), 1),
    ),
    "text that is not in the heap": lambda heap: (
        struct.pack("<IQI", 5, heap, 1), struct.pack("<IQI", 5, heap, 60000),
    ),
    "object of 2^62 bytes": lambda heap: (
        struct.pack("<HHIQ", 1, 0, 0, 5) + b"input",
        struct.pack("<HHIQ", 1, 0, 0, 1 << 62) + b"input",
    ),
    "object that ends before it begins": lambda heap: (
        struct.pack("<HHIQ", 1, 0, 0, 5) + b"input",
        struct.pack("<HHIQ", 1, 0, 0, (1 << 64) - 24) + b"input",
    ),
    "heap of 2^40 bytes": lambda heap: (
        b"GCOL\1\0\0\0" + struct.pack("<Q", 4096), b"GCOL\1\0\0\0" + struct.pack("<Q", 1 << 40),
    ),
    "heap of no bytes": lambda heap: (
        b"GCOL\1\0\0\0" + struct.pack("<Q", 4096), b"GCOL\1\0\0\0" + struct.pack("<Q", 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HEAPS)
def test_damaged_heaps(what: str, tmp_path: Path) -> None:
    path = small_net(tmp_path / "a.net")
    heap, _ = heap_of(path.read_bytes())
    start = time.monotonic()
    with pytest.raises(SnnDeployError) as caught:
        read(patched(path, *HEAPS[what](heap)))
    assert caught.value.code == "SD401"
    assert str(path) in str(caught.value.where)
    assert time.monotonic() - start < 10


def stream_of_zeros(count: int) -> bytes:
    """A zlib stream of ``count`` MiB of zeros, made by repeating one that begins anew."""
    packer = zlib.compressobj(9)
    head = packer.compress(b"\0") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + count * block


def bomb(path: Path) -> Path:
    """A chunk of 8 kB, as the file says, which unpacks to 16 GiB."""

    def edit(group: h5py.Group) -> None:
        made = group.create_dataset("weight", (1, 1024), "i8", chunks=(1, 1024), compression="gzip")
        made.id.write_direct_chunk((0, 0), stream_of_zeros(1 << 14))

    return hostile(path, edit)


MEASURED = """
import json, resource, sys
from pathlib import Path
from snn_deploy.errors import SnnDeployError
from snn_deploy.exporters.lava.reader import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
codes = []
for path in sys.argv[1:]:
    try:
        read(Path(path))
        codes.append("read")
    except SnnDeployError as error:
        codes.append(error.code)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([codes, (after - before) << 10, children << 10]))
"""


def test_memory_stays_small(tmp_path: Path) -> None:
    """Of ours in any case, and of the process that reads for us."""
    paths = [bomb(tmp_path / "bomb.net")]
    assert paths[0].stat().st_size < 20 << 20
    paths += [
        hostile(tmp_path / f"{name}.net", HOSTILE[name][0])
        for name in ("giant of zeros", "giant chunk of little data", "zeros packed twice")
    ]
    for name in ("text of 4 GiB", "object of 2^62 bytes", "heap of 2^40 bytes"):
        path = small_net(tmp_path / f"{name}.net")
        paths.append(patched(path, *HEAPS[name](heap_of(path.read_bytes())[0])))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, paths)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    codes, ours, theirs = json.loads(done.stdout)
    assert codes == ["SD401", "SD402", "SD402", "SD402", "SD401", "SD401", "SD401"]
    assert ours < 50 << 20
    assert theirs < 1.2 * GIB


def test_a_truncated_file(tmp_path: Path) -> None:
    path = small_net(tmp_path / "a.net")
    content = path.read_bytes()
    lengths = [1, 8, 95, 96, 512, len(content) - 1]
    for length in [*lengths, *range(700, len(content), len(content) // 12)]:
        path.write_bytes(content[:length])
        with pytest.raises(SnnDeployError) as caught:
            read(path)
        assert (caught.value.code, caught.value.where) == ("SD401", str(path)), length


REPORTED = {"SD103", "SD104", "SD204", "SD401", "SD402", "SD403"}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_net(tmp_path_factory.mktemp("small") / "a.net").read_bytes()


def outcome(path: Path) -> SnnDeployError | None:
    """The error with which a file is refused."""
    try:
        read(path)
    except SnnDeployError as error:
        return error
    return None


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    flips=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6
    )
)
def test_flipped_bytes(flips: list[tuple[float, int]], content: bytes, tmp_path: Path) -> None:
    """Another network, or one error: never a crash, a wait or a traceback."""
    changed = bytearray(content)
    # most of a small file is room that nothing uses
    used = [index for index, byte in enumerate(content) if byte]
    for place, mask in flips:
        changed[used[int(place * len(used))]] ^= mask
    path = tmp_path / "flipped.net"
    path.write_bytes(changed)
    start = time.monotonic()
    error = outcome(path)
    assert time.monotonic() - start < 20
    if error is not None:
        assert error.code in REPORTED
        assert str(path) in str(error.where)
        assert str(error).encode("utf-8")


# --- the process that reads -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import time; time.sleep(60)", "reading it does not end"),
        ("import os; os.abort()", "ended with -6"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
        ("raise SystemExit(3)", "ended with 3"),
        ("pass", "ended with 0"),
    ],
)
def test_a_library_that_does_not_survive(
    program: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "child.py").write_text(program)
    monkeypatch.setattr(hdf5_child, "__file__", str(tmp_path / "child.py"))
    monkeypatch.setattr(hdf5, "MAX_SECONDS", 1)
    start = time.monotonic()
    with refused("SD401", why):
        read(small_net(tmp_path / "a.net"))
    assert time.monotonic() - start < 10


def test_a_loop_in_the_library_is_ended(tmp_path: Path) -> None:
    """HDF5 steps for ever over an object of no bytes: the kernel counts its processor time."""
    path = small_net(tmp_path / "a.net")
    object_of = struct.Struct("<HHIQ").pack
    patched(path, object_of(1, 0, 0, 5) + b"input", object_of(0, 0, 0, 0) + b"input")
    command = [sys.executable, hdf5_child.__file__, str(path), "layer", str(GIB), "1"]
    assert subprocess.run(command, timeout=60, check=False).returncode < 0
