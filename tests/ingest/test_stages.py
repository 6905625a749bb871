"""Stages of an ingest: they overlap, are bounded, end together, and report their time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from msmarco_qdrant.cli.output import report_json
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    CollectionSpec,
    HnswSettings,
    PointBatch,
    PointId,
    SparseVector,
)
from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.report_text import stages_text
from msmarco_qdrant.core.reports import IngestReport, StageTiming
from msmarco_qdrant.encoding import Bm25Encoder, Tokenized
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.ingest.alias_guard import AliasGuard, resolve_alias
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.stages import IngestStages, IngestTarget, WindowDiff
from msmarco_qdrant.ingest.windows import RowStream, Window
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.testing import (
    HashingEncoder,
    HashingTokenizer,
    NullCollection,
    NullStore,
)

TIMEOUT_S = 20.0
STAGES = ("read", "skip", "tokenize", "forward", "sparse", "write")

Hook: TypeAlias = Callable[[str, int], None]
"""Called by a stage at work, with its name and the number of its window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookedTokenizer(HashingTokenizer):
    """A tokenizer that calls the hook."""

    hook: Hook

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Call it, then tokenize."""
        self.hook("tokenize", number_of(texts[0]))
        return HashingTokenizer.__call__(self, texts)


class HookedEncoder(HashingEncoder):
    """An encoder that calls the hook, in its tokenizer and in its forward pass."""

    def __init__(self, hook: Hook) -> None:
        super().__init__()
        self._hook = hook
        self._windows = 0

    @property
    def tokenizer(self) -> HashingTokenizer:
        """One that calls the hook as well."""
        return HookedTokenizer(hook=self._hook)

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Call it, then encode; windows come in their order."""
        self._windows += 1
        self._hook("forward", self._windows - 1)
        yield from super().encode_passages(passages)


class HookedBm25(Bm25Encoder):
    """An encoder of sparse vectors that calls the hook."""

    def __init__(self, hook: Hook) -> None:
        super().__init__(Bm25Settings())
        self._hook = hook

    def encode_passage(self, text: str) -> SparseVector:
        """Call it, then encode."""
        self._hook("sparse", number_of(text))
        return super().encode_passage(text)


class HookedCollection(NullCollection):
    """A collection that calls the hook, and holds a point so that it is asked."""

    def __init__(self, hook: Hook) -> None:
        hnsw = HnswSettings()
        super().__init__("fake", CollectionSpec("dense", 64, "cosine", "bm25", hnsw, {}))
        self._hook = hook
        self.points = 1

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str], *, all_replicas: bool = False
    ) -> Mapping[PointId, dict[str, Any]]:
        """Call it once for a window, then find nothing."""
        if all_replicas:
            self._hook("skip", int(str(ids[0])))
        return super().retrieve(ids, fields, all_replicas=all_replicas)

    def upsert(self, batch: PointBatch) -> None:
        """Call it, then count."""
        self._hook("write", int(str(batch.ids[0])))
        super().upsert(batch)


def number_of(text: str) -> int:
    """Of "text 7", seven."""
    return int(text.split()[1])


def source(count: int, hook: Hook) -> Iterator[Passage]:
    """Passages "text 0", "text 1", ..., each of them a window of its own below."""
    for number in range(count):
        hook("read", number)
        yield Passage(str(number), f"text {number}")


def guard_of(encoder: HashingEncoder, spec: CollectionSpec) -> AliasGuard:
    """A guard of the collection "fake"."""
    store = NullStore()
    store.create_collection("fake", spec)
    store.put_metadata("fake", CollectionMetadata(1, "0", encoder.info, Bm25Settings(), ()))
    return resolve_alias(store, "fake")


def run_windows(count: int, hook: Hook, clock: Callable[[], float] | None = None) -> IngestRun:
    """A run over so many windows, whose stages all call the hook."""
    encoder = HookedEncoder(hook)
    target = IngestTarget(HookedCollection(hook), encoder.info, HookedBm25(hook), encoder)
    guard = guard_of(encoder, target.collection.info().spec)
    run = IngestRun(target, guard, RejectCount(None), None, clock or time.perf_counter)
    run.ingest(RowStream(source(count, hook)), window=1, max_passages=None)
    return run


def test_all_stages_are_at_work_at_once() -> None:
    """None goes on before every one has a window of its own."""
    meeting = threading.Barrier(len(STAGES), timeout=TIMEOUT_S)
    first_in = {name: len(STAGES) - 1 - place for place, name in enumerate(STAGES)}

    def hook(stage: str, number: int) -> None:
        if number == first_in[stage]:
            meeting.wait()

    assert 8 == run_windows(8, hook).counts.written
    assert not meeting.broken


def test_a_source_is_read_no_further_ahead_than_twelve_windows() -> None:
    """As long as the first is being written, however fast the others are."""
    read: list[int] = []
    full = threading.Event()
    seen: list[int] = []

    def hook(stage: str, number: int) -> None:
        if stage == "read":
            read.append(number)
            if number == 11:
                full.set()  # it cannot be handed on
        if (stage, number) == ("write", 0):
            assert full.wait(TIMEOUT_S)
            seen.extend(read)

    assert 30 == run_windows(30, hook).counts.written
    assert list(range(12)) == seen


