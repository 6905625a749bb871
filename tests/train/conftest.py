"""Tiny models and a small collection for trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from msmarco_qdrant.search.client import SearchClient
from tests.encoding.conftest import tiny
from tests.train.training import small_client

__all__ = ["tiny"]


@pytest.fixture(scope="module")
def client() -> Iterator[SearchClient]:
    """A client on the small collection; read only."""
    with small_client() as opened:
        yield opened
