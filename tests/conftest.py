"""Settings of every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Tests run side by side, one thread each. torch reads this when it is first imported.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")
