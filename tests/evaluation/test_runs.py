"""Runs: read, ordered as by trec_eval, made of hits, and written."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation import Run, collect_run, read_run, save_run, write_run
from msmarco_qdrant.evaluation.runs import PackedRanking, rank_scores

LINES = b"q1 Q0 b 2 2.5 tag\nq1\tQ0\ta\t1\t3.5e0\ttag\r\n\nq2 Q0 a 1 -1 tag"


def hits(*found: tuple[str, float]) -> list[Hit]:
    """Hits of these pids and scores."""
    return [Hit(rank, pid, score, "text", {}) for rank, (pid, score) in enumerate(found, 1)]


@pytest.mark.parametrize("content", [LINES, gzip.compress(LINES)], ids=["plain", "gzip"])
def test_a_run_is_read(tmp_path: Path, content: bytes) -> None:
    """By score, not by the order of lines; named after the file."""
    path = tmp_path / "bm25.dl19.trec.gz"
    path.write_bytes(content)

    expected = Run("bm25.dl19", {"q1": [("a", 3.5), ("b", 2.5)], "q2": [("a", -1.0)]})

    assert expected == read_run(path)
    assert ("mine", "BM25") == (read_run(path, "mine").name, read_run(path, "x", "BM25").model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"q1 Q0 a 1 2.5 tag\nq1 Q0 b 2 1.5\n",
            r"run\.trec:2: expected 6 columns, qid Q0 pid .*, got 5",
        ),
        (b"q1 Q0 a 1 high tag\n", r"run\.trec:1: the score must be a finite number, got 'high'"),
        (b"q1 Q0 a 1 nan tag\n", r"run\.trec:1: the score must be a finite number, got 'nan'"),
        (b"q1 Q0 a 1 -inf tag\n", r"run\.trec:1: the score must be a finite number, got '-inf'"),
        (b"q1 Q0 a 1 2 t\n\nq1 Q0 a 2 1 t\n", r"run\.trec:3: query 'q1' has pid 'a' twice"),
        (b"\n", r"run\.trec has no hits; expected a line per hit"),
        (b"q1 Q0 \xff 1 2 t\n", r"run\.trec:1: not UTF-8 at byte 7"),
        (b"x" * 70_000, r"run\.trec:1: a line must have at most 65,536 bytes"),
        (gzip.compress(LINES, mtime=0)[:-12], r"run\.trec:\d: the gzip stream ends early"),
        (b"q1 0 a 1\n", r"run\.trec:1: expected 6 columns, .*, got 4, as in judgments: 'q1 0 a 1'"),
        (
            b"q1 Q0 a 2.5 1 t\n",
            r"run\.trec:1: the rank must be an integer, got '2\.5'; expected qid",
        ),
        (
            b"q1 Q0 a 1 0.1 t\nq1 Q0 b 2 0.4 t\n",
            r"run\.trec:2: .* got rank 1 with score 0\.1 and rank 2 with 0\.4 for query 'q1': w",
        ),
        (b"q1 Q0 a 2 9 t\nq1 Q0 b 1 8 t\n", r"run\.trec:2: a higher rank must not have a higher"),
        (b"q1 Q0 a 1 0 t\nq1 Q0 b 2 0 t\n", r"run\.trec has the score 0 in every line, but"),
    ],
)
def test_s8_invalid_run_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The message has the file and the line."""
    path = tmp_path / "run.trec"
    path.write_bytes(content)

    with pytest.raises(SourceError, match=message):
        read_run(path)


def test_s8_ranks_may_be_equal_or_of_ties(tmp_path: Path) -> None:
    """Only a contradiction is refused: constant ranks and equal scores are none."""
    path = tmp_path / "run.trec"
    path.write_text(
        "q1 Q0 a 0 1 t\nq1 Q0 b 0 2 t\nq2 Q0 a 1 2 t\nq2 Q0 b 2 2 t\n"
        "q3 Q0 a 1 0.70000001 t\nq3 Q0 b 2 0.700000011 t\n"
    )

    assert ["b", "a"] == [pid for pid, _ in read_run(path).rankings["q1"]]


@pytest.mark.parametrize(
    ("rankings", "message"),
    [
        ([("q1", [("a", 1.0)]), ("q1", [("b", 1.0)])], "each query needs its own qid, got 'q1' tw"),
        ([("q1", [("a", 1.0), ("a", 0.5)])], "got 'a' twice for query 'q1'"),
        ([("q1", [("a", float("nan"))])], "got the score nan of 'a' for query 'q1'"),
    ],
)
def test_s8_invalid_run_is_not_saved(
    tmp_path: Path, rankings: list[tuple[str, list[tuple[str, float]]]], message: str
) -> None:
    """No file is written, and none is left half written."""
    with pytest.raises(UsageError, match=message):
        save_run(tmp_path / "run.trec", rankings)

    assert [] == [*tmp_path.iterdir()]


