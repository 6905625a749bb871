"""A collection of random words that a coarse encoder searches badly and shared words judge well."""

from __future__ import annotations

import random
from pathlib import Path

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.testing import HashingEncoder
from msmarco_qdrant.train import MinedQuery

RANDOM = random.Random(18)
_WORDS = [f"word{number}" for number in range(200)]
PASSAGES = {f"p{number}": " ".join(RANDOM.sample(_WORDS, 6)) for number in range(300)}
QUERIES = [
    Query(f"q{number}", " ".join(PASSAGES[f"p{number}"].split()[:4])) for number in range(60)
]
QRELS = {query.qid: {f"p{query.qid[1:]}": 1} for query in QUERIES}
ENCODER = HashingEncoder(dimension=6)


def fill(store: Path) -> Path:
    """Fill a store with the passages."""
    ingest_passages([*PASSAGES.items()], store, encoder=ENCODER)
    return store


def open_client(store: Path) -> SearchClient:
    """Open a client on the filled store."""
    return SearchClient.open(store, encoder=ENCODER)


def mined(client: SearchClient, queries: list[Query], depth: int = 20) -> list[MinedQuery]:
    """Candidates by dense search, the known positives left out."""
    found = client.search_many([query.text for query in queries], limit=depth)
    return [
        MinedQuery(
            query.qid,
            tuple(QRELS[query.qid]),
            {"dense": tuple(hit.pid for hit in hits if hit.pid not in QRELS[query.qid])},
        )
        for query, hits in zip(queries, found, strict=True)
    ]
