"""A Ray cluster in this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed.ray_environment import ray_environment


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One node, whatever else runs here; no encoder of these tests needs its GPU."""
    ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
    with ray_environment():
        size = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20}
        ray.init("local", include_dashboard=False, **size)
        yield
        ray.shutdown()
