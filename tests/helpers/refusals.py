"""What must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from snn_deploy.errors import SnnDeployError


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    """Expect an error of this code, whose text matches ``text`` (a regular expression)."""
    with pytest.raises(SnnDeployError, match=text) as caught:
        yield
    assert caught.value.code == code
