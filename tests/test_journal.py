"""A journal holds what was appended whole, whenever the process that wrote it died."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_deploy.errors import SnnDeployError
from snn_deploy.journal import Journal, digest
from tests.helpers.refusals import refused

WORK = {"network": "a", "steps": 3, "batch": None}
PARTS = [{"x": np.arange(n), "y": np.full((2, n), n / 3)} for n in range(4)]


def written(path: Path, parts: int = 4) -> list[int]:
    """A journal of so many parts; returns the lengths of the file before and after each."""
    with Journal.begin(path, WORK) as journal:
        lengths = [path.stat().st_size]
        for arrays in PARTS[:parts]:
            journal.append(arrays)
            lengths.append(path.stat().st_size)
    return lengths


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    return len(found) == len(wanted) and all(
        a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
        for a, b in zip(found, wanted, strict=True)
    )


def read(path: Path) -> list[dict[str, Any]]:
    with Journal.resume(path, WORK) as journal:
        return list(journal.parts())


def test_what_is_appended_is_there(tmp_path: Path) -> None:
    written(tmp_path / "j")
    assert same(read(tmp_path / "j"), PARTS)
    with Journal.resume(tmp_path / "j", WORK) as journal:
        assert same(list(journal.parts()), PARTS)
        journal.append(PARTS[2])
        assert same(list(journal.parts()), [*PARTS, PARTS[2]])
        journal.delete()
    assert not list(tmp_path.iterdir())


def test_cut_off_anywhere(tmp_path: Path) -> None:
    """The whole parts before the cut are there, and new ones take the place of the torn one."""
    lengths = written(tmp_path / "j")
    content = (tmp_path / "j").read_bytes()
    for length in range(lengths[0], len(content) + 1, 7):
        (tmp_path / "j").write_bytes(content[:length])
        whole = sum(length >= end for end in lengths[1:])
        assert same(read(tmp_path / "j"), PARTS[:whole]), length
        with Journal.resume(tmp_path / "j", WORK) as journal:
            list(journal.parts())
            journal.append(PARTS[3])
        assert same(read(tmp_path / "j"), [*PARTS[:whole], PARTS[3]]), length


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_wrong_byte_anywhere(place: int, flip: int, tmp_path: Path) -> None:
    """Never a part that was not appended."""
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    begun = written(path)[0]
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= flip
    path.write_bytes(content)
    code = None
    found: list[dict[str, Any]] = []
    try:
        found = read(path)
    except SnnDeployError as error:
        code = error.code
    in_the_header = place % len(content) < begun
    assert code == ("SD401" if in_the_header else None)
    assert len(found) < len(PARTS)
    assert same(found, PARTS[: len(found)])


@pytest.mark.parametrize("content", [b"", b"text\n", b"snn-deploy journal 1\n", b"\0" * 100])
def test_no_journal(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(content)
    with refused("SD401"):
        read(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == content


def test_a_length_that_lies(tmp_path: Path) -> None:
    lengths = written(tmp_path / "j")
    with (tmp_path / "j").open("r+b") as stream:
        stream.seek(lengths[2])
        stream.write((1 << 60).to_bytes(8, "little"))
    assert same(read(tmp_path / "j"), PARTS[:2])


def test_other_work_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "j")
    for other, named in (
        ({**WORK, "network": "b"}, "another network"),
        ({**WORK, "steps": 4, "batch": 1}, "another batch, steps"),
        ({"network": "a", "steps": 3, "more": 1}, "another more"),
    ):
        with refused("SD104", named):
            Journal.resume(tmp_path / "j", other)
    with refused("SD104", "in the way"):
        Journal.begin(tmp_path / "j", WORK)
    assert same(read(tmp_path / "j"), PARTS)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with refused("SD101", "no interrupted run"):
        Journal.resume(tmp_path / "j", WORK)
    with refused("SD102"):
        Journal.begin(tmp_path / "none" / "j", WORK)
    (tmp_path / "folder").mkdir()
    with refused("SD102"):
        Journal.resume(tmp_path / "folder", WORK)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with Journal.resume(tmp_path / "j", WORK), refused("SD102", "another process"):
        Journal.resume(tmp_path / "j", WORK)
    assert same(read(tmp_path / "j"), PARTS)


def test_a_full_disk(tmp_path: Path) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("there is no /dev/full")
    written(tmp_path / "j")
    with Journal.resume(tmp_path / "j", WORK) as journal:
        list(journal.parts())
        journal._stream.close()
        journal._stream = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115
        with refused("SD102"):
            journal.append(PARTS[0])
    assert same(read(tmp_path / "j"), PARTS)


@dataclass(frozen=True)
class Value:
    number: Any = 1
    array: Any = field(default_factory=lambda: np.arange(4))


def test_digests_tell_values_apart() -> None:
    base = Value()
    assert digest(base) == digest(Value())
    others = [
        replace(base, number=2),
        replace(base, number=1.0),
        replace(base, number="1"),
        replace(base, number=None),
        replace(base, number=(1,)),
        replace(base, number=((1,), ())),
        replace(base, number=((), (1,))),
        replace(base, number={"a": 1}),
        replace(base, number={"a": 2}),
        replace(base, number=Value()),
        replace(base, array=np.arange(5)),
        replace(base, array=np.arange(4).reshape(2, 2)),
        replace(base, array=np.arange(4, dtype=np.int32)),
        replace(base, array=np.arange(4)[::-1]),
    ]
    assert len({digest(value) for value in (base, *others)}) == len(others) + 1
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(TypeError):
        digest(object())
