"""Fixtures of the sidecar's tests. Importing this starts and imports no browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.stores import Store, open_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.service.page.browser import Site


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool."""
    with Spool.open(tmp_path / "spool") as opened:
        yield opened


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store."""
    with closing(open_store(":memory:", create=True)) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser of a module's tests."""
    from tests.service.page.browser import browsing

    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The sample, served; no test takes away from it."""
    from tests.service.page.browser import sample, served

    with served(tmp_path_factory.mktemp("site"), sample()) as opened:
        yield opened
