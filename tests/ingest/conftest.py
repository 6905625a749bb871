"""An empty store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.stores import Store
from tests.engines import new_store


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, in memory unless a test names the engine."""
    with new_store(getattr(request, "param", "memory"), tmp_path) as opened:
        yield opened
