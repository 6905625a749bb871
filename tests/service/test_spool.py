"""The spool: what is accepted survives, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.errors import SpoolError, SpoolFullError
from msmarco_qdrant.service.outcomes import BatchReport
from msmarco_qdrant.service.spool import Batch, Spool


def test_what_was_taken_is_taken_first_after_a_crash(tmp_path: Path) -> None:
    """A batch in `working` comes before those in `incoming`; one given back is first as well."""
    with Spool.open(tmp_path) as spool:
        ids = [spool.accept([{"op": "delete", "pid": str(n)}]) for n in range(3)]
        assert spool.take() is not None
    with Spool.open(tmp_path) as spool:
        batch = spool.take()
        assert batch is not None
        spool.give_back(batch)
        assert ids == [taken.id for _ in ids if (taken := _finished(spool))]


def _finished(spool: Spool) -> Batch:
    batch = spool.take()
    assert batch is not None
    spool.finish(batch, BatchReport())
    return batch


def test_a_crash_between_the_report_and_the_file(tmp_path: Path) -> None:
    """What has a report has ended: its file goes where it belongs at the next start."""
    with Spool.open(tmp_path) as spool:
        id_ = spool.accept([])
        batch = spool.take()
        assert batch is not None
        spool.fail(batch, "bad", BatchReport())
        (tmp_path / "failed" / str(batch.name)).rename(batch.path)
    with Spool.open(tmp_path) as spool:
        state = spool.state(id_)
        assert state is not None
        assert ("failed", "bad", 0) == (state.state, state.reason, spool.depth)
        assert (tmp_path / "failed" / str(batch.name)).exists()


def test_a_full_spool_and_a_second_process(tmp_path: Path) -> None:
    """Neither takes anything, and nothing is left of what was refused."""
    with Spool.open(tmp_path, max_batches=1) as spool:
        spool.accept([])
        with pytest.raises(SpoolFullError, match="1 batches"):
            spool.accept([])
        assert 1 == spool.depth
        assert [] == [*(tmp_path / "tmp").iterdir()]
        with pytest.raises(SpoolError, match="in use by process"):
            Spool.open(tmp_path)
