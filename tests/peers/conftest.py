"""Other people's software, each in an environment of its own, which ``make peers`` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.lava import Lava


@pytest.fixture
def lava(tmp_path: Path) -> Lava:
    """Intel's Lava."""
    return Lava.found(tmp_path)
