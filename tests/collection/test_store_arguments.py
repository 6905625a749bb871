"""Every function that takes a store accepts its path or URL, too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import msmarco_qdrant
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import MigrationError, StoreNotFoundError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer

PASSAGES = [Passage("1", "castle", {"year": 1})]
ENCODER = HashingEncoder()


def _close(client: Any) -> None:
    client.close()


async def _open_async(store: Any) -> None:
    client = await msmarco_qdrant.AsyncSearchClient.open(store, encoder=ENCODER)
    await client.close()


def _run_async(store: Any) -> None:
    import asyncio

    asyncio.run(_open_async(store))


def _rollback(store: Any) -> None:
    with suppress(MigrationError):  # there is nothing to go back to
        msmarco_qdrant.rollback_collection(store)


_M = msmarco_qdrant
_CALLS: dict[str, Callable[[Any, Path], object]] = {
    "AsyncSearchClient": lambda store, _: _run_async(store),
    "SearchClient": lambda store, _: _close(SearchClient.open(store, encoder=ENCODER)),
    "add_index": lambda store, _: _M.add_index(store, "msmarco", "year", "integer"),
    "backup_collection": lambda store, folder: _M.backup_collection(
        store, "msmarco", folder / "backup", portable=True
    ),
    "count_facets": lambda store, _: _M.count_facets(store, "year"),
    "count_passages": lambda store, _: _M.count_passages(store),
    "list_passages": lambda store, _: _M.list_passages(store),
    "save_search_defaults": lambda store, _: _M.save_search_defaults(store, _M.SearchDefaults()),
    "scroll_passages": lambda store, _: [*_M.scroll_passages(store)],
    "set_tenant_field": lambda store, _: _M.set_tenant_field(store, "msmarco", None),
    "check_collection": lambda store, _: _M.check_collection(store, "msmarco"),
    "delete_passages": lambda store, _: _M.delete_passages(store, ["2"]),
    "describe_store": lambda store, _: _M.describe_store(store),
    "export_passages": lambda store, folder: _M.export_passages(store, folder / "a.jsonl"),
    "get_passages": lambda store, _: _M.get_passages(store, ["1"]),
    "link_collection": lambda store, _: _M.link_collection(store, "msmarco"),
    "list_indexes": lambda store, _: _M.list_indexes(store, "msmarco"),
    "migrate_collection": lambda store, _: _M.migrate_collection(store, "msmarco"),
    "migration_status": lambda store, _: _M.migration_status(store, "msmarco"),
    "optimize_collection": lambda store, _: _M.optimize_collection(store),
    "prune_collection": lambda store, _: _M.prune_collection(store),
    "reembed_collection": lambda store, _: _M.reembed_collection(store, encoder=ENCODER),
    "remove_index": lambda store, _: _M.remove_index(store, "msmarco", "year"),
    "rollback_collection": lambda store, _: _rollback(store),
    "drop_collection": lambda store, _: _M.drop_collection(store, "msmarco"),
    "ingest_passages": lambda store, _: ingest_passages(
        PASSAGES, store, encoder=ENCODER, optimize=False
    ),
    "restore_collection": lambda store, folder: _M.restore_collection(
        store, folder / "backup", name="restored"
    ),
}
_CREATE = {"ingest_passages", "restore_collection"}


def _takes_a_store(name: str) -> bool:
    value = getattr(_M, name)
    function = getattr(value, "open", value)
    if not callable(function) or name == "open_store":
        return False
    with suppress(ValueError, TypeError):
        return "store" in inspect.signature(function).parameters
    return False


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server."""
    with LoopbackServer() as running:
        yield running.url


def _fill(place: Any) -> None:
    ingest_passages(PASSAGES, place, encoder=ENCODER, optimize=False)


def test_c12_no_function_is_forgotten() -> None:
    """A new public function with a store needs a call here."""
    of_others = {"ForeignPassages"}  # a directory of ours has no other program's collection
    assert {*_CALLS} | of_others == {name for name in _M.__all__ if _takes_a_store(name)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [str, Path, "open"])
def test_c12_every_function_takes_a_path(kind: Any, tmp_path: Path) -> None:
    """As text and as a path, like an open store, which stays open."""
    place = tmp_path / "store"
    _fill(place)
    if kind == "open":
        with closing(open_store(place)) as store:
            for call in _CALLS.values():
                call(store, tmp_path)
            assert {"msmarco", "restored"} == set(store.aliases())
    else:
        for call in _CALLS.values():
            call(kind(place), tmp_path)


def test_c12_every_function_takes_a_url(server: str, tmp_path: Path) -> None:
    """Of a server."""
    _fill(server)
    for call in _CALLS.values():
        call(server, tmp_path)


@pytest.mark.parametrize("name", sorted({*_CALLS} - _CREATE))
def test_c12_missing_directory_is_not_created(name: str, tmp_path: Path) -> None:
    """One error, and nothing on disk."""
    with pytest.raises(StoreNotFoundError, match="missing"):
        _CALLS[name](tmp_path / "missing", tmp_path)

    assert [] == [*tmp_path.iterdir()]


def test_c12_other_types_are_refused(tmp_path: Path) -> None:
    """With one message for all functions."""
    _fill(tmp_path / "store")
    _M.backup_collection(tmp_path / "store", "msmarco", tmp_path / "backup", portable=True)
    for wrong in (5, None, b"store", ["store"]):
        message = f"must be an open store, a path or a URL, got an? {type(wrong).__name__}"
        for call in _CALLS.values():
            with pytest.raises(UsageError, match=message):
                call(wrong, tmp_path)
