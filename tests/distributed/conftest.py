"""A Ray cluster in this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One node; no encoder of these tests needs its GPU."""
    ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
        yield
        ray.shutdown()
