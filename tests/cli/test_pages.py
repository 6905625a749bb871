"""Pages, cursors and score thresholds of the command `search`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msmarco_qdrant import Passage, ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store of passages that a word finds, the shorter the better."""
    rows = [Passage(str(n), " ".join(["whale", *["sea"] * n])) for n in range(7)]
    ingest_passages(rows, tmp_path / "store", encoder=HashingEncoder())
    return str(tmp_path / "store")


def _search(store: str, *options: str) -> tuple[list[str], str]:
    done = command(
        "search", "whale", "--store", store, "--mode", "bm25", "-n", "3", "--json", *options
    )
    assert done.status == 0, done.err
    return [hit["pid"] for hit in json.loads(done.out)], done.err


def test_pages_follow_each_other(store: str) -> None:
    """An offset prints the cursor of the next page; the last page prints none."""
    assert "--cursor" not in _search(store)[1]
    found, printed = _search(store, "--offset", "0")
    pids = [*found]
    while "next page: --cursor" in printed:
        found, printed = _search(store, "--cursor", printed.split()[-1])
        pids += found
    assert [*map(str, range(7))] == sorted(pids)
    assert pids[3:6] == _search(store, "--offset", "3")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score-threshold", "-1"], "must be 0 or more, the range of BM25 scores"),
        (["--offset", "1", "--cursor", "abc"], "pass either --offset or --cursor, not both"),
        (["--cursor", "abc"], "--cursor must be the cursor of a page of hits"),
        (["--rerank-sigmoid"], "--rerank-sigmoid needs --reranker"),
        (["--offset", "9999"], "--offset + --limit must be at most 10,000"),
    ],
)
def test_what_has_no_meaning_is_refused(store: str, options: list[str], message: str) -> None:
    """With the rule."""
    done = command("search", "whale", "--store", store, "--mode", "bm25", *options)
    assert done.status == 2
    assert message in done.err


def test_a_threshold_omits_worse_hits(store: str) -> None:
    """At most those without it."""
    every = command("search", "whale", "--store", store, "--mode", "bm25", "--json")
    hits = json.loads(every.out)
    least = str(hits[2]["score"] - 1e-6)
    assert _search(store, "-n", "10", "--score-threshold", least)[0] == [
        hit["pid"] for hit in hits if hit["score"] >= float(least)
    ]
