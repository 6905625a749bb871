"""Runs: what a system answered to a set of queries, in the form that TREC's tools read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from msmarco_qdrant._in_batches import in_batches
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.records import Hit, Query
from msmarco_qdrant.search import SearchClient

RUN_TAG = "msmarco-qdrant"
_QUERIES_PER_BATCH = 32


def run_queries(
    client: SearchClient, queries: Iterable[Query], *, depth: int, exact: bool = False
) -> Iterator[tuple[Query, list[Hit]]]:
    """Search for each query, in batches, and yield it with its hits.

    Args:
        client: Where to search.
        queries: Any number of queries.
        depth: Hits wanted a query.
        exact: Compare with every passage, instead of following the graph.

    Raises:
        UsageError: For a depth out of range, or an empty query.
        StoreError: If the engine fails.
    """
    for batch in in_batches(queries, _QUERIES_PER_BATCH):
        answers = client.search_many([query.text for query in batch], limit=depth, exact=exact)
        yield from zip(batch, answers, strict=True)


def write_run(
    answers: Iterable[tuple[Query, Sequence[Hit]]], file: TextIO, tag: str = RUN_TAG
) -> int:
    """Write answers as a TREC run: ``qid Q0 pid rank score tag``, a line a hit.

    Returns:
        The number of queries written.

    Raises:
        UsageError: For a qid or pid with white space in it, which the form cannot hold.
    """
    count = 0
    for query, hits in answers:
        for hit in hits:
            for name in (query.qid, hit.pid):
                if len(name.split()) != 1:
                    raise UsageError(f"{name!r} holds white space: a TREC run cannot hold it")
            # nine significant digits tell any two float32 apart
            file.write(f"{query.qid} Q0 {hit.pid} {hit.rank} {hit.score:.9g} {tag}\n")
        count += 1
    return count
