"""The environment of a process that starts Ray for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def ray_environment() -> Iterator[pytest.MonkeyPatch]:
    """Set the variables for Ray, for the time of the block; yield what also sets others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Beside other tests, workers of Ray's own niceness of 15 would hardly run.
        patch.setenv("RAY_worker_niceness", "0")
        yield patch
