"""Stores of each engine for tests of what is built on them; the contract suite tests themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from msmarco_qdrant.stores import Store, open_store
from tests.loopback import LoopbackServer

ENGINES = ("edge", "memory", "loopback")


@contextmanager
def new_store(engine: str, place: Path) -> Iterator[Store]:
    """An empty store of an engine; Edge's lies in `place`."""
    if engine == "loopback":
        with LoopbackServer() as server, closing(open_store(server.url)) as store:
            yield store
    else:
        dsn = ":memory:" if engine == "memory" else place / "store"
        with closing(open_store(dsn, create=True)) as store:
            yield store


def another_handle(store: Store) -> AbstractContextManager[Store]:
    """Another handle on the same store; in memory there can be but one."""
    return nullcontext(store) if store.dsn == ":memory:" else closing(open_store(store.dsn))
