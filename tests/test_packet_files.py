"""Recordings read piece by piece hold what they hold when they are read whole."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_deploy import packets
from snn_deploy.errors import SnnDeployError
from snn_deploy.packet_files import StoredArray, open_recording, read_piece
from snn_deploy.packet_layout import pack_bits, unpack_bits
from snn_deploy.packets import read_recording
from tests.helpers.refusals import refused
from tests.test_packets import LABELS, SPIKES, Exploit, with_header

SAVE = (np.savez, np.savez_compressed)
PACKED = {f"spikes.{key}": array for key, array in pack_bits(SPIKES, 2).items()}


def saved(folder: Path, save: Any = np.savez, **arrays: Any) -> Path:
    path = folder / "recording.npz"
    save(path, **arrays)
    return path


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize(
    "array",
    [
        SPIKES,
        SPIKES.astype(bool),
        SPIKES.astype(">f4"),
        np.asfortranarray(SPIKES),
        np.random.default_rng(0).random((3, 5, 2, 4)),
    ],
    ids=["uint8", "bool", "big-endian", "fortran", "float64"],
)
def test_every_piece_is_a_piece_of_the_whole(tmp_path: Path, save: Any, array: Any) -> None:
    path = saved(tmp_path, save, values=array, labels=LABELS)
    cuts = [slice(a, b) for a, b in itertools.combinations_with_replacement(range(6), 2)]
    with open_recording(path) as stored:
        held = stored.values[""]
        assert isinstance(held, StoredArray) == (not np.isfortran(array))
        assert (held.shape, held.dtype, held.ndim) == (array.shape, array.dtype, array.ndim)
        for samples, steps in itertools.product(cuts, (None, *cuts)):  # forth and back
            found = read_piece(held, samples, steps)
            wanted = array[samples] if steps is None else array[samples, steps]
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("save", SAVE)
def test_a_recording_in_its_file(tmp_path: Path, save: Any) -> None:
    path = saved(tmp_path, save, **{"in.spikes": SPIKES, "v.values": SPIKES / 2, "labels": LABELS})
    whole = read_recording(path)
    with open_recording(path) as stored:
        assert stored.samples == whole.samples == 3
        assert stored.arrays().keys() == whole.arrays().keys()
        part = stored.part(1, 3)
        np.testing.assert_array_equal(part.spikes["in"], SPIKES[1:])
        np.testing.assert_array_equal(part.values["v"], SPIKES[1:] / 2)
        assert part.labels is not None
        assert part.labels.tolist() == LABELS[1:].tolist()
        first = stored.digest()
    with open_recording(saved(tmp_path, save, **{"in.spikes": 1 - SPIKES})) as other:
        assert other.digest() != first


def test_one_sample_without_its_axis(tmp_path: Path) -> None:
    with open_recording(saved(tmp_path, spikes=SPIKES[0])) as stored:
        array = stored.spikes[""]
        assert isinstance(array, StoredArray)
        np.testing.assert_array_equal(array.alone().read(slice(0, 1), slice(2, 4)), SPIKES[:1, 2:4])


# --- one bit per spike ----------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    lead=st.sampled_from(((3,), (2, 4))),
    seed=st.integers(0, 1000),
)
def test_bits_come_back(shape: tuple[int, ...], lead: tuple[int, ...], seed: int) -> None:
    spikes = np.random.default_rng(seed).integers(0, 2, (*lead, *shape), np.uint8)
    made = pack_bits(spikes, len(shape))
    flat = spikes.reshape(*lead, -1)
    for neuron in range(flat.shape[-1]):  # the first neuron in the lowest bit of the first byte
        bit = (made["packed"][..., neuron // 8] >> (neuron % 8)) & 1
        np.testing.assert_array_equal(bit, flat[..., neuron])
    back = unpack_bits(made["packed"], tuple(made["shape"].tolist()), "test")
    np.testing.assert_array_equal(back, spikes)


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["", "in."])
def test_packed_spikes_are_spikes(tmp_path: Path, save: Any, order: Any, name: str) -> None:
    packed = {f"{name}{key}": np.array(array, order=order) for key, array in PACKED.items()}
    path = saved(tmp_path, save, **packed, labels=LABELS)
    np.testing.assert_array_equal(read_recording(path).spikes[name[:-1]], SPIKES)
    with open_recording(path) as stored:
        assert stored.spikes.keys() == {name[:-1]}
        held = stored.spikes[name[:-1]]
        assert (held.shape, held.dtype) == (SPIKES.shape, np.uint8)
        np.testing.assert_array_equal(read_piece(held, slice(1, 3), slice(2, 5)), SPIKES[1:3, 2:5])
    saved(tmp_path, **{**packed, f"{name}spikes.packed": packed[f"{name}spikes.packed"][0]})
    np.testing.assert_array_equal(read_recording(path).spikes[name[:-1]], SPIKES[0])


BAD = {
    "no shape": {"spikes.packed": PACKED["spikes.packed"]},
    "another number of neurons": {**PACKED, "spikes.shape": np.array([3, 3])},
    "neurons below zero": {**PACKED, "spikes.shape": np.array([-2, -4])},
    "a shape of fractions": {**PACKED, "spikes.shape": np.array([2.0, 4.0])},
    "a shape of two axes": {**PACKED, "spikes.shape": np.array([[2, 4]])},
    "a product that turns over": {**PACKED, "spikes.shape": np.array([2**32, 2**32])},
    "wide words": {**PACKED, "spikes.packed": PACKED["spikes.packed"].astype(np.uint16)},
    "one axis": {**PACKED, "spikes.packed": PACKED["spikes.packed"][0, 0]},
    "twice": {**PACKED, "spikes": SPIKES},
}


@pytest.mark.parametrize("arrays", BAD.values(), ids=BAD.keys())
def test_packing_that_does_not_fit(tmp_path: Path, arrays: Any) -> None:
    path = saved(tmp_path, **arrays)
    with refused("SD103"):
        read_recording(path)
    with refused("SD103"):
        open_recording(path)


def test_bits_beyond_the_last_neuron(tmp_path: Path) -> None:
    packed = pack_bits(SPIKES[..., 0], 1)  # two neurons
    packed["packed"][1, 2, 0] |= 4
    path = saved(tmp_path, **{f"spikes.{key}": array for key, array in packed.items()})
    with refused("SD401", "beyond the last of 2 neurons"):
        read_recording(path)
    with open_recording(path) as stored:
        read_piece(stored.spikes[""], slice(0, 1))
        with refused("SD401", "beyond the last of 2 neurons"):
            read_piece(stored.spikes[""], slice(1, 2))


# --- files that cannot be trusted -----------------------------------------------------------------


def outcome(path: Path, wanted: np.ndarray) -> str:
    """What reading sample by sample comes to."""
    try:
        with open_recording(path) as stored:
            parts = [stored.part(n, n + 1).spikes[""] for n in range(stored.samples)]
            same = np.array_equal(np.concatenate(parts), wanted)
    except SnnDeployError as error:
        return error.code
    return "same" if same else "different"


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("arrays", [{"spikes": SPIKES}, PACKED], ids=["plain", "packed"])
def test_corrupt_anywhere(tmp_path: Path, save: Any, arrays: Any) -> None:
    path = saved(tmp_path, save, **arrays)
    content = path.read_bytes()
    assert outcome(path, SPIKES) == "same"
    for place in range(0, len(content), 3):
        wrong = bytearray(content)
        wrong[place] ^= 0xFF
        path.write_bytes(wrong)
        assert outcome(path, SPIKES) in ("same", "SD401", "SD402", "SD103"), place


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path, spikes=SPIKES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with refused("SD401"):
        open_recording(path)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, spikes=np.zeros((2, 1 << 17), np.uint8))
    with open_recording(path) as stored:
        with path.open("r+b") as stream:
            stream.truncate(1 << 16)
        with refused("SD401"):
            stored.part(1, 2)


@pytest.mark.parametrize(
    "shape", ["(1000000000, 4)", "(2, 1)", "(-1, 4)", "(99999999999, 99999999999)"]
)
def test_header_that_lies(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    with refused("SD401"):
        open_recording(with_header(tmp_path, header, b"\0\1\0\1"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_lies(tmp_path: Path, compression: int) -> None:
    """The directory says that a member is as long as its header says; it is not."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1000)}\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\1" * 100
    path = tmp_path / "recording.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("spikes.npy", member)
    claimed = (len(header) + 10 + 1_000_000).to_bytes(4, "little")
    content = path.read_bytes().replace(len(member).to_bytes(4, "little"), claimed)
    path.write_bytes(content)
    with refused("SD401"):
        open_recording(path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    pickled = np.empty((1, 1), object)
    pickled[0, 0] = Exploit(tmp_path / "executed")
    with refused("SD402", "x.npy holds pickled objects"):
        open_recording(saved(tmp_path, values=np.zeros((1, 2)), x=pickled))
    assert not (tmp_path / "executed").exists()


def test_not_there(tmp_path: Path) -> None:
    with refused("SD101", "no such file"):
        open_recording(tmp_path / "none.npz")
    with refused("SD101"):
        open_recording(tmp_path)
    with refused("SD103", "neither"):
        open_recording(saved(tmp_path, x=SPIKES))


@pytest.mark.parametrize("labels", [LABELS[:2], LABELS[None], LABELS[0], LABELS.astype(float)])
def test_labels_that_do_not_fit(tmp_path: Path, labels: Any) -> None:
    with refused("SD103", "one integer per sample"):
        open_recording(saved(tmp_path, spikes=SPIKES, labels=labels))


def test_what_is_streamed_may_be_larger_than_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "MAX_UNPACKED_BYTES", 200)
    path = saved(tmp_path, np.savez_compressed, spikes=np.zeros((2, 5000), np.uint8))
    with refused("SD402", "unpacks to more"):
        read_recording(path)
    with open_recording(path) as stored:
        assert not stored.part(1, 2).spikes[""].any()
    with refused("SD402", "unpacks to more"):
        open_recording(saved(tmp_path, spikes=SPIKES, labels=np.zeros(999, int)))
    with refused("SD402", "unpacks to more"):
        open_recording(saved(tmp_path, spikes=np.asfortranarray(np.zeros((20, 20), np.uint8))))


def test_packed_spikes_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pack_bits(np.zeros((1, 10, 800), np.uint8), 1)
    path = saved(tmp_path, **{f"spikes.{key}": array for key, array in made.items()})
    monkeypatch.setattr(packets, "MAX_UNPACKED_BYTES", 5000)
    with refused("SD402", "unpacks to more"):
        read_recording(path)
