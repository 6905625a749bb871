"""Programs that search and then start processes, and what their children do.

They run as scripts: `python -m tests.processes.programs NAME ARGUMENT ...`.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
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
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.forks import fork

PASSAGES = [
    Passage("1", "london is a big city"),
    Passage("2", "water boils in the kettle"),
    Passage("3", "a cold night in the north"),
]
QUERY = PASSAGES[1].text
AT_ONCE = 10
"""Children that run at a time."""


def pids(client: SearchClient, mode: str) -> str:
    """Search, and return the pids."""
    hits = client.search(QUERY, mode=mode, limit=1)  # type: ignore[arg-type]
    return " ".join(hit.pid for hit in hits)


def outcome(function: Callable[[], object]) -> str:
    """Call a function; return its result, or its error's name and if it names the parent."""
    try:
        return str(function())
    except MsmarcoQdrantError as exc:
        parent = f"process {os.getppid()}" in str(exc)
        return type(exc).__name__ + (" of the parent" if parent else "")


# ---- forks of a process that has searched ------------------------------------------------------


class Children:
    """What a child does with the client of its parent, and with one of its own."""

    def __init__(self, client: SearchClient, dsn: str) -> None:
        self.client, self.dsn = client, dsn

    def open_again(self) -> str:
        """Use the parent's client, then open the same store with a model, and search."""
        return f"{self._use_the_parents()}, model {outcome(self._search_by_model)}"

    def open_for_words(self) -> str:
        """Use the parent's client, then open the same store without a model, and search."""
        return f"{self._use_the_parents()}, words {outcome(self._search_by_words)}"

    def _use_the_parents(self) -> str:
        found = [outcome(lambda mode=mode: pids(self.client, mode)) for mode in ("dense", "bm25")]  # type: ignore[misc]
        self.client.close()
        return " ".join(found)

    def _search_by_model(self) -> str:
        if self.dsn == ":memory:":
            with closing(open_store(self.dsn, create=True)) as store:
                ingest_passages(PASSAGES, store, encoder=self.client.encoder)
        with SearchClient.open(self.dsn) as client:
            return pids(client, "dense")

    def _search_by_words(self) -> str:
        if self.dsn == ":memory:":
            with closing(open_store(self.dsn, create=True)) as store:
                ingest_passages(PASSAGES, store, encoder=HashingEncoder())
                return pids(SearchClient(store, "msmarco", None), "bm25")
        with SearchClient.open(self.dsn, bm25_only=True) as client:
            return pids(client, "bm25")


def fork_children(dsn: str, encoder: BiEncoder, count: int, *, closes: bool) -> dict[str, Any]:
    """Search, fork children that use all of it, and search again.

    Each child ends as a script does, with every destructor.

    Args:
        dsn: An empty store.
        encoder: Its model.
        count: Children.
        closes: True to close the store before forking.

    Returns:
        How many children had each outcome, and what the parent found before and after.
    """
    store: Store = open_store(dsn, create=True)
    ingest_passages(PASSAGES, store, encoder=encoder)
    client = SearchClient(store, "msmarco", encoder)
    found = [pids(client, mode) for mode in ("dense", "bm25", "hybrid")]
    if closes:
        store.close()
    children = Children(client, dsn)
    running: list[Callable[[], str]] = []
    outcomes: Counter[str] = Counter()
    for number in range(count):
        use = children.open_for_words if number % 2 else children.open_again
        running.append(fork(use, leaves=True))
        if len(running) == (1 if closes else AT_ONCE):  # one process at a time has a directory
            outcomes[running.pop(0)()] += 1
    outcomes.update(result() for result in running)
    if not closes:
        found += [pids(client, mode) for mode in ("dense", "bm25", "hybrid")]
        store.close()
    return {"outcomes": outcomes, "parent": found}


def run_forks(model: str, *stores: str) -> None:
    """Fork children for each store in turn, and print what became of them as JSON.

    Args:
        model: Directory of a model.
        stores: "DSN COUNT", or "DSN COUNT closed" to close the store before forking.
    """
    encoder = load_encoder(model, device="cpu")
    with closing(open_store(":memory:", create=True)) as example:  # imports what stores need
        ingest_passages(PASSAGES, example, encoder=encoder)
    # The last garbage collection of each child would take seconds for the objects of libraries.
    # Those of the stores and clients are made later, and destroyed as usual.
    gc.collect()
    gc.freeze()
    found = {}
    for store in stores:
        dsn, count, *closed = store.split()
        found[store] = fork_children(dsn, encoder, int(count), closes=bool(closed))
    print(json.dumps(found))


# ---- pools -------------------------------------------------------------------------------------

_clients: list[SearchClient] = []


def search_in_child(dsn: str) -> list[str]:
    """Open a store and search it."""
    with SearchClient.open(dsn) as client:
        return [pids(client, mode) for mode in ("dense", "bm25", "hybrid")]


def search_by_master(_: str) -> list[str]:
    """Search with the client that the master opened."""
    return [pids(_clients[0], "dense")]


def run_pools(dsn: str) -> None:
    """Start pools before and after this process has loaded a model; print what workers find.

    Args:
        dsn: The store, which holds passages.
    """
    import sentence_transformers  # noqa: F401  # so that the forked children need not

    _report("imported, fork Pool", _map_by_pool, "fork", search_in_child, dsn)
    _report("imported, fork Executor", _map_by_executor, "fork", search_in_child, dsn)
    _clients.append(SearchClient.open(dsn))
    pids(_clients[0], "dense")
    _report("open, fork Pool", _map_by_pool, "fork", search_by_master, dsn)
    _report("open, fork Executor", _map_by_executor, "fork", search_by_master, dsn)
    _clients[0].close()
    _report("searched, fork Pool", _map_by_pool, "fork", search_in_child, dsn)
    _report("searched, fork Executor", _map_by_executor, "fork", search_in_child, dsn)
    _report("searched, spawn Pool", _map_by_pool, "spawn", search_in_child, dsn)
    _report("searched, forkserver Executor", _map_by_executor, "forkserver", search_in_child, dsn)


def _report(
    name: str,
    map_tasks: Callable[[Any, Callable[[str], list[str]], str], list[list[str]]],
    method: str,
    task: Callable[[str], list[str]],
    dsn: str,
) -> None:
    try:
        found = str(map_tasks(multiprocessing.get_context(method), task, dsn))
    except MsmarcoQdrantError as exc:
        found = f"{type(exc).__name__} {exc}"
    print(f"{name}: {found}", flush=True)  # before the next fork copies the buffer


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
        run_forks(*arguments)
    else:
        run_pools(*arguments)
