"""The worker over a real spool and Edge."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from msmarco_qdrant.service.inbox import Inbox
from msmarco_qdrant.service.spool import Spool
from msmarco_qdrant.service.worker import Worker
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import CostlessEncoder


def test_batches_are_applied_in_their_order(tmp_path: Path) -> None:
    """Writes, a delete, a row that says nothing and a file of the inbox; a later delete stays."""
    with (
        Spool.open(tmp_path / "spool") as spool,
        closing(open_store(tmp_path / "store", create=True)) as store,
    ):
        rows = [{"op": "write", "pid": str(n), "text": f"text {n}"} for n in range(5)]
        first = spool.accept([*rows, {"op": "delete", "pid": "4"}, {"op": "what"}])
        (tmp_path / "inbox").mkdir()
        (tmp_path / "inbox" / "a.tsv").write_text("7\tseven\n7\tseven again\n8\teight\n")
        assert 1 == Inbox(tmp_path / "inbox", spool).sweep()
        last = spool.accept([{"op": "delete", "pid": "8"}])
        worker = Worker(spool, store, CostlessEncoder())
        outcomes = [spool.outcome(first), spool.outcome(last)]
        worker.start()
        reports = [future.result(60).report for future in outcomes if future]
        assert worker.stop(10)
        assert (4, 1, 1) == (reports[0].written, reports[0].rejected, reports[0].superseded)
        assert 1 == reports[1].deleted
        found = store.collection("msmarco").scan(["pid", "text"])
        expected = {"0": "text 0", "1": "text 1", "2": "text 2", "3": "text 3", "7": "seven again"}
        assert expected == {payload["pid"]: payload["text"] for _, payload in found}
        assert 0 == spool.depth == spool.bytes
