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

# One test for each way that the adapter calls a server. REST and gRPC differ in nothing else, nor
# do they from the store in memory, whose engine answers them.
_QUICK_BY_SERVER = frozenset(
    {
        "test_a_vector_of_another_dimension_is_refused",
        "test_an_index_is_made_changed_and_removed",
        "test_from_an_event_loop",
        "test_metadata_are_replaced_whole",
        "test_names",
        "test_of_many_at_once_one_gets_it",
        "test_payloads_are_replaced_whole_and_vectors_stay",
        "test_points_are_found_by_cosine",
        "test_points_are_found_by_their_tokens",
        "test_the_sparse_vector_of_a_newer_point_stays",
        "test_what_is_newer_is_not_removed",
    }
)


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test slow over the engine that its `slow_over` names, and most of them by a server."""
    for item in items:
        call = getattr(item, "callspec", None)
        engines = (
            {value for value in call.params.values() if isinstance(value, str)} if call else ()
        )
        markers = item.iter_markers("slow_over")
        is_quick = item.name.partition("[")[0] in _QUICK_BY_SERVER
        is_common = not is_quick and not {"rest", "loopback"}.isdisjoint(engines)
        if is_common or any(marker.args[0] in engines for marker in markers):
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
