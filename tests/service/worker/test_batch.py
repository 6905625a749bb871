"""What a batch's file says: the last row of a pid, and the rows that say nothing."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.service.interfaces import RowReject
from msmarco_qdrant.service.spool.directory import FORMS, form_of
from msmarco_qdrant.service.worker.batch import MAX_REJECTS, BatchContent
from tests.service.spool.helpers import delete, write

_PASSAGES = [("7", "seven"), ("8", "eight"), ("7", "seven again")]


def content_of(folder: Path, rows: list[Any], **options: Any) -> BatchContent:
    """A batch of operations; a row that is a string is a line as it is."""
    path = folder / "batch.ops.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return BatchContent(path, "ops.jsonl", **options)


def said(content: BatchContent) -> tuple[dict[str, str], list[str]]:
    """What is written, and what deleted; each pid once, as often as it was counted."""
    writes = [(passage.pid, passage.text) for passage in content.writes()]
    deletes = [*content.deletes()]
    assert (len(writes), len(deletes)) == (content.passages, content.deletions)
    assert len(writes) == len(dict(writes))
    assert len(deletes) == len(set(deletes))
    assert not set(deletes) & dict(writes).keys()
    return dict(writes), deletes


def test_the_last_of_a_pid_counts(tmp_path: Path) -> None:
    """A write after a delete, a delete after a write, the last of several."""
    rows = [
        write("1", "old"),
        delete("2"),
        write("3", "old"),
        write("1", "new"),
        delete("3"),
        write("2", "back"),
        delete("4"),
        delete("4"),
    ]
    content = content_of(tmp_path, rows)
    assert ({"1": "new", "2": "back"}, ["3", "4"]) == said(content)
    assert (4, 0) == (content.superseded, content.rejects.count)


@pytest.mark.parametrize("seed", range(10))
def test_random_rows(tmp_path: Path, seed: int) -> None:
    """Against a dictionary; a row that is rejected makes no other void."""
    rng = random.Random(seed)
    expected: dict[str, str | None] = {}
    rows: list[Any] = []
    rejected = 0
    for number in range(rng.randrange(40)):
        pid, kind = str(rng.randrange(12)), rng.randrange(5)
        if kind == 0:
            rows.append(write(pid, ""))
            rejected += 1
        elif kind == 1:
            rows.append(delete(pid))
            expected[pid] = None
        else:
            rows.append(write(pid, f"text {number}"))
            expected[pid] = f"text {number}"
    content = content_of(tmp_path, rows)
    writes, deletes = said(content)
    assert {pid: text for pid, text in expected.items() if text is not None} == writes
    assert {pid for pid, text in expected.items() if text is None} == set(deletes)
    assert (rejected, len(rows) - rejected - len(expected)) == (
        content.rejects.count,
        content.superseded,
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "broken JSON"),
        ("[]", "the JSON must be an object"),
        ("{}", "op must be 'write' or 'delete', got None"),
        ('{"op": ["write"], "pid": "1", "text": "one"}', "got ['write']"),
        ('{"op": "write", "pid": "1"}', "text"),
        ('{"op": "write", "text": "one"}', "pid"),
        ('{"op": "delete"}', "no pid: expected a field 'pid'"),
        ('{"op": "delete", "pid": null}', "no pid"),
        ('{"op": "delete", "pid": ""}', "pid"),
        ('{"op": "delete", "pid": 1.5}', "pid"),
        ('{"op": "delete", "pid": "1", "text": "one"}', "only a pid, got 'text'"),
        ('{"op": "write", "pid": "1", "text": "\\ud800"}', "text"),
        ('{"op": "delete", "pid": "1", "\\ud800": 1}', "got '\\ud800'"),
        ('{"op": "\\ud800"}', "got '\\ud800'"),
        ('{"op": "write", "pid": "1", "text": "one", "meta": {"\\ud800": 1}}', ""),
        ('{"op": "delete", "pid": "1", "' + "x" * 99 + '": 1}', f"got '{'x' * 40}'"),
        ('{"op": "write", "pid": "1", "text": "one", "meta": 1}', "meta"),
        (
            '{"op": "write", "pid": "1", "text": "' + "x" * (1 << 20) + '"}',
            "at most 1,048,576 bytes",
        ),
    ],
)
def test_rows_that_say_nothing(tmp_path: Path, line: str, reason: str) -> None:
    """Each is told with its line; the others go on."""
    content = content_of(tmp_path, [write("1", "one"), "", line, delete("2")])
    assert ({"1": "one"}, ["2"]) == said(content)
    assert [3] == [reject.line for reject in content.rejects.first]
    assert reason in content.rejects.first[0].reason
    assert content.rejects.first[0].reason.encode()


def test_whole_numbers_are_pids(tmp_path: Path) -> None:
    """The same as their decimal form, in a delete, too."""
    rows = [write("5", "five"), {"op": "delete", "pid": 5}, {"op": "write", "pid": 6, "text": "x"}]
    assert ({"6": "x"}, ["5"]) == said(content_of(tmp_path, rows))


def test_the_first_hundred_rejects_are_kept(tmp_path: Path) -> None:
    """All are counted."""
    content = content_of(tmp_path, ["{}"] * 250)
    assert (250, 0, 0, 0) == (
        content.rejects.count,
        content.passages,
        content.deletions,
        content.superseded,
    )
    expected = "op must be 'write' or 'delete', got None"
    assert [RowReject(1, expected), RowReject(100, expected)] == content.rejects.first[::99]
    assert MAX_REJECTS == len(content.rejects.first)


def _tsv() -> bytes:
    return "".join(f"{pid}\t{text}\n" for pid, text in _PASSAGES).encode()


def _jsonl() -> bytes:
    return "".join(json.dumps({"_id": pid, "text": t}) + "\n" for pid, t in _PASSAGES).encode()


def _parquet() -> bytes:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = pa.BufferOutputStream()
    pids, texts = zip(*_PASSAGES, strict=True)
    table = pa.table({"pid": pa.array(pids), "text": pa.array(texts)})
    parquet.write_table(table, sink, row_group_size=1)
    found: bytes = sink.getvalue().to_pybytes()
    return found


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tsv", _tsv),
        ("a.tsv.gz", lambda: gzip.compress(_tsv())),
        ("a.jsonl", _jsonl),
        ("a.jsonl.gz", lambda: gzip.compress(_jsonl())),
        ("a.ndjson", _jsonl),
        ("a.ndjson.gz", lambda: gzip.compress(_jsonl())),
        ("a.parquet", _parquet),
        ("a.ops.jsonl", lambda: b"".join(_ops(pid, text) for pid, text in _PASSAGES)),
    ],
)
def test_files_of_each_form(tmp_path: Path, name: str, data: Callable[[], bytes]) -> None:
    """All passages are written, the last of a pid counts."""
    (tmp_path / name).write_bytes(data())
    form = form_of(name)
    assert form in FORMS
    content = BatchContent(tmp_path / name, form)
    assert ({"7": "seven again", "8": "eight"}, []) == said(content)
    assert 1 == content.superseded


def _ops(pid: str, text: str) -> bytes:
    return json.dumps(write(pid, text)).encode() + b"\n"


@pytest.mark.parametrize("form", ["parquet", "ops.jsonl", "tsv"])
def test_a_file_that_is_not_there(tmp_path: Path, form: str) -> None:
    """The error names it."""
    with pytest.raises(SourceError, match=f"batch.{form}"):
        BatchContent(tmp_path / f"batch.{form}", form)


def test_reading_can_be_ended(tmp_path: Path) -> None:
    """After any row that is counted, of either count."""
    rows = [write("1", "one"), write("1", "two"), delete("3"), delete("3"), delete("4")]
    seen: list[None] = []
    content_of(tmp_path, rows, go_on=lambda: seen.append(None))
    assert len(rows) + 2 == len(seen)
    for most in range(len(seen)):
        left = iter(range(most))
        with pytest.raises(StopIteration):
            content_of(tmp_path, rows, go_on=lambda left=left: next(left) and None)