def test_missing_runs_are_refused(tmp_path: Path) -> None:
    """A missing file, and a directory."""
    with pytest.raises(SourceError, match=r"no such file: .*run\.trec"):
        read_run(tmp_path / "run.trec")
    with pytest.raises(SourceError, match=r"is a directory: pass the files in it"):
        read_run(tmp_path)


def test_ties_are_broken_by_pid_descending() -> None:
    """Scores that are one float32 are a tie, as trec_eval holds them."""
    expected = [("z", 2.0), ("b", 1.0), ("a", 1.0 + 1e-9), ("A", 1.0), ("c", 1.0 - 1e-6)]

    assert expected == rank_scores({"a": 1.0 + 1e-9, "A": 1.0, "c": 1.0 - 1e-6, "b": 1.0, "z": 2.0})


def test_a_run_is_made_of_hits() -> None:
    """A query without hits stays in it."""
    answers = [(Query("q1", "one"), hits(("a", 0.5), ("b", 0.5))), (Query("q2", "two"), [])]

    expected = Run("dense", {"q1": [("b", 0.5), ("a", 0.5)], "q2": []}, "all-MiniLM-L6-v2")

    assert expected == collect_run("dense", answers, "all-MiniLM-L6-v2")


def test_a_written_run_is_read_again(tmp_path: Path) -> None:
    """With the same order, although float32 scores differ in the ninth digit only."""
    rankings = {"q1": [("a", 0.12345679), ("b", 0.12345678), ("c", -3e-20)]}
    path = tmp_path / "kept.trec"
    with path.open("w") as file:
        assert 1 == write_run(rankings.items(), file)

    assert rankings == read_run(path).rankings
    assert "q1 Q0 a 1 0.12345679 msmarco-qdrant" == path.read_text().splitlines()[0]


@pytest.mark.parametrize("name", ["kept.trec", "kept.trec.gz"])
def test_a_saved_run_is_read_again(tmp_path: Path, name: str) -> None:
    """As gzip if its name ends in .gz; with the same bytes every time."""
    rankings = {"q1": [("b", 0.5), ("a", 0.25)], "q2": []}
    path = tmp_path / name
    assert 2 == save_run(path, rankings.items())
    first = path.read_bytes()
    assert 2 == save_run(path, rankings.items(), tag="msmarco-qdrant")

    assert first == path.read_bytes()
    assert name.endswith(".gz") == (first[:2] == b"\x1f\x8b")
    assert ("kept", {"q1": rankings["q1"]}) == (read_run(path).name, read_run(path).rankings)
    assert [path] == [*tmp_path.iterdir()]


def test_failed_run_changes_no_file(tmp_path: Path) -> None:
    """The old file stays, and no part of the new one."""
    path = tmp_path / "kept.trec.gz"
    save_run(path, [("q1", [("a", 1.0)])])
    before = path.read_bytes()
    with pytest.raises(UsageError, match="without white space"):
        save_run(path, [("q1", [("a", 1.0)]), ("q2", [("a b", 1.0)])])

    assert (before, [path]) == (path.read_bytes(), [*tmp_path.iterdir()])


def test_a_ranking_is_a_sequence() -> None:
    """As a list of pairs is, which it equals."""
    pairs = [("b", 2.0), ("a", 1.0), ("c", -0.5)]
    ranking = PackedRanking([pid for pid, _ in pairs], [score for _, score in pairs])

    assert pairs == ranking
    assert ranking == PackedRanking("bac", [2.0, 1.0, -0.5])
    assert (3, ("c", -0.5), pairs[:2]) == (len(ranking), ranking[-1], ranking[:2])
    assert (pairs, pairs[::-1], repr(pairs)) == ([*ranking], [*reversed(ranking)], repr(ranking))
    assert ("a", 1.0) in ranking
    for other in (pairs[:2], [], None, PackedRanking("bac", [2.0, 1.0, 0.5])):
        assert ranking != other
    with pytest.raises(IndexError):
        ranking[3]


def test_a_run_is_small() -> None:
    """Of two systems over the same passages the second costs less than 20 bytes a passage."""
    random = Random(1)
    scores = [random.random() for _ in range(1000)]
    pids = [str(random.randrange(10**6, 10**7)) for _ in range(1000)]
    first = rank_scores(dict(zip(pids, scores, strict=True)))
    tracemalloc.start()
    try:
        second = rank_scores(
            {str(int(pid)): score for pid, score in zip(pids, scores, strict=True)}
        )
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert first == second
    assert used < 20 * len(second)


@pytest.mark.parametrize(("qid", "pid"), [("q 1", "a"), ("q1", "a\tb"), ("q1", "")])
def test_white_space_is_not_written(qid: str, pid: str) -> None:
    """A TREC run is split at it."""
    with pytest.raises(UsageError, match="without white space"):
        write_run([(qid, [(pid, 1.0)])], io.StringIO())
