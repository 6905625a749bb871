"""The stores that the contract runs over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.stores import Store, open_store

OpenStore = Callable[[], Store]


@pytest.fixture(params=["edge"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens another handle on the store under test."""
    dsns = {"edge": tmp_path / "store"}
    dsn = dsns[request.param]
    return lambda: open_store(dsn, create=True)


@pytest.fixture
def store(open_again: OpenStore) -> Iterator[Store]:
    """A new, empty store."""
    opened = open_again()
    yield opened
    opened.close()
