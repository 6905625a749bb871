"""A worker copies ranges of ids as one process copies the whole; without Ray."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from msmarco_qdrant.collection.generations import read_generations
from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.id_ranges import IdRange
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedProgress, ReembedReport
from msmarco_qdrant.distributed import reembed_on_ray
from msmarco_qdrant.distributed.copy_run import PassesOnRay
from msmarco_qdrant.distributed.copy_worker import CopyWork, CopyWorker
from msmarco_qdrant.distributed.tasks import TaskPolicy
from msmarco_qdrant.distributed.worker_settings import WorkerSettings
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import (
    MigrationError,
    MissingExtraError,
    ModelMismatchError,
    ModelNotFoundError,
    MsmarcoQdrantError,
    StoreInUseError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.status import unlock_migrations
from msmarco_qdrant.reembed.api import change_model
from msmarco_qdrant.reembed.run import ReembedOptions
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer
from tests.reembed.steps import (
    V2,
    V3,
    InterruptionError,
    Wordless,
    at_stages,
    check_holds,
    interrupt,
    load_old,
    passages,
    payloads,
    reembed,
)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"url": "./folder"}, UsageError, "a re-embedding on Ray needs the URL of a server"),
        ({"url": ":memory:"}, UsageError, "needs the URL of a server"),
        ({"make_encoder": None}, UsageError, "pass model=... or make_encoder=..."),
        ({"make_encoder": V3}, UsageError, "make_encoder must be a function"),
        ({"model": "m"}, UsageError, "either model=... or make_encoder=..., not both"),
        ({"encoder_options": "cpu"}, UsageError, "encoder_options need a model to load: omit"),
        ({"split_points": 0}, UsageError, "split_points must be an integer of 1 or more, got 0"),
        ({"workers": 0}, UsageError, "workers must be an integer of 1 or more, got 0"),
        ({"gpus_per_worker": 1.5}, UsageError, "gpus_per_worker must be 0 or more, and whole"),
        ({}, MissingExtraError, "work on Ray needs the extra"),
    ],
)
def test_invalid_arguments_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """In one line, before a server is asked; valid ones need the extra `ray`."""
    monkeypatch.setitem(sys.modules, "ray", None)
    given: dict[str, Any] = {"url": "http://localhost:1", "make_encoder": lambda: V3, **options}
    with pytest.raises(error, match=message):
        reembed_on_ray(**given)


class PoolHere:
    """A pool of one worker in this process.

    Args:
        worker: The worker.
        loses: True to lose each range once, copied or not begun.
    """

    def __init__(self, worker: CopyWorker, *, loses: bool = True) -> None:
        self._worker = worker
        self._lost_attempt = 1 if loses else 0
        self.works: list[CopyWork] = []
        self.ends = 0

    def run(self, job: Any, board: Any, sink: Any) -> None:
        """Process all ranges."""
        self._worker.begin(job)
        now = time.monotonic()
        while not board.is_complete:
            now += 100
            while (due := board.start(now)) is not None:
                number, attempt = due
                (work,) = sink.work(number, attempt)
                self.works.append(work)
                is_lost = attempt == self._lost_attempt
                try:
                    stats = [] if is_lost and number % 2 else [*self._worker.run_split(work)]
                except MsmarcoQdrantError as exc:
                    board.failed(number, attempt, exc, now)
                    continue
                if is_lost:
                    board.lost(number, attempt, now)
                elif board.finished(number):
                    sink.finish(number, attempt, *stats)
                sink.poll(self._worker.done())

    def close(self) -> None:
        """Count the ends."""
        self.ends += 1


@pytest.fixture
def store(server: LoopbackServer) -> Iterator[Store]:
    """A collection with thirty passages on a server."""
    with closing(open_store(server.url)) as opened:
        ingest_passages(passages(), opened, collection="things", encoder=V2)
        yield opened


def make_worker(store: Store, encoder: HashingEncoder = V3) -> CopyWorker:
    """A worker with an encoder."""
    models = ModelChoice(None, EncoderOptions())
    return CopyWorker(WorkerSettings(store.dsn, DEFAULT_CONNECTION, models, lambda: encoder))


def change(store: Store, encoder: HashingEncoder = V3, **options: Any) -> ReembedReport:
    """Change the model with ranges of four points."""
    pool: Any = options.pop("pool", None) or PoolHere(make_worker(store, encoder))
    passes = PassesOnRay(pool, 2, 4, TaskPolicy())
    given: dict[str, Any] = {
        "texts": None,
        "load_old": load_old,
        "allow_rejects": False,
        "allow_worse": False,
        "on_progress": lambda _progress: None,
        **options,
    }
    chosen = ReembedOptions(open_passes=passes.open, **given)
    return change_model(store, "things", encoder, chosen, time.perf_counter())


def test_it_ends_as_in_one_process(store: Store) -> None:
    """Every pass covers all ids, though each range is lost once; workers end with each job."""
    pool, seen = PoolHere(make_worker(store)), list[ReembedProgress]()
    before = payloads(store, "things")
    report = change(store, pool=pool, on_progress=seen.append)

    check_holds(store, passages(), V3)
    assert before == payloads(store, "things")
    assert (30, 0) == (report.passages, report.removed)
    assert {"copy", "verify", "strays"} == {work.kind for work in pool.works}
    assert pool.ends == 3
    assert (30, 30) == max((one.done, one.total) for one in seen if one.stage == "copy")


@pytest.mark.parametrize("stage", ["index", "verify", "swap"])
def test_deletions_and_newer_writes_win(store: Store, stage: Any) -> None:
    """Also those outside of the ids that were there when the ranges were found."""
    changed = [
        replace(passages()[1], text="another text"),
        Passage("new", "a new one"),
        Passage(str(2**64 - 1), "a large number"),
        Passage("500", "behind the numbers"),
    ]

    def write() -> None:
        ingest_passages(changed, store, collection="things", encoder=V2, optimize=False)
        assert 2 == delete_passages(store, ["4", "x3"], collection="things")

    change(store, on_progress=at_stages({stage: write}))
    kept = [one for one in passages() if one.pid not in ("1", "4", "x3")]
    check_holds(store, [*kept, *changed], V3)


@pytest.mark.parametrize("stage", ["copy", "verify", "last pass"])
@pytest.mark.parametrize("first_on_ray", [True, False])
def test_either_resumes_the_other(store: Store, stage: Any, *, first_on_ray: bool) -> None:
    """Interrupted at a stage on ranges of ids or in one process, finished in the other way."""
    first, second = (change, reembed) if first_on_ray else (reembed, change)
    with pytest.raises(InterruptionError):
        first(store, on_progress=at_stages({stage: interrupt}))
    second(store)

    check_holds(store, passages(), V3)
    assert {"things": "things__0002"} == dict(store.aliases())


def test_strays_are_removed(store: Store) -> None:
    """A copy whose passage was deleted, as by a worker that was lost after its write."""
    with pytest.raises(InterruptionError):
        change(store, on_progress=at_stages({"index": interrupt}))
    lost = store.collection("things__0001")
    ids = [id_ for id_, payload in lost.scan(("pid",)) if payload["pid"] in ("5", "x6")]
    lost.delete(ids, up_to_seq=2**62)
    report = change(store, pool=PoolHere(make_worker(store), loses=False))

    assert (2, 28) == (report.removed, report.passages)
    check_holds(store, [one for one in passages() if one.pid not in ("5", "x6")], V3)


def test_passages_without_a_vector_are_refused(store: Store) -> None:
    """Their pids are collected from all ranges."""
    ingest_passages(
        [Passage("one", "alone"), Passage("7", "alone")], store, collection="things", encoder=V2
    )
    wordless = Wordless(256, salt="wordless")
    with pytest.raises(MigrationError, match="returns no vector for 2 passages, such as '"):
        change(store, wordless)
    report = change(store, wordless, allow_rejects=True)

    assert (("7", "one"), 29) == (report.without_vector, report.passages)


def test_a_machine_with_another_model_is_refused(store: Store) -> None:
    """Before anything is read."""
    with pytest.raises(ModelMismatchError, match="than the machine that loaded it first"):
        make_worker(store).begin(V2.info)


def test_a_machine_without_the_model_is_named(store: Store) -> None:
    """The model is on the machine of the command, so the error would seem to be wrong."""
    models = ModelChoice("/no/such/model", EncoderOptions())
    worker = CopyWorker(WorkerSettings(store.dsn, DEFAULT_CONNECTION, models, None))
    with pytest.raises(ModelNotFoundError, match=f"This is so on {platform.node()}: copy the same"):
        worker.begin(V3.info)


def test_a_worker_without_the_lock_writes_nothing(store: Store) -> None:
    """As one of a driver that was killed, whose lock was removed."""
    with pytest.raises(InterruptionError):
        change(store, on_progress=at_stages({"copy": interrupt}))
    copying = read_generations(store, "things").copying
    assert copying is not None
    nobody = LockHolder("t", "h", 1, "s")
    worker = make_worker(store)
    worker.begin(V3.info)
    with pytest.raises(StoreInUseError, match="the lock of 'things' was removed"):
        next(worker.run_split(CopyWork("copy", copying, "things", nobody, IdRange())))

    assert 0 == store.collection(copying.target).info().points
    assert 0 == worker.done()


@pytest.mark.parametrize("kind", ["copy", "verify", "strays"])
def test_a_worker_that_was_given_up_writes_nothing_after_the_swap(store: Store, kind: Any) -> None:
    """As one behind a broken network: it would undo what clients have written since."""
    changed = [replace(passages()[1], text="another text"), Passage("new", "a new one")]

    def write_and_run() -> None:
        ingest_passages(changed, store, collection="things", encoder=V3, optimize=False)
        holder = store.migration_locks.holder("things")
        copying = read_generations(store, "things").copying
        assert holder is not None
        assert copying is not None
        before = CopyWork(kind, replace(copying, is_swapped=False), "things", holder, IdRange())
        worker = make_worker(store)
        worker.begin(V3.info)
        with pytest.raises(MigrationError, match="'things' points to things__0002 already"):
            next(worker.run_split(before))

    change(store, on_progress=at_stages({"last pass": write_and_run}))
    check_holds(store, [one for one in passages() if one.pid != "1"] + changed, V3)


def test_a_removed_lock_ends_the_driver(store: Store) -> None:
    """The second attempt at a range is not made: the first failed for the same reason."""

    def remove_lock() -> None:
        holder = store.migration_locks.holder("things")
        assert holder is not None
        unlock_migrations(store, "things", holder.token)

    pool = PoolHere(make_worker(store), loses=False)
    with pytest.raises(StoreInUseError, match="run the same command again"):
        change(store, pool=pool, on_progress=at_stages({"copy": remove_lock}))

    assert len({work.ids for work in pool.works}) == len(pool.works)
