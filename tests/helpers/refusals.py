"""What must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from snn_deploy.errors import SnnDeployError


@contextmanager
def refused(code: str, text: str | None = None) -> Iterator[None]:
    """Expect an error of this code, whose text the expression ``text`` matches."""
    with pytest.raises(SnnDeployError, match=text) as caught:
        yield
    assert caught.value.code == code
