"""Stores of each engine for tests of what is built on them; the contract suite tests themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, open_store
from tests.loopback import LoopbackServer

ENGINES = ("edge", "memory", "loopback")
ENGINES_MEMORY_FIRST = (
    "memory",
    *(pytest.param(engine, marks=pytest.mark.slow) for engine in ("loopback", "edge")),
)
"""For tests of what hardly depends on the engine; the contract suite quickly tests every engine."""
ENGINES_AND_SERVER = (*ENGINES, "rest", "server")

each_engine = pytest.mark.parametrize("store", ENGINES, indirect=True)
"""For tests whose fixture `store` is in memory unless they name the engine."""

BY_REST = Connection(transport="rest")


@contextmanager
def opener(engine: str, place: Path) -> Iterator[Callable[[], Store]]:
    """A function that opens an engine's store; a real server only where `QDRANT_URL` is set.

    `rest` is the loopback server by REST; a real one is called by `QDRANT_TRANSPORT`, or by `auto`.
    """
    if engine == "loopback":
        with LoopbackServer() as server:
            yield lambda: open_store(server.url)
    elif engine == "rest":
        with LoopbackServer(serve_grpc=False) as server:
            yield lambda: open_store(server.rest_url, connection=BY_REST)
    elif engine == "server":
        if "QDRANT_URL" not in os.environ:
            pytest.skip("no Qdrant server: set QDRANT_URL (and QDRANT_API_KEY)")
        transport: Any = os.environ.get("QDRANT_TRANSPORT", "auto")
        connection = Connection(os.environ.get("QDRANT_API_KEY"), transport=transport)
        yield lambda: open_store(os.environ["QDRANT_URL"], connection=connection)
    else:
        dsn = ":memory:" if engine == "memory" else place / "store"
        yield lambda: open_store(dsn, create=True)


@contextmanager
def new_store(engine: str, place: Path) -> Iterator[Store]:
    """An empty store of an engine; Edge's lies in `place`."""
    with opener(engine, place) as open_again, closing(open_again()) as store:
        yield store


def another_handle(store: Store) -> AbstractContextManager[Store]:
    """Another handle on the same store; in memory there can be but one."""
    if store.dsn == ":memory:":
        return nullcontext(store)
    connection = BY_REST if store.dsn.startswith("http") else DEFAULT_CONNECTION
    return closing(open_store(store.dsn, connection=connection))