def test_c13_interrupt_does_not_wait_for_a_server() -> None:
    """The stage that asks it is left; its thread ends when the server answers."""
    asked, go_on = threading.Event(), threading.Event()
    encoder = HashingEncoder()

    def compare(window: Window) -> WindowDiff:
        asked.set()
        go_on.wait(TIMEOUT_S)
        return WindowDiff(window, window.passages, [], 0, 0)

    collection = NullCollection(
        "x__0001", CollectionSpec("v", 4, "cosine", "bm25", HnswSettings(), {})
    )
    target = IngestTarget(collection, encoder.info, Bm25Encoder(Bm25Settings()), encoder)
    stages = IngestStages(target, compare, is_remote=True)
    windows = [Window([Passage("1", "text")])]
    try:
        with Pipeline() as pipeline:
            stages.run(pipeline, windows)
            assert asked.wait(TIMEOUT_S)
        assert not go_on.is_set()
    finally:
        go_on.set()


@pytest.mark.parametrize("broken", STAGES)
def test_an_error_of_any_stage_comes_out_and_ends_them_all(broken: str) -> None:
    """While the others are at work; what came before it is written."""
    before = threading.active_count()
    written: list[int] = []

    def hook(stage: str, number: int) -> None:
        if stage == "write":
            written.append(number)
        if (stage, number) == (broken, 2):
            raise StoreError(f"{broken} is broken")

    with pytest.raises(StoreError, match=f"{broken} is broken"):
        run_windows(50, hook)
    assert [0, 1] == [number for number in written if number < 2]
    assert max(written) <= 2
    assert before >= threading.active_count()  # one of another test may have ended


@pytest.mark.parametrize("broken", STAGES)
def test_an_interrupt_ends_them_all(broken: str) -> None:
    """Ctrl-C in the caller's thread, whatever the others do at that moment."""
    before = threading.active_count()
    reached, interrupted = threading.Event(), threading.Event()

    def hook(stage: str, number: int) -> None:
        if stage == "write" and number == 1:
            assert broken == "write" or reached.wait(TIMEOUT_S)
            interrupted.set()
            raise KeyboardInterrupt
        if (stage, number) == (broken, 3):
            reached.set()
            interrupted.wait(TIMEOUT_S)

    with pytest.raises(KeyboardInterrupt):
        run_windows(50, hook)
    assert before >= threading.active_count()  # one of another test may have ended


# ---- where the time goes ---------------------------------------------------------------------


class ThreadClock:
    """A clock that stands still but for the thread that works: each thread has its own time."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self) -> float:
        """Seconds that the current thread has worked."""
        return getattr(self._own, "seconds", 0.0)

    def work(self, seconds: float) -> None:
        """Let the current thread's time go on."""
        self._own.seconds = self() + seconds


@pytest.mark.parametrize(
    ("slow", "text"),
    [
        ("read", "limited by the source"),
        ("skip", "limited by the search for unchanged passages"),
        ("tokenize", "limited by the tokenizer"),
        ("forward", "limited by the model"),
        ("sparse", "limited by the computation of BM25 weights"),
        ("write", "limited by the store"),
    ],
)
def test_the_slow_stage_is_named(slow: str, text: str) -> None:
    """Each has its own time to the second, and waiting for a slow one is nobody's work."""
    clock = ThreadClock()
    run = run_windows(3, lambda stage, _: clock.work(30.0 if stage == slow else 1.0), clock)
    report = run.report()
    found = {stage.name: stage.seconds for stage in report.stages}
    assert {name: 90.0 if name == slow else 3.0 for name in STAGES} == found
    assert list(STAGES) == [stage.name for stage in report.stages]
    assert text in stages_text(report)


def test_a_share_is_of_the_wall_time() -> None:
    """Here that of the caller's thread, which works a hundred seconds."""
    clock = ThreadClock()
    seconds = {"forward": 40.0, "write": 25.0}
    run = run_windows(4, lambda stage, _: clock.work(seconds.get(stage, 0.0) / 4), clock)
    clock.work(75.0)
    report = run.report()
    assert 100.0 == report.seconds
    shares = {stage.name: stage.share for stage in report.stages if stage.share}
    assert {"forward": 0.4, "write": 0.25} == shares
    assert "time: forward 40%, write 25% (limited by the model)" == stages_text(report)


def test_stages_of_a_whole_ingest_add_up() -> None:
    """Each works at most as long as all takes; the index is one of them, at the end."""
    report = ingest_passages(
        source(50, lambda *_: None), NullStore(), encoder=HashingEncoder(), window=7
    )
    assert [*STAGES, "index"] == [stage.name for stage in report.stages]
    for stage in report.stages:
        assert 0 <= stage.seconds <= report.seconds
        assert pytest.approx(stage.seconds / report.seconds) == stage.share


def reported(**shares: float) -> IngestReport:
    """A report over a hundred seconds with these shares."""
    stages = tuple(StageTiming(name, 100 * share, share) for name, share in shares.items())
    return IngestReport(1, 1, 0, 0, 1, 100.0, stages=stages)


def test_the_line_names_the_longest_first_and_leaves_out_next_to_nothing() -> None:
    """Under half a percent; and says so where there is nothing to tell."""
    report = reported(read=0.012, skip=0.004, forward=0.97, write=0.02)
    assert "time: forward 97%, write 2%, read 1% (limited by the model)" == stages_text(report)
    assert "index 60%" in stages_text(reported(forward=0.3, index=0.6))
    assert "limited by the index build" in stages_text(reported(forward=0.3, index=0.6))
    assert "time: too short to measure" == stages_text(reported(read=0.0))
    assert "time: too short to measure" == stages_text(reported())


def test_json_has_the_stages_in_their_order() -> None:
    """With seconds and share."""
    assert [
        {"name": "read", "seconds": 1.234, "share": 0.0123},
        {"name": "forward", "seconds": 97.0, "share": 0.97},
    ] == report_json(reported(read=0.01234, forward=0.97))["stages"]
