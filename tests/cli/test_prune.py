"""`ingest --prune`, as a person or a script uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msmarco_qdrant.collection.passages import get_passages
from tests.cli.runner import Outcome, command

PIDS = [str(number) for number in range(10)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store, which each test fills again."""
    return str(tmp_path_factory.mktemp("prune") / "store")


@pytest.fixture
def place(store: str, tiny: str) -> str:
    """The store with ten passages."""
    assert 0 == ingest(store, 10, "--model", tiny).status
    return store


def ingest(place: str, rows: int, *arguments: str, more: str = "") -> Outcome:
    """Ingest the first so many passages."""
    lines = [f"{pid}\tpassage number {pid}\n" for pid in PIDS[:rows]]
    Path("source.tsv").write_text("".join(lines) + more)
    return command("ingest", "source.tsv", "--store", place, *arguments)


def count(place: str) -> int:
    """The number of the passages in the store."""
    return len(get_passages(place, PIDS))


@pytest.mark.slow
def test_passages_missing_from_the_source_are_pruned(place: str) -> None:
    """The report counts them, as text and as JSON; standard error announces the stage."""
    done = ingest(place, 8, "--prune")

    assert 0 == done.status
    assert done.out.startswith("8 read: 0 written, 8 unchanged, 0 rejected, 2 pruned; ")
    assert "searching for passages that are not in the source" in done.err
    assert 8 == count(place)
    assert 0 == json.loads(ingest(place, 4, "--json").out)["pruned"]
    assert 1 == json.loads(ingest(place, 7, "--prune", "--json").out)["pruned"]
    assert 7 == count(place)


def test_pruning_more_than_a_fifth_needs_yes(place: str) -> None:
    """The report, then the refusal; nothing is removed without --yes."""
    done = ingest(place, 7, "--prune")

    assert 1 == done.status
    assert done.out.startswith("7 read: 0 written, 7 unchanged, 0 rejected, 0 pruned; ")
    error = done.err.splitlines()[-1]
    assert error.startswith("Error: nothing was pruned: the source lacks 3 of 10 passages (30%")
    assert "--yes" in error
    assert 10 == count(place)
    confirmed = ingest(place, 1, "--prune", "--yes")
    assert (0, 1) == (confirmed.status, count(place))
    assert "9 pruned" in confirmed.out


def test_empty_source_is_refused(place: str) -> None:
    """Even with --yes."""
    done = ingest(place, 0, "--prune", "--yes")

    assert 1 == done.status
    assert "the source contains no passage" in done.err
    assert 10 == count(place)


@pytest.mark.slow
def test_rejects_refuse_the_prune(place: str) -> None:
    """They are written to their file and reported first."""
    done = ingest(place, 9, "--prune", "--rejects", "r.jsonl", more="9 no tab\n")

    *_, where, first, error = done.err.splitlines()
    assert 1 == done.status
    assert "rejected rows: 1, written to r.jsonl" == where
    assert "the first: source.tsv, line 10: no tab: expected pid<TAB>text" == first
    assert error.startswith("Error: nothing was pruned: rows were rejected (1)")
    assert "9 no tab" == json.loads(Path("r.jsonl").read_text())["raw"]
    assert 10 == count(place)
    allowed = ingest(place, 9, "--prune", "--allow-rejects", more="9 no tab\n")
    assert (0, 9) == (allowed.status, count(place))
    assert allowed.out.startswith("10 read: 0 written, 9 unchanged, 1 rejected, 1 pruned; ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--yes"], "--yes needs --prune"),
        (["--prune", "--limit", "5"], "prune needs the whole source: omit"),
    ],
)
def test_wrong_usage_removes_nothing(place: str, arguments: list[str], message: str) -> None:
    """An option without effect, and a source of which a part is read."""
    done = ingest(place, 9, *arguments)

    assert (2, "") == (done.status, done.out)
    assert message in done.err
    assert 10 == count(place)
