"""Tests of re-embedding with concurrent writes and interruptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    HnswSettings,
    PointBatch,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedProgress, ReembedStage
from msmarco_qdrant.errors import IngestStoppedError, MigrationError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed import copy, run
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store
from tests.reembed.steps import (
    ENGINE_BY_STAGE,
    SMALL,
    V2,
    V3,
    InterruptionError,
    Wordless,
    at,
    at_each_stage,
    at_stages,
    check_holds,
    interrupt,
    passages,
    payloads,
    reembed,
    rollback,
)


@pytest.mark.parametrize("encoder", [V3, SMALL], ids=["of the same length", "of another length"])
def test_everything_is_there_with_the_new_vectors(store: Store, encoder: HashingEncoder) -> None:
    """Payloads as they were, `seq` too; the old collection stays and is remembered."""
    before = payloads(store, "things")
    report = reembed(store, encoder)
    check_holds(store, passages(), encoder)
    assert before == payloads(store, "things") == payloads(store, "things__0001")
    assert {"things": "things__0002"} == dict(store.aliases())
    metadata = store.metadata("things")
    assert (None, "things__0001", 1) == (metadata.copied_from, metadata.previous, metadata.swaps)
    assert store.metadata("things__0001").migrations == metadata.migrations
    assert ("things__0001", "things__0002") == (report.old, report.new)
    assert (30, 30, 0, ()) == (
        report.passages,
        report.copied,
        report.removed,
        report.without_vector,
    )
    assert report.comparison is not None
    assert (30, 30, 30) == (
        report.comparison.queries,
        report.comparison.found_before,
        report.comparison.found_after,
    )


def test_doing_it_again_does_nothing(store: Store) -> None:
    """The name leads where it led, nothing is encoded."""
    reembed(store)
    encoded = V3.encoded
    report = reembed(store)
    assert ("things__0002", "things__0002", 0) == (report.old, report.new, report.copied)
    assert encoded == V3.encoded
    assert 1 == store.metadata("things").swaps


def test_an_empty_collection_is_re_embedded_too(tmp_path: Path) -> None:
    """There is nothing to copy, to index or to ask."""
    with new_store("memory", tmp_path) as store:
        create_collection(store, "things", V2.info, Bm25Settings())
        report = reembed(store)
        assert (0, 0) == (report.passages, report.copied)
        check_holds(store, [], V3)


@pytest.mark.slow
@at_each_stage
def test_an_interrupted_run_goes_on(store: Store, stage: ReembedStage) -> None:
    """Wherever it was: what was encoded before is not encoded again."""
    with pytest.raises(InterruptionError):
        reembed(store, on_progress=at(stage, interrupt))
    assert store.migration_locks.holder("things") is None
    encoded = V3.encoded
    reembed(store)
    assert (30 if stage == "copy" else 0) == V3.encoded - encoded
    check_holds(store, passages(), V3)
    assert {"things": "things__0002"} == dict(store.aliases())
    assert (None, "things__0001") == (
        store.metadata("things").copied_from,
        store.metadata("things").previous,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("store", "stage"), ENGINE_BY_STAGE[:-1], indirect=["store"])
def test_what_is_written_before_the_swap_is_there(store: Store, stage: ReembedStage) -> None:
    """New, changed, with other meta alone, and deleted; also just before the swap."""
    changed = [
        replace(passages()[1], text="another text"),
        replace(passages()[2], meta={"n": -1}),
        Passage("new", "a new one"),
    ]

    def write() -> None:
        ingest_passages(changed, store, collection="things", encoder=V2, optimize=False)
        assert 1 == delete_passages(store, ["4"], collection="things")

    reembed(store, on_progress=at(stage, write))
    kept = [one for one in passages() if one.pid not in ("1", "2", "4")]
    check_holds(store, [*kept, *changed], V3)


def test_v5_a_point_that_is_not_a_passage_on_either_side(memory: Store) -> None:
    """Another program keeps writing it to both collections; no passage seems to be missing."""

    def write(name: str) -> None:
        spec = memory.collection(name).spec()
        vectors = V3.encode_queries(["foreign"])
        words = [SparseVector([1], [1.0])]
        memory.collection(name).upsert(PointBatch(spec.dense, [777], vectors, words, [{"x": 1}]))

    def damage(progress: ReembedProgress) -> None:
        if progress.stage == "verify" and not progress.done:
            write("things__0002")

    write("things__0001")
    report = reembed(memory, on_progress=damage)
    assert (30, {"x": 1}) == (
        report.copied,
        memory.collection("things").retrieve([777], ("x",))[777],
    )


def test_after_the_swap_the_newer_write_wins(store: Store) -> None:
    """A change of before the swap is not copied over one of after it; a deletion stays."""
    first, second = replace(passages()[1], text="first"), replace(passages()[1], text="second")

    def before() -> None:
        ingest_passages([first], store, collection="things", encoder=V2, optimize=False)
        ingest_passages([Passage("4", "late")], store, collection="things", encoder=V2)

    def after() -> None:
        ingest_passages([second], store, collection="things", encoder=V3, optimize=False)
        assert 1 == delete_passages(store, ["4"], collection="things")

    reembed(store, on_progress=at_stages({"swap": before, "last pass": after}))
    kept = [one for one in passages() if one.pid not in ("1", "4")]
    check_holds(store, [*kept, second], V3)


def test_a_return_to_an_older_text_wins_too(store: Store) -> None:
    """What the new collection holds looks unchanged, and is older than what is to be copied."""
    original = passages()[1]
    change, back = replace(original, text="changed"), original

    def write(one: Passage, encoder: HashingEncoder) -> Callable[[], object]:
        return lambda: ingest_passages(
            [one], store, collection="things", encoder=encoder, optimize=False
        )

    actions: dict[ReembedStage, Callable[[], object]]
    actions = {"swap": write(change, V2), "last pass": write(back, V3)}
    reembed(store, on_progress=at_stages(actions))
    check_holds(store, passages(), V3)


def test_a_deletion_is_not_undone_by_an_interrupted_last_pass(store: Store) -> None:
    """What was copied and then deleted from the old one alone, as if a process died between."""

    def late() -> None:
        ingest_passages([Passage("late", "late")], store, collection="things", encoder=V2)

    on_progress = at("swap", late)
    reembed_until_copied(store, on_progress)
    metadata = store.metadata("things")
    assert ("things__0001", 1) == (metadata.copied_from, metadata.swaps)
    ingest_passages([Passage("own", "mine")], store, collection="things", encoder=V3)
    store.collection("things__0001").delete([point_id("late")], up_to_seq=2**62)
    reembed(store)
    check_holds(store, [*passages(), Passage("own", "mine")], V3)


def reembed_until_copied(store: Store, on_progress: Callable[[ReembedProgress], None]) -> None:
    """A run that ends in its last pass, after that has copied what there was."""

    def watch(progress: ReembedProgress) -> None:
        on_progress(progress)
        if progress.stage == "last pass" and progress.done:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        reembed(store, on_progress=watch)


def test_an_ingest_across_the_swap_stops(store: Store) -> None:
    """A row, then the name is led elsewhere, and another row: what came after it does not count."""

    def source() -> Iterator[Passage]:
        yield Passage("a", "first")
        reembed(store)
        yield Passage("b", "second")

    with pytest.raises(IngestStoppedError, match="re-embedded with costless-256v3") as error:
        ingest_passages(source(), store, collection="things", encoder=V2, window=1)
    assert error.value.report.written < 2  # the first may have gone in before
    again = [Passage("a", "first"), Passage("b", "second")]
    ingest_passages(again, store, collection="things", encoder=V3)
    check_holds(store, [*passages(), *again], V3)


def test_settings_are_kept(tmp_path: Path) -> None:
    """Also those that migrations have changed: thresholds, indexes and BM25."""
    with new_store("loopback", tmp_path) as store:
        ingest_passages(
            passages(),
            store,
            collection="things",
            encoder=V2,
            bm25=Bm25Settings(avg_len=3.0),
            payload_indexes={"n": "integer"},
        )
        changed = store.admin_collection("things")
        changed.alter(
            SettingsChange(m=24, quantization="turbo4", on_disk=False, indexing_threshold_kb=123)
        )
        changed.create_payload_index("meta.kind", "keyword")
        metadata = store.metadata("things")
        ledger = (*metadata.migrations, "0001_of_mine")
        store.put_metadata("things", replace(metadata, migrations=ledger))
        old = store.collection("things").info().spec
        reembed(store, SMALL)
        new = store.collection("things").info().spec
        assert replace(old, dense=new.dense, dimension=128) == new
        assert HnswSettings(24, 256) == new.hnsw
        assert 123 == store.admin_collection("things").optimizers().indexing_threshold_kb
        assert (ledger, 3.0) == (
            store.metadata("things").migrations,
            store.metadata("things").bm25.avg_len,
        )


def test_other_bm25_settings_since_the_way_back(memory: Store) -> None:
    """What is beside it would keep words of the old ones."""
    reembed(memory)
    rollback(memory)
    metadata = memory.metadata("things")
    memory.put_metadata("things", replace(metadata, bm25=Bm25Settings(avg_len=5.0)))
    with pytest.raises(UsageError, match="its BM25 settings differ from"):
        reembed(memory)


def test_texts_from_a_source(store: Store) -> None:
    """As far as they are those of the collection; the rest is read from it."""
    source = [
        *passages(20),
        replace(passages()[25], text="not this text"),
        Passage("unknown", "not in the collection"),
    ]
    report = reembed(store, source=source)
    assert 30 == report.copied
    check_holds(store, passages(), V3)


def test_a_model_without_vectors_is_refused_early(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried on all passages."""
    for module, name in ((copy, "WINDOW"), (copy, "_PAGE"), (run, "_MAX_WITHOUT_VECTOR")):
        monkeypatch.setattr(module, name, 20)
    many = [Passage(f"a{number}", "alone") for number in range(200)]
    ingest_passages(many, memory, collection="things", encoder=V2, optimize=False)
    seen: list[int] = []
    with pytest.raises(MigrationError, match=r"returns no vector for [2-9]\d passages, such as 'a"):
        reembed(
            memory,
            Wordless(256, salt="wordless"),
            on_progress=lambda progress: seen.append(progress.done),
        )
    assert 230 > max(seen)


def test_a_pid_twice_in_a_source(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files may overlap; also in different windows."""
    monkeypatch.setattr(copy, "WINDOW", 20)
    assert 30 == reembed(memory, source=[*passages(), *passages()]).copied
