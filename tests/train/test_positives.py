"""Positives from judgments, pairs and clicks."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.train import read_clicks, read_positives

TREC = b"q1 0 b 3\nq1 0 a 1\nq2 0 a 0\nq3 0 c 1\n"
BEIR = b"query-id\tcorpus-id\tscore\nq1\tb\t3\nq1\ta\t1\nq2\ta\t0\nq3\tc\t1\n"
PAIRS = b"q1\tb\nq1\ta\nq1\tb\nq3\tc\n"


@pytest.mark.parametrize(
    "content",
    [TREC, BEIR, PAIRS, b"qid\tpid\r\n" + PAIRS, gzip.compress(PAIRS)],
    ids=["trec", "beir", "pairs", "pairs with header", "pairs.gz"],
)
def test_positives_are_read_from_each_format(tmp_path: Path, content: bytes) -> None:
    """The content decides; pids are in the file's order, and grade 0 is not a positive."""
    path = tmp_path / "positives"
    path.write_bytes(content)

    found = read_positives(path)
    assert {"q1": ("b", "a"), "q3": ("c",)} == found
    assert ["q1", "q3"] == list(found)


def test_a_minimum_grade_leaves_lower_ones_out(tmp_path: Path) -> None:
    """Queries without any other are left out, too."""
    path = tmp_path / "qrels"
    path.write_bytes(TREC)

    assert {"q1": ("b",)} == read_positives(path, min_grade=2)
    with pytest.raises(SourceError, match="has no grade of 4 or more: pass a lower min_grade="):
        read_positives(path, min_grade=4)


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        (b"", {}, SourceError, "has no judgments"),
        (b"qid\tpid\n", {}, SourceError, "has no pairs; expected lines qid<TAB>pid"),
        (PAIRS + b"q4\n", {}, SourceError, r"positives:5: expected qid<TAB>pid, got 'q4'"),
        (PAIRS + b"q4\t\n", {}, SourceError, "positives:5: expected qid<TAB>pid"),
        (b"q1\thow big is london\n", {}, SourceError, "is this a file of queries"),
        (b"1 2 3\n", {}, SourceError, "positives:1: expected 4 columns"),
        (PAIRS, {"min_grade": 2}, UsageError, "has pairs, without grades: omit min_grade=2"),
        (TREC, {"min_grade": 0}, UsageError, "min_grade must be 1 to 100, got 0"),
        (TREC, {"min_grade": 101}, UsageError, "min_grade must be 1 to 100, got 101"),
        (TREC, {"min_grade": True}, UsageError, "min_grade must be 1 to 100, got True"),
        (TREC, {"min_grade": "2"}, UsageError, "min_grade must be 1 to 100, got '2'"),
    ],
)
def test_other_positives_are_refused(
    tmp_path: Path, content: bytes, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The message has the line, the expected form, or the next step."""
    path = tmp_path / "positives"
    path.write_bytes(content)

    with pytest.raises(error, match=message):
        read_positives(path, **options)


def test_clicks_give_queries_and_positives(tmp_path: Path) -> None:
    """Equal queries are one, counts are added, and the most clicked is first."""
    path = tmp_path / "clicks"
    path.write_bytes(
        b"query\tpid\tcount\nhow big is london\t7\t1\nbread \t8\t2\n"
        b"how  big is london\t9\t2\nhow big is london\t7\t3\nrare\t1\t0\n"
    )

    queries, positives = read_clicks(path)
    assert ["how big is london", "bread"] == [query.text for query in queries]
    assert [("7", "9"), ("8",)] == [positives[query.qid] for query in queries]
    assert [Query("67582bc9a3df7629", "bread")] == [q for q in queries if q.text == "bread"]

    queries, positives = read_clicks(path, min_count=3)
    assert {queries[0].qid: ("7",)} == positives


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        (b"", {}, SourceError, "has no clicks; expected lines query<TAB>pid<TAB>count"),
        (b"query\tpid\tcount\n", {}, SourceError, "has no clicks"),
        (b"a\t1\n", {}, SourceError, "clicks:1: expected query<TAB>pid<TAB>count, got"),
        (b"a\t1\t1\n\t2\t1\n", {}, SourceError, "clicks:2: expected query<TAB>pid<TAB>count"),
        (b"a\t1\t-1\n", {}, SourceError, "clicks:1: the count must be an integer .*got '-1'"),
        (b"a\t1\t1\nb\t1\tmany\n", {}, SourceError, "clicks:2: the count must be an integer"),
        (b"a\t1\t5\n", {"min_count": 6}, SourceError, "the most are 5: pass a lower min_count="),
        (b"a\t1\t5\n", {"min_count": 0}, UsageError, "min_count must be 1 or more, got 0"),
        (b"a\t1\t5\n", {"min_count": 1.5}, UsageError, "min_count must be 1 or more, got 1.5"),
    ],
)
def test_other_logs_are_refused(
    tmp_path: Path, content: bytes, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The message has the line, the expected form, or the next step."""
    path = tmp_path / "clicks"
    path.write_bytes(content)

    with pytest.raises(error, match=message):
        read_clicks(path, **options)
