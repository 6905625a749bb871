"""What every store promises of the physical collections behind one name."""

from __future__ import annotations

import threading
from dataclasses import replace

from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import NullStore
from tests.contract.test_store import make_metadata, make_spec


def make(store: Store, things: str, number: int) -> str:
    """A whole physical collection that no alias leads to; its name."""
    name = f"{things}__{number:04}"
    store.create_collection(name, make_spec(store))
    store.put_metadata(name, replace(make_metadata(), package_version=str(number)))
    return name


def test_every_generation_is_listed(store: Store, things: str) -> None:
    """In the order of their numbers; with an alias or without, with metadata or without."""
    assert [] == physical_collections(store, things)
    store.create_collection(f"{things}__0002", make_spec(store))
    assert [f"{things}__0002"] == physical_collections(store, things)
    store.set_alias(things, make(store, things, 1))
    assert [f"{things}__0001", f"{things}__0002"] == physical_collections(store, things)
    store.drop_collection(f"{things}__0001")
    assert [f"{things}__0002"] == physical_collections(store, things)


def test_the_collections_of_other_names_are_not_listed(store: Store, things: str) -> None:
    """Names that begin alike, and physical names taken for names."""
    make(store, things, 1)
    longer = f"{things}__0001__0001"
    store.create_collection(longer, make_spec(store))
    try:
        assert [f"{things}__0001"] == physical_collections(store, things)
        assert [longer] == physical_collections(store, f"{things}__0001")
        assert [] == physical_collections(store, things[:-1])
    finally:
        store.drop_collection(longer)


def test_a_store_of_counts_lists_its_collections() -> None:
    """The fake is a store like any other."""
    store = NullStore()
    make(store, "things", 2)
    make(store, "things", 1)
    assert ["things__0001", "things__0002"] == physical_collections(store, "things")


def test_where_a_collection_comes_from_is_kept(store: Store, things: str) -> None:
    """With its metadata, until other metadata are kept."""
    name = make(store, things, 2)
    assert (None, None) == (store.metadata(name).copied_from, store.metadata(name).previous)
    filling = replace(make_metadata(), copied_from=f"{things}__0001")
    store.put_metadata(name, filling)
    assert filling == store.metadata(name)
    filled = replace(make_metadata(), previous=f"{things}__0001")
    store.put_metadata(name, filled)
    assert filled == store.metadata(name)


def test_a_name_leads_somewhere_while_it_is_moved(store: Store, things: str) -> None:
    """Whoever resolves it meanwhile finds one of the two collections, and never an error."""
    names = [make(store, things, number) for number in (1, 2)]
    store.set_alias(things, names[0])
    errors: list[BaseException] = []
    found: set[str] = set()
    moved = threading.Event()
    ready = threading.Barrier(3, timeout=60)

    def resolve() -> None:
        try:
            ready.wait()
            while not moved.is_set():
                found.add(store.collection(things).info().name)
                found.add(store.aliases()[things])
                assert store.metadata(things).package_version in {"1", "2"}
        except BaseException as exc:  # noqa: BLE001  # asserted below
            errors.append(exc)

    threads = [threading.Thread(target=resolve) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    for turn in range(40):
        store.set_alias(things, names[(turn + 1) % 2])
    moved.set()
    for thread in threads:
        thread.join()
    assert [] == errors
    assert found <= set(names)
    assert names[0] == store.aliases()[things]
