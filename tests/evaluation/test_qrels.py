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
        (b"q1 0 a 1\nq1 0 b\n", r"qrels:2: expected 4 columns, .*, got 3; BEIR's format"),
        (b"q1\ta\t1\n", r"qrels:1: expected 4 columns, .*query-id<TAB>corpus-id<TAB>score"),
        (BEIR + b"q2 a 1\n", r"qrels:5: expected 3 columns, query-id<TAB>corpus-id<TAB>score"),
        (BEIR + b"q2\t\t1\n", r"qrels:5: expected 3 columns"),
        (b"q1 0 a high\n", r"qrels:1: the grade must be an integer, got 'high'"),
        (b"q1 0 a 1.5\n", r"qrels:1: the grade must be an integer, got '1\.5'"),
        (b"q1 0 a 1\nq1 0 a 2\n", r"qrels:2: passage 'a' has the grades 1 and 2 for query 'q1'"),
        (b"", r"qrels has no judgments; expected lines 'qid 0 pid grade', or BEIR's table"),
        (BEIR[:26], r"qrels has no judgments"),
    ],
)
def test_invalid_judgment_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The message has the file and the line."""
    path = tmp_path / "qrels"
    path.write_bytes(content)

    with pytest.raises(SourceError, match=message):
        read_qrels(path)
