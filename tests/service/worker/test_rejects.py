"""A worker and batches with rows that cannot be applied: what is kept of them, and what is told."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.spool.files import Row
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.service.spool.helpers import (
    delete,
    ended,
    log_fields,
    names_in,
    running_worker,
    state_of,
    texts_in,
    write,
)

_NO_OP: Row = {"op": "what"}
_NO_VECTOR = write("3", "...")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (
            "bad.tsv.gz",
            gzip.compress(b"7\t \n", mtime=0),
            "every row was rejected: row 1: ",
        ),
        (
            "bad.ops.jsonl",
            b'{"op": "what"}\n{}\n',
            "row 1: op must be 'write' or 'delete', got 'what'",
        ),
        ("late.jsonl", b'{"_id": "1", "text": "..."}\n', "every row was rejected: row 1: "),
    ],
)
def test_a_file_of_which_nothing_can_be_used(
    tmp_path: Path, spool: Spool, store: Store, name: str, data: bytes, reason: str
) -> None:
    """It fails at once, is kept as it came, and the next one is done."""
    (tmp_path / name).write_bytes(data)
    ids = [spool.accept_file(tmp_path / name), spool.accept([write("next", "the next")])]
    with running_worker(spool, store):
        assert ["failed", "done"] == [ended(spool, id_).state for id_ in ids]
    state = state_of(spool, ids[0])
    assert reason in state.reason
    assert state.report.rejected == len(state.report.rejects) > 0
    file, _ = names_in(tmp_path / "spool" / "failed")
    assert data == (tmp_path / "spool" / "failed" / file).read_bytes()
    assert {"next": "the next"} == texts_in(store)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("text.tsv.gz", gzip.compress(b"no tab at all\n", mtime=0), "has no tab in its first rows"),
        ("fake.tsv.gz", b"\x89PNG\r\n\x1a\n", "is an image"),
        ("alike.jsonl", b'{"key": 1}\n' * 5, "none of its 5 rows is a passage; line 1: no pid"),
    ],
)
def test_s3_a_file_that_has_no_passages(
    tmp_path: Path, spool: Spool, store: Store, name: str, data: bytes, reason: str
) -> None:
    """Its content is refused in one line, as on the command line."""
    (tmp_path / name).write_bytes(data)
    batch = spool.accept_file(tmp_path / name)
    with running_worker(spool, store):
        assert "failed" == ended(spool, batch).state
    assert reason in state_of(spool, batch).reason


@pytest.mark.parametrize(
    "rows",
    [
        [_NO_OP, write("1", "one")],
        [_NO_VECTOR, write("1", "one")],
        [_NO_OP, write("there", "already")],
        [_NO_OP, delete("of nothing")],
    ],
)
def test_a_batch_of_which_something_can(
    tmp_path: Path, spool: Spool, store: Store, rows: list[Row]
) -> None:
    """It is done, and its file is kept beside its report: written, unchanged or deleted."""
    with running_worker(spool, store):
        ended(spool, spool.accept([write("there", "already")]))
        id_ = spool.accept(rows)
        text = next((tmp_path / "spool").glob(f"*/*{id_}*")).read_text()
        state = ended(spool, id_)
    assert ("done", 1) == (state.state, state.report.rejected)
    (kept,) = (tmp_path / "spool" / "done").glob(f"*{id_}.ops.jsonl")
    assert text == kept.read_text()


def test_what_has_no_rejects_is_not_kept(tmp_path: Path, spool: Spool, store: Store) -> None:
    """Not even if it is empty, or if there was nothing to do."""
    with running_worker(spool, store):
        ids = [spool.accept(rows) for rows in ([], [delete("1")], [write("1", "one")])]
        assert {"done"} == {ended(spool, id_).state for id_ in ids}
    assert {".json"} == {Path(name).suffix for name in names_in(tmp_path / "spool" / "done")}


def test_half_a_character(tmp_path: Path, spool: Spool, store: Store) -> None:
    """In the name of a field it is quoted as it was escaped; the worker goes on."""
    with running_worker(spool, store) as worker:
        state = ended(spool, spool.accept([{**delete("1"), "\ud800": 1}, write("1", "one")]))
        assert ("done", True) == (state.state, worker.alive)
        assert "got '\\ud800'" in state.report.rejects[0].reason
    spool.close()
    with Spool.open(tmp_path / "spool") as again:
        assert state == state_of(again, state.batch)


def test_half_a_character_in_a_reason(spool: Spool, store: Store) -> None:
    """Whoever says so: it can be told to whoever asks."""

    class Quoting(HashingEncoder):
        def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
            raise UsageError(f"\ud800 of {len(passages)}")

    with running_worker(spool, store, Quoting()):
        assert "\\ud800 of 1" == ended(spool, spool.accept([write("1", "one")])).reason


def test_ends_are_told(spool: Spool, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Each batch with its counts, louder the more is amiss."""
    caplog.set_level("INFO", "msmarco_qdrant.service.worker.worker")
    with running_worker(spool, store):
        ids = [
            spool.accept(rows)
            for rows in ([write("1", "one")], [write("2", "two"), _NO_OP], [_NO_OP])
        ]
        for id_ in ids:
            ended(spool, id_)
    told = [record for record in caplog.records if hasattr(record, "fields")]
    assert ["INFO", "WARNING", "ERROR"] == [record.levelname for record in told]
    names = ("batch", "state", "written", "rejected")
    assert [
        (ids[0], "done", 1, 0),
        (ids[1], "done", 1, 1),
        (ids[2], "failed", 0, 1),
    ] == [tuple(fields[name] for name in names) for fields in log_fields(caplog)]
    assert "rejected rows: 1" in told[1].getMessage()
