"""What an engine can do is in its `capabilities`; the rest raises `UnsupportedError`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.stores import Capabilities, Store
from msmarco_qdrant.testing import NullStore
from tests.contract.test_store import make_spec


async def _open_async(store: Store, name: str) -> None:
    await store.async_collection(name).close()


def _share(store: Store, name: str) -> None:
    with store.share_files(name, lambda: None) as folder:
        assert folder.is_dir()
    assert not folder.exists()


CALLS: dict[str, tuple[Callable[[Store, str], object], str]] = {
    "admin": (lambda store, name: store.admin_collection(name), "create another collection"),
    "migration_locks": (lambda store, _: store.migration_locks, "create another collection"),
    "snapshots": (lambda store, _: store.snapshots, "use a portable backup"),
    "shared_files": (_share, "search in this process"),
    "resolves_aliases": (lambda store, name: store.unresolved_collection(name), "use Aliased"),
    "async_search": (
        lambda store, name: asyncio.run(_open_async(store, name)),
        r"use open_async_collection\(store, name\)",
    ),
}


@pytest.mark.parametrize("capability", CALLS)
def test_a_feature_is_there_or_refused(store: Store, things: str, capability: str) -> None:
    """As the capability has it, with what to use instead."""
    name, (call, instead) = f"{things}__0001", CALLS[capability]
    store.create_collection(name, make_spec(store))
    if getattr(store.capabilities, capability):
        call(store, name)
    else:
        with pytest.raises(UnsupportedError, match=f"{store.capabilities.engine}.*{instead}"):
            call(store, name)


def test_a_minimal_store_refuses_every_optional_feature() -> None:
    """`NullStore` has the required methods only; a store closes as a context manager."""
    with NullStore() as store:
        assert Capabilities(store.capabilities.engine) == store.capabilities
        for call, instead in CALLS.values():
            with pytest.raises(UnsupportedError, match=instead):
                call(store, "films")
