"""The choice of negatives: rules, picks, promoted positives, counts, and the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.errors import MsmarcoQdrantError, SourceError, UsageError
from msmarco_qdrant.train import (
    ChoiceReport,
    MinedQuery,
    choose_negatives,
    compare_strategies,
    strategies_table,
)
from msmarco_qdrant.train.choose_candidates import Candidates
from msmarco_qdrant.train.choose_strategy import Strategy
from msmarco_qdrant.train.negatives_file import read_negatives, write_negatives

MINED = MinedQuery("q1", ("p1", "p2"), {"dense": ("a", "b", "c", "d"), "bm25": ("c", "e", "p1")})
SCORES = {"p1": 4.0, "p2": 6.0, "a": 5.0, "b": 3.0, "c": 1.0, "d": -2.0}
MANY = [
    MinedQuery(f"q{number}", ("p",), {"dense": tuple(f"n{rank}" for rank in range(1, 41))})
    for number in range(30)
]
MANY_SCORES = {
    mined.qid: {"p": 1.0, **{f"n{rank}": 1.0 - rank / 64 for rank in range(1, 41)}}
    for mined in MANY
}


def chosen(strategy: str, number: int | None = None, **options: Any) -> str:
    """The pids that a strategy chooses, in one string."""
    candidates = Candidates(MINED, SCORES, **options)
    return "".join(candidates.choose(Strategy.parse(strategy), number, seed=0).chosen)


@pytest.mark.parametrize(
    ("strategy", "number", "pids"),
    [
        ("random", None, "acbed"),  # by rank, of equal ranks by system; "e" is bm25's second
        ("ranks:1-1", None, "ac"),
        ("ranks:2-3", None, "be"),
        ("max-score:3", None, "cbd"),
        ("margin:3", None, "cd"),
        ("margin:3,to:highest", None, "cbd"),
        ("margin:3,to:median", None, "cd"),
        ("relative:0.75", None, "cbd"),
        ("relative:0.74", None, "cd"),
        ("ranks:2-4,margin:3", None, "d"),
        ("top", 2, "ab"),
        ("margin:3,top", 1, "c"),
        ("ranks:4-4,top", 3, "d"),
        ("margin:20", None, ""),
    ],
)
def test_candidates_that_meet_the_rules_are_chosen(
    strategy: str, number: int | None, pids: str
) -> None:
    """Rules of scores leave out a candidate without a score; the best rank comes first."""
    assert pids == chosen(strategy, number)


def test_without_scores_the_best_ranks_are_the_top() -> None:
    """With scores it is the best scores."""
    assert ("a", "c", "b") == Candidates(MINED).choose(Strategy(pick="top"), 3, 0).chosen


def test_a_random_choice_depends_on_the_seed_and_the_qid_only() -> None:
    """Not on the other queries; each candidate is as likely as any other."""
    strategy, counts = Strategy(ranks=(1, 20)), dict.fromkeys(range(1, 21), 0)
    for seed in range(40):
        for mined in MANY:
            choice = Candidates(mined).choose(strategy, 4, seed)
            assert choice == Candidates(mined).choose(strategy, 4, seed)
            assert (20, 4, 4) == (choice.allowed, len(choice.chosen), len({*choice.chosen}))
            ranks = [int(pid[1:]) for pid in choice.chosen]
            assert sorted(ranks) == ranks
            for rank in ranks:
                counts[rank] += 1
    expected = 40 * 30 * 4 / 20
    assert all(abs(count - expected) < 0.3 * expected for count in counts.values())


def test_candidates_above_a_score_become_positives() -> None:
    """The best first, after the known ones; the margin is still to those."""
    candidates = Candidates(MINED, SCORES, 3.0)
    assert (("p1", "p2", "a", "b"), 2) == (candidates.positives, candidates.promoted)
    assert "cd" == chosen("margin:3", promote_above=3.0)
    assert "ced" == chosen("random", promote_above=3.0)


def test_a_query_whose_positives_have_no_score_keeps_nothing_by_a_margin() -> None:
    """It is counted; rules without a margin need no positive."""
    mined = [MinedQuery("q", ("p",), {"dense": ("a", "b")})]
    scores = {"q": {"a": 0.2, "b": 0.9}}
    absolute, margin = compare_strategies(
        mined, ["max-score:0.5", "margin:0.1"], scores=scores, number=1
    )
    assert (1, 0, 0) == (absolute.chosen, absolute.empty, absolute.unanchored)
    assert (0, 1, 1) == (margin.chosen, margin.empty, margin.unanchored)


def test_a_report_counts_what_is_kept() -> None:
    """Candidates of several systems once."""
    mined = [MINED, MinedQuery("q2", ("p",), {"dense": ()})]
    (report,) = compare_strategies(mined, ["margin:3"], scores={"q1": SCORES}, number=2)
    expected = ChoiceReport(
        strategy="margin:3",
        number=2,
        queries=2,
        candidates=5,
        allowed=2,
        chosen=2,
        full=1,
        empty=1,
        promoted=0,
        unjudged=1,
        unanchored=1,
        mean_rank=2.5,
        mean_score=-0.5,
    )
    assert expected == report
    assert (
        "margin:3 allows 2 of 5 candidates (40.0%); negatives: 2; queries with 2 negatives: 1 of "
        "2; queries without any: 1; candidates without a score: 1; queries whose positives have "
        "no score: 1"
    ) == str(report)


def test_the_table_has_each_strategy_and_its_source() -> None:
    """By default common ones, those of scores if there are any."""
    ranked = strategies_table(compare_strategies(MANY))
    assert "ranks:1-60" in ranked
    assert "relative" not in ranked
    scored = strategies_table(compare_strategies(MANY, scores=MANY_SCORES))
    assert "queries: 30; candidates: 1,200" in scored
    (row,) = (line for line in scored.splitlines() if line.startswith("relative:0.95 "))
    assert ["92.5%", "120", "4.00", "100.0%", "0.0%"] == row.split()[1:6]
    assert "NV-Retriever, 0.95, arXiv:2407.15831" in scored
    (alone,) = compare_strategies([MINED], ["ranks:9-9"])
    assert "ranks:9-9  0.0%     0          0.00" in strategies_table([alone])


def test_chosen_negatives_are_written_and_read(tmp_path: Path) -> None:
    """From a file as from values, with the same bytes; again without any work."""
    source, scores = tmp_path / "mined.jsonl.gz", tmp_path / "scores.json"
    write_negatives(source, MANY)
    scores.write_text(json.dumps(MANY_SCORES))
    strategy = "relative:0.9,ranks:1-30"
    report = choose_negatives(source, tmp_path / "a", strategy, scores=scores, seed=5)
    assert report == choose_negatives(MANY, tmp_path / "b", strategy, scores=MANY_SCORES, seed=5)
    files = [(tmp_path / name / "negatives.jsonl.gz").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    found = [*read_negatives(tmp_path / "a")]
    assert [mined.qid for mined in MANY] == [mined.qid for mined in found]
    for mined in found:
        ((system, pids),) = mined.negatives.items()
        assert ("chosen", 4, ("p",)) == (system, len(pids), mined.positives)
        assert all(7 <= int(pid[1:]) <= 30 for pid in pids)
    again = choose_negatives(source, tmp_path / "a", strategy, scores=scores, seed=5)
    assert report == again


def test_a_folder_has_one_choice(tmp_path: Path) -> None:
    """Another strategy, or another input, needs another folder."""
    choose_negatives(MANY, tmp_path / "out")
    with pytest.raises(UsageError, match="strategy"):
        choose_negatives(MANY, tmp_path / "out", "top")
    with pytest.raises(UsageError, match="negatives"):
        choose_negatives(MANY[1:], tmp_path / "out")


def test_a_strategy_that_leaves_nothing_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    """With the number of candidates, so that another can be tried in the same folder."""
    with pytest.raises(UsageError, match="got none of 1,200 candidates"):
        choose_negatives(MANY, tmp_path / "out", "ranks:41-50")
    assert not (tmp_path / "out").exists()


Call = Callable[[Path], object]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda out: choose_negatives(MANY, out, "margin:1"), UsageError, "pass scores=FILE"),
        (lambda out: choose_negatives(MANY, out, promote_above=1), UsageError, "pass scores=FILE"),
        (lambda out: choose_negatives(MANY, out, number=0), UsageError, "number must be 1 or"),
        (lambda out: choose_negatives(MANY, out, number=True), UsageError, "number must be 1 or"),
        (lambda out: choose_negatives(MANY, out, seed=-1), UsageError, "seed must be 0 or more"),
        (lambda out: choose_negatives(MANY, out, seed=None), UsageError, "seed must not be None"),  # type: ignore[arg-type]
        (lambda out: choose_negatives([], out), UsageError, "one query or more, got none"),
        (lambda out: choose_negatives([1], out), UsageError, "list of MinedQuery, got list"),  # type: ignore[list-item]
        (lambda out: choose_negatives({}, out), UsageError, "list of MinedQuery, got dict"),
        (lambda out: choose_negatives(None, out), UsageError, "MinedQuery, got NoneType"),  # type: ignore[arg-type]
        (lambda out: choose_negatives(out / "x", out), SourceError, "x"),
        (lambda out: choose_negatives(MANY, out, 3), UsageError, "a Strategy or a string"),  # type: ignore[arg-type]
        (lambda out: choose_negatives(MANY, out, scores=3), UsageError, "scores must be a file"),  # type: ignore[arg-type]
        (lambda out: choose_negatives(MANY, out, scores=out / "x"), SourceError, "x"),
        (
            lambda out: choose_negatives(MANY, out, scores={"q1": {"p": 1.0}}),
            SourceError,
            "got none of 1,200 candidates",
        ),
        (
            lambda out: choose_negatives(MANY, out, scores=MANY_SCORES, promote_above=float("nan")),
            UsageError,
            "promote_above must be a finite number, got nan",
        ),
        (
            lambda out: choose_negatives([MinedQuery("q", ("p",), {})], out),
            SourceError,
            "one candidate or more",
        ),
        (lambda _: compare_strategies(MANY, []), UsageError, "one or more, got none"),
        (lambda _: compare_strategies(MANY, "top"), UsageError, "must be a list of them"),
    ],
)
def test_invalid_arguments_are_refused(
    tmp_path: Path, call: Call, kind: type[MsmarcoQdrantError], message: str
) -> None:
    """Before anything is written."""
    out = tmp_path / "out"
    with pytest.raises(kind, match=message):
        call(out)
    assert not out.exists()
