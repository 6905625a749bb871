"""Judgments in TREC's and BEIR's form."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.evaluation import read_qrels

TREC = b"q1 0 a 3\nq1\t0\tb\t0\r\n\nq2 Q0 a -1\nq1 0 a 3\n"
BEIR = b"query-id\tcorpus-id\tscore\r\nq1\ta\t3\nq1\tb\t0\nq2\ta\t-1\n"


@pytest.mark.parametrize(
    "content",
    [
        TREC,
        BEIR,
        gzip.compress(TREC, mtime=0),
        gzip.compress(BEIR, mtime=0),
        b"\xef\xbb\xbf" + BEIR,
    ],
    ids=["trec", "beir", "trec.gz", "beir.gz", "bom"],
)
def test_judgments_are_read(tmp_path: Path, content: bytes) -> None:
    """The form is seen from the content; the same judgment twice counts once."""
    path = tmp_path / "qrels"
    path.write_bytes(content)

    assert {"q1": {"a": 3, "b": 0}, "q2": {"a": -1}} == read_qrels(path)


def test_a_pid_of_beir_may_hold_spaces(tmp_path: Path) -> None:
    """Its columns are split at tabs alone."""
    path = tmp_path / "test.tsv"
    path.write_bytes(b"query-id\tcorpus-id\tscore\nq 1\ta b\t1\n")

    assert {"q 1": {"a b": 1}} == read_qrels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q1 0 a 1\nq1 0 b\n", r"qrels:2: expected 4 columns, .*, got 3: 'q1 0 b'; BEIR's format"),
        (b"q1\ta\t1\n", r"qrels:1: expected 4 columns, .*query-id<TAB>corpus-id<TAB>score"),
        (BEIR + b"q2 a 1\n", r"qrels:5: expected 3 columns, query-id<TAB>corpus-id<TAB>score"),
        (BEIR + b"q2\t\t1\n", r"qrels:5: expected 3 columns"),
        (b"q1 0 a high\n", r"qrels:1: the grade must be an integer, got 'high'"),
        (b"q1 0 a 1.5\n", r"qrels:1: the grade must be an integer, got '1\.5'"),
        (b"q1 0 a 1\nq1 0 a 2\n", r"qrels:2: passage 'a' has the grades 1 and 2 for query 'q1'"),
        (b"", r"qrels has no judgments; expected lines 'qid 0 pid grade', or BEIR's table"),
        (BEIR[:26], r"qrels has no judgments"),
        (b"q1 0 a 0\nq1 0 b -1\n", r"qrels must have a grade of 1 or more, got 0 as the highest"),
        (b"1,0,159,1\n", r"qrels:1: .* got 1, with commas instead of spaces or tabs: '1,0,159,1'"),
        (b"query-id,corpus-id,score\n1,159,1\n", r"qrels:1: .*with commas instead of"),
        (b"q1 Q0 a 1 2.5 tag\n", r"qrels:1: .* got 6, as in a TREC run: 'q1 Q0 a 1 2\.5 tag'"),
        (b"1\t159\t160\n", r"qrels:1: expected 4 columns, qid 0 pid grade, got 3: '1\\t159\\t160'"),
        (
            b"how big is it\tIt is big.\tIt is red.\n",
            r"qrels:1: expected 4 columns, .* got 10: 'how",
        ),
        (b"what is\ta city\n", r"qrels:1: the grade must be an integer, got 'city'"),
        (b"1 159 0 1\n", r"qrels:1: .*got '1 159 0 1': are columns 2 and 3 swapped\?"),
        (b"1 0 1 159\n", r"qrels:1: the grade must be -100 to 100, got 159: is the grade the last"),
        (
            b"1 0 1 59\n1 0 1 59\n2 0 1 7\n3 0 1 8\n",
            r"3 grades but only 1 pids, such as '1': are the",
        ),
        (b'{"query-id": "1", "corpus-id": "159", "score": 1}\n', r"qrels:1: expected 4 columns"),
        (b"qid iteration pid grade\n1 0 159 1\n", r"the grade must be an integer, got 'grade'"),
    ],
)
def test_s7_invalid_judgment_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The message has the file and the line."""
    path = tmp_path / "qrels"
    path.write_bytes(content)

    with pytest.raises(SourceError, match=message):
        read_qrels(path)


def test_s7_columns_of_beir_may_have_another_order(tmp_path: Path) -> None:
    """The header names them."""
    path = tmp_path / "test.tsv"
    path.write_bytes(b"corpus-id\tquery-id\tscore\n159\t1\t2\n")

    assert {"1": {"159": 2}} == read_qrels(path)


def test_s7_pid_may_be_zero(tmp_path: Path) -> None:
    """It is MS MARCO's first passage."""
    path = tmp_path / "qrels"
    path.write_bytes(b"1 0 0 1\n2 Q0 0 1\n")

    assert {"1": {"0": 1}, "2": {"0": 1}} == read_qrels(path)
