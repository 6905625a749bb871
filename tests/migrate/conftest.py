"""Fixtures of the tests of migrations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES_MEMORY_FIRST, new_store


@pytest.fixture(params=ENGINES_MEMORY_FIRST)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine with the empty collection 'films'."""
    with new_store(request.param, tmp_path) as opened:
        create_collection(opened, "films", HashingEncoder().info, Bm25Settings())
        yield opened
