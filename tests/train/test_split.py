"""Splitting judged queries: by text, stable, and without a leak between the parts."""

from __future__ import annotations

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.train.split import split_queries

QUERIES = [Query(f"q{number}", f"what is item {number}") for number in range(1000)]
QRELS = {query.qid: {"1": 1} for query in QUERIES}


def test_parts_have_the_shares_and_share_no_query() -> None:
    """Each query is in one part, and the shares are exact."""
    split = split_queries(QUERIES, QRELS, test_share=0.2, validation_share=0.1)
    parts = [{one.qid for one in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1000
    assert [700, 100, 200] == [len(part) for part in parts]


def test_order_of_the_queries_does_not_matter() -> None:
    """The same queries in another order have the same parts; another seed has others."""
    first = split_queries(QUERIES, QRELS)
    again = split_queries(QUERIES[::-1], QRELS)
    assert {one.qid for one in first.test} == {one.qid for one in again.test}
    assert first.test != split_queries(QUERIES, QRELS, seed=1).test


def test_equal_texts_are_in_one_part() -> None:
    """A text that is trained on is not tested under another qid."""
    twins = [Query(f"t{one.qid}", f"  WHAT is\titem {one.qid[1:]}") for one in QUERIES]
    split = split_queries([*QUERIES, *twins], {**QRELS, **{one.qid: {"1": 1} for one in twins}})
    parts = [{one.qid.lstrip("t") for one in part} for part in (split.train, split.test)]
    assert not parts[0] & parts[1]


def test_given_test_queries_are_not_trained_on() -> None:
    """Training queries with a test query's qid or text are left out."""
    test = [Query("q1", "another text"), *(Query(f"t{n}", f"What is item {n}") for n in range(50))]
    split = split_queries(QUERIES, QRELS, test=test)
    qids = {one.qid for one in (*split.train, *split.validation)}
    assert split.test == tuple(test)
    assert qids == {f"q{number}" for number in range(50, 1000)}


def test_queries_without_a_relevant_passage_are_left_out() -> None:
    """A grade of 0 is no positive."""
    qrels = {**QRELS, "q0": {"1": 0}, "q1": {}}
    split = split_queries(QUERIES, qrels)
    parts = (*split.train, *split.validation, *split.test)
    assert {one.qid for one in QUERIES} - {one.qid for one in parts} == {"q0", "q1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 0}, r"test_share must be above 0 and at most 0\.5, got 0"),
        ({"test_share": 0.6}, r"test_share must be above 0 and at most 0\.5, got 0\.6"),
        ({"validation_share": True}, r"validation_share must be above 0 .* got True"),
        ({"test_share": "0.1"}, r"test_share must be above 0 .* got '0\.1'"),
        ({"test_share": float("nan")}, r"test_share must be above 0 .* got nan"),
        ({"test": QUERIES[:3]}, r"10 queries .* in each part, got 3 for test of 997"),
    ],
)
def test_invalid_shares_and_small_parts_are_refused(
    options: dict[str, object], message: str
) -> None:
    """The rule, the value and the next step."""
    with pytest.raises(UsageError, match=message):
        split_queries(QUERIES, QRELS, **options)  # type: ignore[arg-type]


def test_few_queries_are_refused() -> None:
    """With 40 queries no test could show that a model is better."""
    with pytest.raises(UsageError, match=r"got 4 for validation of 40: pass more judged queries"):
        split_queries(QUERIES[:40], QRELS)


def test_repeated_qid_is_refused() -> None:
    """Two queries of one qid would have one set of judgments."""
    with pytest.raises(UsageError, match=r"each query needs its own qid, got 'q0' 2 times"):
        split_queries([*QUERIES, QUERIES[0]], QRELS)
