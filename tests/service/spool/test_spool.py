"""The spool: what is accepted waits in its order, and is told of."""

from __future__ import annotations

import json
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from msmarco_qdrant.errors import SourceError, SpoolError, SpoolFullError, UsageError
from msmarco_qdrant.service.interfaces import BatchReport, RowReject
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import (
    LONG_S,
    ack_all,
    ack_next,
    delete,
    ended,
    lease_next,
    names_in,
    state_of,
    write,
)

REPORT = BatchReport(1, 2, 3, 4, 5, 0.25, (RowReject(7, "no pid"), RowReject(8, "no text")))


def test_a_requeued_batch_is_first(tmp_path: Path) -> None:
    """At once and after reopening; so is a batch that was leased when the process ended."""
    with Spool.open(tmp_path) as spool:
        ids = [spool.accept([delete(str(number))]) for number in range(3)]
        spool.requeue(lease_next(spool))
        assert ("queued", 3) == (state_of(spool, ids[0]).state, spool.depth)
    with Spool.open(tmp_path) as spool:
        assert ids[0] == lease_next(spool).id
    with Spool.open(tmp_path) as spool:
        spool.requeue(lease_next(spool))
        assert ids == ack_all(spool)


def test_states_from_door_to_door(tmp_path: Path) -> None:
    """Queued, working, done or failed; the same after the next start, with counts and rejects."""
    with Spool.open(tmp_path) as spool:
        done, failed = spool.accept([]), spool.accept([])
        states = [state_of(spool, done)]
        batch = lease_next(spool)
        states.append(state_of(spool, done))
        states.append(spool.ack(batch, REPORT))
        states.append(spool.fail(lease_next(spool), "bad", BatchReport(rejected=1)))
        assert ["queued", "working", "done", "failed"] == [one.state for one in states]
        assert states[2:] == [spool.state(done), spool.state(failed)]
        assert (None, None) == (spool.state("0" * 32), spool.outcome("0" * 32))
    with Spool.open(tmp_path) as spool:
        assert states[2:] == [spool.state(done), spool.state(failed)]
        assert (REPORT, "bad") == (states[2].report, states[3].reason)
        assert states[2] == ended(spool, done)
        assert 0 == spool.depth == spool.bytes


def test_who_waits_for_a_batch_is_told(tmp_path: Path) -> None:
    """Everybody who waits; not one who has cancelled, and after a close nobody waits any more."""
    with Spool.open(tmp_path) as spool:
        first, second = spool.accept([]), spool.accept([])
        one, gone, other = (spool.outcome(first) for _ in range(3))
        assert one is not None and gone is not None and other is not None  # noqa: PT018
        assert gone.cancel()
        ack_next(spool)
        assert ("done", "done") == (one.result(LONG_S).state, other.result(LONG_S).state)
        late = spool.outcome(second)
    later = spool.outcome(second)
    for future in (late, later):
        assert future is not None
        with pytest.raises(CancelledError):
            future.result(LONG_S)


def test_a_second_process(tmp_path: Path) -> None:
    """It must be 1 or more, and is told who has the spool; afterwards it may."""
    with Spool.open(tmp_path), pytest.raises(SpoolError, match=r"in use by process [0-9]+; wait"):
        Spool.open(tmp_path)
    with Spool.open(tmp_path) as spool:
        spool.accept([])


def test_as_many_batches_as_may_be(tmp_path: Path) -> None:
    """Those in hand count, those that have ended do not; nothing is left of what was refused."""
    with Spool.open(tmp_path, max_batches=2) as spool:
        spool.accept([])
        spool.accept([])
        batch = lease_next(spool)
        with pytest.raises(SpoolFullError, match="holds 2 batches of 2: retry"):
            spool.accept([])
        assert (2, []) == (spool.depth, names_in(tmp_path / "tmp"))
        spool.fail(batch, "bad", BatchReport())
        spool.accept([])
    with Spool.open(tmp_path, max_batches=1) as spool:
        ack_next(spool)
        with pytest.raises(SpoolFullError, match="holds 1 batch of 1: retry"):
            spool.accept([])


