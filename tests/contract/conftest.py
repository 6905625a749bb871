"""The stores that the contract runs over."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from msmarco_qdrant.errors import CollectionNotFoundError
from msmarco_qdrant.stores import Store
from tests.engines import ENGINES_AND_SERVER, opener

OpenStore = Callable[[], Store]


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test slow over the engine that its `slow_over` names."""
    for item in items:
        marker = item.get_closest_marker("slow_over")
        if marker and marker.args[0] == item.callspec.params["open_again"]:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=ENGINES_AND_SERVER)
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """A function that opens a handle on the store under test, of each engine in turn."""
    with opener(request.param, tmp_path) as open_store:
        yield open_store


@pytest.fixture
def things() -> str:
    """A collection's name that no other test and no other run uses."""
    return f"things-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store(open_again: OpenStore, things: str) -> Iterator[Store]:
    """A store; what a test makes there under the name `things` is removed from a real server."""
    with closing(open_again()) as opened:
        yield opened
    with closing(open_again()) as again:
        for number in (1, 2):
            with suppress(CollectionNotFoundError):
                again.drop_collection(f"{things}__{number:04}")
