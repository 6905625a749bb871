"""An empty store of each engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.stores import Store
from tests.engines import ENGINES_MEMORY_FIRST, new_store


@pytest.fixture(params=ENGINES_MEMORY_FIRST)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each engine in turn."""
    with new_store(request.param, tmp_path) as opened:
        yield opened
