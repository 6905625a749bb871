"""Fixtures of the search page's tests. Importing this starts and imports no browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .browser import Site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser of a module's tests."""
    from .browser import browsing

    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The sample, served; no test takes away from it."""
    from .browser import sample, served

    with served(tmp_path_factory.mktemp("site"), sample()) as opened:
        yield opened
