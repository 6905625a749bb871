"""Choice of search options by judgments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import Fusion, SearchClient, SearchDefaults
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import (
    Qrels,
    Run,
    System,
    evaluate_search,
    plan_evaluation,
    tune_search,
    tuning_json,
    tuning_text,
)
from msmarco_qdrant.evaluation.tuning import FUSIONS, cross_validate
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.evaluation.collection import QRELS, QUERIES, ListeningEncoder

_COUNT = 40


@pytest.fixture(scope="module")
def words() -> Any:
    """Passages that BM25 ranks better than vectors: a rare word of each query decides."""
    passages = [
        Passage(str(n), f"rare{n} {' '.join(f'w{(n * 7 + k * k) % 30}' for k in range(8))}")
        for n in range(_COUNT)
    ]
    queries = [
        Query(f"q{n}", f"rare{n} w{(n * 5 + 1) % 30} w{(n * 11 + 2) % 30} w{n * 3 % 30}")
        for n in range(_COUNT)
    ]
    qrels: Qrels = {f"q{n}": {str(n): 1} for n in range(_COUNT)}
    store = open_store(":memory:", create=True)
    ingest_passages(passages, store, encoder=HashingEncoder(16), optimize=False)
    with SearchClient.open(
        store, encoder=HashingEncoder(16), reranker=WordOverlapReranker()
    ) as client:
        yield client, queries, qrels
    store.close()


@pytest.mark.slow
def test_the_best_fusion_is_chosen_if_its_gain_is_certain(words: Any) -> None:
    """By the means that evaluations of the same fusions give; the gain is on unseen queries."""
    client, queries, qrels = words
    tuning = tune_search(client, queries, qrels, measure="RR@10")
    found = tuning.fusion
    assert found.best == found.chosen == tuning.defaults.fusion != found.current
    assert found.interval is not None
    assert 0 < found.interval.low <= found.gain
    assert max(found.means.values()) == found.means[found.best]
    asked = [found.best, Fusion("rrf"), Fusion(dense_weight=0.5)]
    systems = [System("hybrid", fusion) for fusion in asked]
    runs = evaluate_search(client, queries, qrels, systems, measures="RR@10").evaluation.runs
    measured = [run.values["RR@10"].mean for run in runs]
    assert pytest.approx([found.means[fusion] for fusion in asked]) == measured
    assert (None, None) == (tuning.ef, tuning.rerank)
    assert "tuned by RR@10 of 40 queries" == tuning.defaults.source


def test_each_query_is_encoded_once() -> None:
    """However many fusions are tried; those without judgments are left out."""
    listening = ListeningEncoder()
    store = open_store(":memory:", create=True)
    ingest_passages([Passage("b", "castle garden")], store, encoder=listening, optimize=False)
    client = SearchClient.open(store, encoder=listening)
    listening.asked.clear()
    seen: list[tuple[int, int]] = []
    tune_search(client, QUERIES, {"q1": {"b": 1}}, on_progress=lambda *done: seen.append(done))
    assert [["castle"]] == listening.asked
    assert [(1, 1)] == seen
    store.close()


@pytest.mark.slow
def test_a_depth_of_reranking_is_chosen(words: Any) -> None:
    """The smallest that is as good as the deepest; `rerank_depth="auto"` then uses it."""
    client, queries, qrels = words
    tuning = tune_search(client, queries, qrels, measure="RR@10", rerank=True)
    assert tuning.rerank is not None
    assert [10, 20, 50, 100] == [trial.depth for trial in tuning.rerank.trials]
    assert tuning.defaults.rerank_depth == tuning.rerank.chosen
    chosen = next(t for t in tuning.rerank.trials if t.depth == tuning.rerank.chosen)
    assert chosen.interval is not None
    assert chosen.interval.low > -0.01
    assert "reranked" in tuning_text(tuning)


def test_ef_is_chosen_by_the_recall_of_exact_search(tmp_path: Path) -> None:
    """On an engine with an index, once it is built."""
    passages = [Passage(str(n), f"tower {n} of city {n % 7}") for n in range(300)]
    queries = [Query(f"q{n}", f"tower {n}") for n in range(20)]
    qrels: Qrels = {f"q{n}": {str(n): 1} for n in range(20)}
    with open_store(tmp_path / "store", create=True) as store:
        ingest_passages(passages, store, encoder=HashingEncoder(16), optimize=False)
        client = SearchClient.open(store, encoder=HashingEncoder(16))
        assert tune_search(client, queries, qrels).ef is None
        store.collection("msmarco").optimize()
        found = tune_search(client, queries, qrels).ef
    if found is not None:  # a small collection may need no index
        assert found.chosen in [trial.ef for trial in found.trials]


def test_the_current_fusion_stays_without_certainty(client: SearchClient) -> None:
    """Three queries prove nothing: what the collection keeps is kept."""
    tuning = tune_search(client, QUERIES, QRELS, measure="RR@10")
    assert tuning.fusion.chosen == tuning.fusion.current == Fusion()
    assert SearchDefaults(source="tuned by RR@10 of 3 queries") == tuning.defaults
    text = tuning_text(tuning)
    assert "the current fusion stays" in text
    assert "chosen: the package's" in text
    document = tuning_json(tuning)
    assert len(FUSIONS) == len(document["fusion"]["means"])
    assert {"measure", "queries", "ef", "rerank", "fusion", "defaults"} == document.keys()


def test_a_gain_is_of_queries_that_the_choice_has_not_seen() -> None:
    """A fusion that is best by luck of single queries gains nothing."""
    one, other = Fusion(dense_weight=0.2), Fusion(dense_weight=0.9)
    qids = [f"q{n}" for n in range(10)]
    better = {one: dict.fromkeys(qids, 0.5), other: dict.fromkeys(qids, 0.75)}
    assert [0.25] * 10 == cross_validate(better, one)
    assert [0.0] * 10 == cross_validate(better, other)
    lucky = {one: dict.fromkeys(qids, 0.5), other: dict.fromkeys(qids, 0.4) | {"q3": 1.0}}
    assert sum(cross_validate(lucky, one)) <= 0


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("nDCG@10 RR@10", "tuning needs one measure with a cutoff of at most 100"),
        ("AP", "one measure with a cutoff of at most 100, such as nDCG@10, got 'AP'"),
        ("R@1000", "got 'R@1000'"),
        ("RR(rel=2)@10", "counts grades of 2 or more"),
        ("nothing@10", "is unknown"),
    ],
)
def test_an_unsuitable_measure_is_refused(
    client: SearchClient, listening: ListeningEncoder, measure: str, message: str
) -> None:
    """Before the first search."""
    listening.asked.clear()
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        tune_search(client, QUERIES, QRELS, measure=measure)
    assert [] == listening.asked


def test_a_choice_of_the_depth_needs_a_cross_encoder(client: SearchClient) -> None:
    """Refused before the first search."""
    plain = SearchClient.open(client.store, encoder=client.encoder)
    with pytest.raises(UsageError, match="without a reranker"):
        tune_search(plain, QUERIES, QRELS, rerank=True)


def test_a_collection_with_tenants_is_measured_by_one_of_them() -> None:
    """Its passages alone are searched, also as candidates; without a tenant it is refused."""
    with open_store(":memory:", create=True) as store:
        passages = [
            Passage("1", "castle", {"customer": "beta"}),
            Passage("2", "castle by the sea", {"customer": "acme"}),
            Passage("3", "a ship", {"customer": "acme"}),
        ]
        ingest_passages(passages, store, encoder=HashingEncoder(), optimize=False)
        set_tenant_field(store, "msmarco", "customer")
        client = SearchClient.open(store, encoder=HashingEncoder())
        queries, qrels = [Query("q", "castle")], {"q": {"1": 1, "2": 1}}
        for measure in (
            lambda: tune_search(client, queries, qrels),
            lambda: evaluate_search(client, queries, qrels, ["dense"]),
        ):
            with pytest.raises(UsageError, match="'msmarco' is read by one tenant at a time"):
                measure()

        tuned = tune_search(client, queries, qrels, tenant="acme")
        assert tuned.defaults.source.endswith(" of 1 queries of one tenant")
        assert {0.613} == {round(mean, 3) for mean in tuned.fusion.means.values()}
        candidates = Run("all", {"q": [("1", 2.0), ("2", 1.0)]})
        for given, expected in ((None, ["2", "3"]), (candidates, ["2"])):
            found = evaluate_search(
                client, queries, qrels, ["dense"], candidates=given, tenant="acme"
            )
            assert expected == [pid for pid, _ in found.runs[-1].rankings["q"]]
            assert 1 == found.evaluation.missing
        alone = {"q": {"1": 1}}
        with pytest.raises(UsageError, match=r"'msmarco' of the tenant 'acme'.*'2', '3'"):
            evaluate_search(client, queries, alone, ["dense"], tenant="acme")
        with pytest.raises(UsageError, match="tenant must be a non-empty string, got 3"):
            plan_evaluation(queries, qrels, ["dense"], tenant=3)  # type: ignore[arg-type]
