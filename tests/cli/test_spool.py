"""The commands `spool list`, `show`, `requeue` and `purge` (R3), with and without a sidecar."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.service.interfaces import BatchReport, RowReject
from msmarco_qdrant.service.spool.spool import Spool
from tests.cli.runner import command
from tests.service.spool.helpers import delete, lease_next, write

REASON = "every row was rejected: row 2: the text is empty"


@pytest.fixture
def spool() -> Iterator[Spool]:
    """A spool in the default place, as a running sidecar uses it."""
    with Spool.open("qdrant_spool") as opened:
        yield opened


def fail_batch(spool: Spool, *texts: str) -> str:
    """A failed batch whose second row was rejected."""
    id_ = spool.accept([write(str(number), text) for number, text in enumerate(texts)])
    rejects = (RowReject(2, "the text is empty"),) if len(texts) > 1 else ()
    report = BatchReport(rejected=len(rejects), rejects=rejects)
    spool.fail(lease_next(spool), REASON, report)
    return id_


def test_r3_failed_batches_are_listed_with_their_reasons(spool: Spool) -> None:
    """As text and as JSON, while the spool is in use."""
    assert (0, "no failed batches\n", "") == command("spool", "list")
    first, second = fail_batch(spool, "one", ""), fail_batch(spool, "other")
    done = command("spool", "list")
    assert 4 == len(done.out.splitlines())
    assert [first, second] == [line.split()[0] for line in done.out.splitlines()[::2]]
    assert REASON in done.out
    listed = json.loads(command("spool", "list", "--json").out)
    assert [(first, REASON, False), (second, REASON, False)] == [
        (one["batch"], one["reason"], one["requeued"]) for one in listed
    ]
    assert [{"line": 2, "reason": "the text is empty"}] == listed[0]["rejects"]


def test_r3_rows_are_shown_with_their_reasons(spool: Spool) -> None:
    """Rejected ones, or the first; control characters are escaped."""
    rejected, other = fail_batch(spool, "one", "\x1b[2J"), fail_batch(spool, "whole")
    done = command("spool", "show", rejected)
    assert "row 2: the text is empty" in done.out
    assert "u001b[2J" in done.out
    assert "\x1b" not in done.out
    assert "row 1" not in done.out
    assert "row 1" in command("spool", "show", other).out
    shown = json.loads(command("spool", "show", rejected, "--json").out)
    (row,) = shown["rows"]
    assert (2, "the text is empty") == (row["line"], row["reason"])
    assert "rows" in json.loads(command("spool", "show", other, "--rows", "0", "--json").out)


def test_r3_rows_of_a_compressed_file_are_shown(spool: Spool, tmp_path: Path) -> None:
    """As they are in it."""
    path = tmp_path / "x.tsv.gz"
    path.write_bytes(gzip.compress(b"1\tone\n2\ttwo\n"))
    id_ = spool.accept_file(path)
    spool.fail(lease_next(spool), "bad", BatchReport())
    assert "1 one" in command("spool", "show", id_).out.replace("\\t", " ").replace("\t", " ")


@pytest.mark.parametrize("every", [False, True])
def test_r3_requeue_puts_batches_back_once(spool: Spool, every: bool) -> None:
    """They wait for the sidecar, which queues them."""
    id_ = fail_batch(spool, "one")
    done = command("spool", "requeue", *(["--all"] if every else [id_]))
    assert (0, f"requeued: {id_}\n") == (done.status, done.out)
    assert "requeued; waits for the sidecar" in command("spool", "list").out
    assert 2 == command("spool", "requeue", id_).status
    assert "no failed batches\n" == command("spool", "requeue", "--all").out
    assert (1, 0) == (spool.readmit(), spool.readmit())
    assert id_ == lease_next(spool).id


def test_r3_purge_asks_for_a_confirmation(spool: Spool) -> None:
    """Then the files are removed."""
    ids = [fail_batch(spool, "one"), fail_batch(spool, "two")]
    done = command("spool", "purge", ids[0])
    assert (2, "") == (done.status, done.out)
    assert "nothing was removed: 1 failed batch would be" in done.err
    assert 0 == command("spool", "purge", ids[0], "--yes").status
    removed = json.loads(command("spool", "purge", "--all", "--yes", "--json").out)
    assert {"removed": ids[1:]} == removed
    assert [] == [*Path("qdrant_spool/failed").iterdir()]


def test_r3_wrong_usage_is_one_line(spool: Spool) -> None:
    """An unknown or unfinished batch, no batch, no spool."""
    queued = spool.accept([delete("1")])
    for words, message in (
        (["show", queued], "batch must be a failed one of"),
        (["requeue", "0" * 32], "`msmarco-qdrant spool list --spool qdrant_spool`"),
        (["purge", "../x", "--yes"], "batch must be a failed one of"),
        (["requeue"], "either the ids of failed batches or --all must be given"),
        (["purge", "--all", queued], "either the ids of failed batches or --all must be given"),
    ):
        done = command("spool", *words)
        assert (2, "", 1) == (done.status, done.out, len(done.err.splitlines()))
        assert message in done.err
    done = command("spool", "list", "--spool", "nowhere")
    assert (1, True) == (done.status, "pass --spool or set MSMARCO_QDRANT_SPOOL" in done.err)
    assert not Path("nowhere").exists()
    assert 1 == spool.depth


def test_r3_commands_take_the_spool_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variable, a file of variables, and the option; a stopped sidecar is no matter."""
    with Spool.open(tmp_path / "spool") as opened:
        id_ = fail_batch(opened, "one")
    assert id_ in command("spool", "list", "--spool", str(tmp_path / "spool")).out
    Path("vars").write_text(f"MSMARCO_QDRANT_SPOOL={tmp_path / 'spool'}\n")
    assert id_ in command("--env-file", "vars", "spool", "list").out
    monkeypatch.setenv("MSMARCO_QDRANT_SPOOL", str(tmp_path / "spool"))
    assert id_ in command("spool", "list").out
