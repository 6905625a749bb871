"""A Ray cluster in this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One node, whatever else runs here; no encoder of these tests needs its GPU."""
    ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        size = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20}
        ray.init("local", include_dashboard=False, **size)
        yield
        ray.shutdown()
