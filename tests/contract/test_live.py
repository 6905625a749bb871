"""What a name leads to at the moment of each question, over every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from msmarco_qdrant.errors import CollectionNotFoundError, SchemaError
from msmarco_qdrant.stores import (
    AliasedCollection,
    Collection,
    Store,
    open_async_collection,
)
from tests.contract.test_store import ask, make_batch, make_spec

_FIELDS = ("text",)


@pytest.fixture
def two(store: Store, things: str) -> tuple[str, str]:
    """Two physical collections with a point each that says which; the name leads to the first."""
    names = (f"{things}__0001", f"{things}__0002")
    for name in names:
        store.create_collection(name, make_spec(store))
        store.collection(name).upsert(make_batch([1], [[1, 0, 0, 0]], text=name))
    store.set_alias(things, names[0])
    return names


def answers(live: AliasedCollection | Collection) -> set[Any]:
    """Which collection each call of it is answered by."""
    ((point,),) = live.query([ask([1, 0, 0, 0])])
    return {point.payload["text"], live.retrieve([1], _FIELDS)[1]["text"]}


def test_it_follows_the_name(store: Store, things: str, two: tuple[str, str]) -> None:
    """There and back; what was opened by `collection` stays where it was."""
    live, bound = AliasedCollection(store, things), store.collection(things)
    for name in (*two, two[0]):
        store.set_alias(things, name)
        assert {name} == answers(live)
        assert {two[0]} == answers(bound)


def test_a_physical_name_leads_to_itself(store: Store, things: str, two: tuple[str, str]) -> None:
    """Whatever the name that users see leads to."""
    live = AliasedCollection(store, two[0])
    store.set_alias(things, two[1])
    assert {two[0]} == answers(live)


def test_it_tells_of_the_indexes_there_are(store: Store, things: str, two: tuple[str, str]) -> None:
    """As the collection itself does."""
    live = AliasedCollection(store, things)
    store.set_alias(things, two[1])
    assert store.collection(two[1]).info().spec == live.info().spec


def test_a_name_that_leads_nowhere(store: Store, things: str, two: tuple[str, str]) -> None:
    """Is told at once, and at each call when it does so later."""
    with pytest.raises(CollectionNotFoundError, match=f"'{things}-not'"):
        AliasedCollection(store, f"{things}-not")
    live = AliasedCollection(store, things)
    store.drop_collection(two[0])
    with pytest.raises(CollectionNotFoundError, match=things):
        answers(live)


def test_what_the_engine_refuses_is_told(store: Store, things: str, two: tuple[str, str]) -> None:
    """It is not asked for ever."""
    assert two
    with pytest.raises(SchemaError):
        AliasedCollection(store, things).query([ask([1, 0])])


class _Interrupted:
    """A store in which something happens between looking a name up and asking it."""

    def __init__(self, store: Store, happens: Callable[[], None]) -> None:
        self._store = store
        self._happens = happens
        self.capabilities = replace(store.capabilities, resolves_aliases=False)
        self.looked_up: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def collection(self, name: str) -> Collection:
        """The collection of that name, as it was just now."""
        found = self._store.collection(name)
        self.looked_up.append(name)
        if len(self.looked_up) == 2:  # the first was to see whether there is one
            self._happens()
        return found


def test_one_that_is_removed_before_it_is_asked(
    store: Store, things: str, two: tuple[str, str]
) -> None:
    """The other is asked instead; nobody hears of it."""

    def swap_and_prune() -> None:
        store.set_alias(things, two[1])
        store.drop_collection(two[0])

    interrupted = _Interrupted(store, swap_and_prune)
    live = AliasedCollection(cast(Store, interrupted), things)
    assert {two[1]} == answers(live)
    assert two == tuple(dict.fromkeys(interrupted.looked_up[1:]))


def test_from_an_event_loop(store: Store, things: str, two: tuple[str, str]) -> None:
    """The same."""

    async def main() -> list[str]:
        collection, told = open_async_collection(store, things), []
        for name in (*two, two[0]):
            store.set_alias(things, name)
            ((point,),) = await collection.query([ask([1, 0, 0, 0])])
            told += [point.payload["text"], (await collection.retrieve([1], _FIELDS))[1]["text"]]
        await collection.close()
        return told

    assert [name for name in (*two, two[0]) for _ in range(2)] == asyncio.run(main())
