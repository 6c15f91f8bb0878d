"""Files of event cameras: real ones, against what other readers find in them, and broken ones."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.events import cameras, record
from snn_deploy.events.cameras import read_aedat4, read_raw
from snn_deploy.events.streams import EventList
from tests.helpers.refusals import refused
from tests.helpers.strangers import data

pytest.importorskip("faery", reason="the extra events is not installed")

HEADER = b"% Date 2020-09-25 07:48:31\n% evt 2.0\n"


def published(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(lzma.decompress(data(f"event_recordings/{name}.xz").read_bytes()))
    return path


def digest(values: np.ndarray, kind: type) -> str:
    return hashlib.sha3_224(values.astype(kind).tobytes()).hexdigest()[:8]


def evt2(events: list[tuple[int, int, int, int]]) -> bytes:
    """EVT 2 words, 32 bits little-endian: times in steps of 64 microseconds, then events."""
    words = []
    for t, x, y, p in events:
        words += [8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y]
    return HEADER + b"".join(word.to_bytes(4, "little") for word in words)


def evt3(content: bytes) -> np.ndarray:
    """Events (t, x, y, p) of EVT 3, 16-bit words, one word after the other.

    In a real file the time words sometimes step back by some microseconds; time then stands still.
    """
    while content.startswith(b"%"):
        content = content[content.index(b"\n") + 1 :]
    found = []
    high = t = y = base = polarity = 0
    for word in np.frombuffer(content, "<u2").tolist():
        kind, value = word >> 12, word & 4095
        if kind == 0:
            y = value & 2047
        elif kind == 2:
            found.append((t, value & 2047, y, value >> 11))
        elif kind == 3:
            base, polarity = value & 2047, value >> 11
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            bits = [k for k in range(width) if value >> k & 1]
            found += [(t, base + k, y, polarity) for k in bits]
            base += width
        elif kind == 6:
            t = max(t, high << 12 | value)
        elif kind == 8:
            high = value
    return np.array(found)


def ends(events: EventList, origin: int) -> tuple[int, int, int]:
    return len(events.x), origin + int(events.t[0]), origin + int(events.t[-1])


def test_prophesee_evt2(tmp_path: Path) -> None:
    """Digests that were published with the recording."""
    events, origin = read_raw(published(tmp_path, "gen3_evt2.raw"))
    assert events.y is not None
    assert events.p is not None
    assert ends(events, origin) == (521_252, 913_716_224, 913_812_095)
    assert digest(events.t + origin, np.uint64) == "9855ba39"
    assert digest(events.x, np.uint16) == "93fc6cff"
    assert digest(events.y, np.uint16) == "07cfaef5"
    assert digest(events.p, np.bool_) == "d2b5e9c4"


def test_prophesee_evt3(tmp_path: Path) -> None:
    """Against a decoder of our own."""
    path = published(tmp_path, "gen41_evt3.raw")
    events, origin = read_raw(path)
    assert ends(events, origin)[:2] == (219_596, 11_718_656)
    plain = evt3(path.read_bytes())
    assert plain[0].tolist() == [11_718_656, 874, 200, 0]
    for axis, values in enumerate((events.t + origin, events.x, events.y, events.p)):
        assert values is not None
        assert np.array_equal(values, plain[:, axis])


def test_aedat4(tmp_path: Path) -> None:
    events, origin = read_aedat4(published(tmp_path, "dv_sample.aedat4"))
    assert ends(events, origin) == (111_954, 1_605_537_493_718_345, 1_605_537_494_308_262)
    assert (events.x.max(), events.y.max() if events.y is not None else 0) == (319, 239)


def test_events_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(evt2([(1_000_000, 3, 1, 1), (1_000_070, 0, 2, 0), (1_001_000, 3, 1, 1)]))
    made = record([path], shape=(2, 4, 5), step="1ms")
    spikes = np.unpackbits(made.packed, axis=-1, count=40, bitorder="little")
    found = np.argwhere(spikes.reshape(-1, 2, 4, 5)).tolist()
    assert found == [[0, 0, 2, 0], [0, 1, 1, 3], [1, 1, 1, 3]]
    assert made.about["files"][0]["clock_at_0_microseconds"] == 1_000_000


@pytest.mark.parametrize("name", ["a.raw", "a.aedat4"])
@pytest.mark.parametrize("content", [b"", b"rubbish", bytes(1000), b"#!AER-DAT4.0\r\n" * 20])
def test_broken_files(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with refused("SD401", name):
        record([path], shape=(2, 720, 1280), step="1ms")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = published(tmp_path, "dv_sample.aedat4")
    path.write_bytes(path.read_bytes()[:500_000])
    with refused("SD401", "dv_sample"):
        read_aedat4(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("none.raw", "none.aedat4"):
        with refused("SD101", name):
            record([tmp_path / name], shape=(2, 4, 5), step="1ms")


def test_more_events_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(evt2([(1000 + k, 0, 0, 1) for k in range(100)]))
    monkeypatch.setattr(cameras, "MAX_BYTES", 99 * 13)
    with refused("SD402", "more than 99 events"):
        read_raw(path)
    monkeypatch.setattr(cameras, "MAX_BYTES", 100 * 13)
    assert len(read_raw(path)[0].x) == 100
