"""The newest batches: of HTTP and of the inbox, waiting and ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.service.ingester import SpoolIngester
from msmarco_qdrant.service.interfaces import BatchReport, BatchState
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.http.driver import KeepingIngester, exchange, problem_of

_ROW = {"op": "write", "pid": "1", "text": "one"}


def _end(spool: Spool, *, reason: str = "") -> None:
    batch = spool.lease()
    assert batch is not None
    if reason:
        spool.fail(batch, reason, BatchReport(rejected=1))
    else:
        spool.ack(batch, BatchReport(written=1))


def _shown(states: list[BatchState]) -> list[tuple[str, str, str]]:
    return [(state.source, state.state, state.reason) for state in states]


def test_waiting_ones_come_first_then_the_last_that_ended(spool: Spool, tmp_path: Path) -> None:
    """Each group from the newest on, with the name of a file; all of it after a restart, too."""
    for name in ("a.tsv", "b.jsonl", "c.csv"):
        (tmp_path / name).write_text("1\tone\n")
        spool.accept_file(tmp_path / name)
    spool.accept([_ROW])
    spool.accept([_ROW])
    _end(spool)
    _end(spool, reason="every row was rejected")
    spool.lease()
    ended = [("b.jsonl", "failed", "every row was rejected"), ("a.tsv", "done", "")]
    expected = [("http", "queued", ""), ("http", "queued", ""), ("c.csv", "working", ""), *ended]
    ingester = SpoolIngester(spool)
    for limit in range(1, 7):
        assert expected[:limit] == _shown([*ingester.recent(limit)])
    (first, *_, last) = ingester.recent(5)
    assert first.accepted_at >= last.accepted_at
    assert (1, None) == (last.report.written, first.ended_at)
    place = tmp_path / "spool"
    spool.close()
    with Spool.open(place) as opened:  # a file that waits has lost its name
        queued = [(source.replace("c.csv", "csv"), "queued", "") for source, _, _ in expected[:3]]
        assert [*queued, *ended] == _shown([*opened.recent(10)])


def test_the_list_by_http(spool: Spool) -> None:
    """Times with their zone, the counts, the reason; at most a hundred."""
    spool.accept([_ROW])
    _end(spool, reason="no row is valid")

    class Listing(KeepingIngester):
        def recent(self, limit: int) -> list[BatchState]:
            return [*spool.recent(limit)]

    answer = exchange("GET", "/batches?limit=5", app={"ingester": Listing()})
    (batch,) = answer.json()["batches"]
    assert ("http", "failed", "no row is valid") == (
        batch["source"],
        batch["state"],
        batch["reason"],
    )
    assert (0, 1) == (batch["written"], batch["rejected"])
    assert batch["accepted_at"] <= batch["ended_at"]
    assert batch["ended_at"].endswith("Z")


@pytest.mark.parametrize("limit", ["0", "101", "x"])
def test_a_wrong_limit_is_refused(limit: str) -> None:
    """As any parameter."""
    assert (422, "invalid") == problem_of(exchange("GET", f"/batches?limit={limit}"))
