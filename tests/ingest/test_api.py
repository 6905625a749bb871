"""Ingests: first, repeated, changed, refused and interrupted ones."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.core.collection_types import Bm25Settings, CollectionSpec, PointBatch
from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.encoding import Tokenized
from msmarco_qdrant.errors import (
    IngestStoppedError,
    ModelMismatchError,
    PidCollisionError,
    SourceError,
    StoreError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.windows import RowStream, split_into_windows
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.rejects import check_row
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder, NullCollection, NullStore
from tests.engines import each_engine


def stored(store: Store, passages: Sequence[Passage]) -> dict[str, tuple[str, object]]:
    """Text and meta of those passages that the collection holds."""
    ids = [point_id(passage.pid) for passage in passages]
    found = store.collection("msmarco").retrieve(ids, ["pid", "text", "meta"])
    return {p["pid"]: (p["text"], p["meta"]) for p in found.values()}


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    """Rows read, written, unchanged, rejected and encoded."""
    r = report
    return (r.read, r.written, r.unchanged, r.rejected, r.encoded)


@each_engine
def test_passages_go_in_and_are_found(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """All of them, with text and meta, under whatever pid."""
    report = ingest_passages(passages, store, encoder=encoder)
    assert (5, 5, 0, 0, 5) == counts(report)
    assert stored(store, passages) == {p.pid: (p.text, p.meta) for p in passages}
    with SearchClient.open(store, encoder=encoder) as client:
        for passage in passages:
            assert client.search(passage.text, limit=1)[0].pid == passage.pid


def test_the_same_again_writes_and_encodes_nothing(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """A second run finds everything there, and so does a third."""
    ingest_passages(passages, store, encoder=encoder)
    seq = store.collection("msmarco").info().last_seq
    for _ in range(2):
        report = ingest_passages(passages, store, encoder=encoder)
        assert (5, 0, 5, 0) == (report.read, report.written, report.unchanged, report.encoded)
    assert encoder.encoded == 5
    assert store.collection("msmarco").info().last_seq == seq


@each_engine
def test_only_changed_texts_are_encoded_again(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """A new text costs one encoding; a new meta costs none and keeps the vector."""
    ingest_passages(passages, store, encoder=encoder)
    changed = [
        Passage(passages[0].pid, passages[0].text, {"new": 1}),
        *passages[1:4],
        Passage(passages[4].pid, "zebras graze on grass"),
    ]
    report = ingest_passages(changed, store, encoder=encoder)
    assert (2, 3, 1) == (report.written, report.unchanged, report.encoded)
    assert stored(store, changed) == {p.pid: (p.text, p.meta) for p in changed}
    with SearchClient.open(store, encoder=encoder) as client:
        assert client.search("zebras graze", limit=1)[0].pid == changed[4].pid
        assert client.search(passages[0].text, limit=1)[0].meta == {"new": 1}
    assert store.collection("msmarco").info().points == 5


def test_seq_rises_with_every_write(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Each write has its own number, higher than all before, over runs as well."""
    ingest_passages(passages[:3], store, encoder=encoder)
    first = store.collection("msmarco").info().last_seq
    ingest_passages(passages, store, encoder=encoder)
    ids = [point_id(passage.pid) for passage in passages]
    payloads = store.collection("msmarco").retrieve(ids, ["seq"])
    seqs = [payloads[id_]["seq"] for id_ in ids]
    assert len(set(seqs)) == 5
    assert max(seqs[:3]) == first < min(seqs[3:])


@pytest.mark.parametrize("window", [1, 2, 8192])
def test_the_first_of_a_repeated_pid_wins(
    store: Store, encoder: HashingEncoder, window: int
) -> None:
    """In the same window or a later one, in the first run or a later one."""
    rows = [Passage("a", "first text"), Passage("b", "other"), Passage("a", "second text")]
    for expected_written in (2, 0):
        rejects: list[Reject] = []
        report = ingest_passages(
            rows, store, encoder=encoder, window=window, on_reject=rejects.append
        )
        assert (expected_written, 1) == (report.written, report.rejected)
        assert ["pid 'a' was read before in this run; the first one is used"] == [
            r.reason for r in rejects
        ]
        assert stored(store, rows)["a"] == ("first text", {})


