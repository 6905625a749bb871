"""Thirty passages on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store
from tests.engines import ENGINES_MEMORY_FIRST, new_store
from tests.reembed.steps import V2, passages


@pytest.fixture(params=ENGINES_MEMORY_FIRST)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine with thirty passages in 'things'."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(passages(), opened, collection="things", encoder=V2)
        yield opened


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Store]:
    """The same in memory, for tests that do not depend on the engine."""
    with new_store("memory", tmp_path) as opened:
        ingest_passages(passages(), opened, collection="things", encoder=V2)
        yield opened