def test_as_many_bytes_as_may_be(tmp_path: Path) -> None:
    """To the last byte; each batch counts once, while it comes in as well as when it is in."""
    row = write("1", "x" * 60)
    size = len(json.dumps(row)) + 1
    with Spool.open(tmp_path, max_bytes=4 * size) as spool:
        for count in (2, 2):
            spool.accept([row] * count)
        assert 4 * size == spool.bytes
        with pytest.raises(SpoolFullError, match=f"{4 * size:,} bytes"):
            spool.accept([])
        ack_next(spool)
        with pytest.raises(SpoolFullError):
            spool.accept([row] * 3)
        assert (2 * size, []) == (spool.bytes, names_in(tmp_path / "tmp"))
        spool.accept([row] * 2)
    with Spool.open(tmp_path, max_bytes=4 * size) as spool:
        assert 4 * size == spool.bytes
        ack_all(spool)
        assert 0 == spool.bytes


def test_a_file_may_be_larger_than_the_spool(tmp_path: Path) -> None:
    """If there is room when it comes, or it could never come in; the next one waits."""
    with Spool.open(tmp_path / "spool", max_bytes=10) as spool:
        for name in ("a.tsv", "b.tsv"):
            (tmp_path / name).write_text("1\tlonger than ten bytes\n")
        spool.accept_file(tmp_path / "a.tsv")
        assert 24 == spool.bytes
        with pytest.raises(SpoolFullError):
            spool.accept_file(tmp_path / "b.tsv")
        assert (tmp_path / "b.tsv").exists()
        ack_next(spool)
        spool.accept_file(tmp_path / "b.tsv")
        assert 24 == spool.bytes


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_batches": 0}])
def test_limits_that_would_take_nothing(limits: dict[str, int], tmp_path: Path) -> None:
    """They are refused, and the directory is free again."""
    with pytest.raises(UsageError, match="must be 1 or more"):
        Spool.open(tmp_path, **limits)
    Spool.open(tmp_path).close()


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    """Nothing of it stays; half a character is JSON, and told in the batch's report."""
    with Spool.open(tmp_path) as spool:
        with pytest.raises(UsageError, match="must be JSON"):
            spool.accept([write("1", "one"), {"op": {1}}])
        assert (0, 0, []) == (spool.depth, spool.bytes, names_in(tmp_path / "tmp"))
        spool.accept([write("1", "\ud800")])


def test_a_file_of_no_known_form(tmp_path: Path) -> None:
    """Or of none at all: it stays where it is."""
    (tmp_path / "a.doc").touch()
    (tmp_path / "b.tsv").mkdir()
    (tmp_path / "c.tsv").symlink_to(tmp_path / "a.doc")
    with Spool.open(tmp_path / "spool") as spool:
        with pytest.raises(UsageError, match=r"must end in \.ops\.jsonl"):
            spool.accept_file(tmp_path / "a.doc")
        for name in ("b.tsv", "c.tsv", "d.tsv"):
            with pytest.raises(SourceError, match=name):
                spool.accept_file(tmp_path / name)
        assert (0, 0) == (spool.depth, spool.bytes)
    assert ["a.doc", "b.tsv", "c.tsv", "spool"] == names_in(tmp_path)


def test_the_last_reports_are_kept(tmp_path: Path) -> None:
    """So many of those that are done, and all that failed; the same after the next start."""
    with Spool.open(tmp_path, keep_done=2) as spool:
        ids = [spool.accept([]) for _ in range(5)]
        spool.fail(lease_next(spool), "bad", BatchReport())
        ack_all(spool)
        assert [True, False, False, True, True] == [spool.state(id_) is not None for id_ in ids]
        assert 2 == len(names_in(tmp_path / "done"))
    with Spool.open(tmp_path, keep_done=1) as spool:
        assert [True, False, False, False, True] == [spool.state(id_) is not None for id_ in ids]
        assert 1 == len(names_in(tmp_path / "done"))


def test_the_file_of_a_batch_with_rejects_is_kept(tmp_path: Path) -> None:
    """Beside its report, as long as that one."""
    with Spool.open(tmp_path, keep_done=1) as spool:
        spool.accept([delete("1")])
        batch = lease_next(spool)
        text = batch.path.read_text()
        spool.ack(batch, BatchReport(deleted=1, rejected=1))
        assert [str(batch.name), f"{batch.name}.json"] == names_in(tmp_path / "done")
        assert text == (tmp_path / "done" / str(batch.name)).read_text()
        assert ([], 0) == (names_in(tmp_path / "working"), spool.bytes)
        spool.accept([])
        assert [f"{ack_next(spool).name}.json"] == names_in(tmp_path / "done")


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_report_of_one_that_was_about_to_end(tmp_path: Path, text: str) -> None:
    """Nobody knows what became of it: its file is kept."""
    with Spool.open(tmp_path) as spool:
        spool.accept([delete("1")])
        name = str(lease_next(spool).name)
    (tmp_path / "done" / f"{name}.json").write_text(text)
    Spool.open(tmp_path).close()
    assert [name, f"{name}.json"] == names_in(tmp_path / "done")