def test_a_passage_without_a_vector_is_rejected(store: Store, encoder: HashingEncoder) -> None:
    """It goes to the rejects with its row; its neighbors go in."""
    rejects: list[Reject] = []
    rows = [Passage("1", "words"), Passage("2", "!!!", {"a": 1}, "file.tsv", 7)]
    report = ingest_passages(rows, store, encoder=encoder, on_reject=rejects.append)
    assert (2, 1, 1) == (report.read, report.written, report.rejected)
    (reject,) = rejects
    assert ("file.tsv", 7) == (reject.source, reject.line)
    assert "no finite, non-zero vector" in reject.reason
    assert reject.raw == b'{"pid": "2", "text": "!!!", "meta": {"a": 1}}'
    assert list(stored(store, rows)) == ["1"]


def test_rejects_of_the_source_are_counted_and_passed_on(
    tmp_path: Path, store: Store, encoder: HashingEncoder
) -> None:
    """A file with bad rows: the good ones go in, the others are told with their lines."""
    file = tmp_path / "p.tsv"
    file.write_text("1\tone\nno tab here\n2\ttwo\n1\ttwo  words\n")
    rejects: list[Reject] = []
    report = ingest_passages(file, store, encoder=encoder, on_reject=rejects.append)
    assert (4, 2, 2) == (report.read, report.written, report.rejected)
    assert [(str(file), 2), (str(file), 4)] == [(r.source, r.line) for r in rejects]
    assert (b"1\ttwo  words", 12) == (rejects[1].raw, rejects[1].raw_bytes)


@pytest.mark.parametrize(
    ("passage", "reason"),
    [
        (Passage("", "text"), "no pid"),
        (Passage("a\x00", "text"), "NUL"),
        (Passage("a", " "), "empty"),
        (Passage("a", "lone \ud800"), "lone surrogate"),
        (Passage("a", "text", {"x": float("nan")}), "finite number, got nan"),
        (Passage("a", "text", {"x": 2**63}), "signed 64-bit integer"),
        (Passage("a", "text", {"x": object()}), "must be a JSON value, got an object"),
        (Passage("a", "text", {"x": json.loads("[" * 24 + "1" + "]" * 24)}), "nested too deeply"),
        (Passage("a", "text", {1: "x"}), "field name must be a string, got an integer"),  # type: ignore[dict-item]
        (Passage("a", "text", ["x"]), "the meta must be an object, got an array"),  # type: ignore[arg-type]
        (Passage("a", "text", None), "the meta must be an object, got null"),  # type: ignore[arg-type]
        (Passage("a", None), "the text must be a string, got null"),  # type: ignore[arg-type]
        (Passage(1.5, "text"), "the pid must be a string or an integer, got a float"),  # type: ignore[arg-type]
    ],
)
def test_a_passage_made_in_python_is_checked_like_a_row(passage: Passage, reason: str) -> None:
    """A file could not hold it."""
    reject = check_row(passage)
    assert isinstance(reject, Reject)
    assert reason in reject.reason


def test_an_empty_list_makes_an_empty_collection(store: Store, encoder: HashingEncoder) -> None:
    """Nothing to do is no error."""
    report = ingest_passages([], store, encoder=encoder)
    assert (0, 0, None) == (report.read, report.written, report.mean_tokens)
    assert store.collection("msmarco").info().points == 0


