"""The first measure by topic and by query."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation import (
    Run,
    break_down,
    evaluate_runs,
    queries_table,
    read_topics,
    topics_text,
)
from tests.evaluation.collection import QRELS, QUERIES

_RUNS = [
    Run("one", {"q1": [("b", 2.0)], "q2": [("a", 2.0), ("c", 1.0)], "q3": [("a", 1.0)]}),
    Run("two", {"q1": [("b", 2.0)], "q2": [("c", 2.0)], "q3": [("d", 1.0)]}),
]


def test_means_are_those_of_the_topics_queries() -> None:
    """The topic with most queries first, queries without a topic as one of their own."""
    evaluation = evaluate_runs(QUERIES, QRELS, _RUNS, "RR@10")
    found = break_down(evaluation, {"q1": "films", "q2": "films", "q9": "music"})
    assert [("films", 2), ("(none)", 1)] == [(one.topic, one.queries) for one in found]
    assert {"one": 0.75, "two": 1.0} == found[0].means
    assert {"one": 0.0, "two": 1.0} == found[1].means
    assert found[0].intervals["one"] is not None
    assert {"one": None, "two": None} == found[1].intervals
    lines = topics_text(evaluation, found).splitlines()
    assert ["topic", "queries", "one", "two"] == lines[2].split()
    assert ["films", "2", "0.7500", "1.0000"] == lines[3].split()


def test_queries_are_listed_from_the_worst() -> None:
    """With the value of each run and the query's text."""
    evaluation = evaluate_runs(QUERIES, QRELS, _RUNS, "RR@10")
    lines = [line.split() for line in queries_table(evaluation, QUERIES).splitlines()[3:]]
    assert [
        ["q3", "0.0000", "1.0000", "bridge"],
        ["q2", "0.5000", "1.0000", "river"],
        ["q1", "1.0000", "1.0000", "castle"],
    ] == lines


def test_topics_are_read_from_lines(tmp_path: Path) -> None:
    """A repeated line counts once."""
    path = tmp_path / "topics.tsv"
    path.write_text("q1\tfilms and music\nq2\tsports\nq1\tfilms and music\n")
    assert {"q1": "films and music", "q2": "sports"} == read_topics(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no topics; expected lines qid<TAB>topic"),
        ("q1 films\n", r"topics.tsv:1: expected qid<TAB>topic, got 'q1 films'"),
        ("q1\t \n", "expected qid<TAB>topic"),
        ("q1\tfilms\nq1\tmusic\n", "query 'q1' has two topics, 'films' and 'music'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the line and what was expected."""
    path = tmp_path / "topics.tsv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_topics(path)


def test_topics_of_other_queries_are_refused() -> None:
    """The message has a qid of both."""
    evaluation = evaluate_runs(QUERIES, QRELS, _RUNS, "RR@10")
    with pytest.raises(UsageError, match=r"none of the 3 judged .* such as '7', the queries 'q1'"):
        break_down(evaluation, {"7": "films"})
