"""Cross-encoders of random weights through every path of a search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias, get_args

import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.encoding import EncoderOptions, Reranker, load_reranker
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.testing import HashingEncoder
from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs

QUERIES = ["how big is london", "what do cats eat", "who made the first telephone"]
DEPTH = 12
Search: TypeAlias = Callable[[SearchMode, int | None], list[list[Hit]]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged sample, encoded by nothing that costs."""
    path = tmp_path_factory.mktemp("reranking") / "store"
    with sample_passages() as source:
        ingest_passages(source, path, encoder=HashingEncoder())
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cross-encoder."""
    return save_tiny_pairs(tmp_path_factory.mktemp("bert"), PairRecipe("bert"))


@pytest.fixture(scope="module")
def reranker(directory: Path) -> Reranker:
    """The same, loaded."""
    return load_reranker(directory, device="cpu")


@pytest.fixture(scope="module")
def client(store: Path, directory: Path) -> Iterator[SearchClient]:
    """A client that has loaded it by the name of its directory."""
    options = EncoderOptions(device="cpu", precision="int8")  # which cross-encoders have not
    with SearchClient.open(
        store, encoder=HashingEncoder(), encoder_options=options, reranker=directory
    ) as opened:
        yield opened


def in_a_loop(store: Path, directory: Path) -> Search:
    """Concurrent searches of the asynchronous client."""

    async def searched(mode: SearchMode, depth: int | None) -> list[list[Hit]]:
        async with await AsyncSearchClient.open(
            store, encoder=HashingEncoder(), reranker=directory
        ) as client:
            await client.warm_up()
            searches = (
                client.search(query, mode=mode, limit=DEPTH, rerank_depth=depth)
                for query in QUERIES
            )
            return list(await asyncio.gather(*searches))

    return lambda mode, depth: asyncio.run(searched(mode, depth))


def check_permutation(
    candidates: Sequence[Sequence[Hit]], found: Sequence[Sequence[Hit]], reranker: Reranker
) -> None:
    """The same hits with the scores of the cross-encoder, by falling score."""
    for query, before, after in zip(QUERIES, candidates, found, strict=True):
        assert len(before) == len(after) > 1
        assert sorted(hit.pid for hit in before) == sorted(hit.pid for hit in after)
        scores = reranker.scores([(query, hit.text) for hit in after])
        assert scores.tolist() == pytest.approx([hit.score for hit in after], abs=0.03)  # bfloat16
        assert sorted((hit.score for hit in after), reverse=True) == [hit.score for hit in after]
        assert [*range(1, len(after) + 1)] == [hit.rank for hit in after]
        kept = {hit.pid: replace(hit, rank=0, score=0.0) for hit in before}
        assert [kept[hit.pid] for hit in after] == [replace(h, rank=0, score=0.0) for h in after]


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_one_by_one_and_many(client: SearchClient, mode: SearchMode, reranker: Reranker) -> None:
    """`search` and `search_many`."""
    candidates = client.search_many(QUERIES, mode=mode, limit=DEPTH)
    check_permutation(
        candidates,
        [client.search(one, mode=mode, limit=DEPTH, rerank_depth=DEPTH) for one in QUERIES],
        reranker,
    )
    check_permutation(
        candidates,
        client.search_many(QUERIES, mode=mode, limit=DEPTH, rerank_depth=DEPTH),
        reranker,
    )


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_from_an_event_loop(
    store: Path, directory: Path, mode: SearchMode, reranker: Reranker
) -> None:
    """Searches that go on at the same time."""
    search = in_a_loop(store, directory)
    check_permutation(search(mode, None), search(mode, DEPTH), reranker)


@pytest.mark.parametrize("mode", get_args(SearchMode))
def test_given_candidates(client: SearchClient, mode: SearchMode, reranker: Reranker) -> None:
    """`rank_many`, of passages that need not share a word with the query."""
    with sample_passages() as source:
        rows = islice(Corpus(source), DEPTH)
        given = [[row.pid for row in rows if isinstance(row, Passage)]] * len(QUERIES)
    check_permutation(
        client.rank_many(QUERIES, given, mode=mode),
        client.rank_many(QUERIES, given, mode=mode, rerank=True),
        reranker,
    )