@pytest.mark.parametrize("content", ["", "\n\n", "pid\ttext\n", "pid,text\n"])
def test_s2_files_without_a_row_create_nothing(
    tmp_path: Path, encoder: HashingEncoder, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a store nor a collection; an existing collection stays."""
    file, place = tmp_path / "empty.tsv", tmp_path / "store"
    file.write_text(content)
    report = ingest_passages(file, place, encoder=encoder)
    assert (0, 0, 0, 0, 0) == counts(report)
    assert not place.exists()
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert ["the source has no passages: no collection was created"] == warned
    ingest_passages([Passage("1", "a city")], place, encoder=encoder)
    ingest_passages(file, place, encoder=encoder)
    ingest_passages(file, place, encoder=encoder, collection="other")
    with open_store(place) as store:
        assert ["msmarco"] == [*store.aliases()]
        assert 1 == store.collection("msmarco").info().points


@pytest.mark.parametrize("error", [RuntimeError, ValueError, MemoryError])
def test_s2_an_encoder_that_fails_at_once_leaves_no_collection(
    store: Store, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A collection with passages stays."""

    def fail(*_: object) -> None:
        raise error("no memory")

    ingest_passages([Passage("1", "a city")], store, encoder=encoder)
    monkeypatch.setattr(encoder, "encode_passages", fail)
    for name, stored in (("new", 0), ("msmarco", 1)):
        with pytest.raises(error, match="no memory"):
            ingest_passages([Passage("2", "a town")], store, encoder=encoder, collection=name)
        assert stored == len([found for found in store.aliases() if found == name])


# ---- what is refused -------------------------------------------------------------------------


def test_another_model_is_refused(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Of the same dimension or another, by a message that names both; nothing is written."""
    ingest_passages(passages[:1], store, encoder=encoder)
    for other in (HashingEncoder(64, salt="v2"), HashingEncoder(32)):
        message = rf"holds vectors of costless-64 \(64\); you asked for {other.info.model}"
        with pytest.raises(ModelMismatchError, match=message):
            ingest_passages(passages, store, encoder=other)
    assert store.collection("msmarco").info().points == 1


def test_other_bm25_settings_are_refused(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """They are fixed when the collection is made; the same ones again are fine."""
    ours = Bm25Settings(k=1.5)
    ingest_passages(passages, store, encoder=encoder, bm25=ours)
    assert store.metadata("msmarco").bm25 == ours
    ingest_passages(passages, store, encoder=encoder, bm25=ours)
    with pytest.raises(UsageError, match=r"k=1\.5.* with a migration of your own \(SetBm25"):
        ingest_passages(passages, store, encoder=encoder, bm25=Bm25Settings())


def test_impossible_bm25_settings_make_nothing(tmp_path: Path, encoder: HashingEncoder) -> None:
    """An unknown language, a weight out of range: told before anything is created."""
    for bad in (Bm25Settings(language="klingon"), Bm25Settings(b=2.0), Bm25Settings(avg_len=0)):
        with pytest.raises(UsageError, match="BM25 settings"):
            ingest_passages([], tmp_path / "store", encoder=encoder, bm25=bad)
    assert not (tmp_path / "store").exists()


def test_a_foreign_point_is_not_overwritten(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """A point under our id that holds another pid stops the run."""
    ingest_passages(passages, store, encoder=encoder)
    store.collection("msmarco").replace_payloads([1], [{"pid": "not 1", "text": "precious"}])
    with pytest.raises(IngestStoppedError, match="'not 1'") as caught:
        ingest_passages(passages, store, encoder=encoder)
    assert isinstance(caught.value.__cause__, PidCollisionError)
    payload = store.collection("msmarco").retrieve([1], ["text"])
    assert payload == {1: {"text": "precious"}}


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 64, "msmarco__0001", "-x"])
def test_a_bad_name_is_refused(tmp_path: Path, encoder: HashingEncoder, name: str) -> None:
    """A name that could leave the store's directory, or be mistaken, makes nothing."""
    with pytest.raises(UsageError, match="collection name must"):
        ingest_passages([], tmp_path / "store", collection=name, encoder=encoder)
    assert not (tmp_path / "store").exists()


def test_nothing_is_created_when_something_is_missing(tmp_path: Path) -> None:
    """A missing source, a missing model, both model and encoder: no store afterwards."""
    store = tmp_path / "store"
    with pytest.raises(SourceError, match=r"no such file: nowhere\.tsv"):
        ingest_passages("nowhere.tsv", store, encoder=HashingEncoder())
    with pytest.raises(UsageError, match="not both"):
        ingest_passages([], store, encoder=HashingEncoder(), model="x")
    with pytest.raises(UsageError, match="window"):
        ingest_passages([], store, encoder=HashingEncoder(), window=0)
    assert not store.exists()


def test_a_place_that_cannot_be_a_store_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    """Else a model would be downloaded for nothing; this one does not even exist."""
    (tmp_path / "thesis.tex").write_text("...")
    for place in (tmp_path, tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "store"):
        with pytest.raises(StoreError, match=r"thesis\.tex"):
            ingest_passages([], place, model="no-such-model")


# ---- what breaks in the middle ---------------------------------------------------------------


class FailingCollection(NullCollection):
    """A collection whose second write fails."""

    writes = 0

    def upsert(self, batch: PointBatch) -> None:
        """Fail the second time."""
        self.writes += 1
        if self.writes == 2:
            raise StoreError("the disk is full")
        super().upsert(batch)


class FailingStore(NullStore):
    """A store of such collections."""

    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Make one."""
        super().create_collection(name, spec, metadata)
        self._collections[name] = FailingCollection(name, spec)


def test_a_failing_store_tells_how_far_it_got() -> None:
    """The error has a report; only what was flushed counts as written."""
    rows = [Passage(str(number), f"text {number}") for number in range(40)]
    encoder = HashingEncoder(batch_size=10)
    with pytest.raises(IngestStoppedError, match=r"disk is full \(20 passages were") as caught:
        ingest_passages(rows, FailingStore(), encoder=encoder, window=20)
    assert (20, 20) == (caught.value.report.written, caught.value.report.read)


def test_an_interrupt_in_a_callback_ends_every_thread(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Ctrl-C comes through as it is, and the same call goes on afterwards."""

    def interrupt(progress: IngestProgress) -> None:
        if progress.done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_passages(passages, store, encoder=encoder, window=1, on_progress=interrupt)
    report = ingest_passages(passages, store, encoder=encoder)
    assert report.read == 5
    assert stored(store, passages) == {p.pid: (p.text, p.meta) for p in passages}


def test_an_error_of_the_source_stops_the_run_after_what_came_before(
    store: Store, encoder: HashingEncoder
) -> None:
    """A source that breaks in the middle: its error comes through."""

    def source() -> Iterator[Passage]:
        yield Passage("1", "one")
        raise SourceError("the tape is torn")

    with pytest.raises(IngestStoppedError, match="the tape is torn"):
        ingest_passages(source(), store, encoder=encoder, window=1)


# ---- reports ---------------------------------------------------------------------------------


def test_progress_reaches_the_end(tmp_path: Path, store: Store, encoder: HashingEncoder) -> None:
    """The share of a file that is through rises to 1, then the index is announced."""
    file = tmp_path / "p.tsv"
    file.write_text("".join(f"{number}\ttext {number}\n" for number in range(100)))
    seen: list[IngestProgress] = []
    ingest_passages(Corpus(file), store, encoder=encoder, window=10, on_progress=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions, key=lambda value: value or 0.0)
    assert ("passages", 1.0, 100) == (seen[-2].stage, seen[-2].fraction, seen[-2].done)
    assert seen[-1].stage == "index"


@pytest.mark.slow
def test_bm25_length_far_off_is_warned_of(
    store: Store, encoder: HashingEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    """Passages of three tokens in a collection made for 36.6: a warning with the true mean."""
    rows = [Passage(str(number), "zebra grass plains") for number in range(100)]
    ingest_passages(rows[:99], store, collection="few", encoder=encoder)
    assert caplog.text == ""  # so few say little
    with caplog.at_level(logging.WARNING):
        report = ingest_passages(rows, store, encoder=encoder)
    assert report.mean_tokens == 3.0
    assert "3.0 BM25 tokens on average, the collection assumes 36.6" in caplog.text
    caplog.clear()
    fitting = Bm25Settings(avg_len=3.0)
    ingest_passages(rows, store, collection="fitting", encoder=encoder, bm25=fitting)
    assert caplog.text == ""


# ---- any sequence of runs --------------------------------------------------------------------

texts = st.sampled_from(["zebra", "lion", "bear", "!!!"])
metas = st.sampled_from([{}, {"a": 1}, {"a": "1"}])
rows = st.lists(st.builds(Passage, st.sampled_from("abcde"), texts, metas), max_size=8)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(runs=st.lists(rows, min_size=1, max_size=4), window=st.integers(1, 9))
def test_any_sequence_of_runs_ends_in_what_was_given_last(
    runs: list[list[Passage]], window: int
) -> None:
    """A model of ingest as a dictionary: the first of a pid in a run, the last run of a pid."""
    expected: dict[str, tuple[str, object]] = {}
    store = open_store(":memory:", create=True)
    encoder = HashingEncoder()
    for run in runs:
        first: dict[str, Passage] = {}
        for passage in run:
            first.setdefault(passage.pid, passage)
        accepted = [passage for passage in first.values() if passage.text != "!!!"]
        expected.update({p.pid: (p.text, p.meta) for p in accepted})
        if run and not accepted and not store.aliases():  # the source of a new collection fails
            with pytest.raises(IngestStoppedError, match="the source has no passage"):
                ingest_passages(run, store, encoder=encoder, window=window, optimize=False)
            assert {} == store.aliases()
            continue
        report = ingest_passages(run, store, encoder=encoder, window=window, optimize=False)
        assert report.read == len(run)
        assert report.rejected == len(run) - len(accepted)
    everyone = [Passage(pid, "") for pid in "abcde"]
    assert expected == (stored(store, everyone) if store.aliases() else {})
    store.close()


class FaultyEncoder(HashingEncoder):
    """An encoder that changes its batches with a function."""

    def __init__(self, fault: Callable[[EncodedBatch], list[EncodedBatch]]) -> None:
        super().__init__()
        self._fault = fault

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """The right batches, then spoiled."""
        for batch in super().encode_passages(passages):
            yield from self._fault(batch)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda _: [], "no vector for 5 of 5"),
        (lambda batch: [batch, batch], "position 0 twice"),
        (lambda b: [EncodedBatch(b.positions[1:], b.vectors[1:])], "no vector for 1 of 5"),
        (lambda b: [EncodedBatch(b.positions - 1, b.vectors)], "position -1"),
        (lambda b: [EncodedBatch(b.positions + 9, b.vectors)], "position 9"),
        (lambda b: [EncodedBatch(b.positions, b.vectors[1:])], r"float32 \(4, 64\)"),
        (lambda b: [EncodedBatch(b.positions, b.vectors[:, 1:])], r"float32 \(5, 63\)"),
        (lambda b: [EncodedBatch(b.positions, b.vectors.astype("float64"))], "float64"),
    ],
)
def test_an_encoder_cannot_lose_or_double_a_passage(
    store: Store,
    passages: Sequence[Passage],
    fault: Callable[[EncodedBatch], list[EncodedBatch]],
    message: str,
) -> None:
    """What it leaves out, repeats or misshapes stops the run with what it was."""
    with pytest.raises(IngestStoppedError, match=message):
        ingest_passages(passages, store, encoder=FaultyEncoder(fault))