def test_a_batch_that_is_done_and_put_back_is_done_again(tmp_path: Path) -> None:
    """Its report goes, so that it is not taken for done."""
    with Spool.open(tmp_path) as spool:
        id_ = spool.accept([delete("1")])
        name = str(lease_next(spool).name)
    with Spool.open(tmp_path) as spool:
        spool.ack(lease_next(spool), BatchReport(rejected=1))
    (tmp_path / "done" / name).rename(tmp_path / "incoming" / name)
    with Spool.open(tmp_path) as spool:
        assert "queued" == state_of(spool, id_).state
        assert [id_] == ack_all(spool)


def test_a_report_that_is_no_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is written without its words, which is told: the batch has to end."""
    rejects = (RowReject(1, b"bytes"),)  # type: ignore[arg-type]
    with Spool.open(tmp_path) as spool:
        id_ = spool.accept([])
        spool.ack(lease_next(spool), BatchReport(written=3, rejected=1, rejects=rejects))
        assert BatchReport(written=3, rejected=1) == state_of(spool, id_).report
    assert f"the report of batch {id_} is written without its rejects" in caplog.text


def test_sequences_never_go_back(tmp_path: Path) -> None:
    """Whatever is removed by hand, and however often the spool is opened."""
    found = []
    for _ in range(3):
        with Spool.open(tmp_path) as spool:
            for _ in range(2):
                spool.accept([])
                found.append(ack_next(spool).name.sequence)
        for report in (tmp_path / "done").iterdir():
            report.unlink()
    assert sorted(set(found)) == found


@pytest.mark.parametrize("text", ["", "-5", "one", "1" * 17, "\xff", " 7"])
def test_a_damaged_sequence(tmp_path: Path, text: str) -> None:
    """It is told; when it is removed, numbers go on above those of the batches there are."""
    with Spool.open(tmp_path) as spool:
        spool.accept([])
        failed = lease_next(spool)
        spool.fail(failed, "bad", BatchReport())
    (tmp_path / "sequence").write_bytes(text.encode("latin-1"))
    with pytest.raises(SpoolError, match="sequence is damaged: expected a number"):
        Spool.open(tmp_path)
    (tmp_path / "sequence").unlink()
    with Spool.open(tmp_path) as spool:
        spool.accept([])
        assert failed.name.sequence < lease_next(spool).name.sequence


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rejects": [1]}', "\xff"])
def test_a_damaged_report(tmp_path: Path, text: str) -> None:
    """The error names the file; the spool goes on."""
    with Spool.open(tmp_path) as spool:
        id_ = spool.accept([])
        batch = ack_next(spool)
        (tmp_path / "done" / f"{batch.name}.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(SpoolError, match=f"{id_}.* damaged"):
            spool.state(id_)
    with Spool.open(tmp_path) as spool:
        with pytest.raises(SpoolError, match="damaged"):
            spool.outcome(id_)
        spool.accept([])
        ack_next(spool)


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """Files of other names in the spool's folders are neither taken nor counted nor removed."""
    Spool.open(tmp_path).close()
    for folder in ("incoming", "working", "done", "failed"):
        (tmp_path / folder / "notes.txt").touch()
    with Spool.open(tmp_path) as spool:
        assert 0 == spool.depth
        for folder in ("incoming", "working", "done", "failed"):
            assert ["notes.txt"] == names_in(tmp_path / folder)


def test_the_age_of_the_oldest(tmp_path: Path) -> None:
    """The one in hand counts; none has no age."""
    with Spool.open(tmp_path) as spool:
        assert 0.0 == spool.oldest_age_s
        spool.accept([])
        first = spool.oldest_age_s
        lease_next(spool)
        assert 0 <= first <= spool.oldest_age_s


def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    """Nothing is left of it, and whoever waits to take has None."""
    spool = Spool.open(tmp_path)
    spool.close()
    spool.close()
    with pytest.raises(SpoolError, match="is closed; nothing was accepted"):
        spool.accept([])
    assert (None, []) == (spool.lease(), names_in(tmp_path / "tmp"))
