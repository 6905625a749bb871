"""What the tests kill, or hold: a change of model in a process of its own, without a model to load.

Usage: python -m tests.reembed.concurrent.reembed_program STORE WORK...

Does one after the other; an error of ours is printed with its type, and the next one is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store, open_store
from tests.reembed.concurrent.scenario import NAME, OLD, reembed, rollback


def change(work: Callable[[Store], object], place: str) -> None:
    """Change the model of what is there."""
    with closing(open_store(place)) as store:
        print(work(store))


def change_and_wait(place: str) -> None:
    """Change it, and hold the store until there is a line to read."""
    with closing(open_store(place)) as store:
        reembed(store)
        print("changed", flush=True)
        sys.stdin.readline()


def search(place: str) -> None:
    """Search for something."""
    with SearchClient.open(place, encoder=OLD) as client:
        print(client.search("anything"))


def ingest(place: str) -> None:
    """Write something."""
    passage = Passage("second", "written by a second process")
    print(ingest_passages([passage], place, collection=NAME, encoder=OLD))


def main(place: str, *works: str) -> int:
    """Do what is asked for; the number of errors."""
    known: dict[str, Callable[[str], None]] = {
        "reembed": partial(change, reembed),
        "rollback": partial(change, rollback),
        "reembed-and-wait": change_and_wait,
        "search": search,
        "ingest": ingest,
    }
    errors = 0
    for work in works:
        try:
            known[work](place)
        except MsmarcoQdrantError as exc:
            print(f"{work}: {type(exc).__name__}: {exc}", flush=True)
            errors += 1
    return errors


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