def test_threads_may_create_the_same_collection(tmp_path: Path) -> None:
    """One makes it, the others use it; one with another model is refused, and none is mixed."""
    for turn in range(2):
        results: list[object] = []

        def run(number: int, turn: int = turn, results: list[object] = results) -> None:
            encoder = HashingEncoder(salt="other" if number == 3 else "")
            rows = [Passage(f"{number}-{row}", f"text {row}") for row in range(20)]
            try:
                ingest_passages(
                    rows, tmp_path / "store", collection=f"c{turn}", encoder=encoder, optimize=False
                )
                results.append(encoder.info.model)
            except ModelMismatchError as exc:
                results.append(exc)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store = open_store(tmp_path / "store")
        kept = store.metadata(f"c{turn}").encoder.model
        points = store.collection(f"c{turn}").info().points
        store.close()
        succeeded = [result for result in results if isinstance(result, str)]
        assert len(results) == 4
        assert set(succeeded) == {kept}
        assert points == 20 * len(succeeded)


def test_an_integer_pid_is_its_decimal_form(store: Store, encoder: HashingEncoder) -> None:
    """As in JSON; the same number as a string is the same pid."""
    rows = [Passage(5, "five"), Passage("5", "five again")]  # type: ignore[arg-type]
    report = ingest_passages(rows, store, encoder=encoder)
    assert (1, 1) == (report.written, report.rejected)
    assert stored(store, [Passage("5", "")]) == {"5": ("five", {})}


