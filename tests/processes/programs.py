"""Programs that search and then start processes, and what their children do.

They run as scripts: `python -m tests.processes.programs NAME STORE MODEL ...`.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

from msmarco_qdrant import (
    AsyncSearchClient,  # noqa: F401  # a prefork master imports everything
    MsmarcoQdrantError,
    Passage,
    SearchClient,
    ingest_passages,
    open_store,
)
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.forks import fork

PASSAGES = [
    Passage("1", "london is a big city"),
    Passage("2", "water boils in the kettle"),
    Passage("3", "a cold night in the north"),
]
QUERY = PASSAGES[1].text
AT_ONCE = 4
"""Children that run at a time."""


def pids(client: SearchClient, mode: str) -> str:
    """Search, and return the pids."""
    hits = client.search(QUERY, mode=mode, limit=1)  # type: ignore[arg-type]
    return " ".join(hit.pid for hit in hits)


def outcome(function: Callable[[], object]) -> str:
    """Call a function; return its result, or the name of its error."""
    try:
        return str(function())
    except MsmarcoQdrantError as exc:
        return type(exc).__name__


# ---- forks of a process that has searched ------------------------------------------------------


class Children:
    """What a child does with the client of its parent, and with one of its own."""

    def __init__(self, client: SearchClient, dsn: str) -> None:
        self.client, self.dsn = client, dsn

    def use_the_parents(self) -> str:
        """Search with the parent's client, and close it."""
        found = [outcome(lambda mode=mode: pids(self.client, mode)) for mode in ("dense", "bm25")]  # type: ignore[misc]
        self.client.close()
        return " ".join(found)

    def open_again(self) -> str:
        """Open the same store, load the model, and search."""

        def search() -> str:
            if self.dsn == ":memory:":
                with closing(open_store(self.dsn, create=True)) as store:
                    ingest_passages(PASSAGES, store, encoder=self.client.encoder)
            with SearchClient.open(self.dsn) as client:
                return pids(client, "dense")

        return outcome(search)

    def search_by_words(self) -> str:
        """Open the same store without a model."""

        def search() -> str:
            if self.dsn == ":memory:":
                with closing(open_store(self.dsn, create=True)) as store:
                    ingest_passages(PASSAGES, store, encoder=HashingEncoder())
                    return pids(SearchClient(store, "msmarco", None), "bm25")
            with SearchClient.open(self.dsn, bm25_only=True) as client:
                return pids(client, "bm25")

        return outcome(search)

    def leave(self) -> str:
        """Do nothing: the child ends as a script does, with every destructor."""
        return "left"


def fork_children(dsn: str, model: str, count: int, close: bool) -> None:
    """Search, fork children that use all of it, and search again; print the outcomes."""
    store: Store = open_store(dsn, create=True)
    ingest_passages(PASSAGES, store, model=model)
    client = SearchClient.open(store)
    found = [pids(client, mode) for mode in ("dense", "bm25", "hybrid")]
    children = Children(client, dsn)
    if close:
        store.close()
    uses = (
        children.use_the_parents,
        children.open_again,
        children.search_by_words,
        children.leave,
    )
    running: list[tuple[str, Callable[[], str]]] = []
    outcomes: Counter[str] = Counter()
    at_once = 1 if close else AT_ONCE  # one process at a time has the directory
    for number in range(count):
        use = uses[number % len(uses)]
        running.append((use.__name__, fork(use, leaves=use == children.leave)))
        if len(running) == at_once:
            name, result = running.pop(0)
            outcomes[f"{name}: {result()}"] += 1
    for name, result in running:
        outcomes[f"{name}: {result()}"] += 1
    if not close:
        found += [pids(client, mode) for mode in ("dense", "bm25", "hybrid")]
        store.close()
    print(json.dumps({"outcomes": outcomes, "parent": found}))


# ---- pools -------------------------------------------------------------------------------------

_clients: list[SearchClient] = []


def search_in_child(dsn: str) -> list[str]:
    """Open a store and search it."""
    with SearchClient.open(dsn) as client:
        return [pids(client, mode) for mode in ("dense", "bm25", "hybrid")]


def search_by_master(_: str) -> list[str]:
    """Search with the client that the master opened."""
    return [pids(_clients[0], "dense")]


def run_pools(dsn: str, how: str, method: str) -> None:
    """Start a pool and print what its workers find, or the first error.

    Args:
        dsn: The store, which holds passages.
        how: "imported", "searched" (and closed) or "open", before the pool starts.
        method: Start method.
    """
    if how != "imported":
        _clients.append(SearchClient.open(dsn))
        pids(_clients[0], "dense")
    if how == "searched":
        _clients[0].close()
    context = multiprocessing.get_context(method)
    task = search_by_master if how == "open" else search_in_child
    for name, map_tasks in (("Pool", _map_by_pool), ("Executor", _map_by_executor)):
        try:
            print(name, map_tasks(context, task, dsn))
        except MsmarcoQdrantError as exc:
            print(name, type(exc).__name__, exc)


def _map_by_pool(context: Any, task: Callable[[str], list[str]], dsn: str) -> list[list[str]]:
    with context.Pool(1) as pool:
        found: list[list[str]] = pool.map_async(task, [dsn], chunksize=1).get(timeout=100)
        return found


def _map_by_executor(context: Any, task: Callable[[str], list[str]], dsn: str) -> list[list[str]]:
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return [pool.submit(task, dsn).result(timeout=100)]


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    if program == "forks":
        dsn, model, count, close = arguments
        fork_children(dsn, model, int(count), close == "closed")
    else:
        run_pools(*arguments)
