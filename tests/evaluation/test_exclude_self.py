"""Queries that are passages themselves, and two collections at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import Qrels, Run, System, evaluate_search
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker

_PASSAGES = [
    Passage("1", "castle garden"),
    Passage("2", "castle garden river"),
    Passage("3", "bridge river"),
    Passage("4", "bridge river market"),
]
_QUERIES = [Query("1", "castle garden"), Query("3", "bridge river")]
_QRELS: Qrels = {"1": {"1": 1, "2": 1}, "3": {"4": 1}}


@pytest.fixture
def clients() -> Iterator[tuple[SearchClient, SearchClient]]:
    """Two collections; the second lacks passage 2."""
    encoder = HashingEncoder(4096)
    with closing(open_store(":memory:", create=True)) as store:
        for name, passages in (("one", _PASSAGES), ("two", [*_PASSAGES[:1], *_PASSAGES[2:]])):
            ingest_passages(passages, store, encoder=encoder, collection=name, optimize=False)
        one, two = (
            SearchClient.open(
                store, collection=name, encoder=encoder, reranker=WordOverlapReranker()
            )
            for name in ("one", "two")
        )
        yield one, two


@pytest.mark.parametrize(
    "system",
    [System(), System("bm25"), System("hybrid"), System(rerank_depth=2), System(rerank_depth=3)],
    ids=lambda system: f"{system.name}-{system.rerank_depth}",
)
def test_a_querys_own_passage_is_left_out(
    clients: tuple[SearchClient, SearchClient], system: System
) -> None:
    """Of answers, which keep their length, and of judgments."""
    answers: dict[str, list[tuple[int, str]]] = {}

    def keep(query: Query, hits: Sequence[Hit]) -> None:
        answers[query.qid] = [(hit.rank, hit.pid) for hit in hits]

    def measure(*, exclude_self: bool) -> float:
        evaluation = evaluate_search(
            clients[0],
            _QUERIES,
            _QRELS,
            [system],
            measures="RR@1",
            on_answer=keep,
            exclude_self=exclude_self,
        ).evaluation
        return evaluation.runs[0].values["RR@1"].mean

    assert 0.5 == measure(exclude_self=False)
    assert {"1": [(1, "1")], "3": [(1, "3")]} == answers
    assert 1.0 == measure(exclude_self=True)
    assert {"1": [(1, "2")], "3": [(1, "4")]} == answers


@pytest.mark.parametrize("role", ["candidates", "others"])
def test_given_runs_and_candidates_lack_it_too(
    clients: tuple[SearchClient, SearchClient], role: str
) -> None:
    """So that all runs are compared alike."""
    run = Run("given", {"1": [("1", 2.0), ("2", 1.0)], "3": [("3", 2.0), ("4", 1.0)]})
    given: Any = {role: run if role == "candidates" else [run]}
    found = evaluate_search(
        clients[0], _QUERIES, _QRELS, ["dense"], measures="RR@1", exclude_self=True, **given
    ).evaluation
    assert [1.0, 1.0] == [one.values["RR@1"].mean for one in found.runs]


def test_two_collections_are_compared(
    clients: tuple[SearchClient, SearchClient], caplog: pytest.LogCaptureFixture
) -> None:
    """Each system searches both; the first collection is the baseline."""
    one, two = clients
    found = evaluate_search(
        one,
        _QUERIES,
        _QRELS,
        ["dense", "bm25"],
        measures="R@10",
        exclude_self=True,
        against={"two": two},
    ).evaluation
    names = ["dense", "bm25", "dense in two", "bm25 in two"]
    assert names == [run.name for run in found.runs]
    assert [1.0, 1.0, 0.5, 0.5] == [run.values["R@10"].mean for run in found.runs]
    assert {"dense"} == {comparison.baseline for comparison in found.comparisons}
    assert "'two' lacks 1 of the relevant passages" in caplog.text


def test_another_collection_needs_a_system(clients: tuple[SearchClient, SearchClient]) -> None:
    """With runs alone there is nothing to search it for."""
    run = Run("given", {"1": [("2", 1.0)]})
    with pytest.raises(UsageError, match="'two' needs one system or more"):
        evaluate_search(clients[0], _QUERIES, _QRELS, [], others=[run], against={"two": clients[1]})


def test_a_collection_with_tenants_is_refused(clients: tuple[SearchClient, SearchClient]) -> None:
    """Before a search: none of its answers is of the whole collection."""
    one, two = clients
    set_tenant_field(two.store, "two", "customer")
    tenants = SearchClient.open(two.store, collection="two", encoder=HashingEncoder(4096))
    with pytest.raises(UsageError, match="collection 'two' is read by one tenant at a time"):
        evaluate_search(one, _QUERIES, _QRELS, [System()], against={"two": tenants})