@pytest.mark.parametrize("row", ["1\ttext", b"1\ttext", None, 5, ["1", "text"], {"1"}, ("1",)])
def test_a_row_of_another_type_is_refused(
    store: Store, encoder: HashingEncoder, row: object
) -> None:
    """By its type."""
    with pytest.raises(IngestStoppedError, match=f"got an? {type(row).__name__}"):
        ingest_passages([Passage("0", "x"), row], store, encoder=encoder)  # type: ignore[arg-type]


def test_no_row_is_taken_beyond_max_passages(store: Store, encoder: HashingEncoder) -> None:
    """A pipe may stay open without giving another row."""
    taken: list[int] = []

    def source() -> Iterator[Passage]:
        for number in range(10):
            taken.append(number)
            yield Passage(str(number), f"text {number}")

    report = ingest_passages(source(), store, encoder=encoder, max_passages=3)
    assert (3, 3, [0, 1, 2]) == (report.read, report.written, taken)
    report = ingest_passages(source(), store, encoder=encoder)
    assert (7, 3) == (report.written, report.unchanged)


@pytest.mark.parametrize("name", ["window", "max_passages"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "9", True])
def test_another_count_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    """By the rule for all counts, before anything is created."""
    given: Any = {name: value}
    with pytest.raises(UsageError, match=f"{name} must be an integer of 1 or more, got {value!r}"):
        ingest_passages([], tmp_path / "new", encoder=HashingEncoder(), **given)
    assert not (tmp_path / "new").exists()


def test_a_window_is_bounded_by_its_text() -> None:
    """A window ends after 10 million characters, long before it has 8,192 passages."""
    rows = (Passage(str(number), "x" * 1_000_000) for number in range(25))
    windows = split_into_windows(RowStream(rows), PidSet(), 8192, None)
    assert [10, 10, 5] == [len(window.passages) for window in windows]


class ReversingEncoder(HashingEncoder):
    """An encoder that gives back its batches in another order, as real ones do."""

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """The last texts first."""
        for batch in reversed(list(super().encode_passages(passages))):
            order = np.arange(len(batch.positions))[::-1]
            yield EncodedBatch(batch.positions[order], batch.vectors[order])


def test_the_encoder_may_choose_the_order(store: Store) -> None:
    """Vectors, texts and sparse vectors stay together whatever order the encoder likes."""
    rows = [Passage(str(number), f"word{number} alone{number}") for number in range(50)]
    encoder = ReversingEncoder(batch_size=7, dimension=512)
    ingest_passages(rows, store, encoder=encoder)
    with SearchClient.open(store, encoder=encoder) as client:
        answers = client.search_many([row.text for row in rows], limit=1)
    assert [answer[0].pid for answer in answers] == [row.pid for row in rows]
